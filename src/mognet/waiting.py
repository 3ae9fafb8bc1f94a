"""Waiting for jobs to end."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from uuid import UUID

from mognet.codec import unpack_done
from mognet.engine import DONE, Engine
from mognet.exceptions import ConnectionError, NotConnected, ResultLost
from mognet.records import Record, Signal

LOOK_EVERY = 2.0
"""Seconds between looks at the jobs that are waited for: signals are hints, and may be lost."""

LINGER = 5.0
"""Seconds that the subscription is kept when nobody waits any more."""

CHUNK = 500
"""Jobs in one look."""

ALWAYS = float("-inf")
"""The moment before all ends: of a job that was not run again."""

_log = logging.getLogger(__name__)

Ended = tuple[Record, bytes | None]
"""A record in a final state, and its value if it came along."""


class Waiters:
    """Tells any number of waiters when their jobs end, by one subscription and one look at all of them together.

    Every waiter gets an answer: the record, or :class:`ResultLost` when there is none. An engine that cannot be reached
    ends no wait.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: defaultdict[str, dict[asyncio.Future[Ended], float | None]] = defaultdict(dict)
        """Who waits for a job, and for an end after which moment: what is older is that of an earlier life. None: not known yet."""
        self._unseen: set[str] = set()
        self._unborn: set[str] = set()
        self._look_now = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._loop = asyncio._get_running_loop()

    @contextmanager
    def expect(self, id: UUID, *, known: Record | None = None, unborn: bool = False) -> Iterator[asyncio.Future[Ended]]:
        """Inside the context, the future given is told of the job's end: of the life that ``known`` is in, if that is given.

        ``unborn``: it is yet to be submitted (:meth:`born`).
        """
        if self._closed:
            raise NotConnected(f"job {id} cannot be waited for: the app was closed")
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):  # whose turns would not be heard of here
            raise NotConnected(f"job {id} cannot be waited for in this event loop: its app is connected in another one")
        future: asyncio.Future[Ended] = loop.create_future()
        key = str(id)
        self._waiting[key][future] = ALWAYS if unborn else None if known is None else _begun(known)
        if unborn:
            self._unborn.add(key)
        else:
            self._unseen.add(key)
            self._look_now.set()
        if self._task is None:
            # With a context of its own: it belongs to none of those who wait, nor do the log records made on the way.
            self._task = loop.create_task(self._run(), name="mognet waiters", context=Context())
        try:
            yield future
        finally:
            if not future.cancel() and not future.cancelled():
                future.exception()  # whoever left before the end does not ask for it
            self._waiting[key].pop(future, None)
            if not self._waiting[key]:
                del self._waiting[key]
                self._unseen.discard(key)
                self._unborn.discard(key)

    def born(self, id: UUID) -> None:
        """The job has been submitted: from now on, a missing record means that it is lost."""
        self._unborn.discard(str(id))

    async def close(self) -> None:
        """Stop; whoever still waits, or tries to, gets :class:`NotConnected`."""
        self._closed = True
        for key, futures in self._waiting.items():
            for future in futures:
                if not future.done():
                    future.set_exception(NotConnected(f"the app was closed while job {key} was waited for"))
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                async with self._engine.subscribe(DONE) as signals, asyncio.TaskGroup() as group:
                    listener = group.create_task(self._listen(signals), name="mognet waiters' ears")
                    await self._look()
                    listener.cancel()
            except* ConnectionError as errors:
                _log.warning("waiting goes on while the engine cannot be reached: %s", errors.exceptions[0])
                await asyncio.sleep(LOOK_EVERY)
            except* Exception as errors:  # an engine's bug must not leave anybody waiting for ever
                _log.exception("waiting goes on after an error", exc_info=errors.exceptions[0])
                await asyncio.sleep(LOOK_EVERY)
            else:
                if not self._waiting:
                    self._task = None
                    return

    async def _listen(self, signals: AsyncIterator[Signal]) -> None:
        async for signal in signals:
            if signal.body[2:38].decode(errors="replace") in self._waiting:
                try:
                    record, value = unpack_done(signal.body)
                except Exception as error:  # it is only a hint, and may come from anybody who can reach the engine
                    _log.warning("a signal that a job has ended cannot be read: %r", error)
                else:
                    self._hear(record, value)

    def _hear(self, record: Record, value: bytes | None) -> None:
        """Believe a signal, unless it may be about an earlier life of the job: of an end before it was run again. Then look."""
        for future, begun in self._waiting.get(str(record.id), {}).items():
            if begun is not None and record.finished is not None and record.finished > begun:
                _tell(future, record, value)
            else:
                self._unseen.add(str(record.id))
                self._look_now.set()

    async def _look(self) -> None:
        """Look at all waits now and then, beginning now, and at new ones at once, until nobody has waited for a while."""
        loop = asyncio.get_running_loop()
        look_at_all, leave = loop.time(), loop.time() + LINGER
        while self._waiting or loop.time() < leave:
            if self._waiting:
                leave = loop.time() + LINGER
            with suppress(TimeoutError):
                async with asyncio.timeout_at(look_at_all):
                    await self._look_now.wait()
            keys, self._unseen = self._unseen, set()
            if loop.time() >= look_at_all:  # also when new waits never cease
                keys, look_at_all = set(self._waiting), loop.time() + LOOK_EVERY
            self._look_now.clear()
            await self._look_at([key for key in keys if key in self._waiting])

    async def _look_at(self, keys: list[str]) -> None:
        for start in range(0, len(keys), CHUNK):
            chunk, unborn = keys[start : start + CHUNK], set(self._unborn)
            waiting = [list(self._waiting.get(key, ())) for key in chunk]  # who comes later may wait for a later life
            for key, futures, record in zip(chunk, waiting, await self._engine.get([UUID(key) for key in chunk]), strict=True):
                if record is None and key not in unborn:
                    _lose(futures, key)
                elif record is not None and record.done:
                    for future in futures:
                        _tell(future, record, None)
                elif record is not None:
                    still = self._waiting.get(key, {})
                    still.update((future, _begun(record)) for future in futures if future in still)


def _begun(record: Record) -> float:
    """The moment before which an end is not that of an unfinished job's present life: it is due anew when it is run again."""
    return ALWAYS if record.due == record.created else record.due


def _tell(future: asyncio.Future[Ended], record: Record, value: bytes | None) -> None:
    if not future.done():
        future.set_result((record, value))


def _lose(futures: list[asyncio.Future[Ended]], key: str) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(ResultLost(key))
