"""The connections for operations: few, watched, and closed rather than reused when in doubt."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from mognet.backoff import Backoff, pause_after
from mognet.engines.knocking import Doors
from mognet.engines.postgres.connecting import Connection, connect, cut, give_up, is_fresh
from mognet.engines.postgres.doubts import Doubts
from mognet.engines.postgres.errors import broke_connection, translated, worth_repeating
from mognet.engines.postgres.settings import Settings
from mognet.exceptions import ConnectionError, ImproperlyConfigured, MognetError, NotConnected

T = TypeVar("T")

Work = Callable[[Connection], Awaitable[T]]

RECONNECT = Backoff(base=0.1, cap=30.0)

OPERATION_SECONDS = 28.0
"""After so long without an answer a connection is given up; statements are stopped by the server before."""

LISTEN_SECONDS = 1.5
"""How long an operation waits for the next attempt before it gives up: long enough to notice that the server is back."""

TRIES = 8
"""How often a transaction is tried that others of the same moment undo."""


class Pool:
    """Runs operations on connections of its own.

    Each runs to its end even if whoever asked for it is cancelled: so no connection is ever left with an unread answer, and
    what an operation did is known.
    """

    def __init__(self, settings: Settings, doors: Doors, dead: Callable[[], None] = lambda: None) -> None:
        """``dead`` is called when a connection had lost its other end without a word."""
        self.settings = settings
        self._lookout = doors.lookout()
        self._doubts = Doubts(settings, self._found_dead)
        self._dead = dead
        self.pooler = bool(settings.pooler)
        self._free = asyncio.Semaphore(settings.pool_size)
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._connecting = asyncio.Lock()
        self._failures = 0
        self._next_try = 0.0
        self._last_error: MognetError | None = None
        self._pid = os.getpid()
        self._closed = False

    # running

    async def run(self, work: Work[T]) -> T:
        """What ``work`` answers on a connection, whatever becomes of whoever asks."""
        return await asyncio.shield(self.spawn(self.run_here(work)))

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Let something go on by itself; closing waits for it."""
        if os.getpid() != self._pid:
            coroutine.close()
            raise ImproperlyConfigured("the engine was opened before this process was forked: open a new one here")
        if self._closed:
            coroutine.close()
            raise NotConnected(f"the engine on {self.settings.shown} is closed")
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever was cancelled does not ask for it

    async def run_here(self, work: Work[T]) -> T:
        """The same inside a task that :meth:`spawn` made; repeated if others of the same moment undid it."""
        failures = 0
        while True:
            connection = await self._acquire()
            try:
                return await self._try(connection, work)
            except psycopg.Error as error:
                failures += 1
                if not worth_repeating(error) or failures == TRIES:
                    known = translated(error, self.settings.shown)
                    if known is None:
                        raise
                    raise known from error
            finally:
                self._release(connection)
            await asyncio.sleep(random.uniform(0, 0.01 * failures))

    async def _try(self, connection: Connection, work: Work[T]) -> T:
        guard = asyncio.get_running_loop().call_later(OPERATION_SECONDS, cut, connection)
        doubt = self._doubts.watch(connection)
        try:
            return await work(connection)
        except psycopg.Error as error:
            if broke_connection(error):
                give_up(connection)
                self._drop_stale()
            raise
        finally:
            guard.cancel()
            doubt.cancel()
            self._doubts.forget(connection)

    # connections

    async def _acquire(self) -> Connection:
        await self._free.acquire()
        try:
            while self._idle:
                connection = self._idle.pop()
                if is_fresh(connection):
                    self._busy.add(connection)
                    return connection
                give_up(connection)
            return await self._connect()
        except BaseException:
            self._free.release()
            raise

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        if self._last_error is not None and await self._lookout.wait(min(self._next_try - loop.time(), LISTEN_SECONDS)):
            self._failures, self._next_try = 0, 0.0
        async with self._connecting:
            if self._last_error is not None and loop.time() < self._next_try:
                # Whoever asks repeats the question, or has a back-off of its own; here it only must not become a storm.
                raise ConnectionError(str(self._last_error)) from self._last_error
            try:
                connection, pooler = await connect(self.settings)
            except MognetError as error:
                self._failures += 1
                self._next_try = loop.time() + pause_after(error, self._failures, RECONNECT)
                self._last_error = error
                raise
            self._failures, self._last_error = 0, None
            self.pooler = pooler
            self._busy.add(connection)
            return connection

    def _release(self, connection: Connection) -> None:
        self._busy.discard(connection)
        if not self._closed and not connection.closed and connection.pgconn.transaction_status == TransactionStatus.IDLE:
            self._idle.append(connection)
        else:
            give_up(connection)
        self._free.release()

    def _found_dead(self) -> None:
        """One that was in use had lost its other end: the others of that time look no better for it."""
        while self._idle:
            give_up(self._idle.pop())
        self._dead()

    def _drop_stale(self) -> None:
        for connection in [each for each in self._idle if not is_fresh(each)]:
            self._idle.remove(connection)
            give_up(connection)

    async def close(self, patience: float) -> None:
        """Wait for what is under way, at most so long, and close."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        self._closed = True
        await self._doubts.close()
        for connection in self._busy:
            cut(connection)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)
        for connection in self._idle:
            with suppress(psycopg.Error):
                await connection.close()
        self._idle.clear()
