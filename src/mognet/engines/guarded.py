"""The one doorway to an engine: deadlines, repetition of what may be repeated, and one kind of error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar
from uuid import UUID

from mognet.backoff import Backoff
from mognet.engine import Engine, GroupBy, check_login, next_step, until_back
from mognet.exceptions import ConnectionError, ImproperlyConfigured
from mognet.outcomes import Change, Outcome
from mognet.records import Changes, Claim, Job, LogLine, Query, Record, Reindexed, Signal, Swept, Token
from mognet.states import FINAL, ResultState

R = TypeVar("R")

_AGAIN = Backoff(base=0.05, cap=1.0)

_IN_STEPS = frozenset({"search", "count"})
"""Operations whose deadline begins anew with each step that the engine tells of."""


class GuardedEngine:
    """Any engine, with a deadline on every operation.

    An operation that does not answer within ``deadline`` seconds raises :class:`ConnectionError`; a search or a count, one that does not
    get on for so long. One that fails with
    :class:`ConnectionError` is repeated until then, if the seam's law says that it may be sent twice; ``claim``, ``save``,
    ``log`` and ``settle`` are not, since their first answer may be lost with what it said.
    """

    def __init__(self, engine: Engine, *, deadline: float = 30.0, patience: float = 5.0) -> None:
        self._engine = engine
        self.submit_here: Callable[[Job], bool] | None = getattr(engine, "submit_here", None)
        """Submits a job before it returns, on engines that can; False: nothing was done, use :meth:`submit`."""
        self._deadline = deadline
        self._patience = patience

    async def __aenter__(self) -> Self:
        await self._within("connect", self._deadline, self._engine.__aenter__)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._engine.__aexit__(*exc)

    async def until_back(self, seconds: float) -> bool:
        """Wait so long, or until the engine can tell that its server is back."""
        return await until_back(self._engine, seconds)

    async def check_login(self) -> None:
        """Raise :class:`ImproperlyConfigured` if a server that is entered later refuses the login."""
        await check_login(self._engine)

    async def submit(self, jobs: Sequence[Job], *, enqueue: bool = True) -> list[bool]:
        return await self._repeat("submit", lambda: self._engine.submit(jobs, enqueue=enqueue))

    async def submit_on(self, connection: Any, jobs: Sequence[Job]) -> list[bool]:
        """Submit inside the transaction of the caller's own connection, on engines that can."""
        submit_on = getattr(self._engine, "submit_on", None)
        if submit_on is None:
            raise ImproperlyConfigured("connection= needs an engine on the caller's own database; this one cannot join a transaction")
        return list(await submit_on(connection, jobs))

    async def claim(
        self,
        node: str,
        queues: Collection[str],
        limit: int,
        *,
        lease: float,
        wait: float = 0.0,
        ids: Collection[UUID] | None = None,
    ) -> list[Claim]:
        return await self._within(
            "claim", wait + self._deadline, lambda: self._engine.claim(node, queues, limit, lease=lease, wait=wait, ids=ids)
        )

    async def extend(self, tokens: Collection[Token], lease: float) -> set[Token]:
        return await self._repeat("extend", lambda: self._engine.extend(tokens, lease))

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Record | None]:
        return await self._within("settle", self._deadline, lambda: self._engine.settle(outcomes))

    async def get(self, ids: Collection[UUID]) -> list[Record | None]:
        return await self._repeat("get", lambda: self._engine.get(ids))

    async def value(self, id: UUID) -> bytes | None:
        return await self._repeat("value", lambda: self._engine.value(id))

    async def body(self, id: UUID) -> bytes | None:
        return await self._repeat("body", lambda: self._engine.body(id))

    async def update(self, id: UUID, change: Change, *, unless: Collection[ResultState] = FINAL) -> Record | None:
        return await self._repeat("update", lambda: self._engine.update(id, change, unless=unless))

    async def delete(self, ids: Collection[UUID], *, states: Collection[ResultState] = ()) -> int:
        return await self._repeat("delete", lambda: self._engine.delete(ids, states=states))

    async def search(self, query: Query) -> AsyncIterator[Record]:
        records = self._engine.search(query)
        try:
            while True:
                yield await self._within("search", self._deadline, lambda: anext(records))
        except StopAsyncIteration:
            return
        finally:
            if isinstance(records, AsyncGenerator):
                await records.aclose()

    async def count(self, query: Query, *, by: GroupBy | str = "state") -> dict[str, int]:
        return await self._repeat("count", lambda: self._engine.count(query, by=by))

    async def declare(self, keys: Collection[str], *, only: bool = False) -> frozenset[str]:
        return await self._repeat("declare", lambda: self._engine.declare(keys, only=only))

    async def reindex(self, *, limit: int = 1000) -> Reindexed:
        return await self._repeat("reindex", lambda: self._engine.reindex(limit=limit))

    async def identity(self) -> str:
        return await self._repeat("identity", self._engine.identity)

    async def changes(self, since: str | None, query: Query = Query(), *, limit: int = 1000) -> Changes:  # noqa: B008 - immutable
        return await self._repeat("changes", lambda: self._engine.changes(since, query, limit=limit))

    async def log(self, lines: Mapping[Token, Sequence[bytes]], *, keep: int) -> set[Token]:
        return await self._within("log", self._deadline, lambda: self._engine.log(lines, keep=keep))

    async def logs(self, id: UUID, *, after: int = 0) -> list[LogLine]:
        return await self._repeat("logs", lambda: self._engine.logs(id, after=after))

    async def load(self, token: Token) -> dict[str, bytes]:
        return await self._repeat("load", lambda: self._engine.load(token))

    async def save(self, token: Token, changes: Mapping[str, bytes | None], *, ttl: float | None = None) -> dict[str, bytes] | None:
        return await self._within("save", self._deadline, lambda: self._engine.save(token, changes, ttl=ttl))

    async def publish(self, channel: str, body: bytes) -> None:
        await self._within("publish", self._deadline, lambda: self._engine.publish(channel, body))

    @asynccontextmanager
    async def subscribe(self, *channels: str) -> AsyncIterator[AsyncIterator[Signal]]:
        subscription = self._engine.subscribe(*channels)
        signals = await self._within("subscribe", self._deadline, subscription.__aenter__)
        try:
            yield signals
        finally:
            await subscription.__aexit__(None, None, None)

    async def sweep(self, *, grace: float = 30.0, limit: int = 1000) -> Swept:
        return await self._within("sweep", self._deadline, lambda: self._engine.sweep(grace=grace, limit=limit))

    async def _within(self, name: str, seconds: float, operation: Callable[[], Awaitable[R]]) -> R:
        limit = asyncio.timeout(seconds)

        def again() -> None:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time() + seconds)

        outer = next_step.set(again) if name in _IN_STEPS else None
        try:
            async with limit:
                return await operation()
        except TimeoutError as error:
            if limit.expired():
                raise ConnectionError(f"the engine did not answer to {name} within {seconds:g} s") from error
            raise
        finally:
            if outer is not None:
                next_step.reset(outer)

    async def _repeat(self, name: str, operation: Callable[[], Awaitable[R]]) -> R:
        loop = asyncio.get_running_loop()
        until, failures = loop.time() + self._patience, 0
        while True:
            try:
                return await self._within(name, self._deadline, operation)
            except ConnectionError:
                failures += 1
                delay = _AGAIN.delay(failures)
                if loop.time() + delay > until:
                    raise
                await asyncio.sleep(delay)
