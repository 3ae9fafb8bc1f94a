"""The proxy that other tests break servers with does what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from proxy import Proxy


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Proxy, list[bytes]]]:
    """A proxy before a server that notes and echoes all it gets."""
    seen: list[bytes] = []
    tasks = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with suppress(OSError):
            while data := await reader.read(100):
                seen.append(data)
                writer.write(data)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy, seen
    server.close()
    if tasks:
        await asyncio.wait(tasks)


class Client:
    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    async def ask(self, data: bytes, seconds: float = 5.0) -> bytes:
        self.writer.write(data)
        async with asyncio.timeout(seconds):
            return await self.reader.read(100)


Echo = tuple[Proxy, list[bytes]]


async def test_carries_and_counts(echo: Echo) -> None:
    proxy, _ = echo
    async with Client(proxy) as one, Client(proxy) as two:
        assert [await one.ask(b"a"), await one.ask(b"bb"), await two.ask(b"c")] == [b"a", b"bb", b"c"]
        assert (proxy.connections, proxy.open, proxy.trips, proxy.sent, proxy.received) == (2, 2, 3, 4, 4)


def test_url() -> None:
    proxy = Proxy(1)
    proxy.port = 2
    assert proxy.url("redis://u:p@h:1/0?a=b") == "redis://u:p@127.0.0.1:2/0?a=b"


async def test_cut_and_reset(echo: Echo) -> None:
    proxy, _ = echo
    async with Client(proxy) as client:
        await client.ask(b"a")
        proxy.cut()
        assert await client.ask(b"") == b""
    async with Client(proxy) as client:
        await client.ask(b"a")
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await client.ask(b"")
    async with Client(proxy) as client:
        assert await client.ask(b"a") == b"a"


async def test_refuse(echo: Echo) -> None:
    proxy, _ = echo
    async with Client(proxy) as client:
        await client.ask(b"a")
        proxy.refuse()
        with pytest.raises(OSError):
            await Client(proxy).__aenter__()
        assert await client.ask(b"b") == b"b"
    await proxy.accept()
    async with Client(proxy) as client:
        assert await client.ask(b"a") == b"a"


async def test_hanging_loses_nothing(echo: Echo) -> None:
    proxy, _ = echo
    async with Client(proxy) as client:
        await client.ask(b"a")
        with proxy.hanging():
            with pytest.raises(TimeoutError):
                await client.ask(b"b", 0.05)
        assert await client.ask(b"") == b"b"


async def test_half_open(echo: Echo) -> None:
    proxy, seen = echo
    async with Client(proxy) as client:
        await client.ask(b"a")
        proxy.half_open()
        with pytest.raises(TimeoutError):
            await client.ask(b"b", 0.05)
        assert seen == [b"a"]
    async with Client(proxy) as client:
        assert await client.ask(b"c") == b"c"


async def test_lose_reply(echo: Echo) -> None:
    proxy, seen = echo
    async with Client(proxy) as client:
        struck = proxy.lose_reply(b"b")
        assert await client.ask(b"a") == b"a"
        assert not struck.is_set()
        with pytest.raises(ConnectionResetError):
            await client.ask(b"b")
        assert struck.is_set()
        assert seen == [b"a", b"b"]
    async with Client(proxy) as client:
        assert await client.ask(b"b") == b"b"


async def test_delay(echo: Echo) -> None:
    proxy, _ = echo
    proxy.delay = 0.05
    async with Client(proxy) as client:
        start = asyncio.get_running_loop().time()
        await client.ask(b"a")
        assert asyncio.get_running_loop().time() - start >= 0.1
