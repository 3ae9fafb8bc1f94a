"""Round trips, counted by a proxy before each server."""

import asyncio
import sys
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from benchmarks.table import OURS, ROOT, Figures
from proxy import Proxy

PORTS = {"redis": 6379, "postgresql": 5432, "amqp": 5672}


async def count(place: str, ones: int, many: int) -> Figures:
    """Round trips for each task: submitted one by one and by the thousand, and run with one slot and with the usual hundred."""
    async with AsyncExitStack() as stack:
        proxies, places = [], []
        for url in place.split(","):
            parts = urlsplit(url)
            proxies.append(await stack.enter_async_context(Proxy(parts.port or PORTS[parts.scheme], parts.hostname or "127.0.0.1")))
            places.append(proxies[-1].url(url))
        place, found = ",".join(places), Figures()
        for command in (("give", place, ones, many), ("take", place, "one", 1, ones), ("take", place, "many", 100, many)):
            found |= await _count(proxies, *map(str, command))
    return found


async def _count(proxies: list[Proxy], *command: str) -> Figures:
    subject = await asyncio.create_subprocess_exec(*OURS, *command, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    assert subject.stdin is not None and subject.stdout is not None
    marks: dict[str, list[tuple[int, list[int]]]] = {}
    while line := (await subject.stdout.readline()).decode():
        await asyncio.sleep(0.05)  # what is on its way to the proxy gets there
        name, _, tasks = line.rpartition(" ")
        marks.setdefault(name, []).append((int(tasks), [proxy.trips for proxy in proxies]))
        subject.stdin.write(b"\n")
    if await subject.wait():
        sys.exit(f"{' '.join(command)} failed")
    return {
        name: [(after - before) / (tasks - done) for before, after in zip(first, last, strict=True)]
        for name, ((done, first), (tasks, last)) in marks.items()
    }
