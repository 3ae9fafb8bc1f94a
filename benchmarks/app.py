"""mognet's own part: an app with one task that does nothing, submitted and run with the default settings.

``python -m benchmarks.app COMMAND FOLDER …`` prints one line of JSON, like the peers. The worker is what ``mognet run`` runs:
``app.start()`` in a process of its own, which spares the garbage collector in the same way, logging warnings and above.
"""

import asyncio
import sys
import time
from pathlib import Path
from statistics import quantiles

from benchmarks.peers.meter import WARM, Counter, Span, report
from mognet import App
from mognet.cli.run import spare_the_collector
from mognet.records import Query

BATCH = 1000

counter = Counter()


async def noop() -> None:
    counter.tick()


def make(folder: Path, file: str = "line.db") -> App:
    app = App("bench", url=f"sqlite:///{folder / file}")
    app.task(noop)
    return app


async def submit(folder: Path, ones: int, many: int) -> None:
    async with make(folder, "one.db") as app:
        for _ in range(WARM):
            await app.submit(noop)
        span = Span(ones)
        for _ in range(ones):
            await app.submit(noop)
        one = span.stop()
    async with make(folder) as app:
        span = Span(many)
        for start in range(0, many, BATCH):
            await app.submit_many([app.create_request(noop) for _ in range(min(BATCH, many - start))])
        report(one=one, many=span.stop())


async def drain(folder: Path, total: int) -> None:
    """The span is from the first claim to the last end, both as the store has them."""
    app = make(folder)
    spare_the_collector()
    worker = asyncio.create_task(app.start())
    give_up = time.monotonic() + 120
    while counter.count < total or (app.worker is not None and app.worker.running_tasks):
        if time.monotonic() > give_up or worker.done():
            sys.exit(f"{counter.count} of {total} tasks ran within 120 s")
        await asyncio.sleep(0.01)
    figures = counter.stop()
    records = [record async for record in app.engine.search(Query())]
    assert len([record for record in records if record.state == "SUCCESS"]) == total, "not all have succeeded"
    figures["rate"] = total / (max(r.finished for r in records) - min(r.started for r in records))
    await app.close()
    await worker
    report(burst=figures)


async def work(folder: Path) -> None:
    """A worker, until it is killed."""
    await make(folder).start()


async def trips(folder: Path, count: int) -> None:
    """Milliseconds from submit to value, one after the other."""
    async with make(folder) as app:
        times = []
        for number in range(count + 10):
            begin = time.perf_counter()
            await app.run(noop)
            if number >= 10:
                times.append((time.perf_counter() - begin) * 1000)
            await asyncio.sleep(0.005)  # the worker has nothing to do again
    cuts = quantiles(times, n=20)
    report(trip={"p50": cuts[9], "p95": cuts[18]})


async def idle(folder: Path, seconds: int) -> None:
    """What a worker without work costs, after the first two seconds."""
    app = make(folder)
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


def resident() -> float | None:
    """Megabytes of memory in use, where the system says so."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), None)


if __name__ == "__main__":
    command, folder, *numbers = sys.argv[1:]
    asyncio.run({"submit": submit, "drain": drain, "work": work, "trips": trips, "idle": idle}[command](Path(folder), *map(int, numbers)))
