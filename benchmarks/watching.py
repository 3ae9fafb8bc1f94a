"""What watching costs, and how soon it tells.

``python -m benchmarks.watching COMMAND URL …`` prints one line of JSON. With ``memory://`` all is in one process; elsewhere who changes and
who watches are in processes of their own.
"""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from statistics import quantiles
from typing import Any
from uuid import UUID

from benchmarks.app import resident
from benchmarks.peers.meter import Span, report
from mognet import App, AppConfig, Context, Request
from mognet.cli.run import spare_the_collector
from mognet.outcomes import Change
from mognet.records import Query
from mognet.states import ResultState

COMMAND = [sys.executable, "-m", "benchmarks.watching"]

PAUSE = 0.025
"""Seconds between two changes whose way to the watch is timed: each comes alone."""

FOR_LONG = 100_000
"""More changes than anybody waits for."""

BATCH = 1000

RETURNING = 300
"""Clients of a server that has been started anew: each comes back with its cursor, and wants its own user's jobs."""

BEHIND = 5000
"""Changes since then."""

Figures = dict[str, Any]


def measure(call: Callable[..., Figures], url: str, quick: bool, clean: Callable[[], object] = bool) -> Figures:
    """All figures. ``call`` runs a command in a process of its own, and gives what it reports; ``clean`` empties the store."""
    tasks = 2000 if quick else 10_000
    parts = {
        "delays": ("delays", 200),
        "crowd": ("crowd", 1000),
        "returning": ("returning", RETURNING, BEHIND),
        "progress": ("progress", 100_000),
    }
    bursts = {"alone": ("burst", tasks, 0), "watched": ("burst", tasks, 1)}
    found: Figures = {}
    for part, words in (parts | bursts).items():
        clean()
        found |= {part: next(iter(call(COMMAND, words[0], url, *words[1:]).values()))}
    return found


def rows(found: Figures, limit: float) -> Iterator[tuple[Any, ...]]:
    """Lines for the table; the delay is to be less than ``limit`` milliseconds."""
    delay, crowd, back, progress = found["delays"], found["crowd"], found["returning"], found["progress"]
    alone, watched = found["alone"]["rate"], found["watched"]["rate"]
    memory = "" if crowd["kb"] is None else f", {crowd['kb']:.0f} KB each"
    yield "change to watch p50, ms", f"{delay['p50']:.1f}", f"p95 {delay['p95']:.1f}, another process", delay["p95"], ("<", limit)
    yield "1,000 watches, CPU s", f"{crowd['cpu']:.2f}", f"{crowd['events']:,} events{memory}", None
    yield "… last end to last event", f"{crowd['late']:.0f} ms", "", crowd["late"], ("<", 1000)
    yield f"{RETURNING} come back, s", f"{back['took']:.2f}", f"{BEHIND:,} changes behind", back["took"], ("<", 5)
    yield "… change to another watch p50, ms", f"{back['p50']:.1f}", f"p95 {back['p95']:.1f}, meanwhile", back["p95"], ("<", 2 * limit)
    yield "burst, watched", f"{watched:,.0f}/s", f"nobody watches {alone:,.0f}/s", watched / alone
    writes = progress["writes"] / progress["allowed"]
    yield "progress, µs per call", f"{progress['us']:.1f}", f"{progress['writes']} writes", writes, ("<=", 1)


async def noop() -> None:
    pass


async def steps(context: Context) -> None:
    """Three changes, beside its start and end."""
    for number in range(3):
        await context.set_metadata(step=number)
        await asyncio.sleep(0.05)


async def count_up(context: Context, calls: int) -> float:
    begin = time.perf_counter()
    for number in range(calls):
        await context.progress(number + 1, calls)
    return time.perf_counter() - begin


def make(url: str, **settings: Any) -> App:
    app = App("bench", AppConfig(**settings), url=url)
    for function in (noop, steps, count_up):
        app.task(function)
    return app


def another(url: str, *words: object) -> subprocess.Popen[bytes] | None:
    """The other side in a process of its own, where the engine can be reached from one."""
    if url.startswith("memory:"):
        return None
    return subprocess.Popen([*COMMAND, *map(str, words)], stdout=subprocess.DEVNULL)


async def feed(url: str, id: str, count: int) -> None:
    """Change a job's metadata, again and again, to the moment of the change."""
    async with make(url) as app:
        for number in range(count + 1):
            await app.result_backend.set_metadata(UUID(id), number=number, sent=time.time())
            await asyncio.sleep(PAUSE)


async def delays(url: str, count: int) -> None:
    """Milliseconds from just before a change until the event of it."""
    async with make(url) as app:
        result = await app.submit(noop)
        events = app.watch(result.id)
        await anext(events)
        process = another(url, "feed", url, result.id, count)
        task = None if process is not None else asyncio.create_task(feed(url, str(result.id), count))
        times, told = [], 0
        async with asyncio.timeout(60):
            while told < count:
                event = await anext(events)
                told = event.metadata["number"]
                if told > 0:
                    times.append((time.time() - event.metadata["sent"]) * 1000)
        if process is not None:
            process.wait()
        if task is not None:
            await task
    cuts = quantiles(times, n=20)
    report(delay={"p50": cuts[9], "p95": cuts[18]})


async def crowd(url: str, watches: int) -> None:
    """So many watches in one process, each of a job of its own that changes five times."""
    async with make(url) as app:
        results = await app.submit_many([app.create_request(steps) for _ in range(watches)])
        before, told = resident(), 0

        async def follow(id: UUID) -> None:
            nonlocal told
            async for _ in app.watch(id):
                told += 1

        following = [asyncio.create_task(follow(result.id)) for result in results]
        await asyncio.sleep(1)
        memory = None if before is None else ((resident() or before) - before) * 1024 / watches
        process = another(url, "work", url)
        worker = None if process is not None else asyncio.create_task(make(url).start(burst=True))
        cpu = time.process_time()
        try:
            async with asyncio.timeout(120):
                await asyncio.gather(*following)
        finally:
            if process is not None:
                process.kill()
                process.wait()
        seen = time.time()
        ends = [record.finished async for record in app.engine.search(Query())]
        if worker is not None:
            await worker
        report(crowd={"late": (seen - max(ends)) * 1000, "events": told, "cpu": time.process_time() - cpu, "kb": memory})


async def returning(url: str, watches: int, behind: int) -> None:
    """So many watches from a cursor of before so many changes, each of a user of its own; and how soon a live one tells meanwhile."""
    async with make(url, searchable_metadata=("user_id",)) as app:
        changing, cursor, name = await app.submit(noop), await app.cursor(), app.create_request(noop).name
        for start in range(0, behind, BATCH):
            numbers = range(start, min(behind, start + BATCH))
            await app.submit_many([Request(name=name, metadata={"user_id": number % watches}) for number in numbers])
        live = app.watch(changing.id)
        await anext(live)
        process = another(url, "feed", url, changing.id, FOR_LONG)
        task = None if process is not None else asyncio.create_task(feed(url, str(changing.id), FOR_LONG))
        times: list[float] = []
        told = 0

        async def listen() -> None:
            async for event in live:
                times.append((time.time() - event.metadata["sent"]) * 1000)

        async def follow(user: int) -> None:
            nonlocal told
            events = app.watch(metadata={"user_id": user}, since=cursor)
            for _ in range(user, behind, watches):
                await anext(events)
                told += 1

        await anext(live)
        listening = asyncio.create_task(listen())
        begin = time.perf_counter()
        try:
            async with asyncio.timeout(300):
                await asyncio.gather(*(follow(user) for user in range(watches)))
        finally:
            took = time.perf_counter() - begin
            if process is not None:
                process.kill()
                process.wait()
            for each in filter(None, (listening, task)):
                each.cancel()
        cuts = quantiles(times, n=20)
        report(returning={"took": took, "events": told, "p50": cuts[9], "p95": cuts[18], "times": len(times)})


async def progress(url: str, calls: int) -> None:
    """Microseconds of a call, and how often the store was written to."""
    app = make(url)
    async with app:
        writes, update = 0, app.engine.update

        async def counted(id: UUID, change: Change, *, unless: frozenset[ResultState] = frozenset()) -> object:
            nonlocal writes
            writes += change.progress is not None
            return await update(id, change, unless=unless)

        app.engine.update = counted  # type: ignore[method-assign]
        result = await app.submit(count_up, calls)
        await app.start(burst=True)
        took = await result.get() if app._engine is not None else 0.0
        report(progress={"us": took / calls * 1e6, "writes": writes, "allowed": took * 10 + 2})


async def burst(url: str, tasks: int, watched: int) -> None:
    """No-op tasks in line, run by a worker in a process of its own, with so many watches of everything."""
    async with make(url) as app:
        for _ in range(0, tasks, BATCH):
            await app.submit_many([app.create_request(noop) for _ in range(BATCH)])
        told: set[UUID] = set()

        async def follow() -> None:
            async for event in app.watch():
                if event.done:
                    told.add(event.id)

        following = [asyncio.create_task(follow()) for _ in range(watched)]
        await asyncio.sleep(0.5)
        process = another(url, "work", url)
        worker = None if process is not None else asyncio.create_task(make(url).start(burst=True))
        span = Span(tasks)
        done = Query(states=frozenset({ResultState.SUCCESS}))
        while sum((await app.engine.count(done)).values()) < tasks:  # noqa: ASYNC110 - looking costs what is measured
            await asyncio.sleep(0.05)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10 if watched else 0):
                while len(told) < tasks:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert not watched or len(told) == tasks, f"{len(told)} of {tasks} ends were told"
        records = [record async for record in app.engine.search(done)]
        took = max(record.finished for record in records) - min(record.started for record in records)
        for each in following:
            each.cancel()
        if process is not None:
            process.kill()
            process.wait()
        if worker is not None:
            await worker
        report(burst=span.stop(took))


async def work(url: str) -> None:
    """A worker, until it is killed."""
    spare_the_collector()
    await make(url).start()


if __name__ == "__main__":
    command, url, *words = sys.argv[1:]
    if command == "feed":
        asyncio.run(feed(url, words[0], int(words[1])))
    else:
        commands = {"delays": delays, "crowd": crowd, "returning": returning, "progress": progress, "burst": burst, "work": work}
        asyncio.run(commands[command](url, *map(int, words)))
