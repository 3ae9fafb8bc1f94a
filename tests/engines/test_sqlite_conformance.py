"""The SQLite engine keeps every law."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest

from mognet.engine import Engine
from mognet.engines.sql.sqlite import SQLiteEngine
from mognet.testing.conformance import APP, EngineConformance, Harness


class FakeClock:
    """Seconds since 1970 that pass when told."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def __call__(self) -> float:
        return self.time


class SQLiteHarness(Harness):
    """Engines on one file, with a clock that is moved by hand."""

    fake_clock = True
    unit = 1.0

    def __init__(self, path: Path, *, doorbells: bool = True) -> None:
        self.path = path
        self.clock = FakeClock()
        self.doorbells = doorbells

    def open(self, app: str = APP) -> Engine:
        return SQLiteEngine(self.path, app, clock=self.clock, doorbells=self.doorbells)

    async def advance(self, seconds: float) -> None:
        self.clock.time += seconds

    async def leftovers(self) -> Mapping[str, int]:
        connection = sqlite3.connect(self.path)
        rows = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("job", "content", "note")}
        connection.close()
        own = {self.path.name + end for end in ("", "-wal", "-shm")}
        others = [path for path in self.path.parent.iterdir() if path.name not in own]
        return {**rows, "files": len(others)}


class TestSQLite(EngineConformance):
    """The shipped suite, on a file."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        """A new file."""
        return SQLiteHarness(tmp_path / "jobs.db")
