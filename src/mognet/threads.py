"""Threads for ``def`` tasks."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_IDLE = 30.0
"""Seconds after which a thread without work ends."""


class Threads:
    """Runs functions in threads that are made as needed, used again, and never keep the process alive.

    There is no limit here: the worker's slots are the limit, and a ``def`` task that waits for its children holds a thread but
    no slot. ``concurrent.futures`` would join its threads at exit, and so wait for a function that nobody can stop.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        """Threads that wait for work, less the pieces of work that have been put in line for them."""
        self._closed = False
        self._numbers = itertools.count(1)

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function in a thread, with this task's context variables. Cancelling stops the waiting, not the function."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                value = context.run(function, *args, **kwargs)
            except BaseException as error:
                if isinstance(error, StopIteration):  # which a future refuses
                    error = RuntimeError(f"the function raised StopIteration: {error}")
                self._tell(loop, future, future.set_exception, error)
            else:
                self._tell(loop, future, future.set_result, value)

        if self._promise():
            self._work.put(work)
        else:
            threading.Thread(target=self._serve, args=(work,), name=f"mognet-{next(self._numbers)}", daemon=True).start()
        return await future

    def close(self) -> None:
        """End the threads that have nothing to do; the others end when their functions return."""
        with self._lock:
            self._closed = True
        while self._promise():
            self._work.put(None)

    def _promise(self) -> bool:
        """Take an idle thread out of the count. Whoever does so puts a piece of work in line: else work could wait for a busy thread."""
        with self._lock:
            if self._idle == 0:
                return False
            self._idle -= 1
            return True

    @staticmethod
    def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], tell: Callable[[Any], None], what: Any) -> None:
        def deliver() -> None:
            if not future.done():
                tell(what)

        with suppress(RuntimeError):  # the loop has ended: nobody waits
            loop.call_soon_threadsafe(deliver)

    def _serve(self, first: Callable[[], None]) -> None:
        work: Callable[[], None] | None = first
        del first
        while work is not None:
            work()
            work = None  # not to keep the function's arguments while idle
            with self._lock:
                if self._closed:  # the worker may be told of a function's end before its thread gets here
                    return
                self._idle += 1
            try:
                work = self._work.get(timeout=_IDLE)
            except queue.Empty:
                if self._promise():
                    return
                work = self._work.get()  # all idle threads have work coming, so this one too
