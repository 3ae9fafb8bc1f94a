"""Labels are written after the jobs, for many together: what is found does not depend on when, by whom, or whether at all."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from mognet.engine import Engine
from mognet.engines.memory import MemoryEngine
from mognet.engines.sql import labels, pace, search, writer
from mognet.engines.sql import statements as sql
from mognet.engines.sql.checkup import SQLiteCheckup
from mognet.engines.sql.connection import open_file
from mognet.engines.sql.joining import NoEars
from mognet.engines.sql.session import Operation, Session
from mognet.engines.sql.sqlite import SQLiteEngine
from mognet.labels import has_metadata, label
from mognet.labels import labels as metadata_labels
from mognet.outcomes import failed, rerun, succeeded
from mognet.outcomes import merge_metadata as put_metadata
from mognet.records import Job, Query, Wanted
from mognet.states import ResultState


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No disk is too slow for these tests, and none has to be looked for."""
    for name in ("QUICK", "SLOW", "VERY_SLOW"):
        monkeypatch.setattr(pace, name, 10.0)
    monkeypatch.setattr("mognet.engines.sql.desks.LOOK_AT_FILE", 60.0)


def make_job(metadata: bytes = b'{"a":1}', **fields: object) -> Job:
    return Job(uuid4(), "work", "q", b"{}", metadata)._replace(**fields)  # type: ignore[arg-type]


def wanted(path: str, *values: object) -> Wanted:
    return Wanted(path, frozenset(label(value) for value in values))


async def flush(engine: SQLiteEngine, most: int = 1_000_000) -> None:
    """Write the labels of so many jobs of the tail."""
    assert engine._writer is not None
    await engine._writer.put(labels.catch_up(1, most))


async def submit_here(engine: SQLiteEngine, job: Job) -> None:
    """Have a job stored at once, as soon as the writer's thread has done what it was woken for before."""
    assert engine._writer is not None
    engine._writer._pace.seen_in_thread(0.0001)
    async with asyncio.timeout(10.0):
        while not engine.submit_here(job):  # noqa: ASYNC110 - nothing tells when it rests
            await asyncio.sleep(0)


async def found(engine: Engine, query: Query) -> list[UUID]:
    return [record.id async for record in engine.search(query)]


def look(path: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement, values).fetchall()


def written(path: Path) -> int:
    """How many labels there are."""
    [(number,)] = look(path, "SELECT count(*) FROM label")
    assert isinstance(number, int)
    return number


def check_file(path: Path) -> None:
    """The labels of whole paths are those of the jobs up to the row that is said, and no others; none is of a job behind it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")  # one moment of the file: a writer's thread may be writing labels
        [(indexed,)] = connection.execute("SELECT indexed FROM app WHERE app = 1")
        jobs = connection.execute("SELECT seq, metadata FROM job WHERE app = 1").fetchall()
        for number, name, walked in connection.execute("SELECT path, name, walked FROM path WHERE app = 1 AND NOT dropped").fetchall():
            entries = set(connection.execute("SELECT label, seq FROM label WHERE path = ?", (number,)).fetchall())
            true = {(value, seq) for seq, metadata in jobs if seq <= indexed for value in metadata_labels(metadata, [name]).values()}
            assert entries <= true
            assert walked is not None or entries == true


# --- whatever happens, in whatever order


class Twins:
    """The same done to an SQLite file and to a memory engine, which has no index."""

    def __init__(self, engine: SQLiteEngine, others: list[SQLiteEngine], model: MemoryEngine, seed: int) -> None:
        self.engines, self.model = [engine, *others], model
        self.random = random.Random(seed)
        self.now = 1_000_000.0
        self.jobs: list[UUID] = []
        self.moments: list[float] = []
        self.places: tuple[str, str] | None = None

    async def begin(self, kind: int) -> None:
        """In some cases with all paths declared, in some with changes noted, when lone jobs are not stored at once."""
        if kind % 2:
            await self.engine.declare({"a", "b"})
        if kind % 4 > 1:
            self.places = (await self.engine.changes(None)).at, (await self.model.changes(None)).at

    @property
    def engine(self) -> SQLiteEngine:
        return self.random.choice(self.engines)

    def metadata(self) -> bytes:
        values = [b'"x"', b'"y"', b'"\\u0078"', b"1", b"1.0", b"true", b"null", b'"q\\"q"', b'{"c":"x"}', b"[1]"]
        parts = [b'"%s":%s' % (key, self.random.choice(values)) for key in (b"a", b"b") if self.random.random() < 0.8]
        return b"{" + b",".join(parts) + b"}"

    async def step(self) -> None:
        steps: list[Callable[[], object]] = [
            self.submit, self.submit, self.submit_alone, self.submit_alone, self.change, self.delete, self.delete_newest, self.end,
            self.again, self.wait, self.flush, self.flush, self.sweep, self.declare, self.reindex,
        ]  # fmt: skip
        done = self.random.choice(steps)()
        assert asyncio.iscoroutine(done)
        await done

    async def submit(self) -> None:
        jobs = [make_job(self.metadata(), queue=self.random.choice("qr")) for _ in range(self.random.randrange(1, 6))]
        if self.jobs:
            jobs[0] = jobs[0]._replace(parent=self.random.choice(self.jobs[:3]), root=self.jobs[0])
        assert await self.engine.submit(jobs) == await self.model.submit(jobs)
        self.jobs += [job.id for job in jobs]
        self.moments.append(self.now)

    async def submit_alone(self) -> None:
        job, engine = make_job(self.metadata()), self.engine
        assert engine._writer is not None
        engine._writer._pace.seen_in_thread(0.0001)
        if not engine.submit_here(job):
            await engine.submit([job])
        await self.model.submit([job])
        self.jobs.append(job.id)

    async def change(self) -> None:
        if self.jobs:
            change, id = put_metadata(self.metadata()), self.random.choice(self.jobs)
            await self.engine.update(id, change, unless=())
            await self.model.update(id, change, unless=())

    async def delete(self) -> None:
        ids = self.random.sample(self.jobs, min(2, len(self.jobs)))
        assert await self.engine.delete(ids) == await self.model.delete(ids)

    async def delete_newest(self) -> None:
        """The last of all, whose rows might be given to others then."""
        ids = self.jobs[-self.random.randrange(1, 4) :]
        assert await self.engine.delete(ids) == await self.model.delete(ids)

    async def end(self) -> None:
        ids = self.random.sample(self.jobs, min(3, len(self.jobs)))
        for each in (self.engine, self.model):
            claims = await each.claim("node", ["q", "r"], 3, lease=10_000.0, ids=ids)
            await each.settle([failed(claim.token, b"{}", ttl=50.0) for claim in claims if claim.record.metadata < b'{"b"'])
            await each.settle([succeeded(claim.token, b"1", ttl=9.0) for claim in claims if claim.record.queue == "r"])

    async def again(self) -> None:
        if self.jobs:
            id, change = self.random.choice(self.jobs), rerun(b"{}", metadata=self.metadata())
            await self.engine.update(id, change, unless=())
            await self.model.update(id, change, unless=())

    async def wait(self) -> None:
        self.now += self.random.choice([0.5, 10.0])

    async def flush(self) -> None:
        await flush(self.engine, self.random.choice([1, 3, 1000]))

    async def sweep(self) -> None:
        await self.engine.sweep()
        await self.model.sweep()

    async def declare(self) -> None:
        await self.engine.declare({self.random.choice(["a", "b", "a.c"])}, only=self.random.random() < 0.2)

    async def reindex(self) -> None:
        await self.engine.reindex(limit=self.random.choice([1, 5, 1000]))

    def query(self) -> Query:
        values = ["x", "y", 1, True, None, 'q"q', [1], {"c": "x"}]
        paths = self.random.sample(["a", "b", "a.c"], self.random.choice([1, 1, 2]))
        conditions = tuple(wanted(path, *self.random.sample(values, self.random.choice([1, 1, 2, 5]))) for path in paths)
        query = Query(metadata=conditions, newest_first=self.random.random() < 0.5)
        if self.random.random() < 0.3:
            query = query._replace(states=frozenset(self.random.sample(list(ResultState), 2)))
        if self.random.random() < 0.2:
            query = query._replace(states=frozenset({ResultState.RUNNING}))
        if self.moments and self.random.random() < 0.3:
            query = query._replace(created_after=self.random.choice(self.moments))
        if self.moments and self.random.random() < 0.3:
            query = query._replace(created_before=self.random.choice(self.moments))
        if self.jobs and self.random.random() < 0.3:
            parent = self.random.choice(self.jobs[:3])
            query = self.random.choice([query._replace(parent=parent), query._replace(root=self.jobs[0]), query._replace(under=parent)])
        return query._replace(queue="q") if self.random.random() < 0.2 else query

    async def compare(self) -> None:
        query, engine = self.query(), self.engine
        expected = await found(self.model, query)
        assert await found(engine, query) == expected, query
        assert await self.pages(engine, query) == expected, query
        for by in ("state", "metadata:a", "metadata:b"):
            assert await engine.count(query, by=by) == await self.model.count(query, by=by), (query, by)
            assert await engine.count(Query(), by=by) == await self.model.count(Query(), by=by), by
        if self.places is not None:
            query = Query(metadata=query.metadata)
            changed = [await each.changes(place, query) for each, place in zip((engine, self.model), self.places, strict=True)]
            one, two = ({each.record.id for each in changes.changed} for changes in changed)
            assert one == two, query

    async def pages(self, engine: SQLiteEngine, query: Query) -> list[UUID]:
        """What is found in pages of two, with labels written in between."""
        ids: list[UUID] = []
        after = None
        while True:
            page = [record async for record in engine.search(query._replace(limit=2, after=after))]
            ids += [record.id for record in page]
            if len(page) < 2:
                return ids
            after = page[-1].stand
            if self.random.random() < 0.2:
                await flush(engine, 2)


@pytest.mark.parametrize("seed", range(20))
async def test_the_same_is_found_as_without_an_index(path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "CHUNK", 3)
    monkeypatch.setattr(writer, "MANY_BEHIND", 10 if seed % 3 else 1_000_000)
    clock: Callable[[], float] = lambda: twins.now  # noqa: E731
    async with (
        SQLiteEngine(path, clock=clock) as engine,
        SQLiteEngine(path, clock=clock) as second,
        SQLiteEngine(path, "another", clock=clock) as other,
        MemoryEngine(clock=clock) as model,
    ):
        twins = Twins(engine, [second], model, seed)
        await twins.begin(seed)
        await other.declare({"a"})
        await other.submit([make_job() for _ in range(30)])  # of an app that is nobody's concern
        for _ in range(120):
            await twins.step()
            await twins.compare()
            check_file(path)
        assert [(await engine.reindex(limit=100)).left for _ in range(20)][-1] == 0
        await twins.compare()
        check_file(path)


# --- when they are written


async def test_a_submit_writes_none(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        await engine.declare({"a"})
        await engine.submit([make_job() for _ in range(10)])
        assert written(path) == 0
        assert sum((await engine.count(Query(metadata=(wanted("a", 1),)))).values()) == 10
        await flush(engine)
        assert written(path) == 10
        assert sum((await engine.count(Query(metadata=(wanted("a", 1),)))).values()) == 10


async def test_a_sweep_writes_what_others_left(path: Path) -> None:
    async with SQLiteEngine(path) as engine, SQLiteEngine(path) as other:
        await engine.declare({"a"})
        await engine.submit([make_job() for _ in range(10)])
        await other.sweep(limit=4)
        assert written(path) == 4
        await other.sweep(limit=100)
        assert written(path) == 10


async def until_idle(engine: SQLiteEngine) -> None:
    """Wait until the writer's thread has done all that comes after its answers."""
    assert engine._writer is not None
    for _ in range(2):  # what comes after the first's answer is done before the second
        await engine._writer.put(writer._nothing)


@pytest.mark.parametrize("how", ["batches", "one by one", "one by one, each process a few"])
async def test_the_tail_does_not_grow(path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds that it is long sees to it, also if it is of others' jobs."""
    monkeypatch.setattr(writer, "MANY_BEHIND", 20)
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(SQLiteEngine(path)) for _ in range(10 if "few" in how else 1)]
        await engines[0].declare({"a"})
        for _ in range(30):
            for engine in engines:
                if how == "batches":
                    await engine.submit([make_job() for _ in range(7)])
                else:
                    assert engine._writer is not None
                    engine._writer._pace.seen_in_thread(0.0001)
                    job = make_job()
                    if not engine.submit_here(job):
                        await engine.submit([job])
        for engine in engines:
            await until_idle(engine)
        [(jobs, indexed, last)] = look(path, "SELECT count(*), app.indexed, max(seq) FROM app, job")
        assert isinstance(last, int)
        assert isinstance(indexed, int)
        assert jobs in (30, 210, 300)
        assert last - indexed < 20


async def test_lone_submits_wake_the_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nothing else is given to it."""
    monkeypatch.setattr(writer, "MANY_BEHIND", 20)
    monkeypatch.setattr(writer, "MANY_COMMITS", 1_000_000)
    loop, seen, catch_up = asyncio.get_running_loop(), asyncio.Event(), labels.catch_up

    def tell(least: int, most: int) -> Operation[None]:
        loop.call_soon_threadsafe(seen.set)
        return catch_up(least, most)

    async with SQLiteEngine(path) as engine:
        await engine.declare({"a"})
        await until_idle(engine)
        monkeypatch.setattr(labels, "catch_up", tell)
        for number in range(20):
            assert not seen.is_set(), number
            await submit_here(engine, make_job())
        await asyncio.wait_for(seen.wait(), 10.0)
        await until_idle(engine)
        assert written(path) == 20


async def test_jobs_that_are_gone_before_their_labels_are_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left to be done then, though the last numbers that were given here are of none."""
    monkeypatch.setattr(writer, "MANY_BEHIND", 20)
    gone, calls, catch_up = threading.Event(), 0, labels.catch_up

    def late(least: int, most: int) -> Operation[None]:
        nonlocal calls
        calls += 1
        if calls > 10:
            raise sqlite3.OperationalError("it goes on and on")
        assert gone.wait(10.0)
        return catch_up(least, most)

    async with SQLiteEngine(path) as engine, SQLiteEngine(path) as other:
        await engine.declare({"a"})
        await until_idle(engine)
        monkeypatch.setattr(labels, "catch_up", late)
        jobs = [make_job() for _ in range(20)]
        for job in jobs:
            await submit_here(engine, job)
        assert await other.delete([job.id for job in jobs]) == 20
        gone.set()
        await until_idle(engine)
        assert calls == 1


async def test_without_declared_paths_nothing_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MANY_BEHIND", 5)
    async with SQLiteEngine(path) as engine:
        before = look(path, "SELECT indexed FROM app")
        await engine.submit([make_job() for _ in range(50)])
        await engine.sweep()
        await until_idle(engine)
        assert look(path, "SELECT indexed FROM app") == before
        assert await engine.declare({"a"}) == frozenset()  # there are jobs to be walked over
        assert look(path, "SELECT indexed FROM app") == look(path, "SELECT max(seq) FROM job")
        while (await engine.reindex(limit=7)).left:
            pass
        assert written(path) == 50


async def test_a_submit_of_very_many(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are written, in several transactions, though nobody submits again."""
    monkeypatch.setattr(writer, "MANY_BEHIND", 10)
    async with SQLiteEngine(path) as engine:
        await engine.declare({"a"})
        await engine.submit([make_job() for _ in range(105)])
        await until_idle(engine)
        assert 96 <= written(path) <= 105


async def test_metadata_that_are_none_hold_nobody_up(path: Path) -> None:
    """The engine's thread outlives them, others' labels are written, and searches pass over them, also if they look at metadata."""
    async with SQLiteEngine(path) as engine:
        await engine.declare({"a"})
        await engine.submit([make_job(b"not JSON"), make_job(b"[1]"), make_job()])
        for labels_written in (0, 1):
            assert written(path) == labels_written
            assert len(await found(engine, Query(metadata=(wanted("a", 1),)))) == 1
            assert await found(engine, Query(metadata=(wanted("b", 1),))) == []
            assert await engine.count(Query(), by="metadata:a") == {"1": 1, "": 2}
            await flush(engine)


# --- rows


async def test_a_row_that_was_indexed_is_not_given_again(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        await engine.declare({"a"})
        await engine.submit([make_job(), make_job(b'{"a":2}')])
        await flush(engine)
        [last] = await found(engine, Query(metadata=(wanted("a", 2),)))
        await engine.delete([last])
        for alone in (True, False):
            job = make_job(b'{"a":3}')
            if alone:
                assert engine._writer is not None
                engine._writer._pace.seen_in_thread(0.0001)
                engine._writer._session.tip -= 1  # as if it had stored the one before the last
                assert engine.submit_here(job)
            else:
                await engine.submit([job])
            assert await found(engine, Query(metadata=(wanted("a", 3),))) == [job.id]
            await flush(engine)
            assert await found(engine, Query(metadata=(wanted("a", 3),))) == [job.id]
            await engine.delete([job.id])


async def test_a_path_declared_while_there_is_a_tail(path: Path) -> None:
    """Reindexing first writes the tail: a job there that is changed or deleted meanwhile leaves no label behind."""
    async with SQLiteEngine(path) as engine:
        await engine.declare({"a"})
        jobs = [make_job(b'{"a":1,"b":1}') for _ in range(20)]
        await engine.submit(jobs)
        await engine.declare({"b"})
        left = -1
        for number, job in enumerate(jobs):
            left = (await engine.reindex(limit=3)).left
            await engine.update(job.id, put_metadata(b'{"b":2}'), unless=())
            if number % 4 == 0:
                await engine.delete([job.id])
            check_file(path)
        assert left == 0
        await flush(engine)
        check_file(path)
        assert len(await found(engine, Query(metadata=(wanted("b", 2),)))) == 15
        assert await found(engine, Query(metadata=(wanted("b", 1),))) == []


async def test_a_path_declared_before_the_last_jobs_went(path: Path) -> None:
    """Its index comes to be whole, though the row up to which there is something to be walked over is no job's any more."""
    async with SQLiteEngine(path) as engine:
        await engine.declare({"a"})
        jobs = [make_job(b'{"a":1,"b":1}') for _ in range(5)]
        await engine.submit(jobs)
        await engine.declare({"b"})
        await engine.delete([job.id for job in jobs[3:]])
        assert [(await engine.reindex(limit=100)).left > 0 for _ in range(3)] == [True, False, False]
        assert await engine.declare({"b"}) == {"b"}
        check_file(path)
        await engine.submit([make_job(b'{"b":1}')])
        assert len(await found(engine, Query(metadata=(wanted("b", 1),)))) == 4


# --- several processes, crashes, old files


async def test_two_write_them_at_once(path: Path) -> None:
    async with SQLiteEngine(path) as one, SQLiteEngine(path) as two:
        await one.declare({"a"})
        for _ in range(20):
            await one.submit([make_job() for _ in range(20)])
            await asyncio.gather(*(flush(engine, 7) for engine in (one, two) for _ in range(3)))
            check_file(path)


async def test_a_crash_between_jobs_and_labels(path: Path) -> None:
    """The file as a killed process leaves it."""
    copy = path.with_name("copy.db")
    async with SQLiteEngine(path) as engine:
        await engine.declare({"a"})
        jobs = [make_job() for _ in range(10)]
        await engine.submit(jobs[:5])
        await flush(engine)
        await engine.submit(jobs[5:])
        for end in ("", "-wal"):
            Path(f"{copy}{end}").write_bytes(Path(f"{path}{end}").read_bytes())
    async with SQLiteEngine(copy) as engine:
        query = Query(metadata=(wanted("a", 1),))
        assert await found(engine, query) == [job.id for job in jobs]
        await engine.sweep()
        assert written(copy) == 10
        assert await found(engine, query) == [job.id for job in jobs]


async def test_a_write_that_fails_is_made_up_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its jobs are found all the same, the next transaction tries again, and what it had done is undone."""
    monkeypatch.setattr(writer, "MANY_BEHIND", 5)
    put = labels._put
    async with SQLiteEngine(path) as engine:
        await engine.declare({"a"})

        def fail(session: Session, rows: list[tuple[int, bytes, int]]) -> None:
            put(session, rows)
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(labels, "_put", fail)
        await engine.submit([make_job() for _ in range(8)])
        await until_idle(engine)
        assert written(path) == 0
        assert len(await found(engine, Query(metadata=(wanted("a", 1),)))) == 8
        monkeypatch.setattr(labels, "_put", put)
        await engine.submit([make_job()])
        await until_idle(engine)
        assert written(path) == 5
        check_file(path)


async def test_a_file_of_before(path: Path) -> None:
    """Brought back, labels are complete, as the older mognet expects; brought up, they are taken for complete."""
    async with SQLiteEngine(path) as engine, SQLiteEngine(path, "another") as other, SQLiteEngine(path, "empty"):
        await engine.declare({"a", "b"})
        await other.declare({"a"})
        await engine.submit([make_job(b'{"a":%d,"b":"x"}' % number) for number in range(5)])
        await flush(engine, 3)
        await other.submit([make_job(b'{"a":7}'), make_job()])
    checkup = SQLiteCheckup(f"sqlite:///{path}", "app")
    await checkup.migrate(2)
    assert written(path) == 12
    assert "indexed" not in {name for (name,) in look(path, "SELECT name FROM pragma_table_info('app')")}
    async with SQLiteEngine(path) as engine, SQLiteEngine(path, "another") as other, SQLiteEngine(path, "empty") as empty:
        apps = dict(look(path, "SELECT name, indexed FROM app"))
        assert apps["app"] == (1 << sql.APP_BITS) + 5
        assert apps["another"] == (2 << sql.APP_BITS) + 2
        assert apps["empty"] == 3 << sql.APP_BITS
        assert len(await found(engine, Query(metadata=(wanted("b", "x"),)))) == 5
        assert len(await found(other, Query(metadata=(wanted("a", 7, 1),)))) == 2
        assert await found(empty, Query(metadata=(wanted("a", 1),))) == []
        job = make_job()
        await engine.submit([job])
        assert job.id in await found(engine, Query(metadata=(wanted("a", 1),)))


async def test_those_of_another_transaction(path: Path) -> None:
    """Jobs that a caller stores by a connection of his own are found, too."""
    async with SQLiteEngine(path) as engine:
        await engine.declare({"a"})
        job = make_job()
        with closing(sqlite3.connect(path)) as connection:
            assert await engine.submit_on(connection, [job]) == [True]
            connection.commit()
        assert await found(engine, Query(metadata=(wanted("a", 1),))) == [job.id]


# --- how much is looked at


@contextmanager
def session_on(path: Path) -> Iterator[Session]:
    connection = open_file(path, "full")
    try:
        yield Session(connection, 1, time.time, NoEars(), now=time.time())
    finally:
        connection.close()


@pytest.mark.parametrize("newest_first", [True, False])
async def test_only_the_tail_is_looked_at(path: Path, newest_first: bool) -> None:
    """Metadata are read of the jobs behind the index, never of those in it; and of none that a text in it would have told."""
    async with SQLiteEngine(path) as engine:
        await engine.declare({"a", "n"})
        await engine.submit([make_job(b'{"a":"%d","n":%d}' % (number % 10, number % 10)) for number in range(1000)])
        await flush(engine)
        await engine.submit([make_job(b'{"a":"%d","n":%d}' % (number % 10, number % 10)) for number in range(50)])
    for condition, most in ((wanted("a", "3"), 5), (wanted("n", 3), 50)):
        with session_on(path) as session:
            looked: list[bytes] = []

            def has(metadata: bytes, text: str, condition: Wanted = condition, looked: list[bytes] = looked) -> bool:
                looked.append(metadata)
                return has_metadata(metadata, [condition])

            session.connection.create_function("has_metadata", 2, has, deterministic=True)
            page = search.find(Query(metadata=(condition,), newest_first=newest_first), None, 200)(session)()
            assert len(page.records) == 105
            assert 0 < len(looked) <= most


@pytest.mark.parametrize(
    ("metadata", "value"),
    [
        (rb'{"a":"\u0078"}', "x"),
        (rb'{"\u0061":"x"}', "x"),
        (b'{"a": "x"}', "x"),
        ('{"a":"ä"}'.encode(), "ä"),
        (rb'{"a":"\u00e4"}', "ä"),
        (rb'{"a":"q\"q"}', 'q"q'),
        (rb'{"a":"\\"}', "\\"),
        (rb'{"a":"\/"}', "/"),
        (b'{"a":"/"}', "/"),
        (b'{"a":"\x7f"}', "\x7f"),
        (rb'{"a":"\u0000"}', "\0"),
        (b'{"a":1.0}', 1),
        (b'{"a":10e-1}', 1),
        (b'{"a":true}', True),
        (b'{"a":null}', None),
        (b'{"a":["x"]}', ["x"]),
        (b'{"a":"%b"}' % (b"x" * 200), "x" * 200),
        (b'{"a":""}', ""),
    ],
)
async def test_a_value_is_found_however_it_is_written(path: Path, metadata: bytes, value: object) -> None:
    """In the tail, and by a key that is not indexed."""
    assert has_metadata(metadata, [wanted("a", value)])
    async with SQLiteEngine(path) as engine:
        job = make_job(metadata)
        await engine.submit([job, make_job(b'{"a":"other","b":"x"}'), make_job(b"{}")])
        for _ in range(2):
            assert await found(engine, Query(metadata=(wanted("a", value),))) == [job.id]
            assert await found(engine, Query(metadata=(wanted("a", value, "something else"),))) == [job.id]
            await engine.delete([job.id])
            await engine.declare({"a"})
            await engine.submit([job])
