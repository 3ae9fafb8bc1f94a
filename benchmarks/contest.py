"""mognet on servers, by turns with other Python task queues on the same servers."""

import argparse
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

from benchmarks.environments import prepare
from benchmarks.table import OURS, ROOT, Figures, Row, call, medians, round_trips, say

REQUIREMENTS = {
    "taskiq": ("taskiq==0.13.0", "taskiq-redis==1.2.4", "taskiq-aio-pika==0.6.1", "hiredis==3.5.0", "orjson==3.13.0"),
    "arq": ("arq==0.28.0", "hiredis==3.5.0"),
    "saq": ("saq[redis,hiredis,postgres]==0.26.4", "psycopg[binary]==3.3.9"),
    "streaq": ("streaq==7.2.0",),
    "dramatiq": ("dramatiq[redis,rabbitmq]==2.2.1", "hiredis==3.5.0"),
    "celery": ("celery[redis]==5.7.0", "hiredis==3.5.0"),
    "rq": ("rq==2.12.0", "hiredis==3.5.0"),
    "procrastinate": ("procrastinate==3.10.0", "psycopg[binary,pool]==3.3.9"),
    "pgqueuer": ("pgqueuer[asyncpg]==1.6.0", "psycopg[binary]==3.3.9"),
}
PEERS = {
    "redis": ("taskiq", "arq", "saq", "streaq", "dramatiq", "celery", "rq"),
    "postgresql": ("procrastinate", "pgqueuer", "saq"),
    "rabbitmq+redis": ("taskiq", "dramatiq", "celery"),
    "rabbitmq+postgresql": (),
}

IDLE_SECONDS, TRIPS = 10, 100
AHEAD = (">=", 1.0)

Subject = Callable[[str], Figures]


class Load(NamedTuple):
    """How much each subject does in a run."""

    ones: int
    many: int


def measure(engine: str, place: str, clean: Callable[[], object], options: argparse.Namespace) -> Figures:
    """Medians of all subjects, which take turns."""
    load = Load(300, 2000) if options.quick else Load(1000, 5000)
    pythons = {} if options.no_peers else {peer: prepare(peer, *REQUIREMENTS[peer]) for peer in PEERS[engine]}
    lines = (f"line-{number}" for number in count())
    runs: dict[str, list[Figures]] = defaultdict(list)
    for number in range(1, options.runs + 1):
        say(f"{engine}, peers, run {number} of {options.runs}: mognet")
        runs["mognet"].append(_ours(place, load, clean))
        for peer, python in pythons.items():
            if python:
                say(f"{engine}, peers, run {number} of {options.runs}: {peer}")
                runs[peer].append(_theirs([python, str(ROOT / "benchmarks" / "peers" / f"{peer}_peer.py")], place, load, clean, lines))
    installed = {peer: REQUIREMENTS[peer][0] for peer in runs if peer in REQUIREMENTS}
    return {"subjects": {name: medians(each) for name, each in runs.items()}, "load": load._asdict(), "peers": installed, "runs": runs}


def _ours(place: str, load: Load, clean: Callable[[], object]) -> Figures:
    clean()
    figures = call(OURS, "submit", place, load.ones, load.many) | call(OURS, "drain", place, load.many)
    clean()
    figures |= round_trips(OURS, place, TRIPS)
    clean()
    figures |= call(OURS, "idle", place, IDLE_SECONDS)
    clean()
    return figures


def _theirs(command: list[str], place: str, load: Load, clean: Callable[[], object], lines: Iterator[str]) -> Figures:
    """A line of its own for what is not drained: brokers are not cleaned between."""
    figures = Figures()
    for parts in ([("singly", load.ones)], [("many", load.many), ("drain", load.many)], [("trips", TRIPS)], [("idle", IDLE_SECONDS)]):
        os.environ |= {"BENCH_PLACE": place, "BENCH_LINE": next(lines)}
        for part in parts:
            figures |= call(command, *part)
        clean()
    return figures


def rows(found: Figures) -> Iterator[Row]:
    """One line for each measure and peer; ratios above one are mognet's lead."""
    subjects = found["subjects"]
    ours = subjects["mognet"]
    for measure, what, figure, shown, more in (
        ("submit one by one", "one", "rate", "{:,.0f}/s", True),
        ("submit many", "many", "rate", "{:,.0f}/s", True),
        ("burst, one worker", "burst", "rate", "{:,.0f}/s", True),
        ("round trip p50, ms", "trip", "p50", "{:.2f}", False),
        ("CPU ms a task: submit one", "one", "cpu", "{:.3f}", False),
        ("CPU ms a task: submit many", "many", "cpu", "{:.3f}", False),
        ("CPU ms a task: burst", "burst", "cpu", "{:.3f}", False),
        ("idle worker, % of a core", "idle", "cpu", "{:.2f}", False),
    ):
        for peer in [name for name in subjects if name != "mognet"]:
            mine, theirs = ours[what][figure], subjects[peer][what][figure]
            ratio = None if not mine or not theirs else mine / theirs if more else theirs / mine
            target = None if what == "idle" else AHEAD
            yield Row(measure, shown.format(mine), f"{peer} {shown.format(theirs)}", ratio, target)
