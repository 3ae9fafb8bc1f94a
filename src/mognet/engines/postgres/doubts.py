"""Telling a connection whose other end is gone from an operation that takes long: the server is asked, over another one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context

import psycopg

from mognet.engines.postgres.connecting import Connection, connect, cut, give_up
from mognet.engines.postgres.settings import Settings
from mognet.exceptions import MognetError

PATIENCE = 2.0
"""Seconds without an answer after which an operation is doubted; most take a few milliseconds."""

ON_ITS_WAY = 0.3
"""Seconds that an answer may be on its way here, after the server has done its work."""

_log = logging.getLogger(__name__)


class Doubts:
    """The operations of a pool that take long. Those at which the server does not work are ended, and then ``dead`` is called."""

    def __init__(self, settings: Settings, dead: Callable[[], None]) -> None:
        self._settings = settings
        self._dead = dead
        self._doubted: set[Connection] = set()
        self._task: asyncio.Task[None] | None = None

    def watch(self, connection: Connection) -> asyncio.TimerHandle:
        """An operation begins. When it ends, the timer is to be cancelled, and :meth:`forget` to be called."""
        return asyncio.get_running_loop().call_later(PATIENCE, self._doubt, connection)

    def forget(self, connection: Connection) -> None:
        """The operation has ended."""
        self._doubted.discard(connection)

    async def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _doubt(self, connection: Connection) -> None:
        self._doubted.add(connection)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._ask(), name="mognet doubts", context=Context())

    async def _ask(self) -> None:
        try:
            while self._doubted:
                try:
                    await self._look()
                except (MognetError, psycopg.Error, OSError) as error:  # the server itself is away: there is nothing to be told apart
                    _log.debug("whether PostgreSQL still works at something cannot be asked: %s", error)
                await asyncio.sleep(PATIENCE)
        finally:
            self._task = None

    async def _look(self) -> None:
        asking, pooler = await connect(self._settings)
        try:
            if pooler:  # it hides which of the server's processes works for whom
                return
            suspects = {each: each.info.backend_pid for each in self._doubted if not each.closed}
            for _ in range(2):
                busy = await self._busy(asking, list(suspects.values()))
                suspects = {each: pid for each, pid in suspects.items() if pid not in busy and each in self._doubted}
                if not suspects:
                    return
                await asyncio.sleep(ON_ITS_WAY)
            gone = [each for each in suspects if each in self._doubted]
        finally:
            give_up(asking)
        for each in gone:
            cut(each)
        if gone:
            _log.warning("%d connections to PostgreSQL had lost their other end", len(gone))
            self._dead()

    @staticmethod
    async def _busy(asking: Connection, pids: list[int]) -> set[object]:
        guard = asyncio.get_running_loop().call_later(PATIENCE, cut, asking)
        try:
            cursor = await asking.execute("SELECT pid FROM pg_stat_activity WHERE pid = ANY(%s) AND state = 'active'", [pids])
            return {pid for (pid,) in await cursor.fetchall()}
        finally:
            guard.cancel()
