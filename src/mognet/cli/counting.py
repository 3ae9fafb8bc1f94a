"""``mognet tasks count``."""

from __future__ import annotations

from collections.abc import Sequence

from mognet.cli.desk import Answer, Desk
from mognet.cli.display import Column, Sheet, Span, state_span
from mognet.cli.failures import OK
from mognet.cli.filters import Which
from mognet.engine import METADATA
from mognet.states import ResultState


async def count_tasks(desk: Desk, which: Which, by: str) -> int:
    """Show how many jobs there are, by something that they have."""
    found = True

    async def look() -> Answer:
        nonlocal found
        counted = await desk.app.result_backend.count(by=by, **await which.filters(desk.app))
        found = bool(counted)
        title = by.removeprefix(METADATA) if by.startswith(METADATA) else by.upper()
        columns = (Column(title, shrink=True), Column("JOBS", right=True))
        rows: list[Sequence[Span | str]] = [[_group(by, name), f"{count:,}"] for name, count in counted.items()]
        if len(rows) > 1:
            rows.append([Span("in all", "dim"), Span(f"{sum(counted.values()):,}", "dim")])
        return Answer(counted, Sheet(columns, rows, empty="no jobs found"))

    await desk.show(look)
    if not found and (hint := which.hint("tasks count")) is not None:
        desk.note(hint)
    return OK


def _group(by: str, name: str) -> Span | str:
    if by == "state":
        return state_span(ResultState(name))
    return name or Span("(none)", "dim")
