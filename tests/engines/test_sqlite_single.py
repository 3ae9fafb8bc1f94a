"""Single jobs that are stored before the call returns: when, and that it is the same as the usual way."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from mognet import App
from mognet.engines.sql import labels, pace, single, writer
from mognet.engines.sql.session import INLINE, Finish
from mognet.engines.sql.signals import Signals, Waiter
from mognet.engines.sql.sqlite import SQLiteEngine
from mognet.exceptions import CouldNotSubmit
from mognet.outcomes import Change, retry
from mognet.records import Job, Query, Record
from mognet.states import ResultState


def make_job(**fields: object) -> Job:
    return Job(uuid4(), "work", "q", b"{}")._replace(**fields)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No disk is too slow for these tests, and none has to be looked for."""
    monkeypatch.setattr(pace, "QUICK", 10.0)
    monkeypatch.setattr(pace, "SLOW", 10.0)
    monkeypatch.setattr(pace, "VERY_SLOW", 10.0)
    monkeypatch.setattr("mognet.engines.sql.desks.LOOK_AT_FILE", 60.0)


def warm(engine: object) -> None:
    """Let it think that its thread has seen that the disk is quick; in truth that has done nothing yet, and is in nobody's way."""
    assert isinstance(engine, SQLiteEngine)
    assert engine._writer is not None
    engine._writer._pace.seen_in_thread(0.0001)


async def all_of(engine: SQLiteEngine, queue: str = "q") -> list[Record]:
    return [record async for record in engine.search(Query(queue=queue))]


async def test_a_job_is_the_same_either_way(path: Path) -> None:
    now = time.time()
    async with SQLiteEngine(path, clock=lambda: now) as engine, SQLiteEngine(path, clock=lambda: now) as other:
        warm(engine)
        fields = {"metadata": b'{"a":1}', "priority": 7, "delay": 3.0, "label": "f()", "ttl": 60.0, "latest": now + 5, "body": b"[1]"}
        one, two = make_job(**fields), make_job(**fields)
        assert engine.submit_here(one)
        assert await engine.submit([two]) == [True]
        [here] = await other.get([one.id])
        [usual] = await other.get([two.id])
        assert here is not None
        assert usual is not None
        assert here._replace(id=two.id, root=two.id, place=usual.place) == usual
        with closing(sqlite3.connect(path)) as connection:
            rows = [list(row) for row in connection.execute("SELECT * FROM job WHERE queue = 'q' ORDER BY seq")]
            names = [column[1] for column in connection.execute("PRAGMA table_info(job)")]
        differing = {name for name, *values in zip(names, *rows, strict=True) if values[0] != values[1]}
        assert differing == {"seq", "id", "arrival"}


def alone(engine: SQLiteEngine, job: Job) -> bool:
    """As ``submit_here``, but it waits for the writer's thread, which may have just done something else."""
    assert engine._writer is not None
    with engine._writer._lock:
        return single.add(engine._writer._session, job)


async def written(engine: SQLiteEngine) -> list[tuple[str, bytes, bytes]]:
    """What is indexed when the labels of all jobs are written."""
    assert engine._writer is not None
    await engine._writer.put(labels.catch_up(1, 1000))
    return labels_in(engine.path)


def labels_in(path: Path) -> list[tuple[str, bytes, bytes]]:
    """What is indexed: the path, the label, and the job's id."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT path.name, label.label, job.id FROM label LEFT JOIN path USING (path) LEFT JOIN job USING (seq) ORDER BY seq, path.name"
        ).fetchall()


async def test_labels_are_the_same_either_way(path: Path) -> None:
    """Of none, one or several paths that are indexed; each lone job by one statement, which writes none."""
    async with SQLiteEngine(path) as engine:
        await engine.declare({"a", "b.c"})
        assert engine._writer is not None
        traced: list[str] = []
        ids: set[bytes] = set()
        for metadata in (b'{"a":1}', b'{"z":0,"b":{"c":"x"},"a":[]}', b'{"z":1}', b'{"a":"y","b":5}'):
            one, two = make_job(metadata=metadata), make_job(metadata=metadata)
            assert alone(engine, one._replace(id=uuid4()))  # it looks where the numbers stand
            engine._writer._session.connection.set_trace_callback(traced.append)
            assert alone(engine, one)
            engine._writer._session.connection.set_trace_callback(None)
            assert await engine.submit([two]) == [True]
            ids |= {one.id.bytes, two.id.bytes}
        assert {text.split()[0] for text in traced} == {"INSERT"}
        assert labels_in(path) == []
        found = [row for row in await written(engine) if row[2] in ids]
        assert [row[:2] for row in found] == [
            ("a", b"1"), ("a", b"1"),
            ("a", b"[]"), ("b.c", b'"x"'), ("a", b"[]"), ("b.c", b'"x"'),
            ("a", b'"y"'), ("a", b'"y"'),
        ]  # fmt: skip


async def test_a_known_id_leaves_no_label(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        await engine.declare({"a"})
        job = make_job(metadata=b'{"a":1}')
        assert alone(engine, job)
        assert not alone(engine, job)
        assert not alone(engine, job._replace(metadata=b'{"a":2}'))
        assert await engine.submit([job._replace(metadata=b'{"a":3}')]) == [False]
        assert await written(engine) == [("a", b"1", job.id.bytes)]


async def test_what_others_declare_is_for_the_usual_way(path: Path) -> None:
    async with SQLiteEngine(path) as engine, SQLiteEngine(path) as other:
        await engine.declare({"a"})
        job = make_job(metadata=b'{"a":1,"b":2}')
        await other.declare({"b"})
        assert not alone(engine, job)
        assert await engine.submit([job]) == [True]
        assert alone(engine, job._replace(id=uuid4()))
        assert [row[:2] for row in await written(engine)] == [("a", b"1"), ("b", b"2")] * 2


async def test_paths_that_were_never_committed_are_forgotten(path: Path) -> None:
    """A path declared in a transaction that is undone leaves its number to another, of another process."""
    async with SQLiteEngine(path) as engine, SQLiteEngine(path) as other:
        assert engine._writer is not None

        def fails(session: writer.Session) -> Finish[None]:
            labels.declare({"mine"}, only=False)(session)
            raise ValueError

        with pytest.raises(ValueError):
            await engine._writer.put(fails)
        await other.declare({"a"})
        job = make_job(metadata=b'{"a":1,"mine":2}')
        assert not alone(engine, job)
        assert await engine.submit([job]) == [True]
        assert await written(engine) == [("a", b"1", job.id.bytes)]


async def test_order_is_that_of_arrival_whoever_submits(path: Path) -> None:
    async with SQLiteEngine(path) as one, SQLiteEngine(path) as two, SQLiteEngine(path, "another app") as three:
        for engine in (one, two, three):
            warm(engine)
        jobs = [make_job() for _ in range(30)]
        for number, job in enumerate(jobs):
            engine = (one, two)[number % 2]
            if number % 3:
                assert engine.submit_here(job)
                assert three.submit_here(job)  # an id of its own app
            else:
                await engine.submit([job])
        assert [record.id for record in await all_of(one)] == [job.id for job in jobs]
        claims = await two.claim("node", ["q"], 50, lease=10.0)
        assert [claim.token.id for claim in claims] == [job.id for job in jobs]
        assert len(await all_of(three)) == 20


def rows_of(path: Path) -> list[tuple[bytes, float]]:
    """Ids and times of creation, in the order of rows."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT id, created FROM job ORDER BY seq").fetchall()


@pytest.mark.parametrize("metadata", [b"{}", b'{"a":1}'], ids=["bare", "with metadata"])
async def test_rows_stay_in_order_of_creation_whatever_others_do(path: Path, metadata: bytes) -> None:
    now = [1_000_000.0]
    async with SQLiteEngine(path, clock=lambda: now[0]) as one, SQLiteEngine(path, clock=lambda: now[0]) as two:
        warm(one)
        jobs = [make_job(metadata=metadata) for _ in range(9)]
        assert one.submit_here(jobs[0])
        await two.submit(jobs[1:3])
        now[0] += 1
        assert one.submit_here(jobs[3])
        await two.submit(jobs[4:6])
        await two.delete([jobs[3].id, jobs[5].id])  # the last of each: their numbers may be given again
        now[0] += 1
        assert one.submit_here(jobs[6])
        await two.delete([jobs[6].id])
        now[0] += 1
        await two.submit([jobs[7]])
        now[0] -= 2
        assert not one.submit_here(jobs[8])  # the clock was set back: it would be older than one before it
        assert await one.submit([jobs[8]]) == [True]
    assert [id for id, _ in rows_of(path)] == [jobs[number].id.bytes for number in (0, 1, 2, 4, 7, 8)]
    times = [created for _, created in rows_of(path)]
    assert times == sorted(times)


async def test_a_job_goes_behind_those_that_went_behind_all_others(path: Path) -> None:
    now = [1_000_000.0]
    async with SQLiteEngine(path, clock=lambda: now[0]) as engine:
        warm(engine)
        jobs = [make_job() for _ in range(3)]
        for job in jobs[:2]:
            assert engine.submit_here(job)
        [claim] = await engine.claim("node", ["q"], 1, lease=10.0)
        await engine.settle([retry(claim.token, 0.0)])
        assert engine.submit_here(jobs[2])
        claims = await engine.claim("node", ["q"], 3, lease=10.0)
        assert [claim.token.id for claim in claims] == [jobs[1].id, jobs[0].id, jobs[2].id]


async def test_while_changes_are_noted_each_is(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        warm(engine)
        assert engine.submit_here(make_job())
        since = (await engine.changes(None)).at
        job = make_job()
        assert not engine.submit_here(job)
        assert await engine.submit([job]) == [True]
        assert [changed.record.id for changed in (await engine.changes(since)).changed] == [job.id]


async def test_whatever_others_declare_is_indexed(path: Path) -> None:
    async with SQLiteEngine(path) as engine, SQLiteEngine(path) as other:
        warm(engine)
        assert engine.submit_here(make_job(metadata=b'{"a":"0"}'))
        await other.declare(["a"])
        jobs = [make_job(metadata=b'{"a":"1"}') for _ in range(2)]
        assert not engine.submit_here(jobs[0])  # it does not know of the index yet
        assert await engine.submit([jobs[0]]) == [True]
        assert engine.submit_here(jobs[1])
        assert [row[2] for row in await written(engine)] == [job.id.bytes for job in jobs]


async def test_a_known_id_is_left_alone(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        warm(engine)
        job, revoked = make_job(), make_job()
        assert engine.submit_here(job)
        assert not engine.submit_here(job._replace(name="other"))
        await engine.update(revoked.id, Change(state=ResultState.REVOKED, tombstone=True))
        assert not engine.submit_here(revoked)
        assert [record.name for record in await all_of(engine)] == ["work"]
        assert await engine.submit([job]) == [False]


async def test_an_expired_id_is_for_the_usual_way(path: Path) -> None:
    now = [time.time()]
    async with SQLiteEngine(path, clock=lambda: now[0]) as engine:
        warm(engine)
        job = make_job()
        await engine.update(job.id, Change(state=ResultState.REVOKED, tombstone=True, ttl=1.0))
        now[0] += 2
        assert not engine.submit_here(job)
        assert await engine.submit([job]) == [True]


async def test_not_before_the_disk_is_known_to_be_quick(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        assert not engine.submit_here(make_job())
        tries = 0
        while not engine.submit_here(make_job()):  # its thread may still be at it for a moment
            assert await engine.submit([make_job()]) == [True]
            tries += 1
        assert tries > 0
    async with SQLiteEngine(path, inline=False) as engine:
        warm(engine)
        assert not engine.submit_here(make_job())


async def test_families_and_large_jobs_go_the_usual_way(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        warm(engine)
        top = make_job()
        large = b"x" * (INLINE + 1)
        for job in (make_job(parent=top.id, root=top.id), make_job(root=top.id), make_job(body=large), make_job(metadata=large)):
            assert not engine.submit_here(job)
        assert await all_of(engine) == []


async def test_it_waits_for_nobody(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        warm(engine)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert not engine.submit_here(make_job())
            other.execute("ROLLBACK")
        first, second = (asyncio.ensure_future(engine.submit([make_job()])) for _ in range(2))
        await asyncio.sleep(0)
        assert not second.done()
        assert not engine.submit_here(make_job())  # that would overtake the second
        await asyncio.gather(first, second)
        assert engine.submit_here(make_job())
        assert len(await all_of(engine)) == 3


async def test_what_sqlite_refuses_is_undone(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        warm(engine)
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TRIGGER full AFTER INSERT ON job WHEN new.name = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END")
        assert not engine.submit_here(make_job(name="bad"))
        assert engine.submit_here(make_job())
        assert [record.name for record in await all_of(engine)] == ["work"]


async def test_whoever_waits_is_woken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mognet.engines.sql.sqlite.LOOK_EVERY", 60.0)
    waits, wait = asyncio.Event(), Waiter.wait

    async def noting(waiter: Waiter, seconds: float) -> None:
        waits.set()
        await wait(waiter, seconds)

    monkeypatch.setattr(Waiter, "wait", noting)
    async with SQLiteEngine(path) as engine, SQLiteEngine(path) as other, asyncio.timeout(20):
        warm(engine)
        for waiting in (engine, other):
            waits.clear()
            claiming = asyncio.ensure_future(waiting.claim("node", ["q"], 1, lease=10.0, wait=30.0))
            await waits.wait()
            job = make_job()
            assert engine.submit_here(job)
            assert [claim.token.id for claim in await claiming] == [job.id]


async def test_one_ring_for_all_of_a_turn(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rings: list[set[str]] = []
    monkeypatch.setattr(Signals, "ring", lambda _, queues: rings.append(set(queues)))
    async with SQLiteEngine(path) as engine:
        warm(engine)
        for queue in ("a", "b", "a"):
            assert engine.submit_here(make_job(queue=queue))
        assert rings == []
        await asyncio.sleep(0)
        assert rings == [{"a", "b"}]
        assert engine.submit_here(make_job(queue="c"))
    assert rings == [{"a", "b"}, {"c"}]  # before it was closed


async def test_the_log_is_copied_into_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LOG_PAGES", 30)
    copied = asyncio.Event()
    loop, checkpoint = asyncio.get_running_loop(), writer.Writer._checkpoint

    def noting(self: writer.Writer, session: writer.Session) -> None:
        checkpoint(self, session)
        loop.call_soon_threadsafe(copied.set)

    monkeypatch.setattr(writer.Writer, "_checkpoint", noting)
    async with SQLiteEngine(path) as engine:
        warm(engine)
        stored = 0
        while stored < 20:
            stored += engine.submit_here(make_job())
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await copied.wait()


async def test_a_closed_engine_does_nothing(path: Path) -> None:
    async with SQLiteEngine(path) as engine:
        warm(engine)
    assert not engine.submit_here(make_job())


# --- as an app uses it


class Ways:
    """Counts which way jobs go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.here, self.batches = 0, list[int]()
        submit_here, submit = SQLiteEngine.submit_here, SQLiteEngine.submit

        def here(engine: SQLiteEngine, job: Job) -> bool:
            done = submit_here(engine, job)
            self.here += done
            return done

        async def usual(engine: SQLiteEngine, jobs: list[Job], *, enqueue: bool = True) -> list[bool]:
            self.batches.append(len(jobs))
            return await submit(engine, jobs, enqueue=enqueue)

        monkeypatch.setattr(SQLiteEngine, "submit_here", here)
        monkeypatch.setattr(SQLiteEngine, "submit", usual)


@pytest.fixture
def app(path: Path) -> App:
    app = App("app", url=f"sqlite:///{path}")

    @app.task(name="number_of")
    async def work(number: int = 0) -> int:
        return number

    return app


def _inner(app: App) -> object:
    return app.engine._engine  # type: ignore[attr-defined]


async def submit(app: App, number: int) -> None:
    result = await app.submit(app.registry.get("number_of").function, number)
    assert result.state is ResultState.PENDING


async def test_a_task_that_submits_alone_waits_for_nobody(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = Ways(monkeypatch)
    async with app:
        warm(_inner(app))
        for number in range(20):
            await submit(app, number)
        assert (ways.here, ways.batches) == (20, [])


async def test_tasks_that_submit_together_share_transactions(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mognet.coalesce.CROWDED", 60.0)
    ways = Ways(monkeypatch)
    async with app:
        warm(_inner(app))
        for _ in range(4):
            await asyncio.gather(*[submit(app, number) for number in range(50)])
        assert ways.here == 1  # nobody had come before the first
        assert ways.batches == [49, 50, 50, 50]


async def test_a_task_that_submits_without_end_lets_others_run(app: App) -> None:
    async with app:
        warm(_inner(app))
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, over.set)
        async with asyncio.timeout(60):
            while not over.is_set():
                await submit(app, 1)


async def test_a_known_id_gives_its_result(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = Ways(monkeypatch)
    async with app:
        warm(_inner(app))
        request = app.create_request(app.registry.get("number_of").function, 1)
        first = await app.submit(request)
        assert ways.here == 1
        await app.revoke(request.id)
        assert (await app.submit(request)).state is ResultState.REVOKED
        assert first.id == request.id


async def test_an_error_is_told_by_the_usual_way(app: App, path: Path) -> None:
    async with app:
        warm(_inner(app))
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TRIGGER never BEFORE INSERT ON job BEGIN SELECT RAISE(ABORT, 'no room'); END")
        with pytest.raises((CouldNotSubmit, sqlite3.Error), match="no room"):
            await submit(app, 1)
