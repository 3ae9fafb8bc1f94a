from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import NamedTuple
from uuid import uuid4

import pytest

from mognet import Backoff
from mognet.engines.memory import MemoryEngine
from mognet.exceptions import ConnectionError
from mognet.keeper import LeaseKeeper
from mognet.records import Token

LEASE = 0.15
LONGER = 1.5
"""A lease whose third is long beside what a busy machine does to a thread."""


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110 - what is waited for happens in a thread
            await asyncio.sleep(0.005)


class Engine(MemoryEngine):
    """Counts what is extended, in whichever thread; answers as it is told."""

    def __init__(self, answer: Callable[[set[Token]], set[Token]] = lambda tokens: tokens) -> None:
        super().__init__()
        self.extended: list[tuple[float, set[Token]]] = []
        self.answer = answer

    async def extend(self, tokens: Collection[Token], lease: float) -> set[Token]:
        self.extended.append((time.monotonic(), set(tokens)))
        return self.answer(set(tokens))

    async def times(self, number: int) -> None:
        await until(lambda: len(self.extended) >= number)


class Attempt(NamedTuple):
    token: Token
    task_name: str


def attempt(name: str = "job") -> Attempt:
    return Attempt(Token(uuid4(), 1, "me"), name)


def keeper(
    engine: Engine, *, lease: float = LEASE, max_block: float = 60, lost: Callable[[set[Token]], None] = lambda _: None
) -> LeaseKeeper:
    return LeaseKeeper(lambda: engine, lease=lease, max_block=max_block, lost=lost)


async def test_started_and_stopped_at_once() -> None:
    for _ in range(20):
        leases = keeper(Engine())
        leases.start()
        await leases.stop()


async def test_renews_while_there_is_something_to_keep() -> None:
    engine, kept = Engine(), attempt()
    leases = keeper(engine)
    leases.start()
    await asyncio.sleep(LEASE)
    assert engine.extended == []
    leases.add(kept)
    await engine.times(3)
    leases.discard(kept)
    await leases.stop()
    assert {tokens == {kept.token} for _, tokens in engine.extended} == {True}


async def test_it_is_woken_only_while_it_does_not_look_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that come and go one after the other would wake it for each, which costs the worker's own thread time."""
    woken = 0

    def nudge(leases: LeaseKeeper) -> None:
        nonlocal woken
        woken += 1
        original(leases)

    original = LeaseKeeper._nudge
    monkeypatch.setattr(LeaseKeeper, "_nudge", nudge)
    engine, kept = Engine(), attempt()
    leases = keeper(engine, lease=LONGER)
    leases.start()
    await until(lambda: leases._wake is not None)
    leases.add(first := attempt())
    await engine.times(1)
    await until(lambda: leases._looks_soon)
    leases.discard(first)
    for each in [attempt() for _ in range(100)]:
        leases.add(each)
        leases.discard(each)
    leases.add(kept)
    seen = woken
    await engine.times(2)
    await leases.stop()
    assert engine.extended[1][1] == {kept.token}
    assert seen <= 2  # the second if this thread stood still until the other had looked


async def test_it_is_woken_once_although_it_sleeps_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take a while until it runs: what comes and goes meanwhile does not wake it again."""
    woken = 0

    def nudge(_: LeaseKeeper) -> None:
        nonlocal woken
        woken += 1

    monkeypatch.setattr(LeaseKeeper, "_nudge", nudge)
    leases = keeper(Engine())
    for each in [attempt() for _ in range(100)]:
        leases.add(each)
        leases.discard(each)
    assert woken == 1


async def test_tells_what_is_lost_in_the_workers_loop() -> None:
    told: asyncio.Future[tuple[set[Token], int]] = asyncio.get_running_loop().create_future()
    engine, kept, lost = Engine(), attempt(), attempt()
    engine.answer = lambda _: {kept.token}
    leases = keeper(engine, lost=lambda tokens: told.done() or told.set_result((tokens, threading.get_ident())))
    leases.start()
    leases.add(kept)
    leases.add(lost)
    assert await told == ({lost.token}, threading.get_ident())
    await leases.stop()


@pytest.mark.parametrize("error", [ConnectionError("away"), RuntimeError("a bug")])
async def test_after_a_failure_it_renews_at_once(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Not a third of a lease after the engine is back: the lease is short of time by then."""
    engine, failures = Engine(), 2

    def answer(tokens: set[Token]) -> set[Token]:
        nonlocal failures
        if failures:
            failures -= 1
            raise error
        return tokens

    engine.answer = answer
    leases = keeper(engine, lease=LONGER)
    leases.start()
    leases.add(attempt())
    await engine.times(3)
    await leases.stop()
    times = [moment for moment, _ in engine.extended]
    assert times[1] - times[0] < LONGER / 3
    assert "leases cannot be renewed" in caplog.text


async def test_a_blocked_loop_is_reported_then_given_up_then_taken_up_again(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine()
    leases = keeper(engine, lease=LONGER, max_block=LONGER / 2)
    leases.start()
    leases.add(attempt("the job"))
    await engine.times(1)
    task = asyncio.current_task()
    assert task is not None
    task.set_name("the culprit")

    def said(level: int) -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == level]

    with caplog.at_level(logging.WARNING):
        patience = time.monotonic() + 20
        while not said(logging.ERROR) and time.monotonic() < patience:
            time.sleep(LEASE / 10)  # keeps the loop from turning
    blocked = len(engine.extended)
    assert blocked >= 2
    time.sleep(LONGER / 2)
    assert len(engine.extended) == blocked
    warnings, errors = said(logging.WARNING), said(logging.ERROR)
    assert all("the culprit blocks it" in text for text in [*warnings, *errors])
    assert warnings
    assert len(errors) == 1
    await engine.times(blocked + 1)
    await leases.stop()


async def test_an_engine_that_does_not_answer_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mognet.keeper.PATIENCE", 0.05)
    entered, leave = threading.Event(), threading.Event()

    class Stuck(Engine):
        async def extend(self, tokens: Collection[Token], lease: float) -> set[Token]:
            entered.set()
            leave.wait(10)
            return set(tokens)

    leases = keeper(Stuck())
    leases.start()
    leases.add(attempt())
    await until(entered.is_set)
    async with asyncio.timeout(1):
        await leases.stop()
    leave.set()


async def test_an_engine_that_cannot_be_entered_is_tried_as_soon_as_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mognet.keeper._ENTER", Backoff(base=120, cap=120, jitter=False))
    back, asked = threading.Event(), threading.Event()

    class Closed(Engine):
        async def __aenter__(self) -> Closed:
            if not back.is_set():
                raise ConnectionError("away")
            return self

        async def until_back(self, seconds: float) -> bool:
            assert seconds == 120
            asked.set()
            while not back.is_set():  # noqa: ASYNC110 - set in another thread
                await asyncio.sleep(0.005)
            return True

    engine = Closed()
    leases = keeper(engine)
    leases.start()
    leases.add(attempt())
    await until(asked.is_set)
    assert engine.extended == []
    back.set()
    await engine.times(1)
    await leases.stop()


async def test_it_stops_while_it_waits_for_an_engine() -> None:
    class Closed(Engine):
        async def __aenter__(self) -> Closed:
            raise ConnectionError("away")

    leases = keeper(Closed())
    leases.start()
    await asyncio.sleep(0.05)
    async with asyncio.timeout(1):
        await leases.stop()
