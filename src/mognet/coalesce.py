"""Gathers what happens in the same moment into one call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")


class Coalescer(Generic[A, R]):
    """Calls ``call(items)`` for all items that were added while the last call was under way, in one batch.

    The first item starts a call at the end of the loop's present turn: a single item waits for nothing, a burst goes together.
    ``call`` answers one result for each item; what it raises, every item of the batch gets. A caller that is cancelled stops
    waiting; its item is sent all the same. When the sending itself is cancelled (as the end of the loop does), the items
    of that batch are cancelled, and the rest is sent.
    """

    def __init__(self, call: Callable[[list[A]], Awaitable[Sequence[R]]], *, limit: int = 1000) -> None:
        self._call = call
        self._limit = limit
        self._waiting: list[tuple[A, asyncio.Future[R]]] = []
        self._sender: asyncio.Task[None] | None = None

    def add(self, item: A) -> asyncio.Future[R]:
        """Send an item with the next batch."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._sender is None:
            self._start()
        return future

    async def drain(self) -> None:
        """Wait until all that was added has been sent."""
        while self._sender is not None:
            await asyncio.wait([self._sender])

    def _start(self) -> None:
        # With a context of its own: a batch belongs to none of its callers, nor do the log records made on the way.
        self._sender = asyncio.get_running_loop().create_task(self._send(), name="mognet coalescer", context=Context())
        self._sender.add_done_callback(self._sent)

    def _sent(self, sender: asyncio.Task[None]) -> None:
        self._sender = None
        if self._waiting and not sender.get_loop().is_closed():
            self._start()

    async def _send(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
            await self._send_batch(batch)

    async def _send_batch(self, batch: list[tuple[A, asyncio.Future[R]]]) -> None:
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
            for _, future in batch:
                future.cancel()  # those that are not done: the sending has been cancelled
