"""Small transactions on the event loop's own thread: when, and that they hold up nobody."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from mognet.engines.sql import desks, pace, writer
from mognet.engines.sql.connection import PAGE
from mognet.engines.sql.pace import Pace
from mognet.engines.sql.session import Session
from mognet.engines.sql.sqlite import SQLiteEngine
from mognet.exceptions import InvalidMetadata
from mognet.outcomes import merge_metadata, succeeded
from mognet.records import Job, Query


def make_job() -> Job:
    return Job(uuid4(), "work", "q", b"{}")


class Threads:
    """A clock that notes in which thread it is asked for each transaction's time."""

    def __init__(self) -> None:
        self.inline: list[bool] = []

    def __call__(self) -> float:
        self.inline.append(threading.current_thread() is threading.main_thread())
        return time.time()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No disk is too slow for these tests."""
    monkeypatch.setattr(pace, "QUICK", 10.0)
    monkeypatch.setattr(pace, "SLOW", 10.0)
    monkeypatch.setattr(pace, "VERY_SLOW", 10.0)
    monkeypatch.setattr(desks, "LOOK_AT_FILE", 60.0)  # a look at the file is the other thread's


async def warm(engine: SQLiteEngine, threads: Threads) -> None:
    """Let it see that the disk is quick, and its thread come to rest."""
    assert engine._writer is not None
    rested, after = threading.Event(), engine._writer._after

    def noted(session: Session) -> None:
        after(session)
        rested.set()

    engine._writer.__dict__["_after"] = noted
    await engine.submit([make_job()])
    await asyncio.to_thread(rested.wait, 10)
    with engine._writer._lock:
        threads.inline.clear()


async def test_small_ones_need_no_other_thread(path: Path) -> None:
    threads = Threads()
    async with SQLiteEngine(path, clock=threads) as engine:
        await warm(engine, threads)
        for _ in range(5):
            await engine.submit([make_job()])
            await asyncio.sleep(0)
        claims = await engine.claim("node", ["q"], 3, lease=10.0)
        await asyncio.sleep(0)
        await engine.settle([succeeded(claim.token, b"1") for claim in claims])
        assert threads.inline == [True] * 7


async def test_large_ones_do(path: Path) -> None:
    threads = Threads()
    async with SQLiteEngine(path, clock=threads) as engine:
        await warm(engine, threads)
        await engine.submit([make_job() for _ in range(1000)])
        await engine.submit([make_job()._replace(body=b"x" * 1_000_000)])
        await engine.claim("node", ["q"], 1000, lease=10.0)
        await engine.sweep()
        assert threads.inline == [False] * 4


async def test_not_if_not_wanted(path: Path) -> None:
    threads = Threads()
    async with SQLiteEngine(path, clock=threads, inline=False) as engine:
        for _ in range(5):
            await engine.submit([make_job()])
        assert threads.inline == [False] * 5


async def test_those_of_one_turn_share_two_commits(path: Path) -> None:
    threads = Threads()
    async with SQLiteEngine(path, clock=threads) as engine:
        await warm(engine, threads)
        assert await asyncio.gather(*(engine.submit([make_job()]) for _ in range(100))) == [[True]] * 100
        assert threads.inline == [True, True]


async def test_one_that_fails_harms_no_neighbour(path: Path) -> None:
    threads = Threads()
    async with SQLiteEngine(path, clock=threads) as engine:
        await warm(engine, threads)
        job = make_job()
        bad = merge_metadata(b'{"a":"' + b"x" * 100 + b'"}', limit=50)
        results = await asyncio.gather(
            engine.submit([job]),
            engine.submit([make_job()]),
            engine.update(job.id, bad),
            engine.submit([make_job()._replace(name="\ud800")]),
            engine.submit([make_job()]),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [list, list, InvalidMetadata, UnicodeEncodeError, list]
        await asyncio.sleep(0)
        with pytest.raises(InvalidMetadata):
            await engine.update(job.id, bad)
        assert threads.inline[-1] is True
        assert await engine.count(Query()) == {"PENDING": 4}


async def test_a_locked_file_does_not_hold_up_the_loop(path: Path) -> None:
    threads = Threads()
    async with SQLiteEngine(path, clock=threads) as engine:
        await warm(engine, threads)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.perf_counter()
            submitting = asyncio.ensure_future(engine.submit([make_job()]))
            await asyncio.sleep(0.05)
            assert time.perf_counter() - began < 1.0
            assert not submitting.done()
            other.execute("ROLLBACK")
        assert await submitting == [True]
        assert threads.inline == [False]


async def test_a_claim_that_is_cancelled_while_it_is_gathered(path: Path) -> None:
    """The turn's end finds it no longer wanted."""
    threads = Threads()
    async with SQLiteEngine(path, clock=threads) as engine:
        await warm(engine, threads)
        first = asyncio.ensure_future(engine.submit([make_job()]))
        second = asyncio.ensure_future(engine.claim("node", ["q"], 1, lease=10.0))
        asyncio.get_running_loop().call_soon(second.cancel)
        assert await first == [True]
        with pytest.raises(asyncio.CancelledError):
            await second
        assert await engine.count(Query()) == {"PENDING": 2}
        assert len(await engine.claim("node", ["q"], 5, lease=10.0)) == 2


async def test_closing_does_what_is_gathered(path: Path) -> None:
    threads = Threads()
    engine = SQLiteEngine(path, clock=threads)
    async with engine:
        await warm(engine, threads)
        asked = [asyncio.ensure_future(engine.submit([make_job()])) for _ in range(3)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*asked) == [[True]] * 3


# --- the log


async def test_the_log_is_as_long_as_it_gets_before_that_holds_up_commits(path: Path, tmp_path: Path) -> None:
    """Zeros behind it are no part of it: whoever finds the files as they are, after a power cut, finds all that was committed."""
    log, copy = Path(f"{path}-wal"), tmp_path / "copy"
    copy.mkdir()
    async with SQLiteEngine(path) as engine, SQLiteEngine(path) as other:
        whole = 32 + writer.LOG_PAGES * (24 + PAGE)
        jobs = [make_job() for _ in range(writer.MANY_COMMITS + 20)]
        for job in jobs[:-20]:
            assert log.stat().st_size < whole
            await engine.submit([job])
        for job in jobs[-20:]:
            await other.submit([job])
        async with asyncio.timeout(10):
            while log.stat().st_size < whole:  # noqa: ASYNC110 - a moment
                await asyncio.sleep(0.01)
        assert log.stat().st_size == whole
        assert log.read_bytes().endswith(bytes(whole // 2))
        for each in (path, log):
            shutil.copy(each, copy / each.name)
        await engine.submit(more := [make_job() for _ in range(500)])
        assert await other.count(Query()) == {"PENDING": len(jobs) + len(more)}
    async with SQLiteEngine(copy / path.name) as engine:
        assert await engine.count(Query()) == {"PENDING": len(jobs)}
        with closing(sqlite3.connect(copy / path.name)) as plain:
            assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# --- the pace


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass."""
    monkeypatch.setattr(pace, "QUICK", 0.001)
    monkeypatch.setattr(pace, "SLOW", 0.004)
    monkeypatch.setattr(pace, "VERY_SLOW", 0.02)
    time = [0.0]
    monkeypatch.setattr(pace, "monotonic", lambda: time[0])

    def pass_time(seconds: float) -> None:
        time[0] += seconds

    return pass_time


def test_only_a_quick_commit_is_proof(now: Callable[[float], None]) -> None:
    watch = Pace(inline=True)
    assert not watch.is_quick()
    watch.seen_in_thread(0.01)
    assert not watch.is_quick()
    watch.seen_in_thread(0.0005)
    assert watch.is_quick()
    never = Pace(inline=False)
    never.seen_in_thread(0.0005)
    assert not never.is_quick()


def test_a_very_slow_one_calls_for_a_rest_and_new_proof(now: Callable[[float], None]) -> None:
    watch = Pace(inline=True)
    watch.seen_in_thread(0.0005)
    watch.seen_inline(0.0005, 0.03)
    watch.seen_in_thread(0.0005)
    now(0.9)
    assert not watch.is_quick()
    now(0.2)
    assert watch.is_quick()
    watch.seen_inline(0.03, 0.03)
    now(10.0)
    assert not watch.is_quick()
    watch.seen_in_thread(0.0005)
    assert watch.is_quick()


@pytest.mark.parametrize(("commit", "whole"), [(0.0005, 0.006), (0.006, 0.006), (0.003, 0.003), (0.0015, 0.0035)])
def test_slow_ones_get_a_fifth_of_the_time(now: Callable[[float], None], commit: float, whole: float) -> None:
    """A few do no harm; many in a row are followed by as long a rest as they took too much."""
    lost = whole if whole > 0.004 else commit
    watch = Pace(inline=True)
    watch.seen_in_thread(0.0005)
    taken = waited = 0.0
    for _ in range(200):
        watch.seen_inline(commit, whole)
        taken += lost
        now(whole)
        waited += whole
        watch.seen_in_thread(0.0005)
        while not watch.is_quick():
            now(0.001)
            waited += 0.001
    assert 0.8 * waited * 0.2 < taken <= 0.02 + waited * 0.2
    now(1.0)
    watch.seen_inline(commit, whole)
    assert watch.is_quick()


def test_quick_ones_cost_nothing(now: Callable[[float], None]) -> None:
    watch = Pace(inline=True)
    watch.seen_in_thread(0.0005)
    for _ in range(1000):
        watch.seen_inline(0.0009, 0.0035)
    assert watch.is_quick()
