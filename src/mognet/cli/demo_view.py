"""What the demo shows: live in a terminal, line by line elsewhere, and a report at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mognet.cli.display import STATE_STYLES
from mognet.cli.text import clean, plural
from mognet.states import ResultState

ROWS = 4
"""Rows of each table of the report."""

REFRESH = 0.2
"""Seconds between two pictures on a terminal."""

REPORT_EVERY = 2.0
"""Seconds between two lines elsewhere."""

PACKAGES = {".": "(top level)"}
"""What packages are called whose names are none."""

WORDS = {
    ResultState.SUCCESS: "done",
    ResultState.RUNNING: "running",
    ResultState.SUSPENDED: "waiting for others",
    ResultState.PENDING: "in line",
    ResultState.FAILURE: "failed",
    ResultState.REVOKED: "revoked",
    ResultState.INVALID: "invalid",
}


@dataclass
class WorkerPicture:
    """What one worker does."""

    name: str
    running: int = 0
    waiting: int = 0
    doing: str = ""
    stands_in_for: str | None = None
    killed: tuple[int, int] | None = None
    """How many jobs it ran, and how many waited for others, when it was killed."""


@dataclass
class Picture:
    """The survey at one moment, as the store has it."""

    files: int = 0
    done: int = 0
    states: Mapping[str, int] = field(default_factory=dict)
    workers: list[WorkerPicture] = field(default_factory=list)


@dataclass
class Figures:
    """What the store says at the end."""

    tasks: int
    workers: int
    kills: int
    retried: int
    lost: int


class View(Protocol):
    """Shows how the survey goes."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    def show(self, picture: Picture, *, last: bool = False) -> None:
        """Show the survey as it is now."""
        ...


def make_view(console: Console) -> View:
    """What suits the console."""
    return LiveView(console) if console.is_terminal and not console.is_dumb_terminal else PlainView(console)


class LiveView:
    """A picture that is drawn again and again in the same place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._began = time.monotonic()
        self._shown = 0.0
        self._sign = "-" if console.options.ascii_only else "•"

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def show(self, picture: Picture, *, last: bool = False) -> None:
        """Draw the picture, unless the last one was drawn a moment ago."""
        now = time.monotonic()
        if last or now - self._shown >= REFRESH:
            self._shown = now
            self._live.update(self._draw(picture, now - self._began), refresh=True)

    def _draw(self, picture: Picture, seconds: float) -> RenderableType:
        bar = Table.grid(padding=(0, 2, 0, 0), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True, justify="right")
        bar.add_column(no_wrap=True, justify="right")
        bar.add_row(
            ProgressBar(total=max(1, picture.files), completed=picture.done, finished_style="green", complete_style="blue"),
            f"{picture.done:,} of {plural(picture.files, 'file')}",
            clock(seconds),
        )
        workers = Table.grid(padding=(0, 2, 0, 0))
        workers.add_column(no_wrap=True)
        workers.add_column(no_wrap=True, overflow="ellipsis")
        for worker in picture.workers:
            workers.add_row(Text(f"{self._sign} {worker.name}", "red" if worker.killed else "cyan"), worker_text(worker))
        return Group(bar, states_text(picture), workers)


class PlainView:
    """A line now and then, and one for each thing that happens."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._reported = time.monotonic()
        self._said: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def show(self, picture: Picture, *, last: bool = False) -> None:
        """Print what is new, and how far the survey is if that has not been said for a while."""
        for worker in picture.workers:
            if self._said.get(worker.name) != (said := news(worker)):
                self._said[worker.name] = said
                self._print(f"{worker.name} {said}")
        if last or time.monotonic() - self._reported >= REPORT_EVERY:
            self._reported = time.monotonic()
            self._print(f"{picture.done:,} of {plural(picture.files, 'file')}; {states_text(picture)}")

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)


def news(worker: WorkerPicture) -> str:
    """What is worth a line about a worker."""
    if worker.killed and not worker.running and not worker.waiting:
        return f"killed: its {plural(sum(worker.killed), 'task')} have been taken over"
    if worker.killed:
        ran, waited = worker.killed
        return f"killed: it ran {plural(ran, 'task')}, and {waited:,} of its tasks waited for others"
    return "started" + (f" in place of {worker.stands_in_for}" if worker.stands_in_for else "")


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def states_text(picture: Picture) -> Text:
    """The tree's tasks by state."""
    text = Text(f"{plural(sum(picture.states.values()), 'task')}: ", no_wrap=True, overflow="ellipsis")
    counts = [(word, picture.states.get(state, 0), STATE_STYLES[state]) for state, word in WORDS.items()]
    for index, (word, count, style) in enumerate([each for each in counts if each[1]]):
        text.append(", " if index else "")
        text.append(f"{count:,} {word}", style)
    return text


def worker_text(worker: WorkerPicture) -> Text:
    """What a worker does, in one line."""
    if worker.killed:
        left = worker.running + worker.waiting
        text = Text("killed", "bold red")
        text.append(f" in the middle of {plural(sum(worker.killed), 'task')}; ")
        text.append(f"{left:,} of them wait for its lease to end" if left else "others have taken them over")
        return text
    text = Text(f"runs {worker.running:,}" if worker.running else "idle", "" if worker.running else "dim")
    text.append(f", {worker.waiting:,} waiting" if worker.waiting else "")
    text.append(f"  {clean(worker.doing)}" if worker.doing else "", "dim")
    text.append(f"  (in place of {worker.stands_in_for})" if worker.stands_in_for and not worker.running else "", "dim")
    return text


# The report --------------------------------------------------------------------------------------


def report(console: Console, found: Any) -> None:
    """Print the tables of findings."""
    side_by_side = Table.grid(padding=(0, 4, 0, 0), expand=False)
    side_by_side.add_row(
        table(
            ("Largest packages", "files", "lines"),
            [(PACKAGES.get(size.name, size.name), size.files, size.lines) for size in found.packages],
        ),
        table(("Largest files", "lines"), [(size.name, size.lines) for size in found.largest]),
    )
    functions = [(each.name, each.branches, each.depth, each.lines, each.place) for each in found.hardest]
    console.print()
    console.print(side_by_side)
    console.print()
    console.print(table(("Most complex functions", "branches", "depth", "lines", "where"), functions))
    console.print()
    for line in summary(found):
        console.print(clean(line), no_wrap=True, overflow="ellipsis")


def table(titles: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Table:
    """A table without a frame; numbers stand to the right."""
    result = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, title in enumerate(titles):
        number = bool(rows) and isinstance(rows[0][index], int)
        result.add_column(title, justify="right" if number else "left", no_wrap=True, overflow="ellipsis", max_width=None if number else 30)
    for row in rows[:ROWS]:
        result.add_row(*(f"{cell:,}" if isinstance(cell, int) else Text(clean(cell)) for cell in row))
    return result


def summary(found: Any) -> Iterator[str]:
    """What else was found."""
    functions = f"{plural(found.functions, 'function')} ({found.async_functions:,} async)"
    yield f"{plural(found.lines, 'line')}, {functions}, {plural(found.undocumented, 'definition')} undocumented"
    if found.not_parsed:
        yield f"{plural(found.not_parsed, 'file')} could not be parsed: {', '.join(problem.file for problem in found.problems)}"


def figures_text(figures: Figures) -> Text:
    """The line of figures."""
    text = Text()
    for name, value in vars(figures).items():
        text.append("   " if text else "").append(f"{name} ", "dim").append(f"{value:,}", "bold")
    text.stylize("bold red" if figures.lost else "green", len(text) - len(f"{figures.lost:,}"))
    return text
