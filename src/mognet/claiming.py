"""Asking for work: as much as there are free slots, again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from mognet.backoff import Backoff, worth_saying
from mognet.config import AppConfig
from mognet.engine import Engine
from mognet.exceptions import MognetError
from mognet.records import Claim
from mognet.slots import Slots

WAIT = 5.0
"""Seconds that one claim waits for work."""

# Short, for what is asked again is only this process's engine: that spares its server by itself, and is asked when it is back.
RECONNECT = Backoff(base=0.1, cap=1.0)

_log = logging.getLogger("mognet.worker")


class Claimer:
    """Claims the jobs of some queues for a worker.

    ``idle`` is set while nothing runs, ``unstored`` says of how many attempts no end is stored yet, and ``claimed`` is called with
    each answer of the engine, also if it is empty.
    """

    def __init__(
        self,
        engine: Engine,
        config: AppConfig,
        queues: Collection[str],
        slots: Slots,
        idle: asyncio.Event,
        unstored: Callable[[], int],
        claimed: Callable[[Sequence[Claim]], None],
    ) -> None:
        self._engine = engine
        self._config = config
        self._queues = queues
        self._slots = slots
        self._idle = idle
        self._unstored = unstored
        self._claimed = claimed
        self._taken = 0
        self._burst = False

    async def run(self, stopping: asyncio.Event, *, burst: bool) -> None:
        """Claim until told to stop, until there were ``max_tasks``, or, in a ``burst``, until nothing is due and nothing runs.

        By one task, so that what slots become free for is asked for before the ends of those that had them are stored: while the
        engine does the latter, the new ones run already.
        """
        self._burst = burst
        failures = 0
        while not stopping.is_set():
            limit, idle = self._claimable(), self._idle.is_set()
            if limit == 0:
                if idle:  # max_tasks
                    break
                await self._slots.changed()
                continue
            try:
                claimed = await self._claim_some(limit, idle)
                failures = 0
            except Exception as error:
                failures += 1
                complain("no work can be claimed, trying again", failures, error)
                await asyncio.sleep(RECONNECT.delay(failures))
                continue
            if burst and idle and not claimed:
                break

    def _had_enough(self) -> bool:
        return self._config.max_tasks is not None and self._taken >= self._config.max_tasks

    def _claimable(self) -> int:
        # A slot is free again while the end of its job is being stored. After a crash such jobs run once more, so there are never more
        # attempts without a stored end than twice the slots: the next jobs wait for an engine that is behind.
        free = self._slots.free()
        ending = self._unstored() - self._slots.held
        free = max(0, min(free, free + self._slots.total - ending))
        if self._config.max_tasks is None:
            return free
        if self._had_enough():
            return min(free, int(self._slots.all_wait))
        return min(free, self._config.max_tasks - self._taken)

    async def _claim_some(self, limit: int, idle: bool) -> int:
        """Claim. A worker that ends by itself waits for more work only while something runs, which may submit it."""
        if not self._burst and not self._had_enough():
            return await self._claim(limit, WAIT)
        if idle:
            return await self._claim(limit, 0.0)
        loop = asyncio.get_running_loop()
        claim, ended = loop.create_task(self._claim(limit, WAIT)), loop.create_task(self._idle.wait())
        try:
            await asyncio.wait([claim, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            if not claim.done():
                claim.cancel()
                await asyncio.wait([claim])
        return 0 if claim.cancelled() else claim.result()

    async def _claim(self, limit: int, wait: float) -> int:
        claims = await self._engine.claim(self._config.node_id, self._queues, limit, lease=self._config.lease.total_seconds(), wait=wait)
        self._taken += len(claims)
        self._claimed(claims)
        return len(claims)


def complain(what: str, failures: int, error: Exception) -> None:
    """Warn of a failure that is tried again; of every one of a long row of them it is not said."""
    if worth_saying(failures):
        _log.warning("%s (failure %d in a row): %s", what, failures, error, exc_info=not isinstance(error, MognetError))
