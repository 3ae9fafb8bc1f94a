"""What the doctor looks at on a PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from mognet.engines.findings import Finding, Schema, client_version, clock, encryption, error, ok, server_version, warning
from mognet.engines.migrations import newest
from mognet.engines.postgres.connecting import connect as connect_engine
from mognet.engines.postgres.connecting import connection_parameters, give_up, patience
from mognet.engines.postgres.errors import translated
from mognet.engines.postgres.migrate import PACKAGE, migrate, schema_version
from mognet.engines.postgres.settings import parse_url
from mognet.exceptions import ConnectionError
from mognet.redaction import redact_url

TESTED = (15,)
CLIENT_TESTED = (3, 3)

FEW = 20
"""Connections that should be left: two workers' worth, and a person's."""

LONG_TRANSACTION = 600.0

_RELOAD = "SELECT pg_reload_conf();"

_ABOUT = """SELECT current_setting('server_version') AS version, current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes, current_setting('autovacuum') AS autovacuum,
    current_setting('max_connections')::int AS most, current_setting('superuser_reserved_connections')::int AS reserved,
    (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
    pg_is_in_recovery() AS standby, current_setting('default_transaction_read_only') AS read_only, pg_backend_pid() AS pid,
    current_database() AS database, current_setting('server_encoding') AS encoding,
    (SELECT extract(epoch FROM max(clock_timestamp() - xact_start))::float8 FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()) AS longest"""

_SIZE = """SELECT sum(pg_total_relation_size(pg_class.oid))::int8 AS size FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = %s::text AND relkind = 'r'"""

Row = dict[str, Any]


class PostgresCheckup:
    """Looks at a PostgreSQL."""

    title = "PostgreSQL"

    def __init__(self, url: str, app: str) -> None:
        self._settings = parse_url(url)
        self.shown = redact_url(url)

    async def examine(self, queues: Collection[str]) -> list[Finding]:
        async with self._connected() as connection:
            row = await _one(connection, _ABOUT)

            async def theirs() -> float:
                return float((await _one(connection, "SELECT extract(epoch FROM clock_timestamp())::float8 AS now"))["now"])

            version = str(row["version"]).split(" ")[0]
            found = [
                client_version("psycopg", "postgres", CLIENT_TESTED),
                server_version("server", f"PostgreSQL {version}", version, TESTED),
            ]
            given = self._settings.pooler
            pooler = given if given is not None else row["pid"] != connection.info.backend_pid
            found += [await clock(theirs), _encryption(connection)]
            return [*found, *_role(row), *_durability(row), _connections(row), _pooler(pooler), *_upkeep(row)]

    async def schema(self) -> Schema:
        async with self._connected() as connection:
            return Schema(await schema_version(connection, self._settings.schema), newest(PACKAGE))

    async def size(self) -> int | None:
        async with self._connected() as connection:
            size = (await _one(connection, _SIZE, self._settings.schema))["size"]
        return None if size is None else int(size)

    async def migrate(self, version: int | None = None) -> None:
        connection, _ = await connect_engine(self._settings)
        try:
            await migrate(connection, self._settings.schema, version)
        except psycopg.Error as problem:
            raise (translated(problem, self.shown) or problem) from problem
        finally:
            await connection.close()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection[Any]]:
        """A connection without the engine's settings for its sessions; of a single host, also to a standby."""
        connection: AsyncConnection[Any] | None = None
        try:
            async with asyncio.timeout(patience(self._settings)):
                connection = await AsyncConnection.connect(self._settings.url, autocommit=True, **connection_parameters(self._settings))
                connection.prepare_threshold = None
                yield connection
        except TimeoutError:
            raise ConnectionError(f"PostgreSQL at {self.shown} does not answer within {patience(self._settings):g} s") from None
        except psycopg.Error as problem:
            raise (translated(problem, self.shown, connecting=True) or problem) from problem
        finally:
            if connection is not None:
                give_up(connection)


async def _one(connection: AsyncConnection[Any], statement: str, *values: object) -> Row:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement.encode(), values or None)
        row = await cursor.fetchone()
    return row or {}


def _role(row: Row) -> Iterator[Finding]:
    if row["standby"]:
        yield error("role", "a standby, which takes no writes", "name the primary, or all hosts: postgresql://a,b/db")
    elif row["read_only"] == "on":
        yield error(
            "role", "its transactions are read-only by default", f'ALTER DATABASE "{row["database"]}" RESET default_transaction_read_only'
        )
    if row["encoding"] != "UTF8":
        yield error("encoding", f"the database has the encoding {row['encoding']}", "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0")


def _encryption(connection: AsyncConnection[Any]) -> Finding:
    mode = connection.info.get_parameters().get("sslmode", "prefer")
    remedy = "sslmode=verify-full (and sslrootcert=, if its certificate is of an authority of your own)"
    tls, checked = connection.pgconn.ssl_in_use, mode == "verify-full"
    return encryption([connection.info.host], tls=tls, checked=checked, switch_on=remedy, check=remedy)


def _durability(row: Row) -> Iterator[Finding]:
    """What a crash of the server would lose."""
    if row["fsync"] != "on":
        yield error("durability", "fsync is off: a power cut may destroy the database", f"ALTER SYSTEM SET fsync = on; {_RELOAD}")
    elif row["full_page_writes"] != "on":
        remedy = f"ALTER SYSTEM SET full_page_writes = on; {_RELOAD}"
        yield warning(
            "durability", "full_page_writes is off: a power cut may leave torn pages, unless its file system prevents them", remedy
        )
    if row["synchronous_commit"] == "off":
        text = "synchronous_commit is off: a crash of the server loses what it acknowledged in the last moments"
        yield warning("durability", text, f'ALTER DATABASE "{row["database"]}" SET synchronous_commit = on')
    elif row["fsync"] == "on":
        yield ok("durability", f"fsync is on, synchronous_commit is {row['synchronous_commit']}: what was acknowledged is on disk")


def _connections(row: Row) -> Finding:
    left = row["most"] - row["reserved"] - row["used"]
    text = f"{row['used']} of {row['most']} in use"
    if left < FEW:
        remedy = "ALTER SYSTEM SET max_connections = … and restart it, lower ?pool_size=, or put PgBouncer between"
        return warning("connections", f"{text}, {max(0, left)} left; a worker needs up to 6", remedy)
    return ok("connections", text)


def _pooler(pooler: bool) -> Finding:
    if pooler:
        text = "a pooler stands between: nobody can be woken through it, so that workers look for jobs every half second"
        return warning("pooler", text, "name the server itself for workers that are to start jobs at once")
    return ok("pooler", "none in between")


def _upkeep(row: Row) -> Iterator[Finding]:
    if row["autovacuum"] != "on":
        yield error("autovacuum", "it is off: the tables grow, and claims become slow", f"ALTER SYSTEM SET autovacuum = on; {_RELOAD}")
    if (row["longest"] or 0.0) > LONG_TRANSACTION:
        text = (
            f"one has been open for {row['longest'] / 60:.0f} min: what has been deleted since cannot be cleaned up, and claims become slow"
        )
        yield warning(
            "transactions", text, "SELECT pid, xact_start, query FROM pg_stat_activity ORDER BY xact_start; then pg_terminate_backend(pid)"
        )
