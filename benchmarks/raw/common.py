"""What the raw clients share."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from statistics import quantiles
from typing import Protocol
from uuid import uuid4

from benchmarks.peers.meter import WARM, Span, report

BATCH, LANES = 100, 4


def arguments(number: int) -> bytes:
    """What one job is given: not the same for all."""
    return b'{"v":%d}' % number


def results(jobs: Collection[object]) -> list[bytes]:
    """What these jobs leave."""
    return [b"%d" % number for number in range(len(jobs))]


class Client(Protocol):
    """The least that the job takes, on one server or two."""

    async def __aenter__(self) -> "Client": ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def give(self, lane: int, number: int) -> None:
        """Store so many jobs; return when the server has them."""

    async def take(self, lane: int, number: int) -> int:
        """Take up to so many jobs, each of which nobody else gets, and store their results. Zero: there are none."""

    async def ask(self, id: str) -> None:
        """Store one job, and return when its result is there."""

    async def serve(self) -> None:
        """Run jobs as they come, and tell those who asked, until cancelled."""


async def in_lanes(part: Callable[[int], Awaitable[None]], jobs: int) -> dict[str, float]:
    """The span in which these lanes side by side do so many jobs together."""
    span = Span(jobs)
    await asyncio.gather(*(part(lane) for lane in range(LANES)))
    return span.stop()


async def rates(client: Client, jobs: int, ones: int, *, alone_by: int = BATCH) -> None:
    """Batches given and taken, batches of ``alone_by`` given by one caller, and jobs given one by one."""
    async with client:

        async def give(lane: int, lanes: int = LANES, batch: int = BATCH) -> None:
            for _ in range(jobs // lanes // batch):
                await client.give(lane, batch)

        async def take(lane: int) -> None:
            left = jobs // LANES
            while left > 0:
                left -= await client.take(lane, min(left, BATCH))

        given, taken = await in_lanes(give, jobs), await in_lanes(take, jobs)
        span = Span(jobs)
        await give(0, 1, alone_by)
        alone = span.stop()
        for _ in range(WARM):
            await client.give(0, 1)
        span = Span(ones)
        for _ in range(ones):
            await client.give(0, 1)
        report(give=given, take=taken, alone=alone, one=span.stop())


async def trips(client: Client, count: int) -> None:
    """Milliseconds from a job to its result, one after the other, like ``benchmarks.app``."""
    async with client:
        times = []
        for number in range(count + 10):
            begin = time.perf_counter()
            await client.ask(uuid4().hex)
            if number >= 10:
                times.append((time.perf_counter() - begin) * 1000)
            await asyncio.sleep(0.005)
    cuts = quantiles(times, n=20)
    report(trip={"p50": cuts[9], "p95": cuts[18]})


async def work(client: Client) -> None:
    """Serve, until killed."""
    async with client:
        await client.serve()


def main(make: Callable[[str], Client], *, alone_by: int = BATCH) -> None:
    """Run the command that the arguments name."""
    command, place, *numbers = sys.argv[1:]
    asyncio.run({"rates": partial(rates, alone_by=alone_by), "trips": trips, "work": work}[command](make(place), *map(int, numbers)))
