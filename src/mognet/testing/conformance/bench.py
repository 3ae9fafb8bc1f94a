"""The harness that the author of an engine provides, and the bench that the tests work on."""

# ruff: noqa: S101
from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from typing import Any, Self, TypeVar
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from mognet.codec import loads, unpack_done
from mognet.engine import DONE, Engine
from mognet.outcomes import Outcome, failed, invalid, revoked, succeeded
from mognet.records import Claim, Job, Query, Record, Signal, Token
from mognet.states import ResultState

T = TypeVar("T")

APP = "conformance"
QUEUE = "q"
LONG = 1000.0
"""Seconds that do not pass during a test."""

ENDS: dict[ResultState, Callable[..., Outcome]] = {
    ResultState.SUCCESS: succeeded,
    ResultState.FAILURE: failed,
    ResultState.REVOKED: revoked,
    ResultState.INVALID: invalid,
}
"""The outcome that leads to each final state."""


class Harness(ABC):
    """One store for one test, and the ways to reach and to inspect it. Make a new one, on an empty store, for each test."""

    fake_clock: bool = False
    """Whether :meth:`advance` moves the engine's clock at once, and no other time passes for the engine."""
    unit: float = 0.5
    """Seconds of the shortest time that a test waits for; on a real clock, long enough for a dozen operations."""
    own_line: bool = True
    """Whether jobs that are submitted wait in the engine's own line. False: a broker carries them, and ``Query.in_line`` passes them by."""
    most_queues: int = 300
    """How many queues one claim names in a test of many: fewer where each of them costs much, and is somebody else's business."""
    patience: float = 20.0
    """Real seconds after which a test gives up waiting for what should come."""

    @abstractmethod
    def open(self, app: str = APP) -> Engine:
        """A new engine on the same store, not yet entered. Called often, and for several apps."""

    async def advance(self, seconds: float) -> None:
        """Return when so many seconds have passed by the engine's clock."""
        await asyncio.sleep(seconds * 1.02 + 0.02)

    async def leftovers(self) -> Mapping[str, int]:
        """How many raw traces (rows, keys, messages, files) the store holds, by place.

        Asked when a test has deleted all its jobs and closed its engines: then every number has to be 0.
        """
        return {}


class Bench:
    """One engine under test, others on the same store, and short ways to bring a job where a test needs it."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.unit = harness.unit
        self._stack = AsyncExitStack()
        self._apps = {APP}

    async def __aenter__(self) -> Self:
        self.engine = await self.another()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def another(self, app: str = APP) -> Engine:
        """One more engine object on the same store."""
        self._apps.add(app)
        return await self._stack.enter_async_context(self.harness.open(app))

    async def check_leftovers(self) -> None:
        """Delete all that the test has made, close, and look for what is left."""
        await self._stack.aclose()
        for app in sorted(self._apps):
            async with self.harness.open(app) as engine:
                await engine.delete([record.id async for record in engine.search(Query())])
                while (await engine.sweep()).more:
                    pass
                await engine.declare([], only=True)
                while (await engine.reindex()).left:
                    pass
        assert {place: number for place, number in (await self.harness.leftovers()).items() if number} == {}

    # time

    async def advance(self, units: float) -> None:
        """Let time pass by the engine's clock."""
        await self.harness.advance(units * self.unit)

    async def soon(self, awaitable: Awaitable[T]) -> T:
        """Wait for what has to come, but not for ever."""
        async with asyncio.timeout(self.harness.patience):
            return await awaitable

    async def now(self) -> float:
        """The engine's clock."""
        job = make_job()
        await self.engine.submit([job], enqueue=False)
        record = await self.record(job.id)
        await self.engine.delete([job.id])
        return record.created

    # jobs

    async def add(self, number: int = 1, **fields: Any) -> list[Job]:
        """Submit jobs that are alike."""
        return await self.submit(*(make_job(**fields) for _ in range(number)))

    async def submit(self, *jobs: Job) -> list[Job]:
        """Submit jobs that have to be new."""
        assert await self.engine.submit(jobs) == [True] * len(jobs)
        return list(jobs)

    async def take(self, number: int, queues: Collection[str] = (QUEUE,), *, engine: Engine | None = None, **options: Any) -> list[Claim]:
        """Claim exactly so many jobs, in the order in which they come."""
        options = {"node": "node", "lease": LONG, "wait": self.harness.patience, **options}
        claims: list[Claim] = []
        while len(claims) < number:
            got = await (engine or self.engine).claim(queues=queues, limit=number - len(claims), **options)
            assert got, f"{len(claims)} of {number} jobs came"
            claims += got
        return claims

    async def start(self, *, lease: float = LONG, engine: Engine | None = None, **fields: Any) -> Claim:
        """Submit a job and claim it; nothing else may wait in its queue."""
        [job] = await self.add(**fields)
        [claim] = await self.take(1, [job.queue], lease=lease, engine=engine)
        assert claim.token.id == job.id
        return claim

    async def drain(self, *queues: str) -> list[UUID]:
        """Which jobs could be claimed now, best first; they are deleted."""
        ids = [claim.token.id for claim in await self.engine.claim("drain", queues or [QUEUE], 10_000, lease=LONG)]
        await self.engine.delete(ids)
        return ids

    async def settle(self, outcome: Outcome, engine: Engine | None = None) -> Record:
        """End an attempt that has to hold its job."""
        [record] = await (engine or self.engine).settle([outcome])
        assert record is not None, "claim lost"
        return record

    async def ended(self, state: ResultState = ResultState.SUCCESS, value: bytes = b"1", **fields: Any) -> Record:
        """A job that ran and reached a final state."""
        claim = await self.start(**fields)
        return await self.settle(ENDS[state](claim.token, value))

    async def crash(self, *claims: Claim) -> None:
        """Let the workers of these claims be lost, and their jobs be put back in line."""
        tokens = [claim.token for claim in claims]
        assert await self.engine.extend(tokens, self.unit) == set(tokens)
        await self.advance(1)
        assert (await self.engine.sweep()).recovered == len(claims)

    async def stolen(self, **fields: Any) -> tuple[Claim, Claim]:
        """A ghost, whose lease has ended, and the heir who claimed the same job after it."""
        ghost = await self.start(**fields)
        await self.crash(ghost)
        [heir] = await self.take(1, [ghost.record.queue], node="heir")
        assert heir.token.id == ghost.token.id
        return ghost, heir

    # looking

    async def find(self, *ids: UUID, engine: Engine | None = None) -> list[Record]:
        """Records that have to be there."""
        records = [record for record in await (engine or self.engine).get(ids) if record is not None]
        assert [record.id for record in records] == list(ids)
        return records

    async def record(self, id: UUID, engine: Engine | None = None) -> Record:
        """A record that has to be there."""
        return (await self.find(id, engine=engine))[0]

    async def search(self, query: Query) -> list[Record]:
        """All that a search finds."""
        return [record async for record in self.engine.search(query)]

    async def picture(self, id: UUID) -> tuple[object, ...]:
        """All that can be seen of a job without its token, in a form that can be compared."""
        [record] = await self.engine.get([id])
        return (None if record is None else plain(record), await self.engine.value(id))

    async def heard(self, signals: AsyncIterator[Signal], match: Callable[[Signal], bool] = lambda _: True) -> Signal:
        """The next signal that matches; it has to come."""
        async with asyncio.timeout(self.harness.patience):
            async for signal in signals:
                if match(signal):
                    return signal
        raise AssertionError("the subscription ended")

    async def done(self, signals: AsyncIterator[Signal], id: UUID) -> tuple[Record, bytes | None]:
        """What the DONE signal of a job says; it has to come."""
        signal = await self.heard(signals, lambda signal: signal.channel == DONE and unpack_done(signal.body)[0].id == id)
        return unpack_done(signal.body)


def make_job(**fields: Any) -> Job:
    """A job with something in every field that must be given."""
    return Job(**{"id": uuid4(), "name": "work", "queue": QUEUE, "body": b'{"v":1}', **fields})


def plain(record: Record) -> Record:
    """A record that can be compared: metadata is an object, and how it is written may vary."""
    return record._replace(metadata=json.dumps(labels(record), sort_keys=True).encode())


def labels(record: Record) -> Any:
    """The metadata of a record."""
    return loads(record.metadata)


def forged(token: Token) -> list[Token]:
    """Tokens that look like this one, and were never given."""
    return [
        token._replace(holder="somebody"),
        token._replace(holder=""),
        token._replace(start=token.start + 1),
        token._replace(start=0),
        token._replace(id=uuid4()),
    ]


def near(seconds: float) -> Any:
    """About this moment: engines may keep milliseconds."""
    return pytest.approx(seconds, rel=0, abs=0.005)


@pytest.mark.asyncio
class Group:
    """A group of laws. Each test gets a bench, and must leave nothing in the store that deleting its jobs does not remove."""

    @pytest_asyncio.fixture
    async def bench(self, harness: Harness) -> AsyncIterator[Bench]:
        """A bench on the harness of the engine that is tested."""
        async with Bench(harness) as bench:
            yield bench
            await bench.check_leftovers()
