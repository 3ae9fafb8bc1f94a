"""Bugs planted into the memory engine, each with the test of the suite that has to find it."""

from __future__ import annotations

from typing import Any

from mognet.engines.memory import MemoryEngine

BUGS: dict[type[MemoryEngine], str] = {}


def caught_by(test: str) -> Any:
    """A bug, and the name of a test that must not pass with it."""

    def register(bug: type[MemoryEngine]) -> type[MemoryEngine]:
        BUGS[bug] = test
        return bug

    return register
