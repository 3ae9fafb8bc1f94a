"""The threads that hold the connections, and the one that reads."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from mognet.engines.sql.connection import explain, patiently
from mognet.engines.sql.session import Operation, Session

T = TypeVar("T")

MOST_TOGETHER = 500
"""Operations in one transaction; more would keep other processes waiting for it."""

LOOK_AT_FILE = 1.0
"""Seconds between looks whether the file is still the one that was opened."""

Answer = tuple[Any, BaseException | None]


class Task(NamedTuple):
    """An operation that somebody waits for."""

    operation: Operation[Any]
    future: asyncio.Future[Any]
    wanted: Callable[[], bool]


class Desk:
    """A thread that does what is put into its inbox. Made, and used, in one event loop."""

    def __init__(self, name: str, open_session: Callable[[], Session], path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._open_session, self._path = open_session, path
        self._inbox: SimpleQueue[Task | None] = SimpleQueue()
        self._session: Session
        self._lock = threading.Lock()
        """Held by whoever uses the connection."""
        self._file: tuple[int, int] | None = None
        self._looked = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()

        self._opened.add_done_callback(_retrieve)
        self._thread.start()

    async def opened(self) -> None:
        """Wait until the connection is open, or raise what is in the way."""
        await asyncio.shield(self._opened)

    def put(self, operation: Operation[T], wanted: Callable[[], bool] = lambda: True) -> asyncio.Future[T]:
        """Have an operation done; the future tells its result. Skipped if it is no longer wanted when its turn comes."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._inbox.put(Task(operation, future, wanted))
        return future

    async def close(self) -> None:
        """Finish what is in the inbox, close the connection and end the thread."""
        self.dismiss()
        await asyncio.shield(self._closed)
        self._thread.join()

    def dismiss(self) -> None:
        """Have all that done without waiting for it."""
        self._inbox.put(None)

    # in the thread

    def _run(self) -> None:
        try:
            self._session = self._open()
        except BaseException as error:
            self._tell(self._opened, None, error)
            self._tell(self._closed, None, None)
            return
        self._tell(self._opened, None, None)
        try:
            self._serve()
        finally:
            self._leave()
            self._tell(self._closed, None, None)

    def _open(self) -> Session:
        session = self._open_session()
        self._file, self._looked = _identity(self._path), time.monotonic()
        return session

    def _serve(self) -> None:
        while True:
            tasks, last = self._drain()
            if tasks:
                with self._lock:
                    try:
                        self._look_at_file()
                        answers = self._do(self._session, tasks)
                    except Exception as error:
                        answers = [(None, self._explained(error))] * len(tasks)
                self._answer(tasks, answers)
                with self._lock:
                    self._after(self._session)
            if last:
                return

    def _look_at_file(self) -> None:
        """Go over to the file that is there, if ours was removed or replaced: what is written to that would be lost."""
        if not self._has_to_look():
            return
        self._looked = time.monotonic()
        if _identity(self._path) != self._file:
            self._leave()
            self._file, self._looked = (-1, -1), 0.0  # if the other cannot be opened, try again each time
            self._session = self._open()

    def _has_to_look(self) -> bool:
        return time.monotonic() - self._looked >= LOOK_AT_FILE

    def _drain(self) -> tuple[list[Task], bool]:
        first = self._inbox.get()
        if first is None:
            return [], True
        tasks = [first]
        with suppress(Empty):
            while len(tasks) < MOST_TOGETHER:
                task = self._inbox.get_nowait()
                if task is None:
                    return tasks, True
                tasks.append(task)
        return tasks, False

    def _do(self, session: Session, tasks: Sequence[Task]) -> list[Answer]:
        raise NotImplementedError

    def _after(self, session: Session) -> None:
        """What is done when everybody has been answered."""

    def _leave(self) -> None:
        self._session.connection.close()

    def _answer(self, tasks: Sequence[Task], answers: Sequence[Answer]) -> None:
        def deliver() -> None:
            for task, (result, error) in zip(tasks, answers, strict=True):
                tell(task.future, result, error)

        with suppress(RuntimeError):  # the loop was closed before the engine
            self._loop.call_soon_threadsafe(deliver)

    def _tell(self, future: asyncio.Future[None], result: None, error: BaseException | None) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(tell, future, result, error)

    def _explained(self, error: Exception) -> Exception:
        return explain(error, self._path)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _retrieve(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()


def tell(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Tell whoever waits, if nobody has yet."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class Reader(Desk):
    """Does operations one by one, without locking anybody out."""

    def _do(self, session: Session, tasks: Sequence[Task]) -> list[Answer]:
        return [self._read(session, task) for task in tasks]

    def _read(self, session: Session, task: Task) -> Answer:
        if task.future.done():
            return None, None
        try:
            session.now = session.clock()
            return patiently(lambda: task.operation(session))(), None
        except Exception as error:
            return None, self._explained(error)
