"""One job, live, on the standard error stream."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mognet.cli.display import STATE_STYLES, console
from mognet.cli.ids import short
from mognet.cli.text import clean, span
from mognet.codec import loads
from mognet.results import Result

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class Follower(Protocol):
    """Shows a job as it is now, and notes beside it."""

    def __call__(self, result: Result[Any]) -> None:
        """Show the job as it is now."""

    def note(self, text: str) -> None:
        """Tell something beside it."""


class Progress(NamedTuple):
    """How far a job says it is."""

    done: float
    total: float

    def __str__(self) -> str:
        return f"{self.done:g}/{self.total:g}"


def progress(result: Result[Any]) -> Progress | None:
    """What the metadata key ``progress`` says, if it is ``{"done": number, "total": number}``."""
    metadata = loads(result.record.metadata)
    told = metadata.get("progress") if isinstance(metadata, dict) else None
    if not isinstance(told, dict):
        return None
    done, total = told.get("done"), told.get("total")
    if not isinstance(done, int | float) or not isinstance(total, int | float) or not 0 < total < float("inf"):
        return None
    return Progress(min(max(done, 0), total), total)


@contextmanager
def follower(*, color: bool) -> Iterator[Follower]:
    """A live line in a terminal; elsewhere, one line for each new state."""
    if not sys.stderr.isatty():
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
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        result = self._result
        if result is None:
            return Text("")
        line = Table.grid(padding=(0, 1))
        cells: list[RenderableType] = [
            self._spinner,
            Text(clean(result.name or "")),
            Text(short(result.id), style="dim"),
            Text(str(result.state), style=STATE_STYLES[result.state]),
        ]
        told = progress(result)
        if told is not None:
            cells += [ProgressBar(told.total, told.done, width=20), Text(str(told))]
        cells.append(Text(span(time.monotonic() - self._began)))
        if result.node_id:
            cells.append(Text(f"on {clean(result.node_id)}", style="dim", overflow="ellipsis", no_wrap=True))
        for _ in cells:
            line.add_column(no_wrap=True)
        line.add_row(*cells)
        return line
