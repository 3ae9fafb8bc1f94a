"""How soon jobs are found by their metadata among many others, and what it costs to be found.

``python -m benchmarks.metadata COMMAND PLACE …`` prints one line of JSON. The place is a folder (SQLite) or a URL. A store of the size that
is asked for is filled through the seam, by the same calls in which an app and its workers submit, claim and settle.
"""

import asyncio
import logging
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count as numbers
from itertools import cycle, islice
from statistics import median, quantiles
from uuid import uuid4

from benchmarks.app import BATCH, LANES, make, noop
from benchmarks.peers.meter import WARM, Span, report
from benchmarks.table import Figures, Row, call, say
from mognet import App, Request, ResultState
from mognet.outcomes import succeeded
from mognet.records import Job, Query

COMMAND = [sys.executable, "-m", "benchmarks.metadata"]

RUNNING = 10_000
"""Jobs that run, spread over all that have finished."""

PAGE = 50
VALUES = 100
"""Tenants, and regions; each job is one of a hundred with its own."""

ONES = 50
"""Jobs submitted one by one in a turn: short turns, so that other load falls on all alike."""

DAY = 86_400.0
MOST_WEIGHED = 50_000
"""Jobs that are weighed; more weigh the same."""

KEYS = ("tenant_id", "region", "order_id")
WEIGHED = {"no metadata": (), "three keys": (), "three keys, one indexed": KEYS[:1], "three keys, all indexed": KEYS}


AGAINST = {"bare": "bare", "key": "bare", "more": "key", "indexed": "key"}
"""Which rate each is compared with."""

TENANTS = cycle(f"tenant-{number}" for number in range(VALUES))


def labels(number: int) -> bytes:
    """Three keys of a job, one of them with a value that no other job has."""
    return b'{"tenant_id":"tenant-%d","region":"region-%d","order_id":%d}' % (number % VALUES, number // VALUES % VALUES, number)


def measure(place: Callable[[str], str], size: Callable[[str], int], clean: Callable[[], object], jobs: int, *, quick: bool) -> Figures:
    """All figures. ``place`` says where a store of this name is, ``size`` how many bytes it holds, and ``clean`` empties what there is."""
    found: Figures = {}
    clean()
    say("metadata: what is declared, kept and logged costs")
    found["submit"] = call(COMMAND, "submit", place("rates"), 20 if quick else 60)["submit"]
    clean()
    found["logs"] = call(COMMAND, "logs", place("logs"), 5 if quick else 11)["logs"]
    say("metadata: bytes for each job")
    weights = {}
    for number, name in enumerate(WEIGHED):
        clean()
        there = place(f"weight{number}")
        call(COMMAND, "open", there, number)
        empty, few = size(there), min(jobs, MOST_WEIGHED)
        call(COMMAND, "weigh", there, number, few)
        weights[name] = (size(there) - empty) / few
    found["weights"] = weights
    clean()
    say(f"metadata: {jobs:,} finished and {RUNNING:,} running jobs")
    there = place("filled")
    found["fill"] = call(COMMAND, "fill", there, jobs)["fill"]
    found["find"] = call(COMMAND, "find", there, 100 if quick else 500)["find"]
    clean()
    return found


def rows(found: Figures) -> Iterator[Row]:
    """Lines for the table."""
    jobs, times = found["fill"]["jobs"], found["find"]

    def timed(measure: str, what: str, limit: float | None = None) -> Row:
        p50, p95 = times[what]["p50"], times[what]["p95"]
        return Row(f"{measure}, ms", f"{p50:,.1f}", f"p95 {p95:,.1f}", p95, None if limit is None else ("<", limit))

    yield Row("jobs in the store", f"{jobs:,}", f"filled in {found['fill']['seconds']:.0f} s", None)
    yield timed(f"page of {PAGE} by an indexed key", "page", 10)
    yield timed("… the one after it", "next", 10)
    yield timed("… that run", "running", 10)
    yield timed("… by two keys, one indexed", "two")
    yield timed("… by a key that is not", "unindexed")
    yield timed("… of which there is none", "nobody")
    yield timed("count of one value, indexed", "count")
    yield timed("… of a key that is not", "count unindexed")
    yield timed("count by an indexed key", "groups")
    yield timed("… by a key that is not", "groups unindexed")
    for what, name in {"many": "submit_many", "one": "submit one by one"}.items():
        each = found["submit"][what]
        for kind, words, beside, limit in (
            ("key", "a key", "without", 0.97),
            ("more", "another key", "one key", 0.97),
            ("indexed", "it is indexed", "it is not", 0.9),
        ):
            rates = f"{each[kind]:,.0f}/s", f"{beside} {each[AGAINST[kind]]:,.0f}/s"
            yield Row(f"{name}, {words}", *rates, each[f"{kind} ratio"], (">=", limit))
    logs = found["logs"]
    yield Row("burst, a line kept of each", f"{logs['kept']:,.0f}/s", f"not kept {logs['dropped']:,.0f}/s", logs["ratio"])
    bare = found["weights"]["no metadata"]
    for name, weight in found["weights"].items():
        yield Row(f"bytes per job, {name}", f"{weight:,.0f}", f"+ {weight - bare:,.0f}" if weight != bare else "", None)


# --- finding


async def give_and_end(app: App, jobs: int, running: int = 0, metadata: Callable[[int], bytes] = labels) -> None:
    """Finished jobs, and some that run, spread over them, by several callers."""
    total, engine = jobs + running, app.engine
    left, ids = iter(range(total)), numbers()

    async def lane(queue: str) -> None:
        while some := list(islice(left, BATCH)):
            await engine.submit([Job(uuid4(), "bench.work", queue, b'{"v":1}', metadata(number)) for number in some])
            missing = len(some)
            while missing:
                claims = await engine.claim("node", [queue], missing, lease=DAY, wait=1)
                missing -= len(claims)
                ended = [claim for claim in claims if next(ids) * running % total >= running]
                await engine.settle([succeeded(claim.token, b"1", ttl=DAY) for claim in ended])

    await asyncio.gather(*(lane(f"q{number}") for number in range(LANES)))


async def fill(place: str, jobs: int) -> None:
    async with make(place, "filled", searchable_metadata={"tenant_id"}) as app:
        begin = time.perf_counter()
        await give_and_end(app, jobs, RUNNING)
        report(fill={"jobs": jobs + RUNNING, "seconds": time.perf_counter() - begin})


async def find(place: str, rounds: int) -> None:
    """Milliseconds of each question, from the app's call to its answer; those that look at every job are asked less often."""
    logging.getLogger("mognet").setLevel(logging.ERROR)  # it says of a key without an index that it has none
    async with make(place, "filled", searchable_metadata={"tenant_id"}) as app:
        backend, running = app.result_backend, ResultState.RUNNING
        states = await app.engine.count(Query())
        assert states["RUNNING"] == RUNNING, states

        async def page(results: AsyncIterator[object], expected: int = PAGE) -> None:
            got = len([each async for each in results])
            assert got == expected, f"{got} of {expected}"

        def tenant() -> dict[str, object]:
            return {"tenant_id": f"tenant-{random.randrange(VALUES)}"}

        def region() -> dict[str, object]:
            return {"region": f"region-{random.randrange(VALUES)}"}

        async def after() -> Callable[[], Awaitable[None]]:
            which = tenant()
            last = [each async for each in backend.find(metadata=which, limit=PAGE)][-1].cursor
            return lambda: page(backend.find(metadata=which, limit=PAGE, after=last))

        async def counted(wanted: dict[str, object]) -> None:
            assert sum((await backend.count(metadata=wanted)).values())

        async def grouped(key: str) -> None:
            assert len(await backend.count(by=f"metadata:{key}")) == VALUES

        few, fewest, pair = max(5, rounds // 10), 5, min(PAGE, sum(states.values()) // VALUES**2)
        found = {
            "page": await timed(rounds, lambda: page(backend.find(metadata=tenant(), limit=PAGE))),
            "next": await timed(rounds, await after()),
            "running": await timed(rounds, lambda: page(backend.find(metadata=tenant(), state=running, limit=PAGE))),
            "two": await timed(few, lambda: page(backend.find(metadata=tenant() | region(), limit=pair), pair)),
            "unindexed": await timed(few, lambda: page(backend.find(metadata=region(), limit=PAGE))),
            "nobody": await timed(fewest, lambda: page(backend.find(metadata={"region": "nowhere"}, limit=PAGE), 0)),
            "count": await timed(few, lambda: counted(tenant())),
            "count unindexed": await timed(fewest, lambda: counted(region())),
            "groups": await timed(fewest, lambda: grouped("tenant_id")),
            "groups unindexed": await timed(fewest, lambda: grouped("region")),
        }
        report(find=found)


async def timed(rounds: int, ask: Callable[[], Awaitable[None]]) -> dict[str, float]:
    for _ in range(rounds // 10 or 1):
        await ask()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        await ask()
        times.append((time.perf_counter() - begin) * 1000)
    cuts = quantiles(times, n=20, method="inclusive")
    return {"p50": cuts[9], "p95": cuts[18]}


# --- what it costs


async def submit(place: str, rounds: int) -> None:
    """Submits without metadata, with a key, and with a key that is indexed, in turns in one process; ratios of the same turn's rates.

    What is not indexed goes into one of three stores, so that none of it is always in one that happens to be quicker.
    """
    kinds = {"bare": KEYS[:0], "key": KEYS[:1], "indexed": KEYS[:1], "more": KEYS[:2]}
    async with (
        make(place, "one") as one_store,
        make(place, "two") as two,
        make(place, "three") as three,
        make(place, "indexed", searchable_metadata={"tenant_id"}) as indexed,
    ):
        plain = [one_store, two, three]

        def store(kind: str) -> App:
            return indexed if kind == "indexed" else random.choice(plain)

        async def many(kind: str) -> float:
            app = store(kind)
            span = Span(BATCH)
            await app.submit_many([request(app, kinds[kind]) for _ in range(BATCH)])
            return span.stop()["rate"]

        async def one(kind: str) -> float:
            app = store(kind)
            span = Span(ONES)
            for _ in range(ONES):
                await app.submit(request(app, kinds[kind]))
            return span.stop()["rate"]

        for kind in kinds:
            for _ in range(WARM // ONES):
                await one(kind)
        report(submit={"many": await compared(rounds, AGAINST, many), "one": await compared(rounds, AGAINST, one)})


def request(app: App, keys: tuple[str, ...]) -> Request[None]:
    made = app.create_request(noop)
    for key in keys:
        made.metadata[key] = next(TENANTS)
    return made


async def compared(rounds: int, kinds: dict[str, str], run: Callable[[str], Awaitable[float]]) -> dict[str, float]:
    """The median rate of each kind, and the median of each turn's ratios to another kind.

    In any order: with a fixed one, what a store does after so many writes would always fall to the same kind.
    """
    turns = [{kind: await run(kind) for kind in random.sample(list(kinds), len(kinds))} for _ in range(rounds)]
    found = {kind: median(turn[kind] for turn in turns) for kind in kinds}
    return found | {f"{kind} ratio": median(turn[kind] / turn[other] for turn in turns) for kind, other in kinds.items()}


async def one_line() -> None:
    logging.getLogger("bench").info("half of it is done")


async def logs(place: str, rounds: int) -> None:
    """Bursts of a task that logs a line, which is kept with the job and which is not, in turns; both are formatted for no handler."""
    logging.getLogger("bench").setLevel(logging.INFO)
    logging.getLogger("mognet").setLevel(logging.WARNING)

    async def run(kind: str) -> float:
        app, tasks = make(place, kind, keep_logs=100 if kind == "kept" else 0), 2 * BATCH
        app.task(one_line)
        async with app:
            for _ in range(0, tasks, BATCH):
                results = await app.submit_many([app.create_request(one_line) for _ in range(BATCH)])
            before = {record.id async for record in app.engine.search(Query(states=frozenset({ResultState.SUCCESS})))}
            await app.start(burst=True)
        async with app:
            done = [record async for record in app.engine.search(Query()) if record.id not in before]
            assert len(done) == tasks, f"{len(done)} of {tasks}"
            assert len(await app.result_backend.logs(results[-1].id)) == (kind == "kept")
            await app.engine.delete([record.id for record in done])
        return tasks / (max(record.finished for record in done) - min(record.started for record in done))

    figures = await compared(rounds, {"dropped": "dropped", "kept": "dropped"}, run)
    report(logs=figures | {"ratio": figures["kept ratio"]})


# --- what it weighs


def settings(number: int) -> dict[str, set[str]]:
    return {"searchable_metadata": set(list(WEIGHED.values())[number])}


async def open_store(place: str, number: int) -> None:
    async with make(place, "weighed", **settings(number)):
        report(open=number)


async def weigh(place: str, number: int, jobs: int) -> None:
    async with make(place, "weighed", **settings(number)) as app:
        await give_and_end(app, jobs, metadata=labels if number else lambda _: b"{}")
        report(jobs=jobs)


if __name__ == "__main__":
    command, place, *words = sys.argv[1:]
    commands: dict[str, Callable[..., Awaitable[None]]] = {
        "fill": fill, "find": find, "submit": submit, "logs": logs, "open": open_store, "weigh": weigh,
    }  # fmt: skip
    asyncio.run(commands[command](place, *map(int, words)))
