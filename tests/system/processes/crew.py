"""Real worker processes, and the ledger that says what their tasks did."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

from servers.places import Place

TESTS = Path(__file__).parents[2]
PATIENCE = 30.0


async def until(done: Callable[[], Any], what: str = "", seconds: float = PATIENCE) -> Any:
    """Wait until something is so, which is looked at often; what it gave."""
    give_up = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < give_up, f"waited {seconds:g} s in vain: {what}"
        await asyncio.sleep(0.01)
    return found


class Ledger:
    """What tasks wrote down, independent of mognet. Read on and on, since whoever waits for a line looks often."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._found: defaultdict[tuple[str | None, str | None], list[dict[str, Any]]] = defaultdict(list)

    def lines(self, kind: str | None = None, id: UUID | str | None = None) -> list[dict[str, Any]]:
        self._read_on()
        return list(self._found[kind, None if id is None else str(id)])

    def _read_on(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            text, end, _ = file.read().rpartition(b"\n")  # the last line may be half there
        self._read += len(text + end)
        for line in map(json.loads, filter(None, text.split(b"\n"))):
            for key in {(kind, id) for kind in (None, line["kind"]) for id in (None, line["id"])}:
                self._found[key].append(line)

    def starts(self, id: UUID | str) -> int:
        return len(self.lines("start", id))

    async def seen(self, kind: str, id: UUID | str | None = None, number: int = 1, seconds: float = PATIENCE) -> dict[str, Any]:
        """The so-and-so-manieth line of a kind, when it comes."""
        await until(lambda: len(self.lines(kind, id)) >= number, f"{kind} number {number} of {id}", seconds)
        return self.lines(kind, id)[number - 1]


class Member:
    """A worker process."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command, cwd=TESTS, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        self.pid = self.process.pid

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def send(self, number: int) -> None:
        if self.alive:
            os.kill(self.pid, number)

    async def says(self, text: str, seconds: float = PATIENCE) -> None:
        """Wait for a text in its log."""
        give_up = time.monotonic() + seconds
        while text not in self.log():
            assert self.alive and time.monotonic() < give_up, f"no {text!r} in the log of {self.pid}:\n{self.log()[-5000:]}"
            await asyncio.sleep(0.01)

    async def ready(self) -> Member:
        await self.says("ready in")
        return self

    async def ended(self, seconds: float = PATIENCE) -> int:
        """Its exit code, when it has ended."""
        give_up = time.monotonic() + seconds
        while self.alive:
            assert time.monotonic() < give_up, f"{self.pid} does not end:\n{self.log()[-5000:]}"
            await asyncio.sleep(0.01)
        return int(self.process.returncode)

    async def killed(self) -> None:
        self.send(signal.SIGKILL)
        await self.ended()

    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Kilobytes that it holds."""
        return int(Path(f"/proc/{self.pid}/status").read_text().partition("VmRSS:")[2].split()[0])


class Crew:
    """Starts workers of one app, and ends those it started."""

    def __init__(self, folder: Path, place: Place) -> None:
        self.folder = folder
        self.place = place
        self.ledger = Ledger(folder / "ledger")
        self.members: list[Member] = []
        self.settings = {"lease": "1", "sweep_interval": "0.2", "minimum_concurrency": "20"}

    @property
    def environment(self) -> dict[str, str]:
        settings = {f"MOGNET_{name.upper()}": value for name, value in self.settings.items()}
        where = {f"MOGNET_{name.upper()}": value for name, value in self.place.settings.items()}
        return {**where, "JOBS_APP": self.place.app_name, "LEDGER": str(self.ledger.path), "PYTHONUNBUFFERED": "1", **settings}

    def start(self, *options: str, **settings: str) -> Member:
        """A worker, by the command line."""
        return self.run(sys.executable, "-m", "mognet", "system.processes.jobs", "run", *options, **settings)

    def run(self, *command: str, **settings: str) -> Member:
        """Any process with the same environment."""
        more = {f"MOGNET_{name.upper()}": value for name, value in settings.items()}
        member = Member(list(command), {**self.environment, **more}, self.folder / f"log{len(self.members)}")
        self.members.append(member)
        return member

    async def ready(self, number: int = 1, *options: str, **settings: str) -> list[Member]:
        """So many workers, which are ready."""
        members = [self.start(*options, **settings) for _ in range(number)]
        return [await member.ready() for member in members]

    async def stop(self, member: Member) -> None:
        """SIGSTOP. On a file, at a moment when the member is not writing: else it would keep the file locked for everybody."""
        for _ in range(100):
            member.send(signal.SIGSTOP)
            if self.place.servers:
                return
            with closing(sqlite3.connect(self.place.file, isolation_level=None, timeout=0.2)) as file:
                try:
                    file.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    member.send(signal.SIGCONT)
                    await asyncio.sleep(0.01)
                else:
                    file.execute("ROLLBACK")
                    return
        raise AssertionError(f"{member.pid} writes all the time")

    def close(self) -> None:
        for member in self.members:
            member.send(signal.SIGKILL)
            member.process.wait()

    def logs(self) -> str:
        return "\n".join(f"--- {member.pid}: {member.process.returncode}\n{member.log()[-4000:]}" for member in self.members)
