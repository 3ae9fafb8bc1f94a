"""Repeatable: submit, settle, update and extend may be sent twice; the second time changes nothing."""

# ruff: noqa: S101
from __future__ import annotations

import asyncio

from mognet.outcomes import merge_metadata, paused, released, resume, retry, revoke, set_ttl, succeeded, suspend
from mognet.states import FINAL
from mognet.testing.conformance.bench import LONG, Bench, Group, labels, make_job, plain


class Repeatable(Group):
    """The law *repeatable*."""

    async def test_submit_again_changes_nothing(self, bench: Bench) -> None:
        """A known id answers False, and neither record nor line nor body change, whatever else the second job says."""
        [job] = await bench.add(metadata=b'{"a":1}', priority=7, label="first")
        before = await bench.picture(job.id)
        other = make_job(id=job.id, name="other", queue="other", body=b'"other"', metadata=b'{"b":2}', priority=9, delay=LONG)
        assert await bench.engine.submit([job]) == [False]
        assert await bench.engine.submit([other]) == [False]
        assert await bench.picture(job.id) == before
        [claim] = await bench.take(1)
        assert claim.body == job.body
        assert await bench.drain("q", "other") == []

    async def test_submit_again_while_it_runs(self, bench: Bench) -> None:
        """A job that is running does not get back in line, and its attempt keeps it."""
        claim = await bench.start()
        assert await bench.engine.submit([make_job(id=claim.token.id)]) == [False]
        assert plain(await bench.record(claim.token.id)) == plain(claim.record)
        assert await bench.engine.claim("node", ["q"], 1, lease=LONG) == []
        await bench.settle(succeeded(claim.token, b"1"))

    async def test_submit_again_after_the_end(self, bench: Bench) -> None:
        """A job in any final state stays as it is."""
        for state in FINAL:
            record = await bench.ended(state)
            before = await bench.picture(record.id)
            assert await bench.engine.submit([make_job(id=record.id)]) == [False]
            assert await bench.picture(record.id) == before
            assert await bench.drain() == []

    async def test_submit_from_two_engines_at_once(self, bench: Bench) -> None:
        """Of several submits of one id, exactly one answers True, and the job is in line once."""
        other = await bench.another()
        for _ in range(10):
            job = make_job()
            answers = await asyncio.gather(*(engine.submit([job]) for engine in (bench.engine, other) * 3))
            assert sorted(answers) == [[False]] * 5 + [[True]]
            [claim] = await bench.take(1)
            assert claim.token.id == job.id
            assert await bench.drain() == []

    async def test_settle_twice(self, bench: Bench) -> None:
        """The second settle of one token answers None, and the record stays as the first left it, whatever the fate was."""
        for fate in (lambda t: succeeded(t, b"1"), lambda t: retry(t, 0.0), lambda t: paused(t, 0.0), released):
            claim = await bench.start()
            first = await bench.settle(fate(claim.token))
            before = await bench.picture(claim.token.id)
            assert await bench.engine.settle([fate(claim.token)]) == [None]
            assert await bench.engine.settle([succeeded(claim.token, b"2")]) == [None]
            assert await bench.picture(claim.token.id) == before
            assert before[0] == plain(first)
            await bench.engine.delete([claim.token.id])

    async def test_settle_twice_in_one_call(self, bench: Bench) -> None:
        """Of two outcomes with one token in one call, the first counts."""
        claim = await bench.start()
        first, second = await bench.engine.settle([succeeded(claim.token, b"1"), succeeded(claim.token, b"2")])
        assert first is not None
        assert second is None
        assert await bench.engine.value(claim.token.id) == b"1"

    async def test_settle_once_from_many_engines(self, bench: Bench) -> None:
        """Sent by several engines at once, a settle takes effect exactly once."""
        other = await bench.another()
        for _ in range(10):
            claim = await bench.start()
            answers = await asyncio.gather(*(engine.settle([retry(claim.token, 0.0)]) for engine in (bench.engine, other) * 3))
            assert sum(record is not None for [record] in answers) == 1
            record = await bench.record(claim.token.id)
            assert (record.stops, record.attempt) == (1, 2)
            await bench.engine.delete([record.id])

    async def test_extend_twice(self, bench: Bench) -> None:
        """An extend may be repeated; a token given twice is answered once."""
        claim = await bench.start()
        for _ in range(2):
            assert await bench.engine.extend([claim.token], LONG) == {claim.token}
        assert await bench.engine.extend([claim.token, claim.token], LONG) == {claim.token}
        assert plain(await bench.record(claim.token.id)) == plain(claim.record)

    async def test_update_twice(self, bench: Bench) -> None:
        """Each change, sent twice, answers the same record twice."""
        claim = await bench.start(metadata=b'{"a":1,"b":2}')
        token = claim.token
        changes = [
            suspend(token),
            resume(token),
            merge_metadata(b'{"b":3,"c":null}', token),
            merge_metadata(b'{"d":4}'),
            set_ttl(60.0),
            revoke(),
        ]
        for change in changes:
            first = await bench.engine.update(token.id, change)
            assert first is not None
            second = await bench.engine.update(token.id, change)
            assert second is not None
            assert plain(second) == plain(first)
        assert labels(await bench.record(token.id)) == {"a": 1, "b": 3, "c": None, "d": 4}

    async def test_delete_twice(self, bench: Bench) -> None:
        """What is gone is not counted again."""
        [job] = await bench.add()
        assert await bench.engine.delete([job.id, job.id]) == 1
        assert await bench.engine.delete([job.id]) == 0
        assert await bench.engine.get([job.id]) == [None]
