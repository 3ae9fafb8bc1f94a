"""What a store holds of an app, read by the server's own client: nothing of mognet has a hand in it, except for the names of states."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from redis import Redis

from mognet import ResultState
from mognet.states import FINAL
from servers.places import Place

STATES = list(ResultState)


@dataclass
class Row:
    """A job."""

    state: ResultState
    starts: int
    stops: int
    parent: str | None
    metadata: dict[str, Any]
    value: bytes | None
    held: bool
    """Whether it has a lease or a token."""
    lined: bool
    expires: bool


@dataclass
class Store:
    """All jobs of the app by id, and what is there beside them that should be gone when they have ended."""

    rows: dict[str, Row]
    left: list[str]


def read(place: Place) -> Store:
    """The store of a place."""
    url = place.direct["store"]
    readers: dict[str, Callable[[], Store]] = {
        "sqlite": lambda: _sqlite(place.file),
        "redis": lambda: _redis(url, place.app_name),
        "postgresql": lambda: _postgres(url, place.app_name),
    }
    return readers[url.partition(":")[0]]()


def _id(value: object) -> str | None:
    return None if value is None else str(value if isinstance(value, UUID) else UUID(bytes=value))  # type: ignore[arg-type]


def _sqlite(path: Path) -> Store:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = file.execute(
            """SELECT id, state, starts, stops, parent, metadata, coalesce(result, (SELECT data FROM content WHERE key = 2 * seq + 1)),
            lease_end IS NOT NULL OR holder IS NOT NULL, lined, expires IS NOT NULL FROM job"""
        ).fetchall()
        notes = file.execute("SELECT count(*) FROM note").fetchone()[0]
    return Store({str(_id(row[0])): _row(row) for row in found}, ["notes"] * notes)


def _postgres(url: str, app: str) -> Store:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            """SELECT id, state, starts, stops, parent, metadata, value, lease_end IS NOT NULL OR token IS NOT NULL, lined,
            expires IS NOT NULL FROM mognet.job JOIN mognet.app USING (app) JOIN mognet.content USING (seq) WHERE app.name = %s""",
            [app],
        ).fetchall()
        notes = connection.execute(
            "SELECT note.name FROM mognet.note JOIN mognet.job USING (seq) JOIN mognet.app USING (app) WHERE app.name = %s", [app]
        ).fetchall()
    return Store({str(_id(row[0])): _row(row) for row in found}, [f"note {name}" for (name,) in notes])


def _row(row: Any) -> Row:
    _, state, starts, stops, parent, metadata, value, held, lined, expires = row
    return Row(STATES[state], starts, stops, _id(parent), json.loads(metadata), value, bool(held), bool(lined), bool(expires))


def _redis(url: str, app: str) -> Store:
    start = b"mognet:{%b}:" % app.encode()
    rows = {}
    with Redis.from_url(url, protocol=2) as client:
        kinds: dict[bytes, list[bytes]] = {}
        for key in client.scan_iter(start + b"*", count=1000):
            kind, _, rest = key.removeprefix(start).partition(b":")
            kinds.setdefault(kind, []).append(rest)
        for id in kinds.get(b"job", ()):
            job = client.hgetall(start + b"job:" + id)
            state = STATES[int(job[b"s"])]
            content = client.get(start + b"body:" + id)
            metadata, value = _redis_metadata(client, start + b"meta:" + id, job.get(b"m"), content)
            rows[str(UUID(id.decode()))] = Row(
                state,
                int(job.get(b"a", 0)),
                int(job.get(b"o", 0)),
                str(UUID(job[b"u"].decode())) if b"u" in job else None,
                metadata,
                value if state in FINAL else None,
                b"k" in job,
                b"i" in job and job[b"i"] != b"0",
                b"x" in job,
            )
    transient = (b"ready", b"later", b"leases", b"carried", b"late", b"notes", b"open")
    return Store(rows, [f"{kind.decode()}:{rest.decode()}" for kind in transient for rest in kinds.get(kind, ())])


def _redis_metadata(client: Redis, key: bytes, kept: bytes | None, content: bytes | None) -> tuple[dict[str, Any], bytes | None]:
    """The metadata, and what is left of the text before which it stands until it is changed."""
    text, _, rest = (kept or b"").partition(b":")
    if not rest:
        fields = client.hgetall(key)
        return {json.loads(name): json.loads(value) for name, value in fields.items() if name.startswith(b'"')}, content
    content, head = content or b"", int(text) + int(rest)
    return json.loads(content[: int(text)]), content[head + 1 :] if len(content) > head else None
