"""From a URL to what looks at the server behind it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mognet.engines import engine_factory
from mognet.engines.findings import Checkup, Finding, Schema, warning


def checkups(url: str, app: str, *, broker: Sequence[str] = ()) -> dict[str, Checkup]:
    """What looks at the server of a URL, by section; with a broker, at that first.

    Connects to nothing yet. Raises :class:`mognet.exceptions.ImproperlyConfigured` for what :func:`engine_factory` refuses.
    """
    engine_factory(url, app, broker=broker)  # a wrong URL, or a client library that is missing, is told in its words
    if broker:
        from mognet.engines.rabbitmq.checkup import RabbitMQCheckup

        return {"broker": RabbitMQCheckup(broker, app), "store": _store(url, app)}
    return {"": _store(url, app)}


def _store(url: str, app: str) -> Checkup:
    scheme = url.partition(":")[0].lower()
    if scheme == "sqlite":
        from mognet.engines.sql.checkup import SQLiteCheckup

        return SQLiteCheckup(url, app)
    if scheme in ("postgresql", "postgres"):
        from mognet.engines.postgres.checkup import PostgresCheckup

        return PostgresCheckup(url, app)
    if scheme == "memory":
        return MemoryCheckup(url)
    from mognet.engines.redis.checkup import RedisCheckup

    return RedisCheckup(url, app)


class MemoryCheckup:
    """The memory engine."""

    title = "memory"

    def __init__(self, url: str) -> None:
        self.shown = url

    async def examine(self, queues: Collection[str]) -> list[Finding]:
        text = f"{self.shown} keeps jobs in one process, and forgets them with it"
        return [warning("engine", text, "leave the URL out: a SQLite file is the default")]

    async def schema(self) -> Schema | None:
        return None

    async def size(self) -> int | None:
        return None

    async def migrate(self, version: int | None = None) -> None:
        pass
