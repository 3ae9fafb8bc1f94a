"""Several processes on one file: they wake each other, take over from each other, and never find it locked."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from mognet.codec import pack_done, unpack_done
from mognet.engine import DONE, SMALL_VALUE
from mognet.engines.sql import doorbell, writer
from mognet.engines.sql.sqlite import SQLiteEngine
from mognet.exceptions import ConnectionError
from mognet.outcomes import retry, succeeded
from mognet.records import Job, Query, Signal

HEAD = """
import asyncio, json, sys, time
from pathlib import Path
from uuid import uuid4
from mognet.engine import DONE
from mognet.engines.sql.sqlite import SQLiteEngine
from mognet.outcomes import succeeded
from mognet.records import Job, Query

path = Path(sys.argv[1])

def make_job(**fields):
    return Job(**{"id": uuid4(), "name": "work", "queue": "q", "body": b"{}", **fields})

async def main(engine):
"""

TAIL = """
async def run():
    async with SQLiteEngine(path, "app") as engine:
        await main(engine)

asyncio.run(run())
"""

WORKER = """
    print("ready", flush=True)
    while claims := await engine.claim("node", ["q"], 10, lease=1.0, wait=20.0):
        await engine.settle([succeeded(claim.token, b"1") for claim in claims])
"""


def make_job(**fields: object) -> Job:
    return Job(**{"id": uuid4(), "name": "work", "queue": "q", "body": b"{}", **fields})  # type: ignore[arg-type]


@contextmanager
def process(path: Path, body: str) -> Iterator[subprocess.Popen[str]]:
    """A process that does this with an engine on the file."""
    script = HEAD + textwrap.indent(textwrap.dedent(body), "    ") + TAIL
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


async def line(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    return (await asyncio.to_thread(started.stdout.readline)).strip()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SQLiteEngine]:
    async with SQLiteEngine(path, "app") as engine:
        yield engine


def sockets(path: Path) -> list[Path]:
    return [each for each in path.parent.rglob("*") if each.is_socket()]


# --- waking up


async def test_an_idle_worker_of_another_process_wakes_at_once(path: Path) -> None:
    with process(path, WORKER) as worker:
        async with opened(path) as engine, engine.subscribe(DONE) as signals:
            assert await line(worker) == "ready"
            await asyncio.sleep(0.3)
            times = []
            for number in range(20):
                job = make_job()
                start = time.perf_counter()
                await engine.submit([job])
                done = unpack_done((await asyncio.wait_for(anext(signals), 10)).body)
                times.append(time.perf_counter() - start)
                assert done == ((await engine.get([job.id]))[0], b"1"), number
            assert sorted(times)[10] < 0.1  # far less than the second after which it would have looked


async def test_a_delayed_job_wakes_an_idle_worker_when_it_is_due(path: Path) -> None:
    with process(path, WORKER) as worker:
        async with opened(path) as engine, engine.subscribe(DONE) as signals:
            assert await line(worker) == "ready"
            await asyncio.sleep(0.2)
            await engine.submit([make_job(delay=0.3)])
            record, _ = unpack_done((await asyncio.wait_for(anext(signals), 10)).body)
            assert record.started is not None
            assert 0 <= record.started - record.due < 0.6


async def test_an_idle_worker_costs_nothing(path: Path) -> None:
    body = """
        start, cpu = time.monotonic(), time.process_time()
        await engine.claim("node", ["q", "r"], 10, lease=1.0, wait=3.0)
        print((time.process_time() - cpu) / (time.monotonic() - start), flush=True)
    """
    with process(path, body) as worker:
        assert float(await line(worker)) < 0.01


async def test_signals_of_every_size_reach_another_process(path: Path) -> None:
    body = """
        async with engine.subscribe("c", "d") as signals:
            print("ready", flush=True)
            async for signal in signals:
                print(signal.channel, len(signal.body), set(signal.body), flush=True)
    """
    with process(path, body) as listener:
        async with opened(path) as engine:
            assert await line(listener) == "ready"
            for size in (0, 1, 4096, 100_000):
                await engine.publish("c", b"x" * size)
                assert await line(listener) == f"c {size} {set(b'x' * size)}"
            await engine.publish("other", b"")
            await engine.publish("d", b"")
            assert (await line(listener)).startswith("d 0")


async def test_a_burst_of_ends_reaches_one_who_is_slow(path: Path) -> None:
    """More datagrams than a socket's queue holds: the rest is kept and sent when there is room."""
    body = """
        async with engine.subscribe(DONE) as signals:
            print("ready", flush=True)
            time.sleep(0.5)
            for number in range(300):
                await anext(signals)
            print("all", flush=True)
    """
    with process(path, body) as listener:
        async with opened(path) as engine:
            assert await line(listener) == "ready"
            for _ in range(300):
                await engine.submit([make_job()])
                [claim] = await engine.claim("node", ["q"], 1, lease=10.0)
                await engine.settle([succeeded(claim.token, b"x" * 1000)])
            assert await asyncio.wait_for(line(listener), 10) == "all"


async def test_one_who_does_not_listen_slows_nobody(path: Path) -> None:
    body = """
        async with engine.subscribe("c"):
            print("ready", flush=True)
            time.sleep(60)
    """
    with process(path, body) as listener:
        async with opened(path) as engine, opened(path) as other, other.subscribe("c") as signals:
            assert await line(listener) == "ready"
            start = time.perf_counter()
            for number in range(500):
                await engine.publish("c", b"%d" % number + b"x" * 4000)
                assert (await asyncio.wait_for(anext(signals), 5)).body.startswith(b"%d" % number)
            assert time.perf_counter() - start < 5


# --- sockets that are left, and paths that are long


async def test_sockets_of_killed_processes_are_removed(path: Path) -> None:
    body = """
        async with engine.subscribe("c", DONE):
            print("ready", flush=True)
            await engine.claim("node", ["q"], 1, lease=10.0, wait=60.0)
    """
    with process(path, body) as killed:
        assert await line(killed) == "ready"
        await asyncio.sleep(0.2)
        killed.kill()
        killed.wait()
    assert len(sockets(path)) == 3
    async with opened(path) as engine:
        await engine.publish("c", b"")
        assert len(sockets(path)) == 2
        await engine.sweep()
        assert sockets(path) == []
    assert [each.name for each in path.parent.iterdir()] == ["jobs.db"]


async def test_long_paths(tmp_path: Path) -> None:
    path = tmp_path / ("long " * 30) / "jobs.db"
    async with opened(path) as engine, opened(path) as other, other.subscribe("c") as signals:
        await engine.publish("c", b"1")
        assert await asyncio.wait_for(anext(signals), 5) == Signal("c", b"1")


async def test_a_link_leads_to_the_same_folder(path: Path) -> None:
    async with opened(path):
        pass
    link = path.parent / "link.db"
    link.symlink_to(path)
    async with opened(link) as engine, opened(path) as other, other.subscribe("c") as signals:
        await engine.publish("c", b"1")
        assert await asyncio.wait_for(anext(signals), 5) == Signal("c", b"1")


async def test_where_paths_are_too_short(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "LONGEST_PATH", 20)
    isdir = os.path.isdir
    monkeypatch.setattr(os.path, "isdir", lambda each: isdir(each) and each != "/proc/self/fd")
    folder = doorbell.folder_beside(path)
    assert folder.parent != path.parent
    monkeypatch.undo()
    room = doorbell.Room(folder / "room", "me")
    ear = doorbell.Ear(room, "me")
    assert (folder.stat().st_mode & 0o777, room.path.stat().st_mode & 0o777) == (0o700, 0o700)
    ear.close()
    assert not folder.exists()


def test_signals_travel_together() -> None:
    bodies = [b"x" * size for size in (0, 1, 10_000, 10_000, 20_000, 5, 200_000, 6)]
    packed = list(doorbell._pack(bodies))
    assert [len(each) for each in packed] == [10_013, 10_004, 20_004, 19]


async def test_a_large_value_stays_behind(path: Path) -> None:
    with process(path, "print('ready', flush=True)\nawait asyncio.sleep(60)"):
        async with opened(path) as engine, opened(path) as other, other.subscribe(DONE) as signals:
            for size, sent in ((SMALL_VALUE, True), (SMALL_VALUE + 1, False)):
                await engine.submit([make_job(metadata=b'{"a":"' + b"x" * 50_000 + b'"}')])
                [claim] = await engine.claim("node", ["q"], 1, lease=10.0)
                [record] = await engine.settle([succeeded(claim.token, b"x" * size)])
                assert record is not None
                signal = await asyncio.wait_for(anext(signals), 5)
                assert signal.body == pack_done(record, b"x" * size if sent else None)


# --- crashes


async def test_killed_workers_lose_nothing(path: Path) -> None:
    """Workers are killed at any moment: every job ends once, and what was acknowledged is there."""
    async with opened(path) as engine:
        jobs = [make_job() for _ in range(600)]
        workers = [process(path, WORKER) for _ in range(3)]
        running = [worker.__enter__() for worker in workers]
        for start in range(0, 600, 20):
            await engine.submit(jobs[start : start + 20])
            if start % 100 == 0:
                victim = random.randrange(3)
                workers[victim].__exit__(None, None, None)
                workers[victim] = process(path, WORKER)
                running[victim] = workers[victim].__enter__()
            await asyncio.sleep(0.03)
        until = time.monotonic() + 30
        while (await engine.count(Query())) != {"SUCCESS": 600} and time.monotonic() < until:
            await engine.sweep()
            await asyncio.sleep(0.1)
        records = await engine.get([job.id for job in jobs])
        for worker in workers:
            worker.__exit__(None, None, None)
        assert all(record is not None and record.done and record.crashes >= 0 for record in records)
        assert sum(record.starts for record in records if record) - 600 <= 60
        await engine.sweep()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    body = """
        while True:
            jobs = [make_job() for _ in range(7)]
            await engine.submit(jobs)
            print(json.dumps([str(job.id) for job in jobs]), flush=True)
    """
    acknowledged: list[str] = []
    for _ in range(3):
        with process(path, body) as submitter:
            for _ in range(20):
                acknowledged += json.loads(await line(submitter))
    async with opened(path) as engine:
        stored = {str(record.id) async for record in engine.search(Query())}
    assert set(acknowledged) <= stored
    assert len(stored) % 7 == 0


async def test_a_stopped_process_holds_nobody_up_for_ever(path: Path) -> None:
    """SIGSTOP, at any moment, and SIGCONT after the lease: others take over, and the ghost's settle is refused."""
    body = """
        [claim] = await engine.claim("ghost", ["q"], 1, lease=0.3, wait=20.0)
        print("claimed", flush=True)
        time.sleep(1.0)
        print(await engine.settle([succeeded(claim.token, b"ghost")]), flush=True)
    """
    with process(path, body) as ghost:
        async with opened(path) as engine:
            [job] = [make_job()]
            await engine.submit([job])
            assert await line(ghost) == "claimed"
            ghost.send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.5)
            assert (await engine.sweep()).recovered == 1
            [claim] = await engine.claim("heir", ["q"], 1, lease=10.0)
            ghost.send_signal(signal.SIGCONT)
            assert await line(ghost) == "[None]"
            [record] = await engine.settle([succeeded(claim.token, b"heir")])
            assert record is not None and await engine.value(job.id) == b"heir"


async def test_opening_and_closing_at_once(path: Path) -> None:
    """The first to open makes the file, the last to close takes its log away; nobody is in anybody's way."""
    body = """
        for _ in range(15):
            async with SQLiteEngine(path, "app") as another:
                await another.submit([make_job()])
                assert sum((await another.count(Query())).values()) > 0
        print("done", flush=True)
    """
    with process(path, body) as first, process(path, body) as second, process(path, body) as third:
        assert [await line(each) for each in (first, second, third)] == ["done"] * 3
    async with opened(path) as engine:
        assert await engine.count(Query()) == {"PENDING": 45}


# --- cancelling


async def test_a_storm_of_cancelled_claims(path: Path) -> None:
    """However and whenever claims are cancelled, no job stays claimed, and none counts as started."""
    async with opened(path) as engine, opened(path) as other:
        jobs = [make_job() for _ in range(40)]
        await engine.submit(jobs)

        async def claim(number: int) -> None:
            task = asyncio.ensure_future((engine, other)[number % 2].claim("node", ["q"], 7, lease=100.0, wait=1.0))
            await asyncio.sleep(random.uniform(0, 0.003))
            task.cancel()
            try:
                claims = await task
            except asyncio.CancelledError:
                return
            await engine.settle([retry(claim.token, 0.0) for claim in claims])

        for _ in range(30):
            await asyncio.gather(*(claim(number) for number in range(20)))
        records = await engine.get([job.id for job in jobs])
        assert all(record is not None and record.starts == record.stops for record in records)
        assert len(await other.claim("node", ["q"], 100, lease=100.0)) == 40


async def test_a_cancelled_claim_leaves_the_record_as_it_was(path: Path) -> None:
    async with opened(path) as engine:
        jobs = [make_job(), make_job()]
        await engine.submit(jobs)
        [first] = await engine.claim("first", ["q"], 1, lease=100.0)
        await engine.settle([retry(first.token, 0.0)])
        before = await engine.get([job.id for job in jobs])
        for delay in [0, 0, 0.0001, 0.0002, 0.0005, 0.001] * 5:
            task = asyncio.ensure_future(engine.claim("second", ["q"], 2, lease=100.0))
            await asyncio.sleep(delay)
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
            if not task.cancelled():
                claims = task.result()
                assert [claim.token.start for claim in claims] == [1, 2]
                break
            assert await engine.get([job.id for job in jobs]) == before


# --- a disk that is full


async def test_a_full_disk_is_told_and_got_over(path: Path) -> None:
    async with opened(path) as engine:
        await engine.submit([make_job()])
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name("jobs.db-wal").stat().st_size + 20_000, limits[1]))
        try:
            with pytest.raises(ConnectionError, match=r"jobs\.db.*(full|disk)"):
                await engine.submit([make_job(body=b"x" * 500_000)])
            assert await engine.count(Query()) == {"PENDING": 1}
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert await engine.submit([make_job(body=b"x" * 500_000)]) == [True]


def test_this_system_has_the_sockets() -> None:
    assert hasattr(socket, "AF_UNIX")


async def test_a_sweep_that_waited_for_the_file_spares_the_living(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They waited as well, and could renew no lease. The next sweep does not spare them: a file may always be busy."""
    monkeypatch.setattr(writer, "HELD_UP", 0.0)
    async with SQLiteEngine(tmp_path / "jobs.db") as engine:
        await engine.submit([Job(uuid4(), "work", "q", b"{}")])
        [claim] = await engine.claim("node", ["q"], 1, lease=0.01)
        await asyncio.sleep(0.02)
        assert (await engine.sweep()).recovered == 0
        assert await engine.extend([claim.token], 0.01) == {claim.token}
        await asyncio.sleep(0.02)
        assert (await engine.sweep()).recovered == 1
