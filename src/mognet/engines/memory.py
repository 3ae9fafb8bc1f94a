"""The reference engine: everything in this process's memory. Read it as the specification of the seam."""

from __future__ import annotations

import heapq
import itertools
import secrets
import time
import weakref
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Self
from uuid import UUID

from mognet.codec import merge_metadata
from mognet.engine import METADATA, GroupBy
from mognet.engines.memory_rows import Line, MemoryRows, MemoryStore, Row, is_expired, too_late
from mognet.labels import has_metadata, labels
from mognet.outcomes import Again, Change, Outcome, may_rerun, revoke
from mognet.records import (
    Changed,
    Changes,
    Claim,
    Job,
    LogLine,
    Query,
    Record,
    Reindexed,
    Signal,
    Swept,
    Token,
    new_record,
)
from mognet.states import FINAL, ResultState


class MemoryEngine(MemoryRows):
    """An :class:`mognet.engine.Engine` without a server or a file; its jobs end with the process."""

    def __init__(self, app: str = "app", *, store: MemoryStore | None = None, clock: Callable[[], float] = time.time) -> None:
        super().__init__(store or MemoryStore(), clock)
        self.app = app

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    # the line

    async def submit(self, jobs: Sequence[Job], *, enqueue: bool = True) -> list[bool]:
        with self._store.lock:
            added = [self._add(job, enqueue) for job in jobs]
        if any(new and (enqueue or job.delay > 0) for new, job in zip(added, jobs, strict=True)):
            self._store.exchange.ring()
        self._ring_changed()
        return added

    def _add(self, job: Job, enqueue: bool) -> bool:
        if self._live(job.id) is not None:
            return False
        parent = self._live(job.parent) if job.parent is not None else None
        record = new_record(job, self._clock(), next(self._store.births))
        if parent is not None and parent.record.state is ResultState.REVOKED:
            self._insert(Row(record, job.body))
            self._end(self._store.rows[job.id], ResultState.REVOKED, job.ttl)
            return False
        if job.parent_token is not None and (parent is None or parent.token != job.parent_token):
            return False
        row = Row(record, job.body, latest=job.latest, ttl=job.ttl)
        self._insert(row)
        if job.latest is not None:
            self._store.limited[job.id] = None
        if enqueue or job.delay > 0:
            self._line_up(row)
        else:
            row.arrival = next(self._store.places)
            self._store.carried[job.id] = None
        return True

    async def claim(
        self,
        node: str,
        queues: Collection[str],
        limit: int,
        *,
        lease: float,
        wait: float = 0.0,
        ids: Collection[UUID] | None = None,
    ) -> list[Claim]:
        deadline = time.monotonic() + wait
        while True:
            with self._store.exchange.bell() as rung:
                with self._store.lock:
                    claims = [self._take(row, node, lease) for row in self._best(queues, limit, ids)]
                    due_in = self._next_due(queues, ids) - self._clock()
                left = deadline - time.monotonic()
                if claims or left <= 0:
                    self._ring_changed()
                    return claims
                await rung(max(0.0, min(left, due_in)))

    def _best(self, queues: Collection[str], limit: int, ids: Collection[UUID] | None) -> list[Row]:
        now = self._clock()
        if ids is not None:
            rows = [row for row in self._in_line(queues, ids) if row.record.due <= now]
            return sorted(rows, key=lambda row: (-row.record.priority, row.record.due, row.arrival))[:limit]
        chosen: list[Row] = []
        lines = [self._store.lines[queue] for queue in queues if queue in self._store.lines]
        while len(chosen) < limit:
            heads = [line for line in lines if self._head(line, now) is not None]
            if not heads:
                break
            row = self._store.rows[min(heads, key=lambda line: line.ready[0]).ready[0][-1]]
            self._leave_line(row)
            chosen.append(row)
        return chosen

    def _in_line(self, queues: Collection[str], ids: Collection[UUID]) -> list[Row]:
        rows = [row for id in set(ids) if (row := self._live(id)) is not None]
        waiting = [row for row in rows if row.place is not None or row.record.id in self._store.carried]
        return [row for row in waiting if row.record.queue in queues]

    def _head(self, line: Line, now: float) -> Row | None:
        """The best due job of a line, after what became due has moved up and what is stale has gone."""
        while line.later and line.later[0][0] <= now:
            due, place, id = heapq.heappop(line.later)
            row = self._at(due, place, id)
            if row is not None:
                heapq.heappush(line.ready, (-row.record.priority, due, place, id))
        while line.ready:
            row = self._at(*line.ready[0][1:])
            if row is not None:
                return row
            heapq.heappop(line.ready)
        return None

    def _next_due(self, queues: Collection[str], ids: Collection[UUID] | None) -> float:
        if ids is not None:
            return min((row.record.due for row in self._in_line(queues, ids)), default=float("inf"))
        lines = (self._store.lines[queue] for queue in queues if queue in self._store.lines)
        return min((line.later[0][0] for line in lines if line.later), default=float("inf"))

    def _take(self, row: Row, node: str, lease: float) -> Claim:
        now, old = self._clock(), row.record
        self._leave_line(row)
        row.token = Token(old.id, old.starts + 1, secrets.token_hex(8))
        row.lease_end = now + lease
        row.record = old._replace(state=ResultState.RUNNING, starts=old.starts + 1, node=node, started=old.started or now)
        self._changed(row)
        self._store.leased[old.id] = None
        return Claim(row.token, row.record, row.body)

    async def extend(self, tokens: Collection[Token], lease: float) -> set[Token]:
        with self._store.lock:
            held = {token for token in tokens if self._held(token) is not None}
            for token in held:
                self._store.rows[token.id].lease_end = self._clock() + lease
        return held

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Record | None]:
        with self._store.lock:
            settled = [self._settle(outcome) for outcome in outcomes]
        if any(outcome.again for outcome in outcomes):
            self._store.exchange.ring()
        self._ring_changed()
        return settled

    def _settle(self, outcome: Outcome) -> Record | None:
        row = self._held(outcome.token)
        if row is None:
            return None
        if outcome.again is None:
            row.value = outcome.value
            self._end(row, outcome.state, outcome.ttl, outcome.value_ttl)
        else:
            old = row.record
            due = old.due if outcome.again is Again.RELEASE else self._clock() + outcome.delay
            attempt = old.attempt + (outcome.again is Again.RETRY)
            row.record = old._replace(state=outcome.state, stops=self._stops(row), due=due, attempt=attempt)
            self._drop_token(row)
            self._changed(row)
            self._line_up(row, row.arrival if outcome.again is Again.RELEASE else None)
        return row.record

    # the records

    async def get(self, ids: Collection[UUID]) -> list[Record | None]:
        with self._store.lock:
            return [row.record if (row := self._live(id)) is not None else None for id in ids]

    async def value(self, id: UUID) -> bytes | None:
        with self._store.lock:
            row = self._live(id)
            expired = row is None or (row.value_expires is not None and row.value_expires <= self._clock())
            return None if row is None or expired else row.value

    async def body(self, id: UUID) -> bytes | None:
        with self._store.lock:
            row = self._live(id)
            kept = row is not None and row.record.name is not None and row.record.state is not ResultState.SUCCESS
            return row.body if row is not None and kept else None

    async def update(self, id: UUID, change: Change, *, unless: Collection[ResultState] = FINAL) -> Record | None:
        with self._store.lock:
            record = self._update(id, change, unless)
        if change.body is not None:
            self._store.exchange.ring()
        self._ring_changed()
        return record

    def _update(self, id: UUID, change: Change, unless: Collection[ResultState]) -> Record | None:
        row = self._live(id)
        if row is None:
            return self._bury(id, change) if change.tombstone else None
        if change.token is not None and row.token != change.token:
            return None
        if row.record.state in unless:
            return row.record
        if change.body is None:
            self._apply(row, change)
        elif may_rerun(row.record, change):
            self._rerun(row, change, change.body)
        return row.record

    def _rerun(self, row: Row, change: Change, body: bytes) -> None:
        metadata = row.record.metadata
        if change.metadata is not None:
            metadata = merge_metadata(metadata, change.metadata, change.max_metadata)
        anew = {field: Record._field_defaults[field] for field in ("started", "finished", "node", "ttl", "expires", "progress", "attempt")}
        old, due = row.record, self._clock() + change.delay
        row.record = old._replace(state=ResultState.PENDING, due=due, stops=old.starts, metadata=metadata, **anew)
        row.body, row.value, row.value_expires, row.latest = body, None, None, None
        self._changed(row)
        self._line_up(row)

    def _apply(self, row: Row, change: Change) -> None:
        before = row.record
        if change.metadata is not None:
            row.record = row.record._replace(metadata=merge_metadata(row.record.metadata, change.metadata, change.max_metadata))
        if change.progress is not None:
            row.record = row.record._replace(progress=change.progress)
        if change.state in FINAL:
            for each in [row, *self._descendants(row.record.id)] if change.descendants else [row]:
                if not each.record.done:
                    self._end(each, change.state, change.ttl)
        elif change.ttl is not None:
            self._limit_life(row, change.ttl)
        if change.state is ResultState.SUSPENDED and row.record.state is ResultState.RUNNING:
            row.record = row.record._replace(state=change.state, stops=row.record.stops + 1)
        elif change.state is ResultState.RUNNING and row.record.state is ResultState.SUSPENDED:
            row.record = row.record._replace(state=change.state, starts=row.record.starts + 1)
        if row.record != before:
            self._changed(row)

    def _limit_life(self, row: Row, ttl: float) -> None:
        row.record = row.record._replace(ttl=ttl)
        if row.record.done:
            self._set_end(row, ttl, ttl)

    def _bury(self, id: UUID, change: Change) -> Record:
        now = self._clock()
        row = Row(Record(id, None, "", ResultState.PENDING, 5, now, now, root=id, place=next(self._store.births)), b"")
        self._insert(row)
        self._end(row, change.state or ResultState.REVOKED, change.ttl)
        return row.record

    async def delete(self, ids: Collection[UUID], *, states: Collection[ResultState] = ()) -> int:
        with self._store.lock:
            rows = (row for id in ids if (row := self._live(id)) is not None)
            return sum(self._remove(row.record.id) for row in rows if not states or row.record.state in states)

    async def search(self, query: Query) -> AsyncIterator[Record]:
        with self._store.lock:
            records = sorted(self._matching(query), key=lambda record: record.stand, reverse=query.newest_first)
        for record in records[: query.limit]:
            yield record

    async def count(self, query: Query, *, by: GroupBy | str = "state") -> dict[str, int]:
        with self._store.lock:
            return dict(Counter(_group(record, by) for record in self._matching(query._replace(after=None))))

    def _matching(self, query: Query) -> Iterator[Record]:
        if query.parent is not None:
            ids = list(self._store.children.get(query.parent, ()))
        elif query.under is not None:
            ids = [query.under, *(row.record.id for row in self._descendants(query.under))]
        else:
            ids = list(self._store.rows)
        return (row.record for id in ids if (row := self._store.rows.get(id)) is not None and self._fits(row, query))

    def _fits(self, row: Row, query: Query) -> bool:
        seen = not is_expired(row.record, self._clock()) and (row.place is not None or not query.in_line)
        return seen and _matches(row.record, query)

    # what makes it quick to find records by their metadata: nothing, memory looks at all of them

    async def declare(self, keys: Collection[str], *, only: bool = False) -> frozenset[str]:
        return frozenset(keys)

    async def reindex(self, *, limit: int = 1000) -> Reindexed:
        return Reindexed(0, 0)

    # what has changed

    async def identity(self) -> str:
        return self._store.identity

    async def changes(self, since: str | None, query: Query = Query(), *, limit: int = 1000) -> Changes:  # noqa: B008 - immutable
        with self._store.lock:
            last = self._store.last_change
            if since is None:
                return Changes([], str(last), self._clock())
            if not since.isdecimal():
                raise ValueError(f"since={since!r} is no place in the order of changes")
            start = int(since)
            newer = itertools.takewhile(lambda entry: entry[1] > start, reversed(self._store.changes.items()))
            entries = list(newer)[::-1][:limit]
            at = entries[-1][1] if entries else last
            rows = [(number, self._store.rows[id]) for id, number in entries]
            under = None if query.under is None else {query.under, *(row.record.id for row in self._descendants(query.under))}
            seen = [(number, row) for number, row in rows if self._fits(row, query) and (under is None or row.record.id in under)]
            told = [Changed(str(number), row.record) for number, row in seen]
            return Changes(told, str(at), self._clock(), more=at < last, lost=start > last)

    # what a job logs

    async def log(self, lines: Mapping[Token, Sequence[bytes]], *, keep: int) -> set[Token]:
        with self._store.lock:
            rows = {token: row for token in lines if (row := self._held(token)) is not None}
            for token, row in rows.items():
                new = [LogLine(number, line) for number, line in enumerate(lines[token], row.logged + 1)]
                row.log = deque([*row.log, *new], maxlen=keep)
                row.logged += len(new)
            return set(rows)

    async def logs(self, id: UUID, *, after: int = 0) -> list[LogLine]:
        with self._store.lock:
            row = self._live(id)
            return [] if row is None else [line for line in row.log if line.number > after]

    # a running task's notes

    async def load(self, token: Token) -> dict[str, bytes]:
        with self._store.lock:
            row = self._held(token)
            return {} if row is None else dict(self._notes(row))

    async def save(self, token: Token, changes: Mapping[str, bytes | None], *, ttl: float | None = None) -> dict[str, bytes] | None:
        with self._store.lock:
            row = self._held(token)
            if row is None:
                return None
            notes = self._notes(row)
            replaced = {key: notes[key] for key in changes if key in notes}
            notes.update({key: value for key, value in changes.items() if value is not None})
            for key in [key for key, value in changes.items() if value is None]:
                notes.pop(key, None)
            row.notes_expire = None if ttl is None else self._clock() + ttl
            if row.notes_expire is not None:
                heapq.heappush(self._store.ending, (row.notes_expire, token.id))
                self._tidy()
            return replaced

    def _notes(self, row: Row) -> dict[str, bytes]:
        if row.notes_expire is not None and row.notes_expire <= self._clock():
            row.notes.clear()
        return row.notes

    # signals

    async def publish(self, channel: str, body: bytes) -> None:
        self._store.exchange.publish(Signal(channel, body))

    def subscribe(self, *channels: str) -> AbstractAsyncContextManager[AsyncIterator[Signal]]:
        return self._store.exchange.subscribe(*channels)

    # upkeep

    async def sweep(self, *, grace: float = 30.0, limit: int = 1000) -> Swept:
        with self._store.lock:
            now = self._clock()
            lost = [row for id in self._store.leased if (row := self._store.rows[id]).lease_end <= now][:limit]
            for row in lost:
                undone = 1 if row.record.state is ResultState.SUSPENDED else 0
                row.record = row.record._replace(state=ResultState.PENDING, stops=row.record.stops - undone)
                self._changed(row)
                self._drop_token(row)
                self._line_up(row, row.arrival)
            late = [row for id in self._store.limited if too_late(row := self._store.rows[id], now)][:limit]
            for row in late:
                self._apply(row, revoke(ttl=row.ttl))
            carried = [row for id in self._store.carried if (row := self._store.rows[id]).record.due + grace <= now][:limit]
            for row in carried:
                self._leave_line(row)
                self._line_up(row, row.arrival)
            expired = self._expire(now, limit)
        if lost or carried:
            self._store.exchange.ring()
        self._ring_changed()
        more = limit in (len(lost), len(late), len(carried), expired)
        return Swept(len(lost), expired, more, late=len(late), carried=len(carried))

    def _expire(self, now: float, limit: int) -> int:
        ending, expired = self._store.ending, 0
        while ending and ending[0][0] <= now and expired < limit:
            row = self._store.rows.get(heapq.heappop(ending)[1])
            if row is not None and is_expired(row.record, now):
                expired += self._remove(row.record.id)
            elif row is not None and row.value is not None and row.value_expires is not None and row.value_expires <= now:
                row.value = None
                expired += 1
            elif row is not None and row.notes and not self._notes(row):
                expired += 1
        return expired


def _matches(record: Record, query: Query) -> bool:
    return (
        (not query.states or record.state in query.states)
        and query.name in (None, record.name)
        and query.queue in (None, record.queue)
        and query.node in (None, record.node)
        and query.parent in (None, record.parent)
        and query.root in (None, record.root)
        and (query.id_prefix is None or record.id.hex.startswith(query.id_prefix))
        and (query.created_after is None or record.created > query.created_after)
        and (query.created_before is None or record.created < query.created_before)
        and (query.after is None or (record.stand < query.after if query.newest_first else record.stand > query.after))
        and (not query.metadata or has_metadata(record.metadata, query.metadata))
    )


def _group(record: Record, by: str) -> str:
    if by.startswith(METADATA):
        path = by.removeprefix(METADATA)
        return labels(record.metadata, [path]).get(path, b"").decode()
    return str(getattr(record, by) or "")


_shared: weakref.WeakValueDictionary[tuple[str, str], MemoryStore] = weakref.WeakValueDictionary()


def shared_store(app: str, name: str) -> MemoryStore:
    """The store of this name, for every app of one name in this process; gone when nobody uses it any more."""
    return _shared.setdefault((app, name), MemoryStore())
