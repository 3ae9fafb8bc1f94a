"""What a check finds."""

from __future__ import annotations

from typing import Literal, NamedTuple

from mognet.cli.display import Span

Grade = Literal["ok", "warning", "error"]

_MARKS: dict[Grade, Span] = {"ok": Span("✓", "green"), "warning": Span("!", "yellow"), "error": Span("✗", "red")}


class Finding(NamedTuple):
    """One thing that was looked at: how it is, and what mends it."""

    grade: Grade
    subject: str
    text: str
    remedy: str | None = None

    @property
    def mark(self) -> Span:
        """✓, ! or ✗."""
        return _MARKS[self.grade]


def ok(subject: str, text: str) -> Finding:
    """As it should be."""
    return Finding("ok", subject, text)


def warning(subject: str, text: str, remedy: str | None = None) -> Finding:
    """Worth knowing."""
    return Finding("warning", subject, text, remedy)


def error(subject: str, text: str, remedy: str | None = None) -> Finding:
    """Has to be mended."""
    return Finding("error", subject, text, remedy)
