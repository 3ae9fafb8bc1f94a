"""Noticing early that a server is back: who waits for the next full attempt knocks meanwhile, which costs the server next to nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

KNOCK_EVERY = 2.0
"""Seconds between knocks while somebody waits and a server does not answer; spread, so that a crowd does not knock in step."""

LOOK_EVERY = 15.0
"""The same while all of them answer: then it is something else that keeps us out, and knocking does not help."""

ANSWER_SECONDS = 1.0
"""Seconds that a server has to answer a knock."""

SILENCE = 0.2
"""Seconds after which one that waits for us to begin counts as there: a proxy hangs up sooner if there is nobody behind it."""

SHORT = 1.0
"""A wait of up to so many seconds is not worth a knock."""

SPREAD = 0.5
"""Seconds over which those are spread who have noticed the return in the same moment."""


CHECK = "see that the server runs and the URL is right, or ask mognet doctor"
"""What to do about one that cannot be reached."""


@dataclass(frozen=True)
class Door:
    """Where a server listens, and a question that it answers to anybody, without a login."""

    host: str = ""
    port: int = 0
    path: str = ""
    """Of a Unix socket, which then stands for host and port."""
    question: bytes = b""
    """Nothing: it is enough that the server takes the connection and waits for a word, as one that speaks TLS does."""
    not_yet: tuple[bytes, ...] = ()
    """How an answer begins that says: I am here, and of no use."""

    async def answers(self) -> bool:
        """Whether somebody is there."""
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                opening = asyncio.open_unix_connection(self.path) if self.path else asyncio.open_connection(self.host, self.port)
                reader, writer = await opening
                if not self.question:
                    return await self._waits(reader)
                writer.write(self.question)
                answer = await reader.read(100)
            return bool(answer) and not answer.startswith(self.not_yet)
        except (OSError, UnicodeError):
            return False
        finally:
            if writer is not None:
                writer.transport.abort()

    @staticmethod
    async def _waits(reader: asyncio.StreamReader) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(SILENCE):
                return bool(await reader.read(1))
        return True


class Doors:
    """The doors of one engine's servers. However many wait, it knocks no more often than one would."""

    def __init__(self, doors: Iterable[Door]) -> None:
        self._doors = tuple(dict.fromkeys(doors))
        self._shut: set[Door] = set()
        self._due = 0.0
        self._knocking = asyncio.Lock()
        self._returned = asyncio.Event()
        self.returns = 0
        """How often a server was found to answer that had not answered before."""

    def lookout(self) -> Lookout:
        """For one more who waits."""
        return Lookout(self)

    async def look(self, until: float, *, knock: bool) -> None:
        """Wait until then, until a server has come back, or, to knock, until it is time for that."""
        returned, loop = self._returned, asyncio.get_running_loop()
        if knock and self._doors and self._due <= loop.time():
            await self._knock()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min(until, max(self._due, loop.time())) if knock and self._doors else until):
                await returned.wait()

    async def _knock(self) -> None:
        async with self._knocking:
            now = asyncio.get_running_loop().time()
            if self._due > now:  # somebody else has knocked meanwhile
                return
            answers = await asyncio.gather(*(door.answers() for door in self._doors))
            shut = {door for door, answer in zip(self._doors, answers, strict=True) if not answer}
            if self._shut - shut:
                self.returns += 1
                self._returned.set()
                self._returned = asyncio.Event()
            self._shut = shut
            self._due = now + (KNOCK_EVERY if shut else LOOK_EVERY) * random.uniform(0.8, 1.2)


class Lookout:
    """One who waits between attempts, and remembers from one wait to the next what happened meanwhile."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._seen = doors.returns

    async def wait(self, seconds: float) -> bool:
        """Wait so long, or until a server that did not answer answers again. True: that is why it ended."""
        loop = asyncio.get_running_loop()
        until, seen = loop.time() + seconds, self._seen
        while (left := until - loop.time()) > 0:
            if self._doors.returns != seen:
                self._seen = self._doors.returns
                await asyncio.sleep(random.uniform(0, min(SPREAD, left)))
                return True
            await self._doors.look(until, knock=seconds > SHORT)
        return False
