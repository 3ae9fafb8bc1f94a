"""A caller's own connection, in whose transaction jobs are submitted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from mognet.exceptions import ImproperlyConfigured


class Rows:
    """What a statement answered."""

    def __init__(self, rows: list[tuple[Any, ...]], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    async def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows."""
        return self._rows


class Borrowed:
    """As much of a connection as a submit needs, over one of either kind. Its transaction is the caller's: nothing here ends it."""

    def __init__(self, connection: Any) -> None:
        if not isinstance(connection, psycopg.AsyncConnection | psycopg.Connection):
            raise ImproperlyConfigured(f"connection= takes a psycopg Connection or AsyncConnection here, not {type(connection).__name__}")
        self._connection = connection

    async def execute(self, statement: bytes, values: dict[str, Any], *, binary: bool = False) -> Rows:
        """Execute a statement. What it answers is read as text, by the caller's own rules for types."""
        if isinstance(self._connection, psycopg.AsyncConnection):
            async with self._connection.cursor(row_factory=tuple_row) as cursor:
                await cursor.execute(statement, values)
                return Rows(await cursor.fetchall() if cursor.description else [], cursor.rowcount)
        with self._connection.cursor(row_factory=tuple_row) as plain:
            plain.execute(statement, values)
            return Rows(plain.fetchall() if plain.description else [], plain.rowcount)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Nothing: there is one already."""
        yield
