"""The suite itself is proved: each of these engines has one bug, and a test of the suite fails on it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import pytest

from mognet.engine import DONE, Engine
from mognet.engines.memory import MemoryEngine, MemoryStore, Row
from mognet.outcomes import Again, Change, Outcome
from mognet.records import Claim, Job, Query, Record, Signal, Swept, Token
from mognet.states import FINAL, ResultState
from mognet.testing.conformance import APP, Bench, EngineConformance
from mognet.testing.machine import prove

from . import planted  # noqa: F401 - its bugs are registered by the import
from .conftest import MemoryHarness
from .planting import BUGS, caught_by

# who holds what


@caught_by("test_a_ghost_writes_nothing")
class AnyTokenHolds(MemoryEngine):
    def _held(self, token: Token) -> Row | None:
        return self._live(token.id)


@caught_by("test_forged_tokens")
class TokensWithoutHolder(MemoryEngine):
    def _held(self, token: Token) -> Row | None:
        row = self._live(token.id)
        return row if row is not None and row.token is not None and row.token[:2] == token[:2] else None


@caught_by("test_a_ghost_writes_nothing")
class UpdateIgnoresTheToken(MemoryEngine):
    async def update(self, id: UUID, change: Change, *, unless: Collection[ResultState] = FINAL) -> Record | None:
        return await super().update(id, change._replace(token=None), unless=unless)


@caught_by("test_a_child_needs_its_parents_attempt")
class StaleParentsHaveChildren(MemoryEngine):
    def _add(self, job: Job, enqueue: bool) -> bool:
        return super()._add(job._replace(parent_token=None), enqueue)


@caught_by("test_extend_many")
class ExtendAnswersAll(MemoryEngine):
    async def extend(self, tokens: Collection[Token], lease: float) -> set[Token]:
        await super().extend(tokens, lease)
        return set(tokens)


@caught_by("test_concurrent_claims_get_different_jobs")
class ClaimTakesItsTime(MemoryEngine):
    async def claim(self, node: str, queues: Collection[str], limit: int, **options: Any) -> list[Claim]:
        rows = self._best(queues, limit, None)
        for row in rows:
            self._line_up(row, row.arrival)
        await asyncio.sleep(0)
        return [self._take(row, node, options["lease"]) for row in rows]


@caught_by("test_a_storm_of_cancelled_claims")
class CancelledClaimKeepsTheJob(MemoryEngine):
    async def claim(self, *args: Any, **options: Any) -> list[Claim]:
        claims = await super().claim(*args, **options)
        await asyncio.sleep(0)
        return claims


@caught_by("test_a_cancelled_submit")
class SubmitOneByOne(MemoryEngine):
    async def submit(self, jobs: Sequence[Job], *, enqueue: bool = True) -> list[bool]:
        answers = []
        for job in jobs:
            answers += await super().submit([job], enqueue=enqueue)
            await asyncio.sleep(0)
        return answers


@caught_by("test_lease")
class LeaseNeverEnds(MemoryEngine):
    def _take(self, row: Row, node: str, lease: float) -> Claim:
        return super()._take(row, node, lease * 2)


@caught_by("test_started_is_set_the_first_time")
class StartedEachTime(MemoryEngine):
    def _take(self, row: Row, node: str, lease: float) -> Claim:
        row.record = row.record._replace(started=None)
        return super()._take(row, node, lease)


# final is final


@caught_by("test_nothing_moves_a_final_record")
class RevokeOverwritesSuccess(MemoryEngine):
    def _apply(self, row: Row, change: Change) -> None:
        if change.state in FINAL and row.record.done:
            row.record = row.record._replace(state=change.state)
        super()._apply(row, change)


@caught_by("test_nothing_changes_in_states_that_were_excepted")
class LabelsIgnoreUnless(MemoryEngine):
    async def update(self, id: UUID, change: Change, *, unless: Collection[ResultState] = FINAL) -> Record | None:
        return await super().update(id, change, unless=() if change.metadata else unless)


@caught_by("test_each_end")
class ValueIsDropped(MemoryEngine):
    def _settle(self, outcome: Outcome) -> Record | None:
        return super()._settle(outcome._replace(value=None))


@caught_by("test_merges_lose_no_key")
class ReadModifyWrite(MemoryEngine):
    async def update(self, id: UUID, change: Change, *, unless: Collection[ResultState] = FINAL) -> Record | None:
        before = (await self.get([id]))[0]
        await asyncio.sleep(0)
        if before is not None and change.metadata is not None and (row := self._live(id)) is not None:
            row.record = row.record._replace(metadata=before.metadata)
        return await super().update(id, change, unless=unless)


@caught_by("test_a_merge_is_not_deep")
class LabelsAreReplaced(MemoryEngine):
    def _apply(self, row: Row, change: Change) -> None:
        if change.metadata is not None:
            row.record = row.record._replace(metadata=b"{}")
        super()._apply(row, change)


# order


class Reordered(MemoryEngine):
    """Takes what is due by another rule."""

    @staticmethod
    def rank(row: Row) -> Any:
        raise NotImplementedError

    def _best(self, queues: Collection[str], limit: int, ids: Collection[UUID] | None) -> list[Row]:
        found = super()._best(queues, 1_000_000, ids)
        for row in found:
            self._line_up(row, row.arrival)
        return sorted(found, key=self.rank)[:limit]


@caught_by("test_priority")
class ByArrivalOnly(Reordered):
    @staticmethod
    def rank(row: Row) -> Any:
        return row.arrival


@caught_by("test_arrival")
class LastComeFirstServed(Reordered):
    @staticmethod
    def rank(row: Row) -> Any:
        return (-row.record.priority, row.record.due, -(row.arrival or 0))


@caught_by("test_due_before_arrival")
class DueDoesNotMatter(Reordered):
    @staticmethod
    def rank(row: Row) -> Any:
        return (-row.record.priority, row.arrival)


@caught_by("test_due")
class EarlyBird(MemoryEngine):
    def _best(self, queues: Collection[str], limit: int, ids: Collection[UUID] | None) -> list[Row]:
        clock, self._clock = self._clock, lambda: clock() + 1.0
        try:
            return super()._best(queues, limit, ids)
        finally:
            self._clock = clock


@caught_by("test_released_keeps_its_place")
class ReleasedGoesBehind(MemoryEngine):
    def _line_up(self, row: Row, arrival: int | None = None) -> None:
        super()._line_up(row)


@caught_by("test_paused_goes_behind")
class PausedStaysInFront(MemoryEngine):
    def _line_up(self, row: Row, arrival: int | None = None) -> None:
        super()._line_up(row, row.arrival)


# counters and upkeep


@caught_by("test_retried")
class RetryKeepsAttempt(MemoryEngine):
    def _settle(self, outcome: Outcome) -> Record | None:
        record = super()._settle(outcome)
        if record is not None and outcome.again is Again.RETRY:
            row = self._store.rows[record.id]
            row.record = record = record._replace(attempt=record.attempt - 1)
        return record


@caught_by("test_after_the_lease_another_gets_it")
class SweepForgetsTheLine(MemoryEngine):
    async def sweep(self, *, grace: float = 30.0, limit: int = 1000) -> Swept:
        lost = [id for id in self._store.leased if self._store.rows[id].lease_end <= self._clock()]
        swept = await super().sweep(grace=grace, limit=limit)
        for id in lost:
            self._leave_line(self._store.rows[id])
        return swept


@caught_by("test_crashed_while_suspended")
class CrashWhileWaitingIsNoCrash(MemoryEngine):
    async def sweep(self, *, grace: float = 30.0, limit: int = 1000) -> Swept:
        stops = {id: self._store.rows[id].record.stops for id in self._store.leased}
        swept = await super().sweep(grace=grace, limit=limit)
        for id, count in stops.items():
            if (row := self._store.rows.get(id)) is not None:
                row.record = row.record._replace(stops=count)
        return swept


@caught_by("test_the_limit")
class SweepHasNoLimit(MemoryEngine):
    async def sweep(self, *, grace: float = 30.0, limit: int = 1000) -> Swept:
        return await super().sweep(grace=grace)


@caught_by("test_settled_while_suspended")
class StopsTwice(MemoryEngine):
    @staticmethod
    def _stops(row: Row) -> int:
        return row.record.stops + (row.token is not None)


# lifetimes and traces


@caught_by("test_expiry")
class ExpiredIsReadable(MemoryEngine):
    async def get(self, ids: Collection[UUID]) -> list[Record | None]:
        return [row.record if (row := self._store.rows.get(id)) is not None else None for id in ids]


@caught_by("test_set_before_the_end")
class LifetimeByHandIsForgotten(MemoryEngine):
    def _end(self, row: Row, state: ResultState, ttl: float | None, value_ttl: float | None = None) -> None:
        by_hand, row.record = row.record.ttl, row.record._replace(ttl=None)
        super()._end(row, state, ttl, value_ttl)
        row.record = row.record._replace(ttl=by_hand)


@caught_by("test_nothing_unfinished_expires")
class UnfinishedExpires(MemoryEngine):
    def _limit_life(self, row: Row, ttl: float) -> None:
        super()._limit_life(row, ttl)
        self._set_end(row, ttl, ttl)

    def _live(self, id: UUID) -> Row | None:
        row = self._store.rows.get(id)
        return None if row is None or (row.record.expires or 1e99) <= self._clock() else row


@caught_by("test_notes_go_at_the_end")
class NotesSurviveTheEnd(MemoryEngine):
    def _end(self, row: Row, state: ResultState, ttl: float | None, value_ttl: float | None = None) -> None:
        notes = dict(row.notes)
        super()._end(row, state, ttl, value_ttl)
        row.notes.update(notes)


@caught_by("test_notes_with_a_lifetime")
class NotesForEver(MemoryEngine):
    async def save(self, token: Token, changes: Mapping[str, bytes | None], *, ttl: float | None = None) -> dict[str, bytes] | None:
        return await super().save(token, changes)


@caught_by("test_delete_in_every_state")
class DeleteForgetsTheLine(MemoryEngine):
    def _leave_line(self, row: Row) -> None:
        if row.record.state is ResultState.RUNNING or row.token is not None:
            super()._leave_line(row)
        row.place = None


# trees


@caught_by("test_born_revoked")
class BornAlive(MemoryEngine):
    def _add(self, job: Job, enqueue: bool) -> bool:
        row = self._live(job.parent) if job.parent is not None else None
        return super()._add(job._replace(parent=None) if row is not None and row.record.state is ResultState.REVOKED else job, enqueue)


@caught_by("test_a_tombstone")
class NoTombstone(MemoryEngine):
    async def update(self, id: UUID, change: Change, *, unless: Collection[ResultState] = FINAL) -> Record | None:
        return await super().update(id, change._replace(tombstone=False), unless=unless)


@caught_by("test_a_deep_chain")
class RevokeReachesChildrenOnly(MemoryEngine):
    def _descendants(self, id: UUID) -> Iterator[Row]:
        return (row for row in super()._descendants(id) if row.record.parent == id)


@caught_by("test_through_finished_jobs")
class FinishedJobsShieldTheirs(MemoryEngine):
    def _descendants(self, id: UUID) -> Iterator[Row]:
        for child in list(self._store.children.get(id, ())):
            row = self._live(child)
            if row is not None and not row.record.done:
                yield row
                yield from self._descendants(child)


# signals, and what is searched


@caught_by("test_done_after_a_settle")
class DoneIsNotRung(MemoryEngine):
    def __init__(self, app: str = APP, *, store: MemoryStore, clock: Any) -> None:
        super().__init__(app, store=store, clock=clock)
        store.exchange.publish_lazily = lambda *_: None  # type: ignore[method-assign]


@caught_by("test_done_with_values_of_all_sizes")
class DoneCarriesEverything(MemoryEngine):
    def _end(self, row: Row, state: ResultState, ttl: float | None, value_ttl: float | None = None) -> None:
        value, row.value = row.value, row.value and row.value[:1000]
        super()._end(row, state, ttl, value_ttl)
        row.value = value


@caught_by("test_a_submit_wakes")
class SubmitWakesNobody(MemoryEngine):
    def __init__(self, app: str = APP, *, store: MemoryStore, clock: Any) -> None:
        super().__init__(app, store=store, clock=clock)
        store.exchange.ring = lambda: None  # type: ignore[method-assign]


@caught_by("test_after_leaving")
class SignalsAreKept(MemoryEngine):
    async def publish(self, channel: str, body: bytes) -> None:
        await super().publish(channel, body)
        if channel != DONE and channel not in self._store.exchange._boxes:
            self._store.lines[channel].jobs += 1


@caught_by("test_strange_channels")
class SignalsAreStripped(MemoryEngine):
    async def publish(self, channel: str, body: bytes) -> None:
        self._store.exchange.publish(Signal(channel.strip(), body.strip()))


@caught_by("test_parent_and_root")
class TreesWithoutTheirRoot(MemoryEngine):
    def _matching(self, query: Query) -> Iterator[Record]:
        return (record for record in super()._matching(query) if query.root is None or record.id != query.root)


@caught_by("test_submit_again_changes_nothing")
class SubmitOverwrites(MemoryEngine):
    def _add(self, job: Job, enqueue: bool) -> bool:
        row = self._live(job.id)
        if row is not None and not row.record.done:
            self._remove(job.id)
        return super()._add(job, enqueue)


class BuggyHarness(MemoryHarness):
    """An engine with a bug, and little patience with it."""

    patience = 0.3

    def __init__(self, bug: type[MemoryEngine]) -> None:
        super().__init__()
        self.bug = bug

    def open(self, app: str = APP) -> Engine:
        return self.bug(app, store=self.stores.setdefault(app, MemoryStore()), clock=self.clock)


async def run(bug: type[MemoryEngine], test: str) -> None:
    """One test of the suite, on an engine with one bug."""
    async with Bench(BuggyHarness(bug)) as bench:
        await getattr(EngineConformance(), test)(bench)
        await bench.check_leftovers()


def test_no_test_hides_another() -> None:
    """The suite is made of groups by inheritance: of two tests of one name, only one would run."""
    names = Counter(name for group in EngineConformance.__mro__ for name in vars(group) if name.startswith("test"))
    assert [name for name, number in names.items() if number > 1] == []


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
async def test_the_suite_catches(bug: type[MemoryEngine]) -> None:
    test = BUGS[bug]
    await run(MemoryEngine, test)
    with pytest.raises((AssertionError, TimeoutError, KeyError)):
        await run(bug, test)


@pytest.mark.parametrize(
    ("bug", "steps"),  # as many as it takes to find it soon: some bugs show in long sequences, some in many
    [
        (RetryKeepsAttempt, 60),
        (ReleasedGoesBehind, 60),
        (AnyTokenHolds, 60),
        (BornAlive, 30),
        (FinishedJobsShieldTheirs, 30),
        (LifetimeByHandIsForgotten, 30),
    ],
)
def test_the_machine_catches(bug: type[MemoryEngine], steps: int) -> None:
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        prove(lambda: BuggyHarness(bug), examples=2000, steps=steps, once=True)
