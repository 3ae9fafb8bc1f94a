"""Counters: ``starts - stops`` counts the crashes, ``attempt`` the retries that a task asked for."""

# ruff: noqa: S101
from __future__ import annotations

from mognet.outcomes import failed, paused, released, resume, retry, revoke, succeeded, suspend
from mognet.records import Claim, Token
from mognet.states import FINAL, ResultState
from mognet.testing.conformance.bench import LONG, Bench, Group, plain


class Counters(Group):
    """``starts``, ``stops`` and ``attempt``, along every way that a job may go."""

    async def counts(self, bench: Bench, token: Token) -> tuple[int, int, int, ResultState]:
        """Starts, stops, attempt and state as they are stored."""
        record = await bench.record(token.id)
        return record.starts, record.stops, record.attempt, record.state

    async def next(self, bench: Bench) -> Claim:
        """Claim the only job again."""
        return (await bench.take(1))[0]

    async def test_a_straight_way(self, bench: Bench) -> None:
        """One start, one stop."""
        for end in (succeeded, failed):
            claim = await bench.start()
            assert claim.record.crashes == 1
            assert await self.counts(bench, claim.token) == (1, 0, 1, ResultState.RUNNING)
            record = await bench.settle(end(claim.token, b"1"))
            assert (record.starts, record.stops, record.attempt, record.crashes) == (1, 1, 1, 0)

    async def test_waiting_for_children(self, bench: Bench) -> None:
        """A suspend counts a stop, a resume a start; the token, the node and the times stay."""
        claim = await bench.start()
        token = claim.token
        for round in range(1, 4):
            record = await bench.engine.update(token.id, suspend(token))
            assert record is not None
            assert plain(record) == plain(claim.record._replace(state=ResultState.SUSPENDED, starts=round, stops=round))
            record = await bench.engine.update(token.id, resume(token))
            assert record is not None
            assert plain(record) == plain(claim.record._replace(state=ResultState.RUNNING, starts=round + 1, stops=round))
        assert await bench.engine.extend([token], LONG) == {token}
        record = await bench.settle(succeeded(token, b"1"))
        assert (record.starts, record.stops) == (4, 4)

    async def test_in_the_state_already(self, bench: Bench) -> None:
        """To resume what runs, and to suspend what is suspended, changes nothing."""
        token = (await bench.start()).token
        await bench.engine.update(token.id, resume(token))
        assert await self.counts(bench, token) == (1, 0, 1, ResultState.RUNNING)
        for _ in range(2):
            await bench.engine.update(token.id, suspend(token))
            assert await self.counts(bench, token) == (1, 1, 1, ResultState.SUSPENDED)
        for _ in range(2):
            await bench.engine.update(token.id, resume(token))
            assert await self.counts(bench, token) == (2, 1, 1, ResultState.RUNNING)

    async def test_the_claim_after_a_resume(self, bench: Bench) -> None:
        """Whoever claims next starts from the raised counter, and gets a newer token."""
        claim = await bench.start()
        await bench.engine.update(claim.token.id, suspend(claim.token))
        await bench.engine.update(claim.token.id, resume(claim.token))
        await bench.crash(claim)
        again = await self.next(bench)
        assert (again.token.start, again.record.starts, again.record.stops) == (3, 3, 1)
        assert await bench.engine.extend([claim.token, again.token], LONG) == {again.token}

    async def test_paused_and_released(self, bench: Bench) -> None:
        """Each counts one stop, and no attempt."""
        [job] = await bench.add()
        for round, fate in enumerate([paused, released, paused, released], 1):
            claim = await self.next(bench)
            assert claim.token[:2] == (job.id, round)
            record = await bench.settle(fate(claim.token))
            assert (record.starts, record.stops, record.attempt, record.state) == (round, round, 1, ResultState.SUSPENDED)

    async def test_retried(self, bench: Bench) -> None:
        """Each retry raises ``attempt`` by one; a claim shows it."""
        await bench.add()
        for attempt in range(1, 5):
            claim = await self.next(bench)
            assert claim.record.attempt == attempt
            record = await bench.settle(retry(claim.token, 0.0))
            assert (record.starts, record.stops, record.attempt, record.state) == (attempt, attempt, attempt + 1, ResultState.PENDING)
            assert (record.finished, record.expires) == (None, None)

    async def test_crashed_while_running(self, bench: Bench) -> None:
        """A lost worker leaves a start without a stop; each crash counts, and no attempt."""
        claim = await bench.start()
        for crashes in range(1, 4):
            await bench.crash(claim)
            assert await self.counts(bench, claim.token) == (crashes, 0, 1, ResultState.PENDING)
            claim = await self.next(bench)
            assert claim.record.crashes == crashes + 1
        record = await bench.settle(succeeded(claim.token, b"1"))
        assert (record.starts, record.stops, record.crashes) == (4, 1, 3)

    async def test_crashed_while_suspended(self, bench: Bench) -> None:
        """A worker lost while its job waited for children did not end it in order: the sweep takes the stop back."""
        claim = await bench.start()
        await bench.engine.update(claim.token.id, suspend(claim.token))
        await bench.crash(claim)
        assert await self.counts(bench, claim.token) == (1, 0, 1, ResultState.PENDING)
        claim = await self.next(bench)
        await bench.engine.update(claim.token.id, suspend(claim.token))
        await bench.engine.update(claim.token.id, resume(claim.token))
        await bench.crash(claim)
        assert await self.counts(bench, claim.token) == (3, 1, 1, ResultState.PENDING)
        record = await bench.settle(succeeded((await self.next(bench)).token, b"1"))
        assert (record.starts, record.stops, record.crashes) == (4, 2, 2)

    async def test_a_pause_is_no_crash(self, bench: Bench) -> None:
        """A job that is SUSPENDED in line has no lease: no sweep takes its stop back."""
        claim = await bench.start(lease=bench.unit)
        await bench.settle(paused(claim.token))
        await bench.advance(1)
        assert (await bench.engine.sweep()).recovered == 0
        assert await self.counts(bench, claim.token) == (1, 1, 1, ResultState.SUSPENDED)

    async def test_settled_while_suspended(self, bench: Bench) -> None:
        """An attempt that ends while it waits has counted its stop already."""
        for fate in (lambda t: succeeded(t, b"1"), released, paused, lambda t: retry(t, 0.0)):
            claim = await bench.start()
            await bench.engine.update(claim.token.id, suspend(claim.token))
            record = await bench.settle(fate(claim.token))
            assert (record.starts, record.stops) == (1, 1)
            await bench.drain()

    async def test_revoked(self, bench: Bench) -> None:
        """A revoke ends a running attempt in order."""
        claim = await bench.start()
        await bench.crash(claim)
        claim = await self.next(bench)
        record = await bench.engine.update(claim.token.id, revoke())
        assert record is not None
        assert (record.starts, record.stops, record.crashes) == (2, 1, 1)
        assert record.state in FINAL
