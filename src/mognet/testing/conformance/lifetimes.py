"""How long records, values and notes live, and what a sweep does about it."""

# ruff: noqa: S101
from __future__ import annotations

import asyncio
from uuid import uuid4

from mognet.outcomes import failed, paused, revoke, set_ttl, succeeded, suspend
from mognet.records import Query, Swept
from mognet.states import ResultState
from mognet.testing.conformance.bench import ENDS, LONG, Bench, Group, make_job, near, plain


class Lifetimes(Group):
    """Outcomes' lifetimes, and lifetimes set by hand."""

    async def test_for_ever(self, bench: Bench) -> None:
        """Without a lifetime, a record and its value stay."""
        record = await bench.ended()
        assert (record.expires, record.ttl) == (None, None)
        await bench.advance(1e9 if bench.harness.fake_clock else 1)
        assert (await bench.engine.sweep()).expired == 0
        assert await bench.picture(record.id) == (plain(record), b"1")

    async def test_an_outcomes_lifetime(self, bench: Bench) -> None:
        """Every final outcome says how long its record lives, counted from its end."""
        for end in ENDS.values():
            record = await bench.settle(end((await bench.start()).token, b"1", ttl=60.0, value_ttl=30.0))
            assert record.finished is not None
            assert record.expires == near(record.finished + 60.0)
            assert record.ttl is None

    async def test_an_expired_record(self, bench: Bench) -> None:
        """It reads as absent at once, everywhere; its id is free again, and nothing of its former life comes back."""
        parent = uuid4()
        claim = await bench.start(parent=parent, root=parent, metadata=b'{"a":1}')
        id = claim.token.id
        await bench.engine.save(claim.token, {"note": b"1"})
        await bench.settle(succeeded(claim.token, b"1", ttl=bench.unit))
        await bench.advance(1)
        queries = [
            Query(),
            Query(parent=parent),
            Query(root=parent),
            Query(id_prefix=id.hex),
            Query(states=frozenset({ResultState.SUCCESS})),
        ]
        for query in queries:
            assert await bench.search(query) == []
            assert await bench.engine.count(query) == {}
        assert await bench.engine.get([id]) == [None]
        assert await bench.engine.value(id) is None
        assert await bench.engine.update(id, set_ttl(LONG), unless=()) is None
        assert await bench.engine.delete([id]) == 0
        await bench.submit(make_job(id=id))
        [again] = await bench.take(1)
        assert (again.record.metadata, again.record.starts, again.record.parent) == (b"{}", 1, None)
        assert await bench.engine.load(again.token) == {}
        assert await bench.engine.value(id) is None

    async def test_an_expired_record_may_be_submitted_at_once(self, bench: Bench) -> None:
        """Also if nobody has looked at the record, and no sweep has come by, since it expired."""
        claim = await bench.start()
        await bench.settle(succeeded(claim.token, b"1", ttl=bench.unit))
        await bench.advance(1)
        await bench.submit(make_job(id=claim.token.id))
        assert await bench.engine.value(claim.token.id) is None
        await bench.engine.sweep()
        assert (await bench.record(claim.token.id)).state is ResultState.PENDING
        assert await bench.drain() == [claim.token.id]

    async def test_an_expired_parent_is_no_hindrance(self, bench: Bench) -> None:
        """A revoked parent that has expired is a parent that has no record."""
        parent = uuid4()
        await bench.engine.update(parent, revoke(ttl=bench.unit))
        await bench.advance(1)
        await bench.add(parent=parent)
        assert len(await bench.drain()) == 1

    async def test_a_value_that_expires_first(self, bench: Bench) -> None:
        """The value goes when its own time is over; the record stays until it expires itself."""
        for ttl in (bench.unit * 2, None):
            claim = await bench.start()
            record = await bench.settle(succeeded(claim.token, b"1", ttl=ttl, value_ttl=bench.unit))
            await bench.advance(0.5)
            assert await bench.engine.value(record.id) == b"1"
            await bench.advance(0.5)
            assert await bench.picture(record.id) == (plain(record), None)
            await bench.engine.sweep()
            assert await bench.picture(record.id) == (plain(record), None)
            await bench.advance(1)
            assert await bench.engine.get([record.id]) == [None if ttl else record]

    async def test_a_value_never_outlives_its_record(self, bench: Bench) -> None:
        """However long the value was to live."""
        for value_ttl in (LONG, None):
            claim = await bench.start()
            await bench.settle(failed(claim.token, b"1", ttl=bench.unit, value_ttl=value_ttl))
            await bench.advance(1)
            assert await bench.engine.value(claim.token.id) is None

    async def test_set_before_the_end(self, bench: Bench) -> None:
        """A lifetime set by hand is kept, and counted from the end, for record and value alike, whatever the outcome says."""
        for end in ENDS.values():
            claim = await bench.start()
            record = await bench.engine.update(claim.token.id, set_ttl(60.0))
            assert record is not None
            assert (record.ttl, record.expires) == (60.0, None)
            record = await bench.settle(end(claim.token, b"1", ttl=bench.unit, value_ttl=bench.unit))
            assert record.finished is not None
            assert record.ttl == 60.0
            assert record.expires == near(record.finished + 60.0)
            await bench.advance(1)
            assert await bench.picture(record.id) == (plain(record), b"1")

    async def test_set_before_a_revoke(self, bench: Bench) -> None:
        """It goes before the revoke's, too, in the job itself and in its descendants."""
        [top] = await bench.add()
        [child] = await bench.add(parent=top.id)
        for job in (top, child):
            await bench.engine.update(job.id, set_ttl(60.0))
        await bench.engine.update(top.id, revoke(ttl=bench.unit))
        for record in await bench.find(top.id, child.id):
            assert record.finished is not None
            assert record.expires == near(record.finished + 60.0)

    async def test_a_shorter_lifetime_set_by_hand(self, bench: Bench) -> None:
        """A short lifetime wins over a long one of the outcome."""
        claim = await bench.start()
        await bench.engine.update(claim.token.id, set_ttl(bench.unit))
        await bench.settle(succeeded(claim.token, b"1", ttl=LONG, value_ttl=LONG))
        await bench.advance(1)
        assert await bench.picture(claim.token.id) == (None, None)

    async def test_set_after_the_end(self, bench: Bench) -> None:
        """Set afterwards, it counts from now, for record and value alike: longer or shorter than what the outcome said."""
        claim = await bench.start()
        record = await bench.settle(succeeded(claim.token, b"1", ttl=bench.unit, value_ttl=bench.unit))
        await bench.advance(0.5)
        before = await bench.now()
        longer = await bench.engine.update(record.id, set_ttl(60.0), unless=())
        assert longer is not None
        assert longer.expires is not None
        assert before <= longer.expires - 60.0 + 0.005
        assert longer.expires - 60.0 <= await bench.now() + 0.005
        assert longer._replace(ttl=None, expires=None) == record._replace(expires=None)
        await bench.advance(1)
        assert await bench.picture(record.id) == (plain(longer), b"1")
        await bench.engine.sweep()
        assert await bench.picture(record.id) == (plain(longer), b"1")
        await bench.engine.update(record.id, set_ttl(bench.unit), unless=())
        await bench.advance(1)
        assert await bench.picture(record.id) == (None, None)

    async def test_what_has_expired_does_not_come_back(self, bench: Bench) -> None:
        """A value that has expired stays gone when its record is given more time, whether a sweep has come by or not."""
        claim = await bench.start()
        await bench.settle(succeeded(claim.token, b"1", ttl=LONG, value_ttl=bench.unit))
        await bench.advance(1)
        await bench.engine.update(claim.token.id, set_ttl(LONG), unless=())
        assert await bench.engine.value(claim.token.id) is None

    async def test_nothing_unfinished_expires(self, bench: Bench) -> None:
        """A lifetime never touches a job that has not ended: waiting, delayed, running, suspended, paused."""
        jobs = [*await bench.add(queue="waiting"), *await bench.add(queue="delayed", delay=LONG)]
        claims = [await bench.start() for _ in range(3)]
        await bench.engine.update(claims[1].token.id, suspend(claims[1].token))
        await bench.settle(paused(claims[2].token, LONG))
        ids = [*(job.id for job in jobs), *(claim.token.id for claim in claims)]
        for id in ids:
            await bench.engine.update(id, set_ttl(bench.unit))
        before = [plain(record) for record in await bench.find(*ids)]
        await bench.advance(2)
        assert await bench.engine.sweep() == Swept()
        assert [plain(record) for record in await bench.find(*ids)] == before

    async def test_a_childs_own_lifetime(self, bench: Bench) -> None:
        """``ttl`` of a job is for those that are born final, and expires them; for others it means nothing."""
        parent = uuid4()
        await bench.engine.update(parent, revoke())
        child, free = make_job(parent=parent, ttl=bench.unit), make_job(ttl=bench.unit)
        assert await bench.engine.submit([child, free]) == [False, True]
        await bench.settle(succeeded((await bench.take(1))[0].token, b"1"))
        await bench.advance(1)
        assert [record and record.id for record in await bench.engine.get([child.id, free.id])] == [None, free.id]

    async def test_notes_last_until_the_end(self, bench: Bench) -> None:
        """Notes are kept over pauses, retries and crashes, and are those of the job: its next attempt reads them."""
        claim = await bench.start()
        assert await bench.engine.save(claim.token, {"a": b"1", "b": b"2"}) == {}
        await bench.settle(paused(claim.token))
        [claim] = await bench.take(1)
        assert await bench.engine.save(claim.token, {"a": b"3", "c": None}) == {"a": b"1"}
        await bench.crash(claim)
        [claim] = await bench.take(1)
        assert await bench.engine.save(claim.token, {"b": None}) == {"b": b"2"}
        assert await bench.engine.load(claim.token) == {"a": b"3"}
        assert await bench.engine.save(claim.token, {}) == {}

    async def test_notes_with_a_lifetime(self, bench: Bench) -> None:
        """They last so long from the last save, all together."""
        token = (await bench.start()).token
        assert await bench.engine.save(token, {"a": b"1"}, ttl=bench.unit) == {}
        await bench.advance(0.5)
        assert await bench.engine.save(token, {"b": b"2"}, ttl=bench.unit) == {}
        await bench.advance(0.5)
        assert await bench.engine.load(token) == {"a": b"1", "b": b"2"}
        await bench.advance(0.5)
        assert await bench.engine.load(token) == {}
        assert await bench.engine.save(token, {"a": b"3", "b": None}) == {}
        await bench.advance(1)
        assert await bench.engine.load(token) == {"a": b"3"}


class Sweeping(Group):
    """What a sweep does, and what it says it did."""

    async def test_nothing_to_do(self, bench: Bench) -> None:
        """A sweep of a sound store does nothing, however small its grace."""
        assert await bench.engine.sweep() == Swept(0, 0, False)
        await bench.add(5)
        await bench.add(5, delay=LONG)
        await bench.take(2)
        await bench.ended(queue="other")
        assert await bench.engine.sweep() == Swept(0, 0, False)

    async def test_recovered(self, bench: Bench) -> None:
        """Only jobs whose lease has ended, each counted once."""
        await bench.add(9)
        lost, kept, settled = await bench.take(3, lease=bench.unit), await bench.take(3), await bench.take(3, lease=bench.unit)
        await bench.engine.settle([succeeded(claim.token, b"1") for claim in settled])
        await bench.advance(1)
        assert await bench.engine.sweep() == Swept(3, 0, False)
        assert await bench.engine.sweep() == Swept(0, 0, False)
        assert await bench.engine.extend([claim.token for claim in lost + kept], LONG) == {claim.token for claim in kept}
        assert await bench.drain() == [claim.token.id for claim in lost]

    async def test_expired(self, bench: Bench) -> None:
        """Records whose time is over are deleted, each counted; the others stay."""
        await bench.add(8)
        claims = await bench.take(8)
        await bench.engine.settle([succeeded(c.token, b"1", ttl=bench.unit if i % 2 else None) for i, c in enumerate(claims)])
        await bench.advance(1)
        swept = await bench.engine.sweep()
        assert (swept.recovered, swept.more) == (0, False)
        assert swept.expired >= 4
        assert await bench.engine.sweep() == Swept(0, 0, False)
        assert [record.id for record in await bench.search(Query())] == [claim.token.id for claim in claims[::2]]

    async def test_expired_values_and_notes(self, bench: Bench) -> None:
        """Values and notes whose time is over count, and are gone."""
        claim = await bench.start()
        await bench.settle(succeeded(claim.token, b"1", value_ttl=bench.unit))
        token = (await bench.start()).token
        await bench.engine.save(token, {"a": b"1"}, ttl=bench.unit)
        assert (await bench.engine.sweep()).expired == 0
        await bench.advance(1)
        assert (await bench.engine.sweep()).expired >= 2
        assert await bench.engine.sweep() == Swept(0, 0, False)
        assert await bench.engine.load(token) == {}

    async def test_the_limit(self, bench: Bench) -> None:
        """At most ``limit`` of each kind in one call, and ``more`` until all is done."""
        await bench.add(10)
        claims = await bench.take(10)
        await bench.engine.settle([succeeded(claim.token, b"1", ttl=bench.unit) for claim in claims])
        await bench.add(10)
        await bench.take(10, lease=bench.unit)
        await bench.advance(1)
        swept = [await bench.engine.sweep(limit=4)]
        while swept[-1].more:
            swept.append(await bench.engine.sweep(limit=4))
        assert len(swept) >= 3
        assert all(each.recovered <= 4 and each.expired <= 8 for each in swept)
        assert sum(each.recovered for each in swept) == 10
        assert len(await bench.drain()) == 10
        assert await bench.search(Query()) == []

    async def test_many_at_once(self, bench: Bench) -> None:
        """Sweeps of several engines share the work; nothing is done twice."""
        other = await bench.another()
        await bench.add(20)
        claims = await bench.take(20, lease=bench.unit)
        await bench.engine.settle([succeeded(claim.token, b"1", ttl=bench.unit) for claim in claims[:10]])
        await bench.advance(1)
        swept = await asyncio.gather(*(engine.sweep(limit=7) for engine in (bench.engine, other) * 4))
        assert sum(each.recovered for each in swept) == 10
        assert len(await bench.drain()) == 10
        assert await bench.search(Query()) == []
