"""The one who writes, in transactions shared by all who wait.

While nothing else is to be written, a small transaction is done by the event loop's own thread, if the disk is quick: waking
another thread, and being woken by it, would take longer than the transaction does.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from mognet.engines.sql import labels
from mognet.engines.sql.connection import WAL_KEPT, is_locked, patiently
from mognet.engines.sql.desks import Answer, Desk, Task, tell
from mognet.engines.sql.pace import Pace
from mognet.engines.sql.session import Finish, Operation, Session
from mognet.exceptions import ConnectionError

T = TypeVar("T")
A = TypeVar("A")

MOST_INLINE = 128
"""Rows that the event loop's thread writes in one transaction: about a millisecond's work."""

MANY_COMMITS = 30
"""After so many a process is taken for one that goes on."""

LOG_HEAD, FRAME_HEAD = 32, 24
"""Bytes before the log's pages, and before each of them."""

LOG_PAGES = 1_500
"""Pages in the write-ahead log from which on it is copied into the file."""

MANY_BEHIND = 2_000
"""Jobs without labels that call for them to be written, for as many at a time."""

LONG_LOG = 2 * WAL_KEPT
"""Bytes of the write-ahead log that call for a copy, whoever wrote them."""

HELD_UP = 0.5
"""Seconds that a transaction waits for others' after which leases may have ended that nobody could renew."""

LOOK_AT_LOG = 1.0
"""Seconds between looks at its size."""


class Writer(Desk):
    """Does all waiting operations in one transaction, so that they share its commit."""

    def __init__(
        self,
        name: str,
        open_session: Callable[[], Session],
        path: Path,
        open_other: Callable[[], sqlite3.Connection],
        *,
        inline: bool = True,
    ) -> None:
        super().__init__(name, open_session, path)
        self._open_other = open_other
        self._pace = Pace(inline=inline)
        self._in_turn = False
        self._gathered: list[Task] = []
        self._rows = 0
        self._other: sqlite3.Connection | None = None
        self._changes = 0
        self._pages_per_change = 3.0
        self._patient_until = 0.0
        self._commit: float | None = None
        """Seconds that the last commit took, if it wrote anything."""
        self._commits = 0
        self._stretched = False

    # in the event loop

    def put(self, operation: Operation[T], wanted: Callable[[], bool] = lambda: True, *, rows: int | None = None) -> asyncio.Future[T]:
        """Have an operation done, which writes about so many rows (None: that cannot be said); the future may be done already.

        In each turn of the loop one operation is done here at once. Others of the same turn are gathered until its end, to
        share a transaction.
        """
        if rows is None or rows > MOST_INLINE or not self._pace.is_quick():
            return super().put(operation, wanted)
        future: asyncio.Future[T] = self._loop.create_future()
        task = Task(operation, future, wanted)
        if self._in_turn:
            self._gathered.append(task)
            self._rows += rows
        else:
            self._in_turn = True
            self._loop.call_soon(self._end_turn)
            if not self._do_here([task]):
                self._inbox.put(task)
        return future

    def at_once(self, statement: Callable[[Session, A], bool], argument: A) -> bool:
        """Execute something that is a transaction in itself and changes a row, before this returns.

        False: nothing was done, by the statement's own answer, or because somebody else is at it, the file is slow, or SQLite refuses.
        """
        if self._gathered or not self._pace.is_quick() or not self._inbox.empty() or not self._lock.acquire(False):
            return False
        try:
            if self._has_to_look():
                return False
            begin = time.perf_counter()
            if not statement(self._session, argument):
                return False
            took = time.perf_counter() - begin
            self._pace.seen_inline(took, took)
            self._changes += 1
            self._commits += 1
            self._call_thread()
            return True
        except sqlite3.Error:  # SQLite has undone it; why, is told to whoever tries again in the usual way
            return False
        finally:
            self._lock.release()

    def dismiss(self) -> None:
        """Have all that was asked for done without waiting for it."""
        self._hand_over()
        super().dismiss()

    def _end_turn(self) -> None:
        self._in_turn = False
        if self._gathered and self._rows <= MOST_INLINE and self._do_here(self._gathered):
            self._gathered = []
        self._hand_over()

    def _hand_over(self) -> None:
        tasks, self._gathered, self._rows = self._gathered, [], 0
        for task in tasks:
            self._inbox.put(task)

    def _do_here(self, tasks: Sequence[Task]) -> bool:
        """Do these now. False: nothing was done, since somebody else is at it, or there is more to do than this."""
        if not self._inbox.empty() or not self._lock.acquire(blocking=False):
            return False
        try:
            if self._has_to_look():
                return False
            begin = time.perf_counter()
            wanted = [task for task in tasks if task.wanted()]
            try:
                finishes = self._transact(self._session, [task.operation for task in wanted], patient=False)
            except Exception as error:
                if len(wanted) > 1 or (isinstance(error, sqlite3.Error) and is_locked(error)):
                    return False
                answers: list[Answer] = [(None, self._explained(error))]
            else:
                answers = [_finished(finish) for finish in finishes]
            if self._commit is not None:
                self._pace.seen_inline(self._commit, time.perf_counter() - begin)
            self._call_thread()
        finally:
            self._lock.release()
        for task, (result, fault) in zip(wanted, answers, strict=True):
            tell(task.future, result, fault)
        for task in tasks:
            tell(task.future, None, None)  # those that are not wanted any more
        return True

    # in the thread

    def _do(self, session: Session, tasks: Sequence[Task]) -> list[Answer]:
        answers: list[Answer] = [(None, None)] * len(tasks)
        numbers = [number for number, task in enumerate(tasks) if task.wanted()]
        try:
            finishes = self._transact(session, [tasks[number].operation for number in numbers])
            if self._commit is not None:
                self._pace.seen_in_thread(self._commit)
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

    def _transact(self, session: Session, operations: Sequence[Operation[Any]], *, patient: bool = True) -> list[Finish[Any]]:
        """One transaction; without patience, it fails at once if somebody else's is under way."""
        self._commit = None
        if not operations:
            return []
        connection = session.connection
        before = connection.total_changes
        if patient:
            asked = time.monotonic()
            _begin(connection)
            if (begun := time.monotonic()) - asked > HELD_UP:
                session.held_up = begun
        else:
            connection.execute("BEGIN IMMEDIATE")
        try:
            session.now = session.clock()
            finishes = [operation(session) for operation in operations]
            ready = time.perf_counter()
            connection.execute("COMMIT")
            done = time.perf_counter()
        except BaseException:
            session.give_up()
            # After a full disk or an I/O error SQLite may have rolled back by itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        changes = connection.total_changes - before
        self._changes += changes
        self._commits += changes > 0
        self._commit = done - ready if changes else None
        session.opened.clear()
        if session.news:
            session.news = False
            session.ears.tell_changed()
        return finishes

    def _after(self, session: Session) -> None:
        with suppress(sqlite3.Error, ConnectionError):  # until they are written, searches look at metadata
            while self._labels_are_behind(session):
                self._transact(session, [labels.catch_up(MANY_BEHIND, MANY_BEHIND)])
        if self._log_is_short():
            self._stretched = True
            with suppress(sqlite3.Error, ConnectionError, OSError):  # it is not needed
                self._stretch(session)
        if self._log_is_full() or self._log_is_long():
            with suppress(sqlite3.Error, ConnectionError):  # the next one will do
                self._checkpoint(session)

    def _call_thread(self) -> None:
        """Wake the thread if it has something to do about the log or the labels."""
        if self._log_is_full() or self._log_is_short() or self._labels_are_behind(self._session):
            self._inbox.put(Task(_nothing, self._loop.create_future(), lambda: True))

    def _labels_are_behind(self, session: Session) -> bool:
        return session.behind() >= MANY_BEHIND

    def _log_is_short(self) -> bool:
        """Whether it may be shorter than it will get, in a process that goes on committing."""
        return not self._stretched and self._commits >= MANY_COMMITS

    def _stretch(self, session: Session) -> None:
        """Write zeros behind the log, as far as it gets between two checkpoints, and is kept.

        A commit that makes the file longer takes twice as long, for the file system has to store that, too. SQLite reads the log up to the
        first frame that is not of its present run, and zeros are none (its file format, section 4.1). Whoever appends to the log has the
        write lock, which is held here meanwhile.
        """
        _begin(session.connection)
        try:
            [page] = session.connection.execute("PRAGMA page_size").fetchone()
            with Path(f"{self._path}-wal").open("r+b") as log:
                missing = min(LOG_HEAD + LOG_PAGES * (FRAME_HEAD + page), WAL_KEPT) - log.seek(0, os.SEEK_END)
                if missing > 0:
                    log.write(bytes(missing))
                    log.flush()
                    os.fsync(log.fileno())
        finally:
            session.connection.execute("ROLLBACK")

    def _log_is_full(self) -> bool:
        return self._changes * self._pages_per_change >= LOG_PAGES

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


def _nothing(session: Session) -> Finish[None]:
    return lambda: None


def _finished(finish: Finish[Any]) -> Answer:
    try:
        return finish(), None
    except Exception as error:
        return None, error
