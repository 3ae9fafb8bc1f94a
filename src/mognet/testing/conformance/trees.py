"""Trees of jobs: one revoke reaches them all, and nothing grows under a revoked parent."""

# ruff: noqa: S101
from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

from mognet.outcomes import merge_metadata, revoke, succeeded, suspend
from mognet.records import Job, Query
from mognet.states import FINAL, ResultState
from mognet.testing.conformance.bench import LONG, Bench, Group, make_job, near, plain

REVOKED = ResultState.REVOKED


class Trees(Group):
    """Revoking, tombstones, and being born revoked."""

    async def states(self, bench: Bench, *ids: UUID) -> list[ResultState]:
        """Where these jobs stand."""
        return [record.state for record in await bench.find(*ids)]

    async def test_revoke_a_waiting_job(self, bench: Bench) -> None:
        """It is out of line for good, and counts neither a start nor a stop."""
        [job], [late] = await bench.add(), await bench.add(delay=bench.unit)
        for each in (job, late):
            before = await bench.now()
            record = await bench.engine.update(each.id, revoke())
            assert record is not None
            assert (record.state, record.starts, record.stops, record.started, record.node) == (REVOKED, 0, 0, None, None)
            assert record.finished is not None
            assert before <= record.finished <= await bench.now()
        await bench.advance(1)
        assert await bench.drain() == []
        assert await bench.engine.claim("node", ["q"], 9, lease=LONG, ids=[job.id, late.id]) == []

    async def test_revoke_a_running_job(self, bench: Bench) -> None:
        """Its token is spent, its attempt counted as stopped, its notes gone; a sweep never brings it back."""
        claim = await bench.start(lease=bench.unit)
        await bench.engine.save(claim.token, {"note": b"1"})
        record = await bench.engine.update(claim.token.id, revoke())
        assert record is not None
        assert (record.state, record.starts, record.stops, record.crashes, record.node) == (REVOKED, 1, 1, 0, "node")
        assert await bench.engine.extend([claim.token], LONG) == set()
        assert await bench.engine.load(claim.token) == {}
        await bench.advance(1)
        assert (await bench.engine.sweep()).recovered == 0
        assert await bench.drain() == []

    async def test_revoke_a_job_that_waits_for_its_children(self, bench: Bench) -> None:
        """Its stop has been counted already."""
        claim = await bench.start()
        await bench.engine.update(claim.token.id, suspend(claim.token))
        record = await bench.engine.update(claim.token.id, revoke())
        assert record is not None
        assert (record.state, record.starts, record.stops) == (REVOKED, 1, 1)

    async def test_a_deep_chain(self, bench: Bench) -> None:
        """Two hundred generations end in one step."""
        jobs = [make_job()]
        for _ in range(199):
            jobs.append(make_job(parent=jobs[-1].id, root=jobs[0].id))
        await bench.submit(*jobs)
        await bench.engine.update(jobs[0].id, revoke())
        assert await self.states(bench, *(job.id for job in jobs)) == [REVOKED] * 200
        assert await bench.drain() == []

    async def test_a_wide_tree(self, bench: Bench) -> None:
        """Two thousand children end in one step; jobs beside the tree do not."""
        top = make_job()
        children = [make_job(parent=top.id, root=top.id) for _ in range(2000)]
        beside = make_job(parent=uuid4())
        await bench.submit(top, *children, beside)
        await bench.engine.update(top.id, revoke())
        assert await bench.engine.count(Query(root=top.id)) == {"REVOKED": 2001}
        assert await bench.drain() == [beside.id]

    async def family(self, bench: Bench) -> dict[str, Job]:
        """Top (running), a (finished) with a1 (waiting) and a2 (running), b (waiting) with b1 (delayed), c (failed)."""
        top = (await bench.start(queue="top")).record
        jobs = {"top": make_job(id=top.id)}

        def child(name: str, parent: str, **fields: object) -> Job:
            jobs[name] = make_job(parent=jobs[parent].id, root=top.id, queue=name, **fields)
            return jobs[name]

        await bench.submit(
            child("a", "top"), child("b", "top"), child("a1", "a"), child("a2", "a"), child("b1", "b", delay=LONG), child("c", "b")
        )
        for claim in await bench.take(2, ["a", "c"]):
            await bench.settle(succeeded(claim.token, b"1"))
        await bench.take(1, ["a2"])
        return jobs

    async def test_through_finished_jobs(self, bench: Bench) -> None:
        """Unfinished descendants of finished descendants end too; the finished stay as they are."""
        jobs = await self.family(bench)
        finished = [await bench.picture(jobs[name].id) for name in ("a", "c")]
        await bench.engine.update(jobs["top"].id, revoke())
        assert await self.states(bench, *(jobs[name].id for name in ("top", "a1", "a2", "b", "b1"))) == [REVOKED] * 5
        assert [await bench.picture(jobs[name].id) for name in ("a", "c")] == finished

    async def test_no_further_than_the_records(self, bench: Bench) -> None:
        """A job that was deleted, or has expired, leads to no descendants, whether a sweep has come by or not."""
        top = await bench.start(queue="top")
        [expired] = await bench.add(parent=top.token.id, queue="c")
        [deleted] = await bench.add(parent=top.token.id, queue="x")
        below = await bench.submit(make_job(parent=expired.id), make_job(parent=deleted.id))
        [claim] = await bench.take(1, ["c"])
        await bench.settle(succeeded(claim.token, b"1", ttl=bench.unit))
        await bench.engine.delete([deleted.id])
        await bench.advance(1)
        await bench.engine.update(top.token.id, revoke())
        assert await bench.drain() == [job.id for job in below]

    async def test_a_family_in_a_circle(self, bench: Bench) -> None:
        """Ids that are used again may make a job its own ancestor: a revoke ends all the same, and ends them all."""
        jobs = [make_job() for _ in range(3)]
        jobs = [job._replace(parent=jobs[number - 1].id) for number, job in enumerate(jobs)]
        own = make_job()
        await bench.submit(*jobs, own._replace(parent=own.id))
        await bench.engine.update(jobs[1].id, revoke())
        await bench.engine.update(own.id, revoke())
        assert await self.states(bench, *(job.id for job in jobs), own.id) == [REVOKED] * 4

    async def test_only_below(self, bench: Bench) -> None:
        """Neither parent nor siblings of a revoked job are touched."""
        jobs = await self.family(bench)
        rest = [jobs[name].id for name in ("top", "a", "a1", "a2", "c")]
        before = [await bench.picture(id) for id in rest]
        await bench.engine.update(jobs["b"].id, revoke())
        assert [await bench.picture(id) for id in rest] == before
        assert await self.states(bench, jobs["b"].id, jobs["b1"].id) == [REVOKED] * 2

    async def test_a_finished_job(self, bench: Bench) -> None:
        """Revoking a finished job changes nothing, unless nothing is excepted: then its unfinished descendants end."""
        jobs = await self.family(bench)
        everyone = [job.id for job in jobs.values()]
        before = [await bench.picture(id) for id in everyone]
        record = await bench.engine.update(jobs["a"].id, revoke())
        assert record is not None
        assert plain(record) == before[everyone.index(jobs["a"].id)][0]
        assert [await bench.picture(id) for id in everyone] == before
        record = await bench.engine.update(jobs["a"].id, revoke(), unless=())
        assert record is not None
        assert plain(record) == before[everyone.index(jobs["a"].id)][0]
        assert await self.states(bench, jobs["a1"].id, jobs["a2"].id) == [REVOKED] * 2
        assert await self.states(bench, jobs["top"].id, jobs["b"].id) == [ResultState.RUNNING, ResultState.PENDING]

    async def test_labels_stay_on_the_job_itself(self, bench: Bench) -> None:
        """A change that says nothing of descendants changes one record."""
        jobs = await self.family(bench)
        await bench.engine.update(jobs["top"].id, merge_metadata(b'{"a":1}'))
        assert [record.id for record in await bench.search(Query()) if record.metadata != b"{}"] == [jobs["top"].id]

    async def test_born_revoked(self, bench: Bench) -> None:
        """A child of a revoked parent is stored, REVOKED; it answers False, is never in line, and lives as long as it says."""
        [top] = await bench.add(queue="top")
        await bench.engine.update(top.id, revoke())
        child = make_job(parent=top.id, root=top.id, metadata=b'{"a":1}', label="f()", ttl=60.0, delay=5.0, priority=9)
        before = await bench.now()
        assert await bench.engine.submit([child]) == [False]
        record = await bench.record(child.id)
        assert (record.state, record.name, record.queue, record.priority, record.label) == (REVOKED, "work", "q", 9, "f()")
        assert (record.parent, record.root, record.starts, record.stops, record.started) == (top.id, top.id, 0, 0, None)
        assert record.finished is not None
        assert before <= record.finished <= await bench.now()
        assert record.expires == near(record.finished + 60.0)
        assert await bench.engine.value(child.id) is None
        assert await bench.drain() == []
        grandchild = make_job(parent=child.id, root=top.id)
        assert await bench.engine.submit([grandchild, child]) == [False, False]
        assert await self.states(bench, grandchild.id) == [REVOKED]
        assert await bench.drain() == []

    async def test_born_under_a_parent_that_ended_otherwise(self, bench: Bench) -> None:
        """Any other end of the parent, or a parent that nobody knows, is no hindrance."""
        for state in sorted(FINAL - {REVOKED}):
            parent = await bench.ended(state)
            await bench.add(parent=parent.id, queue="c")
        await bench.add(parent=uuid4(), queue="c")
        assert len(await bench.drain("c")) == 4

    async def test_born_revoked_in_the_batch_of_its_parent(self, bench: Bench) -> None:
        """Within one batch the jobs are stored in their order: a child sees its parent, and a family comes as a whole."""
        gone = uuid4()
        await bench.engine.update(gone, revoke())
        parent = make_job(parent=gone)
        child, free = make_job(parent=parent.id), make_job()
        assert await bench.engine.submit([parent, child, free]) == [False, False, True]
        assert await self.states(bench, parent.id, child.id) == [REVOKED] * 2
        assert await bench.drain() == [free.id]

    async def test_a_tombstone(self, bench: Bench) -> None:
        """Revoking an unknown id leaves a record in that state, which keeps a later submit from changing anything."""
        id = uuid4()
        before = await bench.now()
        record = await bench.engine.update(id, revoke(ttl=60.0))
        assert record is not None
        assert (record.id, record.name, record.state, record.starts, record.stops) == (id, None, REVOKED, 0, 0)
        assert record.finished is not None
        assert before <= record.created <= record.finished <= await bench.now()
        assert record.expires == near(record.finished + 60.0)
        assert (await bench.picture(id))[0] == plain(record)
        assert await bench.engine.submit([make_job(id=id)]) == [False]
        assert await bench.engine.update(id, revoke()) == record
        assert (await bench.picture(id))[0] == plain(record)
        assert [found.id for found in await bench.search(Query(states=frozenset({REVOKED})))] == [id]
        assert await bench.drain() == []
        child = make_job(parent=id)
        assert await bench.engine.submit([child]) == [False]
        assert await self.states(bench, child.id) == [REVOKED]

    async def test_a_tombstone_in_its_time(self, bench: Bench) -> None:
        """When the tombstone has expired, the id is free again."""
        id = uuid4()
        await bench.engine.update(id, revoke(ttl=bench.unit))
        await bench.advance(1)
        assert await bench.engine.get([id]) == [None]
        await bench.submit(make_job(id=id))
        assert await bench.drain() == [id]

    async def test_no_record_no_change(self, bench: Bench) -> None:
        """Only a change that asks for a tombstone leaves one."""
        id = uuid4()
        assert await bench.engine.update(id, merge_metadata(b'{"a":1}')) is None
        assert await bench.engine.update(id, revoke()._replace(tombstone=False)) is None
        assert await bench.engine.get([id]) == [None]

    async def test_how_long_the_revoked_live(self, bench: Bench) -> None:
        """A revoke's lifetime holds for all that it ends."""
        jobs = await self.family(bench)
        await bench.engine.update(jobs["top"].id, revoke(ttl=60.0))
        for name in ("top", "a1", "a2", "b", "b1"):
            record = await bench.record(jobs[name].id)
            assert record.finished is not None
            assert record.expires == near(record.finished + 60.0)
        for name in ("a", "c"):
            assert (await bench.record(jobs[name].id)).expires is None

    async def test_revoke_against_children(self, bench: Bench) -> None:
        """Children submitted while their parent is revoked are all revoked: with it, or at their birth."""
        other = await bench.another()
        for number in range(8):
            top = (await bench.start(queue="top")).token
            batches = [[make_job(parent=top.id, root=top.id) for _ in range(3)] for _ in range(6)]
            revoking = bench.engine.update(top.id, revoke())
            submits = [other.submit(batch) for batch in batches]
            await asyncio.gather(*submits[:number], revoking, *submits[number:])
            records = await bench.find(*(job.id for batch in batches for job in batch))
            assert {record.state for record in records} == {REVOKED}
            assert await bench.drain() == []
