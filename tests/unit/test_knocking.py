"""Who waits for a server notices its return, and asks for it seldom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from mognet.engines import knocking
from mognet.engines.knocking import Door, Doors
from servers import free_port


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in a tenth of the time."""
    for name in ("KNOCK_EVERY", "SHORT", "SPREAD"):
        monkeypatch.setattr(knocking, name, getattr(knocking, name) / 10)


class House(Door):
    """A door that opens as told, and counts the knocks."""

    def __init__(self, name: str = "house") -> None:
        super().__init__(name)
        self.knocks: list[float] = []
        self.open = True

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    async def answers(self) -> bool:
        self.knocks.append(time.monotonic())
        await asyncio.sleep(0.001)
        return self.open


class Server:
    """Answers whoever connects, with one text, or not at all."""

    def __init__(self, answer: bytes | None = b"hello", path: Path | None = None) -> None:
        self.answer, self.path, self.port = answer, path, free_port()
        self.heard: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Server:
        start = (
            asyncio.start_unix_server(self._serve, self.path) if self.path else asyncio.start_server(self._serve, "127.0.0.1", self.port)
        )
        self._server = await start
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            self.heard.append(await reader.read(100))
            if self.answer is not None:
                writer.write(self.answer)
                await writer.drain()
                await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    def door(self, question: bytes = b"who is there?", not_yet: Iterable[bytes] = ()) -> Door:
        where = {"path": str(self.path)} if self.path else {"host": "127.0.0.1", "port": self.port}
        return Door(**where, question=question, not_yet=tuple(not_yet))  # type: ignore[arg-type]


async def test_an_answer() -> None:
    async with Server() as server:
        assert await server.door().answers()
        assert await server.door(not_yet=[b"go away"]).answers()
        assert not await server.door(not_yet=[b"go away", b"hell"]).answers()
        assert server.heard == [b"who is there?"] * 3


async def test_a_unix_socket(tmp_path: Path) -> None:
    async with Server(path=tmp_path / "socket") as server:
        assert await server.door().answers()
    (tmp_path / "socket").unlink(missing_ok=True)
    assert not await server.door().answers()


async def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knocking, "ANSWER_SECONDS", 0.2)
    assert not await Door("127.0.0.1", free_port(), question=b"x").answers()
    assert not await Door("127.0.0.1", free_port()).answers()
    assert not await Door("", 1).answers()
    assert not await Door("a..b", 1).answers()
    async with Server(answer=b"") as server:  # hangs up, like a proxy with nobody behind it
        assert not await server.door().answers()


async def test_one_that_takes_connections_and_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knocking, "ANSWER_SECONDS", 0.3)

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.transport.abort()

    ended = asyncio.Event()
    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert not await Door("127.0.0.1", port, question=b"x").answers()
    assert await Door("127.0.0.1", port).answers(), "without a question, one that waits for our word is there"
    ended.set()
    server.close()
    await asyncio.sleep(0.01)


async def test_a_return_ends_the_wait() -> None:
    house = House()
    lookout = Doors([house]).lookout()
    house.open = False
    waiting = asyncio.create_task(lookout.wait(60))
    await asyncio.sleep(1)
    assert not waiting.done()
    assert 2 <= len(house.knocks) <= 8  # one in 0.2 s
    house.open = True
    began = time.monotonic()
    assert await waiting
    assert time.monotonic() - began < 3


async def test_the_wait_ends_by_itself() -> None:
    house = House()
    house.open = False
    lookout = Doors([house]).lookout()
    began = time.monotonic()
    assert not await lookout.wait(0.5)
    assert 0.49 < time.monotonic() - began < 2
    assert not await Doors([]).lookout().wait(0.2)
    assert not await lookout.wait(-1)


async def test_a_door_that_is_open_says_nothing() -> None:
    """It is something else that keeps us out (a password, too many connections): then it is not knocked at again and again."""
    house = House()
    assert not await Doors([house]).lookout().wait(1)
    assert len(house.knocks) == 1


async def test_a_short_wait_is_no_reason_to_knock() -> None:
    house = House()
    assert not await Doors([house]).lookout().wait(0.05)
    assert house.knocks == []


async def test_a_return_between_two_waits_is_noticed() -> None:
    """While an attempt was under way that failed, somebody else has seen the server come back."""
    house = House()
    house.open = False
    doors = Doors([house])
    one, other = doors.lookout(), doors.lookout()
    assert not await one.wait(0.3)
    house.open = True
    assert await other.wait(60)
    knocks = len(house.knocks)
    assert await one.wait(60)
    assert len(house.knocks) == knocks
    assert not await one.wait(0.3), "it was told once"


async def test_a_crowd_knocks_as_one() -> None:
    house = House()
    house.open = False
    doors = Doors([house])
    waiting = [asyncio.create_task(doors.lookout().wait(60)) for _ in range(50)]
    await asyncio.sleep(1)
    assert len(house.knocks) <= 8
    house.open = True
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiting) == [True] * 50


async def test_one_of_several_returns() -> None:
    first, second = House("first"), House("second")
    second.open = False
    lookout = Doors([first, second]).lookout()
    waiting = asyncio.create_task(lookout.wait(60))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    second.open = True
    async with asyncio.timeout(5):
        assert await waiting


async def test_a_wait_that_is_cancelled_leaves_the_others_alone() -> None:
    house = House()
    house.open = False
    doors = Doors([house])
    gone, stays = asyncio.create_task(doors.lookout().wait(60)), asyncio.create_task(doors.lookout().wait(60))
    await asyncio.sleep(0.3)
    gone.cancel()
    await asyncio.wait([gone])
    house.open = True
    async with asyncio.timeout(5):
        assert await stays
