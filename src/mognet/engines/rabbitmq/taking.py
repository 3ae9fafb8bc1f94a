"""A link over which tickets are taken.

Tickets are asked for (``basic.get``, many in one go) when there is room for them, so that none is kept from other workers by one that is
busy. While there is nothing to ask for, a consumer with a prefetch of 1 rings: what it brings is a ticket already.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple
from uuid import UUID

from mognet.backoff import worth_saying
from mognet.codec import loads
from mognet.engines.rabbitmq.link import ANSWER_SECONDS, Link
from mognet.engines.rabbitmq.settings import Settings
from mognet.engines.rabbitmq.wire import Message, TicketChannel, Wire, spec
from mognet.exceptions import ConnectionError
from mognet.records import Delivery, Ticket

FIRST_GETS, MOST_GETS = 4, 500
"""Messages that are asked for in one go from one queue: at first as many as it had last time (but one), then more and more."""

JUST_NOW = 0.2
"""Seconds after a wait in which a ticket that is there should have been brought."""

LINGER = 0.05
"""Seconds that a consumer stays after a wait in vain: mostly the next wait follows at once, and to begin and end one costs the broker more
than all else that an idle worker asks of it."""

TRUST = 15.0
"""Seconds that such a consumer is trusted to bring what there is; then it is asked for as well."""

_log = logging.getLogger(__name__)


class Receipt(NamedTuple):
    """What a delivery is acknowledged by: void when its link is gone, since the broker then hands the ticket out again."""

    link: TakingLink
    tag: int


class Pulled(NamedTuple):
    """A delivery, and what it is sorted by: priority, then the time of its sending."""

    priority: int
    sent: int
    number: int
    delivery: Delivery


class Pile:
    """What was taken from one queue and not chosen yet."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.heads: deque[Pulled] = deque()
        self.dry = False
        """Whether the queue had nothing more."""
        self.taken = 0


class Bell:
    """Somebody who waits for a ticket of some queues."""

    def __init__(self, queues: Collection[str]) -> None:
        self.queues = frozenset(queues)
        self.rung: asyncio.Future[Pulled] = asyncio.get_running_loop().create_future()


class TakingLink(Link):
    """A connection with one channel, over which tickets come."""

    def __init__(self, wire: Wire, app: str, settings: Settings) -> None:
        super().__init__(wire, app, settings)
        self._channel: TicketChannel | None = None
        self._bells: list[Bell] = []
        self._listening: Counter[str] = Counter()
        self._lingering: dict[str, asyncio.TimerHandle] = {}
        self._early: dict[str, Pulled] = {}
        """What lingering consumers brought; each has a prefetch of 1."""
        self._began: dict[str, float] = {}
        """When the consumers of these queues began, as long as they have brought nothing: one that has may wait for an ack."""
        self._fetched = 0.0
        self._tags: dict[str, str] = {}
        self._count = 0
        self._foreign = 0
        self._yield: dict[str, int] = {}
        self._quiet_until = 0.0
        self.misses = 0
        """How often in a row tickets were found that the consumer should have brought."""

    async def open(self) -> None:
        async with self.answering():
            self._channel = await TicketChannel.opened(self.wire, self._unwanted)
        self._watch(self._channel)
        self._channel.on_consumer_cancel_callbacks.add(self._cancelled)

    def fail(self, reason: str) -> None:
        super().fail(reason)
        for timer in self._lingering.values():
            timer.cancel()
        self._lingering.clear()
        self._early.clear()  # the broker hands these out again
        error = ConnectionError(f"the connection to RabbitMQ is gone: {self.broken.result()}")
        if self._channel is not None:
            self._channel.fail(error)
        for bell in self._bells:
            if not bell.rung.done():
                bell.rung.set_exception(error)

    async def _cancelled(self, frame: spec.Basic.CancelOk | spec.Basic.Cancel) -> None:
        self.fail(f"the server cancelled consumer {frame.consumer_tag}")

    @property
    def channel(self) -> TicketChannel:
        """The channel, while the link is good."""
        self.check()
        if self._channel is None:
            raise ConnectionError("the connection to RabbitMQ is not open")
        return self._channel

    # asking

    def lingers(self, queues: Collection[str]) -> bool:
        """Whether consumers are still there that would have brought what these queues have: then there is nothing to ask for."""
        there = all(queue in self._lingering and queue in self._began for queue in queues)
        return there and not self.misses and asyncio.get_running_loop().time() < self._fetched + TRUST

    def empty(self, queue: str) -> bool:
        """Whether a consumer says so, by bringing nothing."""
        began = self._began.get(queue)
        return began is not None and not self.misses and asyncio.get_running_loop().time() > began + JUST_NOW

    async def fetch(self, queues: Collection[str], limit: int) -> list[Pulled]:
        """The best tickets of these queues, up to the limit. If cancelled, all go back."""
        self._fetched = asyncio.get_running_loop().time()
        piles = [Pile(queue) for queue in dict.fromkeys(queues)]
        share = -(-limit // max(1, len(piles)))
        chosen: list[Pulled] = []
        lingering = [pile.queue for pile in piles if pile.queue in self._lingering]
        for queue in lingering:
            self._lingering[queue].cancel()
        try:
            for grown in itertools.count():
                thirsty = [pile for pile in piles if not pile.dry and not pile.heads]
                most = min(limit - len(chosen), MOST_GETS, share if grown == 0 else limit)
                await self._draw({pile: min(most, self._yield.get(pile.queue, FIRST_GETS) * 4**grown) for pile in thirsty})
                self._take_early(piles)
                choose(piles, chosen, limit)
                if len(chosen) >= limit or all(pile.dry and not pile.heads for pile in piles):
                    break
        except BaseException:
            self._return(chosen, *(pile.heads for pile in piles))
            raise
        finally:
            for queue in lingering:
                if queue in self._lingering:
                    self._end(queue)
        self._return(*(pile.heads for pile in piles))
        for pile in piles:
            self._yield[pile.queue] = max(1, pile.taken)
        if chosen:
            self._found()
        return chosen

    async def _draw(self, wanted: Mapping[Pile, int]) -> None:
        """Ask each of these queues for so many tickets; fewer say that it has no more."""
        asked: list[tuple[Pile, list[asyncio.Future[Message | None]]]] = []
        try:
            async with self.answering() as limit:
                for pile, number in wanted.items():
                    asked.append((pile, self.channel.get(self.name(pile.queue), number)))
                for pile, futures in asked:
                    for future in futures:
                        if not future.done():  # its silence counts, not how long all its answers take
                            limit.reschedule(asyncio.get_running_loop().time() + ANSWER_SECONDS)
                        message = await future
                        pile.dry = pile.dry or message is None
        finally:  # also what has come when this is cancelled
            for pile, futures in asked:
                for future in futures:
                    if not future.done():
                        future.cancel()
                    elif not future.cancelled() and future.exception() is None and (message := future.result()) is not None:
                        self._add(pile, message)

    def _add(self, pile: Pile, message: Message) -> None:
        pulled = self._read(pile.queue, message)
        if pulled is not None:
            pile.heads.append(pulled)
            pile.taken += 1

    def _take_early(self, piles: Iterable[Pile]) -> None:
        """What lingering consumers brought came before the answers to what was asked."""
        for pile in piles:
            if pile.queue in self._early:
                pile.heads.appendleft(self._early.pop(pile.queue))
                pile.taken += 1
                self.misses, self._quiet_until = 0, 0.0

    def _found(self) -> None:
        if asyncio.get_running_loop().time() < self._quiet_until:
            self.misses += 1
            if self.misses >= 3:
                self.fail("its consumer brings nothing, though there are tickets")
        self._quiet_until = 0.0

    # waiting

    async def wait(self, queues: Collection[str], seconds: float) -> Pulled | None:
        """The next ticket of these queues, if one comes in time."""
        bell = Bell(queues)
        self._bells.append(bell)
        try:
            for queue in bell.queues:
                self._listen(queue)
                if queue in self._early:
                    self._ring_for(queue, self._early.pop(queue))
            await asyncio.wait([bell.rung], timeout=seconds)
        except BaseException:
            if bell.rung.done() and bell.rung.exception() is None:
                self._return([bell.rung.result()])
            raise
        finally:
            self._bells.remove(bell)
            for queue in bell.queues:
                self._leave(queue, in_vain=not bell.rung.done())
            if not bell.rung.done():
                bell.rung.cancel()
        if bell.rung.cancelled():
            self._quiet_until = asyncio.get_running_loop().time() + JUST_NOW
            return None
        self.misses = 0
        return bell.rung.result()

    def _listen(self, queue: str) -> None:
        self._listening[queue] += 1
        if self._listening[queue] > 1:
            return
        if queue in self._lingering:
            self._lingering.pop(queue).cancel()
            return
        tag = self._tags.setdefault(queue, f"mognet-{len(self._tags)}")

        async def arrived(message: Message) -> None:
            self._ring(queue, message)

        self.channel.listen(self.name(queue), tag, arrived)
        self._began[queue] = asyncio.get_running_loop().time()

    def _leave(self, queue: str, *, in_vain: bool) -> None:
        self._listening[queue] -= 1
        if self._listening[queue] <= 0:
            del self._listening[queue]
            if in_vain and self.alive and queue in self._began:
                self._lingering[queue] = asyncio.get_running_loop().call_later(LINGER, self._end, queue)
            else:
                self._end(queue)

    def _end(self, queue: str) -> None:
        self._lingering.pop(queue, None)
        self._began.pop(queue, None)
        if self.alive and queue in self._tags:
            try:
                self.channel.leave(self._tags[queue])
            except asyncio.QueueFull:
                self.fail("it takes nothing any more")
        if queue in self._early:
            self._return([self._early.pop(queue)])

    def _ring(self, queue: str, message: Message) -> None:
        pulled = self._read(queue, message)
        if pulled is not None:
            self._began.pop(queue, None)
            self._ring_for(queue, pulled)

    def _ring_for(self, queue: str, pulled: Pulled) -> None:
        for bell in self._bells:
            if queue in bell.queues and not bell.rung.done():
                bell.rung.set_result(pulled)
                return
        if queue in self._lingering and queue not in self._early:
            self._early[queue] = pulled
        else:
            self._return([pulled])

    # giving back

    def _read(self, queue: str, message: Message) -> Pulled | None:
        """The ticket in a message. What is none is taken out of the queue, and told of."""
        tag = message.delivery_tag or 0
        found = read_ticket(queue, message.body)
        if found is None:
            self._foreign += 1
            if worth_saying(self._foreign):
                text = "queue %r held a message that is no ticket of mognet; it is dropped (%d so far)"
                _log.error(text, self.name(queue), self._foreign)
            self.settle([tag], keep=False)
            return None
        ticket, sent = found
        self._count += 1
        return Pulled(-ticket.priority, sent, self._count, Delivery(ticket, Receipt(self, tag)))

    def _unwanted(self, message: Message) -> None:
        self.settle([message.delivery_tag or 0], keep=True)

    def _return(self, *piles: Iterable[Pulled]) -> None:
        tags = [pulled.delivery.receipt.tag for pile in piles for pulled in pile if isinstance(pulled.delivery.receipt, Receipt)]
        self.settle(tags, keep=True)

    def settle(self, tags: Collection[int], *, keep: bool) -> None:
        """Take these messages out of their queue, or let it keep them. Nothing happens if the link is gone: then it keeps them."""
        if not tags or not self.alive or self._channel is None:
            return
        try:
            if keep:
                self._channel.send([spec.Basic.Nack(delivery_tag=tag, requeue=True) for tag in sorted(tags)])
            else:
                self._channel.send([spec.Basic.Ack(delivery_tag=tag) for tag in tags])
        except asyncio.QueueFull:
            self.fail("it takes nothing any more")


def read_ticket(queue: str, body: bytes) -> tuple[Ticket, int] | None:
    """The ticket in a message, and when it was sent; None: it is none."""
    try:
        match loads(body):
            case {"id": str(id), "priority": int(priority), "sent": int(sent)}:
                return Ticket(UUID(id), queue, priority), sent
    except ValueError:
        pass
    return None


def choose(piles: Iterable[Pile], chosen: list[Pulled], limit: int) -> None:
    """Move the best to the chosen, as long as it is known which is the best: each queue that may have more shows its head."""
    piles = list(piles)
    if any(not pile.dry and not pile.heads for pile in piles):
        return
    heads = [(pile.heads[0][:3], number) for number, pile in enumerate(piles) if pile.heads]
    heapq.heapify(heads)
    while heads and len(chosen) < limit:
        pile = piles[heads[0][1]]
        chosen.append(pile.heads.popleft())
        if pile.heads:
            heapq.heapreplace(heads, (pile.heads[0][:3], heads[0][1]))
        elif pile.dry:
            heapq.heappop(heads)
        else:
            return


__all__ = ["Pulled", "Receipt", "TakingLink"]
