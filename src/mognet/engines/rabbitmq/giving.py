"""A link over which tickets are given."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Collection, Sequence
from typing import Any
from uuid import uuid4

from mognet.engines.rabbitmq.link import Link, explained
from mognet.engines.rabbitmq.settings import Settings, wire_priority
from mognet.engines.rabbitmq.wire import Wire, aiormq, spec
from mognet.exceptions import ConnectionError, MognetError
from mognet.records import Ticket

CHANNELS = 3
"""Pushes that go on at the same time without waiting for each other; one push stays on one channel, in its order."""

PERSISTENT = 2

UNBLOCKED_SECONDS = 0.5
"""How long a push waits for the end of an alarm, of which the server has told."""

BLOCKED_SECONDS = 0.05
"""How long it is waited to know that a connection is blocked."""


class GivingLink(Link):
    """A connection with a few channels in confirm mode."""

    def __init__(self, wire: Wire, app: str, settings: Settings) -> None:
        super().__init__(wire, app, settings)
        self._channels: list[Any] = []
        self._turn = itertools.count()

    async def open(self) -> None:
        async with self.answering():
            for _ in range(CHANNELS):
                self._channels.append(await self.wire.channel(publisher_confirms=True, frame_buffer_size=1000))
        for channel in self._channels:
            self._watch(channel)

    async def push(self, tickets: Sequence[Ticket], seconds: float) -> None:
        """Publish, and return when all are confirmed; raise :class:`ConnectionError` when that takes longer."""
        returned = await self._publish(tickets, seconds)
        if returned:  # the queue was deleted behind our back
            self.forget({ticket.queue for ticket in returned})
            await self.declare({ticket.queue for ticket in returned})
            if await self._publish(returned, seconds):
                raise ConnectionError("RabbitMQ returns tickets: their queues are deleted again and again")

    async def _publish(self, tickets: Sequence[Ticket], seconds: float) -> list[Ticket]:
        """The tickets that no queue has taken."""
        await self._unblocked(min(seconds, UNBLOCKED_SECONDS))
        channel = self._channels[next(self._turn) % len(self._channels)]
        sent = time.time_ns() // 1000
        async with self.answering(seconds + 2 * BLOCKED_SECONDS):
            publishing = [self._publish_one(channel, ticket, sent + number) for number, ticket in enumerate(tickets)]
            try:
                async with asyncio.timeout(seconds):
                    answers = await asyncio.gather(*publishing, return_exceptions=True)
            except TimeoutError:
                await self._unblocked(BLOCKED_SECONDS)
                self.fail(f"tickets were not confirmed within {seconds:g} s")
                raise ConnectionError(f"RabbitMQ has not confirmed tickets within {seconds:g} s") from None
        return self._judge(tickets, answers)

    async def _unblocked(self, seconds: float) -> None:
        """Wait, at most so long, while the server says that it takes nothing. The connection is good all the same."""
        try:
            async with asyncio.timeout(seconds):
                await self.wire.ready()
        except TimeoutError:
            raise ConnectionError("RabbitMQ takes no tickets now: a memory or disk alarm blocks those who publish") from None

    async def _publish_one(self, channel: Any, ticket: Ticket, sent: int) -> None:
        properties = spec.Basic.Properties(
            content_type="application/json",
            delivery_mode=PERSISTENT,
            message_id=uuid4().hex,  # a new one each time: what is returned is known by it
            priority=wire_priority(self.settings.queue_type, self.version, ticket.priority),
        )
        body = b'{"id":"%b","priority":%d,"sent":%d}' % (str(ticket.id).encode(), ticket.priority, sent)
        await channel.basic_publish(body, routing_key=self.name(ticket.queue), properties=properties, mandatory=True, wait=False)

    def _judge(self, tickets: Sequence[Ticket], answers: Collection[object]) -> list[Ticket]:
        returned: list[Ticket] = []
        for ticket, answer in zip(tickets, answers, strict=True):
            match answer:
                case None:
                    pass
                case aiormq.exceptions.PublishError():
                    returned.append(ticket)
                case aiormq.exceptions.DeliveryError():
                    raise ConnectionError("RabbitMQ refused tickets: a queue is full, or its node is going down")
                case MognetError():
                    raise answer
                case BaseException():
                    self.fail(explained(answer))
                    raise ConnectionError(f"tickets may not have reached RabbitMQ: {explained(answer)}") from answer
        return returned


__all__ = ["GivingLink"]
