"""The threads that hold the connections: one writes, in transactions shared by all who wait; one reads."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from mognet.engines.sql.connection import WAL_KEPT, explain, patiently
from mognet.engines.sql.session import Finish, Operation, Session
from mognet.exceptions import ConnectionError

T = TypeVar("T")

MOST_TOGETHER = 500
"""Operations in one transaction; more would keep other processes waiting for it."""

LOG_PAGES = 2_000
"""Pages in the write-ahead log from which on it is copied into the file."""

LONG_LOG = 2 * WAL_KEPT
"""Bytes of the write-ahead log that call for a copy, whoever wrote them."""

LOOK_AT_LOG = 1.0
"""Seconds between looks at its size."""

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
                try:
                    self._look_at_file()
                    answers = self._do(self._session, tasks)
                except Exception as error:
                    answers = [(None, self._explained(error))] * len(tasks)
                self._answer(tasks, answers)
                self._after(self._session)
            if last:
                return

    def _look_at_file(self) -> None:
        """Go over to the file that is there, if ours was removed or replaced: what is written to that would be lost."""
        if time.monotonic() - self._looked < LOOK_AT_FILE:
            return
        self._looked = time.monotonic()
        if _identity(self._path) != self._file:
            self._leave()
            self._file, self._looked = (-1, -1), 0.0  # if the other cannot be opened, try again each time
            self._session = self._open()

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
                _set(task.future, result, error)

        with suppress(RuntimeError):  # the loop was closed before the engine
            self._loop.call_soon_threadsafe(deliver)

    def _tell(self, future: asyncio.Future[None], result: None, error: BaseException | None) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_set, future, result, error)

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


def _set(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
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


class Writer(Desk):
    """Does all waiting operations in one transaction, so that they share its commit."""

    def __init__(self, name: str, open_session: Callable[[], Session], path: Path, open_other: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(name, open_session, path)
        self._open_other = open_other
        self._other: sqlite3.Connection | None = None
        self._changes = 0
        self._pages_per_change = 1.0
        self._patient_until = 0.0

    def _do(self, session: Session, tasks: Sequence[Task]) -> list[Answer]:
        answers: list[Answer] = [(None, None)] * len(tasks)
        numbers = [number for number, task in enumerate(tasks) if task.wanted()]
        try:
            finishes = self._transact(session, [tasks[number].operation for number in numbers])
        except Exception as error:
            if len(numbers) == 1:
                answers[numbers[0]] = None, self._explained(error)
            else:  # one of them is at fault, or the disk: alone, each gets what is its own
                for number in numbers:
                    answers[number] = self._do(session, [tasks[number]])[0]
        else:
            for number, finish in zip(numbers, finishes, strict=True):
                answers[number] = _finished(finish)
        return answers

    def _transact(self, session: Session, operations: Sequence[Operation[Any]]) -> list[Finish[Any]]:
        if not operations:
            return []
        connection = session.connection
        before = connection.total_changes
        _begin(connection)
        try:
            session.now = session.clock()
            finishes = [operation(session) for operation in operations]
            connection.execute("COMMIT")
        except BaseException:
            session.give_up()
            # After a full disk or an I/O error SQLite may have rolled back by itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._changes += connection.total_changes - before
        session.opened.clear()
        return finishes

    def _after(self, session: Session) -> None:
        if self._changes * self._pages_per_change >= LOG_PAGES or self._log_is_long():
            with suppress(sqlite3.Error, ConnectionError):  # the next one will do
                self._checkpoint(session)

    def _log_is_long(self) -> bool:
        """Whether many others, who each wrote too little to see to it, have made the log longer than it should be."""
        if time.monotonic() < self._patient_until:
            return False
        self._patient_until = time.monotonic() + LOOK_AT_LOG
        try:
            return os.stat(f"{self._path}-wal").st_size > LONG_LOG
        except OSError:
            return False

    def _checkpoint(self, session: Session) -> None:
        """Copy the write-ahead log into the file.

        The write lock is held meanwhile: SQLite before 3.51.3 can lose commits when one process starts the log anew while
        another is in a checkpoint. And since nobody writes, the log can be copied to its end, and starts anew afterwards.
        """
        if self._other is None:
            self._other = self._open_other()
        _begin(session.connection)
        try:
            _, pages, _ = self._other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            session.connection.execute("ROLLBACK")
        if pages > 0 and self._changes:
            # Clamped, for a reader that keeps the log from starting anew must not call for a checkpoint at every commit.
            self._pages_per_change = min(8.0, max(0.01, pages / self._changes))
        self._changes = 0

    def _leave(self) -> None:
        if self._other is not None:
            self._other.close()
            self._other = None
        super()._leave()


def _begin(connection: sqlite3.Connection) -> None:
    patiently(lambda: connection.execute("BEGIN IMMEDIATE"))


def _finished(finish: Finish[Any]) -> Answer:
    try:
        return finish(), None
    except Exception as error:
        return None, error
