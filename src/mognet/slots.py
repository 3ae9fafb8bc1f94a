"""How many jobs a worker runs at once."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """Counts running and waiting jobs. A job that goes on after waiting comes before new ones."""

    def __init__(self, total: int, most_held: int | None = None) -> None:
        self.total = total
        self.most_held = most_held
        self.running = 0
        self.held = 0
        """Running, and waiting for their children."""
        self._going_on: deque[asyncio.Future[None]] = deque()
        self._changed = asyncio.Event()

    def free(self) -> int:
        """How many more jobs may start."""
        if self._going_on:
            return 0
        free = self.total - self.running
        if self.most_held is not None and self.held >= self.most_held:
            # When all that are held wait, one of their children must run, or they wait for ever.
            return min(free, 1) if self.running == 0 else 0
        return free if self.most_held is None else min(free, self.most_held - self.held)

    def start(self) -> None:
        """A new job takes a slot."""
        self.running += 1
        self.held += 1

    def end(self, *, waiting: bool = False) -> None:
        """A job is over; ``waiting``: it had given its slot away."""
        self.held -= 1
        if waiting:
            self._changed.set()
        else:
            self._release()

    def pause(self) -> None:
        """A job waits: its slot is free."""
        self._release()

    async def go_on(self) -> None:
        """A job that waited takes a slot again, as soon as there is one."""
        if self.running < self.total and not self._going_on:
            self.running += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._going_on.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()
            else:
                self._going_on.remove(turn)
                self._changed.set()
            raise

    def _release(self) -> None:
        self.running -= 1
        while self._going_on and self.running < self.total:
            turn = self._going_on.popleft()
            if not turn.done():
                self.running += 1
                turn.set_result(None)
        self._changed.set()

    async def changed(self) -> None:
        """Wait until a slot may have become free."""
        self._changed.clear()
        await self._changed.wait()
