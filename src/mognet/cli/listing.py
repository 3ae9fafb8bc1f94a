"""``mognet tasks list``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mognet.cli.desk import Answer, Desk
from mognet.cli.display import Column, Sheet, Span, state_span
from mognet.cli.failures import OK, USAGE, CommandError
from mognet.cli.filters import Which
from mognet.cli.follow import percent
from mognet.cli.ids import shorten
from mognet.cli.text import age, json_text, local, span
from mognet.codec import ErrorInfo
from mognet.engine import METADATA
from mognet.paths import value_at
from mognet.results import Result
from mognet.states import ResultState


class Page(NamedTuple):
    """How many of the jobs that match are shown, from where on, and what of them."""

    limit: int = 50
    columns: str | None = None
    after: str | None = None


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


def took(result: Result[Any], now: float | None = None) -> str:
    """How long it ran, or has been running."""
    if result.started is None:
        return ""
    until = time.time() if now is None else now
    return span(result.duration if result.duration is not None else until - result.started.timestamp())


def note(result: Result[Any], error: ErrorInfo | None) -> Span | str:
    """What a person wants to know beside the state: progress, the error, or when it is due."""
    if error is not None:
        return Span(f"{error.type_name.rpartition(':')[2]}: {error.message}", "red")
    if result.state is ResultState.PENDING and (wait := result.due.timestamp() - time.time()) > 0.5:
        return f"due in {span(wait)}"
    told = None if result.done else result.progress
    return "" if told is None else f"{percent(told)} {told.message or ''}".strip()


def error_data(error: ErrorInfo | None) -> dict[str, str] | None:
    """Why a job has failed, for JSON."""
    return None if error is None else {"type": error.type_name.removeprefix("builtins:"), "message": error.message}


_COLUMNS: dict[str, tuple[Column, _Cell]] = {
    "id": (Column("ID"), lambda row: row.short_id),
    "task": (Column("TASK", shrink=True, keep_end=True), lambda row: row.result.name or "-"),
    "queue": (Column("QUEUE", shrink=True), lambda row: row.result.queue_name),
    "state": (Column("STATE"), lambda row: state_span(row.result.state)),
    "age": (Column("AGE", right=True), lambda row: age(row.result.created)),
    "took": (Column("TOOK", right=True), lambda row: took(row.result)),
    "try": (Column("TRY", right=True), _try),
    "node": (Column("NODE", shrink=True), lambda row: row.result.node_id or ""),
    "progress": (Column("PROGRESS", right=True), lambda row: percent(row.result.progress)),
    "note": (Column("NOTE", shrink=True), lambda row: note(row.result, row.error)),
    "waited": (Column("WAITED", right=True), lambda row: span(row.result.queue_time)),
    "priority": (Column("PRIO", right=True), lambda row: str(row.result.priority)),
    "created": (Column("CREATED"), lambda row: local(row.result.created)),
    "started": (Column("STARTED"), lambda row: local(row.result.started)),
    "finished": (Column("FINISHED"), lambda row: local(row.result.finished)),
    "parent": (Column("PARENT"), lambda row: str(row.result.parent_id or "")[:8]),
    "args": (Column("ARGUMENTS", shrink=True), lambda row: row.result.request_kwargs_repr or ""),
    "metadata": (Column("METADATA", shrink=True), lambda row: json_text(row.result.metadata)),
}
_USUAL = ("id", "task", "queue", "state", "age", "took", "try", "note")
_SPARE = ("QUEUE", "TRY", "TOOK", "AGE", "NOTE")
"""What a narrow window does without, the first of it first."""
_KEPT = ("ID", "TASK", "STATE")
"""What it shows, however narrow it is."""
_SAME = {"name": "task", "attempt": "try", "arguments": "args", "node_id": "node", "parent_id": "parent", "request_kwargs_repr": "args"}
"""Other words for columns: those of the JSON."""


async def list_tasks(desk: Desk, which: Which, page: Page) -> int:
    """List jobs, newest first."""
    columns = _columns(page.columns)
    results: list[Result[Any]] = []

    async def look() -> Answer:
        found = desk.app.result_backend.find(limit=page.limit + 1, after=page.after, **await which.filters(desk.app))
        results[:] = [result async for result in found]
        shown = results[: page.limit]
        data = [result.to_dict() | {"cursor": result.cursor} for result in shown]
        return Answer(data, Sheet([]) if desk.json else await _sheet(shown, columns))

    await desk.show(look)
    if len(results) > page.limit and not desk.json:
        desk.note(f"there are more; for the next ones, add: --after {results[page.limit - 1].cursor}")
    elif not results and (hint := which.hint("tasks list")) is not None:
        desk.note(hint)
    return OK


def _columns(given: str | None) -> list[tuple[Column, _Cell]]:
    if given is None:
        return [_COLUMNS[name] for name in _USUAL]
    words = [word for each in given.split(",") if (word := each.strip())]
    names = [word if word.startswith(METADATA) else _SAME.get(word.lower(), word.lower()) for word in words]
    unknown = [name for name in names if name not in _COLUMNS and (name == METADATA or not name.startswith(METADATA))]
    if unknown or not names:
        known = f"{', '.join(_COLUMNS)}, {METADATA}KEY"
        raise CommandError(f"--columns: there is no column {', '.join(unknown) or given!r}; there are: {known}", USAGE)
    return [_COLUMNS[name] if name in _COLUMNS else _metadata(name.removeprefix(METADATA)) for name in names]


def _metadata(path: str) -> tuple[Column, _Cell]:
    """A column for one key of metadata."""

    def cell(row: Row) -> str:
        value = value_at(row.result.metadata, path, "")
        return value if isinstance(value, str) else json_text(value)

    return Column(path, shrink=True), cell


async def _sheet(results: Sequence[Result[Any]], columns: Sequence[tuple[Column, _Cell]]) -> Sheet:
    errors: Sequence[ErrorInfo | None] = [None] * len(results)
    if _COLUMNS["note"] in columns:
        errors = await asyncio.gather(*(result.error() for result in results))
    ids = shorten(result.id for result in results)
    rows = [Row(result, ids[result.id], error) for result, error in zip(results, errors, strict=True)]
    return list_sheet([column for column, _ in columns], [[cell(row) for _, cell in columns] for row in rows])


def list_sheet(columns: Sequence[Column], rows: Sequence[Sequence[Span | str]]) -> Sheet:
    """Jobs as a table, of which a narrow window shows what matters most."""
    return Sheet(columns, list(rows), empty="no jobs found", spare=_spare([column.title for column in columns]), without=())


def _spare(titles: Sequence[str]) -> list[str]:
    """What of these columns a narrow window does without: of the usual ones, or from the last that was asked for, all but the first."""
    usual = [_COLUMNS[name][0].title for name in _USUAL]
    return list(_SPARE) if titles == usual else [title for title in reversed(titles[1:]) if title not in _KEPT]
