"""mognet's own part: an app with one task that does nothing, submitted and run with the default settings.

``python -m benchmarks.app COMMAND PLACE …`` prints one line of JSON, like the peers. The place is a folder (SQLite), a URL, or a broker's
and a store's with a comma between. The worker is what ``mognet run`` runs: ``app.start()`` in a process of its own, which spares the
garbage collector in the same way, logging warnings and above.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.peers.meter import WARM, Counter, Span, report, time_trips
from mognet import App, AppConfig
from mognet.cli.run import spare_the_collector
from mognet.outcomes import succeeded
from mognet.records import Job, Query

BATCH = 1000
SEAM_BATCH, LANES = 100, 4

counter = Counter()


async def noop() -> None:
    counter.tick()


def make(place: str, line: str = "line", **settings: Any) -> App:
    if "://" in place:
        broker, _, store = place.rpartition(",")
        app = App(f"bench-{line}", AppConfig(broker=broker or None, result_backend=store, **settings))
    else:
        app = App("bench", AppConfig(**settings), url=f"sqlite:///{Path(place) / line}.db")
    app.task(noop)
    return app


async def submit(place: str, ones: int, many: int) -> None:
    async with make(place, "singly") as app:
        whole = Span(WARM + ones)
        for _ in range(WARM):
            await app.submit(noop)
        span = Span(ones)
        for _ in range(ones):
            await app.submit(noop)
        one, new = span.stop(), whole.stop()
    async with make(place) as app:
        span = Span(many)
        for start in range(0, many, BATCH):
            await app.submit_many([app.create_request(noop) for _ in range(min(BATCH, many - start))])
        report(one=one, new=new, many=span.stop())


async def drain(place: str, total: int) -> None:
    """The span is from the first claim to the last end, both as the store has them."""
    app = make(place)
    spare_the_collector()
    worker = asyncio.create_task(app.start())
    await ran(app, worker, total)
    figures = counter.stop()
    records = [record async for record in app.engine.search(Query())]
    assert len([record for record in records if record.state == "SUCCESS"]) == total, "not all have succeeded"
    figures["rate"] = total / (max(r.finished for r in records) - min(r.started for r in records))
    await app.close()
    await worker
    report(burst=figures)


async def ran(app: App, worker: "asyncio.Task[None]", total: int) -> None:
    """Wait until so many tasks have run, and their ends are stored."""
    give_up = time.monotonic() + 120
    while counter.count < total or (app.worker is not None and app.worker.running_tasks):
        if time.monotonic() > give_up or worker.done():
            sys.exit(f"{counter.count} of {total} tasks ran within 120 s")
        await asyncio.sleep(0.01)


async def seam(place: str, jobs: int) -> None:
    """The engine alone, in batches, by callers that each wait for their answer: what the raw clients are compared with."""
    async with make(place, "seam") as app:
        engine = app.engine

        async def give(number: int) -> None:
            for _ in range(number // SEAM_BATCH):
                await engine.submit([Job(uuid4(), "work", "q", b'{"v":%d}' % each) for each in range(SEAM_BATCH)])

        async def take() -> None:
            nonlocal left, ended
            while left > 0:
                claims = await engine.claim("node", ["q"], SEAM_BATCH, lease=15, wait=0.1)
                left -= len(claims)
                await engine.settle([succeeded(claim.token, b"%d" % each, ttl=600) for each, claim in enumerate(claims)])
                ended = time.perf_counter() if claims else ended

        span = Span(jobs)
        await asyncio.gather(*(give(jobs // LANES) for _ in range(LANES)))
        given, left, ended = span.stop(), jobs, 0.0
        span = Span(jobs)
        await asyncio.gather(*(take() for _ in range(LANES)))
    report(give=given, take=span.stop(ended - span.wall))


async def work(place: str) -> None:
    """A worker, until it is killed."""
    spare_the_collector()
    await make(place).start()


async def trips(place: str, count: int) -> None:
    """Milliseconds from submit to value, one after the other."""
    async with make(place) as app:
        report(trip=await time_trips(lambda: app.run(noop), count))


async def idle(place: str, seconds: int) -> None:
    """What a worker without work costs, after the first two seconds."""
    app = make(place, "idle")
    spare_the_collector()
    worker = asyncio.create_task(app.start())
    await asyncio.sleep(2)
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    percent = (time.process_time() - cpu) / (time.perf_counter() - wall) * 100
    figures = {"cpu": percent, "mb": resident()}
    await app.close()
    await worker
    report(idle=figures)


async def idlers(place: str, number: int) -> None:
    """So many workers without work in one process, until it is killed: to their server they look like as many processes."""
    apps = [make(place, "idle", node_id=f"idler-{uuid4()}") for _ in range(number)]
    workers = [asyncio.create_task(app.start()) for app in apps]
    async with asyncio.timeout(60):
        while not all(app.worker is not None and app.worker.ready for app in apps):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.1)
    report(ready=number)
    await asyncio.gather(*workers)


def mark(name: str, tasks: int) -> None:
    """So many tasks are done: stand still until whoever counts the round trips has read the counter."""
    print(name, tasks, flush=True)
    sys.stdin.readline()


async def give_counted(place: str, ones: int, many: int) -> None:
    """Submit for the one who counts: one by one, and in one batch, after some that do not count."""
    for name, number, batch in (("one", ones, 1), ("many", many, BATCH)):
        async with make(place, name) as app:
            for _ in range(WARM // 10):
                await app.submit(noop)
            mark(f"submit {name}", 0)
            for _ in range(0, number, batch):
                await app.submit_many([app.create_request(noop) for _ in range(batch)])
            mark(f"submit {name}", number)


async def take_counted(place: str, line: str, slots: int, total: int) -> None:
    """Run what is in line for the one who counts, with so many slots; the first tasks do not count."""
    app = make(place, line, maximum_concurrency=slots, minimum_concurrency=slots)
    worker = asyncio.create_task(app.start())
    while counter.count < WARM // 10:  # noqa: ASYNC110 - the task itself has nothing to wait with
        await asyncio.sleep(0)
    mark(f"run {line}", counter.count)
    await ran(app, worker, total + WARM // 10)
    mark(f"run {line}", counter.count)
    await app.close()
    await worker


def resident() -> float | None:
    """Megabytes of memory in use, where the system says so."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), None)


if __name__ == "__main__":
    command, *given = sys.argv[1:]
    commands: dict[str, Callable[..., Awaitable[None]]] = {
        "submit": submit, "drain": drain, "seam": seam, "work": work, "trips": trips, "idle": idle, "idlers": idlers,
    }  # fmt: skip
    commands |= {"give": give_counted, "take": take_counted}
    asyncio.run(commands[command](*(int(each) if each.isdigit() else each for each in given)))
