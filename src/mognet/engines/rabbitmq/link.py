"""One connection from its beginning to its end. What goes wrong anywhere on it ends all of it; the session makes another."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import Any

from mognet.engines.rabbitmq.settings import Settings, queue_arguments, queue_name, read_version
from mognet.engines.rabbitmq.wire import Wire, aiormq
from mognet.exceptions import ConnectionError, ImproperlyConfigured, MognetError

ANSWER_SECONDS = 5.0
"""How long the broker may take to answer; then the connection counts as dead."""

_log = logging.getLogger(__name__)
_numbers = itertools.count(1)


class Link:
    """A connection, its queues, and whether it is still good. ``number`` tells it from those before and after it."""

    def __init__(self, wire: Wire, app: str, settings: Settings) -> None:
        self.number = next(_numbers)
        self.wire = wire
        self.settings = settings
        self.version = read_version(wire.version)
        self.broken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Set, with the reason, when it is good no more."""
        self._app = app
        self._names: dict[str, str] = {}
        self._declaring = asyncio.Lock()
        self._desk: Any = None
        self._watch(wire)

    async def open(self) -> None:
        """Open the channels."""

    @property
    def alive(self) -> bool:
        """Whether it is good."""
        return not self.broken.done()

    def fail(self, reason: str) -> None:
        """It is good no more."""
        if not self.broken.done():
            self.broken.set_result(reason)

    def check(self) -> None:
        """Raise :class:`ConnectionError` if it is good no more."""
        if self.broken.done():
            raise ConnectionError(f"the connection to RabbitMQ is gone: {self.broken.result()}")

    def _watch(self, closable: Any) -> None:
        def closed(future: asyncio.Future[Any]) -> None:
            error = None if future.cancelled() else future.exception()
            self.fail(f"{closable!r} was closed" if error is None else explained(error))

        closable.closing.add_done_callback(closed)

    async def close(self) -> None:
        """End it, in order if it is still good."""
        orderly = self.alive
        self.fail("it was closed")
        if not orderly:
            self.wire.transport.abort()
        task = asyncio.ensure_future(self.wire.close())
        try:
            await asyncio.wait([task], timeout=2.0)
        finally:
            self.wire.transport.abort()
            if not task.done():
                task.cancel()
            with suppress(BaseException):
                await task

    @asynccontextmanager
    async def answering(self, seconds: float = ANSWER_SECONDS) -> AsyncIterator[None]:
        """What is asked inside has to be answered in time. Errors of the client library become ours, and end the link."""
        self.check()
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                yield
        except TimeoutError:
            if limit.expired():
                self.fail(f"no answer within {seconds:g} s")
            self.check()
            raise
        except MognetError:
            raise
        except (aiormq.AMQPError, OSError, RuntimeError, asyncio.QueueFull) as error:
            self.fail(explained(error))
            raise ConnectionError(f"RabbitMQ: {explained(error)}") from error

    # queues

    def name(self, queue: str) -> str:
        """How a queue is called there."""
        return self._names.get(queue) or queue_name(self._app, queue)

    async def declare(self, queues: Collection[str]) -> None:
        """Make the queues that are not known to be there."""
        if all(queue in self._names for queue in queues):
            return
        async with self._declaring:
            for queue in queues:
                if queue not in self._names:
                    await self._declare(queue_name(self._app, queue))
                    self._names[queue] = queue_name(self._app, queue)

    def forget(self, queues: Collection[str]) -> None:
        """These queues may be gone."""
        for queue in queues:
            self._names.pop(queue, None)

    async def depth(self, queue: str) -> int:
        """How many messages are ready in a queue, which is made if need be."""
        async with self._declaring:
            return await self._declare(queue_name(self._app, queue))

    async def _declare(self, name: str) -> int:
        refused = ""
        for arguments in queue_arguments(self.settings.queue_type, self.version):
            async with self.answering():
                if self._desk is None or self._desk.is_closed:
                    self._desk = await self.wire.channel(publisher_confirms=False)  # of its own: a refusal closes it
                try:
                    declared = await self._desk.queue_declare(name, durable=True, arguments=arguments)
                except aiormq.exceptions.ChannelPreconditionFailed as error:
                    refused = explained(error)
                    continue
                except aiormq.exceptions.ChannelAccessRefused as error:
                    raise ImproperlyConfigured(_not_allowed(name, self.wire.address.user, explained(error))) from None
            if refused:
                _log.warning("queue %r was made by an older server and may drop tickets; set the policy delivery-limit=-1 on it", name)
            return int(declared.message_count or 0)
        raise ImproperlyConfigured(_mismatch(name, self.settings.queue_type, refused))


def _not_allowed(name: str, user: str, why: str) -> str:
    return (
        f"RabbitMQ does not let user {user!r} declare queue {name!r} ({why}): "
        f"grant it configure, write and read on the app's queues (rabbitmqctl set_permissions)"
    )


def _mismatch(name: str, queue_type: str, why: str) -> str:
    return (
        f"queue {name!r} exists with other settings than queue_type={queue_type} ({why}): "
        f"name its type in the broker's URL (?queue_type=classic or quorum), or let it run empty and delete it "
        f"(rabbitmqctl delete_queue {name!r})"
    )


def explained(error: BaseException) -> str:
    """An error of the client library in a few words, without a URL."""
    text = str(error) or repr(error)
    return text if len(text) < 300 else f"{text[:300]}…"


__all__ = ["ANSWER_SECONDS", "Link", "explained"]
