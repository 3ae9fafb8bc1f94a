from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from mognet.coalesce import CROWDED, LONG_TURN, Coalescer, Company


class Counter:
    """Answers each number's double, when its gate is open."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def call(self, items: list[int]) -> Sequence[int]:
        self.batches.append(items)
        await self.gate.wait()
        return [2 * item for item in items]


async def test_what_is_added_together_goes_together() -> None:
    counter = Counter()
    coalescer = Coalescer(counter.call)
    assert await asyncio.gather(*[coalescer.add(item) for item in range(5)]) == [0, 2, 4, 6, 8]
    assert counter.batches == [[0, 1, 2, 3, 4]]


async def test_what_comes_during_a_call_goes_with_the_next_up_to_the_limit() -> None:
    counter = Counter()
    coalescer = Coalescer(counter.call, limit=3)
    counter.gate.clear()
    first = coalescer.add(1)
    await asyncio.sleep(0)
    rest = [coalescer.add(item) for item in range(2, 7)]
    counter.gate.set()
    assert await asyncio.gather(first, *rest) == [2, 4, 6, 8, 10, 12]
    assert counter.batches == [[1], [2, 3, 4], [5, 6]]


async def test_an_item_added_as_the_sender_ends_is_sent() -> None:
    counter = Counter()
    coalescer = Coalescer(counter.call)
    first = coalescer.add(1)
    seconds: list[asyncio.Future[int]] = []
    first.add_done_callback(lambda _: seconds.append(coalescer.add(2)))
    await first
    async with asyncio.timeout(1):
        await asyncio.sleep(0)
        assert await seconds[0] == 4


async def test_a_caller_that_leaves_takes_nothing_along() -> None:
    counter = Counter()
    coalescer = Coalescer(counter.call)
    one, two = coalescer.add(1), coalescer.add(2)
    one.cancel()
    assert await two == 4
    await coalescer.drain()
    assert counter.batches == [[1, 2]]


async def test_an_error_goes_to_all_of_its_batch_and_no_further(caplog: pytest.LogCaptureFixture) -> None:
    async def call(items: list[int]) -> Sequence[int]:
        if 0 in items:
            raise ValueError("nought")
        return items

    coalescer = Coalescer(call)
    left, stays = coalescer.add(0), coalescer.add(1)
    left.cancel()
    with pytest.raises(ValueError, match="nought"):
        await stays
    assert await coalescer.add(2) == 2
    assert caplog.record_tuples == []


async def test_too_few_answers_leave_nobody_waiting() -> None:
    async def call(items: list[int]) -> Sequence[int]:
        return items[:-1]

    coalescer = Coalescer(call)
    one, two = coalescer.add(1), coalescer.add(2)
    assert await one == 1
    with pytest.raises(ValueError):
        await two


async def test_when_the_sending_is_cancelled_nobody_waits_for_ever() -> None:
    counter = Counter()
    coalescer = Coalescer(counter.call, limit=1)
    counter.gate.clear()
    first, second = coalescer.add(1), coalescer.add(2)
    await asyncio.sleep(0)
    (sender,) = [task for task in asyncio.all_tasks() if task.get_name() == "mognet coalescer"]
    sender.cancel()
    counter.gate.set()
    async with asyncio.timeout(1):
        assert await second == 4
    assert first.cancelled()


async def test_a_batch_belongs_to_none_of_its_callers() -> None:
    whose: ContextVar[str] = ContextVar("whose", default="nobody's")
    seen = []

    async def call(items: list[int]) -> Sequence[int]:
        seen.append(whose.get())
        logging.getLogger(__name__).info("sent")
        return items

    whose.set("the first caller's")
    await Coalescer(call).add(1)
    assert seen == ["nobody's"]


async def test_it_is_idle_from_the_answer_on() -> None:
    counter = Counter()
    coalescer = Coalescer(counter.call)
    assert coalescer.is_idle
    counter.gate.clear()
    future = coalescer.add(1)
    assert not coalescer.is_idle
    await asyncio.sleep(0)
    assert not coalescer.is_idle  # it is being called
    counter.gate.set()
    await future
    assert coalescer.is_idle


async def test_what_comes_while_one_goes_alone_goes_together_behind_it() -> None:
    counter = Counter()
    coalescer = Coalescer(counter.call)
    counter.gate.clear()
    alone = asyncio.create_task(coalescer.go_alone(1))
    await asyncio.sleep(0)
    assert not coalescer.is_idle
    rest = [coalescer.add(item) for item in (2, 3)]
    draining = asyncio.create_task(coalescer.drain())
    await asyncio.sleep(0)
    assert counter.batches == [[1]]
    counter.gate.set()
    assert await asyncio.gather(alone, *rest) == [2, 4, 6]
    await draining
    assert counter.batches == [[1], [2, 3]]
    assert coalescer.is_idle


@pytest.mark.parametrize("fails", [False, True])
async def test_one_that_went_alone_and_was_stopped_holds_nobody_up(fails: bool) -> None:
    stopped = asyncio.Event()

    async def call(items: list[int]) -> Sequence[int]:
        if items == [1]:
            await stopped.wait()
            raise ValueError
        return items

    coalescer = Coalescer(call)
    alone = asyncio.create_task(coalescer.go_alone(1))
    await asyncio.sleep(0)
    other = coalescer.add(2)
    stopped.set() if fails else alone.cancel()
    async with asyncio.timeout(1):
        assert await other == 2
        with pytest.raises(ValueError if fails else asyncio.CancelledError):
            await alone
        await coalescer.drain()


async def test_two_never_go_at_once_though_one_goes_alone_right_behind_another() -> None:
    counter = Counter()
    coalescer = Coalescer(counter.call)

    async def two() -> int:
        await coalescer.add(1)
        assert coalescer.is_idle  # but the end of its task has not been heard of
        counter.gate.clear()
        return await coalescer.go_alone(2)

    alone = asyncio.create_task(two())
    while len(counter.batches) < 2:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)
    for item in (3, 4):
        await asyncio.sleep(0)
        coalescer.add(item)
    for _ in range(3):
        await asyncio.sleep(0)
    assert counter.batches == [[1], [2]]
    counter.gate.set()
    assert await alone == 4
    await coalescer.drain()
    assert counter.batches == [[1], [2], [3, 4]]


# --- who else is about


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be changed."""
    time = [100.0]
    monkeypatch.setattr("mognet.coalesce.monotonic", lambda: time[0])
    return time


async def ask(company: Company) -> bool:
    return company.is_expected()


async def test_one_task_is_alone_however_often_it_comes(now: list[float]) -> None:
    company = Company()
    for _ in range(5):
        assert not company.is_expected()
        now[0] += CROWDED / 10
    assert company.is_same


async def test_several_tasks_are_not(now: list[float]) -> None:
    company = Company()
    assert not company.is_expected()
    assert await asyncio.create_task(ask(company))
    assert not company.is_same
    assert company.is_expected()
    now[0] += CROWDED / 2
    assert company.is_expected()
    now[0] += CROWDED
    assert not company.is_expected()


async def test_tasks_that_come_one_long_after_the_other_are_alone(now: list[float]) -> None:
    company = Company()
    for _ in range(3):
        assert not await asyncio.create_task(ask(company))
        now[0] += CROWDED


async def test_who_goes_on_without_waiting_lets_others_have_their_turn_once_in_a_while(now: list[float]) -> None:
    company = Company()
    assert company.is_waiting()
    assert not company.is_waiting()
    now[0] += LONG_TURN / 2
    assert not company.is_waiting()
    now[0] += LONG_TURN
    assert company.is_waiting()
    assert not company.is_waiting()
