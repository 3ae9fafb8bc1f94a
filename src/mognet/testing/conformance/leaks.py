"""Nothing leaks: after a delete, an expiry, or a final state, no trace is left of what is gone.

Every test of the suite ends with a look for traces; those here look earlier, or go where traces are likely.
"""

# ruff: noqa: S101
from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

from mognet.engine import DONE
from mognet.outcomes import merge_metadata, paused, released, retry, revoke, set_ttl, succeeded, suspend
from mognet.records import Query
from mognet.states import FINAL, ResultState
from mognet.testing.conformance.bench import ENDS, LONG, Bench, Group, make_job


class NothingLeaks(Group):
    """The law *nothing leaks*."""

    async def traces(self, bench: Bench) -> Mapping[str, int]:
        """What the store holds now."""
        return {place: number for place, number in (await bench.harness.leftovers()).items() if number}

    async def test_delete_in_every_state(self, bench: Bench) -> None:
        """Record, value, notes, place in line and lease go with a delete, in whatever state; it counts those that were there."""
        top = await bench.start(metadata=b'{"a":1}')
        await bench.engine.save(top.token, {"note": b"1"})
        claims = [await bench.start(parent=top.token.id, root=top.token.id) for _ in range(5)]
        for claim in claims:
            await bench.engine.save(claim.token, {"note": b"1"}, ttl=LONG)
        await bench.engine.update(claims[0].token.id, suspend(claims[0].token))
        await bench.engine.settle([retry(claims[1].token, LONG), paused(claims[2].token, LONG), released(claims[3].token)])
        ended = [await bench.ended(state, queue="other") for state in FINAL]
        limited = [await bench.settle(ENDS[s]((await bench.start(queue="l")).token, b"1", ttl=LONG, value_ttl=LONG)) for s in FINAL]
        jobs = [*await bench.add(3), *await bench.add(3, delay=LONG, queue="later")]
        await bench.engine.update(jobs[0].id, revoke(ttl=LONG))
        await bench.engine.update(jobs[1].id, set_ttl(LONG))
        ids = [top.token.id, *(c.token.id for c in claims), *(r.id for r in ended + limited), *(job.id for job in jobs)]
        await bench.engine.submit([make_job()._replace(id=(stored := uuid4()))], enqueue=False)
        assert await bench.engine.delete([*ids, stored, uuid4()]) == len(ids) + 1
        assert await bench.engine.get(ids) == [None] * len(ids)
        assert await bench.search(Query()) == []
        assert await bench.drain("q", "other", "l", "later") == []
        assert await self.traces(bench) == {}

    async def test_delete_in_some_states(self, bench: Bench) -> None:
        """Only what is in one of these states at that moment; the rest is as if nothing had been asked."""
        running, [waiting], ended = await bench.start(), await bench.add(queue="w"), await bench.ended(ResultState.FAILURE, queue="e")
        ids = [running.token.id, waiting.id, ended.id]
        assert await bench.engine.delete(ids, states=[ResultState.PENDING, ResultState.SUCCESS]) == 1
        assert await bench.engine.get(ids) == [running.record, None, ended]
        assert await bench.engine.delete(ids, states=FINAL) == 1
        assert await bench.engine.extend([running.token], LONG) == {running.token}
        assert await bench.engine.delete(ids, states=[ResultState.PENDING]) == 0
        assert await bench.engine.delete(ids) == 1
        assert await self.traces(bench) == {}

    async def test_a_former_life(self, bench: Bench) -> None:
        """A deleted job's id may be submitted again, and starts from nothing."""
        claim = await bench.start(metadata=b'{"a":1}', label="l", parent=uuid4())
        await bench.engine.save(claim.token, {"note": b"1"})
        await bench.engine.update(claim.token.id, set_ttl(LONG))
        await bench.settle(retry(claim.token, 0.0))
        await bench.engine.delete([claim.token.id])
        await bench.submit(make_job(id=claim.token.id))
        [again] = await bench.take(1)
        record = again.record
        assert (record.starts, record.stops, record.attempt, record.label, record.parent, record.ttl) == (1, 0, 1, None, None, None)
        assert record.metadata == b"{}"
        assert await bench.engine.load(again.token) == {}

    async def test_notes_go_at_the_end(self, bench: Bench) -> None:
        """A job that ended with notes leaves what a job without notes leaves."""
        left: list[Mapping[str, int]] = []
        for notes in (0, 50):
            for end in ("settle", "revoke", "revoke waiting"):
                claim = await bench.start()
                await bench.engine.save(claim.token, {f"n{i}": b"1" for i in range(notes)}, ttl=None if end == "revoke" else LONG)
                if end == "settle":
                    await bench.settle(succeeded(claim.token, b"1"))
                else:
                    if end == "revoke waiting":
                        await bench.settle(released(claim.token))
                    await bench.engine.update(claim.token.id, revoke())
                left.append(await self.traces(bench))
                await bench.engine.delete([claim.token.id])
        assert left[:3] == left[3:]

    async def test_notes_that_were_deleted(self, bench: Bench) -> None:
        """A note set to None leaves nothing."""
        claim = await bench.start()
        before = await self.traces(bench)
        await bench.engine.save(claim.token, {"a": b"1", "b": b"2"})
        await bench.engine.save(claim.token, {"a": None, "b": None, "c": None})
        assert await self.traces(bench) == before

    async def test_expired_records(self, bench: Bench) -> None:
        """When all have expired, a sweep leaves an empty store: families, values, tombstones, those born revoked."""
        claim = await bench.start()
        await bench.engine.save(claim.token, {"note": b"1"})
        await bench.add(5, parent=claim.token.id, root=claim.token.id, queue="c")
        for child in await bench.take(4, ["c"]):
            await bench.settle(succeeded(child.token, b"1", ttl=bench.unit, value_ttl=bench.unit / 2))
        await bench.engine.update(claim.token.id, revoke(ttl=bench.unit))
        await bench.engine.update(uuid4(), revoke(ttl=bench.unit))
        await bench.engine.submit([make_job(parent=claim.token.id, ttl=bench.unit)])
        assert sum((await bench.engine.count(Query())).values()) == 8
        await bench.advance(1)
        while (await bench.engine.sweep(limit=3)).more:
            pass
        assert await self.traces(bench) == {}

    async def test_expired_notes(self, bench: Bench) -> None:
        """Notes whose time is over are swept, also those of a job that still waits."""
        claim = await bench.start()
        await bench.settle(paused(claim.token, LONG))
        before = await self.traces(bench)
        await bench.engine.delete([claim.token.id])
        claim = await bench.start()
        await bench.engine.save(claim.token, {"a": b"1", "b": b"2"}, ttl=bench.unit)
        await bench.settle(paused(claim.token, LONG))
        await bench.advance(1)
        await bench.engine.sweep()
        assert await self.traces(bench) == before

    async def test_the_order_of_deletes(self, bench: Bench) -> None:
        """Parents before children, or children before parents: nothing remembers the other."""
        for turn in (1, -1):
            jobs = [make_job()]
            for _ in range(10):
                jobs.append(make_job(parent=jobs[-1].id, root=jobs[0].id))
            await bench.submit(*jobs)
            for job in jobs[::turn]:
                assert await bench.engine.delete([job.id]) == 1
            assert await self.traces(bench) == {}

    async def test_much_coming_and_going(self, bench: Bench) -> None:
        """After a few hundred jobs on many queues, with signals, labels and notes, nothing is left."""
        async with bench.engine.subscribe(DONE, "other"):
            for number in range(20):
                queue = f"q{number}"
                await bench.add(10, queue=queue, priority=number % 11, delay=0 if number % 2 else bench.unit / 64)
                await bench.engine.publish("other", b"1")
            await bench.advance(1 / 32)
            for number in range(20):
                claims = await bench.take(10, [f"q{number}"])
                for claim in claims[:2]:
                    await bench.engine.save(claim.token, {"a": b"1"})
                    await bench.engine.update(claim.token.id, merge_metadata(b'{"a":1}', claim.token))
                await bench.engine.settle([retry(claim.token, LONG) for claim in claims[:5]])
                await bench.engine.settle([succeeded(claim.token, b"1", ttl=LONG) for claim in claims[5:]])
        assert await bench.engine.delete([record.id for record in await bench.search(Query())]) == 200
        assert await self.traces(bench) == {}

    async def test_what_is_refused_leaves_nothing(self, bench: Bench) -> None:
        """Jobs, changes and notes that were refused have not been stored anywhere."""
        ghost, heir = await bench.stolen()
        before = await self.traces(bench)
        await bench.engine.submit([make_job(parent=ghost.token.id, parent_token=ghost.token), make_job(id=ghost.token.id)])
        await bench.engine.save(ghost.token, {"a": b"1"})
        await bench.engine.settle([succeeded(ghost.token, b"1", ttl=60.0)])
        await bench.engine.update(uuid4(), merge_metadata(b'{"a":1}'))
        await bench.engine.extend([ghost.token], LONG)
        assert await self.traces(bench) == before
        assert await bench.engine.extend([heir.token], LONG) == {heir.token}
