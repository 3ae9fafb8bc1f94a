"""One job, live, on the standard error stream."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from mognet.cli.display import STATE_STYLES, console, last_of, live
from mognet.cli.ids import short
from mognet.cli.text import clean, span
from mognet.progress import Progress
from mognet.results import Result

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table


BAR = 20
"""Columns of a bar."""

LEAST = 24
"""Columns that name and note need together, before there is a bar."""


class Follower(Protocol):
    """Shows a job as it is now, and notes beside it."""

    def __call__(self, result: Result[Any]) -> None:
        """Show the job as it is now."""

    def note(self, text: str) -> None:
        """Tell something beside it."""


@contextmanager
def follower(*, color: bool) -> Iterator[Follower]:
    """A live line in a terminal; elsewhere, one line for each new state."""
    if not live(sys.stderr):
        yield _Plain()
        return
    from rich.live import Live

    screen = console(stderr=True, color=color)
    shown = _Live(screen)
    with Live(get_renderable=shown.render, console=screen, transient=True, refresh_per_second=8, redirect_stdout=False):
        yield shown


class _Plain:
    def __init__(self) -> None:
        self._seen: tuple[object, ...] = ()

    def __call__(self, result: Result[Any]) -> None:
        if result.done or (result.state, result.node_id) == self._seen:
            return
        self._seen = (result.state, result.node_id)
        node = f" on {result.node_id}" if result.node_id else ""
        self.note(f"{result.name} {short(result.id)} {result.state}{node}")

    def note(self, text: str) -> None:
        print(clean(text), file=sys.stderr, flush=True)


class _Live:
    def __init__(self, screen: Console) -> None:
        from rich.spinner import Spinner

        self._screen = screen
        self._spinner = Spinner("dots", style="blue")
        self._began = time.monotonic()
        self._result: Result[Any] | None = None

    def __call__(self, result: Result[Any]) -> None:
        self._result = result

    def note(self, text: str) -> None:
        self._screen.print(clean(text))

    def render(self) -> RenderableType:
        """The line; asked for at each refresh, so that the time goes on between looks."""
        from rich.table import Table
        from rich.text import Text

        result = self._result
        if result is None:
            return Text("")
        note = Text(overflow="ellipsis", no_wrap=True)
        if result.progress is not None and result.progress.message:
            note.append(f"{clean(result.progress.message)} ")
        if result.node_id:
            note.append(f"on {clean(result.node_id)}", "dim")
        job = [*job_cells(result), Text(span(time.monotonic() - self._began)), note]
        line = Table.grid(padding=(0, 1))
        line.add_row(self._spinner, job_table([job], self._screen.width - 2))
        return line


def job_table(rows: Sequence[Sequence[RenderableType]], width: int) -> Table:
    """Jobs, a line for each, of :func:`job_cells`, the time, and a note. Where there is little room, ids and states stay whole."""
    from rich.table import Table
    from rich.text import Text

    widths = _widths(rows, width)
    table = Table.grid(padding=(0, 1))
    for number, cells in enumerate(widths):
        table.add_column(no_wrap=True, overflow="ellipsis", justify="right" if number in (4, 5) else "left", width=cells)
    for name, *others in rows:
        table.add_row(Text(last_of(str(name), widths[0])), *others)
    return table


def _widths(rows: Sequence[Sequence[RenderableType]], width: int) -> list[int]:
    """What each column gets: the name and the note share what the others leave."""
    from rich.text import Text

    found = [max(cell.cell_len if isinstance(cell, Text) else BAR for cell in column) for column in zip(*rows, strict=True)]
    left = width - sum(found[1:-1]) - len(found)
    if left < LEAST and found[3]:
        found[3], left = 0, left + found[3]  # the bar gives way first
    found[0] = max(1, min(found[0], max(left // 2, left - found[-1])))
    found[-1] = max(1, min(found[-1], left - found[0]))
    return found


def job_cells(result: Result[Any]) -> list[RenderableType]:
    """A job's name, id, state, bar, and how far it is."""
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    told = result.progress
    total = None if told is None else told.total
    bar = ProgressBar(total, min(told.done, total), width=BAR) if told is not None and total else Text("")
    return [
        Text(clean(result.name or "-"), overflow="ellipsis", no_wrap=True),
        Text(short(result.id), style="dim"),
        Text(str(result.state), style=STATE_STYLES[result.state]),
        bar,
        Text(amount(told)),
    ]


def amount(told: Progress | None) -> str:
    """``3/10``, or ``3`` if the total is not known."""
    if told is None:
        return ""
    return f"{told.done:,.6g}" if told.total is None else f"{told.done:,.6g}/{told.total:,.6g}"


def percent(told: Progress | None) -> str:
    """``30%``, if the total is known; else the amount."""
    if told is None:
        return ""
    return amount(told) if told.fraction is None else f"{told.fraction:.0%}"
