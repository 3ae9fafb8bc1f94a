"""Tickets that a broker has not confirmed, and that are pushed again when it is back."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from contextvars import Context
from uuid import UUID

from mognet.backoff import Backoff
from mognet.engine import Broker, until_back
from mognet.exceptions import MognetError
from mognet.records import Ticket

AGAIN = Backoff(base=1.0, factor=1.5, cap=10.0)

AT_ONCE = 500
"""Tickets that are pushed in one go: as many as have been are known to be there."""

SAY_EVERY = 10.0
"""Seconds between two words in the log about tickets that are owed."""

MOST = 10_000
"""Tickets that are remembered; those beyond are left to a sweep, as are those of a process that ends."""

_log = logging.getLogger(__name__)


class Owed:
    """Brings tickets after all. Their jobs are stored, and a ticket that comes twice does no harm."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._tickets: dict[UUID, Ticket] = {}
        self._task: asyncio.Task[None] | None = None
        self._said = float("-inf")

    async def push(self, tickets: Sequence[Ticket]) -> None:
        """Push them; those that the broker does not confirm are owed from now on."""
        for start in range(0, len(tickets), AT_ONCE):
            try:
                await self._broker.push(tickets[start : start + AT_ONCE])
            except MognetError as error:
                self._add(tickets[start:], error)
                return

    def _add(self, tickets: Sequence[Ticket], error: MognetError) -> None:
        for ticket in tickets[: MOST - len(self._tickets)]:
            self._tickets[ticket.id] = ticket
        now = asyncio.get_running_loop().time()
        if now >= self._said + SAY_EVERY:
            self._said = now
            _log.warning("%d jobs are stored but have no tickets yet; they are owed: %s", len(self._tickets), error)
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
                queues: defaultdict[str, list[Ticket]] = defaultdict(list)
                for ticket in self._tickets.values():
                    queues[ticket.queue].append(ticket)
                paid = [await self._pay_queue(tickets) for tickets in queues.values()]  # one that cannot be used stands in nobody's way
                failures = 1 if any(paid) else failures + 1
        finally:
            self._task = None

    async def _pay_queue(self, tickets: Sequence[Ticket]) -> bool:
        """Whether some could be pushed: first one, since a broker that confirms none for a while may get them all the same, each time."""
        paid = 0
        try:
            while paid < len(tickets):
                some = tickets[paid : paid + (AT_ONCE if paid else 1)]
                await self._broker.push(some)
                paid += len(some)
                for ticket in some:
                    self._tickets.pop(ticket.id, None)
        except MognetError as error:
            _log.debug("%d tickets are still owed: %s", len(tickets) - paid, error)
        if paid:
            _log.info("%d jobs have got their tickets after all", paid)
        return paid > 0
