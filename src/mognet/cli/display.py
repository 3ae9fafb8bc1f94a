"""Tables and lines: plain text for pipes, rich where there is a terminal to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mognet.cli.text import clean
from mognet.states import ResultState

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text


class Span(NamedTuple):
    """A piece of text in one style. Stored strings may be put in as they are: they are cleaned when they are shown."""

    text: str
    style: str = ""


Line = Sequence[Span | str]

_GAP = 2
"""Spaces between columns."""

_LEAST = 8
"""How narrow a column may become."""

_EASY = 12
"""How narrow, while there is another one to do without."""

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
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        pads = [str.rjust if column.right else str.ljust for column in self.columns]
        return "\n".join("  ".join(pad(cell, n) for pad, cell, n in zip(pads, line, widths, strict=True)).rstrip() for line in lines)

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
            table.add_row(*(_text([cell]) for cell in row))
        return Group(table, _cut(_text([_left_out(self.more)]))) if self.more else table

    def _titles(self) -> list[str]:
        return [column.title for column in self.columns]

    def _without(self, title: str) -> Sheet:
        kept = [i for i, column in enumerate(self.columns) if column.title != title]
        return replace(self, columns=[self.columns[i] for i in kept], rows=[[row[i] for i in kept] for row in self.rows])

    def _widths(self, width: int) -> list[int] | None:
        """What each column gets: its full width, or, if that is too much, the widest that may shrink give way. None: one has to go."""
        from rich.cells import cell_len

        lines = [[column.title for column in self.columns], *([_plain(cell) for cell in row] for row in self.rows)]
        widths = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
        crowded = not set(self._titles()).isdisjoint(self.spare)
        able = [i for i, column in enumerate(self.columns) if column.shrink]
        while able and sum(widths) + _GAP * (len(widths) - 1) > width:
            widest = max(able, key=lambda i: widths[i])
            if widths[widest] <= (_EASY if crowded else _LEAST):
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

        texts = [_text(line) for line in self.lines]
        return Group(*(map(_cut, texts) if self.cut else texts))


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


def console(*, stderr: bool = False, color: bool) -> Console:
    """A rich console that takes no markup, emoji codes or highlights out of what it shows."""
    from rich.console import Console

    return Console(stderr=stderr, color_system="auto" if color else None, markup=False, emoji=False, highlight=False)


def _plain(cell: Span | str) -> str:
    return clean(cell.text if isinstance(cell, Span) else cell)


def _text(line: Line) -> Text:
    from rich.text import Text

    return Text.assemble(*((_plain(piece), piece.style if isinstance(piece, Span) else "") for piece in line))


def _cut(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
