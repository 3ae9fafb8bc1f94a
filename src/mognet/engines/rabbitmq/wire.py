"""The client library, set up for tickets: a connection that notices silence, and a channel whose ``basic.get`` can be pipelined."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from mognet.engines.rabbitmq.settings import Address, Settings
from mognet.exceptions import ImproperlyConfigured

try:
    import aiormq
    from aiormq import spec
    from aiormq.abc import ChannelFrame, DeliveredMessage
    from aiormq.channel import Channel
    from aiormq.connection import Connection, TransportFactory
    from pamqp.base import Frame
    from yarl import URL
except ImportError as error:
    raise ImproperlyConfigured(f'RabbitMQ needs the extra "amqp": pip install "mognet[amqp]" ({error})') from None

Message = DeliveredMessage

for _name in ("aiormq.connection", "aiormq.channel"):  # the session says in one line what these say in forty
    if logging.getLogger(_name).level == logging.NOTSET:
        logging.getLogger(_name).setLevel(logging.CRITICAL)

END_SECONDS = 2.0
"""How long the other side may take to part in order."""

_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}


class Transport(TransportFactory):
    """A TCP connection that the system ends when the other side is gone, and that can be broken off."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **_: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        # Without a limit a server that does not part in order is waited for half a minute.
        parting: Any = {} if self._context is None else {"ssl_shutdown_timeout": END_SECONDS / 2}
        reader, writer = await asyncio.open_connection(url.host, url.port, ssl=self._context, **parting)
        self._writer = writer
        sock = writer.get_extra_info("socket")
        if sock is not None:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name, value in _KEEPALIVE.items():
                    if (option := getattr(socket, name, None)) is not None:
                        sock.setsockopt(socket.IPPROTO_TCP, option, value)
        return reader, writer

    def abort(self) -> None:
        """Break it off: nothing is waited for."""
        if self._writer is not None:
            self._writer.transport.abort()


class Wire(Connection):
    """A connection to one node."""

    FRAME_BUFFER_SIZE = 16_384  # frames; with the library's 10, each publish waits for the last one's write
    HEARTBEAT_GRACE_MULTIPLIER = 2

    def __init__(self, address: Address, settings: Settings, context: ssl.SSLContext | None, name: str) -> None:
        self.address = address
        self.transport = Transport(context)
        url = URL(f"{address.url}?heartbeat={settings.heartbeat}", encoded=True)
        super().__init__(url, transport_factory=self.transport, client_properties={"connection_name": name, "product": "mognet"})
        self.vhost = address.vhost

    @property
    def version(self) -> object:
        """The server's."""
        return self.server_properties.get("version")

    async def end(self) -> None:
        """Close it, in order if that is done in time, whatever comes of it. Only a cancellation of the caller is passed on."""
        task = asyncio.ensure_future(self.close())
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        try:
            await asyncio.wait([task], timeout=END_SECONDS)
        finally:
            self.transport.abort()
            if not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=END_SECONDS)


class TicketChannel(Channel):
    """A channel for tickets: many ``basic.get`` may be under way, and their answers come in order.

    After its setup nothing is sent over it that has an answer of its own: ``Get`` is answered here, all else is sent with ``nowait``.
    """

    def __init__(self, wire: Wire, number: int, unwanted: Callable[[Message], None]) -> None:
        super().__init__(wire, number, publisher_confirms=False, frame_buffer=0)
        self._unwanted = unwanted
        self._gets: deque[asyncio.Future[Message | None]] = deque()

    @classmethod
    async def opened(cls, wire: Wire, unwanted: Callable[[Message], None]) -> TicketChannel:
        """A new channel of a connection; ``unwanted`` gets the messages that nobody waits for any more."""
        number = max(wire.channels, default=0) + 1
        channel = cls(wire, number, unwanted)
        wire.channels[number] = channel
        await channel.open()
        await channel.basic_qos(prefetch_count=1)  # of each consumer: `global_` stays False
        return channel

    def send(self, frames: Sequence[Frame]) -> None:
        """Send, without waiting for anything. Raises :class:`asyncio.QueueFull` if the connection has long taken nothing."""
        self.write_queue.put_nowait(ChannelFrame.marshall(channel_number=self.number, frames=list(frames)))

    def get(self, queue: str, number: int) -> list[asyncio.Future[Message | None]]:
        """Ask for so many messages in one go; None: there was none."""
        futures: list[asyncio.Future[Message | None]] = [self.loop.create_future() for _ in range(number)]
        self.send([spec.Basic.Get(queue=queue)] * number)
        self._gets.extend(futures)
        return futures

    def listen(self, queue: str, tag: str, arrived: Callable[[Message], Awaitable[None]]) -> None:
        """Consume; an error closes the channel."""
        self.consumers[tag] = arrived  # type: ignore[assignment] # its result is not looked at
        self.send([spec.Basic.Consume(queue=queue, consumer_tag=tag, nowait=True)])

    def leave(self, tag: str) -> None:
        """Consume no more. What is on its way already still arrives."""
        self.send([spec.Basic.Cancel(consumer_tag=tag, nowait=True)])

    def fail(self, error: Exception) -> None:
        """Nothing will be answered any more."""
        while self._gets:
            future = self._gets.popleft()
            if not future.done():
                future.set_exception(error)

    async def _on_get_frame(self, frame: spec.Basic.GetOk | spec.Basic.GetEmpty) -> None:
        # The library knows one `get` at a time: it puts the message into `getter`, and its frame where an RPC would look for it.
        self.getter = self.loop.create_future()
        await super()._on_get_frame(frame)
        while not self.rpc_frames.empty():
            self.rpc_frames.get_nowait()
        message = self.getter.result()[1] if isinstance(frame, spec.Basic.GetOk) else None
        future = self._gets.popleft() if self._gets else None
        if future is not None and not future.done():
            future.set_result(message)
        elif message is not None:
            self._unwanted(message)


__all__ = ["Message", "TicketChannel", "Transport", "Wire", "aiormq", "spec"]
