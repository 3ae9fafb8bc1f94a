"""Signals are hints, but in a sound system they arrive, and wake those who wait."""

# ruff: noqa: S101
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

from mognet.codec import unpack_done
from mognet.engine import DONE, SMALL_VALUE, Engine
from mognet.outcomes import failed, paused, released, retry, revoke, revoked, succeeded
from mognet.records import Claim, Signal
from mognet.states import FINAL, ResultState
from mognet.testing.conformance.bench import LONG, Bench, Group, labels, make_job, plain


class Signals(Group):
    """The law *signals are hints*, and the DONE signal."""

    async def test_all_subscribers_hear(self, bench: Bench) -> None:
        """What one engine publishes arrives at all who subscribe now, at whatever engine object."""
        other = await bench.another()
        async with bench.engine.subscribe("c") as a, bench.engine.subscribe("c") as b, other.subscribe("c") as c:
            await other.publish("c", b'"hello"')
            for signals in (a, b, c):
                assert await bench.heard(signals) == Signal("c", b'"hello"')

    async def test_several_channels(self, bench: Bench) -> None:
        """One subscription may listen on several channels, and hears no other."""
        other = await bench.another()
        async with bench.engine.subscribe("a", "b") as signals:
            await other.publish("c", b"1")
            await other.publish("a", b"2")
            assert await bench.heard(signals) == Signal("a", b"2")
            await other.publish("b", b"3")
            assert await bench.heard(signals, lambda signal: signal.channel == "b") == Signal("b", b"3")

    async def test_nobody_listens(self, bench: Bench) -> None:
        """Publishing without a subscriber is no error; a later subscriber does not hear it."""
        await bench.engine.publish("c", b'"early"')
        async with bench.engine.subscribe("c") as signals:
            await bench.engine.publish("c", b'"late"')
            assert (await bench.heard(signals)).body == b'"late"'

    async def test_after_leaving(self, bench: Bench) -> None:
        """Outside the context nothing is kept: a new subscription starts anew."""
        for number in range(3):
            async with bench.engine.subscribe("c") as signals:
                await bench.engine.publish("c", b"%d" % number)
                assert (await bench.heard(signals)).body == b"%d" % number
                await bench.engine.publish("c", b'"unread"')
            await bench.engine.publish("c", b'"outside"')

    async def test_leaving_while_another_stays(self, bench: Bench) -> None:
        """Who leaves a channel takes nobody with him."""
        async with bench.engine.subscribe("c") as stays:
            async with bench.engine.subscribe("c"):
                pass
            await bench.engine.publish("c", b"1")
            assert (await bench.heard(stays)).body == b"1"

    async def test_a_cancelled_listener_leaves(self, bench: Bench) -> None:
        """A listener that is cancelled while it waits ends its subscription, and harms no other."""
        entered = asyncio.Event()

        async def listen() -> None:
            async with bench.engine.subscribe("c") as signals:
                entered.set()
                async for _ in signals:
                    pass

        listener = asyncio.create_task(listen())
        await bench.soon(entered.wait())
        await asyncio.sleep(0)
        listener.cancel()
        await asyncio.wait([listener])
        assert listener.cancelled()
        async with bench.engine.subscribe("c") as signals:
            await bench.engine.publish("c", b"1")
            assert (await bench.heard(signals)).body == b"1"

    async def test_many_signals(self, bench: Bench) -> None:
        """A burst arrives in the order in which it was published."""
        async with bench.engine.subscribe("c") as signals:
            for number in range(200):
                await bench.engine.publish("c", b"%d" % number)
            heard = [int((await bench.heard(signals)).body)]
            while heard[-1] != 199:
                heard.append(int((await bench.heard(signals)).body))
        assert sorted(set(heard)) == list(range(200))
        assert list(dict.fromkeys(heard)) == list(range(200))

    async def test_done_after_a_settle(self, bench: Bench) -> None:
        """Each final outcome rings DONE everywhere, with the record as it is, and its value."""
        other = await bench.another()
        async with other.subscribe(DONE) as signals:
            for state in FINAL:
                record = await bench.ended(state, b'"%b"' % state.encode(), metadata=b'{"a":1}', label="f()")
                told, value = await bench.done(signals, record.id)
                assert plain(told) == plain(record)
                assert value == b'"%b"' % state.encode()

    async def test_done_with_values_of_all_sizes(self, bench: Bench) -> None:
        """A value of up to ``SMALL_VALUE`` bytes travels along; a larger one, or none, does not."""
        async with bench.engine.subscribe(DONE) as signals:
            for size, told in ((1, True), (SMALL_VALUE, True), (SMALL_VALUE + 1, False)):
                record = await bench.ended(value=b"1" * size)
                assert (await bench.done(signals, record.id))[1] == (b"1" * size if told else None)
            record = await bench.settle(revoked((await bench.start()).token))
            assert (await bench.done(signals, record.id))[1] is None

    async def test_done_after_a_batch(self, bench: Bench) -> None:
        """A settle of many rings for each of them that became final, and for no other."""
        await bench.add(6)
        claims = await bench.take(6)
        tokens = [claim.token for claim in claims]
        async with bench.engine.subscribe(DONE) as signals:
            outcomes = [
                succeeded(tokens[0], b"0"),
                retry(tokens[1], LONG),
                failed(tokens[2], b"2"),
                paused(tokens[3], LONG),
                released(tokens[4]),
            ]
            await bench.engine.settle([*outcomes, succeeded(tokens[5], b"5")])
            heard: set[UUID] = set()
            while tokens[5].id not in heard:
                heard.add(unpack_done((await bench.heard(signals)).body)[0].id)
        assert heard <= {tokens[0].id, tokens[2].id, tokens[5].id}

    async def test_done_after_a_revoke(self, bench: Bench) -> None:
        """A revoke rings for the job and each descendant that it ended, waiting or running; not for those that had ended."""
        root = await bench.start(metadata=b'{"a":1}')
        line: dict[str, Any] = {"parent": root.token.id, "queue": "c"}
        finished = await bench.ended(**line)
        running = await bench.start(**line)
        [waiting] = await bench.add(**line)
        other = await bench.another()
        async with other.subscribe(DONE) as signals:
            await bench.engine.update(root.token.id, revoke())
            await bench.engine.publish(DONE, b"end")
            bodies: list[bytes] = []
            while (signal := await bench.heard(signals)).body != b"end":
                bodies.append(signal.body)
        told = {record.id: (record, value) for record, value in map(unpack_done, bodies)}
        assert finished.id not in told
        assert set(told) == {root.token.id, running.token.id, waiting.id}
        for id, (record, value) in told.items():
            assert (record.state, value) == (ResultState.REVOKED, None)
            assert plain(record) == plain(await bench.record(id))
        assert labels(told[root.token.id][0]) == {"a": 1}

    async def test_done_once_for_those_born_revoked(self, bench: Bench) -> None:
        """DONE tells of each job that reached a final state: also of one that was born in it."""
        parent = uuid4()
        async with bench.engine.subscribe(DONE) as signals:
            await bench.engine.update(parent, revoke())
            assert (await bench.done(signals, parent))[0].state is ResultState.REVOKED
            child = make_job(parent=parent)
            await bench.engine.submit([child])
            assert (await bench.done(signals, child.id))[0].state is ResultState.REVOKED

    async def test_a_lost_claim_rings_nothing(self, bench: Bench) -> None:
        """A settle that was refused, and a revoke that came too late, tell nobody."""
        ghost, heir = await bench.stolen()
        async with bench.engine.subscribe(DONE) as signals:
            await bench.engine.settle([failed(ghost.token, b"0")])
            record = await bench.settle(succeeded(heir.token, b"1"))
            assert await bench.done(signals, record.id) == (record, b"1")
            await bench.engine.update(record.id, revoke(), unless=())
            await bench.engine.settle([failed(heir.token, b"0")])
            last = await bench.ended()
            while (told := unpack_done((await bench.heard(signals)).body))[0].id != last.id:
                assert told == (record, b"1")


class Waiting(Group):
    """``claim(wait=…)``: it returns as soon as a job is due, or nothing when the time is over."""

    async def woken(self, bench: Bench, do: Callable[[], Awaitable[object]], queue: str = "q") -> Claim:
        """Let a claim wait at another engine object, do something, and answer what it got."""
        other = await bench.another()
        claim = asyncio.create_task(self.wait(other, queue, LONG))
        await asyncio.sleep(0.02)
        assert not claim.done()
        await do()
        [got] = await bench.soon(claim)
        return got

    @staticmethod
    async def wait(engine: Engine, queue: str, seconds: float) -> list[Claim]:
        """Wait for one job."""
        return await engine.claim("waiter", [queue], 1, lease=LONG, wait=seconds)

    async def test_nothing_comes(self, bench: Bench) -> None:
        """When nothing became due in time, the claim answers an empty list, after about that time."""
        await bench.add(queue="other")
        await bench.add(delay=LONG)
        loop = asyncio.get_running_loop()
        start = loop.time()
        assert await bench.soon(self.wait(bench.engine, "q", 0.1)) == []
        assert loop.time() - start >= 0.09

    async def test_something_is_there(self, bench: Bench) -> None:
        """A job that is due is taken at once; fewer than the limit are no reason to wait."""
        await bench.add(2)
        claims = await bench.soon(bench.engine.claim("node", ["q"], 5, lease=LONG, wait=3600))
        assert 1 <= len(claims) <= 2

    async def test_a_submit_wakes(self, bench: Bench) -> None:
        """A job submitted at another engine object wakes the one that waits."""
        job = make_job()
        assert (await self.woken(bench, lambda: bench.submit(job))).token.id == job.id

    async def test_a_submit_to_another_queue_does_not_matter(self, bench: Bench) -> None:
        """Waking up for a job of another queue, the claim goes on waiting for its own."""
        job = make_job()

        async def submit() -> None:
            await bench.add(queue="other")
            await asyncio.sleep(0.02)
            await bench.submit(job)

        assert (await self.woken(bench, submit)).token.id == job.id

    async def test_a_due_time_wakes(self, bench: Bench) -> None:
        """A delayed job is taken when its time has come, whether it was submitted before the wait or during it."""
        delay = min(bench.unit, 0.05)
        await bench.add(delay=delay)
        await self.woken(bench, lambda: bench.harness.advance(delay))

        async def submit() -> None:
            await bench.add(delay=delay)
            await bench.harness.advance(delay)

        await self.woken(bench, submit)

    async def test_a_retry_wakes(self, bench: Bench) -> None:
        """A job that comes back in line wakes, whatever brought it back."""
        for fate in (lambda t: retry(t, 0.0), paused, released):
            held = await bench.start()
            got = await self.woken(bench, lambda fate=fate, held=held: bench.settle(fate(held.token)))  # type: ignore[misc]
            assert got.token.id == held.token.id

    async def test_a_sweep_wakes(self, bench: Bench) -> None:
        """A job that was recovered wakes."""
        held = await bench.start()
        assert (await self.woken(bench, lambda: bench.crash(held))).token.id == held.token.id

    async def test_one_job_wakes_one(self, bench: Bench) -> None:
        """Of many who wait, exactly one gets the job, and the others wait on and get theirs."""
        tasks = [asyncio.create_task(self.wait(await bench.another(), "q", LONG)) for _ in range(4)]
        await asyncio.sleep(0.02)
        for number in range(4):
            await bench.add()
            while sum(task.done() for task in tasks) <= number:
                await bench.soon(asyncio.wait([task for task in tasks if not task.done()], return_when=asyncio.FIRST_COMPLETED))
            await asyncio.sleep(0.01)
            assert sum(task.done() for task in tasks) == number + 1
        got = [claim.token.id for task in tasks for claim in task.result()]
        assert len(set(got)) == 4

    async def test_by_ids(self, bench: Bench) -> None:
        """A wait for certain jobs leaves the others alone."""
        [other], job = await bench.add(), make_job()
        task = asyncio.create_task(bench.engine.claim("node", ["q"], 1, lease=LONG, wait=LONG, ids=[job.id]))
        await asyncio.sleep(0.02)
        await bench.submit(job)
        [claim] = await bench.soon(task)
        assert claim.token.id == job.id
        assert await bench.drain() == [other.id]
