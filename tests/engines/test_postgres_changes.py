"""What has changed, on PostgreSQL: transactions become visible in any order, and their numbers may be those of another server."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import psycopg
import pytest

from mognet.engine import CHANGED
from mognet.engines.postgres import changes, labels
from mognet.engines.postgres.changes import Place, Snapshot
from mognet.engines.postgres.engine import PostgresEngine
from mognet.engines.postgres.statements import qualified
from mognet.engines.postgres.tables import Tables
from mognet.outcomes import merge_metadata, succeeded
from mognet.records import Query
from mognet.testing.conformance.bench import make_job
from servers.postgres import WAITED_FOR, empty_postgres, own_postgres, query, until


@pytest.fixture
def url() -> str:
    return empty_postgres()


class Reader:
    """Reads on and on."""

    def __init__(self, engine: PostgresEngine, at: str) -> None:
        self.engine = engine
        self.at = at

    @classmethod
    async def begin(cls, engine: PostgresEngine) -> Reader:
        answer = await engine.changes(None)
        assert not answer.lost
        return cls(engine, answer.at)

    async def page(self, limit: int = 1000) -> tuple[list[UUID], bool]:
        answer = await self.engine.changes(self.at, limit=limit)
        assert not answer.lost
        self.at = answer.at
        return [changed.record.id for changed in answer.changed], answer.more


async def test_who_commits_later_is_told_later(url: str) -> None:
    """Its number is smaller than that of what was told already."""
    async with PostgresEngine.from_url(url) as engine, await psycopg.AsyncConnection.connect(url) as slow:
        reader = await Reader.begin(engine)
        await engine.submit_on(slow, [late := make_job()])
        await engine.submit([early := make_job()])
        assert await reader.page() == ([early.id], False)
        await engine.submit([next := make_job()])
        await slow.commit()
        assert await reader.page() == ([late.id, next.id], False)
        assert await reader.page() == ([], False)


async def test_pages_are_of_one_moment(url: str) -> None:
    """What changes while somebody turns pages comes behind them, and so does who was under way when they were begun."""
    async with PostgresEngine.from_url(url) as engine, await psycopg.AsyncConnection.connect(url) as slow:
        reader = await Reader.begin(engine)
        ids = []
        for _ in range(2):
            await engine.submit([job := make_job()])
            ids.append(job.id)
        await engine.submit_on(slow, [late := make_job()])
        for _ in range(2):
            await engine.submit([job := make_job()])
            ids.append(job.id)
        assert await reader.page(1) == (ids[:1], True)
        await slow.commit()
        await engine.update(ids[0], merge_metadata(b'{"a":1}'))
        await engine.update(ids[2], merge_metadata(b'{"a":1}'))
        assert await reader.page(1) == (ids[1:2], True)
        assert await reader.page(1) == (ids[3:], True)
        assert await reader.page(5) == ([], True)
        assert await reader.page(5) == ([late.id, ids[0], ids[2]], False)
        assert await reader.page(5) == ([], False)


async def test_one_transaction_in_pages(url: str) -> None:
    """A batch has one number, and is told in the order of arrival all the same; also if it was under way."""
    async with PostgresEngine.from_url(url) as engine, await psycopg.AsyncConnection.connect(url) as slow:
        reader = await Reader.begin(engine)
        batch = [make_job() for _ in range(5)]
        await engine.submit_on(slow, batch)
        await engine.submit([make_job()])
        assert len((await reader.page())[0]) == 1
        await slow.commit()
        told = []
        while True:
            ids, more = await reader.page(2)
            told += ids
            if not more:
                break
        assert told == [job.id for job in batch]


async def test_numbers_of_another_server(url: str) -> None:
    """After a restore from a dump, notes may have numbers that are yet to come: they are not told again and again."""
    async with PostgresEngine.from_url(url) as engine:
        reader = await Reader.begin(engine)
        old, new = make_job(), make_job()
        await engine.submit([old])
        query(url, "UPDATE mognet.job SET changed = '4611686018427387904'")
        assert await reader.page() == ([], False)
        await engine.submit([new])
        assert await reader.page() == ([new.id], False)
        assert await reader.page() == ([], False)
        await engine.update(old.id, merge_metadata(b'{"a":1}'))
        assert await reader.page() == ([old.id], False)
        # Whoever has read there does not know what was changed here, since its numbers are smaller.
        place = Place.read(reader.at)
        answer = await engine.changes(str(place._replace(told=Snapshot(2**59))))
        assert (answer.lost, answer.changed) == (True, [])
        assert not (await engine.changes(answer.at)).lost
        query(url, "UPDATE mognet.app SET noted_from = '4611686018427387904'")
        assert (await engine.changes(answer.at)).lost
        reader = await Reader.begin(engine)
        await engine.update(old.id, merge_metadata(b'{"a":2}'))
        assert await reader.page() == ([old.id], False)


async def test_numbers_are_given_again_after_a_crash() -> None:
    """Those of transactions that had come to nothing: the server remembers them no better than what it had not written to disk."""
    with own_postgres(wal_writer_delay="10s") as (server, url):
        async with PostgresEngine.from_url(url) as engine:
            await engine.submit([one := make_job(), two := make_job(), three := make_job()])
            from_now = await Reader.begin(engine)
            await engine.update(one.id, merge_metadata(b'{"a":1}'))
            turning = await Reader.begin(engine)
            await engine.update(two.id, merge_metadata(b'{"a":1}'))
            await engine.update(three.id, merge_metadata(b'{"a":1}'))
            come_to_nothing(url, 3)
            readers = [from_now, await Reader.begin(engine), turning]
            assert await from_now.page() == ([one.id, two.id, three.id], False)
            assert await turning.page(1) == ([two.id], True)
            server.kill()
        server.start()
        async with PostgresEngine.from_url(url) as engine:
            given_before = query(url, "SELECT max(changed::text::int8) FROM mognet.job")[0][0] + 3
            later = [make_job() for _ in range(6)]
            for job in later:
                await engine.submit([job])
            numbers = [row[0] for row in query(url, "SELECT changed::text::int8 FROM mognet.job ORDER BY changed DESC LIMIT 6")]
            assert min(numbers) <= given_before < max(numbers)
            for reader, before in zip(readers, [[], [], [three.id]], strict=True):
                reader.engine = engine
                told, more = await reader.page()
                while more:
                    ids, more = await reader.page()
                    told += ids
                assert told == [*before, *(job.id for job in later)]


def come_to_nothing(url: str, times: int) -> None:
    """Transactions that have a number, and are undone."""
    with psycopg.connect(url) as connection:
        for _ in range(times):
            connection.execute("SELECT pg_current_xact_id()")
            connection.rollback()


async def test_begins_when_all_who_write_know(url: str) -> None:
    """A transaction that took no note is waited for, so that all that is visible later was noted."""
    async with PostgresEngine.from_url(url) as engine, await psycopg.AsyncConnection.connect(url) as slow:
        await engine.submit_on(slow, [make_job()])
        beginning = asyncio.create_task(engine.changes(None))
        await until(url, WAITED_FOR)
        await slow.commit()
        answer = await beginning
        assert not answer.lost
        assert len([record async for record in engine.search(Query())]) == 1
        await engine.submit([job := make_job()])
        assert [changed.record.id for changed in (await engine.changes(answer.at)).changed] == [job.id]


async def test_says_so_if_somebody_does_not_know(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller's transaction that lasts and lasts keeps nobody from watching."""
    monkeypatch.setattr(labels, "GATE_TRIES", 2)
    async with PostgresEngine.from_url(url) as engine, await psycopg.AsyncConnection.connect(url) as slow:
        await engine.submit_on(slow, [make_job()])
        first = await engine.changes(None)
        assert first.lost
        await engine.submit([job := make_job()])
        assert [changed.record.id for changed in (await engine.changes(first.at)).changed] == [job.id]


async def test_nobody_reads(url: str) -> None:
    """Then there are no notes and no rings, and those of a reader who has gone fade."""
    async with PostgresEngine.from_url(url) as engine:
        await engine.submit([job := make_job()])
        [claim] = await engine.claim("n", ["q"], 1, lease=60)
        await engine.update(job.id, merge_metadata(b'{"a":1}'))
        assert query(url, "SELECT changed FROM mognet.job") == [(None,)]
        reader = await Reader.begin(engine)
        await engine.update(job.id, merge_metadata(b'{"a":2}'))
        assert query(url, "SELECT changed FROM mognet.job") != [(None,)]
        query(url, "UPDATE mognet.app SET noted_until = 0")
        await engine.settle([succeeded(claim.token, b"1")])
        assert query(url, "SELECT changed FROM mognet.job") == [(None,)]
        assert (await engine.changes(reader.at)).lost


async def test_notes_are_prolonged(url: str) -> None:
    """About once an hour, by whoever reads, but not while a caller's transaction keeps the row: that is not waited for."""
    async with PostgresEngine.from_url(url) as engine, await psycopg.AsyncConnection.connect(url) as slow:
        reader = await Reader.begin(engine)
        before = query(url, "SELECT noted_until, xmin FROM mognet.app WHERE name = 'app'")
        await reader.page()
        assert query(url, "SELECT noted_until, xmin FROM mognet.app WHERE name = 'app'") == before
        query(url, "UPDATE mognet.app SET noted_until = noted_until - 4000")
        before = query(url, "SELECT noted_until, xmin FROM mognet.app WHERE name = 'app'")
        await slow.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await engine.submit_on(slow, [make_job()])
        await reader.page()
        assert query(url, "SELECT noted_until, xmin FROM mognet.app WHERE name = 'app'") == before
        await slow.commit()
        await reader.page()
        assert query(url, "SELECT noted_until > %s::float8 + 3900 FROM mognet.app WHERE name = 'app'", before[0][0]) == [(True,)]


async def test_reads_what_is_new_only(url: str) -> None:
    """By the index of notes, also with transactions that are still open, and not by one of the others."""
    plans: list[str] = []

    class Explaining(Tables):
        async def all(self, connection: Any, statement: str, **values: Any) -> list[tuple[Any, ...]]:
            given = {"app": self.app, "watchers": self.watchers, **values}
            cursor = await connection.execute(b"EXPLAIN (COSTS OFF) " + qualified(statement, self.schema), given)
            plans.append("\n".join(row for (row,) in await cursor.fetchall()))
            return await super().all(connection, statement, **values)

    async with PostgresEngine.from_url(url) as engine, await psycopg.AsyncConnection.connect(url) as slow:
        reader = await Reader.begin(engine)
        await engine.submit_on(slow, [make_job()])
        await engine.submit([make_job() for _ in range(3000)])
        await reader.page()
        query(url, "ANALYZE")
        tables = Explaining(*engine._tables)
        for asked in (Query(), Query(under=make_job().id)):
            await engine._run(lambda connection, asked=asked: changes.read(tables, connection, reader.at, asked, 1000))  # type: ignore[misc]
    for plan in plans:
        scans = [line for line in plan.splitlines() if " on job" in line]
        assert sum("job_changed" in line for line in scans) == 2, plan
        assert not any("Seq Scan" in line for line in scans), plan


async def test_rings_at_the_callers_commit(url: str) -> None:
    async with PostgresEngine.from_url(url) as one, PostgresEngine.from_url(url) as two, await psycopg.AsyncConnection.connect(url) as own:
        await Reader.begin(one)
        async with one.subscribe(CHANGED) as signals:
            await two.submit_on(own, [make_job()])
            await own.commit()
            async with asyncio.timeout(20):
                assert (await anext(signals)).body == b""


def test_a_snapshot_in_few_words() -> None:
    """It never shows more than it did, however many transactions are open."""
    text = f"10:5000:{','.join(str(number) for number in range(10, 5000, 7))}"
    assert Snapshot.taken(text).shows(4999)
    snapshot = Snapshot.taken(text).sure
    assert len(snapshot.open) == changes.OPEN
    assert not any(snapshot.shows(number) for number in range(10, 5000, 7))
    assert snapshot.shows(9)
    assert snapshot.shows(11)
    place = Place(3, snapshot, snapshot, 77, 88)
    assert Place.read(str(place)) == place
    assert len(str(Place(2**59, *[Snapshot(2**59, tuple(2**59 - n for n in range(changes.OPEN)))] * 2, 2**59, 2**59))) < 2500
    few = Snapshot.taken("10:12:")
    assert (few, Place.read(str(Place(1, few)))) == (Snapshot(12), Place(1, few))


def test_what_two_snapshots_show() -> None:
    """Neither what one of them does not, nor is it cut by transactions that came after it."""
    early, late = Snapshot(100, (90,)), Snapshot(5000, tuple(range(95, 4000, 7)))
    assert early.also(late) == late.also(early) == Snapshot(100, (90, 95))
    assert not early.also(Snapshot(5000, tuple(range(1000, 4000, 7)))).cut
    assert Snapshot(100, (90,)).also(Snapshot(80, (70,))) == Snapshot(80, (70,))
    many = Snapshot.taken(f"10:5000:{','.join(str(number) for number in range(10, 5000, 7))}")
    assert many.also(Snapshot(6000, (11,))).sure == Snapshot(many.open[-2], (10, 11, *many.open[1:-2]))


async def test_many_open_transactions_hold_nothing_up(url: str) -> None:
    """What is visible is told, also if it came behind more of them than a place names; then perhaps twice."""
    async with PostgresEngine.from_url(url) as engine, AsyncExitStack() as stack:
        reader = await Reader.begin(engine)
        for _ in range(changes.OPEN + 3):
            other = await stack.enter_async_context(await psycopg.AsyncConnection.connect(url))
            await other.execute("SELECT pg_current_xact_id()")
        jobs = [make_job() for _ in range(5)]
        for job in jobs:
            await engine.submit([job])
        told: list[UUID] = []
        more = True
        while more:
            page, more = await reader.page(limit=2)
            told += page
        assert told == [job.id for job in jobs]
        assert set((await reader.page())[0]) <= set(told)
    # When they have ended, nothing comes again.
    async with PostgresEngine.from_url(url) as engine:
        reader.engine = engine
        await reader.page()
        assert await reader.page() == ([], False)
