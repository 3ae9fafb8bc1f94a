"""Engines that fail for a while."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

from mognet import App, ResultState
from system.processes import jobs
from system.processes.crew import Crew, Ledger


async def test_a_file_that_others_keep_locked(crew: Crew, app: App, ledger: Ledger) -> None:
    """Running tasks go on, their ends are stored afterwards, waiters wait, and the worker comes back by itself."""
    crew.settings |= {"lease": "1", "sweep_interval": "0.2"}
    member = await crew.start().ready()
    job = await app.submit(jobs.hold, 0.7)
    waiting = asyncio.ensure_future(_value(job))
    await ledger.seen("start", job.id)
    with closing(sqlite3.connect(crew.folder / "jobs.db", isolation_level=None, timeout=10)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        late = asyncio.create_task(app.submit(jobs.quick, 7))
        await ledger.seen("finish", job.id)
        await asyncio.sleep(2.0)  # longer than the lease
        assert not waiting.done()
        assert not late.done()
        foreign.execute("ROLLBACK")
    assert await waiting == "held"
    assert await (await late) == 7
    await job.refresh()
    assert (job.number_of_starts, job.unexpected_retry_count) == (1, 0)
    assert ledger.starts(job.id) == 1
    assert member.alive


async def _value(job):  # type: ignore[no-untyped-def]
    return await job


async def test_a_full_disk(crew: Crew, app: App, ledger: Ledger) -> None:
    """The worker may write no more for a while."""
    member = await crew.start(minimum_concurrency="2").ready()
    assert await app.run(jobs.quick, 1) == 1
    job = await app.submit(jobs.hold, 0.7)
    await ledger.seen("start", job.id)
    limit = Path(f"{crew.folder}/jobs.db-wal").stat().st_size
    # The ledger is smaller, so only the engine is out of room.
    resource.prlimit(member.pid, resource.RLIMIT_FSIZE, (max(limit // 2, 8192), resource.RLIM_INFINITY))
    await ledger.seen("finish", job.id)
    await member.says("trying again")
    waiting = await app.submit(jobs.quick, 2)
    await asyncio.sleep(1.5)
    assert member.alive
    assert (await _state(app, job)) is not ResultState.SUCCESS
    resource.prlimit(member.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert await asyncio.wait_for(_value(job), 40) == "held"
    assert await asyncio.wait_for(_value(waiting), 40) == 2
    assert ledger.starts(waiting.id) == 1


async def _state(app: App, job):  # type: ignore[no-untyped-def]
    await job.refresh()
    return job.state


async def test_stopping_while_the_engine_is_away(crew: Crew, app: App, ledger: Ledger) -> None:
    """What runs is handed back as soon as the engine answers again."""
    member = await crew.start(shutdown_grace="0", lease="15").ready()
    job = await app.submit(jobs.hold)
    await ledger.seen("start", job.id)
    with closing(sqlite3.connect(crew.folder / "jobs.db", isolation_level=None, timeout=10)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        member.send(signal.SIGTERM)
        await ledger.seen("cancelled", job.id)
        await asyncio.sleep(1)
        assert member.alive
        foreign.execute("ROLLBACK")
    assert await member.ended() == 0
    await job.refresh()
    assert (job.state, job.unexpected_retry_count) == (ResultState.SUSPENDED, 0)
