"""``mognet queues list`` and ``mognet queues purge``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

from mognet.app import App
from mognet.cli.desk import Answer, Desk
from mognet.cli.display import Column, Sheet, Span
from mognet.cli.failures import OK, REFUSED
from mognet.cli.text import clean, plural
from mognet.control import NodeStatus
from mognet.records import Query
from mognet.states import ResultState

ANSWER_TIME = 0.5
"""Seconds that workers have to say where they listen."""

LOOKED_AT = 5000
"""Waiting jobs whose time is looked at, to tell those that are due later; what is beyond counts as ready."""

_COLUMNS = (
    Column("QUEUE", shrink=True),
    Column("READY", right=True),
    Column("SCHEDULED", right=True),
    Column("RUNNING", right=True),
    Column("SUSPENDED", right=True),
    Column("WORKERS", right=True),
    Column("NOTE", shrink=True),
)


async def measure(app: App, nodes: Sequence[NodeStatus] | None = None) -> list[dict[str, Any]]:
    """How much waits and runs in each queue that is known or holds jobs, and how many workers listen. ``nodes``, if they were asked."""
    if nodes is None:
        nodes = [node async for node in app.get_current_status_of_nodes(timeout=ANSWER_TIME)]
    listeners = Counter(queue for node in nodes for queue in node.payload.queues)
    counts = {state: await _count(app, state) for state in (ResultState.PENDING, ResultState.RUNNING, ResultState.SUSPENDED)}
    later = Counter([queue async for queue in _scheduled(app)])
    names = sorted({*app.get_task_queue_names(), *listeners, *(name for each in counts.values() for name in each)})
    return [
        {
            "queue": name,
            "ready": max(0, counts[ResultState.PENDING].get(name, 0) - later[name]),
            "scheduled": later[name],
            "running": counts[ResultState.RUNNING].get(name, 0),
            "suspended": counts[ResultState.SUSPENDED].get(name, 0),
            "workers": listeners[name],
        }
        for name in names
    ]


async def _count(app: App, state: ResultState) -> dict[str, int]:
    return await app.engine.count(Query(states=frozenset({state})), by="queue")


async def _scheduled(app: App) -> AsyncIterator[str]:
    """The queue of each waiting job that is due later."""
    now = time.time()
    async for record in app.engine.search(Query(states=frozenset({ResultState.PENDING}), newest_first=True, limit=LOOKED_AT)):
        if record.due > now:
            yield record.queue


async def list_queues(desk: Desk) -> int:
    """Show the queues."""

    async def look() -> Answer:
        rows = await measure(desk.app)
        return Answer(rows, queues_sheet(rows))

    await desk.show(look)
    return OK


def queues_sheet(rows: Sequence[dict[str, Any]]) -> Sheet:
    """The queues as a table."""
    return Sheet(_COLUMNS, [_row(row) for row in rows], empty="no queues", spare=("SUSPENDED", "SCHEDULED", "WORKERS", "NOTE"), without=())


def _row(row: dict[str, Any]) -> list[Span | str]:
    alone = row["ready"] and not row["workers"]
    numbers = [f"{row[key]:,}" for key in ("ready", "scheduled", "running", "suspended", "workers")]
    return [row["queue"], *numbers, Span("no worker listens" if alone else "", "yellow")]


async def purge_queues(desk: Desk, *, force: bool) -> int:
    """Delete what waits in this app's queues, or say how much that would be."""
    names = sorted(desk.app.get_task_queue_names())
    if force:
        purged = await desk.app.purge_task_queues()
    else:
        purged = {name: (await desk.app.queue_stats(name)).message_count for name in names}
    total = sum(purged.values())
    sheet = Sheet(
        (Column("QUEUE", shrink=True), Column("DELETED" if force else "WAITING", right=True)), [[q, f"{n:,}"] for q, n in purged.items()]
    )

    async def look() -> Answer:
        return Answer({"deleted" if force else "would_delete": purged}, sheet)

    await desk.show(look)
    if force:
        return OK
    if total == 0:
        desk.note("nothing waits, so there is nothing to delete")
        return OK
    desk.note(f"nothing was deleted: --force deletes {plural(total, 'waiting job')} in {clean(', '.join(names))}, for good")
    return REFUSED
