from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

import pytest

from mognet.engines.memory import MemoryEngine
from mognet.records import Token
from mognet.slots import Place, Slots


def place(slots: Slots, over: Callable[[], bool] = lambda: False) -> Place:
    return Place(Token(uuid4(), 1, "me"), MemoryEngine(), slots, over)


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def wait_for(place: Place, event: asyncio.Event) -> None:
    async with place.waiting():
        await event.wait()


async def test_a_change_between_looking_and_waiting_is_not_missed() -> None:
    slots = Slots(1)
    slots.start()
    assert slots.free() == 0
    changed = slots.changed()
    slots.end()
    async with asyncio.timeout(1):
        await changed


async def test_a_job_that_waits_gives_its_slot_away_and_comes_before_new_ones() -> None:
    slots, event = Slots(1), asyncio.Event()
    parent = place(slots)
    waiting = asyncio.create_task(wait_for(parent, event))
    await turns()
    assert slots.free() == 1
    child = place(slots)
    event.set()
    await turns()
    assert not waiting.done()
    assert slots.free() == 0
    child.leave()
    await waiting
    assert (slots.running, slots.held) == (1, 1)
    parent.leave()
    assert (slots.running, slots.held) == (0, 0)


async def test_a_turn_passed_over_while_its_job_is_being_cancelled() -> None:
    slots = Slots(1)
    slots.start()
    going_on = asyncio.create_task(slots.go_on())
    await turns()
    going_on.cancel()  # the future is cancelled now, the task learns it in its next step
    slots.end()
    with pytest.raises(asyncio.CancelledError):
        await going_on
    assert slots.free() == 1


async def test_a_turn_given_to_a_job_that_is_being_cancelled_goes_to_the_next() -> None:
    slots = Slots(1)
    slots.start()
    first, second = asyncio.create_task(slots.go_on()), asyncio.create_task(slots.go_on())
    await turns()
    slots.end()
    first.cancel()
    await second
    assert first.cancelled()
    assert slots.running == 1


async def test_a_wait_that_begins_while_another_of_the_job_ends() -> None:
    slots, one, two = Slots(1), asyncio.Event(), asyncio.Event()
    job = place(slots)
    first = asyncio.create_task(wait_for(job, one))
    await turns()
    other = place(slots)
    one.set()
    await turns()  # the first wait is over, and stands in line for a slot
    second = asyncio.create_task(wait_for(job, two))
    await turns()
    assert slots.running == 1
    other.leave()
    await first
    assert slots.running == 0, "the job has a slot although it waits"
    two.set()
    await second
    assert slots.running == 1
    job.leave()
    assert (slots.running, slots.held, slots.free()) == (0, 0, 1)


async def test_several_waits_that_end_while_no_slot_is_free_take_one_together() -> None:
    slots, one, two = Slots(1), asyncio.Event(), asyncio.Event()
    job = place(slots)
    first = asyncio.create_task(wait_for(job, one))
    await turns()
    other = place(slots)
    one.set()
    await turns()
    two.set()
    second = asyncio.create_task(wait_for(job, two))
    await turns()
    other.leave()
    await asyncio.gather(first, second)
    assert slots.running == 1
    job.leave()
    assert (slots.running, slots.held) == (0, 0)


async def test_a_cancelled_wait_takes_the_slot_back() -> None:
    slots = Slots(1)
    job = place(slots)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wait_for(job, asyncio.Event()), 0.01)
    assert (slots.running, slots.held) == (1, 1)


async def test_who_gives_up_in_line_for_a_slot_goes_on_when_there_is_one() -> None:
    slots, event = Slots(1), asyncio.Event()
    job = place(slots)
    waiting = asyncio.create_task(wait_for(job, event))
    await turns()
    other = place(slots)
    event.set()
    await turns()
    waiting.cancel()  # by a timeout of its own
    await turns()
    assert not waiting.done(), "it goes on without a slot"
    other.leave()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (slots.running, slots.held) == (1, 1)


async def test_who_is_stopped_in_line_for_a_slot_does_not_wait_for_one() -> None:
    slots, event, stopped = Slots(1), asyncio.Event(), False
    job = place(slots, lambda: stopped)
    waiting = asyncio.create_task(wait_for(job, event))
    await turns()
    other = place(slots)
    event.set()
    await turns()
    waiting.cancel()  # by a timeout of its own, which is not all yet
    await turns()
    stopped = True
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    job.leave()
    other.leave()
    assert (slots.running, slots.held, slots.free()) == (0, 0, 1)


async def test_a_wait_cancelled_while_the_job_is_being_shown_as_suspended() -> None:
    slots, asked = Slots(1), asyncio.Event()

    class SlowEngine(MemoryEngine):
        async def update(self, *args: object, **kwargs: object) -> None:  # type: ignore[override]
            if not asked.is_set():
                asked.set()
                await asyncio.Event().wait()

    job = Place(Token(uuid4(), 1, "me"), SlowEngine(), slots, lambda: False)
    waiting = asyncio.create_task(wait_for(job, asyncio.Event()))
    await asked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert slots.running == 1
    async with job.waiting():
        assert slots.running == 0
    assert slots.running == 1


async def test_a_job_that_is_being_stopped_waits_again_without_losing_count() -> None:
    slots, stopped = Slots(2), False
    job = place(slots, lambda: stopped)
    waiting = asyncio.create_task(wait_for(job, asyncio.Event()))
    await turns()
    stopped = True
    waiting.cancel()
    await asyncio.wait([waiting])
    async with job.waiting():
        assert slots.running == 0
    job.leave()
    assert (slots.running, slots.held) == (0, 0)


async def test_a_wait_that_outlives_its_job_takes_no_slot() -> None:
    slots, one, two = Slots(1), asyncio.Event(), asyncio.Event()
    job = place(slots)
    early = asyncio.create_task(wait_for(job, one))
    await turns()
    other = place(slots)
    one.set()
    await turns()  # in line for a slot
    job.leave()
    late = asyncio.create_task(wait_for(job, two))
    await turns()
    other.leave()
    two.set()
    await asyncio.gather(early, late)
    assert (slots.running, slots.held, slots.free()) == (0, 0, 1)


async def test_held_jobs_that_all_wait_let_one_more_in() -> None:
    slots, event = Slots(2, 2), asyncio.Event()
    jobs = [place(slots), place(slots)]
    assert slots.free() == 0
    waits = [asyncio.create_task(wait_for(job, event)) for job in jobs]
    await turns()
    assert slots.all_wait
    assert slots.free() == 1
    child = place(slots)
    assert slots.free() == 0
    event.set()
    child.leave()
    await asyncio.gather(*waits)
    for job in jobs:
        job.leave()
    assert (slots.running, slots.held, slots.free()) == (0, 0, 2)
