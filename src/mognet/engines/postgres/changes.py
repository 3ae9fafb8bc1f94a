"""What has changed: notes of it in the rows of jobs, and how they are read so that none is missed.

A note is the number of the transaction that changed the job last. Transactions become visible in another order than that of their
numbers, so whoever reads keeps what was visible (a snapshot), and is told later of what is visible then and was not before. What does
not fit into one answer is told by and by as of one snapshot, in the order of the numbers; what changes meanwhile comes with the next.

A server that crashes gives numbers again that it had given to transactions that came to nothing: it does not hurry to write those to disk
(RecordTransactionAbort in PostgreSQL's xact.c). What somebody has seen of a transaction is on disk, and so is what came before: hence a
place never says that a transaction is over which is later than the last one of which something was seen.
"""

# ruff: noqa: S608 - the texts are put together from constants only
from __future__ import annotations

import re
from typing import Any, NamedTuple, Self

from psycopg.errors import LockNotAvailable

from mognet.engine import KEEP_NOTES
from mognet.engines.postgres.arrays import Blobs
from mognet.engines.postgres.connecting import Connection
from mognet.engines.postgres.labels import while_nobody_writes
from mognet.engines.postgres.rows import WIDTH, make_record
from mognet.engines.postgres.search import conditions
from mognet.engines.postgres.statements import NOW, RECORD
from mognet.engines.postgres.tables import Tables
from mognet.engines.postgres.text import to_column
from mognet.labels import has_metadata
from mognet.records import Changed, Changes, Query

RENEW_EVERY = 3600.0
"""Seconds after which the time until when notes are taken is prolonged, if somebody asks."""

MARGIN = 60.0
"""Seconds before the end of that time from when on it counts as over: others' clocks stop with their statements."""

OPEN = 48
"""Open transactions that a place names one by one, so that it does not become long; what comes behind them may be told twice."""

GLANCE = 50
"""Changes that are looked at first where there may be a shorter way than through all of them."""

FEW = 1000
"""Jobs up to which an index is one: it leads to those that have not changed, too."""

_LAST_SEQ = 2**63 - 1

_STATUS = f"""
SELECT noted_until - {NOW} AS lasts, epoch, pg_current_snapshot()::text AS snapshot,
    noted_from >= pg_snapshot_xmax(pg_current_snapshot()) AS foreign_notes
FROM mognet.app WHERE app = %(app)s"""

# The last transaction of which something is to be seen.
_NEWEST = """
SELECT greatest(noted_from, (
    SELECT changed FROM mognet.job WHERE app = %(app)s AND changed < pg_snapshot_xmax(pg_current_snapshot())
    ORDER BY changed DESC, seq DESC LIMIT 1))::text
FROM mognet.app WHERE app = %(app)s"""

# A new epoch: notes were not taken before it, or by another server, whose transactions had numbers that are yet to come here.
_BEGIN = f"""
UPDATE mognet.app SET epoch = epoch + 1, noted_until = {NOW} + %(seconds)s::float8, noted_from = pg_current_xact_id()
WHERE app = %(app)s AND (noted_until <= {NOW} + %(margin)s::float8 OR noted_from >= pg_snapshot_xmax(pg_current_snapshot()))"""

# A caller's transaction may hold the row for long; then the next one who asks prolongs it.
_RENEW = f"""
UPDATE mognet.app SET noted_until = {NOW} + %(seconds)s::float8, noted_from = pg_current_xact_id()
WHERE app = (SELECT app FROM mognet.app WHERE app = %(app)s FOR NO KEY UPDATE SKIP LOCKED)"""

# Of the jobs that were found those that match, and where the last one stands.
_ANSWER = f"""
SELECT lasts, epoch, snapshot, foreign_notes, {{number}}, last.changed::text, last.seq, told.*
FROM status LEFT JOIN (SELECT changed, seq FROM {{last}} ORDER BY changed DESC, seq DESC LIMIT 1) AS last ON true
LEFT JOIN (
    SELECT changed::text, {RECORD} FROM found AS job
    CROSS JOIN LATERAL (SELECT label, metadata, progress FROM mognet.content WHERE content.seq = job.seq OFFSET 0) AS content
    WHERE {{where}}) AS told ON true"""

# At most so many jobs in the order of their changes: first of those transactions that were under way at the last snapshot, then of those
# that came after it.
_READ = f"""
WITH status AS MATERIALIZED ({_STATUS}),
found AS MATERIALIZED (
    SELECT * FROM (
        SELECT job.* FROM unnest(%(open)s::text[]) AS each(number) CROSS JOIN LATERAL (
            SELECT * FROM mognet.job WHERE app = %(app)s AND changed = each.number::xid8
                AND (changed, seq) > (%(place_changed)s::text::xid8, %(place_seq)s::int8)
            ORDER BY seq LIMIT %(limit)s::int8) AS job
        UNION ALL (
            SELECT * FROM mognet.job WHERE app = %(app)s AND (changed, seq) > (%(last_changed)s::text::xid8, %(last_seq)s::int8)
                AND changed < coalesce(%(ceiling)s::text::xid8, pg_snapshot_xmax(pg_current_snapshot()))
                AND changed <> ALL(%(hidden)s::text[]::xid8[])
            ORDER BY changed, seq LIMIT %(limit)s::int8)) AS job
    ORDER BY changed, seq LIMIT %(limit)s::int8)"""

# Of the jobs to which an index leads, if they are few, all that have changed, in no order.
_READ_BY_WAY = f"""
WITH status AS MATERIALIZED ({_STATUS}),
way AS MATERIALIZED ({{way}} LIMIT %(few)s::int8 + 1),
found AS MATERIALIZED (
    SELECT job.* FROM way CROSS JOIN LATERAL (
        SELECT * FROM mognet.job WHERE app = %(app)s AND created > 0 AND created = way.created AND seq = way.seq
            AND changed < pg_snapshot_xmax(pg_current_snapshot())
            AND (changed > %(last_changed)s::text::xid8 OR changed = ANY(%(open)s::text[]::xid8[])) OFFSET 0) AS job
    WHERE (SELECT count(*) FROM way) <= %(few)s::int8 LIMIT %(limit)s::int8)"""

_NUMBER = "(SELECT count(*) FROM found)"

# If they are too many, or the index is not whole, as if they were as many as fit.
_NUMBER_BY_WAY = f"CASE WHEN {{leads}} AND (SELECT count(*) FROM way) <= %(few)s::int8 THEN {_NUMBER} ELSE %(limit)s::int8 END"

# All that has changed: of these the last one.
_ALL_CHANGED = "mognet.job WHERE app = %(app)s AND changed < pg_snapshot_xmax(pg_current_snapshot())"

# The number of a path that is indexed as a whole; in the same statement, since it may be given up at any time.
_WHOLE = "(SELECT number FROM mognet.path WHERE app = %(app)s AND name = %(path_{n})s::text AND whole AND NOT dropped)"

# By the whole of its key: the planner would go by the path alone, and look through all its labels. (OFFSET 0 keeps it from joining.)
_LABELLED = f""" AND ({_WHOLE} IS NULL OR EXISTS (
    SELECT FROM unnest(%(labels_{{n}})s::bytea[]) AS wanted(value) CROSS JOIN LATERAL (
        SELECT FROM mognet.label
        WHERE path = {_WHOLE} AND value = wanted.value AND created = job.created AND seq = job.seq OFFSET 0) AS label OFFSET 0))"""

_BY_LABEL = f"""
    SELECT label.* FROM unnest(%(labels_{{n}})s::bytea[]) AS wanted(value) CROSS JOIN LATERAL (
        SELECT created, seq FROM mognet.label WHERE path = {_WHOLE} AND value = wanted.value OFFSET 0) AS label"""
_BY_ID = "SELECT created, seq FROM mognet.job WHERE app = %(app)s AND id = %(first)s"
_BY_ROOT = """
    SELECT created, seq FROM mognet.job WHERE app = %(app)s AND root = %(root)s
    UNION ALL SELECT created, seq FROM mognet.job WHERE app = %(app)s AND id = %(root)s AND root IS NULL"""

# From a job upwards, as far as records lead.
_UNDER = f""" AND EXISTS (
    WITH RECURSIVE above(id) AS (
        SELECT job.id
        UNION
        SELECT link.parent FROM above CROSS JOIN LATERAL (
            SELECT parent FROM mognet.job WHERE app = %(app)s AND id = above.id AND parent IS NOT NULL
                AND (expires IS NULL OR expires > {NOW}) OFFSET 0) AS link)
    SELECT FROM above WHERE above.id = %(under)s)"""

_OTHERS = "(?:,[0-9]{1,18}){0,200}"
_PLACE = re.compile(f"([0-9]{{1,18}})/([0-9]{{1,18}}{_OTHERS})(?:/([0-9]{{1,18}}{_OTHERS})/([0-9]{{1,18}})/([0-9]{{1,18}}))?")


class Snapshot(NamedTuple):
    """Which transactions were over."""

    end: int
    """The first that had not begun."""
    open: tuple[int, ...] = ()
    """Earlier ones that were under way."""

    @classmethod
    def taken(cls, text: str) -> Self:
        """As the server writes it. Of more open transactions than are named, the last one named is the first that is left out."""
        _, end, others = text.split(":")
        return cls(int(end), tuple(sorted(int(number) for number in others.split(",") if number)[: OPEN + 1]))

    @property
    def cut(self) -> bool:
        """Whether there were more open transactions than are named."""
        return len(self.open) > OPEN

    @property
    def sure(self) -> Snapshot:
        """What shows no more than it did, and says so in few words."""
        return Snapshot(self.open[OPEN], self.open[:OPEN]) if self.cut else self

    def until(self, end: int) -> Snapshot:
        """What shows nothing from there on."""
        return Snapshot(end, tuple(number for number in self.open if number < end)) if end < self.end else self

    def also(self, other: Snapshot) -> Snapshot:
        """What shows that which both of them show."""
        end = min(self.end, other.end)
        # (Those that are shown by neither need no names, and are not counted.)
        return Snapshot(end, tuple(sorted(number for number in {*self.open, *other.open} if number < end))[: OPEN + 1])

    @classmethod
    def read(cls, text: str) -> Self:
        """What ``str`` wrote."""
        end, *others = map(int, text.split(","))
        return cls(end, tuple(others))

    def __str__(self) -> str:
        return ",".join(map(str, (self.end, *self.open)))

    def shows(self, transaction: int) -> bool:
        """Whether what it did is visible."""
        return transaction < self.end and transaction not in self.open


class Place(NamedTuple):
    """How far somebody has read."""

    epoch: int
    told: Snapshot
    """Everything that this shows."""
    telling: Snapshot | None = None
    """And of what this shows besides, all up to here:"""
    changed: int = 0
    seq: int = 0

    @classmethod
    def read(cls, text: str) -> Self:
        """What ``str`` wrote. Raises ValueError if it is none."""
        match = _PLACE.fullmatch(text)
        if match is None:
            raise ValueError(f"since={text!r} is no place in the order of changes")
        epoch, told, telling, changed, seq = match.groups()
        if telling is None:
            return cls(int(epoch), Snapshot.read(told))
        return cls(int(epoch), Snapshot.read(told), Snapshot.read(telling), int(changed), int(seq))

    def __str__(self) -> str:
        text = f"{self.epoch}/{self.told}"
        return text if self.telling is None else f"{text}/{self.telling}/{self.changed}/{self.seq}"


class _Status(NamedTuple):
    lasts: float
    epoch: int
    snapshot: str
    foreign_notes: bool

    @property
    def noted(self) -> bool:
        return self.lasts > MARGIN and not self.foreign_notes


async def read(tables: Tables, connection: Connection, since: str | None, query: Query, limit: int) -> Changes:
    """Which jobs have changed since then."""
    if since is None:
        [row] = await tables.all(connection, _STATUS)
        return await _from_now_on(tables, connection, _Status(*row))
    ask = _Ask(tables, connection, Place.read(since), query, max(1, limit))
    ways = _ways(query) if ask.place.telling is None else []
    changes = await _read_on(ask._replace(limit=min(ask.limit, GLANCE)) if ways else ask)
    for way in ways if changes.more else ():
        found = await _read_by(way, ask)
        if found is not None:
            return found
    return changes


class _Ask(NamedTuple):
    tables: Tables
    connection: Connection
    place: Place
    query: Query
    limit: int

    async def rows(self, statement: str, number: str, last: str) -> list[tuple[Any, ...]]:
        """What is answered of the jobs that a statement finds."""
        where, values = _conditions(self.query)
        answer = _ANSWER.format(number=number, last=last, where=where)
        return await self.tables.all(self.connection, statement + answer, **values, **_behind(self.place), limit=self.limit, few=FEW)


class _Way(NamedTuple):
    """An index that leads to all jobs that match."""

    jobs: str
    """When they were created, and their numbers."""
    leads: str = "true"
    """Whether it does."""


def _ways(query: Query) -> list[_Way]:
    if query.names_one:
        return [_Way(_BY_ID)]
    if query.root is not None:
        return [_Way(_BY_ROOT)]
    return [_Way(_BY_LABEL.format(n=n), f"{_WHOLE.format(n=n)} IS NOT NULL") for n in range(len(query.metadata))]


async def _read_on(ask: _Ask) -> Changes:
    """A page of all that has changed."""
    rows = await ask.rows(_READ, _NUMBER, "found")
    return await _changes(ask, rows, full=rows[0][4] == ask.limit)


async def _read_by(way: _Way, ask: _Ask) -> Changes | None:
    """All that has changed of the jobs on a way; None: they are too many."""
    number = _NUMBER_BY_WAY.format(leads=way.leads)
    rows = await ask.rows(_READ_BY_WAY.format(way=way.jobs), number, _ALL_CHANGED)
    return None if rows[0][4] == ask.limit else await _changes(ask, rows, full=False)


async def _changes(ask: _Ask, rows: list[tuple[Any, ...]], *, full: bool) -> Changes:
    """``full``: behind the last one there may be more."""
    place, query = ask.place, ask.query
    status = _Status(*rows[0][:4])
    now = Snapshot.taken(status.snapshot)
    if not status.noted or status.epoch != place.epoch or place.told.end > int(status.snapshot.split(":")[1]):
        return (await _from_now_on(ask.tables, ask.connection, status))._replace(lost=True)
    await _prolong(ask.tables, ask.connection, status)
    # Numbers that were given again since the first page belong to what has come later.
    telling = now if place.telling is None else place.telling.also(now)
    last_changed, last_seq = rows[0][5:7]
    found = [(int(row[7]), make_record(row[8 : 8 + WIDTH])) for row in rows if row[7] is not None]
    told = [
        Changed(str(Place(place.epoch, place.told, telling, changed, record.place)), record)
        for changed, record in sorted(found, key=lambda each: (each[0], each[1].place))
        if telling.shows(changed) and (not query.metadata or has_metadata(record.metadata, query.metadata))
    ]
    if full and telling.shows(int(last_changed)):
        at, more = Place(place.epoch, place.told, telling, int(last_changed), last_seq), True
    else:
        # If it was cut, what is not sure to have been told comes again, and so would a next page for ever.
        newest = max(place.told.end - 1, place.changed, int(last_changed or 0))
        at, more = Place(place.epoch, telling.sure.until(newest + 1)), place.telling is not None and not telling.cut
    return Changes(told, str(at), more=more)


def _conditions(query: Query) -> tuple[str, dict[str, Any]]:
    where, values = conditions(query._replace(under=None, metadata=(), after=None))
    if query.under is not None:
        where += _UNDER
        values["under"] = query.under
    for n, wanted in enumerate(query.metadata):
        where += _LABELLED.format(n=n)
        values |= {f"path_{n}": to_column(wanted.path), f"labels_{n}": Blobs(wanted.labels)}
    return where, values


def _behind(place: Place) -> dict[str, Any]:
    hidden = place.telling.open if place.telling is not None else ()
    # What is behind the place, and not older than the snapshot's end: one bound for both.
    last = max((place.told.end - 1, _LAST_SEQ), (place.changed, place.seq))
    return {
        "open": [str(number) for number in place.told.open if number not in hidden and number >= place.changed],
        "place_changed": str(place.changed),
        "place_seq": place.seq,
        "last_changed": str(last[0]),
        "last_seq": last[1],
        "ceiling": None if place.telling is None else str(place.telling.end),
        "hidden": [str(number) for number in hidden],
    }


async def _from_now_on(tables: Tables, connection: Connection, status: _Status) -> Changes:
    lost = False
    if status.noted:
        await _prolong(tables, connection, status)
    else:
        lost = not await _begin(tables, connection)
        [row] = await tables.all(connection, _STATUS)
        status = _Status(*row)
    [(newest,)] = await tables.all(connection, _NEWEST)
    return Changes([], str(Place(status.epoch, Snapshot.taken(status.snapshot).sure.until(int(newest) + 1))), lost=lost)


async def _prolong(tables: Tables, connection: Connection, status: _Status) -> None:
    if status.lasts < KEEP_NOTES:
        await tables.run(connection, _RENEW, seconds=KEEP_NOTES + RENEW_EVERY)


async def _begin(tables: Tables, connection: Connection) -> bool:
    """Let notes be taken from now on; whether nobody writes any more who does not know of it."""
    values = {"seconds": KEEP_NOTES + RENEW_EVERY, "margin": MARGIN}
    try:
        await while_nobody_writes(tables, connection, lambda: tables.run(connection, _BEGIN, **values))
    except LockNotAvailable:  # a caller's transaction, into which jobs were submitted, lasts and lasts
        await tables.run(connection, _BEGIN, **values)
        return False
    return True
