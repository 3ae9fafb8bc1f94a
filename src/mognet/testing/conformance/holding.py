"""One holder: between a claim and its lease's end nobody else gets the job; after it, a sweep gives it to others."""

# ruff: noqa: S101
from __future__ import annotations

import asyncio
from collections import Counter
from uuid import UUID, uuid4

from mognet.engine import Engine
from mognet.outcomes import succeeded, suspend
from mognet.records import Claim, Query
from mognet.states import ResultState
from mognet.testing.conformance.bench import LONG, Bench, Group, make_job, near, plain


class OneHolder(Group):
    """The law *one holder*, and what a claim is."""

    async def test_claim(self, bench: Bench) -> None:
        """A claimed job is RUNNING with a token, one start more, its node and its first start's time; the claim is the record."""
        [job] = await bench.add(metadata=b'{"a":1}', priority=3, label="f(1)", body=b'{"v":1,"args":[1]}')
        before = await bench.now()
        [claim] = await bench.take(1, node="here")
        after = await bench.now()
        record = claim.record
        assert claim.body == job.body
        assert claim.token[:2] == (job.id, 1)
        assert (record.id, record.name, record.queue, record.priority, record.label) == (job.id, "work", "q", 3, "f(1)")
        assert (record.state, record.starts, record.stops, record.attempt, record.node) == (ResultState.RUNNING, 1, 0, 1, "here")
        assert record.started is not None
        assert before <= record.started <= after
        assert (record.finished, record.expires, record.ttl) == (None, None, None)
        assert plain(await bench.record(job.id)) == plain(record)

    async def test_started_is_set_the_first_time(self, bench: Bench) -> None:
        """A later claim changes ``node`` and ``starts``, and leaves ``started``."""
        ghost, heir = await bench.stolen()
        assert heir.record.started == ghost.record.started
        assert (heir.record.node, heir.record.starts, heir.token.start) == ("heir", 2, 2)
        assert heir.token.holder != ghost.token.holder

    async def test_concurrent_claims_get_different_jobs(self, bench: Bench) -> None:
        """Many claimers on several engine objects get each job exactly once."""
        engines = [bench.engine, await bench.another(), await bench.another()]
        jobs = await bench.add(150)
        got: list[Claim] = []

        async def claimer(number: int, engine: Engine) -> None:
            while claims := await engine.claim(f"node{number}", ["q"], 1 + number % 5, lease=LONG):
                got.extend(claims)
                await asyncio.sleep(0)

        await bench.soon(asyncio.gather(*(claimer(i, engines[i % 3]) for i in range(12))))
        if missing := len(jobs) - len(got):  # a claim may come back empty while the last jobs are on their way to others
            got += await bench.take(missing)
        assert Counter(claim.token.id for claim in got) == Counter(job.id for job in jobs)
        assert len({claim.token.holder for claim in got}) == len(jobs)
        assert {claim.record.starts for claim in got} == {1}
        assert await bench.drain() == []

    async def test_concurrent_waiters_get_different_jobs(self, bench: Bench) -> None:
        """Those who wait when jobs come in share them: none is given twice, none is kept back."""
        engines = [bench.engine, await bench.another()]
        waiting = [asyncio.create_task(engine.claim("node", ["q"], 1, lease=LONG, wait=LONG)) for engine in engines * 5]
        await asyncio.sleep(0.01)
        jobs = await bench.add(10)
        got = await bench.soon(asyncio.gather(*waiting))
        assert sorted(claim.token.id for claims in got for claim in claims) == sorted(job.id for job in jobs)

    async def test_nobody_else_gets_it_before_the_lease_ends(self, bench: Bench) -> None:
        """Neither a sweep nor a claim takes a job whose lease has not ended."""
        claim = await bench.start(lease=bench.unit * 2)
        await bench.advance(1)
        assert (await bench.engine.sweep()).recovered == 0
        assert await bench.engine.claim("other", ["q"], 1, lease=LONG) == []
        await bench.settle(succeeded(claim.token, b"1"))

    async def test_after_the_lease_another_gets_it(self, bench: Bench) -> None:
        """When the lease has ended, a sweep puts the job back in line, PENDING, and another engine's worker gets it."""
        other = await bench.another()
        claim = await bench.start(lease=bench.unit)
        await bench.advance(1)
        assert (await other.sweep()).recovered == 1
        record = await bench.record(claim.token.id)
        assert (record.state, record.starts, record.stops, record.due) == (ResultState.PENDING, 1, 0, claim.record.due)
        [heir] = await bench.take(1, engine=other)
        assert heir.token.id == claim.token.id
        assert heir.body == claim.body

    async def test_extend_postpones_the_end(self, bench: Bench) -> None:
        """A lease that was extended ends so many seconds from the extend."""
        claim = await bench.start(lease=bench.unit * 2)
        await bench.advance(1)
        assert await bench.engine.extend([claim.token], bench.unit * 3) == {claim.token}
        await bench.advance(1.5)
        assert (await bench.engine.sweep()).recovered == 0
        await bench.advance(1.5)
        assert (await bench.engine.sweep()).recovered == 1

    async def test_extend_may_shorten(self, bench: Bench) -> None:
        """The lease ends when the last extend says, also if that is earlier."""
        claim = await bench.start()
        await bench.engine.extend([claim.token], bench.unit)
        await bench.advance(1)
        assert (await bench.engine.sweep()).recovered == 1

    async def test_extend_after_the_end(self, bench: Bench) -> None:
        """A lease that has ended is extended all the same while nobody else got the job; it can be settled, too."""
        first, second = await bench.start(lease=bench.unit, queue="a"), await bench.start(lease=bench.unit, queue="b")
        await bench.advance(2)
        assert await bench.engine.extend([first.token], LONG) == {first.token}
        await bench.settle(succeeded(second.token, b"2"))
        assert (await bench.engine.sweep()).recovered == 0
        await bench.settle(succeeded(first.token, b"1"))

    async def test_extend_many(self, bench: Bench) -> None:
        """One extend serves many tokens, and leaves out those that lost their job."""
        await bench.add(20)
        claims = await bench.take(20)
        await bench.engine.settle([succeeded(claim.token, b"1") for claim in claims[::2]])
        assert await bench.engine.extend([claim.token for claim in claims], LONG) == {claim.token for claim in claims[1::2]}

    async def test_suspended_keeps_its_lease(self, bench: Bench) -> None:
        """An attempt that waits for its children is not in line, can be extended, and is recovered when its lease ends."""
        claim = await bench.start()
        await bench.engine.update(claim.token.id, suspend(claim.token))
        assert await bench.engine.claim("other", ["q"], 1, lease=LONG) == []
        assert await bench.engine.extend([claim.token], bench.unit) == {claim.token}
        assert (await bench.record(claim.token.id)).state is ResultState.SUSPENDED
        await bench.advance(1)
        assert (await bench.engine.sweep()).recovered == 1
        assert (await bench.take(1))[0].token.id == claim.token.id

    async def test_concurrent_sweeps_recover_once(self, bench: Bench) -> None:
        """Sweeps of several engines at once put each lost job back in line exactly once."""
        other = await bench.another()
        jobs = await bench.add(30)
        await bench.take(30, lease=bench.unit)
        await bench.advance(1)
        swept = await asyncio.gather(*(engine.sweep() for engine in (bench.engine, other) * 3))
        assert sum(each.recovered for each in swept) == 30
        assert sorted(await bench.drain()) == sorted(job.id for job in jobs)

    async def test_claim_takes_only_its_queues(self, bench: Bench) -> None:
        """Jobs of other queues stay where they are; no queue, no job."""
        [a], [b], [_] = await bench.add(queue="a"), await bench.add(queue="b"), await bench.add(queue="ab")
        assert await bench.engine.claim("node", ["c"], 5, lease=LONG) == []
        assert await bench.engine.claim("node", [], 5, lease=LONG) == []
        claims = await bench.take(2, ["a", "b"])
        assert {claim.token.id for claim in claims} == {a.id, b.id}
        assert await bench.engine.claim("node", ["a", "b"], 5, lease=LONG) == []

    async def test_claim_takes_at_most_the_limit(self, bench: Bench) -> None:
        """Never more than ``limit``, over all queues together."""
        for queue in ("a", "b"):
            await bench.add(5, queue=queue)
        assert await bench.engine.claim("node", ["a", "b"], 0, lease=LONG) == []
        assert len(await bench.engine.claim("node", ["a", "b"], 7, lease=LONG)) <= 7
        assert (await bench.engine.count(Query(states=frozenset({ResultState.PENDING}))))["PENDING"] >= 3

    async def test_claim_by_ids(self, bench: Bench) -> None:
        """``ids`` narrows the choice: still due, in these queues, in line, best first, at most ``limit``, each once."""
        jobs = await bench.submit(*(make_job(priority=i) for i in range(4)))
        late, elsewhere, running = make_job(delay=LONG), make_job(queue="other"), await bench.start(queue="run")
        await bench.submit(late, elsewhere)
        ids: list[UUID] = [job.id for job in jobs[:3]]
        ids = [*ids, ids[0], late.id, elsewhere.id, running.token.id, uuid4()]
        claims = await bench.engine.claim("node", ["q", "run"], 2, lease=LONG, ids=ids)
        assert [claim.token.id for claim in claims] == [jobs[2].id, jobs[1].id]
        claims = await bench.engine.claim("node", ["q", "run"], 9, lease=LONG, ids=ids)
        assert [claim.token.id for claim in claims] == [jobs[0].id]
        assert await bench.engine.claim("node", ["q"], 9, lease=LONG, ids=[]) == []
        assert await bench.drain() == [jobs[3].id]

    async def test_not_put_in_line(self, bench: Bench) -> None:
        """``enqueue=False`` stores the record, PENDING, and no claim of a queue gives the job."""
        job = make_job()
        assert await bench.engine.submit([job], enqueue=False) == [True]
        record = await bench.record(job.id)
        assert (record.state, record.due) == (ResultState.PENDING, near(record.created))
        assert await bench.engine.claim("node", ["q"], 1, lease=LONG) == []
        assert await bench.engine.submit([job]) == [False]
