"""The engine on Redis, shared by any number of processes on any number of machines."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, NamedTuple, Self, TypeVar
from uuid import UUID

from mognet.codec import pack_done
from mognet.engine import DONE
from mognet.engines.knocking import Doors
from mognet.engines.mailbox import Exchange
from mognet.engines.redis import address, keys
from mognet.engines.redis.indexing import Paths
from mognet.engines.redis.reports import Reports
from mognet.engines.redis.scripts import (
    DIGITS,
    NOTHING,
    STALE,
    Arg,
    Script,
    hold,
    id_arg,
    make_record,
    micros,
    optional,
    script,
    unpack_ended,
)
from mognet.engines.redis.session import Session
from mognet.engines.redis.waiting import Waiter, Waiters
from mognet.exceptions import ImproperlyConfigured, InvalidMetadata, MognetError, NotConnected
from mognet.outcomes import Change, Outcome
from mognet.records import Claim, Job, Record, Signal, Swept, Token
from mognet.states import FINAL, ResultState

T = TypeVar("T")

CHUNK = 500
"""Jobs that one call of a script handles; the server does nothing else meanwhile."""

WHOLE = 2000
"""Jobs of one submit that are stored all or none; more are stored in several such steps."""

LOOK_EVERY = 2.0
"""Seconds between looks at the line while waiting: rings may be lost."""

LOOK_FOR_IDS = 0.05
"""The same for those who wait for certain jobs, for whom nobody rings."""


class Claimed(NamedTuple):
    """The answer of a claim."""

    claims: list[Claim]
    before: list[Record]
    """The same jobs as they were before."""
    next_due: float
    """Seconds until the next job of these queues will be due."""


class RedisEngine(Reports):
    """An :class:`mognet.engine.Engine` on a Redis server. Many engines, in any number of processes, may share it."""

    def __init__(self, url: str, app: str = "app") -> None:
        self.app = app
        self.address: address.Address = address.parse(url)
        super().__init__(keys.prefix(app))
        self._doors = Doors(self.address.doors())
        self._lookout = self._doors.lookout()
        self._pid = os.getpid()
        self._session: Session | None = None
        self._owned: set[asyncio.Task[Any]] = set()

    # opening and closing

    async def __aenter__(self) -> Self:
        if self._session is not None:
            raise ImproperlyConfigured(f"the engine on {self.address.shown} is open already: use one RedisEngine for each event loop")
        self._pid = os.getpid()
        name = secrets.token_hex(6)
        self._exchange = Exchange()
        self._waiters = Waiters(name)
        # Whether the last claim emptied the line. The server answers none of the requests that it reads at one go before it has done all:
        # a look at an empty line that comes in behind the end of a job would keep who waits for that.
        self._scarce = False
        self._bell, self._done = keys.bell(self._start, name), keys.done(self._start)
        session = Session(self.address, self._doors, self._start, self._hear, self._waiters.ring_all)
        await session.open(self._bell)
        self._session = session
        return self

    async def __aexit__(self, *exc: object) -> None:
        session = self._session
        if session is None:
            return
        session.closing = True
        try:
            while self._owned:
                await asyncio.wait(self._owned)
        finally:
            self._session = None
            self._waiters.ring_all()
            await session.close()

    async def until_back(self, seconds: float) -> bool:
        """Wait so long, or until the server is back (:func:`mognet.engine.until_back`)."""
        return await self._lookout.wait(seconds)

    @property
    def _open(self) -> Session:
        if os.getpid() != self._pid:
            raise ImproperlyConfigured(
                f"the engine on {self.address.shown} was opened before this process was forked: open a new one here, "
                "or start processes by 'spawn'"
            )
        if self._session is None:
            raise NotConnected(f"the engine on {self.address.shown} is not open: use `async with`")
        return self._session

    async def _run(self, name: str, /, *arguments: Arg) -> Any:
        return await self._open.run(self._script(name), *arguments)

    @staticmethod
    def _script(name: str) -> Script:
        return script(name)

    def _own(self, operation: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Let an operation go its way, whatever becomes of the one who asked for it."""
        task = asyncio.create_task(operation)
        self._owned.add(task)
        task.add_done_callback(self._disown)
        return task

    def _disown(self, task: asyncio.Task[Any]) -> None:
        self._owned.discard(task)
        if not task.cancelled():
            task.exception()

    async def _whole(self, operation: Coroutine[Any, Any, T], number: int, most: int) -> T:
        """Do something in steps of so many jobs. What has been sent is done, whoever waits for the answer; several steps are all taken."""
        return await (operation if number <= most else asyncio.shield(self._own(operation)))

    # the line

    async def submit(self, jobs: Sequence[Job], *, enqueue: bool = True) -> list[bool]:
        return await self._whole(self._submit(jobs, enqueue), len(jobs), WHOLE)

    async def _submit(self, jobs: Sequence[Job], enqueue: bool) -> list[bool]:
        added: list[bool] = []
        for start in range(0, len(jobs), WHOLE):
            part = jobs[start : start + WHOLE]
            answer: Any = STALE
            while answer == STALE:
                paths = self._indexing.paths
                arguments = [argument for job in part for argument in _job(job, paths)]
                answer = await self._open.run(self._script("submit"), paths.version, int(enqueue), len(part), *arguments)
                if answer == STALE:
                    await self._indexing.ask()
            added += [each == 1 for each in answer]
        return added

    async def claim(
        self,
        node: str,
        queues: Collection[str],
        limit: int,
        *,
        lease: float,
        wait: float = 0.0,
        ids: Collection[UUID] | None = None,
    ) -> list[Claim]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        if not queues or limit <= 0 or (ids is not None and not ids):
            await asyncio.sleep(wait)
            return []
        waiter = self._waiters.enter(queues) if wait > 0 and ids is None and self._open else None
        claimed: Claimed | None = None
        try:
            if waiter is not None and self._scarce:
                await self._open.answered()
            while True:
                if waiter is not None:
                    waiter.rung.clear()
                claimed = await self._claim(node, queues, limit, lease, waiter, ids)
                left = deadline - loop.time()
                if claimed.claims or left <= 0:
                    self._scarce = len(claimed.claims) < limit
                    return claimed.claims
                if waiter is None:
                    await asyncio.sleep(min(left, claimed.next_due, LOOK_FOR_IDS))
                else:
                    waiter.known = True
                    await waiter.wait(min(left, claimed.next_due, LOOK_EVERY))
        finally:
            if waiter is not None:
                self._leave(waiter, took=claimed is not None and bool(claimed.claims))

    def _leave(self, waiter: Waiter, *, took: bool) -> None:
        self._waiters.leave(waiter)
        if waiter.known and not took and self._session is not None:
            queues = map(keys.text, waiter.queues)
            self._own(self._session.run(self._script("leave"), waiter.name.encode(), int(waiter.rung.is_set()), *queues))

    async def _claim(
        self, node: str, queues: Collection[str], limit: int, lease: float, waiter: Waiter | None, ids: Collection[UUID] | None
    ) -> Claimed:
        arguments: list[Arg] = [len(queues), *map(keys.text, queues), *map(id_arg, ids or ())]
        who: list[Arg] = [b"", 0, 0] if waiter is None else [waiter.name.encode(), micros(LOOK_EVERY + 1), int(waiter.known)]
        whole = Claimed([], [], 0.0)
        try:
            while True:
                most = min(CHUNK, limit - len(whole.claims))
                due, full = await self._claim_some(whole, node, micros(lease), most, who if not whole.claims else [b"", 0, 0], arguments)
                if not full or len(whole.claims) >= limit:
                    return whole._replace(next_due=due)
        except asyncio.CancelledError:
            if waiter is not None:
                waiter.known = True
            await asyncio.shield(self._own(self._hand_back(whole)))
            raise

    async def _claim_some(
        self, whole: Claimed, node: str, lease: bytes, most: int, who: list[Arg], arguments: list[Arg]
    ) -> tuple[float, bool]:
        """Claim some more; when the next will be due, and whether there may be more now. Who is cancelled finds in ``whole`` what came."""
        holder = secrets.token_hex(8)
        request: list[Arg] = [keys.text(node), lease, most, holder.encode(), *who, *arguments]
        (moment, due, rows), cancelled = await self._open.run_firmly(self._script("claim"), *request)
        now = int(moment) / 1e6
        for number, (id, row, body) in enumerate(rows):
            record = make_record(UUID(id.decode()), row)
            starts = record.starts + 1
            token = Token(record.id, starts, f"{holder}-{number}")
            whole.before.append(record)
            record = record._replace(state=ResultState.RUNNING, starts=starts, node=node, started=record.started or now)
            whole.claims.append(Claim(token, record, body or b""))
        if cancelled:
            raise asyncio.CancelledError
        return float("inf") if due == b"-1" else int(due) / 1e6, len(rows) == most

    async def _hand_back(self, claimed: Claimed) -> None:
        """Undo a claim that its caller will not receive."""
        with suppress(MognetError):  # what was claimed nevertheless is ended by its lease
            for start in range(0, len(claimed.claims), CHUNK):
                part = slice(start, start + CHUNK)
                pairs = zip(claimed.claims[part], claimed.before[part], strict=True)
                await self._open.run(self._script("unclaim"), *[argument for pair in pairs for argument in _undone(*pair)])

    async def extend(self, tokens: Collection[Token], lease: float) -> set[Token]:
        return await self._whole(self._extend(list(tokens), lease), len(tokens), CHUNK)

    async def _extend(self, tokens: list[Token], lease: float) -> set[Token]:
        held: set[Token] = set()
        for start in range(0, len(tokens), CHUNK):
            part = tokens[start : start + CHUNK]
            arguments = [argument for token in part for argument in (id_arg(token.id), hold(token))]
            answer = await self._open.run(self._script("extend"), micros(lease), *arguments)
            held |= {token for token, holds in zip(part, answer, strict=True) if holds}
        return held

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Record | None]:
        return await self._whole(self._settle(outcomes), len(outcomes), CHUNK)

    async def _settle(self, outcomes: Sequence[Outcome]) -> list[Record | None]:
        settled: list[Record | None] = []
        for start in range(0, len(outcomes), CHUNK):
            part = outcomes[start : start + CHUNK]
            rows = await self._open.run(self._script("settle"), *[argument for outcome in part for argument in _outcome(outcome)])
            settled += [None if row is None else make_record(outcome.token.id, row) for outcome, row in zip(part, rows, strict=True)]
        return settled

    # the records

    async def get(self, ids: Collection[UUID]) -> list[Record | None]:
        return await self._whole(self._get(list(ids)), len(ids), CHUNK)

    async def _get(self, ids: list[UUID]) -> list[Record | None]:
        records: list[Record | None] = []
        for start in range(0, len(ids), CHUNK):
            part = ids[start : start + CHUNK]
            rows = await self._open.run(self._script("get"), *map(id_arg, part))
            records += [None if row is None else make_record(id, row) for id, row in zip(part, rows, strict=True)]
        return records

    async def value(self, id: UUID) -> bytes | None:
        value: bytes | None = await self._run("value", id_arg(id))
        return value

    async def body(self, id: UUID) -> bytes | None:
        body: bytes | None = await self._run("body", id_arg(id))
        return body

    async def update(self, id: UUID, change: Change, *, unless: Collection[ResultState] = FINAL) -> Record | None:
        if change.token is not None and change.token.id != id:
            return None
        arguments: list[Arg] = [id_arg(id), hold(change.token), b"".join(DIGITS[state] for state in unless)]
        arguments += [b"" if change.state is None else DIGITS[change.state], int(change.descendants), micros(change.ttl)]
        arguments += [int(change.tombstone), b"" if change.max_metadata is None else change.max_metadata, optional(change.progress)]
        arguments += [optional(change.body), micros(change.delay), micros(change.ended)]

        async def attempt(paths: Paths) -> Any:
            return await self._run("update", *arguments, paths.version, *paths.of_change(change.metadata or b"{}"))

        answer, *rest = await self._indexing.current(attempt)
        if answer == b"large":
            raise InvalidMetadata(f"the job's metadata would grow to {rest[0]} bytes, more than max_metadata_size={change.max_metadata}")
        return make_record(id, rest[0]) if answer == b"ok" else None

    async def delete(self, ids: Collection[UUID], *, states: Collection[ResultState] = ()) -> int:
        return await self._whole(self._delete(list(ids), b"".join(DIGITS[state] for state in states or DIGITS)), len(ids), CHUNK)

    async def _delete(self, ids: list[UUID], states: bytes) -> int:
        parts = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
        return sum([await self._open.run(self._script("delete"), states, *map(id_arg, part)) for part in parts])

    # a running task's notes

    async def load(self, token: Token) -> dict[str, bytes]:
        return _notes(await self._run("load", id_arg(token.id), hold(token)))

    async def save(self, token: Token, changes: Mapping[str, bytes | None], *, ttl: float | None = None) -> dict[str, bytes] | None:
        arguments = [argument for name, value in changes.items() for argument in (keys.text(name), optional(value))]
        replaced = await self._run("save", id_arg(token.id), hold(token), micros(ttl), *arguments)
        return None if replaced is None else _notes(replaced)

    # signals

    async def publish(self, channel: str, body: bytes) -> None:
        await self._open.publish(keys.channel(self._start, channel), body)

    @asynccontextmanager
    async def _subscribe(self, channels: Collection[str]) -> AsyncIterator[AsyncIterator[Signal]]:
        session = self._open
        wanted = [keys.channel(self._start, channel) for channel in channels] + ([self._done] if DONE in channels else [])
        async with self._exchange.subscribe(*channels) as signals:
            await session.subscribe(*wanted)
            try:
                yield signals
            finally:
                session.unsubscribe(*wanted)

    def subscribe(self, *channels: str) -> AbstractAsyncContextManager[AsyncIterator[Signal]]:
        return self._subscribe(set(channels))

    def _hear(self, channel: bytes, body: bytes) -> None:
        """Something was published."""
        if channel == self._bell:
            number, _, queue = body.partition(b":")
            if not self._waiters.ring(int(number), queue.decode("utf-8", "surrogatepass")) and self._session is not None:
                self._own(self._session.run(self._script("leave"), b"", 1, queue))
        elif channel == self._done:
            for record, value in unpack_ended(body):
                self._exchange.publish(Signal(DONE, pack_done(record, value)))
        else:
            name = channel[len(keys.channel(self._start, "")) :].decode("utf-8", "surrogatepass")
            self._exchange.publish(Signal(name, body))

    # upkeep

    async def sweep(self, *, grace: float = 30.0, limit: int = 1000) -> Swept:
        return await self._whole(self._sweep(grace, limit), limit, CHUNK)

    async def _sweep(self, grace: float, limit: int) -> Swept:
        done = [0] * 5
        while True:
            left = limit - max(done[0], done[1], done[2], done[4])
            most = min(CHUNK, left)
            now: list[int] = await self._open.run(self._script("sweep"), most, micros(grace))
            done = [a + b for a, b in zip(done, now, strict=True)]
            full = most in (now[0], now[1], now[2], now[4])
            if not full or most == left:
                recovered, carried, late, expired, _ = done
                return Swept(recovered, expired, full, carried=carried, late=late)


def _job(job: Job, paths: Paths) -> list[Arg]:
    """A job as ``submit.lua`` takes it."""
    lengths, before, labels = NOTHING if job.metadata == b"{}" else paths.of_job(job.metadata)
    body = b"%b+%b" % (before, job.body) if lengths else job.body
    token = b""
    if job.parent_token is not None:
        token = hold(job.parent_token) if job.parent_token.id == job.parent else b"-"
    root = b"" if job.root is None or job.root == job.id else id_arg(job.root)
    parent = b"" if job.parent is None else id_arg(job.parent)
    head: list[Arg] = [id_arg(job.id), keys.text(job.name), keys.text(job.queue), body, job.priority, micros(job.delay), parent, root]
    return [*head, token, optional(job.label), micros(job.ttl), micros(job.latest), lengths, len(labels) // 2, *labels]


def _undone(claim: Claim, before: Record) -> list[Arg]:
    """A claim as ``unclaim.lua`` takes it."""
    return [id_arg(before.id), hold(claim.token), DIGITS[before.state], optional(before.node), int(before.started is not None)]


def _outcome(outcome: Outcome) -> list[Arg]:
    """An outcome as ``settle.lua`` takes it."""
    why = b"" if outcome.again is None else outcome.again.value.encode()
    head = [id_arg(outcome.token.id), hold(outcome.token), DIGITS[outcome.state], why]
    return [*head, micros(outcome.delay), micros(outcome.ttl), micros(outcome.value_ttl), optional(outcome.value)]


def _notes(pairs: Sequence[bytes]) -> dict[str, bytes]:
    names = [name.decode("utf-8", "surrogatepass") for name in pairs[::2]]
    return dict(zip(names, pairs[1::2], strict=True))


__all__ = ["RedisEngine"]
