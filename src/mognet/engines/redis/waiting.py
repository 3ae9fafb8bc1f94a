"""Those who wait for jobs in this process, and the bell that the server rings for one of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection
from contextlib import suppress


class Waiter:
    """Somebody who waits for work in some queues."""

    def __init__(self, number: int, engine: str, queues: Collection[str]) -> None:
        self.number = number
        self.name: str = f"{engine}/{number}"
        self.queues: frozenset[str] = frozenset(queues)
        self.rung: asyncio.Event = asyncio.Event()
        self.known = False
        """Whether the server may know that it waits."""

    async def wait(self, seconds: float) -> None:
        """Wait for a ring, at most so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.rung.wait()


class Waiters:
    """All of one engine object."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._numbers = itertools.count(1)
        self._waiters: dict[int, Waiter] = {}

    def enter(self, queues: Collection[str]) -> Waiter:
        """One more."""
        waiter = Waiter(next(self._numbers), self._engine, queues)
        self._waiters[waiter.number] = waiter
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """One less."""
        self._waiters.pop(waiter.number, None)

    def ring(self, number: int, queue: str) -> bool:
        """Wake the one that the bell was for, or else another. False: nobody waits here any more."""
        waiter = self._waiters.get(number)
        if waiter is None:
            waiter = next((each for each in self._waiters.values() if queue in each.queues and not each.rung.is_set()), None)
        if waiter is not None:
            waiter.rung.set()
        return waiter is not None

    def ring_all(self) -> None:
        """Wake all: rings may have been lost."""
        for waiter in self._waiters.values():
            waiter.rung.set()
