"""What the sections share: subjects in processes of their own, medians of their figures, and the table."""

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
OURS = [sys.executable, "-m", "benchmarks.app"]
OPS = {">=": lambda value, limit: value >= limit, "<=": lambda value, limit: value <= limit, "<": lambda value, limit: value < limit}

PARTS = ("rates", "peers", "watching", "metadata")
"""What is measured of each engine, and can be measured alone."""

Figures = dict[str, Any]
Target = tuple[str, float]


class Row(NamedTuple):
    """One line of the table."""

    measure: str
    ours: str
    other: str
    value: float | None
    target: Target | None = None

    def verdict(self) -> str:
        if self.target is None or self.value is None:
            return ""
        return "ok" if OPS[self.target[0]](self.value, self.target[1]) else "MISSED"


def show(rows: Iterable[Row]) -> None:
    print(f"{'measure':<38}{'mognet':>10}  {'beside':<35}{'ratio':>7}  {'target':<8}")
    for row in rows:
        value = "" if row.value is None else f"{row.value:.2f}"
        target = "" if row.target is None else f"{row.target[0]} {row.target[1]:g}"
        print(f"{row.measure:<38}{row.ours:>10}  {row.other:<35}{value:>7}  {target:<8}{row.verdict()}".rstrip())


def say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


def call(command: list[str], *args: object) -> Figures:
    """Run a subject; what it reports."""
    done = subprocess.run([*command, *map(str, args)], cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} {' '.join(map(str, args))} failed:\n{done.stdout[-500:]}{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def beside(command: list[str], *args: object) -> Iterator["subprocess.Popen[str]"]:
    """A subject that runs until the context ends."""
    process = subprocess.Popen([*command, *map(str, args)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def round_trips(command: list[str], place: str, count: int) -> Figures:
    with beside(command, "work", place):
        time.sleep(1.5)
        return call(command, "trips", place, count)


def medians(runs: list[Figures]) -> Figures:
    """Of figures two levels deep: what → rate or cpu → number."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for what, figures in run.items():
            if isinstance(figures, dict):
                for name, value in figures.items():
                    found[what][name].append(value)
    return {what: {name: median(values) for name, values in figures.items()} for what, figures in found.items()}
