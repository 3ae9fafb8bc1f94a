"""The records, seen from outside: ``app.result_backend``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Unpack
from uuid import UUID

from mognet.codec import ErrorInfo, dump_metadata, loads, shown_key
from mognet.engine import METADATA, Engine
from mognet.entries import LogEntry, read_entry
from mognet.events import read_error
from mognet.exceptions import InvalidCursor, InvalidMetadata, ResultLost, ResultValueLost
from mognet.finding import Filters, Indexes, Order, long_values, name_groups, read_after, read_by, read_filters, read_order, sort_groups
from mognet.outcomes import merge_metadata, set_progress, set_ttl
from mognet.records import Query, Record, Token
from mognet.registry import TaskRegistry
from mognet.results import Result
from mognet.states import ResultState
from mognet.times import in_seconds
from mognet.waiting import Ended, Waiters
from mognet.watching import Hub, Watch

IDENTITY_FOR = 60.0
"""Seconds for which a process takes a store for the one that it was: so a page costs one call."""


def job_id(id: UUID | str) -> UUID:
    """An id, also from its text. Raises ValueError that names what is none."""
    if isinstance(id, UUID):
        return id
    try:
        return UUID(id)
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"a job's id is a UUID, not {id!r}") from None


class ResultBackend:
    """Reads, finds, waits for, labels and deletes jobs."""

    def __init__(self, engine: Engine, registry: TaskRegistry, *, max_metadata_size: int, indexes: Indexes | None = None) -> None:
        self._engine = engine
        self._indexes = Indexes(engine) if indexes is None else indexes
        self._registry = registry
        self._max_metadata_size = max_metadata_size
        self._identity, self._ask_again = "", 0.0
        self.waiters: Waiters = Waiters(engine)
        self.hub: Hub = Hub(engine)

    async def close(self) -> None:
        """Stop waiting and watching."""
        await self.hub.close()
        await self.waiters.close()

    def result(self, record: Record) -> Result[Any]:
        """The result of a record."""
        return Result(record, self)

    async def get(self, id: UUID | str) -> Result[Any] | None:
        """The job's result; None: there is no such job, or its record has expired."""
        return (await self.get_many(id))[0]

    async def get_many(self, *ids: UUID | str) -> list[Result[Any] | None]:
        """The results, in the order asked for, in one round trip."""
        return [None if record is None else Result(record, self) for record in await self._engine.get([job_id(id) for id in ids])]

    async def wait(self, id: UUID | str, *, timeout: float | None = None) -> Result[Any]:
        """The job's result once it has ended. Raises TimeoutError after ``timeout`` seconds, :class:`ResultLost` if it is gone."""
        return Result((await self.ended(job_id(id), timeout=timeout))[0], self)

    async def ended(self, id: UUID, *, known: Record | None = None, timeout: float | None = None) -> Ended:
        """Like :meth:`wait`: the record, and its value (or error) if that came along with the news. ``known`` is how it was last seen."""
        with self.waiters.expect(id, known=known) as ended:
            async with asyncio.timeout(timeout):
                return await ended

    async def read_value(self, record: Record, data: bytes | None = None) -> Any:
        """The value of a job that succeeded, as its task's return type. Raises :class:`ResultValueLost`, :class:`ResultLost`."""
        if data is None:
            data = await self._engine.value(record.id)
        if data is None:
            (found,) = await self._engine.get([record.id])
            raise ResultLost(record.id) if found is None else ResultValueLost(record.id)
        task = self._registry.find(record.name or "")
        return loads(data) if task is None else task.read_value(data)

    async def read_error(self, record: Record, data: bytes | None = None) -> ErrorInfo | None:
        """The error of a job that failed."""
        return read_error(await self._engine.value(record.id) if data is None else data)

    async def get_metadata(self, id: UUID | str) -> dict[str, Any]:
        """The job's metadata as it is now. Raises :class:`ResultLost`."""
        (record,) = await self._engine.get([job_id(id)])
        if record is None:
            raise ResultLost(id)
        metadata: dict[str, Any] = loads(record.metadata)
        return metadata

    async def set_metadata(self, id: UUID | str, /, **metadata: Any) -> None:
        """Merge keys into the job's metadata, whatever its state. Raises :class:`InvalidMetadata`, :class:`ResultLost`."""
        if not await self.change_metadata(id, metadata):
            raise ResultLost(id)

    async def change_metadata(self, id: UUID | str, metadata: dict[str, Any], token: Token | None = None) -> bool:
        """Merge keys; with a token, only while it holds the job. False: no such job, or the token is stale."""
        data = dump_metadata(metadata, limit=self._max_metadata_size)
        change = merge_metadata(data, token, limit=self._max_metadata_size)
        try:
            return await self._engine.update(job_id(id), change, unless=()) is not None
        except InvalidMetadata as error:  # with what is there already, it is too much
            largest = max(metadata, key=lambda key: len(dump_metadata({key: metadata[key]})))
            raise InvalidMetadata(f"{error}; of what was to be set, the largest key is {shown_key(largest)!r}") from None

    async def logs(self, id: UUID | str, *, after: int = 0) -> list[LogEntry]:
        """What the job has logged, oldest first, as far as it is kept (``AppConfig.keep_logs``); entries numbered above ``after``."""
        return [read_entry(line) for line in await self._engine.logs(job_id(id), after=after)]

    async def write_progress(self, token: Token, progress: bytes) -> bool:
        """Store how far an attempt is. False: the token is stale."""
        return await self._engine.update(token.id, set_progress(token, progress)) is not None

    def watch(self, id: UUID | str, *, since: str | None = None) -> Watch:
        """What happens to the job; see :meth:`mognet.App.watch`."""
        return self.hub.watch(job_id(id), None, None, since)

    async def summary(self, id: UUID, root: UUID) -> dict[ResultState, int]:
        """How many jobs of a tree, or of what is under a job of it, are in each state."""
        counts = await self._engine.count(Query(root=root) if id == root else Query(under=id))
        return {state: counts.get(state, 0) for state in ResultState}

    async def delete(self, id: UUID | str, *, include_children: bool = True) -> None:
        """Delete the job's record, value and notes; those of its descendants too."""
        top = job_id(id)
        ids = [top, *[each async for each in self._descendants(top)]] if include_children else [top]
        await self._engine.delete(ids)

    async def set_ttl(self, id: UUID | str, ttl: timedelta, *, include_children: bool = True) -> None:
        """Let the job's record and value live so long from now, or from its end. Raises :class:`ResultLost`."""
        change = set_ttl(in_seconds(ttl, "a TTL"))
        top = job_id(id)
        if await self._engine.update(top, change, unless=()) is None:
            raise ResultLost(id)
        if include_children:
            async for child in self._descendants(top):
                await self._engine.update(child, change, unless=())

    async def _descendants(self, id: UUID) -> AsyncIterator[UUID]:
        seen, todo = {id}, [id]
        while todo:
            async for record in self._engine.search(Query(parent=todo.pop())):
                if record.id not in seen:  # ids that are used again may make a circle
                    seen.add(record.id)
                    todo.append(record.id)
                    yield record.id

    async def get_children_count(self, id: UUID | str) -> int:
        """How many jobs it submitted."""
        return sum((await self._engine.count(Query(parent=job_id(id)))).values())

    async def iterate_children_ids(self, id: UUID | str, *, count: int | None = None) -> AsyncIterator[UUID]:
        """The ids of the jobs it submitted, oldest first."""
        async for record in self._engine.search(Query(parent=job_id(id), limit=count)):
            yield record.id

    async def iterate_children(self, id: UUID | str, *, count: int | None = None) -> AsyncIterator[Result[Any]]:
        """The results of the jobs it submitted, oldest first."""
        async for record in self._engine.search(Query(parent=job_id(id), limit=count)):
            yield Result(record, self)

    # finding

    def find(
        self, *, order: Order = "newest", limit: int | None = None, after: str | None = None, **filters: Unpack[Filters]
    ) -> AsyncIterator[Result[Any]]:
        """The results of the jobs that match (:class:`mognet.finding.Filters`), by creation; without a filter, of all.

        To go on later, give the ``cursor`` of the last one as ``after``. What is found is brought in stretches: a job that changes
        meanwhile is found as it then is, or not any more. Keys of metadata that are not in ``AppConfig.searchable_metadata`` are looked
        for in every job. Raises :class:`InvalidQuery`, :class:`InvalidCursor`.
        """
        return self._find(read_order(read_filters("find", filters), order, limit), after)

    async def _find(self, query: Query, after: str | None) -> AsyncIterator[Result[Any]]:
        identity = await self._known_identity()
        if after is not None:
            try:
                place = read_after(identity, after)
            except InvalidCursor:
                identity = await self._known_identity(anew=True)  # the store may have been emptied since
                place = read_after(identity, after)
            query = query._replace(after=place)
        await self._indexes.warn(query)
        async for record in self._engine.search(query):
            yield Result(record, self, identity)

    async def _known_identity(self, *, anew: bool = False) -> str:
        now = time.monotonic()
        if anew or now >= self._ask_again:
            self._identity = await self._engine.identity()
            self._ask_again = now + IDENTITY_FOR
        return self._identity

    async def count(self, *, by: str = "state", **filters: Unpack[Filters]) -> dict[str, int]:
        """How many jobs match (as in :meth:`find`), by ``"state"``, ``"queue"``, ``"name"`` or ``"metadata:KEY"``; the largest first.

        Values are shown as JSON; a string as it is, unless that could be another value, too. ``""`` is those without the key.
        """
        query, by = read_filters("count", filters), read_by(by)
        await self._indexes.warn(query, by)
        counted = await self._engine.count(query, by=by)
        if by.startswith(METADATA):
            counted = name_groups(counted, await long_values(self._engine, query, by.removeprefix(METADATA), counted))
        return sort_groups(counted)

    async def tally(self, query: Query, *, by: str = "state") -> dict[str, int]:
        """How many records match a query, as the engine counts them."""
        return await self._engine.count(query, by=by)

    async def search(self, query: Query) -> AsyncIterator[Result[Any]]:
        """The results that match a query of the engine's."""
        async for record in self._engine.search(query):
            yield Result(record, self)
