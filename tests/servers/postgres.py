"""A private PostgreSQL."""

from __future__ import annotations

import asyncio
import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from servers import KEPT, Server, find_binary, free_port, missing

USER, PASSWORD = "mognet", "s3cret-canary"


def as_postgres() -> list[str]:
    """What runs a program as another user: servers refuse to run as root."""
    if os.geteuid() != 0:
        return []
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        missing("there is no user postgres to run the server as")
    return [find_binary("setpriv"), f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def postgres_server(folder: Path, *, auth: str = "scram-sha-256", **options: str) -> tuple[Server, str]:
    """A PostgreSQL that writes to disk before it answers, and its URL. Not started yet; others must be able to look into ``folder``."""
    initdb, postgres = (find_binary(name, f"/usr/lib/postgresql/*/bin/{name}") for name in ("initdb", "postgres"))
    prefix, port, data = as_postgres(), free_port(), folder / "data"
    if prefix:
        shutil.chown(folder, "postgres")
    password = folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    command = [*prefix, initdb, "-D", str(data), "-U", USER, "-E", "UTF8", "--locale=C", f"--auth={auth}", f"--pwfile={password}"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    settings = {"port": str(port), "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "300"}
    settings |= {"fsync": "on", "shared_buffers": "64MB", "autovacuum_naptime": "5s", "log_min_messages": "fatal", **options}
    flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
    url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres"

    return Server("postgres", [*prefix, postgres, "-D", str(data), *flags], folder, lambda: answers(url)), url


def answers(url: str) -> bool:
    """Whether a server lets us in."""
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=2):
            return True
    except psycopg.Error:
        return False


@contextmanager
def own_postgres(**options: str) -> Iterator[tuple[Server, str]]:
    """A server for one test, which may do to it what it likes. (The folders of pytest are closed to the user postgres.)"""
    with tempfile.TemporaryDirectory(prefix="mognet-postgres-") as folder:
        server, url = postgres_server(Path(folder), **options)
        server.start()
        try:
            yield server, url
        finally:
            server.resume()
            server.kill()


def postgres_standby(folder: Path, primary: str) -> tuple[Server, str]:
    """A standby that has copied the primary and follows it, and its URL. Not started yet."""
    backup, postgres = (find_binary(name, f"/usr/lib/postgresql/*/bin/{name}") for name in ("pg_basebackup", "postgres"))
    prefix, port, data = as_postgres(), free_port(), folder / "data"
    if prefix:
        shutil.chown(folder, "postgres")
    copy = [*prefix, backup, "-D", str(data), "-d", primary, "--write-recovery-conf", "--checkpoint=fast"]
    subprocess.run(copy, check=True, capture_output=True, cwd=folder)
    parts = urlsplit(primary)
    url = parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()
    settings = {"port": str(port), "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "300"}
    flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
    return Server("postgres standby", [*prefix, postgres, "-D", str(data), *flags], folder, lambda: answers(url)), url


@cache
def shared_postgres() -> str:
    """The URL of a PostgreSQL for all tests of this process that do no harm to it; they may empty it. It does not wait for the disk."""
    if url := os.environ.get("MOGNET_TEST_POSTGRES_URL"):
        return url
    folder = Path(tempfile.mkdtemp(prefix="mognet-postgres-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    server, url = postgres_server(folder, auth="trust", fsync="off", synchronous_commit="off", full_page_writes="off")
    server.start()
    atexit.register(server.kill)
    return url


TABLES = ("job", "content", "note", "path", "label", "log")
"""Those with rows for jobs."""

FEW = 128 * 1024
"""Bytes of a table from which rows are deleted sooner than it is truncated, which makes new files."""


def empty_postgres() -> str:
    """The same, without any job."""
    url = shared_postgres()
    if ask(url, "SELECT to_regclass('mognet.log')") != [(None,)]:
        tables = [f"mognet.{each}" for each in TABLES]
        [(largest,)] = ask(url, "SELECT max(pg_table_size(name::regclass)) FROM unnest(%s::text[]) AS tables (name)", tables)
        ask(url, "; ".join(f"DELETE FROM {each}" for each in tables) if largest < FEW else f"TRUNCATE {', '.join(tables)}")
        ask(url, "UPDATE mognet.app SET version = version + 1, logged = false, noted_until = 0")
    return url


_CLOCK = """
CREATE SCHEMA IF NOT EXISTS clock;
CREATE TABLE IF NOT EXISTS clock.clock (at timestamptz NOT NULL);
CREATE OR REPLACE FUNCTION clock.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS 'SELECT at FROM clock.clock'
"""


def with_clock(url: str) -> str:
    """The URL of sessions for which the time is what :func:`set_clock` says."""
    _make_clock(url)
    return f"{url}?options=-csearch_path%3Dclock%2Cpg_catalog"


@cache
def _make_clock(url: str) -> None:
    ask(url, _CLOCK)


def set_clock(url: str, seconds: float) -> None:
    """Set that clock."""
    ask(url, "WITH gone AS (DELETE FROM clock.clock) INSERT INTO clock.clock VALUES (to_timestamp(%s))", seconds)


def ask(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """As :func:`query`, of a server that nobody ends, by a connection that stays: to connect takes longer than most answers."""
    cursor = _connection(url).execute(statement.encode(), values or None)
    return cursor.fetchall() if cursor.description else []


@cache
def _connection(url: str) -> Any:
    import psycopg

    connection = psycopg.connect(url, autocommit=True, prepare_threshold=None)
    atexit.register(connection.close)
    with suppress(OSError):
        KEPT.add(os.readlink(f"/proc/self/fd/{connection.fileno()}"))
    return connection


def query(url: str, statement: str, *values: object) -> list[tuple[object, ...]]:
    """The rows of a statement, by other means than the engine."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


async def until(url: str, statement: str) -> None:
    """Wait until a statement answers any row."""
    async with asyncio.timeout(20):
        while True:
            if query(url, statement):
                return
            await asyncio.sleep(0.01)


WAITED_FOR = "SELECT 1 FROM pg_locks WHERE relation = 'mognet.app'::regclass AND NOT granted"
"""Whether somebody waits for all who write."""
