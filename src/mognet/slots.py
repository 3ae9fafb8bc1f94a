"""How many jobs a worker runs at once."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from mognet.engine import Engine
from mognet.exceptions import MognetError
from mognet.outcomes import Change, resume, suspend
from mognet.records import Token

_log = logging.getLogger(__name__)


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
        free = max(0, self.total - self.running)
        if self.most_held is not None and self.held >= self.most_held:
            return min(free, 1) if self.all_wait else 0
        return free if self.most_held is None else min(free, self.most_held - self.held)

    @property
    def all_wait(self) -> bool:
        """Whether all jobs that are held wait. Then one more must run, whatever the limits: they may wait for it for ever."""
        return self.held > 0 and self.running == 0 and not self._going_on

    def start(self) -> bool:
        """A new job is held, and takes a slot. False: while it was claimed, others went on into the last one; see :meth:`go_on`."""
        self.held += 1
        if self.running >= self.total:
            return False
        self.running += 1
        return True

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
        """A job that waited takes a slot again, as soon as there is one. If cancelled, it has none."""
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
                with suppress(ValueError):  # a slot that became free meanwhile has passed it over already
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

    def notify(self) -> None:
        """Let whoever waits for a change look again."""
        self._changed.set()

    def changed(self) -> Coroutine[Any, Any, Any]:
        """Waits until a slot may have become free. What happens from this call on is not missed, even before it is awaited."""
        self._changed.clear()
        return self._changed.wait()


def _always() -> bool:
    return True


class Place:
    """A running job's place among the slots.

    It has a slot, or it waits, or it has left. What its waits do meanwhile (several may go on at once, be cancelled, or outlive the job)
    only ever moves it between these.
    """

    def __init__(self, token: Token, engine: Engine, slots: Slots, over: Callable[[], bool]) -> None:
        self._token = token
        self._engine = engine
        self._slots = slots
        self._over = over
        self._waits = 0
        self.has_slot = slots.start()
        self._left = False
        self._turn: asyncio.Task[None] | None = None
        self._in_line = 0

    async def begin(self) -> None:
        """Wait for the slot, if there was none left when the job came."""
        if not self.has_slot:
            await self._slots.go_on()
            if self._left:
                self._slots.pause()
            else:
                self.has_slot = True

    def leave(self) -> None:
        """The job is over here."""
        if not self._left:
            self._left = True
            self._slots.end(waiting=not self.has_slot)
            self.has_slot = False
            self._over = _always  # it leads back to the attempt, and a circle would have to be collected

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """See :class:`mognet.context.Slot`. The first of several waits at once gives the slot away, the last takes it back."""
        self._waits += 1
        try:
            await self._give()
            yield
        finally:
            self._waits -= 1
            await self._take()

    async def _give(self) -> None:
        if self.has_slot:
            self.has_slot = False
            self._slots.pause()
            await self._note(suspend(self._token))

    async def _take(self) -> None:
        if not self._wants_slot():
            return
        if self._turn is None:  # one for all waits that are over: the job needs one slot
            self._turn = asyncio.get_running_loop().create_task(self._go_on(), name="mognet slot")
        turn = self._turn
        self._in_line += 1
        try:
            await self._outwait(turn)
        finally:
            self._in_line -= 1
            if not self._in_line and self._turn is turn:
                self._turn = None
                turn.cancel()

    async def _outwait(self, turn: asyncio.Task[None]) -> None:
        """A task whose own code gives up meanwhile, by a timeout say, learns that when it has a slot to go on in."""
        given_up = False
        while True:
            try:
                await asyncio.shield(turn)
            except asyncio.CancelledError:
                if turn.done() or not self._wants_slot():
                    raise
                given_up = True
            else:
                break
        if given_up:
            raise asyncio.CancelledError

    async def _go_on(self) -> None:
        await self._slots.go_on()
        self._turn = None
        if self._wants_slot():
            self.has_slot = True
            await self._note(resume(self._token))
        else:  # it waits again, or is over
            self._slots.pause()

    def _wants_slot(self) -> bool:
        """An attempt that is being stopped does not go on; one whose own code gave up waiting does."""
        return not (self.has_slot or self._waits or self._left or self._over())

    async def _note(self, change: Change) -> None:
        try:
            await self._engine.update(self._token.id, change)
        except MognetError as error:
            _log.warning("job %s is not shown as %s: %s", self._token.id, change.state, error)
