"""What is particular to SQLite where it takes notes of changes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from mognet.engines.sql.sqlite import SQLiteEngine
from mognet.testing.conformance.bench import make_job


async def test_a_file_that_was_restored(tmp_path: Path) -> None:
    """Who had read further than the backup goes is told of all that changes afterwards, however much that is."""
    path, backup = tmp_path / "jobs.db", tmp_path / "backup.db"
    async with SQLiteEngine(path) as engine:
        await engine.changes(None)
        await engine.submit([make_job()])
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
            source.backup(target)
        await engine.submit([make_job() for _ in range(3)])
        place = (await engine.changes(None)).at
    for rest in tmp_path.glob("jobs.db*"):
        rest.unlink()
    backup.rename(path)
    async with SQLiteEngine(path) as engine:
        assert (await engine.changes(place)).lost
        jobs = [make_job() for _ in range(10)]
        await engine.submit(jobs)
        changes = await engine.changes(place)
        assert [each.record.id for each in changes.changed] == [job.id for job in jobs]
        assert not (await engine.changes(changes.at)).lost
