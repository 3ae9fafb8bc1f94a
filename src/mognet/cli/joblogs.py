"""``mognet tasks logs``: what a job has logged."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence

from mognet.cli.desk import Answer, Desk, patiently, write
from mognet.cli.display import Line, Lines, Span
from mognet.cli.failures import OK
from mognet.cli.ids import find
from mognet.cli.text import clean_lines
from mognet.entries import LogEntry

LOOK_EVERY = 0.5
"""Seconds between two looks for new entries; workers write them about as often."""

_STYLES = {"DEBUG": "dim", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "PRINT": "cyan"}


async def show_logs(desk: Desk, id: str, *, follow: bool, most: int | None) -> int:
    """Show the entries that are kept; with ``follow``, new ones as they come, until the job has ended."""
    result = await find(desk.app.result_backend, id)
    entries = await result.logs()
    seen = entries[-1].number if entries else 0
    entries = entries if most is None else entries[max(0, len(entries) - most) :]
    if not follow:
        if entries or desk.json:
            write(Answer([entry.to_dict() for entry in entries], Lines(_lines(entries))), desk.options, json=desk.json)
        else:
            kept = desk.app.config.keep_logs
            desk.note("nothing was logged" if kept else "no logs are kept: set keep_logs (MOGNET_KEEP_LOGS=100) where the workers run")
        return OK
    while True:
        for entry in entries:
            write(Answer(entry.to_dict(), Lines(_lines([entry]))), desk.options, json=desk.json, again=desk.json)
            seen = entry.number
        await patiently(result.refresh)
        done = result.done  # asked before the entries: the last ones are written before a job's end
        entries = await patiently(functools.partial(result.logs, after=seen))
        if not entries and done:
            return OK
        if not entries:
            await asyncio.sleep(LOOK_EVERY)


def _lines(entries: Sequence[LogEntry]) -> list[Line]:
    lines: list[Line] = []
    for entry in entries:
        first, *rest = clean_lines(entry.message)
        style = _STYLES.get(entry.level, "")
        head: list[Span | str] = [Span(entry.time.astimezone().strftime("%H:%M:%S"), "dim"), " ", Span(f"{entry.level:<8}", style)]
        lines.append([*head, "" if entry.logger == "stdout" else Span(f"{entry.logger}: ", "dim"), first])
        lines += [[Span(f"    {line}")] for line in rest]
        lines += [[Span(f"    {line}", "dim")] for line in clean_lines(entry.exception)] if entry.exception else []
    return lines
