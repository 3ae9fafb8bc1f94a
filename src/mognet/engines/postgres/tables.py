"""One app's part of a schema, and what whoever writes to it has to know."""

from __future__ import annotations

from typing import Any, NamedTuple

from mognet.engines.postgres.connecting import Connection
from mognet.engines.postgres.statements import qualified


class Stale(Exception):
    """What was known of the app was no longer so, and nothing was done: learn anew, and repeat."""


class Known(NamedTuple):
    """What whoever writes jobs has to know of an app."""

    version: int = 0
    paths: dict[str, int] = {}  # noqa: RUF012 - never changed
    """The numbers of the paths in metadata that are indexed."""
    dropped: dict[str, int] = {}  # noqa: RUF012 - never changed
    """Those that were given up, of which labels may be left."""
    logged: bool = False
    """Whether there may be log lines."""


class Tables(NamedTuple):
    """One app's part of a schema; every statement is executed through it."""

    app: int
    schema: str
    known: Known = Known()
    watchers: int | None = None
    """The lock that all share who listen for changes; None: whether somebody does is not asked."""
    workers: int | None = None
    """The same for those who wait for work."""
    waiters: int | None = None
    """The same for those who wait for ends."""

    async def all(self, connection: Connection, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """All rows of a statement."""
        cursor = await connection.execute(qualified(statement, self.schema), self._with_ours(values), binary=True)
        return await cursor.fetchall()

    async def run(self, connection: Connection, statement: str, **values: Any) -> int:
        """How many rows a statement changed."""
        cursor = await connection.execute(qualified(statement, self.schema), self._with_ours(values), binary=True)
        return cursor.rowcount

    def _with_ours(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"app": self.app, "watchers": self.watchers, "workers": self.workers, "waiters": self.waiters, **values}
