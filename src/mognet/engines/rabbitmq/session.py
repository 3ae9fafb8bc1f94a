"""Keeps a link to the broker: whatever happens to it, all of it is torn down and all of it is made anew, for ever."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextvars import Context
from typing import Generic, TypeVar

from mognet.engines.knocking import CHECK, Doors
from mognet.engines.rabbitmq.link import Link, explained
from mognet.engines.rabbitmq.settings import Address, Settings
from mognet.engines.rabbitmq.wire import Wire, aiormq
from mognet.exceptions import ConnectionError

CONNECT_SECONDS = 5.0
"""How long one node may take to let us in."""

SHORTEST, LONGEST = 0.1, 30.0
"""Seconds between attempts: drawn from nothing up to a quarter of the outage so far, within these."""

STEADY_SECONDS = 5.0
"""A link that is lost sooner counts like an attempt that failed: a right that is missing shows itself only when it is used."""

LONGEST_UNSTEADY = 2.0
"""Seconds, at most, between links that are lost so soon: the server is there."""

SAY_EVERY = 10.0
"""Seconds between two words in the log about one outage."""

_log = logging.getLogger(__name__)

_REFUSALS = (aiormq.exceptions.AuthenticationError, aiormq.exceptions.ProbableAuthenticationError)

L = TypeVar("L", bound=Link)


def pause(outage: float) -> float:
    """How long to wait before the next attempt.

    A quarter of the outage: a broker that restarts is found again within a few seconds, one that is away for long is not stormed.
    """
    return random.uniform(0.0, min(LONGEST, max(SHORTEST, outage / 4)))


def _why(error: Exception, address: Address) -> str:
    if isinstance(error, aiormq.exceptions.InvalidFrameError) and "Connection.Close" in str(error):  # it says no more of the reason
        return f"it does not let user {address.user!r} into vhost {address.vhost!r}: does that exist, and may the user use it?"
    return explained(error)


class Session(Generic[L]):
    """One link after another. Nothing happens before the first is asked for."""

    def __init__(self, settings: Settings, doors: Doors, open_link: Callable[[Wire], L], name: str) -> None:
        self._settings = settings
        self._lookout = doors.lookout()
        self._open_link = open_link
        self._name = name
        self._link: L | None = None
        self._trouble: str | None = None
        """Why there is no link; None: there is one, or the first attempt is under way."""
        self.refused: str | None = None
        """What the nodes said, if each has refused the login at the last attempt."""
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._unsteady_since: float | None = None
        self._lost_said = float("-inf")
        self._next = random.randrange(len(settings.addresses))

    @property
    def started(self) -> bool:
        """Whether it was ever asked for a link."""
        return self._task is not None

    def reopen(self) -> None:
        """After it was closed, give links again."""
        self._closed = False

    async def link(self, seconds: float) -> L:
        """The link. If there is none: wait for an attempt that is under way, but not for one that follows a failure."""
        if self._closed:
            raise ConnectionError("the connection to RabbitMQ was closed")
        if self._task is None or self._task.done():
            self._trouble = None
            self._task = asyncio.get_running_loop().create_task(self._live(), name=f"{self._name} session", context=Context())
        until = asyncio.get_running_loop().time() + seconds
        while self._link is None or not self._link.alive:
            if self._trouble is not None:
                raise ConnectionError(f"RabbitMQ cannot be reached: {self._trouble}; {CHECK}")
            changed = self._changed
            try:
                async with asyncio.timeout_at(until):
                    await changed.wait()
            except TimeoutError:
                shown = ", ".join(address.shown for address in self._settings.addresses)
                raise ConnectionError(f"RabbitMQ at {shown} does not answer within {seconds:g} s; {CHECK}") from None
        return self._link

    async def until_back(self, seconds: float) -> bool:
        """Wait so long, or until there is a new link."""
        until = asyncio.get_running_loop().time() + seconds
        while True:
            changed = self._changed
            try:
                async with asyncio.timeout_at(until):
                    await changed.wait()
            except TimeoutError:
                return False
            if self._link is not None and self._link.alive:
                return True

    def _set(self, link: L | None, trouble: str | None) -> None:
        self._link, self._trouble = link, trouble
        self._changed.set()
        self._changed = asyncio.Event()

    async def close(self) -> None:
        """Leave."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _live(self) -> None:
        try:
            while True:
                link = await self._connect()
                made = asyncio.get_running_loop().time()
                self._set(link, None)
                try:
                    reason = await asyncio.shield(link.broken)
                finally:
                    self._set(None, None)
                    await link.close()
                await self._recover(made, reason)
        finally:
            self._set(None, "it was closed")

    async def _recover(self, made: float, reason: str) -> None:
        """Wait before the next link, after one that was made then was lost."""
        now = asyncio.get_running_loop().time()
        if now > self._lost_said + SAY_EVERY:
            self._lost_said = now
            _log.warning("%s: the connection to RabbitMQ is lost and will be made anew: %s", self._name, reason)
        if self._unsteady_since is None or now > made + STEADY_SECONDS:
            self._unsteady_since = now
        seconds = min(LONGEST_UNSTEADY, pause(now - self._unsteady_since))
        if seconds > SHORTEST:
            self._set(None, reason)
        await asyncio.sleep(seconds)
        self._set(None, None)

    async def _connect(self) -> L:
        """A link to any of the nodes, whenever one lets us in."""
        loop = asyncio.get_running_loop()
        began, said = loop.time(), 0.0
        while True:
            reasons, errors = [], []
            for _ in self._settings.addresses:
                address = self._settings.addresses[self._next % len(self._settings.addresses)]
                try:
                    return await self._connect_to(address)
                except Exception as error:
                    self._next += 1
                    errors.append(error)
                    reasons.append(f"{address.shown}: {_why(error, address)}")
            trouble = "; ".join(reasons)
            self.refused = trouble if all(isinstance(error, _REFUSALS) for error in errors) else None
            self._set(None, trouble)
            if loop.time() > said + SAY_EVERY or not said:
                said = loop.time()
                _log.warning("%s: RabbitMQ cannot be reached, trying on: %s", self._name, self._trouble)
            if await self._lookout.wait(pause(loop.time() - began)):
                began = loop.time()

    async def _connect_to(self, address: Address) -> L:
        context = await self._settings.tls.context(address.shown) if address.tls else None
        wire = Wire(address, self._settings, context, self._name)
        link: L | None = None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await wire.connect()
                link = self._open_link(wire)
                await link.open()
        except BaseException as error:
            wire.transport.abort()
            await (wire.end() if link is None else link.close())
            if isinstance(error, TimeoutError):
                raise ConnectionError(f"no answer within {CONNECT_SECONDS:g} s") from None
            raise
        return link


__all__ = ["Session", "pause"]
