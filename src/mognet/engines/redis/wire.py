"""Connections that nobody else uses: commands go out without waiting for the answers of those before them.

Who waits for an answer may be cancelled; the connection does not notice. One that stays silent while an answer is due is closed,
and never used again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from mognet.exceptions import ConnectionError

_pack: Callable[[tuple[Any, ...]], bytes] | None
try:
    from hiredis import pack_command
except ImportError:  # installed by other means than the extra
    _pack = None
else:
    _pack = pack_command

TICK = 0.25
"""Seconds between two looks whether an answer is overdue."""

PING_AFTER = 2.0
"""Seconds without traffic after which the server is asked whether it is still there."""

_ANOTHER_SERVER = ("READONLY", "MASTERDOWN", "MOVED", "LOADING", "CLUSTERDOWN")
"""What a server says that cannot help us at present; perhaps another one can."""


class Wire:
    """A connection and its two ends."""

    def __init__(self, connection: AbstractConnection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._outbox: list[bytes] = []
        self._filled = asyncio.Event()
        self._spoke = asyncio.Event()
        self._heard = 0
        self.error: Exception | None = None
        self.broken = asyncio.Event()
        self._tasks = [asyncio.create_task(self._guard(part), context=Context()) for part in (self._write, self._read, self._watch)]

    def send(self, *command: bytes | str | int) -> None:
        """Send a command; to read its answer is the subclass's business. Raises ConnectionError on a broken connection."""
        if self.error is not None:
            raise ConnectionError(f"the connection to Redis broke: {self.error}") from self.error
        if _pack is None:
            self._outbox += self._connection.pack_command(*command)
        else:  # ten times as fast for the thousands of arguments of a batch
            self._outbox.append(_pack(command))
        self._filled.set()
        self._spoke.set()

    async def close(self) -> None:
        """Close at once. What waits for an answer gets a ConnectionError."""
        self._break(ConnectionError("it was closed"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await hang_up(self._connection)

    # what the two kinds do

    def _received(self, reply: Any) -> None:
        raise NotImplementedError

    def _ping(self) -> None:
        raise NotImplementedError

    def _expects(self) -> bool:
        raise NotImplementedError

    def _give_up(self, error: Exception) -> None:
        raise NotImplementedError

    # the parts

    async def _guard(self, part: Callable[[], Any]) -> None:
        try:
            await part()
        except Exception as error:  # whatever it is, this connection is not to be trusted any more
            self._break(error)

    def _break(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
            lost = ConnectionError(f"the connection to Redis broke: {error or type(error).__name__}")
            lost.__cause__ = error
            self._give_up(lost)
            self.broken.set()

    async def _write(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            data, self._outbox = self._outbox, []
            await self._connection.send_packed_command(data, check_health=False)

    async def _read(self) -> None:
        while True:
            reply: Any
            try:
                reply = await self._connection.read_response()
            except ResponseError as error:
                reply = error
            self._heard += 1
            self._received(reply)
            if isinstance(reply, ResponseError) and says(reply, *_ANOTHER_SERVER):
                raise reply

    async def _watch(self) -> None:
        # In ticks, not by the clock: after the loop was held up, the answer gets its chance to be read first. No ticks while nothing
        # is expected: they would be most of what an idle process does.
        heard, silent = self._heard, 0
        while True:
            if self._expects():
                await asyncio.sleep(TICK)
                silent = 0 if heard != self._heard else silent + 1
                if silent * TICK >= self._timeout and self._expects():
                    raise TimeoutError(f"no answer for {self._timeout:g} s")
            else:
                silent = 0
                if not await self._speaks(PING_AFTER) and heard == self._heard:
                    self._ping()
            heard = self._heard

    async def _speaks(self, seconds: float) -> bool:
        """Whether something is sent within so many seconds."""
        self._spoke.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._spoke.wait()
        except TimeoutError:
            return False
        return True


class Commands(Wire):
    """For commands: answers come in the order of the questions."""

    def __init__(self, connection: AbstractConnection, timeout: float) -> None:
        self._pending: deque[asyncio.Future[Any]] = deque()
        super().__init__(connection, timeout)

    def ask(self, *command: bytes | str | int) -> asyncio.Future[Any]:
        """Send a command; answers the future of its answer, which may be a redis error."""
        self.send(*command)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.append(future)
        return future

    def _received(self, reply: Any) -> None:
        future = self._pending.popleft()
        if future.done():
            return
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _ping(self) -> None:
        self.ask("PING")

    def _expects(self) -> bool:
        return bool(self._pending)

    def _give_up(self, error: Exception) -> None:
        while self._pending:
            future = self._pending.popleft()
            if not future.done():
                future.set_exception(error)
                future.exception()  # a ping's, for which nobody waits


class Ear(Wire):
    """For what is published."""

    def __init__(self, connection: AbstractConnection, timeout: float, deliver: Callable[[bytes, bytes], None]) -> None:
        self._deliver = deliver
        self._asked = 0
        self._subscribing: defaultdict[bytes, deque[asyncio.Future[None]]] = defaultdict(deque)
        super().__init__(connection, timeout)

    def subscribe(self, channel: bytes) -> asyncio.Future[None]:
        """Subscribe; done when the server has said so."""
        self.send("SUBSCRIBE", channel)
        self._asked += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._subscribing[channel].append(future)
        return future

    def unsubscribe(self, channel: bytes) -> None:
        """Leave a channel."""
        self.send("UNSUBSCRIBE", channel)
        self._asked += 1

    def _received(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise reply
        kind = reply[0] if isinstance(reply, list) else b"pong"
        if kind == b"message":
            self._deliver(reply[1], reply[2])
            return
        self._asked -= 1
        if kind == b"subscribe":
            future = self._subscribing[reply[1]].popleft()
            if not self._subscribing[reply[1]]:
                del self._subscribing[reply[1]]
            if not future.done():
                future.set_result(None)

    def _ping(self) -> None:
        self.send("PING")
        self._asked += 1

    def _expects(self) -> bool:
        return self._asked > 0

    def _give_up(self, error: Exception) -> None:
        for futures in self._subscribing.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)
                    future.exception()
        self._subscribing.clear()


def says(error: Exception, *codes: str) -> bool:
    """Whether a server's error is of this kind. Redis before 7 wraps the errors inside of scripts into others."""
    kinds = {"READONLY": "ReadOnlyError", "LOADING": "BusyLoadingError", "MASTERDOWN": "MasterDownError", "OOM": "OutOfMemoryError"}
    kinds |= {"MOVED": "MovedError", "ASK": "AskError", "TRYAGAIN": "TryAgainError", "CLUSTERDOWN": "ClusterDownError"}
    kinds |= {"NOPERM": "NoPermissionError", "NOSCRIPT": "NoScriptError"}
    return any(type(error).__name__ == kinds.get(code) or f"{code} " in str(error) for code in codes)


async def hang_up(connection: AbstractConnection) -> None:
    """Close a connection, whatever is still to be sent or read."""
    writer = getattr(connection, "_writer", None)
    if writer is not None:
        writer.transport.abort()
    with suppress(RedisError, OSError, TimeoutError):
        await connection.disconnect(nowait=True)
