"""One connection: how it is opened, set up, watched and given up."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.abc import Dumper
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo, TransactionStatus
from psycopg.rows import TupleRow
from psycopg.types.numeric import FloatBinaryDumper, Int8BinaryDumper
from psycopg.types.string import BytesBinaryDumper, StrBinaryDumper
from psycopg.types.uuid import UUIDBinaryDumper

from mognet.engines.knocking import CHECK, Door
from mognet.engines.postgres.arrays import Blobs, BlobsDumper, Numbers, NumbersDumper, Uuids, UuidsDumper
from mognet.engines.postgres.errors import translated
from mognet.engines.postgres.settings import Settings
from mognet.exceptions import ConnectionError, ImproperlyConfigured

Connection = AsyncConnection[TupleRow]

CONNECT_SECONDS = 10.0
HOST_SECONDS = 3
"""How long each of several hosts may take: one that is down says nothing at all."""

SECOND_AFTER = 2.0
"""Seconds without an answer after which a second attempt is made beside the first."""

_good: dict[str, tuple[str, str]] = {}
"""By URL, the host that let us in last: of several, it is asked first."""

STATEMENT_SECONDS = 25.0
IDLE_IN_TRANSACTION_SECONDS = 15.0
OLDEST = 130000

_SSL_REQUEST = struct.pack("!II", 8, 80877103)  # answered by one byte, and may be left at that

# Every statement finds its rows by an index; a plan made while a table was small must not go on scanning it when it is large.
SESSION = {
    "statement_timeout": f"{STATEMENT_SECONDS:g}s",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS:g}s",
    "default_transaction_isolation": "read committed",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "client_min_messages": "warning",
}

# Binary, and one type for each: else a statement is prepared anew for each size of number.
DUMPERS: dict[type, type[Dumper]] = {
    int: Int8BinaryDumper,
    float: FloatBinaryDumper,
    str: StrBinaryDumper,
    bytes: BytesBinaryDumper,
    UUID: UUIDBinaryDumper,
    Uuids: UuidsDumper,
    Numbers: NumbersDumper,
    Blobs: BlobsDumper,
}

_ABOUT = """SELECT pg_backend_pid(), current_setting('server_encoding'), pg_is_in_recovery(),
    current_setting('transaction_read_only'), current_setting('server_version_num')::int8"""


def connection_parameters(settings: Settings) -> dict[str, Any]:
    """What is added to the URL where it says nothing else.

    A dead server is noticed, of several hosts the primary is taken, and a certificate is checked where the URL says against what.
    """
    given = conninfo_to_dict(settings.url)
    wanted: dict[str, Any] = {
        "application_name": "mognet",
        "connect_timeout": int(CONNECT_SECONDS),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        "client_encoding": "UTF8",
        "gssencmode": "disable",
    }
    if given.get("sslrootcert") and not os.environ.get("PGSSLMODE"):
        wanted["sslmode"] = "verify-full"  # who names an authority wants to be sure; libpq's default would not even ask
    hosts = _hosts(given)
    if len(hosts) > 1:
        wanted |= {"target_session_attrs": "read-write", "connect_timeout": HOST_SECONDS}
    added = {key: value for key, value in wanted.items() if key not in given}
    if len(hosts) > 1 and (good := _good.get(settings.url)) in hosts:
        hosts.sort(key=lambda host: host != good)
        added["host"], added["port"] = (",".join(each) for each in zip(*hosts, strict=True))
    return added


def _hosts(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The hosts of a URL and their ports; none where it names addresses beside them."""
    if "hostaddr" in given:
        return []
    hosts, ports = str(given.get("host") or "").split(","), [each or "5432" for each in str(given.get("port") or "").split(",")]
    return list(zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=False))


def patience(settings: Settings) -> float:
    """How many seconds it may take until one of all hosts lets us in."""
    return max(CONNECT_SECONDS, len(_hosts(conninfo_to_dict(settings.url))) * HOST_SECONDS) + 1


def doors(settings: Settings) -> list[Door]:
    """Where to knock: what the URL names, or else libpq's environment and defaults. None where nothing names a host."""
    known = {option.keyword.decode(): (option.val or b"").decode() for option in Conninfo.get_defaults()}
    known |= {key: str(value) for key, value in conninfo_to_dict(settings.url).items()}
    hosts = (known.get("hostaddr") or known.get("host") or "").split(",")
    ports = [port or "5432" for port in (known.get("port") or "5432").split(",")]
    if len(ports) != len(hosts):
        ports = ports[:1] * len(hosts)
    pairs = [(host, int(port)) for host, port in zip(hosts, ports, strict=True) if host and port.isdecimal()]
    return [
        Door(path=f"{host}/.s.PGSQL.{port}", question=_SSL_REQUEST) if host.startswith("/") else Door(host, port, question=_SSL_REQUEST)
        for host, port in pairs
    ]


async def connect(settings: Settings) -> tuple[Connection, bool]:
    """A connection that is ready for use, and whether a pooler stands between. Raises mognet's errors.

    An attempt that takes long gets a second one beside it: its other end may have gone without a word, and then only its deadline ends it.
    """
    attempts = [asyncio.create_task(_attempt(settings))]
    try:
        await asyncio.wait(attempts, timeout=SECOND_AFTER)
        if not attempts[0].done():
            attempts.append(asyncio.create_task(_attempt(settings)))
            await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
        attempts.remove(first := next(attempt for attempt in attempts if attempt.done()))
        return first.result()
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_drop)


def _drop(attempt: asyncio.Task[tuple[Connection, bool]]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        give_up(attempt.result()[0])


async def _attempt(settings: Settings) -> tuple[Connection, bool]:
    seconds = patience(settings)
    try:
        async with asyncio.timeout(seconds):
            connection = await _open(settings)
    except TimeoutError:
        raise ConnectionError(f"PostgreSQL at {settings.shown} does not answer within {seconds:g} s; {CHECK}") from None
    except (psycopg.Error, OSError) as error:
        raise _explained(error, settings) from error
    guard = asyncio.get_running_loop().call_later(CONNECT_SECONDS, cut, connection)
    try:
        pooler = await _set_up(connection, settings)
        _good[settings.url] = (connection.info.host, str(connection.info.port))
        return connection, pooler
    except psycopg.Error as error:
        give_up(connection)
        raise _explained(error, settings) from error
    except BaseException:
        give_up(connection)
        raise
    finally:
        guard.cancel()


async def _open(settings: Settings) -> Connection:
    connection = await AsyncConnection.connect(settings.url, autocommit=True, **connection_parameters(settings))
    for kind, dumper in DUMPERS.items():
        connection.adapters.register_dumper(kind, dumper)
    return connection


def _explained(error: Exception, settings: Settings) -> Exception:
    known = translated(error, settings.shown, connecting=True, advice=CHECK) if isinstance(error, psycopg.Error) else None
    return known or ConnectionError(f"PostgreSQL at {settings.shown} cannot be reached: {error}; {CHECK}")


async def _set_up(connection: Connection, settings: Settings) -> bool:
    connection.prepare_threshold = None
    cursor = await connection.execute(_ABOUT)
    row = await cursor.fetchone()
    if row is None:
        raise ConnectionError(f"PostgreSQL at {settings.shown} does not answer")
    pid, encoding, standby, read_only, version = row
    if version < OLDEST:
        raise ImproperlyConfigured(f"PostgreSQL at {settings.shown} is version {version // 10000}; mognet needs {OLDEST // 10000} or later")
    if encoding != "UTF8":
        raise ImproperlyConfigured(f"the database of {settings.shown} has the encoding {encoding}: CREATE DATABASE … ENCODING 'UTF8'")
    if standby or read_only == "on":
        raise ConnectionError(f"PostgreSQL at {settings.shown} is a standby or read-only: name the primary, or all hosts")
    # A pooler invents the process id that it tells its clients.
    pooler = settings.pooler if settings.pooler is not None else pid != connection.info.backend_pid
    if not pooler:
        names, values = zip(*SESSION.items(), strict=True)
        await connection.execute(
            "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS setting(name, value)", (list(names), list(values))
        )
        connection.prepare_threshold = 0
    return pooler


def cut(connection: Connection) -> None:
    """End a connection under whoever waits for it: the wait ends with an error. (Cancelling it would ask the server first.)"""
    with suppress(psycopg.Error, OSError):
        copy = socket.socket(fileno=os.dup(connection.pgconn.socket))
        try:
            copy.shutdown(socket.SHUT_RDWR)
        finally:
            copy.close()


def give_up(connection: Connection) -> None:
    """Close without a word to the server."""
    connection.pgconn.finish()
    connection._closed = True


def is_fresh(connection: Connection) -> bool:
    """Whether an idle connection is fit for use: a server that has gone, or was shut down, has said so meanwhile."""
    if connection.closed or connection.pgconn.transaction_status != TransactionStatus.IDLE:
        return False
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return not poll.poll(0)
