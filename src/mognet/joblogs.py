"""Keeping with each job what it logs, as far as its worker is told to."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TextIO

from mognet.coalesce import Coalescer
from mognet.engine import Engine
from mognet.entries import PRINT, pack, pack_record
from mognet.exceptions import ConnectionError, MognetError
from mognet.records import Token

FLUSH_EVERY = 0.5
"""Seconds between two writes of what running jobs have logged."""

PATIENCE = 5.0
"""Seconds that the last lines of a job may take to be written, before its end is stored without them."""

AGAIN = 0.1
"""Seconds until they are tried again when the way broke."""

MOST_PAGES = 200
"""Jobs whose lines are written in one go."""

FULL_LINE = 10_000
"""Characters without an end of line after which one is made."""

_log = logging.getLogger(__name__)

_book: ContextVar[Book | None] = ContextVar("mognet_log_book", default=None)


class Book:
    """The lines of one attempt that are yet to be written. Safe to use from any thread."""

    def __init__(self, token: Token, keep: int, *, prints: bool) -> None:
        self.token = token
        self.prints = prints
        self.writing = asyncio.Lock()
        """Held while lines are on their way, so that later ones do not overtake them, nor the job's end."""
        self.sent: list[bytes] = []
        """Lines on their way; if the way broke, it is not known whether they have been written."""
        self.going: asyncio.Future[None] | None = None
        """Done when it is known, or not, what has become of them."""
        self._lines: deque[bytes] = deque(maxlen=keep)
        self._printed = ""
        self._lock = threading.Lock()

    def add(self, line: bytes) -> None:
        """One more line; of more than are kept, the oldest goes."""
        self._lines.append(line)

    def print(self, text: str) -> None:
        """Something was printed, not necessarily a whole line."""
        with self._lock:
            *lines, self._printed = (self._printed + text).split("\n")
            if len(self._printed) > FULL_LINE:
                lines.append(self._printed)
                self._printed = ""
        for line in lines:
            self.add(pack(time.time(), PRINT, "stdout", line))

    def take(self, *, all: bool = False) -> list[bytes]:
        """Take the lines out; ``all``: with the last one, though nothing has ended it."""
        if all and self._printed:
            self.print("\n")
        lines: list[bytes] = []
        with suppress(IndexError):
            while True:
                lines.append(self._lines.popleft())
        return lines


class JobLogs:
    """Writes the last ``keep`` log records (and, if told, printed lines) of each job into its record's log."""

    def __init__(self, engine: Engine, *, keep: int, prints: bool) -> None:
        self._engine = engine
        self._keep = keep
        self._prints = prints
        self._books: set[Book] = set()
        self._pages: Coalescer[tuple[Token, list[bytes]], None] = Coalescer(self._write, limit=MOST_PAGES)

    def open(self, token: Token) -> None:
        """From here on, what this asyncio task logs, and what it starts, is kept for this attempt."""
        if self._keep:
            book = Book(token, self._keep, prints=self._prints)
            self._books.add(book)
            _book.set(book)

    async def close(self) -> None:
        """Write the last lines of the attempt that this asyncio task runs. An engine that cannot be reached holds nothing up for long."""
        book = _book.get()
        if book is None:
            return
        _book.set(None)
        self._books.discard(book)
        try:
            async with asyncio.timeout(PATIENCE), book.writing:
                await self._insist(book)
        except (MognetError, TimeoutError) as error:
            lost = len(book.sent) + len(book.take(all=True))
            _log.warning("the last log lines of job %s are lost (%d of them): %s", book.token.id, lost, error)

    async def _insist(self, book: Book) -> None:
        """Write what there is, until it is written or the caller's patience has ended."""
        while True:
            try:
                return await self._send(book, all=True)
            except ConnectionError as error:
                _log.debug("the last log lines of job %s wait: %s", book.token.id, error)
            await asyncio.sleep(AGAIN)

    async def _send(self, book: Book, *, all: bool = False) -> None:
        """Write what there is, beginning with what a broken way has left in doubt."""
        if book.going is not None:  # who sent them was stopped, or told of an error
            await asyncio.wait([book.going])
        if book.sent and await self._is_written(book):
            book.sent = []
        book.sent = [*book.sent, *book.take(all=all)][-self._keep :]
        if book.sent:
            book.going = self._pages.add((book.token, book.sent))
            await asyncio.shield(book.going)
            book.sent, book.going = [], None

    async def _is_written(self, book: Book) -> bool:
        kept = [line.text for line in await self._engine.logs(book.token.id)]
        return kept[-len(book.sent) :] == book.sent

    async def _write(self, pages: Sequence[tuple[Token, list[bytes]]]) -> list[None]:
        """What several jobs have logged goes together; lines of a job that was lost are dropped."""
        lines: dict[Token, list[bytes]] = {}
        for token, page in pages:
            lines.setdefault(token, []).extend(page)
        await self._engine.log(lines, keep=self._keep)
        return [None] * len(pages)

    async def run(self) -> None:
        """Write now and then, until cancelled; and what is left then is of attempts that could not be ended."""
        if not self._keep:
            return
        with _Listening(prints=self._prints):
            try:
                while True:
                    await asyncio.sleep(FLUSH_EVERY)
                    await self._flush_all()
            finally:
                await self._flush_all()

    async def _flush_all(self) -> None:
        await asyncio.gather(*(self._flush(book) for book in list(self._books)))

    async def _flush(self, book: Book) -> None:
        async with book.writing:
            try:
                await self._send(book)
            except MognetError as error:
                _log.debug("log lines cannot be written yet: %s", error)
            except Exception:  # an engine's bug must not end the keeping of all other jobs' lines
                _log.exception("%d log lines of job %s are lost", len(book.sent), book.token.id)
                book.sent = []


class _Handler(logging.Handler):
    """Hands records made inside a task to its book. The library's own are about jobs, not of them."""

    def emit(self, record: logging.LogRecord) -> None:
        book = _book.get()
        if book is not None and record.name != "mognet" and not record.name.startswith("mognet."):
            book.add(pack_record(record))


class _Printed:
    """A standard output that also hands what is printed inside a task to its book."""

    def __init__(self, below: TextIO) -> None:
        self._below = below

    def write(self, text: str) -> int:
        book = _book.get()
        if book is not None and book.prints:
            book.print(text)
        return self._below.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)


class _Listening:
    """Inside the context, records and printed lines reach the books: once, however many workers there are in this process."""

    _handler = _Handler()
    _listeners = 0
    _printing = 0
    _stdout: _Printed | None = None

    def __init__(self, *, prints: bool) -> None:
        self._prints = prints

    def __enter__(self) -> None:
        cls = _Listening
        cls._listeners += 1
        if cls._listeners == 1:
            logging.getLogger().addHandler(cls._handler)
        if self._prints:
            cls._printing += 1
            if cls._printing == 1:
                cls._stdout = _Printed(sys.stdout)
                sys.stdout = cls._stdout

    def __exit__(self, *_: object) -> None:
        cls = _Listening
        cls._listeners -= 1
        if cls._listeners == 0:
            logging.getLogger().removeHandler(cls._handler)
        if self._prints:
            cls._printing -= 1
            if cls._printing == 0 and cls._stdout is not None:
                if sys.stdout is cls._stdout:  # else somebody has put theirs over it, and may put ours back
                    sys.stdout = cls._stdout._below
                cls._stdout = None
