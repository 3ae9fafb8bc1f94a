"""Fenced: only the newest token can settle, save, or make a change that carries a token."""

# ruff: noqa: S101
from __future__ import annotations

import asyncio
from typing import Any

from mognet.outcomes import failed, invalid, merge_metadata, paused, released, resume, retry, revoke, revoked, succeeded, suspend
from mognet.records import Token
from mognet.states import ResultState
from mognet.testing.conformance.bench import LONG, Bench, Group, forged, labels, make_job, plain


class Fenced(Group):
    """The law *fenced*: a ghost, whose job is no longer its own, writes nothing."""

    async def refuses(self, bench: Bench, token: Token) -> None:
        """Every write that this token may be used for is refused, and nothing that can be seen changes."""
        engine, before = bench.engine, await bench.picture(token.id)
        error = b'{"type_name":"x:Y"}'
        fates = [succeeded(token, b"9"), failed(token, error), revoked(token, error), invalid(token, error)]
        fates += [retry(token, 0.0), paused(token), released(token)]
        for fate in fates:
            assert await engine.settle([fate]) == [None]
        assert await engine.settle(fates) == [None] * len(fates)
        for change in (suspend(token), resume(token), merge_metadata(b'{"ghost":1}', token)):
            assert await engine.update(token.id, change) is None
            assert await engine.update(token.id, change, unless=()) is None
        assert await engine.save(token, {"ghost": b"1"}) is None
        assert await engine.save(token, {"note": None}) is None
        assert await engine.load(token) == {}
        assert await engine.extend([token], LONG) == set()
        assert await bench.picture(token.id) == before

    async def test_a_ghost_writes_nothing(self, bench: Bench) -> None:
        """After another has claimed the job, the old token is refused everywhere, and the new one works."""
        ghost, heir = await bench.stolen(metadata=b'{"a":1}')
        assert await bench.engine.save(heir.token, {"note": b"1"}) == {}
        await self.refuses(bench, ghost.token)
        assert await bench.engine.extend([ghost.token, heir.token], LONG) == {heir.token}
        assert await bench.engine.load(heir.token) == {"note": b"1"}
        record = await bench.settle(succeeded(heir.token, b"1"))
        assert labels(record) == {"a": 1}
        await self.refuses(bench, ghost.token)
        await self.refuses(bench, heir.token)
        assert await bench.engine.value(record.id) == b"1"

    async def test_a_ghost_beside_the_heir_in_one_call(self, bench: Bench) -> None:
        """In one settle, a stale token is refused and the others count."""
        ghost, heir = await bench.stolen()
        free = await bench.start(queue="other")
        answers = await bench.engine.settle([failed(ghost.token, b"0"), succeeded(heir.token, b"1"), succeeded(free.token, b"2")])
        assert [record and record.state for record in answers] == [None, ResultState.SUCCESS, ResultState.SUCCESS]
        assert await bench.engine.value(heir.token.id) == b"1"

    async def test_a_ghost_and_the_heir_at_once(self, bench: Bench) -> None:
        """Settled at the same moment from two engines, only the heir's outcome counts."""
        other = await bench.another()
        ghost, heir = await bench.stolen()
        answers = await asyncio.gather(other.settle([failed(ghost.token, b"0")]), bench.engine.settle([succeeded(heir.token, b"1")]))
        assert [record and record.state for [record] in answers] == [None, ResultState.SUCCESS]
        assert (await bench.picture(heir.token.id))[1] == b"1"

    async def test_after_a_sweep(self, bench: Bench) -> None:
        """A swept job is in line again: the token of its lost attempt holds nothing."""
        ghost = await bench.start()
        assert await bench.engine.save(ghost.token, {"note": b"1"}) == {}
        await bench.crash(ghost)
        await self.refuses(bench, ghost.token)
        [heir] = await bench.take(1)
        assert await bench.engine.load(heir.token) == {"note": b"1"}

    async def test_after_every_fate(self, bench: Bench) -> None:
        """A token is spent by the settle that it made: the next attempt needs a new one."""
        for fate in (
            lambda t: retry(t, 0.0),
            lambda t: retry(t, LONG),
            paused,
            released,
            lambda t: succeeded(t, b"1"),
            lambda t: failed(t, b"1"),
        ):
            claim = await bench.start()
            await bench.settle(fate(claim.token))
            await self.refuses(bench, claim.token)
            await bench.drain()

    async def test_after_a_revoke(self, bench: Bench) -> None:
        """Revoking spends the token of a running job, and that of one that waits for its children."""
        for waits in (False, True):
            claim = await bench.start()
            if waits:
                await bench.engine.update(claim.token.id, suspend(claim.token))
            await bench.engine.update(claim.token.id, revoke())
            await self.refuses(bench, claim.token)
            assert (await bench.record(claim.token.id)).state is ResultState.REVOKED

    async def test_after_a_delete(self, bench: Bench) -> None:
        """The token of a deleted job is void, also when a job of the same id is submitted and claimed again."""
        claim = await bench.start()
        assert await bench.engine.delete([claim.token.id]) == 1
        await self.refuses(bench, claim.token)
        await bench.submit(make_job(id=claim.token.id))
        await self.refuses(bench, claim.token)
        [again] = await bench.take(1)
        assert again.token.start == claim.token.start
        await self.refuses(bench, claim.token)
        await bench.settle(succeeded(again.token, b"1"))

    async def test_forged_tokens(self, bench: Bench) -> None:
        """A token counts as a whole: id, start and holder."""
        claim = await bench.start()
        for token in forged(claim.token):
            await self.refuses(bench, token)
        [waiting] = await bench.add(queue="other")
        await self.refuses(bench, Token(waiting.id, 0, ""))
        await self.refuses(bench, Token(waiting.id, 1, ""))
        assert await bench.engine.extend([claim.token], LONG) == {claim.token}

    async def test_the_update_asks_for_the_token_of_its_own_job(self, bench: Bench) -> None:
        """The valid token of one job is no key to another."""
        mine, yours = await bench.start(queue="a"), await bench.start(queue="b")
        before = await bench.picture(yours.token.id)
        assert await bench.engine.update(yours.token.id, merge_metadata(b'{"a":1}', mine.token)) is None
        assert await bench.engine.update(yours.token.id, suspend(mine.token)) is None
        assert await bench.picture(yours.token.id) == before

    async def test_a_running_attempt_may_write(self, bench: Bench) -> None:
        """The newest token writes metadata and notes while it runs and while it waits for its children."""
        token = (await bench.start()).token
        for key in ("running", "suspended"):
            record = await bench.engine.update(token.id, merge_metadata(b'{"%b":1}' % key.encode(), token))
            assert record is not None
            assert key in labels(record)
            assert await bench.engine.save(token, {key: b"1"}) == {}
            await bench.engine.update(token.id, suspend(token))
        assert await bench.engine.load(token) == {"running": b"1", "suspended": b"1"}

    async def test_anyone_may_label_without_a_token(self, bench: Bench) -> None:
        """A change without a token needs none, whoever holds the job."""
        claim = await bench.start()
        record = await bench.engine.update(claim.token.id, merge_metadata(b'{"a":1}'))
        assert record is not None
        assert plain(record) == plain(claim.record._replace(metadata=b'{"a":1}'))

    async def test_a_child_needs_its_parents_attempt(self, bench: Bench) -> None:
        """With ``parent_token`` a child is stored while that attempt holds its job, running or waiting; afterwards it is refused."""
        ghost = await bench.start()
        mine: dict[str, Any] = {"queue": "children", "parent": ghost.token.id, "root": ghost.token.id, "parent_token": ghost.token}
        await bench.add(**mine)
        await bench.engine.update(ghost.token.id, suspend(ghost.token))
        await bench.add(**mine)
        await bench.crash(ghost)
        swept = make_job(**mine)
        assert await bench.engine.submit([swept]) == [False]
        [heir] = await bench.take(1)
        late, good, free = make_job(**mine), make_job(**{**mine, "parent_token": heir.token}), make_job(queue="children")
        assert await bench.engine.submit([late, good, free]) == [False, True, True]
        assert await bench.engine.get([swept.id, late.id]) == [None, None]
        await bench.settle(succeeded(heir.token, b"1"))
        after = make_job(**{**mine, "parent_token": heir.token})
        assert await bench.engine.submit([after]) == [False]
        assert await bench.engine.get([after.id]) == [None]
        assert len(await bench.drain("children")) == 4
        await bench.add(**{**mine, "parent_token": None})

    async def test_a_refused_child_may_come_back(self, bench: Bench) -> None:
        """A refused child leaves no record, so that the new attempt can submit the same id."""
        ghost, heir = await bench.stolen()
        child = make_job(queue="children", parent=ghost.token.id, parent_token=ghost.token)
        assert await bench.engine.submit([child]) == [False]
        await bench.submit(child._replace(parent_token=heir.token))
        assert await bench.drain("children") == [child.id]
