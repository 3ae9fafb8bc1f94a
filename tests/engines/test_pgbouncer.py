"""PostgreSQL behind PgBouncer in transaction mode: each transaction may meet another session of the server."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from engines.conftest import FakeClock, PostgresHarness
from exercise import double, exercise, make_app, until, working
from mognet.engines.migrations import newest
from mognet.engines.postgres import engine as engine_module
from mognet.engines.postgres.checkup import PostgresCheckup
from mognet.engines.postgres.engine import PostgresEngine
from mognet.engines.postgres.migrate import PACKAGE
from mognet.exceptions import ConnectionError
from mognet.records import Signal
from mognet.testing.conformance import Cancelling, Fenced, Harness, OneHolder, Repeatable, Waiting
from mognet.testing.conformance.bench import make_job
from servers import Server
from servers.pgbouncer import pgbouncer_server, shared_pgbouncer, through
from servers.postgres import empty_postgres, query, set_clock, shared_postgres, with_clock


@cache
def clock_database() -> str:
    """The URL of a database in whose sessions the time is what we say: a pooler does not pass such a wish on."""
    url = shared_postgres()
    query(url, "DROP DATABASE IF EXISTS pooled WITH (FORCE)")
    query(url, "CREATE DATABASE pooled")
    query(url, "ALTER DATABASE pooled SET search_path = clock, pg_catalog")
    return urlsplit(url)._replace(path="/pooled").geturl()


class PgBouncerHarness(PostgresHarness):
    """Engines that share few sessions."""

    def __init__(self) -> None:
        self.server = clock_database()
        with_clock(self.server)
        self.url = through(shared_pgbouncer(), self.server)
        self.clock = FakeClock()
        set_clock(self.server, self.clock.time)
        if query(self.server, "SELECT to_regclass('mognet.job')") != [(None,)]:
            query(self.server, "TRUNCATE mognet.job, mognet.content, mognet.note")


class TestLaws(Repeatable, OneHolder, Fenced, Waiting, Cancelling):
    """Those laws that might break when the session is another one each time."""

    @pytest.fixture
    def harness(self) -> Harness:
        return PgBouncerHarness()


@pytest.fixture
def direct() -> str:
    return empty_postgres()


@pytest.fixture
def pooled(direct: str) -> str:
    return through(shared_pgbouncer(), direct)


@pytest.fixture
def own(direct: str) -> Iterator[tuple[Server, str]]:
    """A PgBouncer that may be killed. (The folders of pytest are closed to the user postgres.)"""
    with tempfile.TemporaryDirectory(prefix="mognet-pgbouncer-") as folder:
        server, port = pgbouncer_server(Path(folder), direct)
        server.start()
        yield server, through(port, direct)
        server.kill()


async def test_an_app_with_a_worker(pooled: str) -> None:
    await exercise(url=pooled)


async def test_many_share_few_sessions(pooled: str, direct: str) -> None:
    """Of ten apps, each with more connections than the pooler has, no operation sees another's."""
    apps = [make_app(url=f"{pooled}?pool_size=6") for _ in range(10)]
    async with asyncio.timeout(60):
        await asyncio.gather(*(app.connect() for app in apps))
        results = await asyncio.gather(*(app.submit(double, number) for number in range(20) for app in apps))
        await asyncio.gather(*(app.start(burst=True) for app in apps))
        assert sorted([await result for result in results]) == sorted(2 * number for number in range(20) for _ in apps)
        await asyncio.gather(*(app.close() for app in apps))
    sessions = query(direct, "SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres' AND application_name = 'mognet'")
    assert sessions[0][0] in range(1, 5)


async def test_nothing_stays_with_a_session(pooled: str, direct: str) -> None:
    """Neither settings, nor prepared statements, nor locks, nor what is listened to: others would inherit it."""
    await exercise(url=pooled)
    left = """SELECT current_setting('statement_timeout'), current_setting('enable_seqscan'), current_setting('plan_cache_mode'),
        (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels()),
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())"""
    with psycopg.connect(direct) as plain:
        wanted = plain.execute(left.encode()).fetchall()
    connections = [psycopg.connect(pooled, prepare_threshold=None) for _ in range(4)]
    try:  # each in a transaction of its own, so that each has another session
        assert [connection.execute(left.encode()).fetchall() for connection in connections] == [wanted] * 4
    finally:
        for connection in connections:
            connection.close()


async def test_those_who_hear_are_woken_through_it(pooled: str, direct: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who submits through the pooler rings for those who are connected to the server itself."""
    monkeypatch.setattr(engine_module, "LOOK_EVERY", 60.0)
    async with PostgresEngine.from_url(pooled) as deaf, PostgresEngine.from_url(direct) as hears, asyncio.timeout(20):
        async with hears.subscribe("talk") as signals:
            waiting = asyncio.create_task(hears.claim("n", ["q"], 1, lease=60, wait=50))
            await until(lambda: hears._doorbell.hears_bells)
            await deaf.submit([job := make_job()])
            [claim] = await waiting
            assert claim.token.id == job.id
            for body in (b"1", b"x" * 30_000):
                await deaf.publish("talk", body)
                assert await anext(signals) == Signal("talk", body)


async def test_in_session_mode_all_is_heard(direct: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "LOOK_EVERY", 60.0)
    with tempfile.TemporaryDirectory(prefix="mognet-pgbouncer-") as folder:
        server, port = pgbouncer_server(Path(folder), direct, pool_mode="session", default_pool_size="20")
        server.start()
        try:
            url = f"{through(port, direct)}?pooler=0&pool_size=2"
            async with PostgresEngine.from_url(url) as one, PostgresEngine.from_url(url) as two, asyncio.timeout(20):
                waiting = asyncio.create_task(two.claim("n", ["q"], 1, lease=60, wait=50))
                await until(lambda: two._doorbell.hears_bells)
                await one.submit([make_job()])
                assert len(await waiting) == 1
        finally:
            server.kill()


async def test_inside_the_callers_own_transaction(pooled: str) -> None:
    async with working(url=pooled) as app, await psycopg.AsyncConnection.connect(pooled, prepare_threshold=None) as connection:
        kept, gone = app.create_request(double, 1), app.create_request(double, 2)
        await app.submit(gone, connection=connection)
        await connection.rollback()
        result = await app.submit(kept, connection=connection)
        await connection.commit()
        assert await result == 2
        assert await app.result_backend.get(gone.id) is None


async def test_it_is_killed_and_comes_back(own: tuple[Server, str]) -> None:
    server, url = own
    async with working(url=url) as app:
        results = [await app.submit(double, number) for number in range(20)]
        await asyncio.to_thread(server.restart)
        while len(results) < 40:
            try:
                results.append(await app.submit(double, len(results)))
            except ConnectionError:
                await asyncio.sleep(0.05)
        assert [await result for result in results] == [2 * number for number in range(40)]


async def test_a_new_schema(pooled: str, direct: str) -> None:
    """Many bring it in at once through the pooler; locks are held by transactions."""
    engines = [PostgresEngine.from_url(f"{pooled}?schema=through&pool_size=1") for _ in range(6)]
    try:
        await asyncio.gather(*(engine.__aenter__() for engine in engines))
        versions = query(direct, "SELECT version FROM through.version ORDER BY version")
        assert versions == [(number,) for number in range(1, newest(PACKAGE) + 1)]
    finally:
        for engine in engines:
            await engine.__aexit__()
        query(direct, "DROP SCHEMA through CASCADE")


async def test_the_doctor_sees_it(pooled: str) -> None:
    found = {each.subject: each for each in await PostgresCheckup(pooled, "kitchen").examine([])}
    assert (found["pooler"].grade, found["clock"].grade) == ("warning", "ok")
    assert "half second" in found["pooler"].text
