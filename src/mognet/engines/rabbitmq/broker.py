"""The broker: tickets over RabbitMQ."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Self

from mognet.engines.knocking import Door, Doors
from mognet.engines.rabbitmq.giving import GivingLink
from mognet.engines.rabbitmq.link import ANSWER_SECONDS
from mognet.engines.rabbitmq.session import Session
from mognet.engines.rabbitmq.settings import Settings
from mognet.engines.rabbitmq.taking import Pulled, Receipt, TakingLink
from mognet.engines.rabbitmq.wire import Wire
from mognet.exceptions import ConnectionError, ImproperlyConfigured
from mognet.records import Delivery, Ticket

LOOK_EVERY = 5.0
"""Seconds after which a wait asks for tickets again: so a dead connection, or a consumer that brings nothing, is noticed."""

SORE_SECONDS = 10.0
"""After a push that was not confirmed, how long the next ones wait only briefly: a blocked broker should not hold up every submit."""

SORE_DEADLINE = 0.5

PROTOCOL = b"AMQP\x00\x00\x09\x01"
"""How a client of AMQP 0-9-1 begins; the server then says who it is."""


class RabbitMQBroker:
    """A :class:`mognet.engine.Broker`. Two connections, made when they are needed: a broker that blocks publishers still gives."""

    def __init__(self, settings: Settings, app: str, *, deadline: float = ANSWER_SECONDS) -> None:
        name = f"mognet {app} {os.getpid()}@{socket.gethostname()}"

        def taking(wire: Wire) -> TakingLink:
            return TakingLink(wire, app, settings)

        def giving(wire: Wire) -> GivingLink:
            return GivingLink(wire, app, settings)

        self._deadline = deadline
        self._sore_until = 0.0
        doors = Doors(Door(host, port, question=b"" if tls else PROTOCOL) for host, port, _, _, _, tls in settings.addresses)
        self.taking: Session[TakingLink] = Session(settings, doors, taking, f"{name} takes")
        self.giving: Session[GivingLink] = Session(settings, doors, giving, f"{name} gives")

    async def __aenter__(self) -> Self:
        self.taking.reopen()
        self.giving.reopen()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.gather(self.taking.close(), self.giving.close())

    async def check_login(self) -> None:
        """Raise :class:`ImproperlyConfigured` if the broker refuses the login; nothing if it cannot be reached."""
        try:
            await self.taking.link(self._deadline)
        except ConnectionError:
            if self.taking.refused is not None:
                raise ImproperlyConfigured(
                    f"RabbitMQ does not let us in ({self.taking.refused}): correct user and password in the broker's URL"
                ) from None

    async def until_back(self, seconds: float) -> bool:
        """Wait so long, or until tickets can be given over a new connection."""
        return await self.giving.until_back(seconds)

    async def push(self, tickets: Sequence[Ticket]) -> None:
        if not tickets:
            return
        loop = asyncio.get_running_loop()
        seconds = self._deadline if loop.time() >= self._sore_until else SORE_DEADLINE
        until = loop.time() + seconds
        try:
            while not await self._push(tickets, until - loop.time()):
                pass
        except ConnectionError:
            self._sore_until = loop.time() + SORE_SECONDS
            raise
        self._sore_until = 0.0

    async def _push(self, tickets: Sequence[Ticket], seconds: float) -> bool:
        """False: the connection broke meanwhile, and there is time to try the next. A ticket that comes twice does no harm."""
        began = asyncio.get_running_loop().time()
        link = await self.giving.link(seconds)
        try:
            await link.declare({ticket.queue for ticket in tickets})
            await link.push(tickets, seconds)
        except ConnectionError:
            if link.alive or asyncio.get_running_loop().time() - began > seconds / 2:
                raise
            return False
        return True

    async def pull(self, queues: Collection[str], limit: int, wait: float = 0.0) -> list[Delivery]:
        if limit <= 0 or not queues:
            return []
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while True:
            link = await self.taking.link(self._deadline)
            usable = await link.usable(queues)
            pulled = [] if wait > 0 and link.lingers(usable) else await link.fetch(usable, limit)
            left = until - loop.time()
            if not pulled and left > 0:
                pulled = await self._wait(link, usable, limit, min(left, LOOK_EVERY))
                left = until - loop.time()
            if pulled or left <= 0:
                return [each.delivery for each in pulled]

    async def _wait(self, link: TakingLink, queues: Collection[str], limit: int, seconds: float) -> list[Pulled]:
        """The ticket that comes first, and those that came with it."""
        first = await link.wait(queues, seconds)
        if first is None:
            return []
        try:
            more = await link.fetch(queues, limit - 1) if limit > 1 else []
        except BaseException:
            self.give_back([first.delivery])
            raise
        return sorted([first, *more])

    def ack(self, deliveries: Collection[Delivery]) -> None:
        self._settle(deliveries, keep=False)

    def give_back(self, deliveries: Collection[Delivery]) -> None:
        self._settle(deliveries, keep=True)

    @staticmethod
    def _settle(deliveries: Collection[Delivery], *, keep: bool) -> None:
        tags: defaultdict[TakingLink, list[int]] = defaultdict(list)
        for delivery in deliveries:
            if isinstance(delivery.receipt, Receipt):
                tags[delivery.receipt.link].append(delivery.receipt.tag)
        for link, each in tags.items():
            link.settle(each, keep=keep)

    async def depth(self, queue: str) -> int:
        link = await self.taking.link(self._deadline)
        return 0 if link.empty(queue) else await link.depth(queue)


__all__ = ["RabbitMQBroker"]
