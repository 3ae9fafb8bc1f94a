"""Reads of several statements: each shows the file as it was at one moment, and none keeps the log from being copied."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from mognet.engines.sql import labels, records, search, submitting
from mognet.engines.sql.joining import NoEars
from mognet.engines.sql.session import Operation, Session
from mognet.engines.sql.sqlite import SQLiteEngine
from mognet.labels import has_metadata, label
from mognet.outcomes import merge_metadata, suspend
from mognet.records import Job, Query, Wanted
from mognet.states import ResultState

ACME = (Wanted("tenant", frozenset({label("acme")})),)


def make_job(tenant: str = "acme") -> Job:
    return Job(uuid4(), "work", "q", b"{}", b'{"tenant":"%b"}' % tenant.encode())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


class Meddler:
    """Another process that does something just before one of the statements of a read, always at the same time by its clock."""

    def __init__(self, path: Path, *operations: Operation[object]) -> None:
        self.path, self.operations, self.now = path, operations, time.time()

    def meddle(self) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            for operation in self.operations:
                connection.execute("BEGIN IMMEDIATE")
                operation(Session(connection, 1, lambda: self.now, NoEars(), now=self.now))()
                connection.execute("COMMIT")

    async def answers(self, engine: SQLiteEngine, read: Callable[[], Awaitable[object]]) -> tuple[list[object], object]:
        """What a read answers with this before its first statement, its second …, each time on the same file; and afterwards."""
        await read()
        assert engine._reader is not None
        connection, found = engine._reader._session.connection, []
        with closing(sqlite3.connect(":memory:")) as kept:
            with closing(sqlite3.connect(self.path)) as now:
                now.backup(kept)
            before = 0
            while True:
                left = before

                def look(statement: str) -> None:
                    nonlocal left
                    left -= statement != "BEGIN"
                    if left == -1:
                        self.meddle()

                connection.set_trace_callback(look)
                found.append(await read())
                connection.set_trace_callback(None)
                if left >= 0:  # it has no more statements
                    return found[:-1], await self.afterwards(read)
                before += 1
                with closing(sqlite3.connect(self.path)) as now:
                    kept.backup(now)

    async def afterwards(self, read: Callable[[], Awaitable[object]]) -> object:
        self.meddle()
        return await read()


async def test_a_search_by_a_path_that_is_given_up_meanwhile(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        await engine.declare({"tenant"})
        jobs = [make_job() for _ in range(5)]
        await engine.submit([*jobs, make_job("other")])

        async def found() -> list[UUID]:
            return [record.id async for record in engine.search(Query(metadata=ACME))]

        meddler = Meddler(path, labels.declare([], only=True), labels.reindex(100))
        answers, after = await meddler.answers(engine, found)
        assert len(answers) > 3
        assert [*answers, after] == [[job.id for job in jobs]] * (len(answers) + 1)


@pytest.mark.parametrize("by", ["metadata:tenant", "queue"])
async def test_a_count_while_jobs_come_and_go(path: Path, by: str) -> None:
    async with SQLiteEngine(path) as engine:
        await engine.declare({"tenant"})
        jobs = [make_job() for _ in range(5)]
        await engine.submit(jobs)

        async def count() -> dict[str, int]:
            return await engine.count(Query(), by=by)

        before = await count()
        more = [make_job("other") for _ in range(3)]
        meddler = Meddler(path, records.delete([job.id for job in jobs[:2]], ()), submitting.submit(more, True))
        answers, after = await meddler.answers(engine, count)
        assert sum(before.values()) == 5
        assert sum(dict(after).values()) == 6  # type: ignore[call-overload]
        assert answers == [after, *[before] * (len(answers) - 1)]


async def test_changes_while_one_is_changed_again(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        start = (await engine.changes(None)).at
        jobs = [make_job() for _ in range(5)]
        await engine.submit(jobs)

        async def read() -> tuple[int, str]:
            changes = await engine.changes(start)
            return len(changes.changed), changes.at

        before = await read()
        meddler = Meddler(path, records.update(jobs[2].id, merge_metadata(b'{"a":1}'), unless=()))
        answers, after = await meddler.answers(engine, read)
        assert answers == [after, *[before] * (len(answers) - 1)]
        assert after != before


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("written", [True, False])
async def test_jobs_that_are_others_when_their_page_comes(
    path: Path, newest_first: bool, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are collected for several pages: what has another value by then, or is another job in the same row, is not found."""
    monkeypatch.setattr(search, "CHUNK", 3)
    async with SQLiteEngine(path) as engine:
        await engine.declare({"tenant"})
        jobs = [make_job() for _ in range(10)]
        await engine.submit(jobs)
        if written:
            await engine.sweep()
        pages = engine.search(Query(metadata=ACME, newest_first=newest_first))
        found = [await anext(pages)]
        await engine.update(jobs[4].id, merge_metadata(b'{"tenant":"other"}'))
        if not newest_first:
            await engine.delete([jobs[9].id])
            await engine.submit([make_job("other")])
        found += [record async for record in pages]
        assert [record.metadata for record in found] == [b'{"tenant":"acme"}'] * len(found)
        assert len(found) == (9 if newest_first else 8)


async def test_a_search_that_rests_does_not_keep_the_log_from_being_copied(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "CHUNK", 10)
    async with SQLiteEngine(path) as engine:
        await engine.submit([make_job() for _ in range(30)])
        found = 0
        async for _ in engine.search(Query()):
            found += 1
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        assert found == 30


async def test_a_read_that_fails_leaves_nothing_open(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        await engine.submit([make_job()])
        [record] = [record async for record in engine.search(Query())]
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("UPDATE job SET state = 99")
            with pytest.raises(IndexError):
                assert [record async for record in engine.search(Query())]
            other.execute("UPDATE job SET state = 0")
            assert [record async for record in engine.search(Query())] == [record]
            assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


# --- running jobs by an indexed key


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("chunk", [3, 500])
@pytest.mark.parametrize("tail", [0, 20])
@pytest.mark.parametrize(
    ("tenants", "way"),
    [
        (["few"], "label"),  # of a label that few jobs have, running or not
        (["many"], "open"),  # of one that so many have that those that run are looked at
        (["many", "few"], "open"),
        (["none"], "label"),
    ],
)
async def test_running_jobs_of_a_label(
    path: Path, monkeypatch: pytest.MonkeyPatch, tenants: list[str], way: str, chunk: int, newest_first: bool, tail: int
) -> None:
    """The same are found, in their order, whichever index is gone through, page by page, for as many as are asked for."""
    monkeypatch.setattr(search, "CHUNK", chunk)
    async with SQLiteEngine(path) as engine, SQLiteEngine(path, "another") as other:
        await engine.declare({"tenant"})
        await other.declare({"tenant"})
        jobs = [make_job("few" if number % 5 == 0 else "many") for number in range(150)]
        await engine.submit(jobs)
        assert engine._writer is not None
        await engine._writer.put(labels.catch_up(1, len(jobs) - tail))
        await other.submit(jobs)
        await other.claim("node", ["q"], 20, lease=60.0)
        claims = await engine.claim("node", ["q"], 20, lease=60.0, ids={job.id for job in jobs[::7]})
        await engine.update(jobs[35].id, suspend(next(claim.token for claim in claims if claim.token.id == jobs[35].id)))
        wanted = (Wanted("tenant", frozenset({label(tenant) for tenant in tenants})),)
        held = frozenset({ResultState.RUNNING, ResultState.SUSPENDED})
        running = [record async for record in engine.search(Query(states=held, newest_first=newest_first))]
        assert len(running) == 20
        alone = frozenset({ResultState.RUNNING})
        for states in (alone, held):
            query = Query(states=states, metadata=wanted, newest_first=newest_first)
            expected = [record.id for record in running if record.state in states and has_metadata(record.metadata, wanted)]
            assert engine._reader is not None
            assert states != alone or search.Plan(engine._reader._session, query).way == way
            assert [record.id async for record in engine.search(query)] == expected
            assert [record.id async for record in engine.search(query._replace(limit=2))] == expected[:2]
            assert sum((await engine.count(query)).values()) == len(expected)
            if len(expected) > 2:
                after = next(record for record in running if record.id == expected[1])
                assert [record.id async for record in engine.search(query._replace(after=after.stand))] == expected[2:]
