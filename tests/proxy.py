"""A TCP proxy that tests put before a real server, to break the way to it.

::

    async with Proxy(server_port) as proxy:
        client = connect(proxy.url("redis://127.0.0.1:6379/0"))
        proxy.reset()                        # every connection breaks; new ones come through
        proxy.refuse(); await proxy.accept() # between the two, no new one comes through
        with proxy.hanging(): ...            # nothing passes, nothing is lost, nobody is told
        proxy.half_open()                    # the server's end is gone; the client is not told
        struck = proxy.lose_reply(b"SET")    # the next request with these bytes arrives, its answer does not
        proxy.delay = 0.05                   # seconds more for everything, each way
        proxy.trips                          # round trips so far

All of it happens in the event loop of the test, which must not block meanwhile.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self
from urllib.parse import urlsplit, urlunsplit

CHUNK = 1 << 16


class Proxy:
    """Carries connections from a free port of 127.0.0.1 to a server, or not."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._links: set[Link] = set()
        self._losing: list[tuple[bytes, asyncio.Event]] = []
        self._passing = asyncio.Event()
        self._passing.set()
        self.port = 0
        self.delay = 0.0
        """Seconds that everything takes longer, each way."""
        self.connections = 0
        """How many were made."""
        self.trips = 0
        """Round trips: how often the client spoke first or after an answer. Requests sent together are one trip."""
        self.sent = 0
        """Bytes from clients to the server."""
        self.received = 0
        """Bytes from the server to clients."""

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._stop_listening()
        self._passing.set()
        self.reset()
        while self._links:
            await asyncio.wait([link.task for link in self._links])

    def url(self, url: str) -> str:
        """The same URL, with this proxy in the server's place."""
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user[0]}{user[1]}127.0.0.1:{self.port}"))

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._links)

    # faults

    def cut(self) -> None:
        """Close every connection, in order."""
        for link in list(self._links):
            link.close()

    def reset(self) -> None:
        """Break every connection: both ends get an error."""
        for link in list(self._links):
            link.break_off()

    def half_open(self) -> None:
        """End every connection at the server; clients are not told: what they send goes nowhere, and nothing comes."""
        for link in list(self._links):
            link.forget_server()

    def refuse(self) -> None:
        """Refuse new connections from now on; those that are there stay."""
        self._stop_listening()

    async def accept(self) -> None:
        """Take connections again."""
        if self._server is None:
            await self._listen()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Inside the context nothing passes; connections stay, and what was sent arrives afterwards."""
        self._passing.clear()
        try:
            yield
        finally:
            self._passing.set()

    def lose_reply(self, request: bytes = b"") -> asyncio.Event:
        """Let the next request that contains these bytes arrive, and break its connection in place of the answer.

        The event is set when that has happened. Call it several times for several such requests.
        """
        struck = asyncio.Event()
        self._losing.append((request, struck))
        return struck

    # the way

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = Link(self, reader, writer)
        self._links.add(link)
        try:
            await link.carry()
        finally:
            self._links.discard(link)

    async def _pass(self) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        await self._passing.wait()

    def _loses(self, data: bytes) -> asyncio.Event | None:
        for number, (request, struck) in enumerate(self._losing):
            if request in data:
                del self._losing[number]
                return struck
        return None


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = (reader, writer)
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._losing: asyncio.Event | None = None
        self._answered = True
        self._ended = asyncio.Event()
        task = asyncio.current_task()
        assert task is not None
        self.task = task

    async def carry(self) -> None:
        """Carry bytes both ways until one end closes."""
        try:
            await self._proxy._passing.wait()
            self._server = await asyncio.open_connection(*self._proxy._target)
        except OSError:
            self.break_off()
        tasks: list[asyncio.Task[None]] = []
        if self._server is not None:
            tasks = [asyncio.create_task(self._to_server(self._server[1])), asyncio.create_task(self._to_client(self._server[0]))]
        try:
            await self._ended.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for _, writer in filter(None, (self._client, self._server)):
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _to_server(self, writer: asyncio.StreamWriter) -> None:
        reader, proxy = self._client[0], self._proxy
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                proxy.sent += len(data)
                proxy.trips += self._answered
                self._answered = False
                await proxy._pass()
                if self._losing is None:
                    self._losing = proxy._loses(data)
                if not writer.is_closing():
                    writer.write(data)
                    await writer.drain()
        self.close()

    async def _to_client(self, reader: asyncio.StreamReader) -> None:
        writer, proxy = self._client[1], self._proxy
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                proxy.received += len(data)
                self._answered = True
                if self._losing is not None:
                    self._losing.set()
                    self.break_off()
                    return
                await proxy._pass()
                writer.write(data)
                await writer.drain()
        if self._server is not None:
            self.close()

    def close(self) -> None:
        """End it in order."""
        self._ended.set()

    def break_off(self) -> None:
        """End it by RST."""
        for _, writer in filter(None, (self._client, self._server)):
            _abort(writer)
        self._ended.set()

    def forget_server(self) -> None:
        """Drop the server's end."""
        if self._server is not None:
            writer, self._server = self._server[1], None
            _abort(writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.is_closing():
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
