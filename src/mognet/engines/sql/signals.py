"""Who hears of what: subscribers, and those who wait for work; in this engine directly, elsewhere by the doorbell."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from mognet.codec import pack_done
from mognet.engine import CHANGED, DONE, SMALL_VALUE
from mognet.engines.mailbox import Exchange
from mognet.engines.sql.doorbell import LARGEST, LARGEST_ALONE, Doorbell
from mognet.records import Record, Signal

LINE = "\0line"
"""The channel for changes in the line; no user's channel has such a name."""

FULL = 8
"""Rings that arrive at once when some may have been dropped: a socket's queue is about full."""


class Waiter:
    """Somebody who waits for work in some queues."""

    def __init__(self, queues: Collection[str]) -> None:
        self.queues = frozenset(queues)
        self.rung = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Wait for a ring, at most so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.rung.wait()


class Signals:
    """The ears of one engine."""

    def __init__(self, folder: Path | None, app: str) -> None:
        self._exchange = Exchange()
        self._doorbell = Doorbell(folder, app)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._subscribed: Counter[str] = Counter()
        self._waiters: set[Waiter] = set()
        self._rings = 0
        self._to_ring: set[str] = set()
        self.reachable: bool | None = None
        """Whether other processes can ring here; None: not tried yet."""

    # signals

    @asynccontextmanager
    async def subscribe(self, *channels: str) -> AsyncIterator[AsyncIterator[Signal]]:
        """Inside the context, signals on these channels arrive."""
        async with self._exchange.subscribe(*set(channels)) as signals:
            for channel in set(channels):
                self._subscribe(channel)
            try:
                yield signals
            finally:
                for channel in set(channels):
                    self._subscribed[channel] -= 1
                    if not self._subscribed[channel]:
                        del self._subscribed[channel]
                        self._doorbell.stop_listening(channel)

    def _subscribe(self, channel: str) -> None:
        self._subscribed[channel] += 1
        if self._subscribed[channel] == 1:
            self._doorbell.listen(channel, lambda body: self._exchange.publish(Signal(channel, body)))

    def publish(self, channel: str, bodies: Sequence[bytes]) -> None:
        """Send signals; from any thread."""
        for body in bodies:
            self._exchange.publish(Signal(channel, body))
        self._doorbell.send(channel, bodies)

    # the ends of jobs

    def expected(self) -> bool:
        """Whether anybody wants to know which jobs end."""
        return DONE in self._subscribed or self._doorbell.heard(DONE)

    def tell_done(self, ended: Sequence[tuple[Record, bytes | None]]) -> None:
        """Ring DONE for these jobs, with those values that are small; from any thread."""
        if ended and self.expected():
            self.publish(DONE, [_pack(record, value) for record, value in ended])

    def tell_changed(self) -> None:
        """Ring for those who read what has changed; from any thread."""
        if CHANGED in self._subscribed or self._doorbell.heard(CHANGED):
            self.publish(CHANGED, [b""])

    # the line

    def ring(self, queues: Collection[str]) -> None:
        """Wake those who wait for work in these queues; from any thread."""
        if self._waiters and threading.get_ident() == self._thread:
            self._wake(frozenset(queues))
        elif self._waiters:
            with suppress(RuntimeError):  # the loop was closed before the engine
                self._loop.call_soon_threadsafe(self._wake, frozenset(queues))
        if self._doorbell.heard(LINE):
            body = json.dumps(list(queues)).encode()
            self._doorbell.send(LINE, [body if len(body) < LARGEST else b"[]"], keep=False)

    def ring_soon(self, queue: str) -> None:
        """Ring for this queue when the loop next has a turn, once for all that came until then; from the loop's thread."""
        if not self._to_ring:
            self._loop.call_soon(self._ring_now)
        self._to_ring.add(queue)

    def _ring_now(self) -> None:
        queues, self._to_ring = self._to_ring, set()
        self.ring(queues)

    def _wake(self, queues: frozenset[str]) -> None:
        for waiter in self._waiters:
            if not queues or queues & waiter.queues:
                waiter.rung.set()

    @contextmanager
    def waiting(self, queues: Collection[str]) -> Iterator[Waiter]:
        """Inside the context no ring is missed."""
        waiter = Waiter(queues)
        if not self._waiters:
            self._attend()
        self._waiters.add(waiter)
        try:
            yield waiter
        finally:
            self._waiters.discard(waiter)
            if not self._waiters and self.reachable:
                self._doorbell.disregard(LINE)

    def _attend(self) -> None:
        """Hear the rings of others from now on; they were left in the socket while nobody here waited."""
        if self.reachable is None:
            self.reachable = self._doorbell.listen(LINE, self._rung)
        elif self.reachable:
            self._doorbell.drain(LINE)
            self._doorbell.attend(LINE, self._rung)

    def _rung(self, body: bytes) -> None:
        if not self._rings:
            self._loop.call_soon(self._count_anew)
        self._rings += 1
        self._wake(frozenset() if self._rings >= FULL else frozenset(json.loads(body)))

    def _count_anew(self) -> None:
        self._rings = 0

    # upkeep

    def tidy(self) -> None:
        """Remove what killed processes left."""
        self._doorbell.tidy()

    def stop_waiting(self) -> None:
        """Wake all who wait for work."""
        self._wake(frozenset())

    def close(self) -> None:
        """Stop listening."""
        self._doorbell.close()
        self.reachable = None


def _pack(record: Record, value: bytes | None) -> bytes:
    body = pack_done(record, value if value is None or len(value) <= SMALL_VALUE else None)
    return body if len(body) <= LARGEST_ALONE else pack_done(record, None)
