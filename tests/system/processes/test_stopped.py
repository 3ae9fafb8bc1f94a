"""Workers that stand still, and come back."""

from __future__ import annotations

import asyncio
import signal

from mognet import App, ResultState
from servers.places import on_every_engine
from system.processes import jobs
from system.processes.crew import Crew, Ledger


@on_every_engine
async def test_a_ghost_changes_nothing(crew: Crew, app: App, ledger: Ledger) -> None:
    """Stopped longer than its lease, and then continued: its job belongs to somebody else."""
    crew.settings |= {"lease": "0.6", "sweep_interval": "0.1"}
    first = await crew.start().ready()
    job = await app.submit(jobs.ghost)
    await ledger.seen("start", job.id)
    await crew.stop(first)
    await crew.start().ready()
    await ledger.seen("took over", job.id)
    await asyncio.sleep(0.5)  # the stop is to be longer than anything that a slow machine does to the first
    first.send(signal.SIGCONT)
    await ledger.seen("haunt", job.id, 3)
    haunts = {line["what"]: line["got"] for line in ledger.lines("haunt", job.id)}
    assert haunts == {"state": "AttemptLost", "metadata": "AttemptLost", "child": "CouldNotSubmit"}
    await first.says("lost: this worker's claim has ended")
    assert await job == "second, by the second"
    assert (await job.get_metadata())["by"] == "the second"
    assert (job.state, job.number_of_starts, job.number_of_stops, job.unexpected_retry_count) == (ResultState.SUCCESS, 2, 1, 1)
    assert await job.children.count() == 0
    assert ledger.starts(job.id) == 2
    assert "blocks it" not in first.log()
    assert await app.run(jobs.quick, 3) == 3


async def test_a_stopped_workers_task_is_cancelled_when_it_comes_back(crew: Crew, app: App, ledger: Ledger) -> None:
    crew.settings |= {"lease": "0.6", "sweep_interval": "0.1"}
    first = await crew.start().ready()
    job = await app.submit(jobs.hold, 5)
    await ledger.seen("start", job.id)
    await crew.stop(first)
    await crew.start().ready()
    await ledger.seen("start", job.id, 2)
    first.send(signal.SIGCONT)
    cancelled = await ledger.seen("cancelled", job.id)
    assert cancelled["pid"] == first.pid
    assert await job == "held"
    assert len(ledger.lines("finish", job.id)) == 1


async def test_a_blocked_loop_keeps_its_jobs(crew: Crew, app: App, ledger: Ledger) -> None:
    crew.settings |= {"lease": "0.6", "sweep_interval": "0.1", "max_block": "10"}
    first = await crew.start().ready()
    bystander = await app.submit(jobs.hold, 2.5)
    await ledger.seen("start", bystander.id)
    job = await app.submit(jobs.block, 1.8)
    await ledger.seen("start", job.id)
    await crew.start().ready()
    assert await job == "blocked 0"
    assert await bystander == "held"
    assert ledger.starts(job.id) == ledger.starts(bystander.id) == 1
    assert f"block[{job.id}] blocks it" in first.log()


async def test_a_loop_that_is_blocked_for_too_long_loses_its_jobs(crew: Crew, app: App, ledger: Ledger) -> None:
    crew.settings |= {"lease": "0.6", "sweep_interval": "0.1", "max_block": "0.5"}
    first = await crew.start().ready()
    job = await app.submit(jobs.block, 4)
    await ledger.seen("start", job.id)
    second = await crew.start().ready()
    again = await ledger.seen("start", job.id, 2)
    assert again["pid"] == second.pid
    assert await job == "blocked 1"
    assert not ledger.lines("finish", job.id)[0]["pid"] == first.pid
    await first.says("Its leases are renewed no longer")
    assert f"block[{job.id}] blocks it" in first.log()
    await first.says("lost: this worker's claim has ended")
    await job.refresh()
    assert (await job.get(), job.number_of_starts, job.unexpected_retry_count) == ("blocked 1", 2, 1)
