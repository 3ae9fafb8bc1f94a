"""Gathers what happens in the same moment into one call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from time import monotonic
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")

CROWDED = 0.005
"""Seconds for which others are expected after two tasks have come within this time."""

LONG_TURN = 0.002
"""Seconds after which a task that goes on without waiting lets others have their turn."""


class Coalescer(Generic[A, R]):
    """Calls ``call(items)`` for all items that were added while the last call was under way, in one batch.

    The first item starts a call at the end of the loop's present turn: a single item waits for nothing, a burst goes together.
    ``call`` answers one result for each item; what it raises, every item of the batch gets. A caller that is cancelled stops
    waiting; its item is sent all the same, unless it went alone. When the sending itself is cancelled (as the end of the loop
    does), the items of that batch are cancelled, and the rest is sent.
    """

    def __init__(self, call: Callable[[list[A]], Awaitable[Sequence[R]]], *, limit: int = 1000) -> None:
        self._call = call
        self._limit = limit
        self._waiting: list[tuple[A, asyncio.Future[R]]] = []
        self._sender: asyncio.Future[None] | None = None
        self._calling = False

    def add(self, item: A) -> asyncio.Future[R]:
        """Send an item with the next batch."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._sender is None:
            self._start()
        return future

    async def go_alone(self, item: A) -> R:
        """Send one item by the caller's own task, which spares a task and two turns of the loop. Only while this is idle.

        What is added meanwhile goes together, behind it.
        """
        sender: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sender, self._calling = sender, True
        try:
            [result] = await self._call([item])
        finally:
            self._calling = False
            sender.set_result(None)
            self._sent(sender)
        return result

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, and no call is under way."""
        return not self._waiting and not self._calling

    async def drain(self) -> None:
        """Wait until all that was added has been sent."""
        while self._sender is not None:
            await asyncio.wait([self._sender])

    def _start(self) -> None:
        # With a context of its own: a batch belongs to none of its callers, nor do the log records made on the way.
        # Past any task factory, which might begin with the first item alone, and in the middle of what adds it.
        self._sender = asyncio.Task(self._send(), loop=asyncio.get_running_loop(), name="mognet coalescer", context=Context())
        self._sender.add_done_callback(self._sent)

    def _sent(self, sender: asyncio.Future[None]) -> None:
        if self._sender is not sender:  # the next one went alone before this was heard of
            return
        self._sender = None
        if self._waiting and not sender.get_loop().is_closed():
            self._start()

    async def _send(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
            await self._send_batch(batch)

    async def _send_batch(self, batch: list[tuple[A, asyncio.Future[R]]]) -> None:
        self._calling = True
        try:
            results = await self._call([item for item, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # a caller that left will not ask for it
        finally:
            self._calling = False
            for _, future in batch:
                future.cancel()  # those that are not done: the sending has been cancelled


class Company:
    """Whether others may want to go along with what comes now.

    Where one task alone comes again and again, or nobody has come for a while, there is nobody to wait for.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = 0
        self.is_same = False
        """Whether who came last had come before that, too."""
        self._came = self._crowded_until = self._turned = 0.0

    def is_expected(self) -> bool:
        """Called by each task that comes; answers whether it is one of several."""
        now, task = monotonic(), id(asyncio.current_task(self._loop))
        if task != self._task and now < self._came + CROWDED:
            self._crowded_until = now + CROWDED
        self.is_same = task == self._task
        self._task, self._came = task, now
        return now < self._crowded_until

    def is_waiting(self) -> bool:
        """Whether the present turn has been long, so that others should have theirs; asked by a task that goes on without waiting.

        Once it has said so, it takes that for done.
        """
        now = monotonic()
        if now <= self._turned + LONG_TURN:
            return False
        self._turned = now
        return True
