"""What is SQLite's own: files, connections and threads."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from mognet.engine import DONE
from mognet.engines.sql import connection as files
from mognet.engines.sql import desks, line, search, writer
from mognet.engines.sql.connection import parse_url
from mognet.engines.sql.sqlite import SQLiteEngine
from mognet.exceptions import ConnectionError, ImproperlyConfigured, InvalidMetadata, NotConnected
from mognet.outcomes import merge_metadata, revoke, succeeded
from mognet.records import Job, Query
from mognet.states import ResultState


def make_job(**fields: object) -> Job:
    return Job(**{"id": uuid4(), "name": "work", "queue": "q", "body": b"{}", **fields})  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


# --- where it is


@pytest.mark.parametrize(
    ("url", "path", "synchronous", "inline"),
    [
        ("sqlite:///jobs.db", "jobs.db", "full", True),
        ("sqlite:///.mognet/a%20b.db", ".mognet/a b.db", "full", True),
        ("sqlite:////srv/jobs.db?synchronous=normal", "/srv/jobs.db", "normal", True),
        ("sqlite:///jobs.db?inline=0&synchronous=full", "jobs.db", "full", False),
    ],
)
def test_urls(url: str, path: str, synchronous: str, inline: bool) -> None:
    assert parse_url(url) == (Path(path), synchronous, inline)
    assert SQLiteEngine.from_url(url, "app").path == Path(path)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("sqlite://", "memory://"),
        ("sqlite:///", "memory://"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite://jobs.db", "sqlite:///jobs.db"),
        ("sqlite:///jobs.db?journal=off", "'journal'"),
        ("sqlite:///jobs.db?synchronous=off", "'off'"),
        ("sqlite:///jobs.db?inline=maybe", "'maybe'"),
        ("redis:///jobs.db", "not a sqlite"),
    ],
)
def test_wrong_urls(url: str, hint: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=hint):
        SQLiteEngine.from_url(url, "app")


async def test_the_file_is_private_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / ".mognet" / "jobs.db"
    async with SQLiteEngine(path, "app") as engine:
        await engine.submit([make_job()])
        for file in path.parent.glob("jobs.db*"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert (path.parent / ".gitignore").read_text() == "*\n"
    assert sorted(file.name for file in path.parent.iterdir()) == [".gitignore", "jobs.db"]


async def test_only_our_own_folder_gets_a_gitignore(path: Path) -> None:
    async with SQLiteEngine(path, "app"):
        pass
    assert [file.name for file in path.parent.iterdir()] == ["jobs.db"]


# --- whose it is


async def refused(path: Path, hint: str, kind: type[Exception] = ImproperlyConfigured) -> None:
    engine = SQLiteEngine(path, "app")
    for _ in range(2):  # nothing is left of the first attempt that would hinder the second
        with pytest.raises(kind, match=hint) as caught:
            await engine.__aenter__()
        assert str(path) in str(caught.value)


async def test_not_a_database(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 100)
    await refused(path, "not an SQLite database")
    assert path.read_bytes().startswith(b"Dear diary")


async def test_the_database_of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customer (name)")
    await refused(path, "another program")


async def test_a_newer_schema(path: Path) -> None:
    async with SQLiteEngine(path, "app"):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    await refused(path, "newer mognet")


async def test_a_folder(path: Path) -> None:
    path.mkdir()
    await refused(path, "is a folder")


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    await refused(tmp_path / "file" / "jobs.db", "cannot be made", ConnectionError)


async def test_an_empty_file_is_taken(path: Path) -> None:
    path.touch()
    async with SQLiteEngine(path, "app") as engine:
        assert await engine.submit([make_job()]) == [True]


async def test_a_damaged_file(path: Path) -> None:
    async with SQLiteEngine(path, "app") as engine:
        await engine.submit([make_job() for _ in range(2000)])
    data = bytearray(path.read_bytes())
    data[4096 * 12 : 4096 * 40] = b"\xff" * 4096 * 28
    path.write_bytes(data)
    with pytest.raises(ConnectionError, match="damaged"):
        async with SQLiteEngine(path, "app") as engine:
            while await engine.claim("node", ["q"], 100, lease=10.0):
                pass
            await engine.count(Query())


# --- opening and closing


async def test_closed_and_opened_again(path: Path) -> None:
    engine, job = SQLiteEngine(path, "app"), make_job()
    for operation in (lambda: engine.submit([job]), lambda: engine.get([job.id]), lambda: engine.publish("c", b"")):
        with pytest.raises(NotConnected, match="not open"):
            await operation()  # type: ignore[no-untyped-call]
    for _ in range(3):
        async with engine:
            await engine.submit([job])
            [record] = await engine.get([job.id])
            assert record is not None
            with pytest.raises(ImproperlyConfigured, match="open already"):
                await engine.__aenter__()
    with pytest.raises(NotConnected):
        await engine.get([job.id])


async def test_closing_finishes_what_was_asked_for(path: Path) -> None:
    jobs = [make_job() for _ in range(50)]
    async with SQLiteEngine(path, "app") as engine:
        asked = [asyncio.ensure_future(engine.submit([job])) for job in jobs]
        await asyncio.sleep(0)
    assert await asyncio.gather(*asked) == [[True]] * 50
    async with SQLiteEngine(path, "app") as engine:
        assert await engine.count(Query()) == {"PENDING": 50}


async def test_closing_ends_those_who_wait(path: Path) -> None:
    async with SQLiteEngine(path, "app") as engine:
        waiting = asyncio.ensure_future(engine.claim("node", ["q"], 1, lease=10.0, wait=60.0))
        await asyncio.sleep(0.05)
    with pytest.raises(NotConnected):
        await asyncio.wait_for(waiting, 5)


def test_a_loop_that_ends_before_the_engine(path: Path) -> None:
    """The threads end all the same, when they are asked to."""
    engine = SQLiteEngine(path, "app")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(engine.__aenter__())
    loop.run_until_complete(engine.submit([make_job()]))
    loop.run_until_complete(engine.count(Query()))
    assert engine._writer is not None and engine._reader is not None
    engine._reader.dismiss()
    engine._writer.dismiss()
    loop.close()


async def test_engines_in_other_threads(path: Path) -> None:
    """Several engines on one file, each in the event loop of its own thread, hear of each other."""
    heard: list[UUID] = []

    async def work() -> None:
        async with SQLiteEngine(path, "app") as engine:
            while len(heard) < 20 and (claims := await engine.claim("node", ["q"], 1, lease=10.0, wait=10.0)):
                await engine.settle([succeeded(claim.token, b"1") for claim in claims])
                heard.extend(claim.token.id for claim in claims)

    threads = [threading.Thread(target=lambda: asyncio.run(work())) for _ in range(3)]
    async with SQLiteEngine(path, "app") as engine, engine.subscribe(DONE) as signals:
        for thread in threads:
            thread.start()
        jobs = [make_job() for _ in range(23)]
        for job in jobs:
            await engine.submit([job])
        for _ in range(20):
            await asyncio.wait_for(anext(signals), 10)
        for thread in threads:
            await asyncio.to_thread(thread.join)
        assert len(heard) == len(set(heard))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_not_across_a_fork(path: Path) -> None:
    async with SQLiteEngine(path, "app") as engine:
        await engine.submit([make_job()])
        pid = os.fork()
        if pid == 0:
            try:
                engine._write(lambda session: lambda: None)
            except ImproperlyConfigured as error:
                os._exit(0 if "forked" in str(error) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0  # noqa: ASYNC222
        assert await engine.count(Query()) == {"PENDING": 1}


# --- the file, while it is open


async def test_a_file_that_is_removed_is_made_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to a file that nobody can see."""
    monkeypatch.setattr(desks, "LOOK_AT_FILE", 0.0)
    async with SQLiteEngine(path, "app") as engine:
        await engine.submit([make_job()])
        assert await engine.count(Query()) == {"PENDING": 1}
        for file in path.parent.glob("jobs.db*"):
            if file.is_file():
                file.unlink()
        assert await engine.count(Query()) == {}
        job = make_job()
        await engine.submit([job])
        async with SQLiteEngine(path, "app") as other:
            assert await other.count(Query()) == {"PENDING": 1}
        assert (await engine.get([job.id]))[0] is not None


async def test_a_file_that_cannot_be_opened_for_a_while(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "LOOK_AT_FILE", 0.0)
    async with SQLiteEngine(path, "app") as engine:
        await engine.submit([make_job()])
        for file in path.parent.glob("jobs.db*"):
            if file.is_file():
                file.unlink()
        path.mkdir()
        for _ in range(2):
            with pytest.raises(ImproperlyConfigured, match="is a folder"):
                await engine.submit([make_job()])
        path.rmdir()
        assert await engine.submit([make_job()]) == [True]


async def test_someone_who_keeps_it_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience ends with an error that says why; readers are not disturbed at all."""
    monkeypatch.setattr(files.patiently, "__defaults__", (0.2,))
    async with SQLiteEngine(path, "app") as engine:
        job = make_job()
        await engine.submit([job])
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(ConnectionError, match="locked"):
                await engine.submit([make_job()])
            assert await engine.count(Query()) == {"PENDING": 1}
            other.execute("ROLLBACK")
        assert await engine.submit([make_job()]) == [True]


async def test_the_log_is_copied_now_and_then(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is written, and although others read all the time, the log stays small."""
    monkeypatch.setattr(writer, "LOG_PAGES", 200)
    async with SQLiteEngine(path, "app") as engine, SQLiteEngine(path, "app") as other:
        reading = asyncio.ensure_future(read_for_ever(other))
        sizes = []
        for _ in range(60):
            await engine.submit([make_job(body=b"x" * 500) for _ in range(100)])
            claims = await engine.claim("node", ["q"], 100, lease=10.0)
            await engine.settle([succeeded(claim.token, b"y" * 500) for claim in claims])
            sizes.append(path.with_name("jobs.db-wal").stat().st_size)
        reading.cancel()
        assert max(sizes) < 8 * 1024 * 1024
        assert path.stat().st_size > max(sizes) // 4


async def test_a_log_that_others_made_long_is_cut(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that each write little and go do not make it grow while one that does not write stays."""
    monkeypatch.setattr(files, "_PRAGMAS", [*files._PRAGMAS, "journal_size_limit = 100000"])
    monkeypatch.setattr(writer, "LONG_LOG", 500_000)
    sizes = []
    async with SQLiteEngine(path, "app") as idle:
        for _ in range(40):
            async with SQLiteEngine(path, "app") as engine:
                await engine.submit([make_job(body=b"x" * 1000) for _ in range(30)])
            sizes.append(path.with_name("jobs.db-wal").stat().st_size)
        assert await idle.count(Query()) == {"PENDING": 1200}
    assert max(sizes) < 800_000
    assert min(sizes[10:]) < 300_000


async def read_for_ever(engine: SQLiteEngine) -> None:
    while True:
        await engine.count(Query())
        _ = [record async for record in engine.search(Query(limit=50))]


# --- transactions


def commits(engine: SQLiteEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many operations were in each transaction."""
    sizes: list[int] = []
    transact = writer.Writer._transact

    def counting(self: writer.Writer, session: object, operations: list[object]) -> object:
        sizes.append(len(operations))
        return transact(self, session, operations)  # type: ignore[arg-type]

    monkeypatch.setattr(writer.Writer, "_transact", counting)
    return sizes


async def test_operations_of_one_moment_share_a_commit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SQLiteEngine(path, "app") as engine:
        sizes = commits(engine, monkeypatch)
        await asyncio.gather(*(engine.submit([make_job()]) for _ in range(200)))
        assert sum(sizes) == 200
        assert len(sizes) < 20


async def test_one_that_fails_harms_no_neighbour(path: Path) -> None:
    async with SQLiteEngine(path, "app") as engine:
        job = make_job()
        await engine.submit([job])
        good = [make_job() for _ in range(10)]
        results = await asyncio.gather(
            *(engine.submit([each]) for each in good[:5]),
            engine.update(job.id, merge_metadata(b'{"a":"' + b"x" * 100 + b'"}', limit=50)),
            engine.submit([make_job(), make_job(name="\ud800")]),
            *(engine.submit([each]) for each in good[5:]),
            return_exceptions=True,
        )
        assert [isinstance(result, list) for result in results] == [True] * 5 + [False] * 2 + [True] * 5
        assert isinstance(results[5], InvalidMetadata)
        assert isinstance(results[6], UnicodeEncodeError)
        assert await engine.count(Query()) == {"PENDING": 11}


async def test_a_burst_is_a_few_statements(path: Path) -> None:
    async with SQLiteEngine(path, "app") as engine:
        assert engine._writer is not None
        traced: list[str] = []
        engine._writer._session.connection.set_trace_callback(traced.append)

        async def statements(operation: Callable[[], object]) -> int:
            traced.clear()
            await operation()  # type: ignore[misc]
            return len(traced)

        jobs = [make_job(parent=uuid4()) for _ in range(1000)]
        assert await statements(lambda: engine.submit(jobs)) < 40
        claims = []

        async def claim() -> None:
            claims.extend(await engine.claim("node", ["q"], 100, lease=10.0))

        assert await statements(claim) < 10
        assert await statements(lambda: engine.extend([claim.token for claim in claims], 10.0)) < 10
        assert await statements(lambda: engine.settle([succeeded(claim.token, b"1") for claim in claims])) < 16
        assert len(claims) == 100


async def test_revoking_a_tree_is_a_few_statements(path: Path) -> None:
    async with SQLiteEngine(path, "app") as engine:
        root = make_job()
        level = [root]
        await engine.submit([root])
        for _ in range(4):
            level = [make_job(parent=job.id, root=root.id) for job in level for _ in range(6)]
            await engine.submit(level)
        assert engine._writer is not None
        traced: list[str] = []
        engine._writer._session.connection.set_trace_callback(traced.append)
        await engine.update(root.id, revoke())
        assert len(traced) < 12
        assert await engine.count(Query(root=root.id)) == {"REVOKED": 1555}


async def test_a_busy_event_loop_does_not_stretch_transactions(path: Path) -> None:
    """While the loop's thread computes, each step of a statement costs a switch of threads: there are few while the file is locked."""
    async with SQLiteEngine(path, "app") as engine, SQLiteEngine(path, "app") as other:
        await engine.submit([make_job() for _ in range(500)])
        claims = await engine.claim("node", ["q"], 500, lease=10.0)
        settling = asyncio.ensure_future(engine.settle([succeeded(claim.token, b"1") for claim in claims]))
        await asyncio.sleep(0)
        until = time.perf_counter() + 0.5
        while time.perf_counter() < until:
            pass
        assert await asyncio.wait_for(other.submit([make_job()]), 5) == [True]
        assert None not in await settling


# --- looking through many records


@pytest.mark.parametrize("newest_first", [False, True])
async def test_searches_go_on_from_stretch_to_stretch(path: Path, monkeypatch: pytest.MonkeyPatch, newest_first: bool) -> None:
    monkeypatch.setattr(search, "STRETCH", 7)
    monkeypatch.setattr(search, "CHUNK", 3)
    now = 1_700_000_000.0
    async with SQLiteEngine(path, "app", clock=lambda: now) as engine:
        root = make_job()
        jobs = [root] + [make_job(parent=root.id, root=root.id, queue=f"q{number % 3}") for number in range(50)]
        for start in range(0, 51, 5):
            now += start % 2
            await engine.submit(jobs[start : start + 5])
        order = [job.id for job in jobs][:: -1 if newest_first else 1]
        for query in (Query(), Query(root=root.id), Query(id_prefix=""), Query(created_after=1.0)):
            found = [record.id async for record in engine.search(query._replace(newest_first=newest_first))]
            assert found == order
        some = Query(parent=root.id, queue="q1", newest_first=newest_first)
        expected = [id for id in order if id in {job.id for job in jobs[1:] if job.queue == "q1"}]
        assert [record.id async for record in engine.search(some)] == expected
        assert [record.id async for record in engine.search(some._replace(limit=10))] == expected[:10]
        assert await engine.count(Query(root=root.id), by="queue") == {"q": 1, "q0": 17, "q1": 17, "q2": 16}


def test_this_sqlite_is_new_enough() -> None:
    assert sqlite3.sqlite_version_info >= files.OLDEST_SQLITE, sys.version


async def test_a_claim_that_is_undone_leaves_nobody_with_what_it_told(tmp_path: Path) -> None:
    """Whoever read the changes between the claim and its end was told RUNNING."""
    async with SQLiteEngine(tmp_path / "jobs.db") as engine:
        await engine.submit([job := make_job()])
        at = (await engine.changes(None)).at
        claimed = await engine._write(line.claim("node", ["q"], 1, 60.0, None))
        changes = await engine.changes(at)
        assert [changed.record.state for changed in changes.changed] == [ResultState.RUNNING]
        await engine._write(line.unclaim(claimed))
        changes = await engine.changes(changes.at)
        assert [(changed.record.id, changed.record.state) for changed in changes.changed] == [(job.id, ResultState.PENDING)]
