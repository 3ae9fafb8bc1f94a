"""Final is final: a record in a final state keeps its state, value and times."""

# ruff: noqa: S101
from __future__ import annotations

import asyncio

from mognet.outcomes import Change, failed, merge_metadata, revoke, succeeded
from mognet.states import FINAL, ResultState
from mognet.testing.conformance.bench import ENDS, LONG, Bench, Group, labels, make_job, plain


class FinalIsFinal(Group):
    """The law *final is final*, also when several want to end a job at once."""

    async def test_each_end(self, bench: Bench) -> None:
        """A final outcome sets state, value and ``finished``, and counts the stop."""
        for state in FINAL:
            claim = await bench.start(metadata=b'{"a":1}')
            before = await bench.now()
            record = await bench.settle(ENDS[state](claim.token, b'"%b"' % state.encode()))
            after = await bench.now()
            assert record.finished is not None
            assert before <= record.finished <= after
            want = claim.record._replace(state=state, stops=1, finished=record.finished)
            assert plain(record) == plain(want)
            assert await bench.picture(record.id) == (plain(want), b'"%b"' % state.encode())

    async def test_an_end_without_a_value(self, bench: Bench) -> None:
        """A job that was revoked, by hand or by its deadline, may have left nothing."""
        record = await bench.settle(ENDS[ResultState.REVOKED]((await bench.start()).token, None))
        assert await bench.engine.value(record.id) is None
        [job] = await bench.add()
        await bench.engine.update(job.id, revoke())
        assert await bench.engine.value(job.id) is None

    async def test_there_is_no_value_before_the_end(self, bench: Bench) -> None:
        """Neither a waiting nor a running job has a value."""
        [job] = await bench.add()
        assert await bench.engine.value(job.id) is None
        await bench.take(1)
        assert await bench.engine.value(job.id) is None

    async def test_nothing_moves_a_final_record(self, bench: Bench) -> None:
        """No revoke, change, sweep, claim or submit alters it; the changes answer the record as it is."""
        for state in FINAL:
            record = await bench.ended(state, lease=bench.unit)
            before = await bench.picture(record.id)
            changes = [revoke(), revoke(ttl=1.0), *(Change(other) for other in ResultState), Change(ResultState.PENDING, b"{}")]
            for change in changes:
                for unless in (FINAL, ()):
                    if change.ttl is None or unless:
                        answer = await bench.engine.update(record.id, change, unless=unless)
                        assert answer is not None
                        assert plain(answer) == before[0]
            await bench.advance(1)
            await bench.engine.sweep()
            assert await bench.engine.submit([make_job(id=record.id)]) == [False]
            assert await bench.engine.claim("node", ["q"], 1, lease=LONG, ids=[record.id]) == []
            assert await bench.picture(record.id) == before

    async def test_nothing_changes_in_states_that_were_excepted(self, bench: Bench) -> None:
        """While the record is in one of the states ``unless``, no part of the change is applied, and the record is answered."""
        final = await bench.ended()
        answer = await bench.engine.update(final.id, merge_metadata(b'{"a":1}'))
        assert answer is not None
        assert plain(answer) == plain(final)
        [job] = await bench.add()
        for change in (revoke(), merge_metadata(b'{"a":1}'), Change(ttl=1.0)):
            answer = await bench.engine.update(job.id, change, unless=[ResultState.PENDING])
            assert answer is not None
            assert plain(answer) == plain(await bench.record(job.id))
            assert (answer.state, labels(answer), answer.ttl) == (ResultState.PENDING, {}, None)

    async def test_metadata_of_a_final_record(self, bench: Bench) -> None:
        """Labels may still be put on a record that is final, when the caller says so."""
        for state in FINAL:
            record = await bench.ended(state, metadata=b'{"a":1,"b":1}')
            answer = await bench.engine.update(record.id, merge_metadata(b'{"b":2,"c":3}'), unless=())
            assert answer is not None
            assert plain(answer) == plain(record._replace(metadata=b'{"a":1,"b":2,"c":3}'))
            assert await bench.picture(record.id) == (plain(answer), b"1")

    async def test_revoke_against_success(self, bench: Bench) -> None:
        """Of a revoke and a success that meet, exactly one wins; both callers learn the same, and it stays so."""
        other = await bench.another()
        for number in range(24):
            claim = await bench.start()
            id, token = claim.token.id, claim.token
            settle, update = other.settle([succeeded(token, b"1")]), bench.engine.update(id, revoke())
            if number % 2:
                [settled], updated = await asyncio.gather(settle, update)
            else:
                updated, [settled] = await asyncio.gather(update, settle)
            assert updated is not None
            record = await bench.record(id)
            assert record.state is updated.state
            assert record.state is (ResultState.REVOKED if settled is None else ResultState.SUCCESS)
            assert await other.value(id) == (None if settled is None else b"1")
            assert (record.starts, record.stops) == (1, 1)
            before = await bench.picture(id)
            await asyncio.gather(other.settle([failed(token, b"2")]), bench.engine.update(id, revoke(), unless=()))
            assert await bench.picture(id) == before

    async def test_revoke_against_claim(self, bench: Bench) -> None:
        """A job that is claimed and revoked at once ends revoked, and a token that its claimer got is spent."""
        other = await bench.another()
        for _ in range(24):
            [job] = await bench.add()
            claims, updated = await asyncio.gather(other.claim("node", ["q"], 1, lease=LONG), bench.engine.update(job.id, revoke()))
            assert updated is not None
            assert updated.state is ResultState.REVOKED
            record = await bench.record(job.id)
            assert (record.starts, record.stops) == (len(claims), len(claims))
            assert await other.settle([succeeded(claim.token, b"1") for claim in claims]) == [None] * len(claims)

    async def test_who_revokes_first(self, bench: Bench) -> None:
        """Revoked by many at once, a job ends once: they all see the same moment."""
        other = await bench.another()
        [job] = await bench.add()
        answers = await asyncio.gather(*(engine.update(job.id, revoke()) for engine in (bench.engine, other) * 4))
        assert len({answer and answer.finished for answer in answers}) == 1
        assert (await bench.record(job.id)).state is ResultState.REVOKED

    async def test_two_rivals_with_one_token(self, bench: Bench) -> None:
        """A success and a failure sent with one token: the first counts, the value is the winner's."""
        other = await bench.another()
        for _ in range(12):
            token = (await bench.start()).token
            answers = await asyncio.gather(bench.engine.settle([succeeded(token, b"1")]), other.settle([failed(token, b"0")]))
            winners = [record for [record] in answers if record is not None]
            assert len(winners) == 1
            want = b"1" if winners[0].state is ResultState.SUCCESS else b"0"
            assert await bench.picture(token.id) == (plain(winners[0]), want)

    async def test_merges_lose_no_key(self, bench: Bench) -> None:
        """Writers of different keys at once, on several engines and beside the end of the job, never lose one."""
        other = await bench.another()
        claim = await bench.start(metadata=b'{"own":0}')
        changes = [merge_metadata(b'{"k%d":%d}' % (i, i)) for i in range(40)]
        writes = [
            engine.update(claim.token.id, change, unless=()) for change, engine in zip(changes, (bench.engine, other) * 20, strict=True)
        ]
        answers, [settled] = await asyncio.gather(asyncio.gather(*writes), bench.engine.settle([succeeded(claim.token, b"1")]))
        assert settled is not None
        assert None not in answers
        assert labels(await bench.record(claim.token.id)) == {"own": 0} | {f"k{i}": i for i in range(40)}
