"""One connection that rings for others and listens for their rings: hints, gathered, outside every transaction that matters."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextvars import Context
from enum import StrEnum
from hashlib import blake2b

import psycopg
from psycopg import Notify

from mognet.backoff import pause_after, worth_saying
from mognet.codec import pack_done
from mognet.engine import CHANGED, DONE, SMALL_VALUE
from mognet.engines.knocking import Doors
from mognet.engines.mailbox import Exchange
from mognet.engines.postgres.connecting import Connection, connect, cut, give_up
from mognet.engines.postgres.envelope import LARGEST, Opener, sealed
from mognet.engines.postgres.pool import RECONNECT
from mognet.engines.postgres.settings import Settings
from mognet.exceptions import MognetError
from mognet.records import Record, Signal

_log = logging.getLogger(__name__)

EXCHANGE_SECONDS = 5.0
PING_EVERY = 15.0
MOST_WAITING = 10_000
"""Signals that wait to be sent while the server cannot be reached; older ones are dropped."""


# To notify nobody would cost all who commit at the same time: the server has one lock for it.
_NOTIFY = """
SELECT pg_notify(channel, text) FROM unnest(%s::text[], %s::text[], %s::int8[]) AS each(channel, text, lock)
WHERE NOT pg_try_advisory_xact_lock(lock)"""


class Kind(StrEnum):
    """What is listened to, each on a channel of its own."""

    BELL = "bell"
    """Something came in line."""
    TALK = "talk"
    """Signals other than DONE."""
    DONE = "done"
    CHANGED = "changed"
    """A change was noted."""

    @classmethod
    def of(cls, channel: str) -> Kind:
        """Where a signal travels."""
        return {DONE: cls.DONE, CHANGED: cls.CHANGED}.get(channel, cls.TALK)


class Waiter:
    """A claim that waits for work in some queues."""

    def __init__(self, queues: Collection[str]) -> None:
        self._queues = frozenset(queues)
        self._rung = asyncio.Event()

    def ring(self, queues: Collection[str] | None) -> None:
        """Something came in line in these queues (None: it is not known in which)."""
        if queues is None or not self._queues.isdisjoint(queues):
            self._rung.set()

    async def wait(self, seconds: float) -> bool:
        """Until the next ring since the last wait, or so many seconds; whether it rang."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        rung = self._rung.is_set()
        self._rung.clear()
        return rung


class Doorbell:
    """The state machine of one connection: it comes back after any fault, and then listens to what it should."""

    def __init__(self, settings: Settings, app: int, doors: Doors) -> None:
        self._settings = settings
        self._lookout = doors.lookout()
        self._channels = {kind: f"mognet_{settings.schema}_{app}_{kind}" for kind in Kind}
        self._kinds = {channel: kind for kind, channel in self._channels.items()}
        self._locks = {kind: _lock_number(channel) for kind, channel in self._channels.items()}
        self._exchange = Exchange()
        self._opener = Opener()
        self._waiters: set[Waiter] = set()
        self.rings = 0
        """How often something came in line, or may have, as far as that was heard here."""
        self._subscribers: dict[Kind, int] = dict.fromkeys(Kind, 0)
        self._listening: frozenset[Kind] = frozenset()
        self._heard = asyncio.Condition()
        self._wake = asyncio.Event()
        self._bell: set[str] = set()
        self._talk: list[tuple[Signal, asyncio.Future[None]]] = []
        self._done: list[tuple[Record, bytes | None]] = []
        self._changed = False
        self._task: asyncio.Task[None] | None = None
        self._closing = self._away = False
        self._connection: Connection | None = None
        self._pid = 0
        self.deaf = bool(settings.pooler)
        """Whether a pooler stands between: through it one can ring for others, and hears nothing."""

    # for the engine

    @property
    def hears_bells(self) -> bool:
        """Whether a ring of others would be heard now."""
        return Kind.BELL in self._listening

    def ear(self, kind: Kind) -> int:
        """The number of the advisory lock that all share who listen to this."""
        return self._locks[kind]

    def ring(self, queues: Collection[str], *, heard: bool = True) -> None:
        """Something came in line: tell those who wait here at once, the others soon, unless it is known that there are none."""
        if queues:
            self._ring_here(queues)
            if heard:
                self._bell |= set(queues)
                self.start()

    def letters(self, queues: Collection[str], *, changed: bool) -> list[tuple[str, str]]:
        """Channels and texts of the rings that somebody else's transaction sends when it commits."""
        letters = [(self._channels[Kind.BELL], _bell_text(set(queues)))]
        return [*letters, (self._channels[Kind.CHANGED], _CHANGED)] if changed else letters

    def tell_done(self, ended: Sequence[tuple[Record, bytes | None]], *, heard: bool = True) -> None:
        """Jobs have reached a final state. Others are told, unless it is known that nobody listens."""
        for record, value in ended:
            small = value if value is None or len(value) <= SMALL_VALUE else None
            self._exchange.publish_lazily(DONE, lambda record=record, small=small: pack_done(record, small))  # type: ignore[misc]
        if ended and heard:
            self._done += ended
            del self._done[:-MOST_WAITING]
            self.start()

    def tell_changed(self, *, heard: bool) -> None:
        """There is something new for those who read what has changed. Others are told, unless it is known that nobody listens."""
        self._exchange.publish_lazily(CHANGED, bytes)
        if heard:
            self._changed = True
            self.start()

    async def publish(self, signal: Signal) -> None:
        """Send a signal; returns when it is on its way."""
        self._exchange.publish(signal)
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._talk.append((signal, sent))
        self.start()
        await sent

    @contextlib.contextmanager
    def waiting(self, queues: Collection[str]) -> Iterator[Waiter]:
        """Inside the context no ring for these queues is missed."""
        waiter = Waiter(queues)
        self._waiters.add(waiter)
        self.start()
        try:
            yield waiter
        finally:
            self._waiters.discard(waiter)

    @contextlib.asynccontextmanager
    async def subscribe(self, *channels: str) -> AsyncIterator[AsyncIterator[Signal]]:
        """Inside the context, signals on these channels arrive, as far as the server can be reached."""
        kinds = {Kind.of(channel) for channel in channels}
        async with self._exchange.subscribe(*channels) as signals:
            for kind in kinds:
                self._subscribers[kind] += 1
            try:
                await self._until_heard(kinds)
                yield signals
            finally:
                for kind in kinds:
                    self._subscribers[kind] -= 1
                self._wake.set()

    async def _until_heard(self, kinds: set[Kind]) -> None:
        """Or until it is known that nothing can be heard at present: signals are hints, and who subscribes looks by himself, too."""
        self.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXCHANGE_SECONDS), self._heard:
                await self._heard.wait_for(lambda: self.deaf or self._away or self._closing or kinds <= self._listening)

    def hang_up(self) -> None:
        """Connect anew: other connections had lost their other end without a word, so nothing may be heard over this one either."""
        if self._connection is not None:
            cut(self._connection)

    async def close(self) -> None:
        """Send what waits, and hang up."""
        self._closing = True
        self._wake.set()
        for waiter in self._waiters:
            waiter.ring(None)
        if self._task is not None:
            await asyncio.wait([self._task], timeout=EXCHANGE_SECONDS / 2)
            self._task.cancel()
            await asyncio.wait([self._task])
        self._forget_talk(None)

    # the machine

    def start(self) -> None:
        """Connect, or look what there is to do now."""
        self._wake.set()
        if self._task is None and not self._closing:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="mognet doorbell", context=Context())

    async def _run(self) -> None:
        failures = 0
        while not self._closing:
            try:
                connection, self.deaf = await connect(self._settings)
            except Exception as error:  # whatever keeps it from connecting, it tries for ever: the poll does its work meanwhile
                failures = await self._stumble(failures, error)
                continue
            try:
                self._connection = connection
                await self._serve(connection)
                failures = 0
            except (psycopg.Error, MognetError, OSError) as error:
                failures = await self._stumble(min(failures, 3), error)
            finally:
                self._connection = None
                give_up(connection)
        self._forget_talk(None)
        async with self._heard:
            self._heard.notify_all()

    async def _stumble(self, failures: int, error: Exception) -> int:
        self._listening, self._away = frozenset(), True
        self._forget_talk(error)
        async with self._heard:
            self._heard.notify_all()
        delay = pause_after(error, failures + 1, RECONNECT)
        say = _log.info if worth_saying(failures + 1) else _log.debug
        say("no signals from other processes for %.1f s, work is looked for instead: %s", delay, error)
        back = asyncio.create_task(self._lookout.wait(delay))
        back.add_done_callback(lambda _: self._wake.set())
        try:
            while not (self._closing or back.done()):
                self._wake.clear()
                await self._wake.wait()
                self._forget_talk(error)
        finally:
            back.cancel()
            await asyncio.wait([back])
        return 0 if not back.cancelled() and back.result() else failures + 1

    def _forget_talk(self, error: Exception | None) -> None:
        """Signals that cannot be sent are lost: they are hints, and whoever waits looks."""
        talk, self._talk = self._talk, []
        for _, sent in talk:
            if not sent.done():
                sent.set_result(None)
        if error is None:
            self._done.clear()

    async def _serve(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        self._away = False
        connection.add_notify_handler(self._notified)
        self._pid = connection.info.backend_pid
        while True:
            self._wake.clear()
            await self._listen(connection)
            await self._send(connection)
            if self._closing and not (self._bell or self._talk or self._done or self._changed):
                return
            if self._wake.is_set():
                continue
            loop.add_reader(connection.pgconn.socket, self._wake.set)
            try:
                async with asyncio.timeout(PING_EVERY * random.uniform(0.8, 1.2)):
                    await self._wake.wait()
            except TimeoutError:
                loop.remove_reader(connection.pgconn.socket)
                await self._execute(connection, "SELECT 1")
            finally:
                loop.remove_reader(connection.pgconn.socket)
            self._take_notifications(connection)

    def _take_notifications(self, connection: Connection) -> None:
        connection.pgconn.consume_input()
        while (notify := connection.pgconn.notifies()) is not None:
            self._notified(Notify(notify.relname.decode(), notify.extra.decode(errors="replace"), notify.be_pid))

    async def _execute(self, connection: Connection, statement: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        guard = asyncio.get_running_loop().call_later(EXCHANGE_SECONDS, cut, connection)
        try:
            cursor = await connection.execute(statement.encode(), values)
            return await cursor.fetchall()
        finally:
            guard.cancel()

    # listening

    def _wanted(self) -> frozenset[Kind]:
        if self.deaf:  # what is listened to would stay with the server's session, which the pooler gives to others
            return frozenset()
        bells = {Kind.BELL} if self._waiters or Kind.BELL in self._listening else set()
        return frozenset({kind for kind, number in self._subscribers.items() if number} | bells)

    async def _listen(self, connection: Connection) -> None:
        """Listen to what is wanted. A lock that is shared by all who listen tells those who ring that there is somebody."""
        wanted = self._wanted()
        if self._closing or wanted == self._listening:
            return
        steps = [
            f'LISTEN "{self._channels[kind]}"; SELECT pg_advisory_lock_shared({self._locks[kind]})' for kind in wanted - self._listening
        ]
        steps += [
            f'UNLISTEN "{self._channels[kind]}"; SELECT pg_advisory_unlock_shared({self._locks[kind]})' for kind in self._listening - wanted
        ]
        await self._execute_only(connection, "; ".join(steps))
        if Kind.BELL in wanted - self._listening:
            self._ring_here(None)  # what came in line before it was heard
        self._listening = wanted
        async with self._heard:
            self._heard.notify_all()

    async def _execute_only(self, connection: Connection, statement: str) -> None:
        guard = asyncio.get_running_loop().call_later(EXCHANGE_SECONDS, cut, connection)
        try:
            await connection.execute(statement.encode(), prepare=False)  # several at once cannot be prepared
        finally:
            guard.cancel()

    def _notified(self, notify: Notify) -> None:
        if notify.pid == self._pid:
            return  # told here already
        kind = self._kinds.get(notify.channel)
        if kind is Kind.BELL:
            self._ring_here(_queues(notify.payload))
        elif kind is not None and (signal := self._opener.open(notify.payload, notify.pid)) is not None:
            self._exchange.publish(signal)

    def _ring_here(self, queues: Collection[str] | None) -> None:
        self.rings += 1
        for waiter in self._waiters:
            waiter.ring(queues)

    # sending

    async def _send(self, connection: Connection) -> None:
        """All that came together since the last time, to those channels on which somebody listens."""
        queues, self._bell = self._bell, set()
        talk, self._talk = self._talk, []
        done, self._done = self._done, []
        changed, self._changed = self._changed, False
        if not (queues or talk or done or changed):
            return
        try:
            letters = [(Kind.BELL, _bell_text(queues))] if queues else []
            letters += [(Kind.DONE, each) for record, value in done for each in _done_letters(record, value)]
            letters += [(Kind.CHANGED, _CHANGED)] if changed else []
            letters += [(Kind.of(signal.channel), each) for signal, _ in talk for each in sealed(signal)]
            channels, texts, locks = zip(*[(self._channels[kind], text, self._locks[kind]) for kind, text in letters], strict=True)
            await self._execute(connection, _NOTIFY, [list(channels), list(texts), list(locks)])
        finally:
            for _, sent in talk:
                if not sent.done():
                    sent.set_result(None)


_CHANGED = next(sealed(Signal(CHANGED, b"")))


def _lock_number(channel: str) -> int:
    return int.from_bytes(blake2b(channel.encode(), digest_size=8).digest(), signed=True)


def _bell_text(queues: set[str]) -> str:
    text = json.dumps(sorted(queues))
    return text if len(text) <= LARGEST else "null"


def _queues(payload: str) -> list[str] | None:
    try:
        queues = json.loads(payload)
    except ValueError:
        return None
    return [str(queue) for queue in queues] if isinstance(queues, list) else None


def _done_letters(record: Record, value: bytes | None) -> list[str]:
    small = value if value is None or len(value) <= SMALL_VALUE else None
    letters = list(sealed(Signal(DONE, pack_done(record, small))))
    return letters if len(letters) == 1 else list(sealed(Signal(DONE, pack_done(record, None))))
