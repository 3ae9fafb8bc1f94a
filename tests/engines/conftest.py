"""The engines that the suite is held against, each by its harness."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from pathlib import Path

import pytest

from mognet.engine import Engine
from mognet.engines.memory import MemoryEngine, MemoryStore
from mognet.testing.conformance import APP, Harness


class FakeClock:
    """Seconds since 1970 that pass when told; every step is exact in binary."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def __call__(self) -> float:
        return self.time


class MemoryHarness(Harness):
    """Engines on stores of this process."""

    fake_clock = True
    unit = 1.0

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.stores: dict[str, MemoryStore] = {}

    def open(self, app: str = APP) -> Engine:
        return MemoryEngine(app, store=self.stores.setdefault(app, MemoryStore()), clock=self.clock)

    async def advance(self, seconds: float) -> None:
        self.clock.time += seconds

    async def leftovers(self) -> Mapping[str, int]:
        found = {}
        for app, store in self.stores.items():
            exchange = store.exchange
            rooms: dict[str, Sized] = {
                "rows": store.rows,
                "children": store.children,
                "lines": store.lines,
                "leased": store.leased,
                "ending": store.ending,
                "boxes": exchange._boxes,
                "waiting": exchange._waiting,
                "notes": [note for row in store.rows.values() for note in row.notes],
                "values": [row for row in store.rows.values() if row.value is not None],
            }
            found |= {f"{app}: {name}": len(room) for name, room in rooms.items()}
        return found


HARNESSES: dict[str, Callable[[Path], Harness]] = {"memory": lambda _: MemoryHarness()}


@pytest.fixture(params=list(HARNESSES))
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    """Each engine in turn, on an empty store."""
    yield HARNESSES[request.param](tmp_path)
