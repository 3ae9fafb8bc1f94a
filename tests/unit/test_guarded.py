"""The doorway's deadlines."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from mognet.engine import next_step
from mognet.engines.guarded import GuardedEngine
from mognet.engines.memory import MemoryEngine
from mognet.exceptions import ConnectionError
from mognet.records import Query, Record
from mognet.states import ResultState

DEADLINE, STEP, STEPS = 2.0, 0.5, 5

RECORD = Record(uuid4(), "work", "q", ResultState.PENDING, 5, 0.0, 0.0)


class Slow(MemoryEngine):
    """Looks at many records until one matches: longer than the deadline in all, and says so in between, or not."""

    def __init__(self, *, tells: bool) -> None:
        super().__init__()
        self._tells = tells

    async def _look(self) -> None:
        for _ in range(STEPS):
            await asyncio.sleep(STEP)
            if self._tells:
                next_step.get()()

    async def search(self, query: Query) -> AsyncIterator[Record]:
        await self._look()
        yield RECORD

    async def count(self, query: Query, *, by: str = "state") -> dict[str, int]:
        await self._look()
        return {"PENDING": 1}


async def test_a_search_that_comes_on_has_all_the_time_it_needs() -> None:
    async with GuardedEngine(Slow(tells=True), deadline=DEADLINE) as engine:
        records, counted = await asyncio.gather(_all(engine), engine.count(Query()))
    assert records == [RECORD]
    assert counted == {"PENDING": 1}


async def test_a_search_that_does_not_come_on_ends_at_the_deadline() -> None:
    async with GuardedEngine(Slow(tells=False), deadline=DEADLINE) as engine:
        with pytest.raises(ConnectionError, match="did not answer to search within 2 s"):
            await _all(engine)


async def _all(engine: GuardedEngine) -> list[Record]:
    return [record async for record in engine.search(Query())]
