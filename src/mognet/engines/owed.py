"""Tickets that a broker has not confirmed, and that are pushed again when it is back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextvars import Context
from uuid import UUID

from mognet.backoff import Backoff
from mognet.engine import Broker, until_back
from mognet.exceptions import MognetError
from mognet.records import Ticket

AGAIN = Backoff(base=1.0, factor=1.5, cap=10.0)

MOST = 10_000
"""Tickets that are remembered; those beyond are left to a sweep, as are those of a process that ends."""

_log = logging.getLogger(__name__)


class Owed:
    """Brings tickets after all. Their jobs are stored, and a ticket that comes twice does no harm."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._tickets: dict[UUID, Ticket] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, tickets: Sequence[Ticket]) -> None:
        """These are owed from now on."""
        for ticket in tickets[: MOST - len(self._tickets)]:
            self._tickets[ticket.id] = ticket
        if self._task is None and self._tickets:
            self._task = asyncio.get_running_loop().create_task(self._pay(), name="mognet owed tickets", context=Context())

    async def close(self) -> None:
        """Forget them."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _pay(self) -> None:
        failures = 1
        try:
            while self._tickets:
                await until_back(self._broker, AGAIN.delay(failures))
                tickets = list(self._tickets.values())
                try:
                    await self._broker.push(tickets[:1])  # one that takes none for a while may get them all the same, each time
                    await self._broker.push(tickets[1:])
                except MognetError as error:
                    failures += 1
                    _log.debug("%d tickets are still owed: %s", len(tickets), error)
                else:
                    failures = 1
                    for ticket in tickets:
                        del self._tickets[ticket.id]
                    _log.info("%d jobs have got their tickets after all", len(tickets))
        finally:
            self._task = None
