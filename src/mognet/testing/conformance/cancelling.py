"""Cancelling is safe: an operation whose caller is cancelled happened or did not; a cancelled claim holds no job."""

# ruff: noqa: S101
from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar
from uuid import UUID

from mognet.outcomes import merge_metadata, revoke, succeeded
from mognet.records import Claim, Query
from mognet.states import ResultState
from mognet.testing.conformance.bench import LONG, Bench, Group, labels, make_job, plain

T = TypeVar("T")


async def interrupted(operation: Coroutine[Any, Any, T], dice: random.Random) -> T | None:
    """Start an operation and cancel it a little later, at a point of its way that the dice choose; None: it was cancelled."""
    task = asyncio.create_task(operation)
    if dice.random() < 0.5:
        for _ in range(dice.randrange(6)):
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(dice.random() * 0.003)
    task.cancel()
    with suppress(asyncio.CancelledError):
        return await task
    return None


class Cancelling(Group):
    """The law *cancelling is safe*."""

    async def eventually(self, bench: Bench, look: Callable[[], Awaitable[object]], want: object) -> None:
        """What was under way when its caller was cancelled may take a moment to be undone, not more."""
        for _ in range(100):
            if (found := await look()) == want:
                break
            await asyncio.sleep(bench.harness.patience / 400)
        assert found == want

    async def test_a_storm_of_cancelled_claims(self, bench: Bench) -> None:
        """After many claims that were cancelled at any point, all their jobs are as if they had never been claimed."""
        dice = random.Random(1)
        engines = [bench.engine, await bench.another()]
        jobs = await bench.add(20)
        ids = [job.id for job in jobs]
        before = {record.id: plain(record) for record in await bench.find(*ids)}
        kept: list[Claim] = []
        for number in range(60):
            wait = dice.choice([0.0, 0.0, 10.0])
            claiming = engines[number % 2].claim(f"node{number}", ["q"], dice.randrange(1, 4), lease=LONG, wait=wait)
            kept += await interrupted(claiming, dice) or []
            if len(kept) > 15:
                await bench.engine.delete(gone := [claim.token.id for claim in kept])
                kept.clear()
                for id in gone:
                    del before[id]
                fresh = await bench.add(len(gone))
                before |= {record.id: plain(record) for record in await bench.find(*(job.id for job in fresh))}
        for claim in kept:
            assert plain(await bench.record(claim.token.id)) == plain(claim.record)
            del before[claim.token.id]

        async def records() -> dict[UUID, object]:
            return {record.id: plain(record) for record in await bench.find(*before)}

        await self.eventually(bench, records, before)
        claims = await bench.take(len(before))
        assert {claim.token.id for claim in claims} == set(before)
        assert {claim.record.starts for claim in claims} == {1}

    async def test_a_cancelled_waiter_takes_nothing(self, bench: Bench) -> None:
        """A claim that was cancelled while it waited does not take the job that comes next."""
        other = await bench.another()
        for number in range(8):
            engine = (bench.engine, other)[number % 2]
            waiting = [asyncio.create_task(engine.claim("gone", ["q"], 1, lease=LONG, wait=60.0)) for _ in range(3)]
            await asyncio.sleep(0.003)
            for task in waiting:
                task.cancel()
            if number % 4 < 2:
                await asyncio.wait(waiting)
            [job] = await bench.add()
            got = [task.result() for task in (await asyncio.wait(waiting))[0] if not task.cancelled()]
            assert got == []
            [claim] = await bench.take(1, node="here")
            assert (claim.token.id, claim.record.starts, claim.record.node) == (job.id, 1, "here")

    async def test_claims_cancelled_as_jobs_come(self, bench: Bench) -> None:
        """Waiting claims that are cancelled in the moment in which jobs come lose none of them."""
        dice = random.Random(2)
        other = await bench.another()
        for _ in range(12):
            waiting = [asyncio.create_task(interrupted(other.claim("node", ["q"], 2, lease=LONG, wait=60.0), dice)) for _ in range(4)]
            await asyncio.sleep(dice.random() * 0.003)
            jobs = await bench.add(4)
            got = [claim.token.id for claims in await asyncio.gather(*waiting) for claim in claims or []]
            claims = await bench.take(4 - len(got))
            assert {claim.record.starts for claim in claims} <= {1}
            assert sorted(got + [claim.token.id for claim in claims]) == sorted(job.id for job in jobs)

    async def test_workers_in_the_storm(self, bench: Bench) -> None:
        """Beside a storm of cancelled claims, workers get every job, each once."""
        dice = random.Random(3)
        engines = [bench.engine, await bench.another()]
        jobs = await bench.add(40)
        left = len(jobs)
        over = asyncio.Event()

        async def worker(number: int) -> None:
            nonlocal left
            while left > 0:
                for claim in await engines[number % 2].claim("worker", ["q"], 3, lease=LONG, wait=0.02):
                    left -= 1
                    await bench.settle(succeeded(claim.token, b"1"))
            over.set()

        async def storm() -> None:
            nonlocal left
            while not over.is_set():
                for claim in await interrupted(engines[1].claim("storm", ["q"], 2, lease=LONG, wait=1.0), dice) or []:
                    left -= 1
                    await bench.settle(succeeded(claim.token, b"1"))

        await bench.soon(asyncio.gather(worker(0), worker(1), storm(), storm()))
        records = await bench.find(*(job.id for job in jobs))
        assert {(record.state, record.starts, record.stops) for record in records} == {(ResultState.SUCCESS, 1, 1)}

    async def test_a_cancelled_submit(self, bench: Bench) -> None:
        """All of the jobs were stored and put in line, or none was; to send the same batch again completes it."""
        dice = random.Random(4)
        for _ in range(25):
            jobs = [make_job() for _ in range(10)]
            answers = await interrupted(bench.engine.submit(jobs), dice)
            again = await bench.engine.submit(jobs)
            assert again in ([True] * 10, [False] * 10)
            if answers is not None:
                assert (answers, again) == ([True] * 10, [False] * 10)
            assert [claim.token.id for claim in await bench.take(10)] == [job.id for job in jobs]
            assert await bench.drain() == []

    async def test_a_cancelled_settle(self, bench: Bench) -> None:
        """Every outcome of the call took effect, or none; sent again, it completes."""
        dice = random.Random(5)
        for _ in range(25):
            await bench.add(5)
            outcomes = [succeeded(claim.token, b"1") for claim in await bench.take(5)]
            answers = await interrupted(bench.engine.settle(outcomes), dice)
            again = [record is not None for record in await bench.engine.settle(outcomes)]
            assert again in ([True] * 5, [False] * 5)
            assert answers is None or again == [False] * 5
            records = await bench.find(*(outcome.token.id for outcome in outcomes))
            assert {(record.state, record.stops) for record in records} == {(ResultState.SUCCESS, 1)}
            assert {await bench.engine.value(record.id) for record in records} == {b"1"}

    async def test_cancelled_changes(self, bench: Bench) -> None:
        """A revoke of a family happened for all of it or for none; a merge, or a save, for all its keys."""
        dice = random.Random(6)
        for _ in range(20):
            claim = await bench.start()
            children = await bench.add(5, parent=claim.token.id, root=claim.token.id, queue="c")
            await interrupted(bench.engine.update(claim.token.id, merge_metadata(b'{"a":1,"b":2}')), dice)
            await interrupted(bench.engine.save(claim.token, {"a": b"1", "b": b"2"}), dice)
            await bench.engine.save(claim.token, {"c": b"3"})
            assert await bench.engine.load(claim.token) in ({"c": b"3"}, {"a": b"1", "b": b"2", "c": b"3"})
            await interrupted(bench.engine.update(claim.token.id, revoke()), dice)
            records = await bench.find(claim.token.id, *(job.id for job in children))
            assert len({record.done for record in records}) == 1
            assert labels(records[0]) in ({}, {"a": 1, "b": 2})
            await bench.engine.update(claim.token.id, revoke())
            assert await bench.drain("c") == []

    async def test_the_engine_stays_sound(self, bench: Bench) -> None:
        """After any operation was cancelled at any point, the next ones get their own answers."""
        dice = random.Random(7)
        [job], held = await bench.add(), await bench.start(queue="held")
        engine = bench.engine

        async def search() -> None:
            async for _ in engine.search(Query()):
                await asyncio.sleep(0)

        async def listen() -> None:
            async with engine.subscribe("c") as signals:
                await anext(signals)

        operations: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda: engine.get([job.id]),
            lambda: engine.value(job.id),
            lambda: engine.count(Query()),
            lambda: engine.extend([held.token], LONG),
            lambda: engine.load(held.token),
            engine.sweep,
            lambda: engine.publish("c", b"1"),
            lambda: engine.delete([]),
            search,
            listen,
        ]
        for _ in range(6):
            for operation in operations:
                await interrupted(operation(), dice)
        assert [record.id for record in await bench.find(held.token.id, job.id)] == [held.token.id, job.id]
        assert await engine.count(Query()) == {"PENDING": 1, "RUNNING": 1}
        assert await engine.extend([held.token], LONG) == {held.token}
        assert [claim.token.id for claim in await bench.take(1)] == [job.id]
        async with engine.subscribe("c") as signals:
            await engine.publish("c", b'"last"')
            await bench.heard(signals, lambda signal: signal.body == b'"last"')
