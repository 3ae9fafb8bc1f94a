"""A broker and a store that look like one engine.

The record is the truth, and the outbox: a job is stored first, PENDING and not in line, and then a ticket for it is pushed. A worker
pulls tickets and claims their jobs by id. What the broker does not carry waits in the store's own line: what is delayed, was retried,
paused, handed back, recovered, or given up on because no ticket brought it in time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Self
from uuid import UUID

from mognet.engine import Broker, Engine, GroupBy, until_back
from mognet.engines.owed import Owed
from mognet.exceptions import ConnectionError, MognetError
from mognet.outcomes import Change, Outcome
from mognet.records import Changes, Claim, Delivery, Job, LogLine, Query, Record, Reindexed, Signal, Swept, Ticket, Token
from mognet.states import FINAL, ResultState

GLANCE = 0.25
"""Seconds between two looks at the store's line while tickets keep coming."""

DEFAULT_GRACE = 30.0
"""What a caller of ``sweep`` says who leaves the choice to the engine: the Protocol's default."""

GRACE_FULL, GRACE_EMPTY = 300.0, 10.0
"""Seconds after which a ticket counts as lost: while tickets wait in the broker, and when none does or it cannot be asked."""

QUEUES_EVERY = 60.0
"""Seconds between two questions to the store which queues there are."""

MOST_STALE = 1000
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
        self._glance = glance
        self._look_at = 0.0
        self._plenty = False
        """Whether the broker had as many tickets as were asked for, last time."""
        self._tickets_turn = False
        self._idle = False
        """Whether the last claim found nothing: then the next one waits at once, which begins with a look at both."""
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
        except BaseException:
            if enqueue:
                self._unsure |= {job.id: None for job in jobs[:MOST_UNSURE]}
                while len(self._unsure) > MOST_UNSURE:
                    self._unsure.pop(next(iter(self._unsure)))
            raise
        if any(job.delay > 0 for job in jobs):
            self._look_at = 0.0
        if enqueue:
            unsure = self._unsure
            tickets = {
                job.id: Ticket(job.id, job.queue, job.priority)
                for job, new in zip(jobs, added, strict=True)
                if (new or job.id in unsure) and job.delay <= 0
            }
            if tickets:
                await asyncio.shield(self._send(self._push(list(tickets.values()))))
            for job in jobs if unsure else ():
                unsure.pop(job.id, None)
        return added

    async def _push(self, tickets: Sequence[Ticket]) -> None:
        """The jobs are stored, so the submit has succeeded: what gets no ticket now gets one soon, or is found by a sweep."""
        self._queues |= {ticket.queue: None for ticket in tickets}
        try:
            await self.broker.push(tickets)
        except MognetError as error:
            _log.warning("%d jobs are stored but have no tickets yet; they are owed: %s", len(tickets), error)
            self._owed.add(tickets)
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
        call = _Call(self, node, queues, limit, lease)
        until = self._now() + wait
        claims: list[Claim] = []
        if self._exact:
            claims = await call.best()
        elif wait <= 0 or not self._idle:
            claims = await call.at_once(patient=wait > 0)
        while not claims and (left := until - self._now()) > 0:
            claims = await call.first(left)
        self._idle = not claims
        return claims

    async def _claim_ids(
        self, node: str, queues: Collection[str], limit: int, lease: float, wait: float, ids: Collection[UUID]
    ) -> list[Claim]:
        """A job that gets a ticket wakes nobody who waits at the store, so this looks again and again."""
        until = self._now() + wait
        while True:
            left = max(0.0, until - self._now())
            claims = await self.store.claim(node, queues, limit, lease=lease, wait=min(left, self._glance or GLANCE), ids=ids)
            if claims or left <= 0:
                return claims

    async def extend(self, tokens: Collection[Token], lease: float) -> set[Token]:
        return await self.store.extend(tokens, lease)

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Record | None]:
        settled = await self.store.settle(outcomes)
        if any(outcome.again for outcome in outcomes):
            self._look_at = 0.0
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
            self._look_at = 0.0
        return record

    async def delete(self, ids: Collection[UUID]) -> int:
        return await self.store.delete(ids)

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
            self._look_at = 0.0
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


class _Call:
    """One claim: what it asks for, and the ways to get it."""

    def __init__(self, pair: Paired, node: str, queues: Collection[str], limit: int, lease: float) -> None:
        self.pair = pair
        self.node = node
        self.queues = queues
        self.limit = limit
        self.lease = lease

    async def from_line(self, limit: int, wait: float = 0.0) -> list[Claim]:
        """What is due in the store's line."""
        return await self.pair.store.claim(self.node, self.queues, limit, lease=self.lease, wait=wait)

    async def pull(self, limit: int) -> list[Delivery]:
        """Tickets, if there are any and the broker can be reached: the store's line goes on without it."""
        try:
            pulled = await self.pair.broker.pull(self.queues, limit)
        except ConnectionError as error:
            _log.debug("no tickets: %s", error)
            return []
        self.pair._plenty = len(pulled) >= limit
        return pulled

    async def take(self, pulled: Sequence[Delivery], limit: int, others: Collection[UUID] = ()) -> list[Claim]:
        """Claim the jobs of tickets (and others), the best up to the limit; what the record refuses is stale."""
        pair = self.pair
        ids = list(dict.fromkeys([*(delivery.ticket.id for delivery in pulled), *others]))
        try:
            claims = await pair.store.claim(self.node, self.queues, limit, lease=self.lease, ids=ids)
        except BaseException:
            pair.broker.give_back(pulled)
            raise
        # From here on nothing is waited for, so that nothing can be cancelled.
        if len(claims) < limit or len(claims) == len(ids):
            pair.broker.ack(pulled)
        else:
            won = {claim.token.id for claim in claims}
            pair.broker.ack([delivery for delivery in pulled if delivery.ticket.id in won])
            pair.broker.give_back([delivery for delivery in pulled if delivery.ticket.id not in won])
        return claims

    async def tickets(self, limit: int) -> list[Claim]:
        """Jobs that tickets bring; as long as all are stale, the next ones."""
        number = limit
        while pulled := await self.pull(number):
            if claims := await self.take(pulled, limit):
                return claims
            number = min(2 * number, max(limit, MOST_STALE))
        return []

    async def at_once(self, *, patient: bool) -> list[Claim]:
        """What there is: of the store's line, if it is time to look, and of the broker.

        While both hold more than fits, they share. One who will not wait looks at both.
        """
        pair, line = self.pair, list[Claim]()
        if not patient or pair._now() >= pair._look_at:
            share = self.limit
            if pair._plenty and patient:
                pair._tickets_turn = not pair._tickets_turn
                share = self.limit // 2 if self.limit > 1 else int(not pair._tickets_turn)
            if share:
                line = await self.from_line(share)
                pair._look_at = 0.0 if line else pair._now() + pair._glance
        if len(line) >= self.limit:
            return line
        try:
            tickets = await self.tickets(self.limit - len(line))
        except BaseException:
            if line:  # these are held, and must not be forgotten
                return line
            raise
        return self.sorted(line + tickets)

    @staticmethod
    def sorted(claims: list[Claim]) -> list[Claim]:
        """By the law of order, as far as the records tell."""
        return sorted(claims, key=lambda claim: (-claim.record.priority, claim.record.due, claim.record.created))

    async def best(self) -> list[Claim]:
        """What there is, in the exact order: the store compares the jobs of tickets with those in its line."""
        pulled: list[Delivery] = []
        line = {id async for id in self.lined_up()}
        try:
            await self.pull_live(pulled, line)
        except BaseException:
            self.pair.broker.give_back(pulled)
            raise
        return await self.take(pulled, self.limit, line) if pulled or line else []

    async def pull_live(self, pulled: list[Delivery], line: Collection[UUID]) -> None:
        """Pull tickets, up to the limit, of jobs that nobody has claimed yet."""
        while number := self.limit - len(pulled):
            fresh = await self.pull(number)
            pulled += fresh
            records = await self.pair.store.get([delivery.ticket.id for delivery in fresh]) if fresh else []
            waiting = {record.id for record in records if record is not None and record.state is ResultState.PENDING}.difference(line)
            self.pair.broker.ack([delivery for delivery in fresh if delivery.ticket.id not in waiting])
            pulled[len(pulled) - len(fresh) :] = [delivery for delivery in fresh if delivery.ticket.id in waiting]
            if len(fresh) < number:
                return

    async def lined_up(self) -> AsyncIterator[UUID]:
        """The jobs in the store's line, due or not."""
        for queue in [None] if len(self.queues) > 3 else self.queues:
            async for record in self.pair.store.search(Query(queue=queue, in_line=True)):
                if record.queue in self.queues:
                    yield record.id

    # waiting

    async def first(self, wait: float) -> list[Claim]:
        """Wait for whichever comes first, a ticket or a job that is due in the store's line. May return early, with nothing."""
        loop = asyncio.get_running_loop()
        line = loop.create_task(self.from_line(self.limit, wait))
        pulling = loop.create_task(self.pull_patiently(wait))
        try:
            await asyncio.wait([line, pulling], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            claims, pulled = await self.end(line, pulling)
            self.pair.broker.give_back(pulled)
            if claims:  # they came in the same moment, and are held: better to answer than to lose them
                return claims
            raise
        claims, pulled = await self.end(line, pulling)
        if claims or not pulled:
            self.pair.broker.give_back(pulled)
            return claims
        return await self.take(pulled, self.limit)

    async def end(self, line: asyncio.Task[list[Claim]], pulling: asyncio.Task[list[Delivery]]) -> tuple[list[Claim], list[Delivery]]:
        """Let go of what is still waited for; what both have got."""
        claimed = line.done()
        for task in (line, pulling):
            task.cancel()
        await _ended(line)
        await _ended(pulling)
        pulled = [] if pulling.cancelled() or pulling.exception() is not None else pulling.result()
        if line.cancelled():
            return [], pulled
        error = line.exception()
        if error is None:
            return line.result(), pulled
        if claimed or not pulled:
            self.pair.broker.give_back(pulled)
            raise error
        return [], pulled

    async def pull_patiently(self, wait: float) -> list[Delivery]:
        """A broker that is down may come back while this waits."""
        until = self.pair._now() + wait
        while (left := until - self.pair._now()) > 0:
            try:
                return await self.pair.broker.pull(self.queues, self.limit, left)
            except ConnectionError as error:
                _log.debug("no tickets: %s", error)
            await asyncio.sleep(min(0.25, max(0.0, until - self.pair._now())))
        return []


async def _ended(task: Awaitable[Any]) -> None:
    """Wait for a task that was cancelled; that this is cancelled too changes nothing."""
    while isinstance(task, asyncio.Task) and not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])


__all__ = ["DEFAULT_GRACE", "GLANCE", "GRACE_EMPTY", "GRACE_FULL", "Paired"]
