"""Opening the file: where it is, whose it is, how it is set up, and what its errors mean."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from mognet.engines.migrations import Step, steps
from mognet.exceptions import ConnectionError, ImproperlyConfigured
from mognet.labels import labels
from mognet.records import Wanted

T = TypeVar("T")

Synchronous = Literal["full", "normal"]

PACKAGE = "mognet.engines.sql"

APPLICATION_ID = 0x6D6F676E
"""What our files carry in their header: "mogn"."""

OLDEST_SQLITE = (3, 33, 0)
"""The first with UPDATE … FROM."""

PATIENCE = 30.0
"""Seconds to wait for other processes' transactions before giving up."""

PAGE = 2048
"""Bytes of a page in a new file."""

WAL_KEPT = 16 * 1024 * 1024
"""Bytes to which the write-ahead log is cut when it starts anew."""


@lru_cache(maxsize=64)
def _wanted(condition: str) -> Wanted:
    path, values = json.loads(condition)
    return Wanted(path, frozenset(value.encode() for value in values))


def labels_of(metadata: bytes, paths: Collection[str]) -> dict[str, bytes]:
    """The labels of a job. What is no JSON object has none: nobody can look for anything in it, and whoever stored it is gone."""
    try:
        return labels(metadata, paths)
    except (ValueError, AttributeError):
        return {}


def _has_metadata(metadata: bytes, condition: str) -> bool:
    path, values = _wanted(condition)
    return labels_of(metadata, (path,)).get(path) in values


def _metadata_label(metadata: bytes, path: str) -> bytes | None:
    return labels_of(metadata, [path]).get(path)


_PRAGMAS = (
    # Of a file that is yet to be written. A submit writes three pages, whatever little of them changes.
    f"page_size = {PAGE}",
    "foreign_keys = OFF",
    "temp_store = MEMORY",
    "cache_size = -16000",
    # A mapped page can be seen half written by another process's checkpoint, and an I/O error on it kills the process.
    "mmap_size = 0",
    # Some distributions overwrite what is deleted with zeros, which doubles the writing.
    "secure_delete = OFF",
    # Checkpoints are made by the writer, under the write lock: see writer.py.
    "wal_autocheckpoint = 0",
    f"journal_size_limit = {WAL_KEPT}",
    # Waiting is ours: SQLite sleeps for up to 100 ms at a time.
    "busy_timeout = 0",
)

FUNCTIONS = {"has_metadata": _has_metadata, "metadata_label": _metadata_label}
"""What statements may call that look through metadata without an index."""

_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}

_REMEDIES = {
    sqlite3.SQLITE_FULL: "the disk is full: make room",
    sqlite3.SQLITE_BUSY: "another process has kept it locked for too long: look for one that is stopped or in a debugger",
    sqlite3.SQLITE_READONLY: "it is read-only: check the permissions of the file and of its folder",
    sqlite3.SQLITE_PERM: "permission denied: check the permissions of the file and of its folder",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check the path, and the permissions of the file and of its folder",
    sqlite3.SQLITE_IOERR: "the disk or the file system failed; WAL files need a local disk, not a network one",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restore it from a copy, or move it away and start anew",
}

_creating = threading.Lock()


class Location(NamedTuple):
    """What a ``sqlite://`` URL says."""

    path: Path
    synchronous: Synchronous = "full"
    inline: bool = True


def parse_url(url: str) -> Location:
    """Read ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, with ``?synchronous=full|normal&inline=1|0``."""
    parts = urlsplit(url)
    path = unquote(parts.path)[1:]
    if parts.scheme != "sqlite":
        raise ImproperlyConfigured(f"{url!r} is not a sqlite:// URL")
    if parts.netloc:
        raise ImproperlyConfigured(
            f"{url!r} names a host: write sqlite:///jobs.db for a relative path, sqlite:////srv/jobs.db for an absolute one"
        )
    if not path or path == ":memory:":
        raise ImproperlyConfigured(f"{url!r} names no file: use memory:// for an engine without one")
    location = Location(Path(path))
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key == "synchronous":
            location = location._replace(synchronous=check_synchronous(value, url))
        elif key == "inline" and value in ("0", "1"):
            location = location._replace(inline=value == "1")
        elif key == "inline":
            raise ImproperlyConfigured(f"{url!r}: inline is 1 or 0, not {value!r}")
        else:
            raise ImproperlyConfigured(f"{url!r}: unknown option {key!r}; sqlite:// knows synchronous=full|normal and inline=1|0")
    return location


def check_synchronous(value: str, where: object) -> Synchronous:
    """The value, if it is one."""
    if value == "full":
        return "full"
    if value == "normal":
        return "normal"
    raise ImproperlyConfigured(f"{where}: synchronous is 'full' or 'normal', not {value!r}")


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's error code without its extension; 0 if it has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_locked(error: sqlite3.Error) -> bool:
    """Whether somebody else's transaction was in the way."""
    return primary_code(error) in _LOCKED


def explain(error: Exception, path: Path) -> Exception:
    """The error that the engine raises in place of a driver's."""
    if not isinstance(error, sqlite3.Error):
        return error
    code = primary_code(error)
    explained: Exception
    if code == sqlite3.SQLITE_NOTADB:
        explained = ImproperlyConfigured(f"{path} is not an SQLite database: name another file, or move this one away")
    elif code in _REMEDIES:
        explained = ConnectionError(f"{path}: {_REMEDIES[code]} ({error})")
    else:
        return error
    explained.__cause__ = error
    return explained


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Inside the context, errors of the driver become ours."""
    try:
        yield
    except sqlite3.Error as error:
        better = explain(error, path)
        raise better from (None if better is error else error)


def patiently(attempt: Callable[[], T], patience: float = PATIENCE) -> T:
    """Repeat while others hold the lock, with short waits that differ between processes."""
    give_up, pause = time.monotonic() + patience, 0.0002
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if not is_locked(error) or time.monotonic() > give_up:
                raise
        time.sleep(random.uniform(0, pause))
        pause = min(pause * 1.5, 0.005)


def open_file(path: Path, synchronous: Synchronous, version: int | None = None) -> sqlite3.Connection:
    """A connection to our file, which is made or brought up to date first if need be; or to another version of its schema."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise ImproperlyConfigured(f"SQLite {sqlite3.sqlite_version} is too old: mognet needs {'.'.join(map(str, OLDEST_SQLITE))} or newer")
    with _creating:
        _make_file(path)
        connection = _connect(path, synchronous)
    try:
        with explained(path):
            _check_owner(connection, path)
            _migrate(connection, path, version)
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                patiently(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone())
    except BaseException:
        connection.close()
        raise
    return connection


def open_again(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    """One more connection to a file that has been opened."""
    return _connect(path, synchronous)


def _make_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent.name == ".mognet":
            with suppress(FileExistsError), (path.parent / ".gitignore").open("x") as ignore:
                ignore.write("*\n")
        # Only if it is new: opening and closing a database by other means than SQLite drops this process's locks on it.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise ConnectionError(f"{path} cannot be made: {error.strerror}; check the path and the permissions of its folder") from error
    if path.is_dir():
        raise ImproperlyConfigured(f"{path} is a folder: name a file in it")


def _connect(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    with explained(path):
        connection = sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False, cached_statements=512)
        try:
            for name, function in FUNCTIONS.items():
                connection.create_function(name, 2, function, deterministic=True)
            for pragma in (*_PRAGMAS, f"synchronous = {synchronous.upper()}"):
                # Even a setting reads the file, which may be locked by one who recovers its log.
                patiently(lambda pragma=pragma: connection.execute(f"PRAGMA {pragma}").close())  # type: ignore[misc]
        except BaseException:
            connection.close()
            raise
    return connection


def _check_owner(connection: sqlite3.Connection, path: Path) -> None:
    def look() -> tuple[int, int, int]:
        owner: int = connection.execute("PRAGMA application_id").fetchone()[0]
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return owner, version, tables

    owner, version, tables = patiently(look)
    if owner != APPLICATION_ID and (owner or version or tables):
        raise ImproperlyConfigured(f"{path} is the database of another program: name another file")


def _migrate(connection: sqlite3.Connection, path: Path, wanted: int | None) -> None:
    def needed() -> list[Step]:
        return steps(PACKAGE, str(path), int(connection.execute("PRAGMA user_version").fetchone()[0]), wanted)

    def begin() -> None:
        connection.execute("BEGIN IMMEDIATE")

    if not patiently(needed):
        return
    patiently(begin)
    try:
        for step in needed():
            for statement in step.script.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {step.version}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
