"""Where each engine knocks, and that its server answers."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from mognet.backoff import Backoff, pause_after
from mognet.engines.knocking import Door
from mognet.engines.postgres import connecting
from mognet.engines.postgres.errors import translated
from mognet.engines.postgres.pool import RECONNECT
from mognet.engines.postgres.settings import parse_url
from mognet.engines.rabbitmq.broker import PROTOCOL
from mognet.engines.rabbitmq.settings import read_urls
from mognet.engines.redis import address
from mognet.exceptions import ServerStarting
from servers.postgres import shared_postgres
from servers.rabbitmq import shared_rabbitmq
from servers.redis import shared_redis


def places(doors: list[Door]) -> list[str]:
    return [door.path or f"{door.host}:{door.port}" for door in doors]


def test_redis() -> None:
    [door] = address.parse("redis://u:canary@a:7/0").doors()
    assert (door.host, door.port, door.question) == ("a", 7, b"PING\r\n")
    assert "canary" not in repr(door)
    assert places(address.parse("unix:///run/r.sock").doors()) == ["/run/r.sock"]
    assert places(address.parse("redis+sentinel://a,b:3/service").doors()) == ["a:26379", "b:3"]
    [door] = address.parse("rediss://a").doors()
    assert (door.host, door.port, door.question) == ("a", 6379, b"")


def test_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPORT", "PGHOSTADDR"):
        monkeypatch.delenv(name, raising=False)

    def doors(url: str) -> list[str]:
        return places(connecting.doors(parse_url(url)))

    assert doors("postgresql://u:canary@a:7/db") == ["a:7"]
    assert doors("postgresql://a,b/db") == ["a:5432", "b:5432"]
    assert doors("postgresql://a:1,b:2/db") == ["a:1", "b:2"]
    assert doors("postgresql:///db?host=/run/pg&port=7") == ["/run/pg/.s.PGSQL.7"]
    assert doors("postgresql://a/db?hostaddr=127.0.0.9") == ["127.0.0.9:5432"]
    monkeypatch.setenv("PGHOST", "c")
    monkeypatch.setenv("PGPORT", "8")
    assert doors("postgresql:///db") == ["c:8"]


async def test_they_answer() -> None:
    rabbitmq = read_urls(await asyncio.to_thread(shared_rabbitmq)).addresses[0]
    doors = [
        *address.parse(shared_redis()).doors(),
        *connecting.doors(parse_url(shared_postgres())),
        Door(rabbitmq.host, rabbitmq.port, question=PROTOCOL),
    ]
    assert [await door.answers() for door in doors] == [True] * 3


async def test_a_redis_that_loads_does_not_answer_yet() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.write(b"-LOADING Redis is loading the dataset in memory\r\n")
        writer.close()

    heard: list[bytes] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    [door] = address.parse(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}").doors()
    assert not await door.answers()
    assert heard == [b"PING\r\n"]
    server.close()


@pytest.mark.parametrize("state", ["starting up", "in recovery mode", "not yet accepting connections", "shutting down"])
def test_a_postgres_that_starts_is_asked_again_soon(state: str) -> None:
    starting = psycopg.OperationalError(f"connection failed: FATAL:  the database system is {state}")
    error = translated(starting, "x", connecting=True)
    assert isinstance(error, ServerStarting)
    assert 0 <= pause_after(error, 1000, RECONNECT) < 2
    refused = translated(psycopg.OperationalError("connection refused"), "x", connecting=True)
    assert refused is not None
    assert not isinstance(refused, ServerStarting)
    assert pause_after(refused, 3, Backoff(base=7, factor=1, jitter=False)) == 7
