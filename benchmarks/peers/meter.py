"""What all subjects measure alike. Needs the standard library only, as it is imported in every environment."""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import quantiles

WARM = 500
"""Tasks submitted one by one at first, while SQLite's log may grow, which makes each commit cost more; a second span is without them."""


class Span:
    """Wall and CPU seconds (user and system, all threads) of a stretch of work."""

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks
        self.wall = time.perf_counter()
        self.cpu = time.process_time()

    def stop(self, wall: float | None = None) -> dict[str, float]:
        """Tasks a second, and CPU seconds for 1,000 tasks."""
        cpu = time.process_time() - self.cpu
        wall = time.perf_counter() - self.wall if wall is None else wall
        return {"rate": self.tasks / wall, "cpu": cpu / self.tasks * 1000}


class Counter:
    """Counts the runs of the no-op task; the span begins with the first."""

    def __init__(self) -> None:
        self.count = 0
        self.span = Span(0)

    def tick(self) -> None:
        """One run."""
        if self.count == 0:
            self.span = Span(0)
        self.count += 1

    def stop(self, wall: float | None = None) -> dict[str, float]:
        """The figures from the first run until now."""
        self.span.tasks = self.count
        return self.span.stop(wall)


def family_cpu(pid: int | None) -> float:
    """CPU seconds of a process and all below it, those that have ended included."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        stats[int(path.parent.name)] = (int(fields[1]), sum(map(int, fields[11:15])))
    family, grown = {pid}, True
    while grown:
        below = {child for child, (parent, _) in stats.items() if parent in family} - family
        family, grown = family | below, bool(below)
    return sum(stats[each][1] for each in family if each in stats) / os.sysconf("SC_CLK_TCK")


async def time_trips(ask: Callable[[], Awaitable[object]], count: int) -> dict[str, float]:
    """Milliseconds from a submit to its result, one after the other; the first ten do not count."""
    times = []
    for number in range(count + 10):
        begin = time.perf_counter()
        await ask()
        if number >= 10:
            times.append((time.perf_counter() - begin) * 1000)
        await asyncio.sleep(0.005)  # the worker has nothing to do again
    cuts = quantiles(times, n=20)
    return {"p50": cuts[9], "p95": cuts[18]}


def report(**figures: object) -> None:
    """One line of JSON, which the benchmark reads."""
    print(json.dumps(figures), flush=True)
