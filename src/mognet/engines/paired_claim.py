"""How a pair claims: what tickets bring, and what waits in the store's line."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from typing import Any, TypeVar
from uuid import UUID

from mognet.engine import Broker, Engine
from mognet.exceptions import ConnectionError, MognetError
from mognet.records import Claim, Delivery, Query, Ticket
from mognet.states import ResultState

GLANCE = 0.25
"""Seconds between two looks at the store's line while tickets keep coming."""

PASSED_OVER = 0.05
"""Seconds before a ticket is given back whose job could not be claimed just now."""

MOST_STALE = 1000

_log = logging.getLogger(__name__)

R = TypeVar("R")


class Turns:
    """What a pair's claims remember from one to the next: whose turn it is."""

    def __init__(self, glance: float) -> None:
        self.glance = glance
        self.look_at = 0.0
        """When to look at the store's line again."""
        self.asked = float("-inf")
        """When the broker was last asked for tickets."""
        self.plenty = False
        """Whether it had as many as were asked for."""
        self.tickets = False
        self.idle = False
        """Whether the last claim found nothing: then the next one waits at once, which begins with a look at both."""


class PairedClaim:
    """One claim: what it asks for, and the ways to get it. ``patient``: it may wait, so that it need not look everywhere each time."""

    def __init__(
        self,
        broker: Broker,
        store: Engine,
        turns: Turns,
        send: Callable[[Coroutine[Any, Any, None]], object],
        node: str,
        queues: Collection[str],
        limit: int,
        lease: float,
        *,
        patient: bool,
    ) -> None:
        self.broker = broker
        self.store = store
        self.turns = turns
        self.send = send
        self.patient = patient
        self.wading = False
        """Whether tickets were left since it was time to look at the line: all that came were stale."""
        self.passed_over = False
        """Whether a ticket was given back that is good, but could not be used just now."""
        self.number = limit
        """Tickets that are asked for in one go: the more, the more were stale."""
        self.node = node
        self.queues = queues
        self.limit = limit
        self.lease = lease

    async def from_line(self, limit: int, wait: float = 0.0) -> list[Claim]:
        """What is due in the store's line."""
        return await self.store.claim(self.node, self.queues, limit, lease=self.lease, wait=wait)

    async def pull(self, limit: int) -> list[Delivery]:
        """Tickets, if there are any and the broker can be reached: the store's line goes on without it."""
        try:
            pulled = await self.broker.pull(self.queues, limit)
        except ConnectionError as error:
            _log.debug("no tickets: %s", error)
            pulled = []
        self.turns.plenty = len(pulled) >= limit
        self.turns.asked = _now()
        return pulled

    async def take(self, pulled: Sequence[Delivery], limit: int, others: Collection[UUID] = ()) -> list[Claim]:
        """Claim the jobs of tickets (and others), the best up to the limit; what the record refuses is stale."""
        broker = self.broker
        ids = list(dict.fromkeys([*(delivery.ticket.id for delivery in pulled), *others]))
        try:
            claims = await self.store.claim(self.node, self.queues, limit, lease=self.lease, ids=ids)
        except BaseException:
            broker.give_back(pulled)
            raise
        won = {claim.token.id for claim in claims}
        broker.ack([delivery for delivery in pulled if delivery.ticket.id in won])
        lost = [delivery for delivery in pulled if delivery.ticket.id not in won]
        # Where something was won nothing is waited for, so that nothing can be cancelled.
        if len(claims) >= limit:
            broker.give_back(lost)
        elif lost and claims:
            self.send(self.forget(lost))
        elif lost:
            await self.forget(lost)
        return claims

    async def forget(self, refused: Sequence[Delivery]) -> None:
        """Acknowledge tickets whose jobs could not be claimed, but for those that nobody has claimed: their ticket is all that they have.

        A store may pass over a job that somebody else is just changing, as PostgreSQL does with rows that are locked.
        """
        try:
            waiting = await waiting_for(self.store, [delivery.ticket for delivery in refused])
            if waiting:
                self.passed_over = True
                await asyncio.sleep(PASSED_OVER)
        except BaseException as error:
            self.broker.give_back(refused)
            if not isinstance(error, MognetError):
                raise
        else:
            self.broker.ack([delivery for delivery in refused if delivery.ticket.id not in waiting])
            self.broker.give_back([delivery for delivery in refused if delivery.ticket.id in waiting])

    async def tickets(self, limit: int) -> list[Claim]:
        """Jobs that tickets bring; as long as all are stale, the next ones, but those who are patient look at the line meanwhile."""
        number, self.passed_over = max(limit, self.number if self.wading else 0), False
        self.wading = False
        while pulled := await self.pull(number):
            if (claims := await self.take(pulled, limit)) or self.passed_over:
                return claims
            number = self.number = min(2 * number, max(limit, MOST_STALE))
            if self.patient and _now() >= self.turns.look_at:
                self.wading = True
                break
        return []

    async def at_once(self) -> list[Claim]:
        """What there is: of the store's line, if it is time to look, and of the broker.

        While both hold more than fits, they share; so they do now and then to see whether the broker does. One who will not wait looks
        at both.
        """
        turns, claims, share = self.turns, list[Claim](), self.limit
        if not self.patient or _now() >= turns.look_at:
            if self.patient and (turns.plenty or _now() >= turns.asked + turns.glance):
                turns.tickets = not turns.tickets
                share = self.limit // 2 if self.limit > 1 else int(not turns.tickets)
            if share:
                claims = await self.from_line(share)
                turns.look_at = 0.0 if claims else _now() + turns.glance
        else:
            share = 0
        left_there = share and len(claims) >= share
        try:
            if len(claims) < self.limit:
                claims += await self.tickets(self.limit - len(claims))
            if left_there and len(claims) < self.limit:
                claims += await self.from_line(self.limit - len(claims))
        except BaseException:
            if not claims:
                raise
            # These are held, and must not be forgotten.
        return self.sorted(claims)

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
            self.broker.give_back(pulled)
            raise
        return await self.take(pulled, self.limit, line) if pulled or line else []

    async def pull_live(self, pulled: list[Delivery], line: Collection[UUID]) -> None:
        """Pull tickets, up to the limit, of jobs that nobody has claimed yet."""
        while number := self.limit - len(pulled):
            fresh = await self.pull(number)
            pulled += fresh
            records = await self.store.get([delivery.ticket.id for delivery in fresh]) if fresh else []
            waiting = {record.id for record in records if record is not None and record.state is ResultState.PENDING}.difference(line)
            self.broker.ack([delivery for delivery in fresh if delivery.ticket.id not in waiting])
            pulled[len(pulled) - len(fresh) :] = [delivery for delivery in fresh if delivery.ticket.id in waiting]
            if len(fresh) < number:
                return

    async def lined_up(self) -> AsyncIterator[UUID]:
        """The jobs in the store's line, due or not."""
        for queue in [None] if len(self.queues) > 3 else self.queues:
            async for record in self.store.search(Query(queue=queue, in_line=True)):
                if record.queue in self.queues:
                    yield record.id

    # waiting

    async def first(self, wait: float) -> list[Claim]:
        """Wait for whichever comes first, a ticket or a job that is due in the store's line. May return early, with nothing."""
        loop = asyncio.get_running_loop()
        line = loop.create_task(self.from_line(self.limit, wait))
        pulling = loop.create_task(self.pull_patiently(wait))
        cancelled = False
        try:
            await asyncio.wait([line, pulling], return_when=asyncio.FIRST_COMPLETED)
            if pulling.done() and _outcome(pulling) == ([], None):
                # Its time is up, and so is the line's. Whether it is the store that says nothing, is what the caller has to know.
                await asyncio.wait([line])
        except asyncio.CancelledError:
            cancelled = True
        answered = line.done()
        for task in (line, pulling):
            task.cancel()
            cancelled = await _ended(task) or cancelled
        claims, line_error = _outcome(line)
        pulled, broker_error = _outcome(pulling)
        if claims or cancelled or not pulled or (line_error is not None and answered):
            self.broker.give_back(pulled)
            if claims:  # even if cancelled, for these are held: better to answer than to lose them
                return claims
            if cancelled:
                raise asyncio.CancelledError
            if error := line_error or broker_error:
                raise error
            return []
        return await self.take(pulled, self.limit)

    async def pull_patiently(self, wait: float) -> list[Delivery]:
        """A broker that is down may come back while this waits."""
        until = _now() + wait
        while (left := until - _now()) > 0:
            try:
                return await self.broker.pull(self.queues, self.limit, left)
            except ConnectionError as error:
                _log.debug("no tickets: %s", error)
            await asyncio.sleep(min(0.25, max(0.0, until - _now())))
        return []


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _ended(task: asyncio.Task[Any]) -> bool:
    """Wait for a task that was cancelled; whether this was cancelled meanwhile, which changes nothing."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    return cancelled


def _outcome(task: asyncio.Task[list[R]]) -> tuple[list[R], BaseException | None]:
    if task.cancelled():
        return [], None
    error = task.exception()
    return ([], error) if error is not None else (task.result(), None)


async def waiting_for(store: Engine, tickets: Sequence[Ticket]) -> set[UUID]:
    """Those of their jobs that are as they were submitted, due at once: nobody has claimed them, and they may not be in line."""
    records = await store.get([ticket.id for ticket in tickets])
    return {
        record.id
        for ticket, record in zip(tickets, records, strict=True)
        if record is not None
        and record.state is ResultState.PENDING
        and not record.starts
        and record.due <= record.created
        and record.queue == ticket.queue
    }


__all__ = ["GLANCE", "PairedClaim", "Turns", "waiting_for"]
