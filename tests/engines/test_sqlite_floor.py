"""Where sockets cannot be used, those who wait for work still get it: by looking whether the file has changed.

And where the event loop writes nothing itself, the laws that its thread could break hold all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mognet.engine import Engine
from mognet.engines.sql.sqlite import SQLiteEngine
from mognet.testing.conformance import APP, Harness
from mognet.testing.conformance.cancelling import Cancelling
from mognet.testing.conformance.holding import OneHolder
from mognet.testing.conformance.signals import Waiting


class FloorHarness(Harness):
    """Engines without sockets, on a real clock, that write in their threads only."""

    unit = 0.2

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, app: str = APP) -> Engine:
        return SQLiteEngine(self.path, app, doorbells=False, inline=False)

    async def leftovers(self) -> Mapping[str, int]:
        return {"folders": sum(path.is_dir() for path in self.path.parent.iterdir())}


class TestWithoutSockets(Waiting, OneHolder, Cancelling):
    """What depends on waking up."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return FloorHarness(tmp_path / "jobs.db")
