"""mognet on SQLite beside huey and DBOS, each at its best, and what an import costs."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from itertools import count
from pathlib import Path

from benchmarks import metadata, watching
from benchmarks.environments import prepare
from benchmarks.table import OURS, ROOT, Figures, Row, Target, call, medians, round_trips, say

PEERS = {"huey": "huey==3.5.4", "dbos": "dbos==3.4.0"}
NOT_FOR_IMPORT = ("typer", "rich", "sqlite3", "redis", "psycopg", "aiormq", "mognet.engines.sql", "mognet.cli")

# `import pydantic` alone loads its model classes only when they are first used, so the second pair says what an app really costs.
IMPORTS = (("import mognet", "import pydantic", ("<=", 1.3)), ("from mognet import App", "from pydantic import BaseModel", None))


def cycle(command: list[str], ones: int, many: int, *options: str) -> Figures:
    """Submit one by one, submit in batches, drain those: in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="mognet-bench-") as folder:
        return call(command, "submit", folder, ones, many, *options) | call(command, "drain", folder, many, *options)


def import_times(statements: list[str], count: int) -> dict[str, float]:
    """The shortest time of each import, in milliseconds, in so many fresh interpreters."""
    best: dict[str, float] = {}
    for _ in range(count):
        for statement in statements:
            code = f"import time; begin = time.perf_counter(); {statement}; print((time.perf_counter() - begin) * 1000)"
            took = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
            best[statement] = min(took, best.get(statement, took))
    return best


def loaded_needlessly() -> list[str]:
    code = f"import mognet, sys; print(*(name for name in {NOT_FOR_IMPORT} if name in sys.modules))"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def measure(options: argparse.Namespace) -> Figures:
    """All figures of the parts that are asked for."""
    found: Figures = {"settings": {"runs": options.runs}}
    if {"rates", "peers"} & {*options.only}:
        found |= _rates(options)
    if "watching" in options.only:
        say("watching")
        with tempfile.TemporaryDirectory(prefix="mognet-bench-") as folder:
            files = (f"sqlite:///{folder}/{number}.db" for number in count())
            found["watching"] = watching.measure(lambda command, what, _, *rest: call(command, what, next(files), *rest), "", options.quick)
    if "metadata" in options.only:
        found["metadata"] = _metadata(options)
    return found


def _metadata(options: argparse.Namespace) -> Figures:
    with tempfile.TemporaryDirectory(prefix="mognet-bench-") as temporary:

        def place(name: str) -> str:
            folder = Path(temporary, name)
            folder.mkdir(exist_ok=True)
            return str(folder)

        def size(there: str) -> int:
            return sum(file.stat().st_size for file in Path(there).iterdir())

        def clean() -> None:
            for each in Path(temporary).iterdir():
                shutil.rmtree(each)

        return metadata.measure(place, size, clean, options.jobs, quick=options.quick)


def _rates(options: argparse.Namespace) -> Figures:
    pythons = {} if options.no_peers else {peer: prepare(peer, PEERS[peer]) for peer in PEERS}
    subjects: dict[str, tuple[list[str], tuple[str, ...]]] = {"mognet": (OURS, ())}
    for peer, python in pythons.items():
        if python:
            subjects[peer] = ([python, str(ROOT / "benchmarks" / "peers" / f"{peer}_peer.py")], ())
    if "huey" in subjects:
        subjects["huey, no results"] = (subjects["huey"][0], ("--lean",))
    tasks, ones = (2000, 1000) if options.quick else (5000, 1000)
    runs: dict[str, list[Figures]] = defaultdict(list)
    trips = []
    for number in range(1, options.runs + 1):
        for name, (command, extra) in subjects.items():
            say(f"run {number} of {options.runs}: {name}")
            runs[name].append(cycle(command, ones, tasks, *extra))
        with tempfile.TemporaryDirectory(prefix="mognet-bench-") as folder:
            trips.append(round_trips(OURS, folder, 200))
    say("idle worker, imports")
    with tempfile.TemporaryDirectory(prefix="mognet-bench-") as folder:
        idle = call(OURS, "idle", folder, 10)["idle"]
    statements = [statement for pair in IMPORTS for statement in pair[:2]]
    return {
        "subjects": {name: medians(each) for name, each in runs.items()},
        "trip": medians(trips)["trip"],
        "idle": idle,
        "imports": import_times(statements, 8 if options.quick else 20),
        "loaded": loaded_needlessly(),
        "settings": {"tasks": tasks, "one by one": ones, "runs": options.runs, "peers": [PEERS[p] for p in PEERS if pythons.get(p)]},
        "runs": runs,
    }


def rows(found: Figures) -> list[Row]:
    """The lines of what was measured."""
    table = _rate_rows(found) if "subjects" in found else []
    if "watching" in found:
        table += [Row(*row) for row in watching.rows(found["watching"], 100)]
    return table + list(metadata.rows(found["metadata"]) if "metadata" in found else ())


def _rate_rows(found: Figures) -> list[Row]:
    subjects, table = found["subjects"], []
    ours = subjects["mognet"]

    def compare(measure: str, what: str, other: str, figures: Figures, against: str, target: Target | None) -> None:
        mine, theirs = ours[what]["rate"], figures[against]["rate"]
        table.append(Row(measure, f"{mine:,.0f}/s", f"{other} {theirs:,.0f}/s", mine / theirs, target))

    compare("submit_many", "many", "one by one", ours, "one", (">=", 10))
    for peer in [peer for peer in PEERS if peer in subjects]:
        compare("submit_many", "many", f"{peer}'s best", subjects[peer], "many", (">=", 3))
    for peer in [peer for peer in PEERS if peer in subjects]:
        compare("one by one, new file", "new", peer, subjects[peer], "new", (">=", 1) if peer == "huey" else None)
        compare("… after the first 500", "one", peer, subjects[peer], "one", (">=", 1) if peer == "huey" else None)
    for peer in [peer for peer in subjects if peer != "mognet"]:
        compare("burst, one worker", "burst", peer, subjects[peer], "burst", (">=", 8) if peer in PEERS else None)
    trip, idle, imports = found["trip"], found["idle"], found["imports"]
    table.append(Row("round trip p50, ms", f"{trip['p50']:.2f}", f"p95 {trip['p95']:.2f}", trip["p50"], ("<", 5)))
    memory = "" if idle["mb"] is None else f"{idle['mb']:.0f} MB"
    table.append(Row("idle worker, % of a core", f"{idle['cpu']:.2f}", memory, idle["cpu"], ("<", 1)))
    for mine, theirs, target in IMPORTS:
        measure = f"{mine}, ms"
        table.append(Row(measure, f"{imports[mine]:.0f}", f"{theirs} {imports[theirs]:.0f}", imports[mine] / imports[theirs], target))
    table.append(Row("… loads needlessly", " ".join(found["loaded"]) or "nothing", "", len(found["loaded"]), ("<=", 0)))
    return table


def show_costs(found: Figures) -> None:
    print(f"\n{'CPU seconds per 1,000 tasks':<30}{'one by one':>12}{'in batches':>12}{'burst':>12}")
    for name, figures in found["subjects"].items():
        print(f"{name:<30}" + "".join(f"{figures[what]['cpu']:>12.3f}" for what in ("one", "many", "burst")))
