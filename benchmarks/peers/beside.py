"""What the peers on servers share: each command that a peer's script is asked for, measured alike. Needs the standard library only.

``BENCH_PLACE`` names the servers, ``BENCH_LINE`` the queue. The worker is a process of its own, with all below it, started as the
peer's users start it.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from meter import Span, family_cpu, report, time_trips

PLACE = os.environ.get("BENCH_PLACE", "")
LINE = os.environ.get("BENCH_LINE", "line")
WARM, PATIENCE = 200, 120

_begun = os.environ.get("BENCH_BEGUN")


def tick() -> None:
    """What each task does: the first of all says when."""
    global _begun
    if _begun:
        try:
            with Path(_begun).open("x") as file:
                file.write(str(time.monotonic()))
        except FileExistsError:
            pass
        _begun = None


class Peer(ABC):
    """One peer. What it does not offer is done one by one."""

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Connect, and make what a queue needs."""
        yield

    @abstractmethod
    async def one(self) -> object:
        """Submit one task; return when it is stored."""

    async def many(self, number: int) -> None:
        """Submit so many in the peer's quickest way."""
        for _ in range(number):
            await self.one()

    @abstractmethod
    async def ask(self) -> None:
        """Submit one, and return when its result is there."""

    @abstractmethod
    def work(self, measure: str) -> None:
        """Be a worker until killed, with the settings that are best for what is measured: ``burst``, ``trip`` or ``idle``."""

    @abstractmethod
    def ended(self, total: int) -> bool:
        """Whether so many results are stored."""


async def _singly(peer: Peer, ones: int) -> None:
    async with peer.connected():
        for _ in range(WARM):
            await peer.one()
        span = Span(ones)
        for _ in range(ones):
            await peer.one()
        report(one=span.stop())


async def _many(peer: Peer, many: int) -> None:
    async with peer.connected():
        span = Span(many)
        await peer.many(many)
        report(many=span.stop())


def _drain(peer: Peer, total: int) -> None:
    """From the start of the first task until the last result is stored; the worker has all processors, and this process asks rarely."""
    with tempfile.TemporaryDirectory(prefix="mognet-bench-") as folder:
        begun = Path(folder, "begun")
        with _worker("burst", BENCH_BEGUN=str(begun)) as worker:
            _until(begun.exists)
            cpu = family_cpu(worker.pid)
            _until(lambda: peer.ended(total))
            end, cpu = time.monotonic(), family_cpu(worker.pid) - cpu
        report(burst={"rate": total / (end - float(begun.read_text())), "cpu": cpu / total * 1000})


async def _trips(peer: Peer, count: int) -> None:
    async with peer.connected():
        with _worker("trip"):
            report(trip=await time_trips(peer.ask, count))


async def _idle(peer: Peer, seconds: int) -> None:
    async with peer.connected():
        with _worker("idle") as worker:
            await asyncio.sleep(4)
            cpu, begin = family_cpu(worker.pid), time.monotonic()
            await asyncio.sleep(seconds)
            percent = (family_cpu(worker.pid) - cpu) / (time.monotonic() - begin) * 100
        report(idle={"cpu": percent})


@contextmanager
def _worker(measure: str, **env: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker in a process of its own; it ends with all below it."""
    command = [sys.executable, sys.argv[0], "work", measure]
    out = None if os.environ.get("BENCH_LOUD") else subprocess.DEVNULL
    process = subprocess.Popen(command, env={**os.environ, **env}, start_new_session=True, stdout=out, stderr=out)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > give_up:
            sys.exit(f"not within {PATIENCE} s")
        time.sleep(0.01)


def main(peer: Peer) -> None:
    """Do what the arguments say."""
    command, *given = sys.argv[1:]
    if command == "work":
        peer.work(given[0])
    elif command == "drain":
        _drain(peer, int(given[0]))
    else:
        commands: dict[str, Callable[[Peer, int], Awaitable[None]]] = {"singly": _singly, "many": _many, "trips": _trips, "idle": _idle}
        asyncio.run(commands[command](peer, int(given[0])))  # type: ignore[arg-type]
