"""The index of metadata on PostgreSQL: its plans, who writes while it comes, and what is left when it goes; and the schema it came with."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
import pytest

from mognet.codec import dumps
from mognet.engines.postgres import labels, search
from mognet.engines.postgres.connecting import Connection, connect
from mognet.engines.postgres.engine import PostgresEngine
from mognet.engines.postgres.migrate import migrate, schema_version
from mognet.engines.postgres.settings import parse_url
from mognet.engines.postgres.statements import qualified
from mognet.engines.postgres.tables import Tables
from mognet.exceptions import ConnectionError
from mognet.labels import label
from mognet.labels import labels as metadata_labels
from mognet.outcomes import failed, merge_metadata, rerun, retry, succeeded, suspend
from mognet.records import Query, Wanted
from mognet.states import ResultState
from mognet.testing.conformance.bench import make_job
from servers.postgres import WAITED_FOR, empty_postgres, query, until


@pytest.fixture
def url() -> str:
    return empty_postgres()


def wants(**values: Any) -> Query:
    return Query(metadata=tuple(Wanted(path, frozenset({label(value)})) for path, value in values.items()))


async def found(engine: PostgresEngine, asked: Query) -> set[UUID]:
    return {record.id async for record in engine.search(asked)}


async def whole(engine: PostgresEngine, *paths: str) -> None:
    while (await engine.reindex()).left:
        pass
    assert await engine.declare(paths) == set(paths)


class Explaining(Tables):
    """Executes statements, and notes their plans."""

    plans: list[str] = []  # noqa: RUF012

    async def all(self, connection: Any, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        cursor = await connection.execute(
            b"EXPLAIN (COSTS OFF) " + qualified(statement, self.schema), {"app": self.app, "watchers": self.watchers, **values}
        )
        self.plans.append("\n".join(row for (row,) in await cursor.fetchall()))
        return await super().all(connection, statement, **values)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("jobs", [0, 3000])
async def test_pages_come_out_of_the_index(url: str, jobs: int, newest_first: bool) -> None:
    """Whether the plan was made for an empty table or a full one: in order, without a sort of all that match."""
    async with PostgresEngine.from_url(url) as engine:
        await engine.declare(["tenant", "user"])
        if jobs:
            await engine.submit([make_job(metadata=dumps({"tenant": n % 3, "user": n})) for n in range(jobs)])
            query(url, "ANALYZE")
        tables = Explaining(*engine._tables)
        tables.plans.clear()
        asked = wants(tenant=1)._replace(newest_first=newest_first)
        page = await engine._run(lambda connection: search.find(tables, connection, asked, None, 50))
        await engine._run(lambda connection: search.find(tables, connection, asked, page.next or (1.0, 1), 50))
        await engine._run(lambda connection: search.count(tables, connection, asked, "state"))
        both = wants(tenant=1, user=1)
        await engine._run(lambda connection: search.find(tables, connection, both, None, 50))
    text = "\n".join(tables.plans)
    for plan in tables.plans[1:4:2]:  # (before each of them: which paths there are)
        lines = [line.strip() for line in plan.splitlines()]
        limit = max(number for number, line in enumerate(lines) if line.endswith("Limit"))
        assert not any("Sort" in line for line in lines[limit:]), plan
        assert any("label_pkey" in line and ("Backward" in line) == newest_first for line in lines[limit:]), plan
    assert "Seq Scan on job" not in text
    assert "Seq Scan on label" not in text
    assert "Seq Scan on content" not in text


@pytest.mark.parametrize("what", ["running", "of a prefix", "of a root"])
async def test_few_jobs_are_looked_up_in_the_index(url: str, what: str) -> None:
    """Those of a family, those whose ids begin alike, or those that run: not all that have the value, though the planner would rather."""
    async with PostgresEngine.from_url(f"{url}?options=-c%20enable_nestloop%3Doff") as engine:
        await engine.declare(["tenant"])
        metadata = dumps({"tenant": 1})
        for _ in range(20):
            await engine.submit([make_job(queue="other", metadata=metadata) for _ in range(1000)])
        top = make_job(metadata=metadata)
        await engine.submit([top, *[make_job(parent=top.id, root=top.id, metadata=metadata) for _ in range(9)]])
        await engine.claim("n", ["q"], 10, lease=60)
        query(url, "ANALYZE")
        asked = {
            "running": wants(tenant=1)._replace(states=frozenset({ResultState.RUNNING})),
            "of a prefix": wants(tenant=1)._replace(id_prefix=top.id.hex[:8]),
            "of a root": wants(tenant=1)._replace(root=top.id),
        }[what]
        tables = Explaining(*engine._tables)
        tables.plans.clear()
        page = await engine._run(lambda connection: search.find(tables, connection, asked, None, 50))
        assert len(page.records) == (1 if what == "of a prefix" else 10)
        counted = await engine._run(lambda connection: search.count(tables, connection, asked, "state"))
        assert counted == {"RUNNING": len(page.records)}
    plans = [plan for plan in tables.plans if "label_pkey" in plan]
    assert len(plans) == 2
    for plan in plans:
        lines = plan.splitlines()
        starts = [number for number, line in enumerate(lines) if "label_pkey" in line]
        assert all("(created = " in lines[number + 1] for number in starts), plan
        assert "job_created" not in plan, plan


@pytest.mark.parametrize(
    "what", ["found", "found by two", "found in a family", "running", "counted", "counted by it", "counted by it of a queue"]
)
async def test_a_path_that_is_given_up_meanwhile(url: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two statements of a read: what is found is the same, though nothing is left in the index."""
    monkeypatch.setattr(search, "PROBE", 3)
    async with PostgresEngine.from_url(url) as engine, PostgresEngine.from_url(url) as other:
        top = make_job()
        await engine.submit([top, *[make_job(parent=top.id, metadata=dumps({"tenant": "a", "user": 1})) for _ in range(5)]])
        await engine.claim("n", ["q"], 5, lease=60)
        asked = {
            "found by two": wants(tenant="a", user=1),
            "found in a family": wants(tenant="a")._replace(parent=top.id),
            "running": wants(tenant="a")._replace(states=frozenset({ResultState.RUNNING})),
        }.get(what, wants(tenant="a"))
        statements, at = 0, 0

        class Meddling(Tables):
            async def all(self, connection: Connection, statement: str, **values: Any) -> list[tuple[Any, ...]]:
                nonlocal statements
                if statements == at:
                    await other.declare([], only=True)
                    while (await other.reindex()).left:
                        pass
                statements += 1
                return await super().all(connection, statement, **values)

        async def read(connection: Connection) -> object:
            tables = Meddling(*engine._tables)
            if "found" in what or what == "running":
                return {record.id for record in (await search.find(tables, connection, asked, None, 50)).records}
            query, by = {"counted": (asked, "state"), "counted by it": (Query(), "metadata:tenant")}.get(
                what, (Query(queue="q"), "metadata:tenant")
            )
            counted = await search.count(tables, connection, query, by)
            return await engine.count(query, by=by) if counted is None else counted

        answers = []
        while statements >= at:
            await other.declare(["tenant", "user"])
            await whole(other, "tenant", "user")
            statements, at = 0, at + 1
            answers.append(await engine._run(read))
        assert len(answers) > 2
        assert answers == [answers[-1]] * len(answers)
        assert answers[-1]


async def test_the_narrowest_condition_is_the_way_in(url: str) -> None:
    async with PostgresEngine.from_url(url) as engine:
        await engine.declare(["tenant", "user"])
        await engine.submit([make_job(metadata=dumps({"tenant": "all", "user": n % 500})) for n in range(1500)])
        numbers = {name: number for number, name in query(url, "SELECT number, name FROM mognet.path")}

        async def way(asked: Query) -> Any:
            plan = await engine._run(lambda connection: search.plan(engine._tables, connection, asked))
            return None if plan.way is None else plan.way[0]

        assert await way(wants(tenant="all", user=7)) == numbers["user"]
        assert await way(wants(user=7, tenant="all")) == numbers["user"]
        assert await way(wants(tenant="nobody", user=7)) == numbers["tenant"]
        assert await way(wants(tenant="all")._replace(states=frozenset({ResultState.RUNNING}))) is None
        assert len(await found(engine, wants(tenant="all", user=7))) == 3


@pytest.mark.parametrize("probe", [3, 1000])
async def test_those_that_run_are_found_whether_they_are_few_or_many(url: str, probe: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many are not looked at one by one: the index of those that are held knows them, and the labels say which to look at."""
    monkeypatch.setattr(search, "PROBE", probe)
    async with PostgresEngine.from_url(url) as engine:
        await engine.declare(["tenant"])
        old = [make_job(metadata=dumps({"tenant": n % 3}), queue=f"q{n % 4}") for n in range(60)]
        await engine.submit(old)
        claims = await engine.claim("n", ["q1", "q2", "q3"], 60, lease=60)
        await engine.submit([make_job(metadata=dumps({"tenant": 1})) for _ in range(5)])  # younger than those that run
        await engine.settle([succeeded(claim.token, b"1") if n % 2 else retry(claim.token, 0.0) for n, claim in enumerate(claims) if n % 3])
        await engine.update(claims[0].token.id, suspend(claims[0].token))
        run = [claim.record for n, claim in enumerate(claims) if n and not n % 3]
        expected = [record.id for record in run if record.metadata == dumps({"tenant": 1})]
        assert len(expected) > 3
        asked = wants(tenant=1)._replace(states=frozenset({ResultState.RUNNING}))
        forwards = [record.id async for record in engine.search(asked)]
        backwards = [record.id async for record in engine.search(asked._replace(newest_first=True))]
        places = {record.id: (record.created, record.place) for record in run}
        assert forwards == backwards[::-1] == sorted(expected, key=places.__getitem__)
        assert await engine.count(asked) == {"RUNNING": len(expected)}
        paged, after = [], None
        while page := await engine._run(lambda connection: search.find(engine._tables, connection, asked, after, 2)):  # noqa: B023
            paged += [record.id for record in page.records]
            after = page.next
            if after is None:
                break
        assert paged == forwards
        tables = Explaining(*engine._tables)
        tables.plans.clear()
        await engine._run(lambda connection: search.find(tables, connection, asked, None, 50))
    assert ("hashed SubPlan" in tables.plans[-1]) == (probe == 3)
    if probe == 3:
        assert "Index Only Scan using job_lease" in tables.plans[-1]


async def test_who_writes_while_a_path_is_declared(url: str) -> None:
    """A submit that nobody sees yet is waited for: else the index would be whole without it."""
    async with PostgresEngine.from_url(url) as engine, await psycopg.AsyncConnection.connect(url) as connection:
        job = make_job(metadata=dumps({"tenant": "a"}))
        assert await engine.submit_on(connection, [job]) == [True]
        declaring = asyncio.create_task(engine.declare(["tenant"]))
        await until(url, WAITED_FOR)
        await connection.commit()
        assert await declaring == frozenset()
        await whole(engine, "tenant")
        assert await found(engine, wants(tenant="a")) == {job.id}


async def test_a_transaction_that_lasts_and_lasts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is not declared over its head, and others write all the same."""
    monkeypatch.setattr(labels, "GATE_TRIES", 2)
    async with PostgresEngine.from_url(url) as engine, await psycopg.AsyncConnection.connect(url) as connection:
        await engine.submit_on(connection, [make_job()])
        with pytest.raises(ConnectionError, match="lock"):
            await engine.declare(["tenant"])
        assert await engine.submit([make_job()]) == [True]


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
@pytest.mark.parametrize("learned", [False, True])
async def test_a_callers_transaction_that_began_before(url: str, level: str, learned: bool) -> None:
    """It knows the path, or is told that it has to begin again: by its own view of the database it could not know."""
    async with PostgresEngine.from_url(url) as engine, await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
        await connection.execute("SELECT 1")
        await engine.declare(["tenant"])
        if learned:
            await engine.submit([make_job(queue="other")])
        job = make_job(metadata=dumps({"tenant": "a"}))
        if level == "READ COMMITTED":
            assert await engine.submit_on(connection, [job]) == [True]
        else:
            with pytest.raises(psycopg.errors.SerializationFailure):
                await engine.submit_on(connection, [job])
            await connection.rollback()
            assert await engine.submit_on(connection, [job]) == [True]
        await connection.commit()
        assert await found(engine, wants(tenant="a")) == {job.id}


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_an_expired_record_in_a_callers_transaction(url: str, kind: str) -> None:
    """A job is born again in its id there too, and the old one's labels are gone."""
    async with PostgresEngine.from_url(url) as engine:
        await engine.declare(["tenant"])
        await engine.submit([old := make_job(metadata=dumps({"tenant": "old"}))])
        [claim] = await engine.claim("n", ["q"], 1, lease=60)
        await engine.settle([succeeded(claim.token, b"1", ttl=0.0)])
        new = make_job(id=old.id, metadata=dumps({"tenant": "new"}))
        if kind == "async":
            async with await psycopg.AsyncConnection.connect(url) as connection:
                assert await engine.submit_on(connection, [new, make_job(parent=new.id)]) == [True, True]
        else:
            with psycopg.connect(url) as plain:
                assert await engine.submit_on(plain, [new]) == [True]
        assert await found(engine, wants(tenant="new")) == {old.id}
        assert query(url, "SELECT count(*) FROM mognet.label") == [(1,)]


@pytest.mark.parametrize("number", [0, 2**15, 2**31, 2**53])
async def test_numbers_of_any_size(url: str, number: int) -> None:
    """However many jobs there were before."""
    async with PostgresEngine.from_url(url) as engine, await psycopg.AsyncConnection.connect(url) as connection:
        query(url, "SELECT setval('mognet.turn', %s)", number + 10)
        await engine.declare(["tenant"])
        jobs = [make_job(metadata=dumps({"tenant": n})) for n in range(3)]
        await engine.submit(jobs)
        [claim, other, _] = await engine.claim("n", ["q"], 3, lease=60)
        await engine.save(claim.token, {"a": b"1"})
        await engine.log({claim.token: [b"line"]}, keep=3)
        await engine.update(jobs[1].id, merge_metadata(dumps({"tenant": "new"})))
        await engine.settle([succeeded(claim.token, b"1", ttl=0.0), retry(other.token, 0.0)])
        assert await engine.submit_on(connection, [jobs[0]]) == [True]
        await connection.commit()
        assert await found(engine, wants(tenant="new")) == {jobs[1].id}
        assert await engine.logs(jobs[0].id) == []
        assert await engine.delete([job.id for job in jobs]) == 3
        for table in ("label", "note", "log"):
            assert query(url, f"SELECT count(*) FROM mognet.{table}") == [(0,)]


async def test_one_index_each_for_apps_of_a_schema(url: str) -> None:
    """One's declaration costs the others nothing, and gives nothing away."""
    async with PostgresEngine.from_url(url, "one") as one, PostgresEngine.from_url(url, "two") as two:
        assert await one.declare(["tenant"]) == {"tenant"}
        await two.submit([make_job(metadata=dumps({"tenant": "a"}))])
        assert query(url, "SELECT count(*) FROM mognet.label") == [(0,)]
        assert two._tables.known.paths == {}
        assert await two.declare(["tenant"]) == frozenset()


async def test_behind_a_pooler(url: str) -> None:
    """All of it works where nothing belongs to a session."""
    async with PostgresEngine.from_url(f"{url}?pooler=1") as one, PostgresEngine.from_url(f"{url}?pooler=1") as two:
        await two.submit([old := make_job(metadata=dumps({"tenant": "a"}))])
        at = (await one.changes(None)).at
        await one.declare(["tenant"])
        await whole(two, "tenant")
        [claim] = await two.claim("n", ["q"], 1, lease=60)
        assert await two.log({claim.token: [b"line"]}, keep=3)
        await two.update(old.id, merge_metadata(dumps({"tenant": "b"})))
        await two.settle([failed(claim.token, b"1")])
        await one.update(old.id, rerun(b"2"), unless=())
        assert await found(one, wants(tenant="b")) == {old.id}
        assert [changed.record.state for changed in (await one.changes(at)).changed] == [ResultState.PENDING]
        assert [line.text for line in await one.logs(old.id)] == [b"line"]


async def test_few_rights(url: str) -> None:
    """Those that the documentation names are enough, once the schema is there."""
    async with PostgresEngine.from_url(url):
        pass
    rights = [
        "CREATE ROLE small LOGIN PASSWORD 'small'",
        "GRANT USAGE ON SCHEMA mognet TO small",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA mognet TO small",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA mognet TO small",
    ]
    query(url, "; ".join(rights))
    try:
        parts = urlsplit(url)
        async with PostgresEngine.from_url(parts._replace(netloc=f"small:small@{parts.netloc.rpartition('@')[2]}").geturl()) as engine:
            at = (await engine.changes(None)).at
            await engine.declare(["tenant"])
            await engine.submit([job := make_job(metadata=dumps({"tenant": "a"}))])
            [claim] = await engine.claim("n", ["q"], 1, lease=60)
            await engine.log({claim.token: [b"line"]}, keep=3)
            await engine.settle([failed(claim.token, b"1")])
            assert [changed.record.id for changed in (await engine.changes(at)).changed] == [job.id]
            await engine.declare([], only=True)
            assert (await engine.reindex()).left == 0
            assert await engine.delete([job.id]) == 1
    finally:
        query(url, "DROP OWNED BY small; DROP ROLE small")


async def test_down_and_up_again(url: str) -> None:
    """The schema of before has every job as it was, and what came with the new one is new again."""
    mine = f"{url}?schema=both_ways"
    try:
        async with PostgresEngine.from_url(mine) as engine:
            await engine.declare(["tenant"])
            await engine.changes(None)
            jobs = [make_job(metadata=dumps({"tenant": n}), queue="abc"[n]) for n in range(3)]
            await engine.submit(jobs)
            [first], [second] = [await engine.claim("n", [queue], 1, lease=60) for queue in "ab"]
            await engine.log({first.token: [b"line"]}, keep=3)
            await engine.settle([succeeded(first.token, b"1"), failed(second.token, b"2")])
            before = await engine.get([job.id for job in jobs])
        connection, _ = await connect(parse_url(mine))
        async with connection:
            await migrate(connection, "both_ways", 1)
            assert await schema_version(connection, "both_ways") == 1
            columns = "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'both_ways' AND column_name = 'changed'"
            assert query(url, columns) == [(0,)]
            assert query(url, "SELECT count(*) FROM both_ways.job") == [(3,)]
            await migrate(connection, "both_ways")
        async with PostgresEngine.from_url(mine) as engine:
            assert await engine.get([job.id for job in jobs]) == before
            assert await engine.declare([]) == frozenset()
            assert await found(engine, wants(tenant=1)) == {jobs[1].id}
            assert await engine.declare(["tenant"]) == frozenset()
            await whole(engine, "tenant")
            assert await found(engine, wants(tenant=1)) == {jobs[1].id}
            assert await engine.logs(jobs[0].id) == []
            assert len(await engine.claim("n", ["c"], 1, lease=60)) == 1
    finally:
        query(url, "DROP SCHEMA IF EXISTS both_ways CASCADE")


async def test_paths_come_and_go_while_others_write(url: str) -> None:
    """At the end the index has exactly what the jobs have."""
    over = asyncio.Event()
    rng = random.Random(4)

    async def write(engine: PostgresEngine) -> None:
        mine: list[UUID] = []
        while not over.is_set():
            jobs = [make_job(metadata=dumps({"a": rng.randrange(5), "b": {"c": rng.randrange(3)}})) for _ in range(rng.randrange(1, 9))]
            await engine.submit(jobs)
            mine += [job.id for job in jobs]
            for id in rng.sample(mine, min(len(mine), 3)):
                await engine.update(id, merge_metadata(dumps({rng.choice("ax"): rng.randrange(5)})))
            await engine.delete([mine.pop(rng.randrange(len(mine)))])

    async def index(engine: PostgresEngine) -> None:
        for _ in range(12):
            await engine.declare(rng.sample(["a", "b.c", "x"], rng.randrange(3)), only=rng.random() < 0.5)
            for _ in range(rng.randrange(4)):
                await engine.reindex(limit=rng.choice([3, 1000]))
        over.set()

    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(PostgresEngine.from_url(url)) for _ in range(4)]
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for engine in engines[:3]:
                group.create_task(write(engine))
            group.create_task(index(engines[3]))
        await engines[3].declare(["a", "b.c"], only=True)
        await whole(engines[0], "a", "b.c")
        records = [record async for record in engines[0].search(Query())]
    numbers = {name: number for number, name in query(url, "SELECT number, name FROM mognet.path")}
    there = {
        (path, bytes(value), created, seq) for path, value, created, seq in query(url, "SELECT path, value, created, seq FROM mognet.label")
    }
    want = [(record, metadata_labels(record.metadata, ["a", "b.c"])) for record in records]
    assert there == {(numbers[path], value, record.created, record.place) for record, values in want for path, value in values.items()}
    assert len(there) > len(records)
