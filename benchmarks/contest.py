"""mognet on servers, by turns with other Python task queues on the same servers."""

import argparse
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

from benchmarks.environments import prepare
from benchmarks.table import OURS, ROOT, Figures, call, medians, round_trips, say

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


class Measure(NamedTuple):
    """One column of the table."""

    title: str
    what: str
    figure: str
    shown: str
    more: bool
    """More is better."""
    target: bool = True
    """mognet is to be ahead."""


MEASURES = (
    Measure("one by one, /s", "one", "rate", "{:,.0f}", more=True),
    Measure("in bulk, /s", "many", "rate", "{:,.0f}", more=True),
    Measure("burst, /s", "burst", "rate", "{:,.0f}", more=True),
    Measure("trip p50, ms", "trip", "p50", "{:.1f}", more=False),
    Measure("CPU ms: one", "one", "cpu", "{:.3f}", more=False),
    Measure("CPU ms: bulk", "many", "cpu", "{:.3f}", more=False),
    Measure("CPU ms: burst", "burst", "cpu", "{:.3f}", more=False),
    Measure("idle, %", "idle", "cpu", "{:.2f}", more=False, target=False),
)


class Load(NamedTuple):
    """How much each subject does in a run."""

    ones: int
    many: int


def measure(engine: str, place: str, clean: Callable[[], object], options: argparse.Namespace) -> Figures:
    """Medians of all subjects, which take turns."""
    load = Load(1000, 2000) if options.quick else Load(1000, 5000)
    pythons = {} if options.no_peers else {peer: prepare(peer, *REQUIREMENTS[peer]) for peer in PEERS[engine]}
    lines = (f"line-{number}" for number in count())
    runs: dict[str, list[Figures]] = defaultdict(list)
    for number in range(1, options.runs + 1):
        say(f"{engine}, peers, run {number} of {options.runs}: mognet")
        runs["mognet"].append(_ours(place, load, clean, idle=number == 1))
        for peer, python in pythons.items():
            if python:
                say(f"{engine}, peers, run {number} of {options.runs}: {peer}")
                runs[peer].append(
                    _theirs([python, str(ROOT / "benchmarks" / "peers" / f"{peer}_peer.py")], place, load, clean, lines, idle=number == 1)
                )
    installed = {peer: REQUIREMENTS[peer][0] for peer in runs if peer in REQUIREMENTS}
    return {"subjects": {name: medians(each) for name, each in runs.items()}, "load": load._asdict(), "peers": installed, "runs": runs}


def _ours(place: str, load: Load, clean: Callable[[], object], *, idle: bool) -> Figures:
    clean()
    figures = call(OURS, "submit", place, load.ones, load.many) | call(OURS, "drain", place, load.many)
    clean()
    figures |= round_trips(OURS, place, TRIPS)
    clean()
    if idle:
        figures |= call(OURS, "idle", place, IDLE_SECONDS)
        clean()
    return figures


def _theirs(command: list[str], place: str, load: Load, clean: Callable[[], object], lines: Iterator[str], *, idle: bool) -> Figures:
    """A line of its own for what is not drained: brokers are not cleaned between."""
    figures = Figures()
    parts = [[("singly", load.ones)], [("many", load.many), ("drain", load.many)], [("trips", TRIPS)]]
    for part in [*parts, [("idle", IDLE_SECONDS)]] if idle else parts:
        os.environ |= {"BENCH_PLACE": place, "BENCH_LINE": next(lines)}
        for words in part:
            figures |= call(command, *words)
        clean()
    return figures


def show(found: Figures) -> None:
    """One line for each subject; behind a peer's figure is how far mognet is ahead, and a mark where it is not."""
    subjects = found["subjects"]
    ours = subjects["mognet"]
    print(f"{'':<14}" + "".join(f"{each.title:>16}" for each in MEASURES))
    for name, figures in subjects.items():
        cells = [_cell(each, ours[each.what][each.figure], figures[each.what][each.figure], name == "mognet") for each in MEASURES]
        print(f"{name:<14}" + "".join(f"{cell:>16}" for cell in cells))


def _cell(measure: Measure, mine: float, theirs: float, alone: bool) -> str:
    shown = measure.shown.format(theirs)
    if alone:
        return f"{shown}       "
    if not mine or not theirs:
        return f"{shown}     - "
    ratio = mine / theirs if measure.more else theirs / mine
    return f"{shown} {ratio:>5.{1 if ratio >= 10 else 2}f}{' ' if ratio >= 1 or not measure.target else '!'}"
