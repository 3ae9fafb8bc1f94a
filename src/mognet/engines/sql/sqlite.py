"""The engine on one SQLite file, shared by any number of processes of one machine."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence, Sized
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import UUID

from mognet.engine import GroupBy, next_step
from mognet.engines.sql import changes, joining, labels, line, logbook, records, search, single, submitting, upkeep
from mognet.engines.sql import statements as sql
from mognet.engines.sql.connection import Synchronous, check_synchronous, explained, open_again, open_file, parse_url, patiently
from mognet.engines.sql.desks import Reader
from mognet.engines.sql.doorbell import folder_beside
from mognet.engines.sql.session import Finish, Operation, Session, in_snapshot
from mognet.engines.sql.signals import Signals, Waiter
from mognet.engines.sql.writer import Writer
from mognet.exceptions import ConnectionError, ImproperlyConfigured, NotConnected
from mognet.outcomes import Change, Outcome
from mognet.records import Changes, Claim, Job, LogLine, Query, Record, Reindexed, Signal, Swept, Token
from mognet.states import FINAL, ResultState

T = TypeVar("T")

LOOK_EVERY = 1.0
"""Seconds between looks at the line while waiting: rings may be lost."""

LOOK_QUICKLY = 0.03
"""The same where other processes cannot ring; then a look only asks whether the file has changed."""

TIDY_EVERY = 60.0
"""Seconds between looks for what killed processes have left, if nothing else calls for one."""


class SQLiteEngine:
    """An :class:`mognet.engine.Engine` on a file. Many engines, in any number of processes, may share it."""

    def __init__(
        self,
        path: Path | str,
        app: str = "app",
        *,
        synchronous: Synchronous = "full",
        clock: Callable[[], float] = time.time,
        doorbells: bool = True,
        inline: bool = True,
    ) -> None:
        """``inline``: a small transaction is done on the event loop's thread, when the disk is quick and nothing else is being written."""
        self.path = Path(path)
        self._real = self.path
        self.app = app
        self._synchronous: Synchronous = check_synchronous(synchronous, self.path)
        self._clock = clock
        self._doorbells = doorbells
        self._inline = inline
        self._pid = os.getpid()
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._signals: Signals | None = None
        self._tidied = 0.0
        self._undoing: set[asyncio.Future[None]] = set()

    @classmethod
    def from_url(cls, url: str, app: str = "app", *, clock: Callable[[], float] = time.time) -> Self:
        """An engine for ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, with ``?synchronous=full|normal&inline=1|0``."""
        location = parse_url(url)
        return cls(location.path, app, synchronous=location.synchronous, clock=clock, inline=location.inline)

    # opening and closing

    async def __aenter__(self) -> Self:
        if self._writer is not None:
            raise ImproperlyConfigured(f"the engine on {self.path} is open already: use one SQLiteEngine for each event loop")
        self._pid = os.getpid()
        self._real = self.path.resolve()
        self._signals = Signals(folder_beside(self._real) if self._doorbells else None, self.app)
        name, again = f"mognet writer {self.path.name}", lambda: open_again(self._real, self._synchronous)
        writer = Writer(name, self._open_writer, self._real, again, inline=self._inline)
        try:
            await writer.opened()
        except BaseException:
            writer.dismiss()
            self._signals = None
            raise
        self._writer = writer
        return self

    def _open_writer(self) -> Session:
        connection = open_file(self._real, self._synchronous)
        try:
            with explained(self._real):
                return Session(connection, _number_of(connection, self.app), self._clock, self._ears)
        except BaseException:
            connection.close()
            raise

    def _open_reader(self) -> Session:
        session = self._open_writer()
        session.run("PRAGMA query_only = ON")
        return session

    async def __aexit__(self, *exc: object) -> None:
        writer, reader, signals = self._writer, self._reader, self._signals
        self._check_process()
        while self._undoing:
            await asyncio.wait(self._undoing)
        self._writer = self._reader = None
        if signals is not None:
            signals.stop_waiting()
        for desk in (reader, writer):
            if desk is not None:
                await desk.close()
        if signals is not None:
            signals.close()

    @property
    def _ears(self) -> Signals:
        self._check_process()
        if self._signals is None:
            raise NotConnected(f"the engine on {self.path} is not open: use `async with`")
        return self._signals

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ImproperlyConfigured(
                f"the engine on {self.path} was opened before this process was forked: open a new one here, or start processes by 'spawn'"
            )

    def _write(self, operation: Operation[T], wanted: Callable[[], bool] = lambda: True, *, rows: int | None = None) -> asyncio.Future[T]:
        self._check_process()
        if self._writer is None:
            raise NotConnected(f"the engine on {self.path} is not open: use `async with`")
        return self._writer.put(operation, wanted, rows=rows)

    async def _read(self, operation: Operation[T]) -> T:
        self._check_process()
        if self._writer is None:
            raise NotConnected(f"the engine on {self.path} is not open: use `async with`")
        reader = self._reader
        if reader is None:
            reader = self._reader = Reader(f"mognet reader {self.path.name}", self._open_reader, self._real)
        try:
            await reader.opened()
        except ConnectionError:
            self._reader = None
            raise
        return await reader.put(operation)

    # the line

    async def submit(self, jobs: Sequence[Job], *, enqueue: bool = True) -> list[bool]:
        return await self._write(submitting.submit(jobs, enqueue), rows=_weight(jobs, (len(job.body) + len(job.metadata) for job in jobs)))

    def submit_here(self, job: Job) -> bool:
        """Submit a job before this returns, by the calling thread, which is the event loop's.

        False: nothing was done, since the job is known, or not a plain one, or it would have to wait; :meth:`submit` does it.
        """
        if os.getpid() != self._pid:
            self._check_process()
        writer, ears = self._writer, self._signals
        if writer is None or ears is None or not writer.at_once(single.add, job):
            return False
        ears.ring_soon(job.queue)
        return True

    async def submit_on(self, connection: Any, jobs: Sequence[Job]) -> list[bool]:
        """Submit inside the transaction of a sqlite3 connection to the same file: it commits, or they never were.

        Runs in the calling thread, to which such a connection belongs. A worker finds the jobs within a second of the commit.
        """
        self._check_process()
        if self._writer is None:
            raise NotConnected(f"the engine on {self.path} is not open: use `async with`")
        return joining.submit_over(connection, self._real, lambda each: _number_of(each, self.app), self._clock, jobs)

    async def claim(
        self,
        node: str,
        queues: Collection[str],
        limit: int,
        *,
        lease: float,
        wait: float = 0.0,
        ids: Collection[UUID] | None = None,
    ) -> list[Claim]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        operation = line.claim(node, queues, limit, lease, ids)
        claimed = await self._claim(operation, limit)
        if claimed.claims or wait <= 0:
            return claimed.claims
        with self._ears.waiting(queues) as waiter:
            while True:
                waiter.rung.clear()
                version = 0 if self._ears.reachable else await self._read(_file_version)  # first, so that no change after it is missed
                claimed = await self._claim(operation, limit)
                left = deadline - loop.time()
                if claimed.claims or left <= 0:
                    return claimed.claims
                await self._wait(waiter, min(left, max(claimed.next_due - self._clock(), 0.0005)), version)

    async def _claim(self, operation: Operation[line.Claimed], limit: int) -> line.Claimed:
        wanted = True
        future = self._write(operation, lambda: wanted, rows=limit)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            wanted = False
            await self._hand_back(future)
            raise

    async def _hand_back(self, future: asyncio.Future[line.Claimed]) -> None:
        """Undo a claim that its caller will not receive, even if this is cancelled, too."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._undoing.add(done)
        done.add_done_callback(self._undoing.discard)

        def undo(future: asyncio.Future[line.Claimed]) -> None:
            claimed = None if future.cancelled() or future.exception() is not None else future.result()
            if claimed is None or not claimed.claims or self._writer is None:
                done.set_result(None)
            else:
                self._writer.put(line.unclaim(claimed)).add_done_callback(undone)

        def undone(future: asyncio.Future[None]) -> None:
            if not future.cancelled():
                future.exception()  # the lease ends it then
            done.set_result(None)

        future.add_done_callback(undo)
        await asyncio.shield(done)

    async def _wait(self, waiter: Waiter, seconds: float, version: int) -> None:
        """Wait for a ring, a change of the file since it was at ``version``, or the time."""
        if self._ears.reachable:
            await waiter.wait(min(seconds, LOOK_EVERY))
            return
        give_up = time.monotonic() + seconds
        while not waiter.rung.is_set() and (left := give_up - time.monotonic()) > 0:
            await waiter.wait(min(left, LOOK_QUICKLY))
            if await self._read(_file_version) != version:
                return

    async def extend(self, tokens: Collection[Token], lease: float) -> set[Token]:
        return await self._write(line.extend(list(tokens), lease), rows=len(tokens))

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Record | None]:
        return await self._write(line.settle(outcomes), rows=_weight(outcomes, (len(outcome.value or b"") for outcome in outcomes)))

    # the records

    async def get(self, ids: Collection[UUID]) -> list[Record | None]:
        return await self._read(records.get(list(ids)))

    async def value(self, id: UUID) -> bytes | None:
        return await self._read(records.value(id))

    async def body(self, id: UUID) -> bytes | None:
        return await self._read(records.body(id))

    async def update(self, id: UUID, change: Change, *, unless: Collection[ResultState] = FINAL) -> Record | None:
        return await self._write(records.update(id, change, unless), rows=None if change.descendants else 1)

    async def delete(self, ids: Collection[UUID], *, states: Collection[ResultState] = ()) -> int:
        return await self._write(records.delete(ids, states))

    async def search(self, query: Query) -> AsyncIterator[Record]:
        left, start = query.limit, None
        while left is None or left > 0:
            page = await self._read(in_snapshot(search.find(query, start, search.CHUNK if left is None else min(left, search.CHUNK))))
            next_step.get()()
            for record in page.records:
                yield record
            if page.next is None:
                return
            start = page.next
            left = None if left is None else left - len(page.records)

    async def count(self, query: Query, *, by: GroupBy | str = "state") -> dict[str, int]:
        numbers: dict[str, int] = {}
        start: search.Start | None = None
        while True:
            part, start = await self._read(in_snapshot(search.count(query, by, start)))
            next_step.get()()
            for group, number in part.items():
                numbers[group] = numbers.get(group, 0) + number
            if start is None:
                return numbers

    # the index of metadata

    async def declare(self, keys: Collection[str], *, only: bool = False) -> frozenset[str]:
        return await self._write(labels.declare(frozenset(keys), only))

    async def reindex(self, *, limit: int = 1000) -> Reindexed:
        return await self._write(labels.reindex(limit))

    # changes

    async def identity(self) -> str:
        return await self._write(changes.identity, rows=1)

    async def changes(self, since: str | None, query: Query = Query(), *, limit: int = 1000) -> Changes:  # noqa: B008 - immutable
        if since is None:
            return Changes([], await self._write(changes.begin, rows=1), self._clock())
        found = await self._read(in_snapshot(changes.read(changes.number(since), query, limit)))
        if not found.prolong:
            return found.changes
        now = await self._write(changes.begin, rows=1)
        return found.changes._replace(at=now, more=False) if found.changes.lost else found.changes

    # logs

    async def log(self, lines: Mapping[Token, Sequence[bytes]], *, keep: int) -> set[Token]:
        all = [line for each in lines.values() for line in each]
        return await self._write(logbook.log(lines, keep), rows=_weight(all, map(len, all)))

    async def logs(self, id: UUID, *, after: int = 0) -> list[LogLine]:
        return await self._read(logbook.logs(id, after))

    # a running task's notes

    async def load(self, token: Token) -> dict[str, bytes]:
        return await self._read(records.load(token))

    async def save(self, token: Token, changes: Mapping[str, bytes | None], *, ttl: float | None = None) -> dict[str, bytes] | None:
        return await self._write(records.save(token, changes, ttl), rows=_weight(changes, (len(data or b"") for data in changes.values())))

    # signals

    async def publish(self, channel: str, body: bytes) -> None:
        self._ears.publish(channel, [body])

    def subscribe(self, *channels: str) -> AbstractAsyncContextManager[AsyncIterator[Signal]]:
        return self._ears.subscribe(*channels)

    # upkeep

    async def sweep(self, *, grace: float = 30.0, limit: int = 1000) -> Swept:
        done = await self._write(upkeep.sweep(grace, limit))
        if done.recovered or time.monotonic() - self._tidied > TIDY_EVERY:
            self._tidied = time.monotonic()
            self._ears.tidy()
        return Swept(done.recovered, done.expired, done.more, late=done.late, carried=done.carried)


def _weight(things: Sized, sizes: Iterable[int]) -> int:
    """What these are as a number of rows, for one of which a kilobyte counts, too."""
    return len(things) + sum(sizes) // 1024


def _number_of(connection: sqlite3.Connection, app: str) -> int:
    row = patiently(lambda: connection.execute(sql.FIND_APP, (app,)).fetchone())
    if row is None:
        patiently(lambda: connection.execute(sql.ADD_APP, (app,)))
        return _number_of(connection, app)
    return int(row[0])


def _file_version(session: Session) -> Finish[int]:
    row = session.one("PRAGMA data_version")
    return lambda: 0 if row is None else row[0]
