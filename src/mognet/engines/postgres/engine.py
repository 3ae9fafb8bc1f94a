"""The engine on PostgreSQL."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Self, TypeVar
from uuid import UUID

from mognet.backoff import Backoff
from mognet.engine import GroupBy, next_step
from mognet.engines.knocking import Doors
from mognet.engines.postgres import changes, labels, line, logbook, records, upkeep
from mognet.engines.postgres import search as searching
from mognet.engines.postgres.borrowed import Borrowed
from mognet.engines.postgres.connecting import Connection, doors
from mognet.engines.postgres.doorbell import Doorbell, Kind
from mognet.engines.postgres.migrate import app_number, migrate
from mognet.engines.postgres.pool import Pool
from mognet.engines.postgres.settings import Settings, parse_url
from mognet.engines.postgres.tables import Stale, Tables
from mognet.engines.postgres.text import to_column
from mognet.exceptions import ConnectionError, ImproperlyConfigured, MognetError, NotConnected
from mognet.outcomes import Change, Outcome
from mognet.records import Changes, Claim, Job, LogLine, Query, Record, Reindexed, Signal, Swept, Token
from mognet.states import FINAL, ResultState

T = TypeVar("T")

LOOK_EVERY = 6.5
"""Seconds between looks at the line while waiting and listening: rings may be lost."""

LOOK_OFTEN = 0.5
"""The same while nothing is heard."""

CLOSE_SECONDS = 5.0

UNDO_SECONDS = 1.0
"""How long a claim that is cancelled waits until it is undone, and the next one of the same engine for it."""

_UNDO = Backoff(base=0.1, cap=5.0)


class PostgresEngine:
    """An :class:`mognet.engine.Engine` in one schema of a database. Many engines, on any number of machines, may share it."""

    def __init__(self, settings: Settings, app: str = "app") -> None:
        self.settings = settings
        self.app = app
        self._doors = Doors(doors(settings))
        self._lookout = self._doors.lookout()
        self._pool: Pool | None = None
        self._bell: Doorbell | None = None
        self._tables = Tables(0, settings.schema)
        self._undoing: set[asyncio.Task[None]] = set()
        self._quiet: tuple[Sequence[str], int] | None = None
        """Queues in which nothing was due, and how many rings had been heard before."""

    @classmethod
    def from_url(cls, url: str, app: str = "app") -> Self:
        """An engine for ``postgresql://…``, with ``?schema=``, ``?pooler=1`` and ``?pool_size=`` beside what libpq knows."""
        return cls(parse_url(url), app)

    async def __aenter__(self) -> Self:
        if self._pool is not None:
            raise ImproperlyConfigured(f"the engine on {self.settings.shown} is open already: use one for each event loop")
        pool = Pool(self.settings, self._doors, self._hang_up)

        async def enter(connection: Connection) -> Tables:
            await migrate(connection, self.settings.schema)
            tables = Tables(await app_number(connection, self.settings.schema, to_column(self.app)), self.settings.schema)
            return tables._replace(known=(await labels.learn(tables, connection)).known)

        try:
            self._tables = await pool.run(enter)
        except BaseException:
            await pool.close(0.0)
            raise
        self._bell = Doorbell(self.settings._replace(pooler=pool.pooler), self._tables.app, self._doors)
        watchers, workers, waiters = (self._bell.ear(kind) for kind in (Kind.CHANGED, Kind.BELL, Kind.DONE))
        self._tables = self._tables._replace(watchers=watchers, workers=workers, waiters=waiters)
        self._pool = pool
        return self

    async def __aexit__(self, *exc: object) -> None:
        pool, bell = self._pool, self._bell
        self._pool = None
        if pool is not None:
            await pool.close(CLOSE_SECONDS)
        self._bell = None
        if bell is not None:
            await bell.close()

    async def until_back(self, seconds: float) -> bool:
        """Wait so long, or until a server is back (:func:`mognet.engine.until_back`)."""
        return await self._lookout.wait(seconds)

    @property
    def _open_pool(self) -> Pool:
        if self._pool is None:
            raise NotConnected(f"the engine on {self.settings.shown} is not open: use `async with`")
        return self._pool

    @property
    def _doorbell(self) -> Doorbell:
        if self._bell is None:
            raise NotConnected(f"the engine on {self.settings.shown} is not open: use `async with`")
        return self._bell

    async def _run(self, work: Callable[[Connection], Awaitable[T]], then: Callable[[T], None] | None = None) -> T:
        """Do something on a connection, and ``then`` tell others: also if whoever asked is cancelled meanwhile."""
        pool = self._open_pool

        async def whole() -> T:
            while True:
                try:
                    result = await pool.run_here(work)
                    break
                except Stale:
                    await pool.run_here(self._learn)
            if then is not None:
                then(result)
            return result

        return await asyncio.shield(pool.spawn(whole()))

    async def _learn(self, connection: Connection) -> None:
        self._tables = self._tables._replace(known=(await labels.learn(self._tables, connection)).known)

    def _hang_up(self) -> None:
        if self._bell is not None:
            self._bell.hang_up()

    def _tell(self, told: int) -> None:
        if told and self._bell is not None:
            self._bell.tell_changed(heard=told > 1)

    # the line

    async def submit(self, jobs: Sequence[Job], *, enqueue: bool = True) -> list[bool]:
        if not jobs:
            return []
        bell = self._doorbell

        def tell(answer: line.Submitted) -> None:
            queues = {job.queue for job, new in zip(jobs, answer.added, strict=True) if new and (enqueue or job.delay > 0)}
            bell.ring(queues, heard=answer.heard)
            self._tell(answer.told)

        answer = await self._run(lambda connection: line.submit(self._tables, connection, jobs, enqueue), tell)
        if answer.born_revoked:
            born = await self.get(answer.born_revoked)
            bell.tell_done([(record, None) for record in born if record is not None])
        return answer.added

    async def submit_on(self, connection: Any, jobs: Sequence[Job]) -> list[bool]:
        """Submit inside the transaction of a psycopg connection to the same database: it commits, or they never were."""
        borrowed: Any = Borrowed(connection)
        while True:
            tables = self._tables._replace(watchers=None, workers=None)  # nobody is kept from listening for as long as that lasts
            try:
                await line.hold(tables, borrowed)
                break
            except Stale:
                await self._run(self._learn)
        answer = await line.submit(tables, borrowed, jobs, True, alone=False) if jobs else line.Submitted([], [], 0, True)
        letters = self._doorbell.letters({job.queue for job in jobs}, changed=answer.told > 0)
        await line.ring_over(tables, borrowed, letters)
        return answer.added

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
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        columns = [to_column(queue) for queue in dict.fromkeys(queues)]
        wanted = None if ids is None else sorted(set(ids))
        if wait <= 0:
            return await self._claim_now(node, columns, limit, lease, wanted)
        with self._doorbell.waiting(queues) as waiter:
            while True:
                due_in = await self._due_in(columns, wanted) if self._is_quiet(columns, wanted) else 0.0
                if due_in <= 0:
                    claims = await self._claim_now(node, columns, limit, lease, wanted)
                    if claims or loop.time() >= deadline:
                        return claims
                    due_in = await self._due_in(columns, wanted)
                left = deadline - loop.time()
                look = LOOK_EVERY if self._doorbell.hears_bells else LOOK_OFTEN
                # What is due now and was not taken is just being taken by others.
                seconds = min(left, look * random.uniform(0.8, 1.2), max(due_in, random.uniform(0.002, 0.02)))
                if not await waiter.wait(seconds):
                    if seconds == left and self._doorbell.hears_bells:
                        return []  # the next claim looks
                    self._quiet = None

    def _is_quiet(self, queues: Sequence[str], ids: Sequence[UUID] | None) -> bool:
        """Whether there is likely nothing to claim: nothing was due, and nobody has rung since. To look then is cheaper than to claim."""
        return ids is None and not self._undoing and self._doorbell.hears_bells and self._quiet == (queues, self._doorbell.rings)

    async def _due_in(self, queues: Sequence[str], ids: Sequence[UUID] | None) -> float:
        """In how many seconds the next job is due."""
        rings = self._doorbell.rings
        due_in = await self._run(lambda connection: line.next_due(self._tables, connection, queues, ids))
        self._quiet = (queues, rings) if ids is None and due_in > 0 else None
        return due_in

    async def _claim_now(self, node: str, queues: Sequence[str], limit: int, lease: float, ids: Sequence[UUID] | None) -> list[Claim]:
        if limit <= 0 or not queues:
            return []
        await self._undone()  # their jobs are as good as in line: whoever finds none must be sure of it
        holder = secrets.token_hex(8)
        pool = self._open_pool

        async def take() -> list[Claim]:
            claims, told = await pool.run_here(
                lambda connection: line.claim(self._tables, connection, node, queues, limit, lease, ids, holder)
            )
            self._tell(told)
            return claims

        claiming = pool.spawn(take())
        try:
            return await asyncio.shield(claiming)
        except ConnectionError:
            # Perhaps it claimed, and the answer was lost.
            self._undo(holder, lease)
            raise
        except asyncio.CancelledError:
            # Whoever is told of it may hand the jobs' tickets to others at once: these must not find the jobs held.
            self._undo(holder, lease, claiming)
            await self._undone()
            raise

    async def _undone(self) -> None:
        if self._undoing:
            await asyncio.wait(self._undoing, timeout=UNDO_SECONDS)

    def _undo(self, holder: str, lease: float, claiming: asyncio.Task[list[Claim]] | None = None) -> None:
        """Take back what was claimed for nobody; when the lease has ended, the sweep does it."""
        pool, bell = self._pool, self._bell
        if pool is None or bell is None:
            return
        until = asyncio.get_running_loop().time() + lease

        async def undo() -> None:
            if claiming is not None:
                await asyncio.wait([claiming])
                if not claiming.cancelled() and claiming.exception() is None and not claiming.result():
                    return
            failures = 0
            while True:
                try:
                    bell.ring(await pool.run_here(lambda connection: line.unclaim(self._tables, connection, holder)))
                    return
                except MognetError:
                    failures += 1
                    if self._pool is None or asyncio.get_running_loop().time() > until:
                        return
                    await asyncio.sleep(_UNDO.delay(failures))

        undoing = pool.spawn(undo())
        self._undoing.add(undoing)
        undoing.add_done_callback(self._undoing.discard)

    async def extend(self, tokens: Collection[Token], lease: float) -> set[Token]:
        if not tokens:
            return set()
        return await self._run(lambda connection: line.extend(self._tables, connection, tokens, lease))

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Record | None]:
        if not outcomes:
            return []
        bell = self._doorbell

        def tell(answer: line.Settled) -> None:
            pairs = [(record, outcome) for record, outcome in zip(answer.records, outcomes, strict=True) if record is not None]
            bell.tell_done([(record, outcome.value) for record, outcome in pairs if outcome.again is None], heard=answer.heard)
            bell.ring({record.queue for record, outcome in pairs if outcome.again is not None})
            self._tell(answer.told)

        async def work(connection: Connection) -> line.Settled:
            answer = await line.settle(self._tables, connection, outcomes)
            if answer.noted:
                await line.drop_notes(self._tables, connection, answer.noted)
            return answer

        return (await self._run(work, tell)).records

    # the records

    async def get(self, ids: Collection[UUID]) -> list[Record | None]:
        wanted = list(ids)
        if not wanted:
            return []
        return await self._run(lambda connection: records.get(self._tables, connection, wanted))

    async def value(self, id: UUID) -> bytes | None:
        return await self._run(lambda connection: records.value(self._tables, connection, id))

    async def body(self, id: UUID) -> bytes | None:
        return await self._run(lambda connection: records.body(self._tables, connection, id))

    async def update(self, id: UUID, change: Change, *, unless: Collection[ResultState] = FINAL) -> Record | None:
        bell = self._doorbell

        def tell(answer: records.Updated) -> None:
            bell.tell_done([(record, None) for record in answer.ended])
            bell.ring({answer.record.queue} if answer.again and answer.record is not None else ())
            self._tell(answer.told)

        return (await self._run(lambda connection: records.update(self._tables, connection, id, change, unless), tell)).record

    async def delete(self, ids: Collection[UUID], *, states: Collection[ResultState] = ()) -> int:
        wanted = set(ids)
        if not wanted:
            return 0
        return await self._run(lambda connection: records.delete(self._tables, connection, wanted, states))

    async def search(self, query: Query) -> AsyncIterator[Record]:
        start, left = None if query.after is None else (query.after.created, query.after.place), query.limit
        while left is None or left > 0:
            limit = searching.CHUNK if left is None else min(left, searching.CHUNK)
            page = await self._page(query, start, limit)
            next_step.get()()
            for record in page.records[:left]:
                yield record
            left = None if left is None else left - len(page.records)
            start = page.next
            if start is None:
                return

    async def _page(self, query: Query, start: searching.Key | None, limit: int) -> searching.Page:
        return await self._run(lambda connection: searching.find(self._tables, connection, query, start, limit))

    async def count(self, query: Query, *, by: GroupBy | str = "state") -> dict[str, int]:
        query = query._replace(limit=None, newest_first=False, after=None)
        numbers = await self._run(lambda connection: searching.count(self._tables, connection, query, by))
        if numbers is None:
            numbers = Counter([searching.group_of(record, by) async for record in self.search(query)])
        return dict(numbers)

    # the index of metadata

    async def declare(self, keys: Collection[str], *, only: bool = False) -> frozenset[str]:
        return await self._run(lambda connection: labels.declare(self._tables, connection, keys, only))

    async def reindex(self, *, limit: int = 1000) -> Reindexed:
        return await self._run(lambda connection: labels.reindex(self._tables, connection, limit))

    # what has changed

    async def identity(self) -> str:
        return await self._run(lambda connection: records.identity(self._tables, connection))

    async def changes(self, since: str | None, query: Query = Query(), *, limit: int = 1000) -> Changes:  # noqa: B008 - immutable
        return await self._run(lambda connection: changes.read(self._tables, connection, since, query, limit))

    # what a job logs

    async def log(self, lines: Mapping[Token, Sequence[bytes]], *, keep: int) -> set[Token]:
        if not self._tables.known.logged:
            await self._run(lambda connection: labels.keep_logs(self._tables, connection))
            await self._run(self._learn)
        return await self._run(lambda connection: logbook.add(self._tables, connection, lines, keep))

    async def logs(self, id: UUID, *, after: int = 0) -> list[LogLine]:
        return await self._run(lambda connection: logbook.read(self._tables, connection, id, after))

    # a running task's notes

    async def load(self, token: Token) -> dict[str, bytes]:
        return await self._run(lambda connection: records.load(self._tables, connection, token))

    async def save(self, token: Token, changes: Mapping[str, bytes | None], *, ttl: float | None = None) -> dict[str, bytes] | None:
        return await self._run(lambda connection: records.save(self._tables, connection, token, changes, ttl))

    # signals

    async def publish(self, channel: str, body: bytes) -> None:
        await self._doorbell.publish(Signal(channel, body))

    def subscribe(self, *channels: str) -> AbstractAsyncContextManager[AsyncIterator[Signal]]:
        return self._doorbell.subscribe(*channels)

    # upkeep

    async def sweep(self, *, grace: float = 30.0, limit: int = 1000) -> Swept:
        bell = self._doorbell

        def tell(swept: upkeep.Upkeep) -> None:
            bell.ring(swept.queues)
            bell.tell_done([(record, None) for record in swept.ended])
            self._tell(swept.told)

        swept = await self._run(lambda connection: upkeep.sweep(self._tables, connection, grace, limit), tell)
        return Swept(swept.recovered, swept.expired, swept.more, late=swept.late, carried=swept.carried)
