"""Workers and clients that die at any moment."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections import Counter
from uuid import UUID

import pytest

from mognet import App, ResultState
from mognet.exceptions import TooManyRetries
from mognet.records import Query
from servers.places import on_every_engine
from system.processes import jobs
from system.processes.crew import Crew, Ledger, until


@on_every_engine
async def test_another_worker_takes_over_with_the_state(crew: Crew, app: App, ledger: Ledger) -> None:
    first = await crew.start().ready()
    job = await app.submit(jobs.steps)
    other = await app.submit(jobs.quick, 1)
    assert await other == 1
    await ledger.seen("step", job.id)
    second = await crew.start().ready()
    await first.killed()
    killed = time.monotonic()
    again = await ledger.seen("start", job.id, 2)
    assert again["at"] - killed < 1 + 0.24 + 1.0  # lease + sweep, and a second for a slow machine
    assert again["pid"] == second.pid
    assert again["done"] == [0]
    assert await job == [0, 1, 2]
    assert (job.number_of_starts, job.number_of_stops, job.unexpected_retry_count) == (2, 1, 1)
    assert ledger.starts(other.id) == 1


@on_every_engine
async def test_an_idle_worker_is_not_missed(crew: Crew, app: App, ledger: Ledger) -> None:
    first, second = await crew.ready(2)
    await app.run(jobs.quick, 1)
    await first.killed()
    results = await app.submit_many([app.create_request(jobs.quick, number) for number in range(20)])
    assert await asyncio.gather(*results) == list(range(20))
    assert {ledger.starts(result.id) for result in results} == {1}
    assert "lost worker" not in second.log()


@on_every_engine
async def test_a_parent_that_waits_comes_back_to_its_child(crew: Crew, app: App, ledger: Ledger) -> None:
    """Waiting counts as an orderly stop until its worker is lost."""
    first = await crew.start(minimum_concurrency="1").ready()
    job = await app.submit(jobs.parent, 0.5)
    child = (await ledger.seen("waiting", job.id))["child"]
    await ledger.seen("start", child)
    await first.killed()
    await crew.start(minimum_concurrency="1").ready()
    assert await job == ["held"]
    assert job.unexpected_retry_count == 1
    assert ledger.starts(job.id) == ledger.starts(child) == 2


@on_every_engine
async def test_a_burst_through_several_kills(crew: Crew, app: App, ledger: Ledger) -> None:
    slots, kills = 20, 0
    members = await crew.ready(3)
    results = await app.submit_many([app.create_request(jobs.quick, number) for number in range(2000)])
    for share in (100, 500, 900, 1300):
        await until(lambda share=share: len(ledger.lines("start")) >= share, f"{share} starts")  # type: ignore[misc]
        victim = members.pop(0)
        await victim.killed()
        kills += 1
        members.append(crew.start())
    values = await asyncio.wait_for(asyncio.gather(*results), 60)
    assert values == list(range(2000))
    starts = Counter(line["id"] for line in ledger.lines("start"))
    assert set(starts) == {str(result.id) for result in results}
    # Slots are free again while ends are being stored: as many jobs again may be on their way.
    assert sum(starts.values()) - 2000 <= kills * slots * 2
    extra = [UUID(id) for id, number in starts.items() if number > 1]
    for record in await app.result_backend.get_many(*extra):
        assert record is not None
        assert record.unexpected_retry_count >= 1
    assert sum(result.unexpected_retry_count for result in results) <= kills * slots * 2


async def test_a_task_that_kills_its_workers_is_given_up(crew: Crew, app: App, ledger: Ledger) -> None:
    crew.settings |= {"lease": "0.3", "sweep_interval": "0.1"}
    job = await app.submit(jobs.shoot, signal.SIGKILL)
    bystander = await app.submit(jobs.quick, 7)
    while not (await _refreshed(app, job.id)).done:
        member = crew.start()
        await until(lambda member=member: not member.alive or "TooManyRetries" in member.log(), "an end of the worker")  # type: ignore[misc]
        assert len(crew.members) < 8
        if member.alive:
            break
    with pytest.raises(TooManyRetries):
        await job
    assert job.state is ResultState.FAILURE
    assert ledger.starts(job.id) == 4, "the first start, and max_retries=3 more"
    assert await bystander == 7


async def _refreshed(app: App, id: UUID):  # type: ignore[no-untyped-def]
    return await app.result_backend.get(id)


async def test_a_task_that_ends_its_worker_in_order_is_handed_back(crew: Crew, app: App, ledger: Ledger) -> None:
    job = await app.submit(jobs.shoot, signal.SIGTERM, 2)
    for _ in range(2):
        assert await crew.start(shutdown_grace="0").ended() == 0
    await crew.start().ready()
    assert await job == "alive"
    assert (job.unexpected_retry_count, job.number_of_starts) == (0, 3)


SUBMITTER = """
import asyncio, os, signal
from system.processes import jobs

async def main():
    await jobs.app.connect()
    result = await jobs.app.submit(jobs.quick, 5)
    os.write(1, f"submitted {result.id}\\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""

SUBMITTER_OF_MANY = """
import asyncio, os, sys, threading, signal, time
from system.processes import jobs

async def main():
    await jobs.app.connect()
    requests = [jobs.app.create_request(jobs.quick, number) for number in range(1000)]
    os.write(1, b"begin\\n")
    threading.Thread(target=lambda: (time.sleep(float(sys.argv[1])), os.kill(os.getpid(), signal.SIGKILL))).start()
    await jobs.app.submit_many(requests)
    os.write(1, b"submitted\\n")
    time.sleep(60)

asyncio.run(main())
"""


@on_every_engine
async def test_what_submit_returned_for_is_there(crew: Crew, app: App) -> None:
    client = crew.run(sys.executable, "-c", SUBMITTER)
    assert await client.ended() == -signal.SIGKILL
    job = await app.result_backend.get(UUID(client.log().split()[-1]))
    assert job is not None
    await crew.start().ready()
    assert await job == 5


@on_every_engine
async def test_submit_many_is_all_or_none(crew: Crew, app: App) -> None:
    submitted = 0
    for _ in range(6):
        client = crew.run(sys.executable, "-c", SUBMITTER_OF_MANY, str(random.uniform(0.0, 0.06)))
        await client.ended()
        submitted += 1000 * ("submitted" in client.log())
        stored = sum((await app.engine.count(Query())).values())
        assert stored % 1000 == 0
        assert stored >= submitted  # a server may do what a client has asked for when that is dead already
