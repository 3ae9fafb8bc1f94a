"""Bugs in what is told of many jobs: by their metadata, their changes, their logs; and in reruns and progress."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from mognet.engines.memory import MemoryEngine, Row
from mognet.outcomes import Change
from mognet.records import Changes, Query, Record, Token
from mognet.states import FINAL, ResultState

from .planting import caught_by

# metadata


@caught_by("test_changed_metadata")
class LabelsOfTheFirstDay(MemoryEngine):
    def _insert(self, row: Row) -> None:
        super()._insert(row)
        vars(self._store).setdefault("first", {})[row.record.id] = row.record.metadata

    def _fits(self, row: Row, query: Query) -> bool:
        first = row.record._replace(metadata=vars(self._store)["first"][row.record.id])
        return super()._fits(replace(row, record=first), query)


@caught_by("test_declared_later")
class ReindexForgetsWhatWasThere(MemoryEngine):
    async def declare(self, keys: Collection[str], *, only: bool = False) -> frozenset[str]:
        vars(self._store).setdefault("old", set()).update(self._store.rows)
        return await super().declare(keys, only=only)

    def _fits(self, row: Row, query: Query) -> bool:
        hidden = bool(query.metadata) and row.record.id in vars(self._store).get("old", ())
        return super()._fits(row, query) and not hidden


@caught_by("test_pages")
class PagesByTheMoment(MemoryEngine):
    def _fits(self, row: Row, query: Query) -> bool:
        after, record = query.after, row.record
        behind = after is None or (record.created < after.created if query.newest_first else record.created > after.created)
        return behind and super()._fits(row, query)


@caught_by("test_counts_by_value")
class OnlyValuesAreCounted(MemoryEngine):
    async def count(self, query: Query, *, by: str = "state") -> dict[str, int]:
        counted = await super().count(query, by=by)
        return {group: number for group, number in counted.items() if group}


@caught_by("test_deleted_jobs")
class ADeleteHidesChanges(MemoryEngine):
    def _remove(self, id: UUID) -> bool:
        self._store.changes.clear()
        return super()._remove(id)


@caught_by("test_deleted_jobs")
class NumbersComeAgain(MemoryEngine):
    def _remove(self, id: UUID) -> bool:
        removed = super()._remove(id)
        self._store.last_change = max(self._store.changes.values(), default=0)
        return removed


@caught_by("test_folded_and_in_order")
class ChangesByCreation(MemoryEngine):
    def _changed(self, row: Row) -> None:
        before = list(self._store.changes)
        super()._changed(row)
        number = self._store.changes[row.record.id]
        self._store.changes = {id: self._store.changes[id] for id in before} | {row.record.id: number}


@caught_by("test_filters")
class ChangesIgnoreTheFilter(MemoryEngine):
    async def changes(self, since: str | None, query: Query = Query(), *, limit: int = 1000) -> Changes:  # noqa: B008 - immutable
        return await super().changes(since, Query(), limit=limit)


@caught_by("test_an_index_that_comes_and_goes")
class FewAreAll(MemoryEngine):
    async def changes(self, since: str | None, query: Query = Query(), *, limit: int = 1000) -> Changes:  # noqa: B008 - immutable
        changes = await super().changes(since, query, limit=limit)
        return changes._replace(at=str(self._store.last_change), more=False) if query.metadata and changes.changed else changes


@caught_by("test_from_any_place")
class OnePlaceForThePage(MemoryEngine):
    async def changes(self, since: str | None, query: Query = Query(), *, limit: int = 1000) -> Changes:  # noqa: B008 - immutable
        changes = await super().changes(since, query, limit=limit)
        return changes._replace(changed=[changed._replace(at=changes.at) for changed in changes.changed])


@caught_by("test_a_revoke_of_many")
class OnlyTheRevokedIsTold(MemoryEngine):
    def _apply(self, row: Row, change: Change) -> None:
        before = dict(self._store.changes)
        super()._apply(row, change)
        if change.descendants:
            kept = {id: number for id, number in before.items() if id != row.record.id}
            self._store.changes = kept | {row.record.id: self._store.last_change}


@caught_by("test_a_ring")
class ChangesAreNotRung(MemoryEngine):
    def _ring_changed(self) -> None:
        pass


@caught_by("test_what_is_left_alone")
class SuccessRunsAgain(MemoryEngine):
    def _update(self, id: UUID, change: Change, unless: Collection[ResultState]) -> Record | None:
        row = self._live(id)
        if row is not None and change.body is not None and row.record.state is ResultState.SUCCESS and not unless:
            self._rerun(row, change, change.body)
        return super()._update(id, change, unless)


@caught_by("test_as_new")
class CrashesAreNotForgiven(MemoryEngine):
    def _rerun(self, row: Row, change: Change, body: bytes) -> None:
        stops = row.record.stops
        super()._rerun(row, change, body)
        row.record = row.record._replace(stops=stops - 1)


@caught_by("test_bodies_are_kept")
class FailureDropsTheBody(MemoryEngine):
    def _end(self, row: Row, state: ResultState, ttl: float | None, value_ttl: float | None = None) -> None:
        super()._end(row, state, ttl, value_ttl)
        row.body = b""


@caught_by("test_only_by_the_holder")
class AnybodySaysHowFarItIs(MemoryEngine):
    async def update(self, id: UUID, change: Change, *, unless: Collection[ResultState] = FINAL) -> Record | None:
        return await super().update(id, change if change.progress is None else change._replace(token=None), unless=unless)


@caught_by("test_who_may_log")
class GhostsLog(MemoryEngine):
    async def log(self, lines: Mapping[Token, Sequence[bytes]], *, keep: int) -> set[Token]:
        forged = {row.token: new for token, new in lines.items() if (row := self._live(token.id)) is not None and row.token}
        return await super().log(forged, keep=keep)


@caught_by("test_many_jobs_at_once")
class OneLostJobHoldsUpAllLines(MemoryEngine):
    async def log(self, lines: Mapping[Token, Sequence[bytes]], *, keep: int) -> set[Token]:
        return await super().log(lines if all(self._held(token) for token in lines) else {}, keep=keep)


@caught_by("test_more_than_are_kept_at_once")
class LinesAreCountedAsKept(MemoryEngine):
    async def log(self, lines: Mapping[Token, Sequence[bytes]], *, keep: int) -> set[Token]:
        return await super().log({token: new[-keep:] for token, new in lines.items()}, keep=keep)
