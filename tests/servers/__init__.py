"""Real servers for tests: private ones on free loopback ports, with data folders of their own, so that they may be killed.

``MOGNET_TEST_<NAME>_URL`` names a running server to use instead (tests that kill it are then left out). Where neither is to be
had, the test is skipped by name; with ``MOGNET_REQUIRE_SERVERS=1``, as in CI, that is a failure.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path

import pytest

START_SECONDS = 60.0

KEPT: set[str] = set()
"""What descriptors stand for that are kept for the whole run, as the leak checker sees them."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_binary(name: str, *patterns: str) -> str:
    """The path of a server's program: on PATH, or the newest that matches one of the glob patterns."""
    found = next((match for pattern in patterns for match in sorted(glob(pattern), reverse=True)), None) or shutil.which(name)
    if found is None:
        missing(f"{name} is not installed")
    return str(found)


def missing(why: str) -> None:
    """Skip the test, or fail it where servers are required."""
    if os.environ.get("MOGNET_REQUIRE_SERVERS") == "1":
        pytest.fail(why)
    pytest.skip(why)


class Server:
    """A server process that tests may kill and start again; it keeps its port and its data folder."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, ready: Callable[[], bool], *, env: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self.folder = folder
        self._command = list(command)
        self._ready = ready
        self.env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, and return when it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, cwd=self.folder, start_new_session=True
            )
        until = time.monotonic() + START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > until:
                tail = (self.folder / "log").read_text(errors="replace")[-2000:]
                self.kill()
                raise RuntimeError(f"{self.name} does not start: {tail}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in its own way."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Let it hang: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    @property
    def running(self) -> bool:
        """Whether it was started and not ended by us."""
        return self._process is not None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        below = _below(self._process.pid)
        self._signal(number)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait(20)
        self._process = None
        # Servers with a process for each connection give them groups of their own, and do not start again while one is left.
        until = time.monotonic() + 20
        while (below := [pid for pid in below if _runs(pid)]) and time.monotonic() < until:
            for pid in below if number is signal.SIGKILL else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


def _below(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have, where that can be told."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
