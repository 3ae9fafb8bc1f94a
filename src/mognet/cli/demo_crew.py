"""The worker processes of the demo."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mognet.cli.failures import CommandError

PATIENCE = 5.0
"""Seconds that workers get to end by themselves."""

LOG_LINES = 8
"""Lines of a worker's log that are shown when it ends unexpectedly."""


@dataclass
class Hand:
    """One worker process."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stands_in_for: str | None = None
    killed: bool = False

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process.poll() is None


class Crew:
    """Starts worker processes; leaving the context ends all that still run, and only those."""

    def __init__(self, command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.hands: list[Hand] = []
        self._command = command
        self._folder = folder
        self._environment = environment

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._end(PATIENCE)
        finally:  # also after a second Ctrl-C
            for hand in self.hands:
                if hand.alive:
                    hand.process.kill()
                hand.process.wait()

    def _end(self, patience: float) -> None:
        for hand in self.hands:
            if hand.alive:
                hand.process.terminate()
        until = time.monotonic() + patience
        while time.monotonic() < until and any(hand.alive for hand in self.hands):
            time.sleep(0.02)

    def start(self, *, stands_in_for: str | None = None) -> Hand:
        """Start one more worker."""
        name = f"worker-{len(self.hands) + 1}"
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            # In the demo's own process group: what ends the demo from its terminal ends the workers too.
            process = subprocess.Popen(  # noqa: S603 - this Python, and a module of ours
                [sys.executable, "-m", "mognet", *self._command],
                cwd=self._folder,
                env={**self._environment, "MOGNET_NODE_ID": name},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.hands.append(Hand(name, process, log, stands_in_for))
        return self.hands[-1]

    def kill(self, name: str) -> Hand:
        """Kill a worker without a warning (SIGKILL where there is such a thing)."""
        hand = next(hand for hand in self.hands if hand.name == name)
        hand.process.kill()
        hand.process.wait()
        hand.killed = True
        return hand

    def check(self) -> None:
        """Raise :class:`CommandError` if a worker has ended that nobody killed."""
        for hand in self.hands:
            if not hand.killed and not hand.alive:
                lines = hand.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
                raise CommandError(f"{hand.name} has ended with exit code {hand.process.returncode}; its last words:", details=tuple(lines))


def environment(url: str, lease: float, path: Path | None) -> dict[str, str]:
    """The environment of the workers: nothing that is set for other apps of mognet reaches them."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MOGNET_")}
    if path is not None:
        known = [os.path.abspath(each) for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
        inherited["PYTHONPATH"] = os.pathsep.join([str(path), *known])
    return inherited | {"MOGNET_URL": url, "MOGNET_LEASE": str(lease), "MOGNET_SHUTDOWN_GRACE": "0"}
