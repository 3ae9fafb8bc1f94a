"""Batches: every operation takes lists, empty and long ones; and each app has a store of its own."""

# ruff: noqa: S101
from __future__ import annotations

import asyncio
from uuid import uuid4

from mognet.outcomes import Outcome, failed, merge_metadata, paused, released, retry, revoke, succeeded
from mognet.records import Query
from mognet.states import ResultState
from mognet.testing.conformance.bench import LONG, Bench, Group, make_job, plain


class Batches(Group):
    """Lists of any length."""

    async def test_empty_lists(self, bench: Bench) -> None:
        """Nothing asked, nothing done, no error."""
        engine = bench.engine
        token = (await bench.start()).token
        assert await engine.submit([]) == []
        assert await engine.submit([], enqueue=False) == []
        assert await engine.claim("node", [], 5, lease=LONG) == []
        assert await engine.claim("node", ["q"], 5, lease=LONG, ids=[]) == []
        assert await engine.extend([], LONG) == set()
        assert await engine.settle([]) == []
        assert await engine.get([]) == []
        assert await engine.delete([]) == 0
        assert await engine.load(token) == {}
        assert await engine.save(token, {}) == {}
        assert (await bench.record(token.id)).state is ResultState.RUNNING

    async def test_submit_of_a_thousand(self, bench: Bench) -> None:
        """New, known, doubled and born revoked ones, mixed: each gets its own answer, and the new ones are in line in order."""
        known = await bench.add(50, queue="known")
        gone = uuid4()
        await bench.engine.update(gone, revoke())
        batch, want = [], []
        for number in range(1000):
            match number % 20:
                case 0:
                    batch.append(known[number // 20]._replace(queue="other"))
                case 1:
                    batch.append(make_job(parent=gone))
                case 2:
                    batch.append(batch[number - 1 - number % 7])
                case _:
                    batch.append(make_job())
            want.append(number % 20 > 2)
        assert await bench.engine.submit(batch) == want
        assert await bench.drain() == [job.id for job, new in zip(batch, want, strict=True) if new]
        assert await bench.drain("other") == []
        assert await bench.engine.count(Query(queue="q")) == {"REVOKED": 50}

    async def test_doubled_in_one_batch(self, bench: Bench) -> None:
        """The first of two jobs with one id counts."""
        job = make_job()
        assert await bench.engine.submit([job, job._replace(queue="other", body=b"2"), job]) == [True, False, False]
        [claim] = await bench.take(1)
        assert claim.body == job.body
        assert await bench.drain("q", "other") == []

    async def test_parents_and_children_in_one_batch(self, bench: Bench) -> None:
        """A whole tree may be submitted at once, in any order."""
        top = make_job()
        children = [make_job(parent=top.id, root=top.id) for _ in range(3)]
        await bench.submit(*children[:2], top, children[2])
        assert len(await bench.search(Query(parent=top.id))) == 3

    async def test_settle_of_a_thousand(self, bench: Bench) -> None:
        """Every fate, stale and doubled tokens, mixed: each answer stands at its place."""
        await bench.add(800)
        claims = await bench.take(800)
        late = claims[:100]
        await bench.engine.settle([succeeded(claim.token, b"0") for claim in late])
        outcomes: list[Outcome] = []
        for number, claim in enumerate(claims):
            token = claim.token
            outcomes.append(
                [succeeded(token, b"%d" % number), failed(token, b"%d" % number), retry(token, LONG), paused(token, LONG), released(token)][
                    number % 5
                ]
            )
        outcomes += outcomes[600:800]
        answers = await bench.engine.settle(outcomes)
        assert [record is not None for record in answers] == [False] * 100 + [True] * 700 + [False] * 200
        states = [ResultState.SUCCESS, ResultState.FAILURE, ResultState.PENDING, ResultState.SUSPENDED, ResultState.SUSPENDED]
        for number, (claim, record) in enumerate(zip(claims[100:], answers[100:800], strict=True), 100):
            assert record is not None
            assert (record.id, record.state) == (claim.token.id, states[number % 5])
        assert [await bench.engine.value(claims[n].token.id) for n in (0, 100, 101, 102, 795, 796)] == [
            b"0",
            b"100",
            b"101",
            None,
            b"795",
            b"796",
        ]
        assert sum((await bench.engine.count(Query())).values()) == 800

    async def test_all_the_others_with_a_thousand(self, bench: Bench) -> None:
        """Get, claim, extend, search and delete of a thousand."""
        jobs = await bench.add(1000)
        ids = [job.id for job in jobs]
        claims = await bench.take(1000)
        assert [claim.token.id for claim in claims] == ids
        assert await bench.engine.extend([claim.token for claim in claims], LONG) == {claim.token for claim in claims}
        assert [record.id for record in await bench.find(*reversed(ids))] == ids[::-1]
        assert {record.id for record in await bench.search(Query())} == set(ids)
        assert await bench.engine.claim("node", ["q"], 1000, lease=LONG, ids=ids) == []
        assert await bench.engine.delete(ids) == 1000

    async def test_many_queues(self, bench: Bench) -> None:
        """A claim may name hundreds of queues."""
        queues = [f"q{number}" for number in range(bench.harness.most_queues)]
        jobs = await bench.submit(*(make_job(queue=queue) for queue in queues))
        assert [claim.token.id for claim in await bench.take(len(queues), queues)] == [job.id for job in jobs]

    async def test_everything_at_once(self, bench: Bench) -> None:
        """Submits, claims, settles, changes and searches of several engines run side by side, and every job ends."""
        engines = [bench.engine, await bench.another()]
        total, ended = 120, 0

        async def producer(number: int) -> None:
            for _ in range(total // 30):
                await engines[number % 2].submit([make_job() for _ in range(10)])

        async def worker(number: int) -> None:
            nonlocal ended
            engine = engines[number % 2]
            while ended < total:
                claims = await engine.claim(f"node{number}", ["q"], 7, lease=LONG, wait=0.02)
                for claim in claims:
                    await engine.update(claim.token.id, merge_metadata(b'{"by":%d}' % number, claim.token))
                settled = await engine.settle([succeeded(claim.token, b"1") for claim in claims])
                ended += sum(record is not None for record in settled)

        async def reader() -> None:
            while ended < total:
                counted = await engines[1].count(Query())
                assert sum(counted.values()) <= total
                await asyncio.sleep(0.002)

        await bench.soon(asyncio.gather(*(producer(i) for i in range(3)), *(worker(i) for i in range(3)), reader()))
        assert await bench.engine.count(Query()) == {"SUCCESS": total}


class Apps(Group):
    """An engine holds line and records of one app; several may share a store."""

    async def test_apps_do_not_meet(self, bench: Bench) -> None:
        """The same id, queue and parent in two apps are different jobs; neither sees, counts, changes or deletes the other's."""
        other = await bench.another("other")
        job = make_job(metadata=b'{"app":1}')
        await bench.submit(job)
        assert await other.get([job.id]) == [None]
        assert await other.claim("node", ["q"], 1, lease=LONG) == []
        assert await other.update(job.id, merge_metadata(b"{}")) is None
        assert await other.delete([job.id]) == 0
        assert await other.count(Query()) == {}
        assert [record async for record in other.search(Query(id_prefix=job.id.hex))] == []
        assert await other.submit([job._replace(metadata=b'{"app":2}')]) == [True]
        await other.update(job.id, revoke())
        assert await bench.drain() == [job.id]
        record = (await other.get([job.id]))[0]
        assert record is not None
        assert (record.state, record.metadata) == (ResultState.REVOKED, b'{"app":2}')

    async def test_tokens_are_of_one_app(self, bench: Bench) -> None:
        """A token holds nothing in another app."""
        other = await bench.another("other")
        claim = await bench.start()
        await other.submit([make_job(id=claim.token.id)])
        await other.claim("node", ["q"], 1, lease=LONG)
        assert await other.settle([succeeded(claim.token, b"1")]) == [None]
        assert await other.extend([claim.token], LONG) == set()
        assert await other.save(claim.token, {"a": b"1"}) is None
        assert plain(await bench.record(claim.token.id)) == plain(claim.record)

    async def test_signals_are_of_one_app(self, bench: Bench) -> None:
        """A channel of the same name is another channel in another app."""
        other = await bench.another("other")
        async with bench.engine.subscribe("c") as signals:
            await other.publish("c", b'"theirs"')
            await bench.engine.publish("c", b'"ours"')
            assert (await bench.heard(signals)).body == b'"ours"'

    async def test_upkeep_is_of_one_app(self, bench: Bench) -> None:
        """A sweep leaves the other app's jobs to the other app."""
        other = await bench.another("other")
        await bench.start(lease=bench.unit)
        await bench.advance(1)
        assert (await other.sweep()).recovered == 0
        assert (await bench.engine.sweep()).recovered == 1

    async def test_apps_with_similar_names(self, bench: Bench) -> None:
        """Names of apps are taken literally."""
        names = ["a", "a:b", "A", "a%", "a b", "a'b", "ä"]
        engines = [await bench.another(name) for name in names]
        for engine in engines:
            assert await engine.submit([make_job(), make_job(queue="b:q")]) == [True, True]
        for engine in engines:
            assert await engine.count(Query()) == {"PENDING": 2}
            assert len(await engine.claim("node", ["q"], 9, lease=LONG)) == 1

    async def test_a_store_outlives_its_engines(self, bench: Bench) -> None:
        """What one engine object stored, another finds: also when the first is closed."""
        async with bench.harness.open() as first:
            job = make_job(metadata=b'{"a":1}')
            assert await first.submit([job]) == [True]
            [claim] = await first.claim("node", ["q"], 1, lease=LONG)
            await first.save(claim.token, {"note": b"1"})
        async with bench.harness.open() as second:
            assert plain((await second.get([job.id]))[0] or claim.record) == plain(claim.record)
            assert await second.load(claim.token) == {"note": b"1"}
            assert await second.settle([succeeded(claim.token, b"1")]) != [None]
        assert await bench.engine.value(job.id) == b"1"
