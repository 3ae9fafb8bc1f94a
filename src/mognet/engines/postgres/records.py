"""The operations on records and notes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from mognet.codec import merge_metadata
from mognet.engines.postgres import statements as sql
from mognet.engines.postgres.arrays import Numbers
from mognet.engines.postgres.connecting import Connection
from mognet.engines.postgres.labels import relabel
from mognet.engines.postgres.line import remove
from mognet.engines.postgres.rows import NUMBERS, WIDTH, make_record, token_text
from mognet.engines.postgres.tables import Stale, Tables
from mognet.engines.postgres.text import from_column, to_column
from mognet.outcomes import Change, may_rerun, revoke
from mognet.records import Record, Token
from mognet.states import FINAL, ResultState

# --- reading


async def get(tables: Tables, connection: Connection, ids: Sequence[UUID]) -> list[Record | None]:
    """Records, in the order asked for."""
    found = {row[0]: make_record(row) for row in await tables.all(connection, sql.GET, ids=list(dict.fromkeys(ids)))}
    return [found.get(id) for id in ids]


async def value(tables: Tables, connection: Connection, id: UUID) -> bytes | None:
    """What a job left."""
    rows = await tables.all(connection, sql.VALUE, id=id)
    return rows[0][0] if rows else None


async def body(tables: Tables, connection: Connection, id: UUID) -> bytes | None:
    """The call of a job that may still be run, or run again."""
    rows = await tables.all(connection, sql.BODY, id=id)
    return rows[0][0] if rows else None


async def identity(tables: Tables, connection: Connection) -> str:
    """What the app's records are known by."""
    [(text,)] = await tables.all(connection, sql.IDENTITY)
    return str(text)


async def load(tables: Tables, connection: Connection, token: Token) -> dict[str, bytes]:
    """The notes of the job that a token holds."""
    rows = await tables.all(connection, sql.NOTES, id=token.id, token=token_text(token))
    return {from_column(name): data for name, data in rows}


# --- writing


async def save(
    tables: Tables, connection: Connection, token: Token, changes: Mapping[str, bytes | None], ttl: float | None
) -> dict[str, bytes] | None:
    """Change notes; answer what was there."""
    async with connection.transaction():
        rows = await tables.all(connection, sql.HOLDER, id=token.id, token=token_text(token))
        if not rows:
            return None
        [(seq, noted, over, limited)] = rows
        if over:
            await tables.run(connection, sql.DROP_NOTES, seqs=Numbers([seq]))
        names = {to_column(name): data for name, data in changes.items()}
        replaced = await tables.all(connection, sql.TAKE_NOTES, seq=seq, names=sorted(names)) if noted else []
        kept = {name: data for name, data in names.items() if data is not None}
        if kept:
            await tables.run(connection, sql.PUT_NOTES, seq=seq, names=list(kept), values=list(kept.values()))
        if limited or ttl is not None or (kept and not noted):
            await tables.run(connection, sql.MARK_NOTED, id=token.id, ttl=None if ttl is None else float(ttl))
        return {from_column(name): data for name, data in replaced}


async def delete(tables: Tables, connection: Connection, ids: Collection[UUID], states: Collection[ResultState]) -> int:
    """Delete jobs, of these states if any are named; answer how many could be seen."""
    numbers = {NUMBERS[state] for state in states or NUMBERS}
    async with connection.transaction():
        locked = await tables.all(connection, sql.LOCK_JOBS, ids=sorted(ids))
        return await remove(tables, connection, [id for id, state in locked if state in numbers])


class Updated(NamedTuple):
    """What an update did."""

    record: Record | None
    ended: list[Record] = []  # noqa: RUF012 - never changed
    """The jobs that it brought to a final state."""
    told: int = 0
    """Whether a change was noted, as :data:`statements.TOLD` says it."""
    again: bool = False
    """Whether the job is in line again."""


class _Found(NamedTuple):
    record: Record
    token: str | None
    noted: bool

    @property
    def seq(self) -> int:
        return self.record.place


async def update(tables: Tables, connection: Connection, id: UUID, change: Change, unless: Collection[ResultState]) -> Updated:
    """Apply a change."""
    async with connection.transaction():
        tree: dict[UUID, None] = {}
        if change.descendants and change.state in FINAL:
            tree = await _lock_tree(tables, connection, id)
        found = await _find(tables, connection, id)
        if found is None:
            return await _bury(tables, connection, id, change) if change.tombstone else Updated(None)
        if change.token is not None and found.token != token_text(change.token):
            return Updated(None)
        if found.record.state in unless:
            return Updated(found.record)
        if change.body is not None:
            return await _rerun(tables, connection, found, change, change.body)
        return await _apply(tables, connection, found, change, tree)


async def end_late(tables: Tables, connection: Connection, id: UUID, ttl: float | None) -> Updated:
    """End a job whose time is over, and all below it, if still nobody holds it."""
    async with connection.transaction():
        tree = await _lock_tree(tables, connection, id)
        if not await tables.all(connection, sql.STILL_LATE, id=id):
            return Updated(None)
        found = await _find(tables, connection, id)
        return Updated(None) if found is None else await _apply(tables, connection, found, revoke(ttl=ttl), tree)


async def _lock_tree(tables: Tables, connection: Connection, id: UUID) -> dict[UUID, None]:
    """Lock a job and its unfinished descendants, until no more have come meanwhile: none can come below those that are locked."""
    locked: dict[UUID, None] = {}
    while True:
        found = dict.fromkeys(each for (each,) in await tables.all(connection, sql.TREE, id=id))
        if found.keys() <= locked.keys() and (locked or not found):
            return found
        locked = found


async def _find(tables: Tables, connection: Connection, id: UUID) -> _Found | None:
    rows = await tables.all(connection, sql.FIND, id=id)
    if not rows:
        return None
    token, noted, over = rows[0][WIDTH:]
    if over:
        await remove(tables, connection, [id])
        return None
    return _Found(make_record(rows[0]), token, noted)


async def _apply(tables: Tables, connection: Connection, found: _Found, change: Change, tree: Collection[UUID]) -> Updated:
    record, id = found.record, found.record.id
    record, told = await _write(tables, connection, record, change)
    ended: list[Record] = []
    changed: list[tuple[Any, ...]] = []
    if change.state in FINAL:
        ids = tree if change.descendants else [id] if not record.done else []
        ended, also = await _end(tables, connection, change, ids)
        told = max(told, also)
    elif change.ttl is not None:
        changed = await tables.all(connection, sql.SET_TTL, id=id, ttl=float(change.ttl))
    if change.state is ResultState.SUSPENDED and record.state is ResultState.RUNNING:
        changed = await tables.all(connection, sql.SUSPEND, id=id)
    elif change.state is ResultState.RUNNING and record.state is ResultState.SUSPENDED:
        changed = await tables.all(connection, sql.RESUME, id=id)
    if changed:
        record = await _reread(tables, connection, id)
    return Updated(next((each for each in ended if each.id == id), record), ended, max([told, *(noted for (noted,) in changed)]))


async def _write(tables: Tables, connection: Connection, record: Record, change: Change) -> tuple[Record, int]:
    """Change what stands in a record's content; answer how it is then, and whether that was noted."""
    metadata = record.metadata if change.metadata is None else merge_metadata(record.metadata, change.metadata, change.max_metadata)
    progress = record.progress if change.progress is None else change.progress
    anew = {
        "metadata": None if metadata == record.metadata else metadata,
        "progress": None if progress == record.progress else progress,
    }
    told = 0
    if any(value is not None for value in anew.values()):
        [(done, told)] = await tables.all(connection, sql.WRITE, id=record.id, seq=record.place, version=tables.known.version, **anew)
        if not done:
            raise Stale
        await relabel(tables, connection, record.metadata, metadata, record.created, record.place)
    return record._replace(metadata=metadata, progress=progress), told


async def _rerun(tables: Tables, connection: Connection, found: _Found, change: Change, body: bytes) -> Updated:
    record = found.record
    if not may_rerun(record, change):
        return Updated(record)
    metadata = record.metadata if change.metadata is None else merge_metadata(record.metadata, change.metadata, change.max_metadata)
    values = {"metadata": metadata, "body": body, "delay": float(change.delay), "version": tables.known.version}
    rows = await tables.all(connection, sql.RERUN, id=record.id, seq=found.seq, **values)
    if not rows:
        raise Stale
    if found.noted:
        await tables.run(connection, sql.DROP_NOTES, seqs=Numbers([found.seq]))
    await relabel(tables, connection, record.metadata, metadata, record.created, found.seq)
    return Updated(await _reread(tables, connection, record.id), told=rows[0][0], again=True)


async def _reread(tables: Tables, connection: Connection, id: UUID) -> Record:
    [row] = await tables.all(connection, sql.REREAD, id=id)
    return make_record(row)


async def _end(tables: Tables, connection: Connection, change: Change, ids: Collection[UUID]) -> tuple[list[Record], int]:
    if not ids or change.state is None:
        return [], 0
    rows: list[tuple[Any, ...]] = await tables.all(
        connection, sql.END, state=NUMBERS[change.state], ttl=None if change.ttl is None else float(change.ttl), ids=sorted(ids)
    )
    await tables.run(connection, sql.DROP_NOTES, seqs=Numbers(row[WIDTH - 1] for row in rows))
    return [make_record(row) for row in rows], max((row[WIDTH] for row in rows), default=0)


async def _bury(tables: Tables, connection: Connection, id: UUID, change: Change) -> Updated:
    """Leave a tombstone."""
    state = NUMBERS[change.state or ResultState.REVOKED]
    [row] = await tables.all(connection, sql.BURY, id=id, state=state, ttl=None if change.ttl is None else float(change.ttl))
    record = make_record(row)
    return Updated(record, [record], row[WIDTH])
