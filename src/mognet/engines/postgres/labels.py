"""The index of metadata: which paths are in it, and how it comes and goes.

The paths are those of the store, per app, so that each process indexes what any of them has declared. Their version stands in the app's
row: every statement that writes metadata compares it with the one that was known when the labels were made, and does nothing if it is
another. It is raised while nobody writes (the gate). A job's labels are changed only by whoever has locked its row.
"""

# ruff: noqa: S608 - the texts are put together from constants only
from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Any, NamedTuple, TypeVar

from psycopg.errors import LockNotAvailable

from mognet.engines.postgres.arrays import Blobs, Numbers
from mognet.engines.postgres.connecting import Connection
from mognet.engines.postgres.tables import Known, Tables
from mognet.engines.postgres.text import from_column, to_column
from mognet.labels import labels
from mognet.records import Reindexed

T = TypeVar("T")

GATE_TRIES = 12
GATE_MILLISECONDS = (20, 500)
"""How often the gate is waited for, and how long at first and at most. Meanwhile all who write wait behind, so there are pauses."""

PAUSE_MILLISECONDS = 200
"""The longest of them; at much longer ones the connection would be taken for one whose other end is gone."""

_KNOWN = """
SELECT version, logged, number, path.name, dropped, whole FROM mognet.app LEFT JOIN mognet.path USING (app) WHERE app = %(app)s
ORDER BY number"""

_SHUT = "LOCK TABLE mognet.app IN EXCLUSIVE MODE"
_PATIENCE = "SELECT set_config('lock_timeout', %(milliseconds)s::text, true)"

_ANY_JOB = "SELECT 1 FROM mognet.job WHERE app = %(app)s AND created > 0 LIMIT 1"
_ADD = """
INSERT INTO mognet.path (app, name, whole) SELECT %(app)s, name, %(whole)s FROM unnest(%(names)s::text[]) AS each(name)
ON CONFLICT (app, name) DO UPDATE SET dropped = false, whole = excluded.whole, walked_created = 0, walked_seq = 0, remaining = NULL"""
_DROP = "UPDATE mognet.path SET dropped = true WHERE number = ANY(%(numbers)s::int8[])"
_RAISE = "UPDATE mognet.app SET version = version + 1 WHERE app = %(app)s"
_KEEP_LOGS = "UPDATE mognet.app SET version = version + 1, logged = true WHERE app = %(app)s AND NOT logged"

_ENTRIES = """unnest(%(paths)s::int8[], %(values)s::bytea[], %(createds)s::float8[], %(seqs)s::int8[]) AS each(path, value, created, seq)"""

_PUT = f"""
INSERT INTO mognet.label (path, value, created, seq) SELECT path, value, created, seq FROM {_ENTRIES} ON CONFLICT DO NOTHING"""

# (OFFSET 0: each is looked up, however many the planner believes there are.)
_TAKE = f"""
DELETE FROM mognet.label WHERE ctid = ANY(ARRAY(
    SELECT found.row FROM {_ENTRIES} CROSS JOIN LATERAL (
        SELECT ctid AS row FROM mognet.label
        WHERE path = each.path AND value = each.value AND created = each.created AND seq = each.seq OFFSET 0) AS found))"""

_UNDONE = """
SELECT number, name, dropped, walked_created, walked_seq, remaining FROM mognet.path WHERE app = %(app)s AND (dropped OR NOT whole)
ORDER BY number FOR UPDATE"""

_WALK = """
SELECT created, seq, id FROM mognet.job WHERE app = %(app)s AND created > 0 AND (created, seq) > (%(created)s::float8, %(seq)s::int8)
ORDER BY created, seq LIMIT %(limit)s::int8"""

# Those who change the metadata of these jobs, or delete them, wait; those who claim and settle them do not.
_LOCK = """
SELECT seq, created FROM mognet.job WHERE app = %(app)s AND id = ANY(%(ids)s::uuid[]) ORDER BY id FOR KEY SHARE"""
_LEFT = """
SELECT count(*) FROM mognet.job WHERE app = %(app)s AND created > 0 AND (created, seq) > (%(created)s::float8, %(seq)s::int8)"""
_METADATA = """
SELECT seq, metadata FROM unnest(%(seqs)s::int8[]) AS each(seq)
CROSS JOIN LATERAL (SELECT metadata FROM mognet.content WHERE content.seq = each.seq OFFSET 0) AS content"""
_WALKED = """
UPDATE mognet.path SET walked_created = %(created)s::float8, walked_seq = %(seq)s::int8, remaining = %(remaining)s::int8, whole = %(whole)s
WHERE number = ANY(%(numbers)s::int8[])"""

# Whoever deletes a job is just deleting some of them.
_FORGET_LABELS = """
DELETE FROM mognet.label WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM mognet.label WHERE path = %(path)s::int8 LIMIT %(limit)s::int8 FOR UPDATE SKIP LOCKED))"""
_FORGET = """
DELETE FROM mognet.path WHERE number = %(path)s::int8 AND NOT EXISTS (SELECT FROM mognet.label WHERE path = %(path)s::int8)"""


# --- the labels of jobs


class Entry(NamedTuple):
    """A row of the index: a label at a path, and the job's place in the order of creation."""

    path: int
    value: bytes
    created: float
    seq: int


def entries_of(metadata: bytes, paths: dict[str, int], created: float, seq: int) -> Iterator[Entry]:
    """What a job has in the index."""
    return (Entry(paths[path], value, created, seq) for path, value in labels(metadata, paths).items())


async def put_labels(tables: Tables, connection: Connection, entries: Collection[Entry]) -> None:
    """Enter labels of jobs that are locked."""
    if entries:
        await tables.run(connection, _PUT, **_columns(entries))


async def drop_labels(tables: Tables, connection: Connection, entries: Collection[Entry]) -> None:
    """Take labels of jobs out that are locked."""
    if entries:
        await tables.run(connection, _TAKE, **_columns(entries))


async def relabel(tables: Tables, connection: Connection, old: bytes, new: bytes, created: float, seq: int) -> None:
    """Index a job anew whose metadata has changed, and that is locked."""
    known = tables.known
    before = set(entries_of(old, known.paths | known.dropped, created, seq))
    after = set(entries_of(new, known.paths, created, seq))
    await drop_labels(tables, connection, before - after)
    await put_labels(tables, connection, after - before)


def _columns(entries: Collection[Entry]) -> dict[str, Any]:
    # In the order of the index: neighbours come one after the other, and nobody waits for somebody who waits for him.
    paths, values, createds, seqs = zip(*sorted(entries), strict=True)
    return {"paths": Numbers(paths), "values": Blobs(values), "createds": list(createds), "seqs": Numbers(seqs)}


# --- the paths


class Paths(NamedTuple):
    """What is known of an app, and which of its paths have all jobs in the index."""

    known: Known
    whole: dict[str, int]


async def learn(tables: Tables, connection: Connection) -> Paths:
    """What whoever writes has to know now."""
    rows = await tables.all(connection, _KNOWN)
    paths = [(from_column(name), number, dropped, whole) for _, _, number, name, dropped, whole in rows if number is not None]
    version, logged = rows[0][:2]
    kept = {name: number for name, number, dropped, _ in paths if not dropped}
    known = Known(version, kept, {name: number for name, number, dropped, _ in paths if dropped}, logged)
    return Paths(known, {name: number for name, number, dropped, whole in paths if whole and not dropped})


async def declare(tables: Tables, connection: Connection, wanted: Collection[str], only: bool) -> frozenset[str]:
    """Index these paths from now on; answer which of them are whole."""
    paths = await learn(tables, connection)
    known = paths.known.paths.keys()
    if not known >= set(wanted) or (only and known - set(wanted)):

        async def work() -> Paths:
            await _declare(tables, connection, (await learn(tables, connection)).known, set(wanted), only)
            return await learn(tables, connection)

        paths = await while_nobody_writes(tables, connection, work)
    return frozenset(wanted) & paths.whole.keys()


async def _declare(tables: Tables, connection: Connection, known: Known, wanted: set[str], only: bool) -> None:
    new = sorted(to_column(path) for path in wanted - known.paths.keys())
    gone = [number for path, number in known.paths.items() if only and path not in wanted]
    if new:
        # Those who have written are seen here, and those who are about to will know the path.
        await tables.run(connection, _ADD, names=new, whole=not await tables.all(connection, _ANY_JOB))
    if gone:
        await tables.run(connection, _DROP, numbers=Numbers(gone))
    if new or gone:
        await tables.run(connection, _RAISE)


async def keep_logs(tables: Tables, connection: Connection) -> None:
    """From now on there may be log lines: whoever deletes jobs looks for theirs."""
    # Without the gate: lines are added by who has locked their job after this, and so by nobody whose job is just being deleted.
    await tables.run(connection, _KEEP_LOGS)


async def while_nobody_writes(tables: Tables, connection: Connection, work: Callable[[], Awaitable[T]]) -> T:
    """Do something in a transaction that waits for all who write, and lets nobody write until its end.

    Raises LockNotAvailable if somebody's transaction lasts too long. Nobody else is held up by the wait for more than a moment at a time.
    """
    tries, (milliseconds, most) = 0, GATE_MILLISECONDS
    while True:
        try:
            async with connection.transaction():
                await tables.all(connection, _PATIENCE, milliseconds=str(milliseconds))
                await tables.run(connection, _SHUT)
                return await work()
        except LockNotAvailable:
            tries += 1
            if tries == GATE_TRIES:
                raise
        await asyncio.sleep(random.uniform(0.5, 1) * min(milliseconds, PAUSE_MILLISECONDS) / 1000)
        milliseconds = min(2 * milliseconds, most)


async def reindex(tables: Tables, connection: Connection, limit: int) -> Reindexed:
    """Index some more of the jobs that came before their paths were declared, and delete some of what was given up."""
    async with connection.transaction():
        undone = await tables.all(connection, _UNDONE)
        gone = [number for number, _, dropped, _, _, _ in undone if dropped]
        behind = {from_column(name): (number, (created, seq), left) for number, name, dropped, created, seq, left in undone if not dropped}
        deleted, more = await _forget(tables, connection, gone, limit)
        if not behind:
            return Reindexed(deleted, int(more))
        # Together for those paths that have come as far; the others wait for them.
        start = min(place for _, place, _ in behind.values())
        group = {name: number for name, (number, place, _) in behind.items() if place == start}
        done, left = await _walk(tables, connection, group, start, behind[min(group)][2], limit)
        others = [left or 1 for name, (_, _, left) in behind.items() if name not in group]
        return Reindexed(done + deleted, max([left, *others]) + int(more))


async def _walk(
    tables: Tables, connection: Connection, group: dict[str, int], start: tuple[float, int], left: int | None, limit: int
) -> tuple[int, int]:
    created, seq = start
    if left is None:
        [(left,)] = await tables.all(connection, _LEFT, created=created, seq=seq)
    jobs = await tables.all(connection, _WALK, created=created, seq=seq, limit=limit)
    places = dict(await tables.all(connection, _LOCK, ids=[id for _, _, id in jobs]))
    # By a statement of its own: what was changed before the jobs could be locked is seen.
    rows = await tables.all(connection, _METADATA, seqs=Numbers(places))
    await put_labels(tables, connection, [entry for seq, data in rows for entry in entries_of(data, group, places[seq], seq)])
    whole = len(jobs) < limit
    left = 0 if whole else max(1, (left or 0) - len(jobs))
    if jobs:
        created, seq, _ = jobs[-1]
    await tables.run(connection, _WALKED, created=created, seq=seq, remaining=left, whole=whole, numbers=Numbers(group.values()))
    return len(jobs), left


async def _forget(tables: Tables, connection: Connection, gone: Collection[int], limit: int) -> tuple[int, bool]:
    """How many labels were deleted, and whether there may be more."""
    deleted = 0
    for path in gone:
        deleted += await tables.run(connection, _FORGET_LABELS, path=path, limit=limit - deleted)
        if deleted >= limit or not await tables.run(connection, _FORGET, path=path):
            return deleted, True
    return deleted, False
