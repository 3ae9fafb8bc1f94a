"""What the memory engine keeps, and what becomes of one job in it."""

from __future__ import annotations

import heapq
import itertools
import secrets
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from uuid import UUID

from mognet.codec import pack_done
from mognet.engine import CHANGED, DONE, SMALL_VALUE
from mognet.engines.mailbox import Exchange
from mognet.records import LogLine, Record, Token
from mognet.states import ResultState


@dataclass(slots=True)
class Row:
    """A job as memory keeps it."""

    record: Record
    body: bytes
    place: int | None = None
    """Order of arrival, while in line."""
    arrival: int | None = None
    """The place it had last, which it gets back unless it was retried or paused."""
    token: Token | None = None
    lease_end: float = 0.0
    value: bytes | None = None
    value_expires: float | None = None
    notes: dict[str, bytes] = field(default_factory=dict)
    notes_expire: float | None = None
    latest: float | None = None
    ttl: float | None = None
    """Of the job: seconds that the record lives if it ends too late."""
    log: deque[LogLine] = field(default_factory=deque)
    logged: int = 0
    """How many lines it has logged, those included that are gone."""


@dataclass(slots=True)
class Line:
    """The jobs of one queue that wait: those that are due, best first, and the others by due time.

    Entries are never searched for; one whose place is no longer its row's is stale and skipped, and goes at the latest
    when the stale outnumber the others.
    """

    ready: list[tuple[int, float, int, UUID]] = field(default_factory=list)
    later: list[tuple[float, int, UUID]] = field(default_factory=list)
    jobs: int = 0


class MemoryStore:
    """What engines of one name share. Its lock makes each operation atomic, for other threads' engines too."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.rows: dict[UUID, Row] = {}
        self.children: defaultdict[UUID, dict[UUID, None]] = defaultdict(dict)
        self.lines: defaultdict[str, Line] = defaultdict(Line)
        self.places = itertools.count()
        self.leased: dict[UUID, None] = {}
        self.carried: dict[UUID, None] = {}
        """Due jobs that are in no line, since a broker carries them."""
        self.limited: dict[UUID, None] = {}
        """Unfinished jobs with a latest moment."""
        self.ending: list[tuple[float, UUID]] = []
        """When to look whether a record, its value or its notes have expired; an entry may have become too early."""
        self.births = itertools.count()
        self.changes: dict[UUID, int] = {}
        """The number of each job's last change, in that order."""
        self.last_change = 0
        self.identity = secrets.token_hex(8)
        self.exchange = Exchange()


class MemoryRows:
    """The rows of a store, by a clock."""

    def __init__(self, store: MemoryStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def _live(self, id: UUID) -> Row | None:
        row = self._store.rows.get(id)
        if row is not None and is_expired(row.record, self._clock()):
            self._remove(id)
            return None
        return row

    def _held(self, token: Token) -> Row | None:
        row = self._live(token.id)
        return row if row is not None and row.token == token else None

    def _insert(self, row: Row) -> None:
        self._store.rows[row.record.id] = row
        self._changed(row)
        if row.record.parent is not None:
            self._store.children[row.record.parent][row.record.id] = None

    def _line_up(self, row: Row, arrival: int | None = None) -> None:
        row.place = row.arrival = next(self._store.places) if arrival is None else arrival
        line = self._store.lines[row.record.queue]
        line.jobs += 1
        heapq.heappush(line.later, (row.record.due, row.place, row.record.id))

    def _leave_line(self, row: Row) -> None:
        self._store.carried.pop(row.record.id, None)
        if row.place is None:
            return
        row.place = None
        line = self._store.lines[row.record.queue]
        line.jobs -= 1
        if len(line.ready) + len(line.later) > 2 * line.jobs:
            line.ready[:] = sorted({entry for entry in line.ready if self._at(*entry[1:]) is not None})
            line.later[:] = sorted({entry for entry in line.later if self._at(*entry) is not None})
        if line.jobs == 0:
            del self._store.lines[row.record.queue]

    def _at(self, due: float, place: int, id: UUID) -> Row | None:
        row = self._store.rows.get(id)
        return row if row is not None and row.place == place and row.record.due == due else None

    def _set_end(self, row: Row, ttl: float | None, value_ttl: float | None) -> None:
        """From now on, count the time until the record and its value expire; the value never outlives the record."""
        now = self._clock()
        if row.value_expires is not None and row.value_expires <= now:
            row.value = None
        expires = None if ttl is None else now + ttl
        value_expires = expires if value_ttl is None else now + value_ttl
        row.value_expires = value_expires if expires is None or value_expires is None else min(expires, value_expires)
        row.record = row.record._replace(expires=expires)
        for moment in {row.record.expires, row.value_expires} - {None}:
            heapq.heappush(self._store.ending, (moment or 0.0, row.record.id))
        self._tidy()

    def _tidy(self) -> None:
        """Forget the ends of records that are gone, when they outnumber the others."""
        ending, rows = self._store.ending, self._store.rows
        if len(ending) > 4 * len(rows):
            moments = ((moment, id) for id, row in rows.items() for moment in (row.record.expires, row.value_expires, row.notes_expire))
            ending[:] = sorted((moment, id) for moment, id in moments if moment is not None)

    def _changed(self, row: Row) -> None:
        self._store.last_change += 1
        self._store.changes.pop(row.record.id, None)
        self._store.changes[row.record.id] = self._store.last_change

    def _ring_changed(self) -> None:
        self._store.exchange.publish_lazily(CHANGED, bytes)

    def _drop_token(self, row: Row) -> None:
        row.token = None
        self._store.leased.pop(row.record.id, None)

    @staticmethod
    def _stops(row: Row) -> int:
        """``stops`` after this attempt's end: one that waits for children has been counted already."""
        return row.record.stops + (row.record.state is ResultState.RUNNING)

    def _end(self, row: Row, state: ResultState, ttl: float | None, value_ttl: float | None = None) -> None:
        by_hand = row.record.ttl
        row.record = row.record._replace(state=state, finished=self._clock(), stops=self._stops(row))
        self._set_end(row, ttl if by_hand is None else by_hand, value_ttl if by_hand is None else by_hand)
        self._leave_line(row)
        self._store.limited.pop(row.record.id, None)
        row.notes.clear()
        self._drop_token(row)
        self._changed(row)
        small = row.value if row.value is None or len(row.value) <= SMALL_VALUE else None
        self._store.exchange.publish_lazily(DONE, lambda: pack_done(row.record, small))

    def _remove(self, id: UUID) -> bool:
        self._leave_line(self._store.rows[id])
        self._store.limited.pop(id, None)
        row = self._store.rows.pop(id)
        self._store.changes.pop(id, None)
        self._store.leased.pop(id, None)
        self._tidy()
        if row.record.parent is not None:
            siblings = self._store.children[row.record.parent]
            siblings.pop(id, None)
            if not siblings:
                del self._store.children[row.record.parent]
        return True

    def _descendants(self, id: UUID) -> Iterator[Row]:
        seen, todo = {id}, list(self._store.children.get(id, ()))
        while todo:
            child = todo.pop()
            if child in seen:  # ids that are used again may make a circle
                continue
            seen.add(child)
            row = self._live(child)
            if row is not None:
                yield row
                todo.extend(self._store.children.get(child, ()))


def too_late(row: Row, now: float) -> bool:
    """Whether a job that nobody holds waits past its latest moment."""
    return row.token is None and row.latest is not None and row.latest <= now


def is_expired(record: Record, now: float) -> bool:
    """Whether a record can no longer be seen."""
    return record.expires is not None and record.expires <= now and record.done
