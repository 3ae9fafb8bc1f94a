"""Submitting inside a transaction that is somebody else's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mognet.engines.sql import submitting
from mognet.engines.sql.session import Session
from mognet.exceptions import ConnectionError, ImproperlyConfigured
from mognet.records import Job, Record


class NoEars:
    """Tells nobody: until the caller commits, nothing has happened, and when that is nobody knows."""

    def ring(self, queues: Collection[str]) -> None:
        """Nobody is rung for."""

    def tell_done(self, ended: Sequence[tuple[Record, bytes | None]]) -> None:
        """Nobody is told."""

    def expected(self) -> bool:
        """Nobody waits."""
        return False

    def tell_changed(self) -> None:
        """Nobody is told."""


def submit_over(
    connection: Any, file: Path, number_of: Callable[[sqlite3.Connection], int], clock: Callable[[], float], jobs: Sequence[Job]
) -> list[bool]:
    """Store jobs by the caller's connection to the same file; begins a transaction if none is under way, and leaves it open.

    Raises :class:`ImproperlyConfigured` for a connection of another kind or to another file, :class:`ConnectionError` if SQLite
    refuses: then the caller's transaction is as it was.
    """
    if not isinstance(connection, sqlite3.Connection):
        raise ImproperlyConfigured(f"connection= takes a sqlite3.Connection here, not {type(connection).__name__}")
    with _plain(connection):
        place = next((row[2] for row in connection.execute("PRAGMA database_list") if row[1] == "main"), "")
        if not place or not Path(place).exists() or not file.samefile(place):
            raise ImproperlyConfigured(
                f"connection= is to {place or 'a database in memory'}, and the app's jobs are in {file}: use one file for both"
            )
        begun = not connection.in_transaction
        try:
            if begun:
                connection.execute("BEGIN IMMEDIATE")
            return _within(connection, number_of, clock, jobs)
        except sqlite3.Error as error:
            if begun and connection.in_transaction:
                connection.rollback()
            raise ConnectionError(f"{file} cannot be written by your connection: {error}") from error


def _within(
    connection: sqlite3.Connection, number_of: Callable[[sqlite3.Connection], int], clock: Callable[[], float], jobs: Sequence[Job]
) -> list[bool]:
    connection.execute("SAVEPOINT mognet_submit")
    try:
        session = Session(connection, number_of(connection), clock, NoEars(), now=clock())
        added = submitting.submit(jobs, True)(session)()
        session.give_up()
    except BaseException:
        connection.execute("ROLLBACK TO mognet_submit")
        raise
    finally:
        connection.execute("RELEASE mognet_submit")
    return added


@contextmanager
def _plain(connection: sqlite3.Connection) -> Iterator[None]:
    """Rows as tuples and texts as str, whatever the caller likes to have."""
    before = connection.row_factory, connection.text_factory
    connection.row_factory, connection.text_factory = None, str
    try:
        yield
    finally:
        connection.row_factory, connection.text_factory = before
