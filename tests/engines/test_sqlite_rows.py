"""What stands in the file: few pages for a job, bodies as long as they are needed, rows in order of creation."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from mognet.engines.sql import session, writer
from mognet.engines.sql.connection import PAGE
from mognet.engines.sql.sqlite import SQLiteEngine
from mognet.outcomes import Outcome, failed, invalid, merge_metadata, retry, revoke, revoked, set_ttl, succeeded
from mognet.records import Job, Query, Token

LARGE = b'"' + b"x" * 5000 + b'"'


def make_job(**fields: object) -> Job:
    return Job(**{"id": uuid4(), "name": "work", "queue": "q", "body": b"{}", **fields})  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


async def test_a_submit_writes_few_pages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LOG_PAGES", 1_000_000)
    monkeypatch.setattr(writer, "MANY_COMMITS", 1_000_000)
    async with SQLiteEngine(path) as engine:
        log = path.with_name("jobs.db-wal")
        await engine.submit([make_job() for _ in range(100)])
        before = log.stat().st_size
        for _ in range(100):
            await engine.submit([make_job(body=b"x" * 300)])
        assert (log.stat().st_size - before) / (PAGE + 24) / 100 < 4.5
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA page_size").fetchone() == (PAGE,)


def stored(path: Path, id: UUID) -> tuple[bytes | None, bytes | None]:
    """The body of a job, and its value."""
    with closing(sqlite3.connect(path)) as connection:
        seq, body, value = connection.execute("SELECT seq, body, result FROM job WHERE id = ?", (id.bytes,)).fetchone()
        content = dict(connection.execute("SELECT key, data FROM content").fetchall())
    return body or content.get(2 * seq), value or content.get(2 * seq + 1)


@pytest.mark.parametrize("body", [b'{"v":1}', LARGE], ids=["small", "large"])
@pytest.mark.parametrize("value", [b"1", LARGE], ids=["small", "large"])
async def test_only_success_drops_the_body(path: Path, body: bytes, value: bytes) -> None:
    async with SQLiteEngine(path) as engine:
        jobs = [make_job(body=body) for _ in range(4)]
        await engine.submit(jobs)
        ends: list[Callable[[Token, bytes], Outcome]] = [succeeded, failed, invalid, revoked]
        claims = await engine.claim("node", ["q"], 4, lease=10.0)
        await engine.settle([end(claim.token, value) for end, claim in zip(ends, claims, strict=True)])
        assert [stored(path, claim.token.id) for claim in claims] == [(None, value), *[(body, value)] * 3]
        parent, child, pending = make_job(), make_job(body=body), make_job(body=body)
        await engine.update(parent.id, revoke())
        assert await engine.submit([child._replace(parent=parent.id), pending]) == [False, True]
        await engine.update(pending.id, revoke())
        assert stored(path, child.id) == stored(path, pending.id) == (body, None)
        await engine.delete([child.id, pending.id, *(job.id for job in jobs)])
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM content").fetchone() == (0,)


async def test_a_settled_record_is_as_it_is_stored(path: Path) -> None:
    """Whatever was changed since the claim, by whomever, and whether it was claimed here."""
    async with SQLiteEngine(path) as engine, SQLiteEngine(path) as other:
        await engine.submit([make_job() for _ in range(10)])
        claims = await engine.claim("node", ["q"], 10, lease=10.0)
        await other.update(claims[1].token.id, merge_metadata(b'{"a":1}'))
        await other.update(claims[2].token.id, set_ttl(5.0))
        outcomes = [succeeded(claim.token, b"1", ttl=9.0, value_ttl=4.0) for claim in claims[:6]]
        outcomes += [retry(claim.token, 3.0) for claim in claims[6:8]]
        settled = [*await engine.settle(outcomes), *await other.settle([failed(claim.token, b"2") for claim in claims[8:]])]
        assert settled == await other.get([claim.token.id for claim in claims])
        assert engine._writer is not None
        assert set(engine._writer._session.claimed) == {claim.token.holder for claim in claims[8:]}


async def test_claims_that_are_never_settled_are_forgotten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MOST_CLAIMED", 20)
    async with SQLiteEngine(path) as engine:
        await engine.submit([make_job() for _ in range(100)])
        claims = [claim for _ in range(10) for claim in await engine.claim("node", ["q"], 10, lease=10.0)]
        assert engine._writer is not None
        assert len(engine._writer._session.claimed) <= 20
        settled = await engine.settle([succeeded(claim.token, b"1") for claim in claims])
        assert settled == await engine.get([claim.token.id for claim in claims])


async def test_a_clock_that_is_set_back(path: Path) -> None:
    """The order of creation stays, and moments are found by it; due is by the clock."""
    now = 1000.0
    async with SQLiteEngine(path, clock=lambda: now) as engine, SQLiteEngine(path, "another", clock=lambda: now) as another:
        jobs = []
        for now in (1000.0, 1010.0, 990.0, 1005.0, 1020.0):  # noqa: B007 - the clock tells it
            jobs.append(make_job())
            await engine.submit([jobs[-1]])
            await another.submit([make_job()])
        records = [record async for record in engine.search(Query())]
        assert [record.id for record in records] == [job.id for job in jobs]
        assert [record.created for record in records] == [1000.0, 1010.0, 1010.0, 1010.0, 1020.0]
        assert [record.due for record in records] == [1000.0, 1010.0, 990.0, 1005.0, 1020.0]
        for after in (0.0, 999.0, 1000.0, 1005.0, 1010.0, 1020.0):
            for before in (999.0, 1000.5, 1010.0, 1015.0, 2000.0):
                expected = [record.id for record in records if after < record.created < before]
                query = Query(created_after=after, created_before=before)
                assert [record.id async for record in engine.search(query)] == expected
                assert (await engine.count(query)).get("PENDING", 0) == len(expected)


async def test_unfinished_jobs_in_pages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order of creation, wherever they are, from collection to collection."""
    monkeypatch.setattr("mognet.engines.sql.search.COLLECTED", 7)
    monkeypatch.setattr("mognet.engines.sql.search.CHUNK", 3)
    async with SQLiteEngine(path) as engine:
        jobs = [make_job(priority=number % 10) for number in range(40)]
        for start in range(0, 40, 10):
            await engine.submit(jobs[start : start + 10], enqueue=start != 20)
        claims = await engine.claim("node", ["q"], 8, lease=10.0)
        await engine.settle([succeeded(claim.token, b"1") for claim in claims[:4]])
        done, running = {claim.token.id for claim in claims[:4]}, {claim.token.id for claim in claims[4:]}
        records = {record.id: record async for record in engine.search(Query())}
        for newest_first in (False, True):
            order = [job.id for job in jobs][:: -1 if newest_first else 1]
            states = frozenset(records[job.id].state for job in jobs if job.id not in done)
            query = Query(states=states, newest_first=newest_first)
            assert [record.id async for record in engine.search(query)] == [id for id in order if id not in done]
            lined = [id for id in order if id not in done | running | {job.id for job in jobs[20:30]}]
            assert [record.id async for record in engine.search(Query(in_line=True, newest_first=newest_first))] == lined
            assert [record.id async for record in engine.search(Query(in_line=True, newest_first=newest_first, limit=8))] == lined[:8]
        assert await engine.count(Query(in_line=True)) == {"PENDING": len(lined)}
        assert await engine.count(Query(states=states)) == {"PENDING": 32, "RUNNING": 4}
