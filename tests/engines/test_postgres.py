"""What is particular to PostgreSQL: plans, schemas, names, poolers, and submits inside the caller's transaction."""

from __future__ import annotations

import asyncio
import itertools
import re
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from mognet import App, Request
from mognet.engines import engine_factory
from mognet.engines.postgres import line
from mognet.engines.postgres.engine import PostgresEngine
from mognet.engines.postgres.settings import parse_url
from mognet.engines.postgres.statements import qualified
from mognet.engines.postgres.tables import Tables
from mognet.engines.postgres.text import from_column, to_column
from mognet.exceptions import ConnectionError, ImproperlyConfigured
from mognet.outcomes import succeeded
from mognet.records import Query
from mognet.testing.conformance.bench import make_job
from servers.postgres import PASSWORD, empty_postgres, query


@pytest.fixture
def url() -> str:
    return empty_postgres()


class Explaining(Tables):
    """Notes the plans of statements instead of executing them."""

    plans: list[str] = []  # noqa: RUF012

    async def all(self, connection: Any, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        cursor = await connection.execute(b"EXPLAIN (COSTS OFF) " + qualified(statement, self.schema), self._with_ours(values))
        self.plans.append("\n".join(row for (row,) in await cursor.fetchall()))
        return []


async def test_hot_statements_do_not_scan(url: str) -> None:
    """Planned while the tables are empty, as a new installation does: that is when planners choose badly."""
    async with PostgresEngine.from_url(url) as engine:
        tables, token = Explaining(*engine._tables), (await _claimed(engine)).token

        async def explain(connection: Any) -> None:
            await line.claim(tables, connection, "n", ["q", "r"], 9, 1.0, None, "h")
            await line.extend(tables, connection, [token], 1.0)
            await line.settle(tables, connection, [succeeded(token, b"1")])
            await tables.all(connection, line.sql.ANYTHING, grace=1.0)
            await tables.all(connection, line.sql.NEXT_DUE, queues=["q"])

        with pytest.raises(ValueError, match="unpack"):
            await engine._run(lambda connection: _both(explain(connection), line.next_due(tables, connection, ["q"], None)))
    text = "\n".join(tables.plans)
    assert "Seq Scan" not in text
    assert "Index Scan using job_line" in tables.plans[0]
    assert "job_id" not in tables.plans[0]
    assert tables.plans[0].count("Tid Scan") == 2
    for plan in tables.plans[1:3]:
        lines = plan.splitlines()
        conditions = [cond for scan, cond in itertools.pairwise(lines) if " on job" in scan and "Index Cond" in cond]
        assert conditions
        assert all("id = ANY" in condition for condition in conditions)


async def _both(first: Any, second: Any) -> None:
    await first
    await second


async def _claimed(engine: PostgresEngine) -> Any:
    await engine.submit([make_job()])
    [claim] = await engine.claim("n", ["q"], 1, lease=60)
    return claim


@pytest.mark.parametrize("text", ["", "plain", "\0", "\ud800x\udfff", "\x1a0000", "\x1a\x1a", "a\0\x1ab"])
def test_any_text_is_kept(text: str) -> None:
    assert from_column(to_column(text)) == text
    to_column(text).encode()
    assert "\0" not in to_column(text)


async def test_nul_and_lone_surrogates_everywhere(url: str) -> None:
    strange = "a\0b\ud800"
    async with PostgresEngine.from_url(url, strange) as engine:
        await engine.submit([make_job(queue=strange, name=strange, label=strange, body=b'"\\u0000"', metadata=b'{"\\u0000":"\\ud800"}')])
        [claim] = await engine.claim(strange, [strange], 1, lease=60)
        record = claim.record
        assert (record.queue, record.name, record.label, record.node, record.metadata) == (*[strange] * 4, b'{"\\u0000":"\\ud800"}')
        await engine.save(claim.token, {strange: b"\0\xff"})
        assert await engine.load(claim.token) == {strange: b"\0\xff"}
        await engine.settle([succeeded(claim.token, b'"\\u0000\\ud800"')])
        assert await engine.value(record.id) == b'"\\u0000\\ud800"'
        assert await engine.count(Query(), by="queue") == {strange: 1}


async def test_a_newer_schema_is_refused(url: str) -> None:
    mine = f"{url}?schema=newer"
    async with PostgresEngine.from_url(mine):
        query(url, "INSERT INTO newer.version (version) VALUES (99)")
    try:
        with pytest.raises(ImproperlyConfigured, match="version 99"):
            async with PostgresEngine.from_url(mine):
                pass
    finally:
        query(url, "DROP SCHEMA newer CASCADE")


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("127.0.0.1:1", 'connection to server at "127.0.0.1", port 1 failed: Connection refused'),
        ("127.0.0.1:1,127.0.0.1:2", 'connection to server at "127.0.0.1", port [12] failed: Connection refused'),
        ("nowhere.invalid", "failed to resolve host 'nowhere.invalid': .*"),
    ],
)
async def test_no_server_is_told_in_one_line(where: str, why: str) -> None:
    with pytest.raises(ConnectionError) as caught:
        await PostgresEngine.from_url(f"postgresql://me:secret@{where}/db").__aenter__()
    shown = re.escape(f"PostgreSQL at postgresql://me:***@{where}/db cannot be reached: ")
    assert re.fullmatch(f"{shown}{why}; see that the server runs and the URL is right, or ask mognet doctor", str(caught.value))


async def test_many_open_a_new_schema_at_once(url: str) -> None:
    engines = [PostgresEngine.from_url(f"{url}?schema=fresh&pool_size=1") for _ in range(8)]
    try:
        await asyncio.gather(*(engine.__aenter__() for engine in engines))
    finally:
        for engine in engines:
            await engine.__aexit__()
        query(url, "DROP SCHEMA fresh CASCADE")


async def test_behind_a_pooler_it_polls(url: str) -> None:
    async with PostgresEngine.from_url(f"{url}?pooler=1") as one, PostgresEngine.from_url(f"{url}?pooler=1") as two:
        waiting = asyncio.create_task(two.claim("n", ["q"], 1, lease=60, wait=20))
        await asyncio.sleep(0.05)
        await one.submit([job := make_job()])
        [claim] = await waiting
        assert claim.token.id == job.id
        await two.settle([succeeded(claim.token, b"1")])
        assert await one.value(job.id) == b"1"


@pytest.mark.parametrize(
    "bad",
    [
        "postgresql://h/d?schema=Bad;x",
        "postgresql://h/d?pooler=maybe",
        "postgresql://h/d?pool_size=0",
        "postgresql://u:p%@h/d",
        "postgresql://h/d?nonsense=1",
    ],
)
def test_wrong_urls_are_refused_at_once(bad: str) -> None:
    with pytest.raises(ImproperlyConfigured):
        engine_factory(bad, "app")


def test_parts_of_a_url() -> None:
    settings = parse_url(f"postgres://u:{PASSWORD}@a:1,b:2/d?schema=x&pool_size=7&sslmode=require")
    assert settings == (f"postgresql://u:{PASSWORD}@a:1,b:2/d?sslmode=require", "x", None, 7)
    assert PASSWORD not in settings.shown


async def test_wrong_password_and_database(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="no such database") as caught:
        async with PostgresEngine.from_url(url.replace("/postgres", "/nowhere")):
            pass
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_submit_in_the_callers_transaction(url: str, kind: str) -> None:
    """Commit: it runs. Roll back: it never was."""
    app = App("within", url=url)
    async with app:
        kept, gone = Request[Any](name="x"), Request[Any](name="x")
        if kind == "async":
            async with await psycopg.AsyncConnection.connect(url) as connection:
                result = await app.submit(kept, connection=connection)
                assert (await app.submit(kept, connection=connection)).id == kept.id
                assert await app.result_backend.get(kept.id) is None
                await connection.commit()
                await app.submit(gone, connection=connection)
                await connection.rollback()
        else:
            with psycopg.connect(url) as plain:
                result = await app.submit(kept, connection=plain)
                plain.commit()
                await app.submit(gone, connection=plain)
                plain.rollback()
        await result.refresh()
        assert result.state == "PENDING"
        assert await app.result_backend.get(gone.id) is None


async def test_engines_without_transactions_say_so() -> None:
    async with App("within", url=f"memory://{uuid4().hex}") as app:
        with pytest.raises(ImproperlyConfigured, match="transaction"):
            await app.submit(Request[Any](name="x"), connection=object())
