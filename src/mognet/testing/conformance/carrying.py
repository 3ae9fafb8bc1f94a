"""What a broker carries: jobs that are PENDING but not in line, until it brings their ids or a sweep gives up on it."""

# ruff: noqa: S101
from __future__ import annotations

from mognet.outcomes import merge_metadata, retry, revoke, suspend
from mognet.records import Query, Record, Swept
from mognet.states import ResultState
from mognet.testing.conformance.bench import LONG, QUEUE, Bench, Group, make_job

PENDING = frozenset({ResultState.PENDING})


class Carrying(Group):
    """``enqueue=False``, ``claim(ids=…)``, ``sweep(grace=…)`` and ``Query.in_line``."""

    async def carried(self, bench: Bench, number: int = 1) -> list[Record]:
        """Jobs that a broker carries."""
        jobs = [make_job() for _ in range(number)]
        assert await bench.engine.submit(jobs, enqueue=False) == [True] * number
        return [await bench.record(job.id) for job in jobs]

    async def in_line(self, bench: Bench) -> list[Record]:
        """What waits in the engine's own line."""
        return [record async for record in bench.engine.search(Query(in_line=True))]

    async def test_only_their_ids_find_them(self, bench: Bench) -> None:
        """Such a job is PENDING; a claim by queue passes it by, one by id gets it, once, and only from its queue."""
        [job] = await self.carried(bench)
        assert job.state is ResultState.PENDING
        assert await self.in_line(bench) == []
        assert await bench.engine.claim("n", [QUEUE], 5, lease=LONG) == []
        assert await bench.engine.claim("n", ["other"], 5, lease=LONG, ids=[job.id]) == []
        [claim] = await bench.engine.claim("n", [QUEUE], 5, lease=LONG, ids=[job.id])
        assert (claim.token.id, claim.record.starts) == (job.id, 1)
        assert await bench.engine.claim("n", [QUEUE], 5, lease=LONG, ids=[job.id]) == []

    async def test_ids_narrow_the_choice_best_first(self, bench: Bench) -> None:
        """Jobs in line and carried ones are claimed by id together, by priority, up to the limit."""
        low, high = make_job(priority=1), make_job(priority=9)
        await bench.engine.submit([low, high], enqueue=False)
        [middle] = await bench.add(priority=5)
        claims = await bench.engine.claim("n", [QUEUE], 2, lease=LONG, ids=[low.id, middle.id, high.id])
        assert [claim.token.id for claim in claims] == [high.id, middle.id]

    async def test_a_delayed_job_goes_in_line_all_the_same(self, bench: Bench) -> None:
        """The broker is not asked to wait: what is due later is found by queue when its time has come."""
        job = make_job(delay=bench.unit)
        assert await bench.engine.submit([job], enqueue=False) == [True]
        assert [record.id for record in await self.in_line(bench)] == [job.id]
        await bench.advance(1.5)
        [claim] = await bench.take(1)
        assert claim.token.id == job.id

    async def test_after_its_first_claim_it_is_like_any_other(self, bench: Bench) -> None:
        """A retry puts it in the engine's own line."""
        [job] = await self.carried(bench)
        [claim] = await bench.engine.claim("n", [QUEUE], 1, lease=LONG, ids=[job.id])
        await bench.engine.settle([retry(claim.token, 0)])
        assert [record.id for record in await self.in_line(bench)] == [job.id]
        assert [again.token.start for again in await bench.take(1)] == [2]

    async def test_a_sweep_gives_up_on_the_broker_after_the_grace(self, bench: Bench) -> None:
        """Only what was due ``grace`` seconds ago goes in line, at most ``limit`` at once, in its old order."""
        jobs = await self.carried(bench, 3)
        assert await bench.engine.sweep(grace=LONG) == Swept()
        await bench.advance(1)
        first = await bench.engine.sweep(grace=bench.unit / 2, limit=2)
        assert (first.carried, first.recovered, first.more) == (2, 0, True)
        second = await bench.engine.sweep(grace=bench.unit / 2, limit=2)
        assert (second.carried, second.more) == (1, False)
        assert [claim.token.id for claim in await bench.take(3)] == [job.id for job in jobs]
        assert (await bench.engine.sweep(grace=0)).carried == 0

    async def test_revoked_and_deleted_ones_are_not_brought_back(self, bench: Bench) -> None:
        """The broker's ticket for such a job, or a sweep, finds nothing."""
        revoked, deleted, labelled = await self.carried(bench, 3)
        await bench.engine.update(revoked.id, revoke())
        await bench.engine.delete([deleted.id])
        await bench.engine.update(labelled.id, merge_metadata(b'{"a":1}'))
        ids = [revoked.id, deleted.id, labelled.id]
        await bench.advance(1)
        assert (await bench.engine.sweep(grace=0)).carried == 1
        assert [claim.token.id for claim in await bench.engine.claim("n", [QUEUE], 5, lease=LONG, ids=ids)] == [labelled.id]

    async def test_in_line_is_what_waits_and_nobody_holds(self, bench: Bench) -> None:
        """Neither carried nor running jobs, nor those whose worker waits for their children."""
        if not bench.harness.own_line:
            return
        await self.carried(bench)
        await bench.add(2)
        waiting, _running = await bench.take(2)
        await bench.engine.update(waiting.token.id, suspend(waiting.token))
        [lined] = await bench.add(1)
        assert [record.id for record in await self.in_line(bench)] == [lined.id]
        assert await bench.engine.count(Query(in_line=True)) == {"PENDING": 1}
        assert await bench.engine.count(Query(states=PENDING)) == {"PENDING": 2}
