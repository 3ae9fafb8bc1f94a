"""When a task is held up by what it says of its progress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from mognet import progress
from mognet.progress import Reporter

Say = Callable[[int], Awaitable[None]]


@pytest.fixture
def written() -> list[bytes]:
    return []


@pytest.fixture
async def say(written: list[bytes], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Say]:
    """Says so much, each time so much later that it is due; while the writer, once it has written, rests for longer than any test."""
    monkeypatch.setattr(progress, "EVERY", 1000.0)
    loop = asyncio.get_running_loop()

    class Hurried:
        """The loop of a task, with a clock that runs ahead."""

        now = 0.0

        def time(self) -> float:
            self.now += 2000
            return self.now

        def __getattr__(self, name: str) -> Any:
            return getattr(loop, name)

    async def write(data: bytes) -> bool:
        written.append(data)
        return True

    reporter = Reporter(UUID(int=1), write, Hurried())  # type: ignore[arg-type]

    async def say(done: int) -> None:
        async with asyncio.timeout(0.5):
            await reporter.say(done, None, None)

    yield say
    await reporter.close(write=False)


async def test_the_first_is_written_before_it_returns(say: Say, written: list[bytes]) -> None:
    await say(1)
    assert len(written) == 1


async def test_a_task_that_awaits_something_else_is_not_held_up(say: Say) -> None:
    for done in range(5):
        await say(done)
        await asyncio.sleep(0)


async def test_a_task_that_awaits_nothing_else_lets_others_run(say: Say) -> None:
    await say(1)
    with pytest.raises(TimeoutError):
        await say(2)
