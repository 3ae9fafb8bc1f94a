"""The engines that the suite is held against, each by its harness."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from mognet.engine import Engine
from mognet.engines.memory import MemoryEngine, MemoryStore
from mognet.engines.redis.engine import RedisEngine
from mognet.engines.redis.scripts import Script, script
from mognet.engines.sql.sqlite import SQLiteEngine
from mognet.records import Job
from mognet.testing.conformance import APP, Harness
from servers import Server
from servers.postgres import TABLES, ask, empty_postgres, set_clock, with_clock
from servers.rabbitmq import rabbitmq_server
from servers.redis import empty_redis, tell_redis


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
        found: dict[str, int] = {}
        for app, store in self.stores.items():
            exchange = store.exchange
            rooms: dict[str, Sized] = {
                "rows": store.rows,
                "children": store.children,
                "lines": store.lines,
                "leased": store.leased,
                "ending": store.ending,
                "limited": store.limited,
                "changes": store.changes,
                "boxes": exchange._boxes,
                "waiting": exchange._waiting,
                "notes": [note for row in store.rows.values() for note in row.notes],
                "values": [row for row in store.rows.values() if row.value is not None],
            }
            found |= {f"{app}: {name}": len(room) for name, room in rooms.items()}
        return found


class BothWays(SQLiteEngine):
    """Submits every other job that comes alone the quick way, if it can."""

    _singles = 0

    async def submit(self, jobs: Sequence[Job], *, enqueue: bool = True) -> list[bool]:
        if len(jobs) == 1 and enqueue:
            self._singles += 1
            if self._singles % 2 and self.submit_here(jobs[0]):
                return [True]
        return await super().submit(jobs, enqueue=enqueue)


class SQLiteHarness(Harness):
    """Engines on one file."""

    fake_clock = True
    unit = 1.0

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.folder = folder
        self.path = folder / "jobs.db"
        self.opened: list[SQLiteEngine] = []

    def open(self, app: str = APP) -> Engine:
        # Once in a file, durability is a matter of configuration and tested on its own; here it would only cost time.
        self.opened.append(BothWays(self.path, app, synchronous="normal", clock=self.clock))
        return self.opened[-1]

    async def advance(self, seconds: float) -> None:
        self.clock.time += seconds

    async def leftovers(self) -> Mapping[str, int]:
        with closing(sqlite3.connect(self.path)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            found = {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}
        del found["app"]  # one row for each
        if all(engine._writer is None for engine in self.opened):
            found["files"] = sum(path.is_file() for path in self.folder.rglob("*")) - 1
            found["sockets"] = sum(path.is_socket() for path in self.folder.rglob("*"))
        return found


class FrozenRedis(RedisEngine):
    """Reads the time from a key."""

    @staticmethod
    def _script(name: str) -> Script:
        text = script(name).text.replace(b"call('TIME')", b"{call('GET', 'clock'):match('(%d+) (%d+)')}")
        return Script(name, text, hashlib.sha1(text).hexdigest().encode())


class RedisHarness(Harness):
    """Engines on one server, which is emptied first; its scripts take the time from a key, which stands still until it is moved."""

    fake_clock = True
    unit = 1.0
    engine = FrozenRedis

    def __init__(self) -> None:
        self.url = empty_redis()
        self.clock = FakeClock()
        self._set_clock()

    def run(self, *command: str) -> Any:
        with Redis.from_url(self.url, protocol=2) as client:
            return client.execute_command(*command)

    def _set_clock(self) -> None:
        seconds, micros = divmod(round(self.clock.time * 1_000_000), 1_000_000)
        tell_redis(self.url, f'SET clock "{seconds} {micros}"')

    def open(self, app: str = APP) -> Engine:
        return self.engine(self.url, app)

    async def advance(self, seconds: float) -> None:
        self.clock.time += seconds
        self._set_clock()

    async def leftovers(self) -> Mapping[str, int]:
        # What is known of each app as a whole stays, and who waits goes by itself.
        keys = [key for key in self.run("KEYS", "mognet:*") if not key.endswith((b":seq", b":app")) and b":wait:" not in key]
        return Counter(key.split(b"}:")[1].split(b":")[0].decode() for key in keys)


class PostgresHarness(Harness):
    """Engines on one server, which is emptied first."""

    fake_clock = True
    unit = 1.0

    def __init__(self) -> None:
        self.server = empty_postgres()
        self.url = with_clock(self.server)
        self.clock = FakeClock()
        set_clock(self.server, self.clock.time)

    def open(self, app: str = APP) -> Engine:
        from mognet.engines.postgres.engine import PostgresEngine

        return PostgresEngine.from_url(self.url, app)

    async def advance(self, seconds: float) -> None:
        self.clock.time += seconds
        set_clock(self.server, self.clock.time)

    async def leftovers(self) -> Mapping[str, int]:
        [counts] = ask(self.server, f"SELECT {', '.join(f'(SELECT count(*) FROM mognet.{table})' for table in TABLES)}")
        return dict(zip(TABLES, counts, strict=True))


@pytest.fixture(scope="session")
def killable_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A node that tests may kill, if they start it again: that takes seconds."""
    server, url = rabbitmq_server(tmp_path_factory.mktemp("rabbitmq"))
    server.start()
    yield server, url
    server.kill()


HARNESSES: dict[str, Callable[[Path], Harness]] = {
    "memory": lambda _: MemoryHarness(),
    "sqlite": SQLiteHarness,
    "redis": lambda _: RedisHarness(),
    "postgres": lambda _: PostgresHarness(),
}


@pytest.fixture(params=list(HARNESSES))
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    """Each engine in turn, on an empty store."""
    return HARNESSES[request.param](tmp_path)
