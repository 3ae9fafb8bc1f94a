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

from hiredis import Reader, pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from mognet.exceptions import ConnectionError

_NOTHING = object()
"""What the parser says when an answer is not whole yet."""

TICK = 0.25
"""Seconds between two looks whether an answer is overdue."""

PING_AFTER = 2.0
"""Seconds without traffic after which the server is asked whether it is still there."""

_ANOTHER_SERVER = ("READONLY", "MASTERDOWN", "MOVED", "LOADING", "CLUSTERDOWN")
"""What a server says that cannot help us at present; perhaps another one can."""


class Wire(asyncio.Protocol):
    """A connection that redis-py has made and logged in: its socket is ours from here on.

    What is read goes to who waits for it in the turn of the loop in which it comes, and what is sent goes out at once: redis-py's
    own reader and writer would take more time for a short command than the server does.
    """

    def __init__(self, connection: AbstractConnection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._outbox: list[bytes] = []
        self._wrote = False
        """Whether something has been written in this turn of the loop."""
        self._spoke = asyncio.Event()
        self._heard = 0
        self.error: Exception | None = None
        self.broken = asyncio.Event()
        self._replies = Reader(replyError=ResponseError, notEnoughData=_NOTHING)
        self._transport: asyncio.Transport = connection._writer.transport  # type: ignore[union-attr,assignment]
        self._transport.set_protocol(self)
        self._watcher = asyncio.create_task(self._watch(), context=Context())

    def send(self, *command: bytes | str | int) -> None:
        """Send a command; to read its answer is the subclass's business. Raises ConnectionError on a broken connection."""
        if self.error is not None:
            raise ConnectionError(f"the connection to Redis broke: {self.error}") from self.error
        data = pack_command(command)  # type: ignore[arg-type] # any tuple will do
        self._spoke.set()
        if self._wrote:  # the others of this turn go together
            self._outbox.append(data)
        else:
            self._wrote = True
            self._transport.write(data)
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._wrote = False
        if self._outbox:
            data, self._outbox = self._outbox, []
            self._transport.writelines(data)

    async def close(self) -> None:
        """Close at once. What waits for an answer gets a ConnectionError."""
        self._break(ConnectionError("it was closed"))
        self._watcher.cancel()
        await asyncio.gather(self._watcher, return_exceptions=True)
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

    def data_received(self, data: bytes) -> None:
        try:
            self._replies.feed(data)
            while self.error is None and (reply := self._replies.gets()) is not _NOTHING:
                self._heard += 1
                self._received(reply)
                if isinstance(reply, ResponseError) and says(reply, *_ANOTHER_SERVER):
                    raise reply
        except Exception as error:  # whatever it is, this connection is not to be trusted any more
            self._break(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._break(exc or ConnectionError("the server closed it"))

    def _break(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
            lost = ConnectionError(f"the connection to Redis broke: {error or type(error).__name__}")
            lost.__cause__ = error
            self._give_up(lost)
            self.broken.set()

    async def _watch(self) -> None:
        # In ticks, not by the clock: after the loop was held up, the answer gets its chance to be read first. No ticks while nothing
        # is expected: they would be most of what an idle process does.
        heard, silent = self._heard, 0
        while self.error is None:
            if self._expects():
                await asyncio.sleep(TICK)
                silent = 0 if heard != self._heard else silent + 1
                if silent * TICK >= self._timeout and self._expects():
                    self._break(TimeoutError(f"no answer for {self._timeout:g} s"))
            else:
                silent = 0
                if not await self._speaks(PING_AFTER) and heard == self._heard and self.error is None:
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


class _Firm(asyncio.Future[Any]):
    """A future that cannot be cancelled: the task that waits for it gets its cancellation afterwards."""

    def cancel(self, msg: object = None) -> bool:
        return False


class Commands(Wire):
    """For commands: answers come in the order of the questions."""

    def __init__(self, connection: AbstractConnection, timeout: float) -> None:
        self._pending: deque[asyncio.Future[Any]] = deque()
        super().__init__(connection, timeout)

    def ask(self, *command: bytes | str | int) -> asyncio.Future[Any]:
        """Send a command; answers the future of its answer, which may be a redis error."""
        return self._ask(self._loop.create_future(), command)

    def ask_firmly(self, *command: bytes | str | int) -> asyncio.Future[Any]:
        """The same; who is cancelled while it waits for this answer is told of that when the answer is there."""
        return self._ask(_Firm(loop=self._loop), command)

    def _ask(self, future: asyncio.Future[Any], command: tuple[bytes | str | int, ...]) -> asyncio.Future[Any]:
        self.send(*command)
        self._pending.append(future)
        return future

    @property
    def unanswered(self) -> int:
        """How many answers are still to come."""
        return len(self._pending)

    async def answered(self) -> None:
        """Wait for the answers to what has been sent so far."""
        if self._pending:
            await asyncio.wait([self._pending[-1]])

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
        future: asyncio.Future[None] = self._loop.create_future()
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
