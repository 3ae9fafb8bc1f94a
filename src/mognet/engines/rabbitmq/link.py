"""One connection from its beginning to its end. What goes wrong anywhere on it ends all of it; the session makes another."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from mognet.engines.rabbitmq.settings import Settings, queue_arguments, queue_name, read_version
from mognet.engines.rabbitmq.wire import Wire, aiormq
from mognet.exceptions import ConnectionError, ImproperlyConfigured, MognetError

ANSWER_SECONDS = 5.0
"""How long the broker may take to answer; then the connection counts as dead."""

AGAIN_SECONDS = 1.0
"""After a queue could not be used, how long nobody tries again."""

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
        self._unusable: dict[str, tuple[float, str]] = {}
        """Queues that could not be declared: when to try again, and why not."""
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
        await self.wire.end()

    @asynccontextmanager
    async def answering(self, seconds: float = ANSWER_SECONDS) -> AsyncIterator[asyncio.Timeout]:
        """What is asked inside has to be answered in time. Errors of the client library become ours, and end the link."""
        self.check()
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                yield limit
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
        except asyncio.CancelledError:
            # The library cancels those who wait for an answer over a connection that is closed.
            task = asyncio.current_task()
            if (task is not None and task.cancelling()) or (self.alive and not self.wire.is_closed):
                raise
            self.fail("it was closed")
            raise ConnectionError(f"the connection to RabbitMQ is gone: {self.broken.result()}") from None

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

    async def usable(self, queues: Collection[str]) -> list[str]:
        """Those of these queues that are there or can be made. Raises :class:`ConnectionError` if none is."""
        for queue in queues:
            if queue not in self._names and asyncio.get_running_loop().time() >= self._unusable.get(queue, (0.0, ""))[0]:
                await self._try(queue)
        found = [queue for queue in queues if queue in self._names]
        if not found:
            raise ConnectionError("; ".join(dict.fromkeys(self._unusable[queue][1] for queue in queues)))
        return found

    async def _try(self, queue: str) -> None:
        try:
            await self.declare([queue])
        except ConnectionError as error:
            self.check()
            if queue not in self._unusable:
                _log.warning("%s", error)
            self._unusable[queue] = asyncio.get_running_loop().time() + AGAIN_SECONDS, str(error)
        else:
            self._unusable.pop(queue, None)

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
                except (aiormq.exceptions.ChannelNotFoundEntity, aiormq.exceptions.ChannelLockedResource) as error:
                    # In a cluster: the node that keeps it is down. The connection is good all the same.
                    raise ConnectionError(f"queue {name!r} cannot be used now: {explained(error)}") from None
                except asyncio.CancelledError:
                    self._desk = None  # the library closes it, since the answer may still come
                    raise
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
