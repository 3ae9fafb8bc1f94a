"""How far a task is: what it says, and how that gets into its record."""

from __future__ import annotations

import asyncio
import logging
import math
import operator
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, SupportsFloat, TypeVar
from uuid import UUID

from pydantic_core import from_json, to_json

from mognet.exceptions import AttemptLost, ConnectionError, MognetError
from mognet.times import from_seconds

EVERY = 0.1
"""Seconds from one write of a job's progress to the next."""

MAX_MESSAGE = 200
"""Characters of a message that are kept."""

PATIENCE = 5.0
"""Seconds that one try to write what was said last may take."""

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a task says it is."""

    done: float
    """How much it has done, in whatever it counts."""
    total: float | None
    """How much there is to do; None: that is not known."""
    message: str | None
    """A word on what it is doing."""
    updated: datetime
    """When it said so, by its worker's clock."""

    @property
    def fraction(self) -> float | None:
        """From 0 to 1; None if the total is not known, or zero."""
        return None if not self.total else min(1.0, self.done / self.total)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {"done": self.done, "total": self.total, "message": self.message, "updated": self.updated.isoformat()}


def load_progress(data: bytes | None) -> Progress | None:
    """What :class:`Reporter` stored. None: nothing, or nothing that this version knows."""
    if data is None:
        return None
    try:
        done, total, message, updated = from_json(data)
        if not isinstance(message, str | None):
            return None
        return Progress(_number(done, "done"), None if total is None else _number(total, "total"), message, from_seconds(updated))
    except (ValueError, TypeError):
        return None


def _number(value: object, what: str) -> float:
    """An amount that JSON can hold. Raises ValueError, TypeError."""
    if type(value) is int or type(value) is float:
        number: float = value
    elif isinstance(value, str | bytes | bool):
        raise TypeError(f"{what} is a number, not {value!r}")
    else:
        number = _converted(value, what)
    try:
        if number >= 0 and math.isfinite(number):
            return number
    except OverflowError:
        raise ValueError(f"{what} is an integer too large to be stored") from None
    raise ValueError(f"{what} is a finite number from 0 on, not {value!r}")


def _converted(value: object, what: str) -> float:
    with suppress(TypeError):
        return operator.index(value)  # type: ignore[arg-type]
    if isinstance(value, SupportsFloat):
        return float(value)
    raise TypeError(f"{what} is a number, not {value!r}")


def _text(message: str | None) -> str | None:
    if message is None:
        return None
    if not isinstance(message, str):
        raise TypeError(f"a message is a string, not {message!r}")
    message = message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 1]}…"
    return message.encode("utf-8", "backslashreplace").decode()


class Reporter:
    """Writes a job's progress, at most once in :data:`EVERY` seconds: what is said meanwhile takes the place of what was not written yet.

    The first is written at once, and the last :data:`EVERY` seconds later, or when the attempt ends. An engine that cannot be reached
    fails no task: it gets the next one.
    """

    def __init__(self, id: UUID, write: Callable[[bytes], Awaitable[bool]], loop: asyncio.AbstractEventLoop) -> None:
        self._id = id
        self._write = write
        """Stores, and says whether the attempt still owns its job."""
        self._loop = loop
        self._said: tuple[float, float | None, str | None, float] | None = None
        """What is yet to be written, and when it was said."""
        self._turn = 0.0
        """From when on somebody who says something wakes the writer; until then the writer looks by itself."""
        self._writer: asyncio.Task[None] | None = None
        self._busy = False
        self._turned = False
        """Whether the loop has turned since somebody waited here, or would have."""
        self._written = asyncio.Event()
        self._lost = False
        self._over = False

    def note(self, done: float, total: float | None, message: str | None) -> bool:
        """Say how far the task is, from any thread; whether the writer is to be woken. Raises :class:`AttemptLost`."""
        said = (_number(done, "done"), None if total is None else _number(total, "total"), _text(message), time.time())
        if self._lost or self._over:
            raise AttemptLost(f"the progress of job {self._id} cannot be written: this attempt no longer owns the job")
        self._said = said
        now = self._loop.time()
        if now < self._turn:
            return False
        self._turn = now + EVERY
        return True

    async def say(self, done: float, total: float | None, message: str | None) -> None:
        """The same from the loop.

        Where a task awaits nothing else, one call in :data:`EVERY` seconds waits for the write, but no longer than that, so that others
        have their turn and the task hears that it lost its job. A task that awaits something now and then is not held up.
        """
        if not self.note(done, total, message):
            return
        self._wake()
        if not self._turned:
            if self._busy:
                await asyncio.sleep(0)
            else:
                self._written.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(EVERY):
                        await self._written.wait()
        self._turned = False
        self._loop.call_soon(self._turn_around)
        if self._lost:
            self.note(done, total, message)

    def _turn_around(self) -> None:
        self._turned = True

    def note_from_thread(self, done: float, total: float | None, message: str | None) -> None:
        """The same where nothing can be awaited."""
        if self.note(done, total, message):
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._writer is None and not self._over:
            self._writer = self._loop.create_task(self._write_on(), name="mognet progress")

    async def _write_on(self) -> None:
        try:
            while self._said is not None and not self._lost and not self._over:
                await self._write_last()
                if not self._over:
                    await asyncio.sleep(EVERY)
        finally:
            self._writer = None

    async def _write_last(self) -> None:
        said, self._busy = self._said, True
        try:
            self._lost = not await self._write(to_json(said))
        except ConnectionError as error:
            _log.debug("the progress of job %s waits: %s", self._id, error)
        except MognetError as error:
            _log.warning("the progress of job %s is not stored: %s", self._id, error)
            self._forget(said)
        else:
            self._forget(said)
        finally:
            self._busy = False
            self._written.set()

    def _forget(self, said: object) -> None:
        if self._said is said:  # and nothing newer
            self._said = None

    def stop(self) -> None:
        """The attempt is over: nothing more may be said."""
        self._over = True

    async def close(self, *, write: bool) -> bool:
        """Write what was said last, if that has not been done. False: the engine could not be reached; to be tried again, or not."""
        self.stop()
        if self._writer is None and self._said is None:
            return True
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                writer = self._writer
                if writer is not None:
                    if not self._busy or not write:  # one that is on its way must not come behind the last
                        writer.cancel()
                    await asyncio.wait([writer])
                if write and self._said is not None and not self._lost:
                    await self._write_last()
        return not write or self._said is None or self._lost


Message = str | Callable[[T], str | None] | None
"""What is said beside the numbers; a function is asked about each item as it is handed out."""


async def track(report: Reporter, items: Iterable[T] | AsyncIterable[T], total: float | None, message: Message[T]) -> AsyncIterator[T]:
    """The items, one by one; each counts as done when the next is asked for."""
    count = _Count(_length(items) if total is None else total, message)
    await report.say(*count.now())
    if isinstance(items, AsyncIterable):
        async for item in items:
            if count.begin(item):
                await report.say(*count.now())
            yield item
            await report.say(*count.end())
    else:
        for item in items:
            if count.begin(item):
                await report.say(*count.now())
            yield item
            await report.say(*count.end())


def track_sync(report: Reporter, items: Iterable[T], total: float | None, message: Message[T]) -> Iterator[T]:
    """The same for a thread."""
    count = _Count(_length(items) if total is None else total, message)
    report.note_from_thread(*count.now())
    for item in items:
        if count.begin(item):
            report.note_from_thread(*count.now())
        yield item
        report.note_from_thread(*count.end())


class _Count(Generic[T]):
    """How many items are done, and what is said beside that."""

    def __init__(self, total: float | None, message: Message[T]) -> None:
        self._done, self._total = 0, total
        self._ask: Callable[[T], str | None] | None = message if callable(message) else None
        self._text: str | None = None if callable(message) else message

    def now(self) -> tuple[int, float | None, str | None]:
        return self._done, self._total, self._text

    def begin(self, item: T) -> bool:
        """An item is handed out; whether there is something to be said about it."""
        if self._ask is None:
            return False
        self._text = self._ask(item)
        return True

    def end(self) -> tuple[int, float | None, str | None]:
        self._done += 1
        return self.now()


def _length(items: object) -> int | None:
    try:
        return len(items)  # type: ignore[arg-type]
    except TypeError:
        return None
