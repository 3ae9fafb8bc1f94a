"""Latest moments: a job that waits past its own ends REVOKED at the next sweep, with all below it."""

# ruff: noqa: S101
from __future__ import annotations

from uuid import UUID

from mognet.outcomes import paused, retry, succeeded
from mognet.records import Swept
from mognet.states import ResultState
from mognet.testing.conformance.bench import LONG, QUEUE, Bench, Group, make_job, near


class Deadlines(Group):
    """``Job.latest``, and what a sweep does about it."""

    async def states(self, bench: Bench, *ids: UUID) -> list[ResultState]:
        """The states of jobs."""
        return [(await bench.record(id)).state for id in ids]

    async def test_what_waits_too_long_is_revoked(self, bench: Bench) -> None:
        """In line, due later or carried by a broker: past its moment it ends, and nobody gets it; before, it is like any other."""
        latest = await bench.now() + bench.unit
        lined, delayed, carried = make_job(latest=latest, ttl=60.0), make_job(latest=latest, delay=LONG), make_job(latest=latest)
        other = make_job(latest=latest + LONG)
        await bench.submit(lined, delayed, other)
        await bench.engine.submit([carried], enqueue=False)
        assert await bench.engine.sweep() == Swept()
        await bench.advance(1.5)
        swept = await bench.engine.sweep()
        assert (swept.late, swept.recovered, swept.more) == (3, 0, False)
        late = [lined.id, delayed.id, carried.id]
        assert await self.states(bench, *late, other.id) == [ResultState.REVOKED] * 3 + [ResultState.PENDING]
        record = await bench.record(lined.id)
        assert record.finished is not None
        assert record.expires == near(record.finished + 60.0)
        assert (record.starts, record.stops) == (0, 0)
        assert await bench.engine.claim("n", [QUEUE], 9, lease=LONG, ids=late) == []
        assert [claim.token.id for claim in await bench.engine.claim("n", [QUEUE], 9, lease=LONG)] == [other.id]
        assert (await bench.engine.sweep()).late == 0

    async def test_a_worker_is_left_to_see_to_it_itself(self, bench: Bench) -> None:
        """While somebody holds the job a sweep does not touch it; once it waits again, it does."""
        latest = await bench.now() + bench.unit
        jobs = [make_job(latest=latest) for _ in range(4)]
        await bench.submit(*jobs)
        held, paused_one, retried, done = await bench.take(4)
        await bench.engine.settle([paused(paused_one.token, LONG), retry(retried.token, LONG), succeeded(done.token, b"1")])
        await bench.advance(1.5)
        assert (await bench.engine.sweep()).late == 2
        states = await self.states(bench, *(claim.token.id for claim in (held, paused_one, retried, done)))
        assert states == [ResultState.RUNNING, ResultState.REVOKED, ResultState.REVOKED, ResultState.SUCCESS]
        assert (await bench.settle(succeeded(held.token, b"1"))).state is ResultState.SUCCESS

    async def test_the_jobs_below_go_along(self, bench: Bench) -> None:
        """All unfinished descendants end too, held or not, and lose their tokens; a later child is born REVOKED."""
        top = make_job(latest=await bench.now() + bench.unit, ttl=60.0)
        await bench.submit(top)
        [first] = await bench.take(1)
        child = make_job(parent=top.id, root=top.id, parent_token=first.token)
        await bench.submit(child)
        await bench.engine.settle([paused(first.token, LONG)])
        [running] = await bench.take(1)
        await bench.advance(1.5)
        assert (await bench.engine.sweep()).late == 1
        assert await self.states(bench, top.id, child.id) == [ResultState.REVOKED] * 2
        assert await bench.engine.settle([succeeded(running.token, b"1")]) == [None]
        heir = make_job(parent=top.id, root=top.id)
        assert await bench.engine.submit([heir]) == [False]
        assert await self.states(bench, heir.id) == [ResultState.REVOKED]
