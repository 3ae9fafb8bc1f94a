"""Changes are folded, never lost: whoever reads on from where it left off is told of every job that changed since."""

# ruff: noqa: S101
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest

from mognet.codec import dumps
from mognet.engine import CHANGED, KEEP_NOTES
from mognet.labels import label
from mognet.outcomes import failed, merge_metadata, paused, rerun, resume, retry, revoke, set_progress, set_ttl, succeeded, suspend
from mognet.records import Query, Record, Wanted
from mognet.states import ResultState
from mognet.testing.conformance.bench import LONG, Bench, Group, make_job, plain


class Watch:
    """Somebody who reads on and on."""

    def __init__(self, bench: Bench, at: str, query: Query = Query()) -> None:  # noqa: B008 - immutable
        self.bench = bench
        self.engine = bench.engine
        self.at = at
        self.query = query

    @classmethod
    async def begin(cls, bench: Bench, query: Query = Query()) -> Watch:  # noqa: B008 - immutable
        """From now on."""
        changes = await bench.engine.changes(None, query)
        assert changes.changed == []
        assert not changes.lost
        return cls(bench, changes.at, query)

    async def read(self, *, limit: int = 1000) -> list[Record]:
        """What is new; every record is as it is now."""
        found: dict[UUID, Record] = {}
        more = True
        while more:
            changes = await self.engine.changes(self.at, self.query, limit=limit)
            assert not changes.lost
            for changed in changes.changed:
                assert found.pop(changed.record.id, None) is None, "told twice"
                found[changed.record.id] = changed.record
            self.at, more = changes.at, changes.more
        for record in found.values():
            assert plain(record) == plain(await self.bench.record(record.id))
        return list(found.values())

    async def ids(self) -> list[UUID]:
        """Whose record is new."""
        return [record.id for record in await self.read()]


class Changing(Group):
    """The law *changes are folded, never lost*."""

    async def test_every_step_is_told(self, bench: Bench) -> None:
        """Submitted, claimed, suspended, resumed, labelled, in progress, tried again, ended: each is a change."""
        watch = await Watch.begin(bench)
        [job] = await bench.add()
        assert await watch.ids() == [job.id]
        [claim] = await bench.take(1)
        token = claim.token
        steps: list[Callable[[], Awaitable[object]]] = [
            lambda: bench.engine.update(job.id, suspend(token)),
            lambda: bench.engine.update(job.id, resume(token)),
            lambda: bench.engine.update(job.id, merge_metadata(b'{"a":1}', token)),
            lambda: bench.engine.update(job.id, merge_metadata(b'{"a":2}')),
            lambda: bench.engine.update(job.id, set_progress(token, b'{"done":1}')),
            lambda: bench.engine.settle([retry(token, 0.0)]),
        ]
        assert [record.state for record in await watch.read()] == [ResultState.RUNNING]
        for step in steps:
            await step()
            [record] = await watch.read()
            assert record.id == job.id
            assert await watch.read() == []
        [claim] = await bench.take(1)
        await bench.settle(paused(claim.token))
        assert [record.state for record in await watch.read()] == [ResultState.SUSPENDED]
        [claim] = await bench.take(1)
        await bench.settle(succeeded(claim.token, b"1"))
        assert [record.state for record in await watch.read()] == [ResultState.SUCCESS]
        await bench.engine.update(job.id, merge_metadata(b'{"b":1}'), unless=())
        assert [record.metadata for record in await watch.read()] == [(await bench.record(job.id)).metadata]
        await bench.engine.update(job.id, set_ttl(LONG), unless=())
        assert [record.ttl for record in await watch.read()] == [LONG]

    async def test_what_is_no_change(self, bench: Bench) -> None:
        """Notes, log lines, heartbeats, signals and refused operations are none."""
        claim = await bench.start()
        ended = await bench.ended(queue="other")
        watch = await Watch.begin(bench)
        await bench.engine.save(claim.token, {"a": b"1"})
        await bench.engine.log({claim.token: [b"line"]}, keep=10)
        await bench.engine.extend([claim.token], LONG)
        await bench.engine.publish("x", b"")
        await bench.engine.submit([make_job(id=claim.token.id)])
        await bench.engine.update(ended.id, revoke())
        await bench.engine.settle([succeeded(claim.token._replace(holder="nobody"), b"1")])
        assert await watch.read() == []

    async def test_folded_and_in_order(self, bench: Bench) -> None:
        """Each job once, in its latest state, in the order of the last changes; from page to page."""
        watch, late = await Watch.begin(bench), await Watch.begin(bench)
        jobs = []
        for _ in range(9):
            jobs += await bench.add()
        for job in jobs[::3]:
            await bench.engine.update(job.id, merge_metadata(b'{"a":1}'))
        order = [job.id for job in jobs if job not in jobs[::3]] + [job.id for job in jobs[::3]]
        assert await watch.ids() == order
        assert [record.id for record in await late.read(limit=2)] == order

    async def test_from_any_place(self, bench: Bench) -> None:
        """Whoever stopped in the middle goes on behind what was told."""
        start = (await Watch.begin(bench)).at
        jobs = [*await bench.submit(*(make_job() for _ in range(5))), *await bench.add(), *await bench.add()]
        changes = await bench.engine.changes(start)
        ids = [changed.record.id for changed in changes.changed]
        assert set(ids) == {job.id for job in jobs}
        for number, changed in enumerate(changes.changed):
            assert await Watch(bench, changed.at).ids() == ids[number + 1 :]

    async def test_filters(self, bench: Bench) -> None:
        """Only what matches is told; what does not is passed all the same."""
        top = make_job()
        queries = {
            "root": Query(root=top.id),
            "under": Query(under=top.id),
            "metadata": Query(metadata=(Wanted("tenant", frozenset({label("a")})),)),
            "name": Query(name="special"),
            "done": Query(states=frozenset({ResultState.SUCCESS})),
        }
        watches = {name: await Watch.begin(bench, query) for name, query in queries.items()}
        everything = await Watch.begin(bench)
        child = make_job(parent=top.id, root=top.id)
        [labelled] = await bench.submit(make_job(metadata=dumps({"tenant": "a"}), queue="l"))
        await bench.submit(top, child)
        [special] = await bench.add(name="special", queue="s")
        ended = await bench.ended(queue="e")
        assert set(await watches["root"].ids()) == {top.id, child.id}
        assert set(await watches["under"].ids()) == {top.id, child.id}
        assert await watches["metadata"].ids() == [labelled.id]
        assert await watches["name"].ids() == [special.id]
        assert await watches["done"].ids() == [ended.id]
        assert len(await everything.ids()) == 5
        for watch in watches.values():
            assert await watch.ids() == []

    async def test_a_revoke_of_many(self, bench: Bench) -> None:
        """All that a revoke ends are told."""
        top = make_job()
        await bench.submit(top, *(make_job(parent=top.id, root=top.id) for _ in range(5)))
        watch = await Watch.begin(bench)
        await bench.engine.update(top.id, revoke())
        records = await watch.read()
        assert len(records) == 6
        assert {record.state for record in records} == {ResultState.REVOKED}
        unknown = uuid4()
        await bench.engine.update(unknown, revoke())
        assert await watch.ids() == [unknown]

    async def test_a_sweep(self, bench: Bench) -> None:
        """Lost jobs that come back are told, and those that are too late."""
        claim = await bench.start()
        [late] = await bench.add(queue="late", delay=LONG, latest=await bench.now() + bench.unit, ttl=LONG)
        watch = await Watch.begin(bench)
        await bench.crash(claim)
        assert {(record.id, record.state) for record in await watch.read()} == {
            (claim.token.id, ResultState.PENDING),
            (late.id, ResultState.REVOKED),
        }

    async def test_deleted_jobs(self, bench: Bench) -> None:
        """What is gone is not told, and hides nothing."""
        watch = await Watch.begin(bench)
        jobs = await bench.add(3)
        await bench.engine.delete([jobs[0].id, jobs[2].id])
        assert await watch.ids() == [jobs[1].id]
        [last] = await bench.add()
        assert await watch.ids() == [last.id]
        await bench.engine.delete([last.id])
        [job] = await bench.add()
        assert await watch.ids() == [job.id]

    async def test_engines_side_by_side(self, bench: Bench) -> None:
        """What many engines write at once: every job's final state is told, however the reads fall."""
        engines = [bench.engine, await bench.another(), await bench.another()]
        watch = await Watch.begin(bench)
        jobs = [make_job() for _ in range(60)]
        finals: dict[UUID, ResultState] = {}

        async def work(number: int) -> None:
            engine = engines[number % 3]
            await engine.submit([job for job in jobs[number::6]])
            while claims := await engine.claim("n", ["q"], 4, lease=LONG):
                await engine.settle([succeeded(claim.token, b"1") for claim in claims])

        async def read() -> None:
            while len(finals) < len(jobs):
                finals.update({record.id: record.state for record in await _latest(watch) if record.done})
                await asyncio.sleep(0)

        await bench.soon(asyncio.gather(read(), *(work(number) for number in range(6))))
        assert set(finals) == {job.id for job in jobs}

    async def test_a_ring(self, bench: Bench) -> None:
        """Whoever listens hears that there is something new, from another engine too."""
        other = await bench.another()
        await Watch.begin(bench)
        async with bench.engine.subscribe(CHANGED) as signals:
            for step in range(3):
                await other.submit([make_job()])
                assert (await bench.heard(signals)).body == b"", step

    async def test_long_after(self, bench: Bench) -> None:
        """Whoever comes back later than notes are kept is told all the same, or told that something is missing."""
        if not bench.harness.fake_clock:
            pytest.skip("needs a clock that can be moved by a day")
        watch = await Watch.begin(bench)
        await bench.harness.advance(KEEP_NOTES + 1)
        [job] = await bench.add()
        changes = await bench.engine.changes(watch.at)
        assert changes.lost or [changed.record.id for changed in changes.changed] == [job.id]
        again = await Watch.begin(bench)
        assert await again.read() == []
        await bench.engine.update(job.id, merge_metadata(b'{"a":1}'))
        assert await again.ids() == [job.id]

    async def test_places_that_never_were(self, bench: Bench) -> None:
        """A ``since`` that is none is refused."""
        for since in ("", "x", "🐞", "1;DROP TABLE job"):
            with pytest.raises(ValueError, match="since"):
                await bench.engine.changes(since)

    async def test_identity(self, bench: Bench) -> None:
        """One for all engines of an app's records, another for another app's."""
        identity = await bench.engine.identity()
        assert identity
        assert await (await bench.another()).identity() == identity
        assert await (await bench.another("other")).identity() != identity

    async def test_other_apps_changes(self, bench: Bench) -> None:
        """Another app's changes are not told."""
        watch, other = await Watch.begin(bench), await bench.another("other")
        await other.submit([make_job()])
        assert await watch.read() == []


class Progress(Group):
    """How far a task is."""

    async def test_as_it_was_said(self, bench: Bench) -> None:
        """Bytes in are bytes out; the last one counts, and stays after the end."""
        claim = await bench.start()
        assert claim.record.progress is None
        for text in (b'{"done":1,"message":"\xc3\xa4 \\u0000"}', b"[]", b'{"done":2}'):
            record = await bench.engine.update(claim.token.id, set_progress(claim.token, text))
            assert record is not None
            assert (record.progress, record.metadata) == (text, b"{}")
            assert (await bench.record(claim.token.id)).progress == text
        record = await bench.settle(succeeded(claim.token, b"1"))
        assert record.progress == b'{"done":2}'
        assert (await bench.record(claim.token.id)).progress == b'{"done":2}'

    async def test_only_by_the_holder(self, bench: Bench) -> None:
        """A ghost says nothing."""
        ghost, heir = await bench.stolen()
        assert await bench.engine.update(ghost.token.id, set_progress(ghost.token, b"1")) is None
        await bench.engine.update(heir.token.id, set_progress(heir.token, b"2"))
        await bench.settle(succeeded(heir.token, b"1"))
        assert await bench.engine.update(heir.token.id, set_progress(heir.token, b"3")) is None
        assert (await bench.record(heir.token.id)).progress == b"2"

    async def test_kept_over_retries(self, bench: Bench) -> None:
        """A new attempt finds what the last one said, until it says something itself."""
        claim = await bench.start()
        await bench.engine.update(claim.token.id, set_progress(claim.token, b"1"))
        await bench.settle(retry(claim.token, 0.0))
        [again] = await bench.take(1)
        assert again.record.progress == b"1"


class Rerunning(Group):
    """The one way out of a final state."""

    async def test_as_new(self, bench: Bench) -> None:
        """It waits in line again, with a new body, and nothing of its last end is left."""
        claim = await bench.start(metadata=b'{"a":1,"b":1}', label="l", priority=7)
        await bench.engine.update(claim.token.id, set_progress(claim.token, b"1"))
        await bench.settle(retry(claim.token, 0.0))
        [claim] = await bench.take(1)
        before = await bench.settle(failed(claim.token, b"error", ttl=LONG, value_ttl=LONG))
        assert await bench.engine.body(before.id) == claim.body
        record = await bench.engine.update(before.id, rerun(b'{"v":1,"x":2}', metadata=b'{"b":2}'), unless=())
        assert record is not None
        assert plain(record) == plain(await bench.record(before.id))
        assert (record.state, record.attempt, record.crashes, record.progress) == (ResultState.PENDING, 1, 0, None)
        assert (record.started, record.finished, record.expires, record.node) == (None, None, None, None)
        assert (record.created, record.priority, record.label, record.name) == (before.created, 7, "l", before.name)
        assert plain(record).metadata == b'{"a": 1, "b": 2}'
        assert await bench.engine.value(record.id) is None
        [claim] = await bench.take(1)
        assert (claim.token.id, claim.body, claim.record.crashes) == (before.id, b'{"v":1,"x":2}', 1)
        assert claim.record.starts == before.starts + 1
        await bench.settle(succeeded(claim.token, b"2"))
        assert await bench.engine.value(before.id) == b"2"

    @pytest.mark.parametrize("state", [ResultState.FAILURE, ResultState.REVOKED, ResultState.INVALID])
    async def test_what_has_no_value(self, bench: Bench, state: ResultState) -> None:
        """Any end without a value; the last attempt's token stays void."""
        record = await bench.ended(state)
        again = await bench.engine.update(record.id, rerun(b"0"), unless=())
        assert again is not None
        assert again.state is ResultState.PENDING
        assert await bench.drain() == [record.id]

    async def test_what_is_left_alone(self, bench: Bench) -> None:
        """Success, tombstones, what has not ended, what nobody knows, and what ``unless`` names."""
        success, waiting, running = await bench.ended(), (await bench.add(delay=LONG))[0], await bench.start(queue="r")
        await bench.engine.update(tomb := uuid4(), revoke())
        failure = await bench.ended(ResultState.FAILURE)
        for id in (success.id, waiting.id, running.token.id, tomb):
            before = await bench.picture(id)
            await bench.engine.update(id, rerun(b"0"), unless=())
            assert await bench.picture(id) == before
        assert await bench.engine.update(uuid4(), rerun(b"0"), unless=()) is None
        before = await bench.picture(failure.id)
        await bench.engine.update(failure.id, rerun(b"0"))
        assert await bench.picture(failure.id) == before
        assert await bench.drain() == []

    async def test_twice(self, bench: Bench) -> None:
        """The second time changes nothing."""
        record = await bench.ended(ResultState.FAILURE)
        await bench.engine.update(record.id, rerun(b"1"), unless=())
        await bench.engine.update(record.id, rerun(b"2"), unless=())
        [claim] = await bench.take(1)
        assert claim.body == b"1"
        assert await bench.drain() == []

    async def test_of_one_end(self, bench: Bench) -> None:
        """Of the end that was seen: what has run again since, and ended anew, is left as it is."""
        first = await bench.ended(ResultState.FAILURE)
        change = rerun(b"1", ended=first.finished)
        for _ in range(2):
            again = await bench.engine.update(first.id, change, unless=())
            assert again is not None
            assert again.state is ResultState.PENDING
        await bench.advance(1)
        [claim] = await bench.take(1)
        second = await bench.settle(failed(claim.token, b"error"))
        before = await bench.picture(first.id)
        left = await bench.engine.update(first.id, change, unless=())
        assert left is not None
        assert (left.state, left.finished) == (ResultState.FAILURE, second.finished)
        assert await bench.picture(first.id) == before
        await bench.engine.update(first.id, change._replace(ended=second.finished), unless=())
        assert await bench.drain() == [first.id]

    async def test_later(self, bench: Bench) -> None:
        """With a delay it waits; and whoever waits for work is woken when it is due."""
        record = await bench.ended(ResultState.FAILURE)
        moved = bench.harness.fake_clock
        waiting = asyncio.create_task(bench.take(2 if moved else 1))
        again = await bench.engine.update(record.id, rerun(b"1", delay=bench.unit), unless=())
        assert again is not None
        assert await bench.drain() == []
        await bench.advance(1)
        if moved:  # whoever waits by the real clock does not know that this one was moved, until another job comes
            await bench.engine.submit([make_job(queue="q", priority=0)])
        assert record.id in {claim.token.id for claim in await bench.soon(waiting)}
        await bench.drain()

    async def test_wakes(self, bench: Bench) -> None:
        """Whoever waits for work gets it."""
        record, other = await bench.ended(ResultState.FAILURE), await bench.another()
        waiting = asyncio.create_task(bench.take(1, engine=other))
        await asyncio.sleep(0.05)
        await bench.engine.update(record.id, rerun(b"1"), unless=())
        assert (await bench.soon(waiting))[0].token.id == record.id

    async def test_lifetimes_and_latest_moment(self, bench: Bench) -> None:
        """What would have ended it does not any more."""
        claim = await bench.start(latest=await bench.now() + bench.unit, ttl=LONG)
        await bench.settle(failed(claim.token, b"error", ttl=2 * bench.unit, value_ttl=bench.unit))
        await bench.engine.update(claim.token.id, rerun(b"1", delay=LONG), unless=())
        await bench.advance(3)
        swept = await bench.engine.sweep()
        assert (swept.late, swept.expired) == (0, 0)
        assert (await bench.record(claim.token.id)).state is ResultState.PENDING

    async def test_bodies_are_kept(self, bench: Bench) -> None:
        """Small and large, as long as the job may run: not those of jobs that succeeded."""
        for body in (b'{"v":1}', b'"' + b"b" * 50_000 + b'"'):
            for state in (ResultState.FAILURE, ResultState.REVOKED, ResultState.INVALID):
                record = await bench.ended(state, value=b'"' + b"v" * 20_000 + b'"', body=body)
                assert await bench.engine.body(record.id) == body
            [job] = await bench.add(body=body, queue="w")
            assert await bench.engine.body(job.id) == body
            await bench.engine.update(job.id, revoke())
            assert await bench.engine.body(job.id) == body
        assert await bench.engine.body(uuid4()) is None
        await bench.engine.update(tomb := uuid4(), revoke())
        assert await bench.engine.body(tomb) is None


class Logging(Group):
    """What a job logs."""

    async def lines(self, bench: Bench, id: UUID, after: int = 0) -> list[tuple[int, bytes]]:
        """The lines that are kept."""
        return [(line.number, line.text) for line in await bench.engine.logs(id, after=after)]

    async def test_the_last_ones_stay(self, bench: Bench) -> None:
        """Numbered from 1, bytes as they were, the last ``keep`` of them; also when the job has ended."""
        claim = await bench.start()
        id = claim.token.id
        assert await self.lines(bench, id) == []
        assert await bench.engine.log({claim.token: [b"a", b"\xff\x00\n"]}, keep=3)
        assert await self.lines(bench, id) == [(1, b"a"), (2, b"\xff\x00\n")]
        assert await bench.engine.log({claim.token: [b"c", b"d"]}, keep=3)
        assert await self.lines(bench, id) == [(2, b"\xff\x00\n"), (3, b"c"), (4, b"d")]
        assert await self.lines(bench, id, after=3) == [(4, b"d")]
        await bench.settle(succeeded(claim.token, b"1"))
        assert await self.lines(bench, id, after=2) == [(3, b"c"), (4, b"d")]
        assert await self.lines(bench, uuid4()) == []

    async def test_more_than_are_kept_at_once(self, bench: Bench) -> None:
        """Of more lines than are kept, the last."""
        claim = await bench.start()
        assert await bench.engine.log({claim.token: [b"%d" % n for n in range(1, 301)]}, keep=5)
        assert await self.lines(bench, claim.token.id) == [(n, b"%d" % n) for n in range(296, 301)]
        assert await bench.engine.log({claim.token: []}, keep=5)

    async def test_many_jobs_at_once(self, bench: Bench) -> None:
        """Each gets its own lines; for those that were lost nothing is written, and they are missing from the answer."""
        await bench.add(12)
        claims = await bench.take(12)
        await bench.engine.settle([succeeded(claim.token, b"1") for claim in claims[::3]])
        await bench.engine.log({claims[1].token: [b"first"]}, keep=3)
        lines = {claim.token: [b"%d:%d" % (number, line) for line in range(number)] for number, claim in enumerate(claims)}
        lost = {claim.token for claim in claims[::3]}
        assert await bench.engine.log(lines, keep=3) == set(lines) - lost
        assert await bench.engine.log({}, keep=3) == set()
        for number, claim in enumerate(claims):
            before = [b"first"] if number == 1 else []
            want = [] if claim.token in lost else list(enumerate([*before, *lines[claim.token]], 1))[-3:]
            assert await self.lines(bench, claim.token.id) == want

    async def test_who_may_log(self, bench: Bench) -> None:
        """A ghost logs nothing; an heir goes on behind what the ghost logged in its time."""
        claim = await bench.start()
        assert await bench.engine.log({claim.token: [b"ghost"]}, keep=5)
        await bench.crash(claim)
        [heir] = await bench.take(1)
        assert not await bench.engine.log({claim.token: [b"boo"]}, keep=5)
        assert await bench.engine.log({heir.token: [b"heir"]}, keep=5)
        await bench.settle(failed(heir.token, b"1"))
        assert not await bench.engine.log({heir.token: [b"late"]}, keep=5)
        assert await self.lines(bench, heir.token.id) == [(1, b"ghost"), (2, b"heir")]

    async def test_gone_with_the_record(self, bench: Bench) -> None:
        """A delete or an expiry leaves nothing of it; a job born again in its id has a log of its own."""
        claim = await bench.start()
        await bench.engine.log({claim.token: [b"a"] * 20}, keep=10)
        await bench.engine.delete([claim.token.id])
        await bench.submit(make_job(id=claim.token.id))
        [again] = await bench.take(1)
        assert await self.lines(bench, claim.token.id) == []
        await bench.engine.log({again.token: [b"b"]}, keep=10)
        assert await self.lines(bench, claim.token.id) == [(1, b"b")]
        await bench.settle(succeeded(again.token, b"1", ttl=bench.unit))
        await bench.advance(1)
        assert await self.lines(bench, claim.token.id) == []
        await bench.submit(make_job(id=claim.token.id))
        [third] = await bench.take(1)
        await bench.engine.log({third.token: [b"c"]}, keep=10)
        assert await self.lines(bench, claim.token.id) == [(1, b"c")]
        await bench.engine.update(third.token.id, revoke(ttl=bench.unit))
        await bench.advance(1)
        await bench.engine.sweep()
        assert {name: number for name, number in (await bench.harness.leftovers()).items() if number} == {}


async def _latest(watch: Watch) -> list[Record]:
    """What is new, while others go on writing."""
    changes = await watch.bench.engine.changes(watch.at, watch.query)
    watch.at = changes.at
    return [changed.record for changed in changes.changed]
