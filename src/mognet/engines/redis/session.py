"""The session with a server: two connections that live and die together, rebuilt whenever something is wrong, for ever."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from mognet.backoff import Backoff
from mognet.engines.knocking import Doors
from mognet.engines.redis.address import Address
from mognet.engines.redis.keys import Prefix
from mognet.engines.redis.scripts import Arg, Script
from mognet.engines.redis.wire import Commands, Ear, hang_up, says
from mognet.exceptions import ConnectionError, ImproperlyConfigured, MognetError, NotConnected

log: logging.Logger = logging.getLogger(__name__)

# After ten seconds of outage the longest wait is about five: whoever comes back is found again soon.
_AGAIN = Backoff(base=0.1, factor=1.5, cap=30.0)

SOUND = 1.0
"""Seconds after which a new connection counts as a success, and the next failure as the first."""

OLDEST = (6, 2)


class Session:
    """Commands, scripts and subscriptions of one engine object."""

    def __init__(
        self, address: Address, doors: Doors, start: Prefix, hear: Callable[[bytes, bytes], None], came_back: Callable[[], None]
    ) -> None:
        self.address = address
        self._lookout = doors.lookout()
        self._start = start
        self._hear = hear
        self._came_back = came_back
        self._channels: Counter[bytes] = Counter()
        self._commands: Commands | None = None
        self._ear: Ear | None = None
        self._up = asyncio.Event()
        self._error: MognetError = NotConnected("the Redis engine is not open: use `async with`")
        self._keeper: asyncio.Task[None] | None = None
        self.closing = False
        """Whether nobody should wait for a connection any more."""

    # opening and closing

    async def open(self, *channels: bytes) -> None:
        """Connect for the first time; what is wrong then is told to the caller."""
        self._channels.update(channels)
        try:
            await self._check(await self._connect())
        except BaseException as error:
            await self._hang_up()
            if isinstance(error, Exception):
                raise explain(error, self.address) from error
            raise
        self._keeper = asyncio.create_task(self._keep(), context=Context())

    async def close(self) -> None:
        """Close the connections, when what was sent is done."""
        if self._commands is not None:
            with suppress(ConnectionError, RedisError):
                while self._commands.unanswered:
                    await self._commands.ask("PING")  # it is answered last
        self._error = NotConnected("the Redis engine was closed")
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        await self._hang_up()

    async def _connect(self) -> Commands:
        command, ear = await _two(self.address, self._start)
        self._commands = Commands(command, self.address.timeout)
        self._ear = Ear(ear, self.address.timeout, self._hear)
        await asyncio.gather(*[self._ear.subscribe(channel) for channel in self._channels], self._commands.ask("PING"))
        self._up.set()
        return self._commands

    async def _hang_up(self) -> None:
        self._up.clear()
        for wire in (self._commands, self._ear):
            if wire is not None:
                await wire.close()
        self._commands = self._ear = None

    async def _keep(self) -> None:
        """Wait until something breaks, and build all anew."""
        loop = asyncio.get_running_loop()
        failures, since = 0, loop.time()
        while True:
            if self._up.is_set():
                error = await self._until_broken()
                log.warning("The connection to %s was lost: %s", self.address.shown, error)
                failures = 0 if loop.time() - since > SOUND else failures
            await self._hang_up()
            failures += 1
            if await self._lookout.wait(_AGAIN.delay(failures)):
                failures = 0
            try:
                await self._connect()
                since = loop.time()
                log.info("Connected to %s again", self.address.shown)
                self._came_back()
            except Exception as error:  # a server may do anything while it starts or stops; we come again
                self._error = explain(error, self.address)
                log.debug("No connection to %s: %s", self.address.shown, self._error)

    async def _until_broken(self) -> Exception | None:
        wires = [wire for wire in (self._commands, self._ear) if wire is not None]
        waits = [asyncio.create_task(wire.broken.wait()) for wire in wires]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        error = next((wire.error for wire in wires if wire.error is not None), None)
        if error is not None:
            self._error = explain(error, self.address)
        return error

    async def _check(self, commands: Commands) -> None:
        info = dict(line.split(":", 1) for line in (await commands.ask("INFO")).decode(errors="replace").splitlines() if ":" in line)
        version = tuple(int(part) for part in info.get("redis_version", "0").split(".")[:2])
        if version < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise ImproperlyConfigured(f"{self.address.shown} is Redis {info.get('redis_version')}; mognet needs {wanted} or newer")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and not self.address.options.get("allow_eviction"):
            raise ImproperlyConfigured(
                f"{self.address.shown} deletes keys when its memory is full (maxmemory-policy is {policy}), and jobs with them: "
                "run `redis-cli CONFIG SET maxmemory-policy noeviction` (and put it into its configuration), "
                "or accept the loss with ?allow_eviction=1 in the URL"
            )

    # asking

    async def run(self, script: Script, *arguments: Arg) -> Any:
        """Run a script. Raises an error of mognet's."""
        try:
            commands = await self._connected()
            try:
                return await commands.ask(b"EVALSHA", script.sha, 1, self._start, *arguments)
            except ResponseError as error:
                if not says(error, "NOSCRIPT"):
                    raise
                return await commands.ask(b"EVAL", script.text, 1, self._start, *arguments)
        except RedisError as error:
            raise explain(error, self.address) from error

    async def run_firmly(self, script: Script, *arguments: Arg) -> tuple[Any, bool]:
        """Run a script whose answer must not be lost: a cancellation meanwhile waits for it, and is told beside it."""
        commands = await self._connected()
        answer = commands.ask_firmly(b"EVALSHA", script.sha, 1, self._start, *arguments)
        cancelled = await _outlast(answer)
        if not cancelled and isinstance(error := answer.exception(), ResponseError) and says(error, "NOSCRIPT"):
            answer = commands.ask_firmly(b"EVAL", script.text, 1, self._start, *arguments)
            cancelled = await _outlast(answer)
        try:
            return answer.result(), cancelled
        except Exception as error:
            if cancelled:
                raise asyncio.CancelledError from error
            raise explain(error, self.address) from error

    async def answered(self) -> None:
        """Wait for the answers to what has been sent so far."""
        if self._commands is not None:
            await self._commands.answered()

    async def publish(self, channel: bytes, body: bytes) -> None:
        """Send a signal."""
        try:
            await (await self._connected()).ask(b"PUBLISH", channel, body)
        except RedisError as error:
            raise explain(error, self.address) from error

    async def subscribe(self, *channels: bytes) -> None:
        """Hear these channels from now on, also after reconnecting."""
        self._channels.update(channels)
        try:
            await self._connected()
            if self._ear is not None:
                await asyncio.gather(*[self._ear.subscribe(channel) for channel in channels])
        except BaseException as error:
            self.unsubscribe(*channels)
            if isinstance(error, RedisError):
                raise explain(error, self.address) from error
            raise

    def unsubscribe(self, *channels: bytes) -> None:
        """Leave these channels, unless somebody else subscribed, too."""
        for channel in channels:
            self._channels[channel] -= 1
            if not self._channels[channel]:
                del self._channels[channel]
                with suppress(ConnectionError):
                    if self._ear is not None:
                        self._ear.unsubscribe(channel)

    async def _connected(self) -> Commands:
        """The connection, after a short wait if it is just being rebuilt: nothing of ours is lost by waiting before we send."""
        if not self._up.is_set():
            if self.closing or self._keeper is None or self._keeper.done():
                raise self._error
            try:
                async with asyncio.timeout(self.address.timeout):
                    await self._up.wait()
            except TimeoutError:
                raise self._error from None
        if self._commands is None:
            raise self._error
        return self._commands


async def _outlast(answer: asyncio.Future[Any]) -> bool:
    """Wait for an answer that cannot be cancelled; whether the one who waits was."""
    try:
        await answer
    except asyncio.CancelledError:
        return True
    except Exception:  # noqa: S110 - the answer tells of it
        pass
    return False


async def _two(address: Address, key: bytes) -> list[AbstractConnection]:
    """Two connections, or none."""
    tasks = [asyncio.create_task(address.connect(key), context=Context()) for _ in range(2)]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(found, BaseException):
                await hang_up(found)
        raise


_MEANINGS = {
    "READONLY": "is a replica that cannot be written to, for example in the midst of a fail-over",
    "MASTERDOWN": "is a replica that has lost its master",
    "LOADING": "is still reading its data from disk",
    "OOM": "has used up its memory: raise maxmemory, or let results expire sooner",
    "MOVED": "is a node of a cluster that serves other keys: use a redis+cluster:// URL",
    "CLUSTERDOWN": "is a node of a cluster that does not serve all keys at present",
    "ASK": "is a node of a cluster that is just handing the app's keys to another one",
    "TRYAGAIN": "is a node of a cluster that is just taking over the app's keys",
}


def explain(error: Exception, address: Address) -> MognetError:
    """What an error of the server or its client means, and what helps."""
    where = address.shown
    if isinstance(error, MognetError):
        return error
    if isinstance(error, AuthenticationError) or says(error, "NOAUTH", "WRONGPASS"):
        return ImproperlyConfigured(f"{where} refuses the user name or the password: the URL has to hold them, redis://user:password@host")
    if isinstance(error, NoPermissionError) or says(error, "NOPERM") or "can't run this command" in str(error):  # the last, in a script
        return ImproperlyConfigured(
            f"{where} does not let this user do what mognet needs ({error}): "
            "ACL SETUSER name ~mognet:* &mognet:* +@all -@admin -@dangerous +info (see the page on the Redis engine)"
        )
    if isinstance(error, ResponseError) and "DB index is out of range" in str(error):
        return ImproperlyConfigured(
            f"{where} has no database of this number: name one that it has (most have 16, /0 to /15), "
            "or raise `databases` in its configuration"
        )
    for code, meaning in _MEANINGS.items():
        if says(error, code):
            return ConnectionError(f"{where} {meaning}")
    what = "answered with an error" if isinstance(error, ResponseError) else "cannot be reached"
    return ConnectionError(f"{where} {what}: {error or type(error).__name__}")
