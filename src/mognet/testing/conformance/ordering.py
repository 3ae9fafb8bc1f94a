"""Order: priority (high first), then due time, then arrival; and the engine's clock decides what is due."""

# ruff: noqa: S101
from __future__ import annotations

import random
from uuid import UUID

from mognet.outcomes import paused, released, retry, succeeded
from mognet.records import Claim, Swept
from mognet.states import ResultState
from mognet.testing.conformance.bench import LONG, Bench, Group, make_job, near


def ids(claims: list[Claim]) -> list[UUID]:
    """Of which jobs."""
    return [claim.token.id for claim in claims]


class Order(Group):
    """The law *order*."""

    async def test_arrival(self, bench: Bench) -> None:
        """Among jobs that are otherwise alike, the first come are the first served: within a batch, and between batches."""
        jobs = [job for _ in range(5) for job in await bench.add(8)]
        assert ids(await bench.take(40)) == [job.id for job in jobs]

    async def test_arrival_over_several_queues(self, bench: Bench) -> None:
        """The order holds over all queues of a claim together, in whatever order they are named."""
        jobs = []
        for number in range(12):
            jobs += await bench.add(queue="abc"[number % 3])
            await bench.advance(1 / 64)
        assert ids(await bench.take(6, ["c", "a", "b"])) == [job.id for job in jobs[:6]]
        assert ids(await bench.take(6, ["b", "c", "a"])) == [job.id for job in jobs[6:]]

    async def test_priority(self, bench: Bench) -> None:
        """The higher priority first, whatever came or was due earlier; one claim at a time or all in one."""
        priorities = [0, 10, 5, 1, 10, 9, 0, 5]
        for limit in (1, 3, 8):
            jobs = await bench.submit(*(make_job(priority=priority) for priority in priorities))
            want = sorted(jobs, key=lambda job: -job.priority)
            got: list[Claim] = []
            while len(got) < len(jobs):
                got += await bench.take(min(limit, len(jobs) - len(got)))
            assert ids(got) == [job.id for job in want]
            assert [claim.record.priority for claim in got] == sorted(priorities, reverse=True)

    async def test_priority_over_several_queues(self, bench: Bench) -> None:
        """The best job is taken from whichever queue it is in."""
        jobs = await bench.submit(*(make_job(priority=i, queue="ab"[i % 2]) for i in range(10)))
        assert ids(await bench.take(10, ["a", "b"])) == [job.id for job in reversed(jobs)]

    async def test_due_before_arrival(self, bench: Bench) -> None:
        """What was due earlier goes first, though it came later."""
        slow, quick, now = make_job(delay=bench.unit * 2), make_job(delay=bench.unit), make_job()
        await bench.submit(slow, quick, now)
        await bench.advance(2)
        await bench.submit(last := make_job())
        assert ids(await bench.take(4)) == [now.id, quick.id, slow.id, last.id]

    async def test_priority_before_due(self, bench: Bench) -> None:
        """A delayed job of higher priority goes before what has been due for longer."""
        low, high = make_job(priority=1), make_job(priority=9, delay=bench.unit)
        await bench.submit(low, high)
        await bench.advance(1)
        assert ids(await bench.take(2)) == [high.id, low.id]

    async def test_what_is_not_due_holds_nobody_up(self, bench: Bench) -> None:
        """Delayed jobs, however high their priority, are no part of the order until they are due."""
        await bench.submit(*(make_job(priority=10, delay=LONG) for _ in range(20)))
        [job] = await bench.add(priority=0)
        assert ids(await bench.engine.claim("node", ["q"], 5, lease=LONG)) == [job.id]

    async def test_paused_goes_behind(self, bench: Bench) -> None:
        """A paused job runs again after those that were in line, also those that came in the same moment."""
        jobs = await bench.add(4)
        [claim] = await bench.take(1)
        record = await bench.settle(paused(claim.token))
        assert (record.state, record.starts, record.stops, record.attempt) == (ResultState.SUSPENDED, 1, 1, 1)
        await bench.advance(1 / 64)
        late = await bench.add(1)
        assert ids(await bench.take(5)) == [job.id for job in [*jobs[1:], jobs[0], *late]]

    async def test_paused_for_a_while(self, bench: Bench) -> None:
        """A paused job is due so many seconds after its pause, and not before."""
        claim = await bench.start()
        before = await bench.now()
        record = await bench.settle(paused(claim.token, bench.unit))
        assert before <= record.due - bench.unit + 0.005
        assert record.due - bench.unit <= await bench.now() + 0.005
        await bench.advance(0.5)
        assert await bench.engine.claim("node", ["q"], 1, lease=LONG) == []
        await bench.advance(0.5)
        assert ids(await bench.take(1)) == [claim.token.id]

    async def test_released_keeps_its_place(self, bench: Bench) -> None:
        """Jobs that were handed back stand where they stood: before those that came after them, even in the same batch."""
        jobs = await bench.add(6)
        claims = await bench.take(3)
        for claim in (claims[1], claims[0], claims[2]):
            record = await bench.settle(released(claim.token))
            assert (record.state, record.due, record.starts, record.stops) == (ResultState.SUSPENDED, claim.record.due, 1, 1)
        assert ids(await bench.take(6)) == [job.id for job in jobs]

    async def test_swept_keeps_its_place(self, bench: Bench) -> None:
        """Jobs of a lost worker stand where they stood, too."""
        jobs = await bench.add(6)
        claims = await bench.take(3, lease=bench.unit)
        await bench.advance(1)
        assert (await bench.engine.sweep()).recovered == 3
        assert [record.due for record in await bench.find(*ids(claims))] == [claim.record.due for claim in claims]
        assert ids(await bench.take(6)) == [job.id for job in jobs]

    async def test_retried_when_due(self, bench: Bench) -> None:
        """A retried job waits for its back-off, PENDING, and then goes by its new due time."""
        [first, second, third] = await bench.add(3)
        [claim] = await bench.take(1)
        record = await bench.settle(retry(claim.token, bench.unit))
        assert (record.state, record.attempt, record.starts, record.stops) == (ResultState.PENDING, 2, 1, 1)
        assert ids(await bench.take(1)) == [second.id]
        await bench.advance(0.5)
        assert ids(await bench.engine.claim("node", ["q"], 9, lease=LONG)) == [third.id]
        await bench.advance(0.5)
        [again] = await bench.take(1)
        assert (again.token.id, again.record.attempt, again.record.due) == (first.id, 2, record.due)

    async def test_a_shuffled_line(self, bench: Bench) -> None:
        """Many jobs of all priorities and due times, taken a few at a time, come in the order of the law."""
        dice = random.Random(1)
        jobs = await bench.submit(
            *(
                make_job(priority=dice.randrange(11), delay=bench.unit * dice.choice([0, 0.25, 0.5, 1]), queue=dice.choice("abc"))
                for _ in range(120)
            )
        )
        await bench.advance(1)
        got: list[Claim] = []
        while len(got) < len(jobs):
            got += await bench.take(min(dice.randrange(1, 20), len(jobs) - len(got)), ["a", "b", "c"])
        order = {job.id: (-job.priority, job.delay, number) for number, job in enumerate(jobs)}
        assert ids(got) == sorted(order, key=order.__getitem__)


class Clock(Group):
    """The law *the engine's clock*: it decides what is due, whose lease has ended, and what has expired, to the point."""

    async def test_created_and_due(self, bench: Bench) -> None:
        """A record is created now, and due ``delay`` seconds from now."""
        before = await bench.now()
        [job] = await bench.add(delay=60.0)
        after = await bench.now()
        record = await bench.record(job.id)
        assert before <= record.created <= after
        assert record.due == near(record.created + 60.0)
        assert (record.state, record.started, record.node) == (ResultState.PENDING, None, None)

    async def test_all_engines_have_one_clock(self, bench: Bench) -> None:
        """What one engine object delays, another sees due at the same moment."""
        other = await bench.another()
        [job] = await bench.add(delay=bench.unit)
        assert await other.claim("node", ["q"], 1, lease=LONG) == []
        await bench.advance(1)
        assert ids(await bench.take(1, engine=other)) == [job.id]

    async def test_due(self, bench: Bench) -> None:
        """Not before its time, and from that moment on."""
        [job] = await bench.add(delay=bench.unit)
        await bench.advance(0.5)
        assert await bench.engine.claim("node", ["q"], 1, lease=LONG) == []
        assert await bench.engine.claim("node", ["q"], 1, lease=LONG, ids=[job.id]) == []
        await bench.advance(0.5)
        [claim] = await bench.take(1)
        assert claim.record.due == near(claim.record.created + bench.unit)

    async def test_lease(self, bench: Bench) -> None:
        """A lease holds until its end, and is over from that moment on."""
        claim = await bench.start(lease=bench.unit)
        await bench.advance(0.5)
        assert (await bench.engine.sweep()).recovered == 0
        await bench.advance(0.5)
        assert (await bench.engine.sweep()).recovered == 1
        assert await bench.engine.extend([claim.token], LONG) == set()

    async def test_expiry(self, bench: Bench) -> None:
        """A record lives until it expires, and reads as absent from that moment on, before any sweep."""
        claim = await bench.start()
        record = await bench.settle(succeeded(claim.token, b"1", ttl=bench.unit))
        await bench.advance(0.5)
        assert (await bench.picture(record.id))[1] == b"1"
        await bench.advance(0.5)
        assert await bench.picture(record.id) == (None, None)

    async def test_a_step_before_each_end(self, bench: Bench) -> None:
        """With a clock that can be moved: a thousandth before the moment, nothing has happened yet."""
        if not bench.harness.fake_clock:
            return
        early, leased, brief = make_job(delay=bench.unit), await bench.start(lease=bench.unit, queue="a"), await bench.start(queue="b")
        await bench.submit(early)
        await bench.settle(succeeded(brief.token, b"1", ttl=bench.unit))
        await bench.advance(1 - 1 / 1024)
        assert await bench.engine.claim("node", ["q"], 1, lease=LONG) == []
        assert await bench.engine.sweep() == Swept(0, 0, more=False)
        assert await bench.engine.value(brief.token.id) == b"1"
        await bench.advance(1 / 1024)
        assert ids(await bench.take(1)) == [early.id]
        assert await bench.engine.sweep() == Swept(1, 1, more=False)
        assert await bench.engine.extend([leased.token], LONG) == set()
