"""Signals and wake-ups inside one process, between the event loops of several threads."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from mognet.records import Signal

CAPACITY = 10_000
"""Signals that wait for one subscriber; when there are more, the oldest are dropped, so that a slow reader costs bounded memory."""


class Mailbox:
    """What has arrived for one subscriber, and a way to wait for it in its event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._arrived = asyncio.Event()
        self._signals: deque[Signal] = deque(maxlen=CAPACITY)
        self._told = False

    def put(self, signal: Signal) -> None:
        """Deliver; from any thread."""
        self._signals.append(signal)
        if not self._told:
            self._told = True
            with suppress(RuntimeError):  # the subscriber's loop has ended without leaving its context
                if threading.get_ident() == self._thread:  # its loop need not be woken
                    self._arrived.set()
                else:
                    self._loop.call_soon_threadsafe(self._arrived.set)

    async def __aiter__(self) -> AsyncIterator[Signal]:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            self._told = False
            while self._signals:
                yield self._signals.popleft()


class Exchange:
    """Hands signals to subscribers and rings for those who wait for work; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._boxes: defaultdict[str, set[Mailbox]] = defaultdict(set)
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def publish(self, signal: Signal) -> None:
        """Deliver to all subscribers of the signal's channel."""
        with self._lock:
            boxes = list(self._boxes.get(signal.channel, ()))
        for box in boxes:
            box.put(signal)

    def publish_lazily(self, channel: str, body: Callable[[], bytes]) -> None:
        """Deliver, making the body only if somebody listens."""
        if channel in self._boxes:
            self.publish(Signal(channel, body()))

    @asynccontextmanager
    async def subscribe(self, *channels: str) -> AsyncIterator[AsyncIterator[Signal]]:
        """Inside the context, signals on these channels arrive."""
        box = Mailbox()
        with self._lock:
            for channel in channels:
                self._boxes[channel].add(box)
        try:
            yield aiter(box)
        finally:
            with self._lock:
                for channel in channels:
                    self._boxes[channel].discard(box)
                    if not self._boxes[channel]:
                        del self._boxes[channel]

    def ring(self) -> None:
        """Wake all who wait for work."""
        with self._lock:
            waiting = list(self._waiting)
        for loop, event in waiting:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)

    @contextmanager
    def bell(self) -> Iterator[Callable[[float], Awaitable[None]]]:
        """Inside the context no ring is missed: the function given waits for one, at most so many seconds."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.add(entry)

        async def rung(seconds: float) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await entry[1].wait()

        try:
            yield rung
        finally:
            with self._lock:
                self._waiting.discard(entry)
