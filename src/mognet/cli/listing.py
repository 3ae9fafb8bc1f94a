"""``mognet tasks list``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mognet.cli.desk import Answer, Desk
from mognet.cli.display import Column, Sheet, Span, state_span
from mognet.cli.durations import parse_duration
from mognet.cli.failures import OK, USAGE, CommandError
from mognet.cli.follow import percent
from mognet.cli.ids import shorten
from mognet.cli.text import age, json_text, local, span
from mognet.codec import ErrorInfo, loads
from mognet.records import Query
from mognet.results import Result
from mognet.states import ResultState


class Wanted(NamedTuple):
    """Which jobs to list, and what of them."""

    states: list[str]
    name: str | None = None
    queue: str | None = None
    node: str | None = None
    since: str | None = None
    limit: int = 50
    columns: str | None = None


class Row(NamedTuple):
    """A job, and what else is needed to show it."""

    result: Result[Any]
    short_id: str
    error: ErrorInfo | None


_Cell = Callable[[Row], Span | str]


def _try(row: Row) -> str:
    return str(row.result.attempt) + (f" (+{crashes})" if (crashes := _crashes(row.result)) else "")


def _crashes(result: Result[Any]) -> int:
    """Starts that a lost worker cut off; the present one is not yet one of them."""
    return max(0, result.unexpected_retry_count - (result.state is ResultState.RUNNING))


def took(result: Result[Any]) -> str:
    """How long it ran, or has been running."""
    if result.started is None:
        return ""
    return span(result.duration if result.duration is not None else time.time() - result.started.timestamp())


def note(result: Result[Any], error: ErrorInfo | None) -> Span | str:
    """What a person wants to know beside the state: progress, the error, or when it is due."""
    if error is not None:
        return Span(f"{error.type_name.rpartition(':')[2]}: {error.message}", "red")
    if result.state is ResultState.PENDING and (wait := result.due.timestamp() - time.time()) > 0.5:
        return f"due in {span(wait)}"
    told = None if result.done else result.progress
    return "" if told is None else f"{percent(told)} {told.message or ''}".strip()


_COLUMNS: dict[str, tuple[Column, _Cell]] = {
    "id": (Column("ID"), lambda row: row.short_id),
    "task": (Column("TASK", shrink=True), lambda row: row.result.name or "-"),
    "queue": (Column("QUEUE", shrink=True), lambda row: row.result.queue_name),
    "state": (Column("STATE"), lambda row: state_span(row.result.state)),
    "age": (Column("AGE", right=True), lambda row: age(row.result.created)),
    "took": (Column("TOOK", right=True), lambda row: took(row.result)),
    "try": (Column("TRY", right=True), _try),
    "node": (Column("NODE", shrink=True), lambda row: row.result.node_id or ""),
    "note": (Column("NOTE", shrink=True), lambda row: note(row.result, row.error)),
    "waited": (Column("WAITED", right=True), lambda row: span(row.result.queue_time)),
    "priority": (Column("PRIO", right=True), lambda row: str(row.result.priority)),
    "created": (Column("CREATED"), lambda row: local(row.result.created)),
    "started": (Column("STARTED"), lambda row: local(row.result.started)),
    "finished": (Column("FINISHED"), lambda row: local(row.result.finished)),
    "parent": (Column("PARENT"), lambda row: str(row.result.parent_id or "")[:8]),
    "args": (Column("ARGUMENTS", shrink=True), lambda row: row.result.request_kwargs_repr or ""),
    "metadata": (Column("METADATA", shrink=True), lambda row: json_text(loads(row.result.record.metadata))),
}
_USUAL = ("id", "task", "queue", "state", "age", "took", "try", "note")
_SAME = {"name": "task", "attempt": "try", "arguments": "args"}


async def list_tasks(desk: Desk, wanted: Wanted) -> int:
    """List jobs, newest first."""
    columns = _columns(wanted.columns)
    query = _query(desk, wanted)
    since = None if wanted.since is None else parse_duration(wanted.since, "--since").total_seconds()

    async def look() -> Answer:
        after = None if since is None else time.time() - since
        results = [result async for result in desk.app.result_backend.find(query._replace(created_after=after))]
        return Answer([result.to_dict() for result in results], Sheet([]) if desk.json else await _sheet(results, columns))

    await desk.show(look)
    return OK


def _columns(given: str | None) -> list[str]:
    if given is None:
        return list(_USUAL)
    names = [_SAME.get(name, name) for each in given.split(",") if (name := each.strip().lower())]
    unknown = [name for name in names if name not in _COLUMNS]
    if unknown or not names:
        raise CommandError(f"--columns: there is no column {', '.join(unknown) or given!r}; there are: {', '.join(_COLUMNS)}", USAGE)
    return names


def _query(desk: Desk, wanted: Wanted) -> Query:
    states = set()
    for word in [word.strip() for each in wanted.states for word in each.split(",") if word.strip()]:
        try:
            states.add(ResultState(word.upper()))
        except ValueError:
            raise CommandError(f"--state: there is no state {word!r}; there are: {', '.join(ResultState)}", USAGE) from None
    name = wanted.name
    if name is not None and desk.app.registry.find(name) is None:
        longer = [each for each in desk.app.registry.names() if each.endswith(f".{name}")]
        name = longer[0] if len(longer) == 1 else name
    return Query(frozenset(states), name=name, queue=wanted.queue, node=wanted.node, newest_first=True, limit=wanted.limit)


async def _sheet(results: Sequence[Result[Any]], columns: Sequence[str]) -> Sheet:
    errors: Sequence[ErrorInfo | None] = [None] * len(results)
    if "note" in columns:
        errors = await asyncio.gather(*(result.error() for result in results))
    ids = shorten(result.id for result in results)
    rows = [Row(result, ids[result.id], error) for result, error in zip(results, errors, strict=True)]
    cells = [_COLUMNS[name][1] for name in columns]
    return Sheet([_COLUMNS[name][0] for name in columns], [[cell(row) for cell in cells] for row in rows], empty="no jobs found")
