"""A broker and a store that look like one engine.

The record is the truth, and the outbox: a job is stored first, PENDING and not in line, and then a ticket for it is pushed. A worker
pulls tickets and claims their jobs by id. What the broker does not carry waits in the store's own line: what is delayed, was retried,
paused, handed back, recovered, or given up on because no ticket brought it in time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Self
from uuid import UUID

from mognet.engine import Broker, Engine, GroupBy, check_login, until_back
from mognet.engines.owed import Owed
from mognet.engines.paired_claim import GLANCE, PairedClaim, Turns, waiting_for
from mognet.exceptions import MognetError
from mognet.outcomes import Change, Outcome
from mognet.records import Changes, Claim, Job, LogLine, Query, Record, Reindexed, Signal, Swept, Ticket, Token
from mognet.states import FINAL, ResultState

DEFAULT_GRACE = 30.0
"""What a caller of ``sweep`` says who leaves the choice to the engine: the Protocol's default."""

GRACE_FULL, GRACE_EMPTY = 300.0, 10.0
"""Seconds after which a ticket counts as lost: while tickets wait in the broker, and when none does or it cannot be asked."""

QUEUES_EVERY = 60.0
"""Seconds between two questions to the store which queues there are."""

MOST_UNSURE = 10_000

_log = logging.getLogger(__name__)


class Paired:
    """An :class:`mognet.engine.Engine` made of a :class:`mognet.engine.Broker` and another engine, its store.

    ``exact``: each claim compares what the broker and the store's line hold, so that the order is that of one engine, at the price of a
    search. Otherwise a claim takes tickets, looks at the line every ``glance`` seconds, and shares its slots among both.
    """

    def __init__(self, broker: Broker, store: Engine, *, exact: bool = False, glance: float = GLANCE) -> None:
        self.broker = broker
        self.store = store
        self._exact = exact
        self._turns = Turns(glance)
        self._unsure: dict[UUID, None] = {}
        """Jobs that may have been stored by a submit that failed; if they are submitted again, they need a ticket all the same."""
        self._queues: dict[str, None] = {}
        self._queues_known = 0.0
        self._errands: set[asyncio.Task[Any]] = set()
        self._owed = Owed(broker)

    async def __aenter__(self) -> Self:
        await self.store.__aenter__()
        await self.broker.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._errands:
            await asyncio.wait(self._errands, timeout=2.0)
        for errand in self._errands:
            errand.cancel()
        await self._owed.close()
        try:
            await self.broker.__aexit__(*exc)
        finally:
            await self.store.__aexit__(*exc)

    async def until_back(self, seconds: float) -> bool:
        """Wait so long, or until the store is back: without the broker, jobs run all the same."""
        return await until_back(self.store, seconds)

    async def check_login(self) -> None:
        """Raise :class:`mognet.exceptions.ImproperlyConfigured` if the broker refuses the login. The store has been entered already."""
        await check_login(self.broker)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _send(self, errand: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something that goes on when the caller is cancelled."""
        task = asyncio.get_running_loop().create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        return task

    # submit

    async def submit(self, jobs: Sequence[Job], *, enqueue: bool = True) -> list[bool]:
        try:
            added = await self.store.submit(jobs, enqueue=False)
        except BaseException as error:
            if enqueue:
                self._unsure |= {job.id: None for job in jobs[:MOST_UNSURE]}
                while len(self._unsure) > MOST_UNSURE:
                    self._unsure.pop(next(iter(self._unsure)))
                if isinstance(error, asyncio.CancelledError):
                    self._send(self._push_stored([_ticket(job) for job in jobs if job.delay <= 0]))
            raise
        if any(job.delay > 0 for job in jobs):
            self._turns.look_at = 0.0
        if enqueue:
            unsure = self._unsure
            tickets = {job.id: _ticket(job) for job, new in zip(jobs, added, strict=True) if (new or job.id in unsure) and job.delay <= 0}
            if tickets:
                await asyncio.shield(self._send(self._push(list(tickets.values()))))
            for job in jobs if unsure else ():
                unsure.pop(job.id, None)
        return added

    async def _push_stored(self, tickets: Sequence[Ticket]) -> None:
        """Who submitted was cancelled: nobody will submit again what was stored."""
        try:
            waiting = await waiting_for(self.store, tickets)
        except MognetError as error:
            _log.debug("jobs of a submit that was cancelled may have no tickets; a sweep will bring them: %s", error)
        else:
            await self._push([ticket for ticket in tickets if ticket.id in waiting])

    async def _push(self, tickets: Sequence[Ticket]) -> None:
        """The jobs are stored, so the submit has succeeded: what gets no ticket now gets one soon, or is found by a sweep."""
        self._queues |= {ticket.queue: None for ticket in tickets}
        try:
            await self._owed.push(tickets)
        except Exception:
            _log.exception("%d jobs are stored but have no tickets yet; a sweep will bring them", len(tickets))

    # claim

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
        if ids is not None:
            return await self._claim_ids(node, queues, limit, lease, wait, ids)
        if limit <= 0 or not queues:
            return []
        self._queues |= dict.fromkeys(queues)
        call = PairedClaim(self.broker, self.store, self._turns, self._send, node, queues, limit, lease, patient=wait > 0)
        until = self._now() + wait
        claims: list[Claim] = []
        idle, self._turns.idle = self._turns.idle, False
        if self._exact:
            claims = await call.best()
        elif wait <= 0 or not idle:
            claims = await call.at_once()
        while not claims and (left := until - self._now()) > 0:
            claims = await (call.at_once() if call.wading else call.first(left))
        self._turns.idle = not claims and not call.wading
        return claims

    async def _claim_ids(
        self, node: str, queues: Collection[str], limit: int, lease: float, wait: float, ids: Collection[UUID]
    ) -> list[Claim]:
        """A job that gets a ticket wakes nobody who waits at the store, so this looks again and again."""
        until = self._now() + wait
        while True:
            left = max(0.0, until - self._now())
            claims = await self.store.claim(node, queues, limit, lease=lease, wait=min(left, self._turns.glance or GLANCE), ids=ids)
            if claims or left <= 0:
                return claims

    async def extend(self, tokens: Collection[Token], lease: float) -> set[Token]:
        return await self.store.extend(tokens, lease)

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Record | None]:
        settled = await self.store.settle(outcomes)
        if any(outcome.again for outcome in outcomes):
            self._turns.look_at = 0.0
        return settled

    # what only the store knows

    async def get(self, ids: Collection[UUID]) -> list[Record | None]:
        return await self.store.get(ids)

    async def value(self, id: UUID) -> bytes | None:
        return await self.store.value(id)

    async def body(self, id: UUID) -> bytes | None:
        return await self.store.body(id)

    async def update(self, id: UUID, change: Change, *, unless: Collection[ResultState] = FINAL) -> Record | None:
        record = await self.store.update(id, change, unless=unless)
        if change.body is not None:
            self._turns.look_at = 0.0
        return record

    async def delete(self, ids: Collection[UUID], *, states: Collection[ResultState] = ()) -> int:
        return await self.store.delete(ids, states=states)

    def search(self, query: Query) -> AsyncIterator[Record]:
        return self.store.search(query)

    async def count(self, query: Query, *, by: GroupBy | str = "state") -> dict[str, int]:
        return await self.store.count(query, by=by)

    async def declare(self, keys: Collection[str], *, only: bool = False) -> frozenset[str]:
        return await self.store.declare(keys, only=only)

    async def reindex(self, *, limit: int = 1000) -> Reindexed:
        return await self.store.reindex(limit=limit)

    async def identity(self) -> str:
        return await self.store.identity()

    async def changes(self, since: str | None, query: Query = Query(), *, limit: int = 1000) -> Changes:  # noqa: B008 - immutable
        return await self.store.changes(since, query, limit=limit)

    async def log(self, lines: Mapping[Token, Sequence[bytes]], *, keep: int) -> set[Token]:
        return await self.store.log(lines, keep=keep)

    async def logs(self, id: UUID, *, after: int = 0) -> list[LogLine]:
        return await self.store.logs(id, after=after)

    async def load(self, token: Token) -> dict[str, bytes]:
        return await self.store.load(token)

    async def save(self, token: Token, changes: Mapping[str, bytes | None], *, ttl: float | None = None) -> dict[str, bytes] | None:
        return await self.store.save(token, changes, ttl=ttl)

    async def publish(self, channel: str, body: bytes) -> None:
        await self.store.publish(channel, body)

    def subscribe(self, *channels: str) -> AbstractAsyncContextManager[AsyncIterator[Signal]]:
        return self.store.subscribe(*channels)

    # upkeep

    async def sweep(self, *, grace: float = DEFAULT_GRACE, limit: int = 1000) -> Swept:
        if grace == DEFAULT_GRACE:
            grace = GRACE_FULL if await self._tickets_wait() else GRACE_EMPTY
        swept = await self.store.sweep(grace=grace, limit=limit)
        await self._learn_queues()
        if swept.recovered or swept.carried:
            self._turns.look_at = 0.0
        if swept.carried:
            _log.warning("%d jobs had no ticket for %g s and are in the store's line now", swept.carried, grace)
        return swept

    async def _tickets_wait(self) -> bool:
        """Whether the broker holds tickets: then a job that nobody has claimed yet is not lost, only late."""
        try:
            for queue in list(self._queues):
                if await self.broker.depth(queue) > 0:
                    return True
        except MognetError as error:
            _log.debug("the broker cannot be asked: %s", error)
        return False

    async def _learn_queues(self) -> None:
        """Also of the queues that only others use, their tickets count."""
        if self._now() >= self._queues_known:
            pending = await self.store.count(Query(states=frozenset({ResultState.PENDING})), by="queue")
            self._queues |= dict.fromkeys(queue for queue in pending if queue)
            self._queues_known = self._now() + QUEUES_EVERY


def _ticket(job: Job) -> Ticket:
    return Ticket(job.id, job.queue, job.priority)


__all__ = ["DEFAULT_GRACE", "GLANCE", "GRACE_EMPTY", "GRACE_FULL", "Paired"]
