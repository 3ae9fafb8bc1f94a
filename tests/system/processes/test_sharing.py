"""Many processes on one store."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import Counter

from mognet import App
from mognet.records import Query
from processor import Processor
from servers.places import on_every_engine
from system.processes import jobs
from system.processes.crew import Crew, Ledger

CLIENT = """
import asyncio, sys
from system.processes import jobs

async def main(first):
    async with jobs.app as app:
        for start in range(first, first + 300, 60):
            results = [await app.submit(jobs.quick, number) for number in range(start, start + 20)]
            results += await app.submit_many([app.create_request(jobs.quick, number) for number in range(start + 20, start + 50)])
            results += await asyncio.gather(*[app.submit(jobs.quick, number) for number in range(start + 50, start + 60)])
            assert await asyncio.gather(*results) == list(range(start, start + 60))
    print("all there")

asyncio.run(main(int(sys.argv[1])))
"""


@on_every_engine
async def test_clients_and_workers_hammer_one_store(crew: Crew, app: App, ledger: Ledger) -> None:
    await crew.ready(4, lease="15")
    clients = [crew.run(sys.executable, "-c", CLIENT, str(1000 * number)) for number in range(3)]
    for client in clients:
        assert await client.ended(60) == 0, client.log()
        assert "all there" in client.log()
    assert await app.engine.count(Query()) == {"SUCCESS": 900}
    starts = Counter(line["id"] for line in ledger.lines("start"))
    assert (len(starts), set(starts.values())) == (900, {1})
    for member in crew.members:
        assert "locked" not in member.log()
        assert "Traceback" not in member.log()
        assert "WARNING" not in member.log()


async def test_an_idle_worker_wakes_at_once_and_costs_next_to_nothing(crew: Crew, app: App, ledger: Ledger) -> None:
    member = await crew.start(lease="15", sweep_interval="5").ready()
    delays, processor = [], Processor()
    for number in range(40):
        submitted = time.monotonic()
        job = await app.submit(jobs.quick, number)
        delays.append((await ledger.seen("start", job.id))["at"] - submitted)
        await job
    p50, slowness = statistics.median(delays) * 1000, processor.slowness()
    loads = []
    while len(loads) < 5 and min(loads, default=1.0) >= 1:  # what a busy machine adds is not the worker's
        used, began = member.cpu(), time.monotonic()
        await asyncio.sleep(4)
        loads.append(100 * (member.cpu() - used) / (time.monotonic() - began))
    load = min(loads)
    print(f"start: p50 {p50:.1f} ms, most {max(delays) * 1000:.1f} ms; idle: {load:.2f} % of a core, {member.memory() / 1024:.0f} MB")
    assert p50 < 50 * slowness  # milliseconds; usually 3
    assert load < 1
