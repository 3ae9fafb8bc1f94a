"""Keeps the leases of running jobs, from a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from mognet.backoff import Backoff, pause_after, worth_saying
from mognet.engine import Engine, OpenEngine, until_back
from mognet.exceptions import ConnectionError, MognetError
from mognet.records import Token

PATIENCE = 2.0
"""Seconds that the thread has to end, once told to."""

_ENTER = Backoff(base=0.1, cap=30.0)

_log = logging.getLogger(__name__)


class Kept(Protocol):
    """An attempt whose lease is kept."""

    @property
    def token(self) -> Token:
        """Proof of owning the job."""
        ...

    @property
    def task_name(self) -> str:
        """For the log."""
        ...


class LeaseKeeper:
    """Extends leases every third of their length, whatever the worker's event loop is doing.

    It has its own event loop and engine, so a task that blocks the worker's loop does not lose its job. But when that loop has
    not turned for ``max_block`` seconds, it renews no longer: the worker counts as dead, and its jobs go to others.
    """

    def __init__(self, open_engine: OpenEngine, *, lease: float, max_block: float, lost: Callable[[set[Token]], None]) -> None:
        self._open_engine = open_engine
        self._lease = lease
        self._max_block = max_block
        self._lost = lost
        self._kept: set[Kept] = set()
        self._looks_soon = False
        """The thread will look within a third of a lease, and need not be woken: to wake it costs the worker's own thread time, too."""
        self._worker_loop = asyncio.get_running_loop()
        self._asked: float | None = None
        self._blamed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._stopping = False
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="mognet lease keeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Renew no more, and end the thread; one that an engine keeps waiting is left behind, and ends with the process."""
        self._stopping = True
        self._nudge()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._stopped.wait()
        except TimeoutError:
            _log.warning("the lease keeper still waits for its engine, and is left behind")
        else:
            self._thread.join()

    def add(self, attempt: Kept) -> None:
        """Keep its lease from now on."""
        idle = not self._kept
        self._kept.add(attempt)
        if idle and not self._looks_soon:
            self._looks_soon = True  # once it is awake
            self._nudge()

    def discard(self, attempt: Kept) -> None:
        """Keep it no longer."""
        self._kept.discard(attempt)

    def _nudge(self) -> None:
        if self._loop is not None and self._wake is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake.set)

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        with suppress(RuntimeError):  # the worker's loop has ended
            self._worker_loop.call_soon_threadsafe(callback, *args)

    # in the thread

    def _run(self) -> None:
        try:
            asyncio.run(self._keep())
        finally:
            self._tell(self._stopped.set)

    async def _keep(self) -> None:
        """Keep leases, whatever goes wrong: without this, all jobs would be lost to other workers while they run here."""
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        failures, late = 0, False
        while not self._stopping:
            engine: Engine | None = None
            entered = False
            try:
                engine = self._open_engine()
                async with engine:
                    entered = True
                    await self._keep_with(engine, late)
            except Exception as error:
                late, failures = True, 1 if entered else failures + 1
                self._complain(failures, error)
                if entered or engine is None:
                    await self._pause(min(1.0, self._lease / 10))
                elif await self._until_back(engine, pause_after(error, failures, _ENTER)):
                    failures = 0

    async def _keep_with(self, engine: Engine, late: bool) -> None:
        """Renew in time; ``late``: at once. An engine that cannot be reached is kept: it comes back by itself, and spares its server."""
        failures = 0
        while not self._stopping:
            # After a failure the leases are short of time already.
            if not late and not await self._time_to_renew():
                continue
            try:
                if self._worker_turns():
                    await self._renew(engine)
                late, failures = False, 0
            except ConnectionError as error:
                late, failures = True, failures + 1
                self._complain(failures, error)
                await self._pause(min(1.0, self._lease / 10))

    @staticmethod
    def _complain(failures: int, error: Exception) -> None:
        if worth_saying(failures):
            _log.warning("leases cannot be renewed, trying again: %s", error, exc_info=not isinstance(error, MognetError))

    async def _until_back(self, engine: Engine, seconds: float) -> bool:
        """The wait before the next attempt to enter an engine; less if something changes here."""
        back, news = asyncio.create_task(until_back(engine, seconds)), asyncio.create_task(self._pause(None))
        await asyncio.wait([back, news], return_when=asyncio.FIRST_COMPLETED)
        answered = back.done() and back.result()
        for task in (back, news):
            task.cancel()
        await asyncio.wait([back, news])
        return answered

    async def _time_to_renew(self) -> bool:
        """Wait a third of a lease; without end while there is nothing to keep. False: something has changed meanwhile."""
        period = self._lease / 3
        due = time.monotonic() + period
        self._looks_soon = bool(self._kept)
        changed = await self._pause(period if self._looks_soon else None)
        self._looks_soon = False
        if changed:
            return False
        if time.monotonic() - due > period:
            self._asked = None  # this thread stood still, too: the process was stopped, and its loop has had no time to answer
        return bool(self._kept)

    async def _pause(self, seconds: float | None) -> bool:
        """Wait, at most so long, until something has changed; whether it has."""
        assert self._wake is not None  # noqa: S101 - for the type checker
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        self._looks_soon = False
        return True

    async def _renew(self, engine: Engine) -> None:
        tokens = self._tokens()
        if not tokens:
            return
        held = await engine.extend(tokens, self._lease)
        lost = {token for token in tokens if token not in held}
        if lost and (lost := lost.intersection(self._tokens())):
            self._tell(self._lost, lost)

    def _tokens(self) -> list[Token]:
        return [attempt.token for attempt in list(self._kept)]  # a copy, which is made in one step: the worker's thread goes on

    def _worker_turns(self) -> bool:
        """Whether the worker's loop still turns: it has answered the last question, or has had less than ``max_block`` for it."""
        if self._asked is None:
            self._asked = time.monotonic()
            self._tell(self._tick)
            return True
        still = time.monotonic() - self._asked
        if still <= self._max_block:
            _log.warning("the event loop has not turned for %.1f s: %s blocks it", still, self._culprit())
            return True
        if not self._blamed:
            self._blamed = True
            _log.error(
                "the event loop has not turned for %.1f s (max_block is %.1f s): %s blocks it. "
                "Its leases are renewed no longer, so that other workers take over; make it a def task, or let it await",
                still,
                self._max_block,
                self._culprit(),
            )
        return False

    def _tick(self) -> None:
        self._asked = None
        self._blamed = False

    def _culprit(self) -> str:
        with suppress(RuntimeError):
            task = asyncio.current_task(self._worker_loop)
            if task is not None:
                name = task.get_name()
                jobs = [f"{name}[{each.token.id}]" for each in list(self._kept) if each.task_name == name]
                return jobs[0] if len(jobs) == 1 else name
        return " or ".join([each.task_name for each in list(self._kept)][:3]) or "something"
