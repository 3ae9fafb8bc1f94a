"""What a sweep does: brings back what was lost, ends what is too late, and deletes what has expired."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from mognet.engines.postgres import statements as sql
from mognet.engines.postgres.arrays import Numbers
from mognet.engines.postgres.connecting import Connection
from mognet.engines.postgres.line import remove
from mognet.engines.postgres.records import end_late
from mognet.engines.postgres.tables import Tables
from mognet.engines.postgres.text import from_column
from mognet.records import Record


class Upkeep(NamedTuple):
    """What a sweep did, and in which queues something is in line again."""

    recovered: int
    expired: int
    more: bool
    late: int
    carried: int
    queues: set[str]
    ended: list[Record]
    """Those that were too late, and their descendants."""
    told: int
    """Whether a change was noted, as :data:`statements.TOLD` says it."""


async def sweep(tables: Tables, connection: Connection, grace: float, limit: int) -> Upkeep:
    """Put lost jobs back in line, and delete what has expired."""
    [(anything,)] = await tables.all(connection, sql.ANYTHING, grace=float(grace))
    if not anything:
        return Upkeep(0, 0, False, 0, 0, set(), [], 0)
    lost = await tables.all(connection, sql.RECOVER, limit=limit)
    late = await tables.all(connection, sql.LATE, limit=limit)
    ended: dict[UUID, Record] = {}
    told = max((noted for _, noted in lost), default=0)
    for id, ttl in late:
        if id not in ended:
            update = await end_late(tables, connection, id, ttl)
            ended |= {record.id: record for record in update.ended}
            told = max(told, update.told)
    carried = await tables.all(connection, sql.LINE_UP, limit=limit, grace=float(grace))
    async with connection.transaction():
        looked, expired = await _expire(tables, connection, limit)
    queues = {from_column(row[0]) for row in lost + carried}
    more = limit in (len(lost), len(late), len(carried), looked)
    number = sum(id in ended for id, _ in late)
    return Upkeep(len(lost), expired, more, number, len(carried), queues, list(ended.values()), told)


async def _expire(tables: Tables, connection: Connection, limit: int) -> tuple[int, int]:
    rows = await tables.all(connection, sql.EXPIRED, limit=limit)
    if not rows:
        return 0, 0
    gone = [(id, seq) for id, seq, state, _, over, _ in rows if over and state >= 3]
    values = [id for id, _, state, _, over, value_over in rows if not over and value_over and state >= 3]
    notes = [(id, seq) for id, seq, _, noted, over, _ in rows if not over and noted]
    count = 0
    if gone:
        await remove(tables, connection, [id for id, _ in gone])
        count += len(gone)
    if notes:
        count += await tables.run(connection, sql.DROP_NOTES, seqs=Numbers(seq for _, seq in notes))
        await tables.run(connection, sql.UNMARK_NOTED, ids=[id for id, _ in notes])
    if values:
        [(number,)] = await tables.all(connection, sql.DROP_VALUES, ids=values)
        count += number
    return len(rows), count
