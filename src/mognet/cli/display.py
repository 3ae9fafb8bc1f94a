"""Tables and lines: plain text for pipes, rich where there is a terminal to look at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, TextIO

from mognet.cli.text import clean
from mognet.states import ResultState

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text


class Span(NamedTuple):
    """A piece of text in one style. Stored strings may be put in as they are: they are cleaned when they are shown."""

    text: str
    style: str = ""
    shrink: bool = False
    """Whether its beginning is cut off where a line is to be cut, so that what follows can be seen."""


Line = Sequence[Span | str]

_GAP = 2
"""Spaces between columns."""

_EASY = 12
"""How narrow a column may become while there is another one to do without; after that, as narrow as it has to be."""

_ROOMY = 4
"""Lines of a table that can spare one to say how much is left out."""

STATE_STYLES = {
    ResultState.PENDING: "cyan",
    ResultState.RUNNING: "blue",
    ResultState.SUSPENDED: "magenta",
    ResultState.SUCCESS: "green",
    ResultState.FAILURE: "red",
    ResultState.REVOKED: "yellow",
    ResultState.INVALID: "red",
}


def state_span(state: ResultState) -> Span:
    """A state in its colour."""
    return Span(str(state), STATE_STYLES[state])


class Column(NamedTuple):
    """A table's column. One that may ``shrink`` gives way in a narrow terminal; the others are shown in full."""

    title: str
    right: bool = False
    shrink: bool = False
    keep_end: bool = False
    """Whether the beginning is cut off rather than the end: of dotted names, the last part says most."""


@dataclass
class Sheet:
    """A table."""

    columns: Sequence[Column]
    rows: list[Sequence[Span | str]] = field(default_factory=list)
    empty: str = "nothing found"
    """What is said when there are no rows."""
    more: int = 0
    """Rows that are left out at the end."""
    spare: Sequence[str] = ()
    """Titles of columns that a narrow terminal does without, the first of them first; others stay, however narrow it is."""
    without: Sequence[str] | None = None
    """Titles of columns that are left out, to be told in a line below; None: they are not told."""
    tight: bool = False
    """Whether there is no line to say how much is left out: then the first title does."""

    def fit(self, height: int) -> Sheet:
        """What of it a terminal of so many lines can show, and how much is left out."""
        if len(self.rows) < height:
            return self
        tight = height < _ROOMY
        room = max(1, height - (1 if tight else 2))  # the titles, and the line that says how much is left out
        return replace(self, rows=self.rows[:room], more=len(self.rows) - room, tight=tight)

    def plain(self) -> str:
        """As text for a pipe: nothing is cut."""
        if not self.rows:
            return self.empty
        lines = [[column.title for column in self.columns], *([_plain(cell) for cell in row] for row in self.rows)]
        widths = [max(map(_cells, cells)) for cells in zip(*lines, strict=True)]
        pads = [str.rjust if column.right else str.ljust for column in self.columns]
        gap = " " * _GAP
        return "\n".join(
            gap.join(pad(cell, n - _cells(cell) + len(cell)) for pad, cell, n in zip(pads, line, widths, strict=True)).rstrip()
            for line in lines
        )

    def rich(self, width: int) -> RenderableType:
        """For a terminal of so many columns."""
        from rich.console import Group
        from rich.table import Table

        if not self.rows:
            return _cut(_text([Span(self.empty, "dim")]))
        if self.tight:
            first, *rest = self.columns
            return replace(self, columns=[first._replace(title=f"{first.title} +{self.more:,}"), *rest], more=0, tight=False).rich(width)
        widths = self._widths(width)
        if widths is None:
            return self._without(next(title for title in self.spare if title in self._titles())).rich(width)
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
        for column, cells in zip(self.columns, widths, strict=True):
            table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True, overflow="ellipsis", width=cells)
        for row in self.rows:
            table.add_row(*(_cell(*each) for each in zip(row, self.columns, widths, strict=True)))
        below = [_left_out(self.more)] if self.more else []
        if self.without:
            below.append(Span(f"… a wider window shows {', '.join(self.without)}, too", "dim"))
        return Group(table, *(_cut(_text([line])) for line in below))

    def _titles(self) -> list[str]:
        return [column.title for column in self.columns]

    def _without(self, title: str) -> Sheet:
        kept = [i for i, column in enumerate(self.columns) if column.title != title]
        without = None if self.without is None else [*self.without, title]
        rows: list[Sequence[Span | str]] = [[row[i] for i in kept] for row in self.rows]
        return replace(self, columns=[self.columns[i] for i in kept], rows=rows, without=without)

    def _widths(self, width: int) -> list[int] | None:
        """What each column gets: its full width, or, if that is too much, the widest that may shrink give way. None: one has to go."""
        lines = [[column.title for column in self.columns], *([_plain(cell) for cell in row] for row in self.rows)]
        widths = [max(map(_cells, cells)) for cells in zip(*lines, strict=True)]
        crowded = not set(self._titles()).isdisjoint(self.spare)
        able = [i for i, column in enumerate(self.columns) if column.shrink]
        while sum(widths) + _GAP * (len(widths) - 1) > width:
            widest = max(able, key=lambda i: widths[i], default=None)
            if widest is None or widths[widest] <= (_EASY if crowded else 1):
                return None if crowded else widths
            widths[widest] -= 1
        return widths


@dataclass
class Lines:
    """Text, line by line."""

    lines: list[Line] = field(default_factory=list)
    cut: bool = False
    """Whether lines are cut at the terminal's edge rather than wrapped."""

    def fit(self, height: int) -> Lines:
        """What of it a terminal of so many lines can show, and how much is left out."""
        room = max(1, height - 1)
        if len(self.lines) <= height:
            return self
        return Lines([*self.lines[:room], [_left_out(len(self.lines) - room)]], self.cut)

    def plain(self) -> str:
        """As text for a pipe."""
        return "\n".join("".join(map(_plain, line)) for line in self.lines)

    def rich(self, width: int) -> RenderableType:
        """For a terminal; wrapping is left to it."""
        from rich.console import Group

        if not self.cut:
            return Group(*map(_text, self.lines))
        return Group(*(_cut(_text(_shrunk(line, width))) for line in self.lines))


class View(Protocol):
    """What can be shown."""

    def fit(self, height: int) -> View:
        """What of it a terminal of so many lines can show."""
        ...

    def plain(self) -> str:
        """As text for a pipe."""
        ...

    def rich(self, width: int) -> RenderableType:
        """For a terminal of so many columns."""
        ...


def _left_out(count: int) -> Span:
    return Span(f"… and {count:,} more: a taller window shows them", "dim")


def live(stream: TextIO) -> bool:
    """Whether a stream goes to a terminal on which what was written can be drawn anew."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def console(*, stderr: bool = False, color: bool) -> Console:
    """A rich console that takes no markup, emoji codes or highlights out of what it shows."""
    from rich.console import Console

    return Console(stderr=stderr, color_system="auto" if color else None, markup=False, emoji=False, highlight=False)


def _plain(cell: Span | str) -> str:
    return clean(cell.text if isinstance(cell, Span) else cell)


def _cells(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def last_of(text: str, cells: int) -> str:
    """As much of the end of a text as a terminal shows in so many columns."""
    if _cells(text) <= cells:
        return text
    while _cells(text) >= cells and text:
        text = text[1:]
    return f"…{text}"


def _shrunk(line: Line, width: int) -> Line:
    """A line in which pieces that may shrink take no more than a third, if it is too long."""
    if sum(_cells(_plain(piece)) for piece in line) <= width:
        return line
    most = max(_EASY, width // 3)
    return [piece._replace(text=last_of(_plain(piece), most)) if isinstance(piece, Span) and piece.shrink else piece for piece in line]


def _cell(cell: Span | str, column: Column, width: int) -> Text:
    text = _text([cell])
    if column.keep_end:
        text.plain = last_of(text.plain, width)
    return text


def _text(line: Line) -> Text:
    from rich.text import Text

    return Text.assemble(*((_plain(piece), piece.style if isinstance(piece, Span) else "") for piece in line))


def _cut(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
