"""Jobs submitted inside the caller's own transaction: they come and go with it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from mognet import App, Request
from mognet.exceptions import ConnectionError, ImproperlyConfigured


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with App("joining", url=f"sqlite:///{tmp_path}/jobs.db") as app:

        @app.task(name="double")
        async def double(n: int) -> int:
            return 2 * n

        yield app


@pytest.fixture(params=["", None], ids=["python begins", "autocommit"])
def connection(app: App, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=request.param, timeout=0.2)) as connection:
        connection.execute("CREATE TABLE orders (number INTEGER)")
        connection.commit()
        connection.row_factory = sqlite3.Row
        connection.text_factory = bytes
        yield connection


async def submit(app: App, connection: sqlite3.Connection, request: Request[int]) -> Request[int]:
    await app.submit(request, connection=connection)
    return request


def request_of(n: int) -> Request[int]:
    return Request(name="double", args=(n,), metadata={"n": n})


async def test_a_commit_makes_it_run(app: App, connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")
    connection.execute("INSERT INTO orders VALUES (1)")
    request = await submit(app, connection, request_of(21))
    assert await app.result_backend.get(request.id) is None
    connection.commit()
    worker = asyncio.create_task(app.start())
    async with asyncio.timeout(20):
        assert await (await app.submit(request)) == 42
    await app.stop()
    await worker
    assert connection.row_factory is sqlite3.Row and connection.text_factory is bytes


async def test_a_rollback_leaves_nothing(app: App, connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")
    connection.execute("INSERT INTO orders VALUES (1)")
    request = await submit(app, connection, request_of(1))
    connection.rollback()
    assert await app.result_backend.get(request.id) is None
    assert connection.execute("SELECT count(*) FROM orders").fetchone()[0] == 0


async def test_without_a_transaction_one_is_begun(app: App, connection: sqlite3.Connection) -> None:
    first = await submit(app, connection, request_of(1))
    second = await submit(app, connection, request_of(2))
    assert connection.in_transaction
    assert await app.result_backend.get_many(first.id, second.id) == [None, None]
    connection.commit()
    assert [result is not None for result in await app.result_backend.get_many(first.id, second.id)] == [True, True]


async def test_a_known_id_changes_nothing_and_keeps_the_transaction(app: App, connection: sqlite3.Connection) -> None:
    known = await app.submit(request_of(1))
    connection.execute("BEGIN")
    connection.execute("INSERT INTO orders VALUES (1)")
    again = await app.submit(Request(id=known.id, name="other"), connection=connection)
    assert again.name == known.name
    connection.commit()
    assert connection.execute("SELECT count(*) FROM orders").fetchone()[0] == 1


async def test_an_id_known_in_the_same_transaction_gives_its_result(app: App, connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")
    request = request_of(1)
    first = await app.submit(request, connection=connection)
    again = await app.submit(request, connection=connection)
    assert (again.id, again.state) == (first.id, "PENDING")
    connection.commit()
    await again.refresh()


async def test_a_locked_file_is_an_error_and_no_transaction_is_left(app: App, connection: sqlite3.Connection, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConnectionError, match="locked"):
            await app.submit(request_of(1), connection=connection)
        other.execute("ROLLBACK")
    assert not connection.in_transaction


async def test_another_database_or_kind_is_refused(app: App, tmp_path: Path) -> None:
    request = Request(name="any", id=uuid4())
    with closing(sqlite3.connect(tmp_path / "other.db")) as other, pytest.raises(ImproperlyConfigured, match=r"other\.db"):
        await app.submit(request, connection=other)
    with closing(sqlite3.connect(":memory:")) as other, pytest.raises(ImproperlyConfigured, match="in memory"):
        await app.submit(request, connection=other)
    with pytest.raises(ImproperlyConfigured, match=r"sqlite3\.Connection"):
        await app.submit(request, connection=object())
    assert await app.result_backend.get(request.id) is None
