"""Workers that are told to stop."""

from __future__ import annotations

import asyncio
import signal
import sys
import time

import pytest

from mognet import App, Result, ResultState
from servers.places import on_every_engine
from system.processes import jobs
from system.processes.crew import TESTS, Crew, Ledger, Member


async def refreshed(job: Result[object]) -> Result[object]:
    await job.refresh()
    return job


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_running_tasks_end_within_the_grace_and_nothing_new_begins(crew: Crew, app: App, ledger: Ledger, number: int) -> None:
    member = await crew.start(minimum_concurrency="2", shutdown_grace="20").ready()
    running = await app.submit(jobs.hold, 1.0)
    await ledger.seen("start", running.id)
    member.send(number)
    await member.says("may go on for")
    late = await app.submit(jobs.quick, 1)
    assert await member.ended() == 0
    assert (await refreshed(running)).state is ResultState.SUCCESS
    assert (await refreshed(late)).state is ResultState.PENDING
    assert ledger.starts(late.id) == 0


@on_every_engine
async def test_past_the_grace_jobs_are_handed_back(crew: Crew, app: App, ledger: Ledger) -> None:
    member = await crew.start(shutdown_grace="0.2").ready()
    job, waiting = await app.submit(jobs.hold), await app.submit(jobs.parent)
    child = (await ledger.seen("waiting", waiting.id))["child"]
    await ledger.seen("start", job.id)
    await ledger.seen("start", child)
    member.send(signal.SIGTERM)
    assert await member.ended() == 0
    assert len(ledger.lines("cancelled", job.id)) == 1
    for each in (job, waiting):
        await refreshed(each)
        assert (each.state, each.number_of_starts - each.number_of_stops) == (ResultState.SUSPENDED, 0)
    other = await crew.start(lease="60", sweep_interval="60").ready()
    again = await ledger.seen("start", job.id, 2)  # at once: no lease has to run out
    parent_again = await ledger.seen("start", waiting.id, 2)
    assert {again["pid"], parent_again["pid"]} == {other.pid}
    await app.revoke(waiting.id)
    await app.revoke(job.id)
    await ledger.seen("cancelled", job.id, 2)
    assert (await refreshed(job)).unexpected_retry_count == 0


async def test_the_second_signal_cancels_at_once_and_the_third_leaves(crew: Crew, app: App, ledger: Ledger) -> None:
    first, second = await app.submit(jobs.hold), await app.submit(jobs.deaf)
    member = await crew.start(shutdown_grace="600").ready()
    await ledger.seen("start", first.id)
    await ledger.seen("start", second.id)
    member.send(signal.SIGTERM)
    await member.says("may go on for")
    assert not ledger.lines("cancelled")
    member.send(signal.SIGTERM)
    await ledger.seen("cancelled", first.id)
    await ledger.seen("ignored", second.id)
    await member.says(f"{first.id}] handed back")
    assert member.alive
    member.send(signal.SIGINT)
    began = time.monotonic()
    assert await member.ended() == 130
    assert time.monotonic() - began < 4  # and not 600
    await refreshed(first)
    assert (first.state, first.unexpected_retry_count) == (ResultState.SUSPENDED, 0)


async def test_tasks_that_cannot_be_stopped_do_not_delay_the_exit(crew: Crew, app: App, ledger: Ledger) -> None:
    """A function in a thread; and a coroutine that swallows its cancellation, which is ended by force and handed back, too."""
    nap, deaf = await app.submit(jobs.nap), await app.submit(jobs.deaf)
    member = await crew.start(shutdown_grace="0").ready()
    await ledger.seen("start", nap.id)
    await ledger.seen("start", deaf.id)
    began = time.monotonic()
    member.send(signal.SIGTERM)
    assert await member.ended() == 0
    assert time.monotonic() - began < 5 + 3  # the patience with cancelled tasks
    await app.revoke(nap.id)
    await crew.start().ready()
    assert await deaf == "heard"
    assert deaf.unexpected_retry_count == 0


async def test_ctrl_c_without_the_command_line(crew: Crew, app: App, ledger: Ledger) -> None:
    """``asyncio.run(app.start())`` is cancelled from outside."""
    jobs_ = await app.submit_many([app.create_request(jobs.hold) for _ in range(5)])
    member: Member = crew.run(sys.executable, str(TESTS / "system" / "processes" / "plain.py"), shutdown_grace="600")
    await ledger.seen("start", number=5)
    member.send(signal.SIGINT)
    assert await member.ended() in (-signal.SIGINT, 1, 130)
    assert "KeyboardInterrupt" in member.log()
    assert "was never retrieved" not in member.log()
    assert "was destroyed but it is pending" not in member.log()
    for job in jobs_:
        await refreshed(job)
        assert (job.state, job.unexpected_retry_count) == (ResultState.SUSPENDED, 0), member.log()


async def test_a_burst_waits_for_children_that_are_not_due_yet(crew: Crew, app: App) -> None:
    job = await app.submit(jobs.delayed_parent, 0.7)
    assert await crew.start("--burst", minimum_concurrency="1").ended() == 0
    assert await job == 1


async def test_max_tasks_lets_waiting_parents_end(crew: Crew, app: App) -> None:
    """There is nobody else to run their children."""
    results = [await app.submit(jobs.spawn, 2, 0.01) for _ in range(3)]
    assert await crew.start(max_tasks="3", minimum_concurrency="3").ended() == 0
    assert await asyncio.gather(*results) == [1, 1, 1]


async def test_every_parent_waits_and_no_more_may_be_held(crew: Crew, app: App) -> None:
    results = [await app.submit(jobs.spawn, 3, 0.01) for _ in range(6)]
    await crew.start(minimum_concurrency="2", maximum_concurrency="2").ready()
    assert await asyncio.wait_for(asyncio.gather(*results), 30) == [3] * 6
