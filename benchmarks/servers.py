"""mognet on servers, beside their own clients doing the least for the same job."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks import contest, metadata, watching
from benchmarks.counting import count
from benchmarks.peers.meter import family_cpu
from benchmarks.table import OURS, Figures, Row, beside, call, medians, round_trips, say
from servers import Server
from servers.postgres import own_postgres, query
from servers.rabbitmq import rabbitmq_server
from servers.redis import redis_server

A_THIRD = (">=", 0.33)
LIMITS = {"submit": 1, "run": 2}
"""Round trips for each task; a broker before the store adds one each."""

IDLE_SECONDS, CROWD_SECONDS, CROWD, CROWD_PROCESSES = 10, 40, 200, 4


class Running(NamedTuple):
    """A server that has been started."""

    server: Server
    url: str
    clean: Callable[[], object]
    size: Callable[[], int]
    """Bytes that it holds."""


@contextmanager
def _redis() -> Iterator[Running]:
    """As most run it: the log is written to disk every second."""
    from redis import Redis

    with tempfile.TemporaryDirectory(prefix="mognet-bench-") as folder:
        server, url = redis_server(Path(folder), "--appendfsync", "everysec")
        server.start()
        with Redis.from_url(url) as client:
            try:
                yield Running(server, url, client.flushall, lambda: client.info("memory")["used_memory"])
            finally:
                server.kill()


_SIZE = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'mognet'::regnamespace"


@contextmanager
def _postgresql() -> Iterator[Running]:
    """Each commit is on disk before it is answered; room for a crowd."""
    with own_postgres(max_connections=str(6 * CROWD), autovacuum_naptime="1min") as (server, url):

        def clean() -> None:
            query(url, "DROP SCHEMA IF EXISTS mognet CASCADE")
            query(url, "DROP SCHEMA public CASCADE")
            query(url, "CREATE SCHEMA public")

        def size() -> int:
            [(held,)] = query(url, _SIZE)
            return int(str(held))

        yield Running(server, url, clean, size)


@contextmanager
def _rabbitmq() -> Iterator[Running]:
    """One node; tickets are persistent. Each subject leaves its queues empty."""
    with tempfile.TemporaryDirectory(prefix="mognet-bench-") as folder:
        server, url = rabbitmq_server(Path(folder))
        server.start()
        try:
            yield Running(server, url, lambda: None, lambda: 0)
        finally:
            server.kill()


ENGINES = {
    "redis": (_redis,),
    "postgresql": (_postgresql,),
    "rabbitmq+redis": (_rabbitmq, _redis),
    "rabbitmq+postgresql": (_rabbitmq, _postgresql),
}


def measure(engine: str, options: argparse.Namespace) -> Figures | None:
    """All figures of one engine; None if one of its servers is not installed."""
    with ExitStack() as stack:
        try:
            running = [stack.enter_context(start()) for start in ENGINES[engine]]
        except pytest.skip.Exception as error:
            print(f"{engine} is left out: {error}", file=sys.stderr)
            return None
        place, found = ",".join(each.url for each in running), Figures(settings={"runs": options.runs})

        def clean() -> None:
            for each in running:
                each.clean()

        if "rates" in options.only:
            found |= _rates(engine, running, options)
        if "peers" in options.only and contest.PEERS[engine]:
            found["peers"] = contest.measure(engine, place, clean, options)
        # A broker has no part in watching and finding: that is the store's.
        if "watching" in options.only and len(running) == 1:
            say(f"{engine}: watching")
            found["watching"] = watching.measure(call, place, options.quick, clean)
        if "metadata" in options.only and len(running) == 1:
            found["metadata"] = metadata.measure(lambda _: place, lambda _: running[0].size(), clean, options.jobs, quick=options.quick)
        return found


def _rates(engine: str, running: list[Running], options: argparse.Namespace) -> Figures:
    place = ",".join(each.url for each in running)
    raw = [sys.executable, "-m", f"benchmarks.raw.{engine.partition('+')[0].removesuffix('ql')}"]
    jobs, ones = (10_000, 300) if options.quick else (20_000, 1000)
    runs: dict[str, list[Figures]] = defaultdict(list)

    def clean() -> None:
        for each in running:
            each.clean()

    for number in range(1, options.runs + 1):
        say(f"{engine}, run {number} of {options.runs}")
        clean()
        ours = call(OURS, "seam", place, jobs)
        clean()
        ours |= call(OURS, "submit", place, ones, jobs) | call(OURS, "drain", place, jobs)
        clean()
        runs["mognet"].append(ours | round_trips(OURS, place, 100) | call(OURS, "idle", place, IDLE_SECONDS))
        clean()
        theirs = call(raw, "rates", place, jobs, ones)
        clean()
        runs["raw"].append(theirs | round_trips(raw, place, 100))
    say(f"{engine}: round trips, {CROWD} idle workers")
    clean()
    trips = asyncio.run(count(place, ones, jobs))
    clean()
    return {
        "subjects": {name: medians(each) for name, each in runs.items()},
        "trips": trips,
        "crowd": _crowd(place, [each.server for each in running], CROWD_SECONDS),
        "settings": {"tasks": jobs, "one by one": ones, "runs": options.runs},
        "runs": runs,
    }


def _crowd(place: str, servers: list[Server], seconds: int) -> dict[str, float]:
    """What so many idle workers cost each server, in percent of a core."""
    with ExitStack() as stack:
        for process in [stack.enter_context(beside(OURS, "idlers", place, CROWD // CROWD_PROCESSES)) for _ in range(CROWD_PROCESSES)]:
            assert process.stdout is not None and process.stdout.readline(), "the idle workers have ended"
        time.sleep(30)  # they come to rest: connections are made, statements prepared
        before, begin = [family_cpu(server.pid) for server in servers], time.perf_counter()
        time.sleep(seconds)
        took = time.perf_counter() - begin
        return {server.name: (family_cpu(server.pid) - each) / took * 100 for server, each in zip(servers, before, strict=True)}


def rows(engine: str, found: Figures) -> list[Row]:
    """The lines of what was measured."""
    table = _rate_rows(engine, found) if "subjects" in found else []
    if "watching" in found:
        table += [Row(*row) for row in watching.rows(found["watching"], 50)]
    return table + list(metadata.rows(found["metadata"]) if "metadata" in found else ())


def _rate_rows(engine: str, found: Figures) -> list[Row]:
    ours, raw = found["subjects"]["mognet"], found["subjects"]["raw"]
    table = []
    compared = (
        ("engine: submit by the hundred", "give", "give"),
        ("engine: claim, settle", "take", "take"),
        ("app: submit_many, one caller", "many", "alone"),
        ("app: submit one by one", "one", "one"),
        ("app: burst, one worker", "burst", "take"),
    )
    for measure, mine, other in compared:
        rate, beside = ours[mine]["rate"], raw[other]["rate"]
        table.append(Row(measure, f"{rate:,.0f}/s", f"raw {beside:,.0f}/s", rate / beside, A_THIRD))
    mine, other = ours["trip"], raw["trip"]
    table.append(
        Row("app: round trip p50, ms", f"{mine['p50']:.2f}", f"raw {other['p50']:.2f}", other["p50"] / mine["p50"], A_THIRD),
    )
    parts = engine.split("+")
    for what, name in (
        ("submit one", "to submit one"),
        ("run one", "to run one"),
        ("submit many", "… by the thousand"),
        ("run many", "… 100 slots"),
    ):
        each, limit = found["trips"][what], LIMITS[what.split()[0]] + len(parts) - 1
        shown = " + ".join(f"{server} {number:.3f}" for server, number in zip(parts, each, strict=True))
        batch = 1 if what.endswith("one") else 20
        table.append(
            Row(f"round trips {name}", f"{sum(each):.2f}", shown, round(sum(each), 1) if batch == 1 else sum(each), ("<=", limit / batch))
        )
    idle = ours["idle"]
    table.append(Row("idle worker, % of a core", f"{idle['cpu']:.2f}", "", idle["cpu"], ("<", 1)))
    table.append(Row("idle worker, MB", f"{idle['mb']:.0f}", "", idle["mb"], ("<", 60)))
    for server, percent in found["crowd"].items():
        table.append(Row(f"{CROWD} idle: {server}, %", f"{percent:.2f}", "", percent, ("<", 5)))
    return table
