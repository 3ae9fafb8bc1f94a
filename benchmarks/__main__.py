"""Measures mognet and its peers side by side, and prints rates, ratios and whether the targets are reached."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import watching

ROOT = Path(__file__).parent.parent
PEERS = {"huey": "huey==3.5.4", "dbos": "dbos==3.4.0"}
OPS = {">=": lambda value, limit: value >= limit, "<=": lambda value, limit: value <= limit, "<": lambda value, limit: value < limit}
NOT_FOR_IMPORT = ("typer", "rich", "sqlite3", "redis", "psycopg", "aiormq", "mognet.engines.sql", "mognet.cli")

# `import pydantic` alone loads its model classes only when they are first used, so the second pair says what an app really costs.
IMPORTS = (("import mognet", "import pydantic", ("<=", 1.3)), ("from mognet import App", "from pydantic import BaseModel", None))

Figures = dict[str, Any]


class Row(NamedTuple):
    """One line of the table."""

    measure: str
    ours: str
    other: str
    value: float | None
    target: tuple[str, float] | None = None

    def verdict(self) -> str:
        if self.target is None or self.value is None:
            return ""
        return "ok" if OPS[self.target[0]](self.value, self.target[1]) else "MISSED"


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mognet-bench"


def prepare(peer: str) -> str | None:
    """The Python of a peer's own virtual environment, which is made first if need be; None if that fails."""
    folder = cache() / peer
    python, stamp = folder / "bin" / "python", folder / "installed"
    if python.exists() and stamp.exists() and stamp.read_text() == PEERS[peer]:
        return str(python)
    say(f"installing {PEERS[peer]} into {folder}")
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, capture_output=True, text=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PEERS[peer]]
        subprocess.run(install, check=True, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        print(f"{peer} cannot be installed and is left out: {reason}", file=sys.stderr)
        return None
    stamp.write_text(PEERS[peer])
    return str(python)


def say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


def call(command: list[str], *args: object) -> Figures:
    """Run a subject; what it reports."""
    done = subprocess.run([*command, *map(str, args)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} {' '.join(map(str, args))} failed:\n{done.stdout[-500:]}{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def cycle(command: list[str], ones: int, many: int, *options: str) -> Figures:
    """Submit one by one, submit in batches, drain those: in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="mognet-bench-") as folder:
        return call(command, "submit", folder, ones, many, *options) | call(command, "drain", folder, many, *options)


def round_trips(command: list[str], count: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="mognet-bench-") as folder:
        worker = subprocess.Popen([*command, "work", folder], cwd=ROOT)
        try:
            time.sleep(1)
            return call(command, "trips", folder, count)
        finally:
            worker.kill()
            worker.wait()


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


def medians(runs: list[Figures]) -> Figures:
    """Of figures two levels deep: what → rate or cpu → number."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for what, figures in run.items():
            if isinstance(figures, dict):
                for name, value in figures.items():
                    found[what][name].append(value)
    return {what: {name: median(values) for name, values in figures.items()} for what, figures in found.items()}


def measure(options: argparse.Namespace) -> Figures:
    ours = [sys.executable, "-m", "benchmarks.app"]
    pythons = {} if options.no_peers else {peer: prepare(peer) for peer in PEERS}
    subjects: dict[str, tuple[list[str], tuple[str, ...]]] = {"mognet": (ours, ())}
    for peer, python in pythons.items():
        if python:
            subjects[peer] = ([python, str(ROOT / "benchmarks" / "peers" / f"{peer}_peer.py")], ())
    if "huey" in subjects:
        subjects["huey, no results"] = (subjects["huey"][0], ("--lean",))
    tasks, ones = (2000, 500) if options.quick else (5000, 1000)
    runs: dict[str, list[Figures]] = defaultdict(list)
    trips = []
    for number in range(1, options.runs + 1):
        for name, (command, extra) in subjects.items():
            say(f"run {number} of {options.runs}: {name}")
            runs[name].append(cycle(command, ones, tasks, *extra))
        trips.append(round_trips(ours, 200))
    say("watching")
    with tempfile.TemporaryDirectory(prefix="mognet-bench-") as folder:
        files = (f"sqlite:///{folder}/{number}.db" for number in range(5))
        watched = watching.measure(lambda command, what, _, *rest: call(command, what, next(files), *rest), "", options.quick)
    say("idle worker, imports")
    with tempfile.TemporaryDirectory(prefix="mognet-bench-") as folder:
        idle = call(ours, "idle", folder, 10)["idle"]
    statements = [statement for pair in IMPORTS for statement in pair[:2]]
    return {
        "subjects": {name: medians(each) for name, each in runs.items()},
        "trip": medians(trips)["trip"],
        "idle": idle,
        "watching": watched,
        "imports": import_times(statements, 8 if options.quick else 20),
        "loaded": loaded_needlessly(),
        "settings": {"tasks": tasks, "one by one": ones, "runs": options.runs, "peers": [PEERS[p] for p in PEERS if pythons.get(p)]},
        "runs": runs,
    }


def rows(found: Figures) -> list[Row]:
    subjects, table = found["subjects"], []
    ours = subjects["mognet"]

    def compare(measure: str, what: str, other: str, figures: Figures, against: str, target: tuple[str, float] | None) -> None:
        mine, theirs = ours[what]["rate"], figures[against]["rate"]
        table.append(Row(measure, f"{mine:,.0f}/s", f"{other} {theirs:,.0f}/s", mine / theirs, target))

    compare("submit_many", "many", "one by one", ours, "one", (">=", 10))
    for peer in [peer for peer in PEERS if peer in subjects]:
        compare("submit_many", "many", f"{peer}'s best", subjects[peer], "many", (">=", 3))
    for peer in [peer for peer in PEERS if peer in subjects]:
        compare("submit one by one", "one", peer, subjects[peer], "one", (">=", 1) if peer == "huey" else None)
    for peer in [peer for peer in subjects if peer != "mognet"]:
        compare("burst, one worker", "burst", peer, subjects[peer], "burst", (">=", 8) if peer in PEERS else None)
    trip, idle, imports = found["trip"], found["idle"], found["imports"]
    table.append(Row("round trip p50, ms", f"{trip['p50']:.2f}", f"p95 {trip['p95']:.2f}", trip["p50"], ("<", 5)))
    memory = "" if idle["mb"] is None else f"{idle['mb']:.0f} MB"
    table.append(Row("idle worker, % of a core", f"{idle['cpu']:.2f}", memory, idle["cpu"], ("<", 1)))
    table += [Row(*row) for row in watching.rows(found["watching"], 100)]
    for mine, theirs, target in IMPORTS:
        measure = f"{mine}, ms"
        table.append(Row(measure, f"{imports[mine]:.0f}", f"{theirs} {imports[theirs]:.0f}", imports[mine] / imports[theirs], target))
    table.append(Row("… loads needlessly", " ".join(found["loaded"]) or "nothing", "", len(found["loaded"]), ("<=", 0)))
    return table


def show(found: Figures, print: Callable[..., None] = print) -> None:
    print(f"\n{'measure':<26}{'mognet':>10}  {'beside':<35}{'ratio':>7}  {'target':<8}")
    for row in rows(found):
        value = "" if row.value is None else f"{row.value:.2f}"
        target = "" if row.target is None else f"{row.target[0]} {row.target[1]:g}"
        print(f"{row.measure:<26}{row.ours:>10}  {row.other:<35}{value:>7}  {target:<8}{row.verdict()}".rstrip())
    print(f"\n{'CPU seconds per 1,000 tasks':<30}{'one by one':>12}{'in batches':>12}{'burst':>12}")
    for name, figures in found["subjects"].items():
        print(f"{name:<30}" + "".join(f"{figures[what]['cpu']:>12.3f}" for what in ("one", "many", "burst")))
    print(f"\n{json.dumps(found['settings'])}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer tasks and runs: under a minute")
    parser.add_argument("--runs", type=int, help="runs of each subject, of which the medians are shown (default 5; 3 with --quick)")
    parser.add_argument("--no-peers", action="store_true", help="mognet alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, of each run too")
    options = parser.parse_args()
    options.runs = options.runs or (3 if options.quick else 5)
    found = measure(options)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
