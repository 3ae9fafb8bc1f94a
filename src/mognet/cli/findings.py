"""How findings are shown."""

from __future__ import annotations

from collections.abc import Iterable

from mognet.cli.display import Line, Lines, Span
from mognet.engines.findings import Finding, Grade

_MARKS: dict[Grade, Span] = {"ok": Span("✓", "green"), "warning": Span("!", "yellow"), "error": Span("✗", "red")}


def as_lines(findings: Iterable[Finding]) -> Lines:
    """One line for each, with what mends it below; broker and store under headings of their own."""
    lines: list[Line] = []
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            lines.append([Span(section or "app", "bold")])
        lines.append([_MARKS[finding.grade], " ", Span(finding.subject, "bold"), f"  {finding.text}"])
        if finding.remedy:
            lines.append([Span(f"    → {finding.remedy}", "dim")])
    return Lines(lines)
