"""Looking through the records, by creation, a page at a time.

A condition on metadata whose path is indexed as a whole can be the way in, or a filter in the server; others are looked at here.
"""

# ruff: noqa: S608 - the texts are put together from constants only
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.errors import InvalidTextRepresentation

from mognet.engine import METADATA
from mognet.engines.postgres.arrays import Numbers
from mognet.engines.postgres.connecting import Connection
from mognet.engines.postgres.labels import learn
from mognet.engines.postgres.rows import NUMBERS, STATES, make_record
from mognet.engines.postgres.statements import NOW, RECORD
from mognet.engines.postgres.tables import Stale, Tables
from mognet.engines.postgres.text import from_column, to_column
from mognet.labels import has_metadata, labels
from mognet.records import Query, Record, Wanted
from mognet.states import FINAL, ResultState

CHUNK = 500
"""Records in one page."""

SELECTIVE = 4
"""Digits of an id from which on they are a better way in than any label."""

PROBE = 1000
"""Labels, or jobs that run, that are counted to see which condition is the best way in."""

_PLACES = {
    ResultState.PENDING: ("lined = 1", "lined = 2"),
    ResultState.RUNNING: ("lease_end IS NOT NULL",),
    ResultState.SUSPENDED: ("lease_end IS NOT NULL", "lined = 1", "lined = 2"),
}
"""Where the jobs of a state are, each in one place only."""

_HELD = frozenset({ResultState.RUNNING, ResultState.SUSPENDED})

Key = tuple[float, int]


class Page(NamedTuple):
    """Some of the records that match, and from where to go on (None: that was all)."""

    records: list[Record]
    next: Key | None


class Plan(NamedTuple):
    """How the conditions on metadata are met."""

    way: tuple[int, list[bytes]] | None
    """The path and the labels by which the index is entered."""
    filters: list[tuple[int, list[bytes]]]
    """Those that the index is asked about for each job."""
    rest: tuple[Wanted, ...]
    """Those for which the metadata is looked at."""
    held: bool = False
    """Whether the index is asked only about jobs that run: they are too many to ask about each of them."""

    @property
    def paths(self) -> set[int]:
        """The paths whose index is used."""
        return {path for path, _ in (*self.filters, *filter(None, (self.way,)))}


def conditions(query: Query) -> tuple[str, dict[str, Any]]:
    """A query as SQL, but for its metadata, and its values."""
    values: dict[str, Any] = {}
    parts = ["app = %(app)s", "created > 0", f"(expires IS NULL OR expires > {NOW})"]
    for column, wanted in {"name": query.name, "queue": query.queue, "node": query.node}.items():
        if wanted is not None:
            parts.append(f"{column} = %({column})s::text")
            values[column] = to_column(wanted)
    if query.parent is not None:
        parts.append("parent = %(parent)s")
        values["parent"] = query.parent
    if query.root is not None:
        parts.append("(root = %(root)s OR (root IS NULL AND id = %(root)s))")
        values["root"] = query.root
    if query.under is not None:
        parts.append(f"id = ANY(ARRAY({_BELOW}))")
        values["under"] = query.under
    if query.states:
        parts.append("state = ANY(%(states)s::int8[])")
        values["states"] = sorted(NUMBERS[state] for state in query.states)
    if query.in_line:
        parts.append("lined = 1")
    if query.id_prefix is not None:
        parts.append("id BETWEEN %(first)s AND %(last)s")
        values["first"], values["last"] = id_range(query.id_prefix)
    for name, sign, moment in (("since", ">", query.created_after), ("until", "<", query.created_before)):
        if moment is not None:
            parts.append(f"created {sign} %({name})s::float8")
            values[name] = float(moment)
    return " AND ".join(parts), values


_BELOW = f"""
    WITH RECURSIVE below(id) AS (
        SELECT %(under)s::uuid
        UNION
        SELECT child.id FROM below CROSS JOIN LATERAL (
            SELECT id FROM mognet.job WHERE app = %(app)s AND parent = below.id AND (expires IS NULL OR expires > {NOW}) OFFSET 0) AS child)
    SELECT id FROM below"""


def source(query: Query) -> str:
    """The table, or the parts of it that a query can be narrowed to by small indexes."""
    if query.root is not None and query.parent is None and query.under is None:
        return _OF_ROOT
    if query.in_line or not query.states or query.states & FINAL or _family(query):
        return "mognet.job"
    places = sorted({place for state in query.states for place in _PLACES[state]})
    return f"({' UNION ALL '.join(f'SELECT * FROM mognet.job WHERE app = %(app)s AND {place}' for place in places)}) AS job"


# Each part has an index; for both in one condition the planner goes through all jobs by creation.
_OF_ROOT = """(
    SELECT * FROM mognet.job WHERE app = %(app)s AND root = %(root)s
    UNION ALL SELECT * FROM mognet.job WHERE app = %(app)s AND id = %(root)s AND root IS NULL) AS job"""


def _family(query: Query) -> bool:
    return query.parent is not None or query.root is not None or query.under is not None


def id_range(prefix: str) -> tuple[UUID, UUID]:
    """The first and the last id that start with these digits; an empty range if they are none."""
    if re.fullmatch("[0-9a-f]{0,32}", prefix) is None:
        return UUID(int=1), UUID(int=0)
    return UUID(hex=prefix.ljust(32, "0")), UUID(hex=prefix.ljust(32, "f"))


# --- metadata


async def plan(tables: Tables, connection: Connection, query: Query) -> Plan:
    """Which indexes there are for a query's conditions on metadata."""
    if not query.metadata:
        return Plan(None, [], ())
    whole = (await learn(tables, connection)).whole
    indexed = [(whole[wanted.path], sorted(wanted.labels)) for wanted in query.metadata if wanted.path in whole]
    rest = tuple(wanted for wanted in query.metadata if wanted.path not in whole)
    few = len(query.id_prefix or "") >= SELECTIVE or _family(query)
    held = bool(query.states) and query.states <= _HELD
    if not indexed or few or (held and not await _many_run(tables, connection, query)):
        return Plan(None, indexed, rest)
    best = await _best(tables, connection, indexed) if len(indexed) > 1 else 0
    return Plan(indexed[best], indexed[:best] + indexed[best + 1 :], rest, held)


async def _many_run(tables: Tables, connection: Connection, query: Query) -> bool:
    """Whether a query is for jobs that run, and there are many of them."""
    if query.states != {ResultState.RUNNING}:
        return False
    [(many,)] = await tables.all(connection, _MANY_RUN, most=PROBE)
    return bool(many)


_MANY_RUN = """
SELECT count(*) = %(most)s::int8
FROM (SELECT FROM mognet.job WHERE app = %(app)s AND lease_end IS NOT NULL LIMIT %(most)s::int8) AS held"""


async def _best(tables: Tables, connection: Connection, indexed: Sequence[tuple[int, list[bytes]]]) -> int:
    """Of which condition there are the fewest labels, as far as that is soon seen."""
    few = "(SELECT count(*) FROM (SELECT FROM mognet.label WHERE {} LIMIT %(most)s::int8) AS few)"
    marks, values = _marks(indexed)
    counts = ", ".join(few.format(f"path = {path} AND value = ANY({wanted})") for path, wanted in marks)
    [row] = await tables.all(connection, f"SELECT {counts}", **values, most=PROBE)
    return row.index(min(row))


def _marks(indexed: Sequence[tuple[int, list[bytes]]]) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    numbers = range(len(indexed))
    values = {f"path_{n}": indexed[n][0] for n in numbers} | {f"labels_{n}": indexed[n][1] for n in numbers}
    return [(f"%(path_{n})s::int8", f"%(labels_{n})s::bytea[]") for n in numbers], values


# Whether the paths are still indexed, asked in the snapshot in which their index is read: what was given up since the plan was made may be
# deleted, and nothing be found. An error, since a condition that is false would look like that, too.
_STILL_WHOLE = """ AND (
    SELECT CASE WHEN count(*) = %(used)s::int8 THEN true ELSE ('an index was given up, ' || count(*) || ' are left')::boolean END
    FROM mognet.path WHERE number = ANY(%(in_use)s::int8[]) AND whole AND NOT dropped)"""


async def _read(
    tables: Tables, connection: Connection, statement: str, values: dict[str, Any], paths: Collection[int]
) -> list[tuple[Any, ...]]:
    """The rows of a statement, which has :data:`_STILL_WHOLE` among its conditions if it uses an index."""
    try:
        return await tables.all(connection, statement, **values, used=len(paths), in_use=Numbers(paths))
    except InvalidTextRepresentation:
        raise Stale from None


def _where(query: Query, plan: Plan) -> tuple[str, dict[str, Any]]:
    where, values = conditions(query)
    # (OFFSET 0: it is asked for each job. A join begins with all labels of the value if the planner believes that there are few.)
    marks, more = _marks(plan.filters)
    for path, wanted in marks:
        where += f""" AND EXISTS (
            SELECT FROM mognet.label
            WHERE path = {path} AND value = ANY({wanted}) AND label.created = job.created AND label.seq = job.seq OFFSET 0)"""
    return where, values | more


_ENTERED = """mognet.label CROSS JOIN LATERAL (
    SELECT * FROM mognet.job WHERE job.created = label.created AND job.seq = label.seq AND {where} OFFSET 0) AS job"""


_HELD_ONLY = """ AND label.created >= (SELECT first FROM times) AND label.created <= (SELECT last FROM times)
    AND (label.seq IN (SELECT seq FROM held)) IS TRUE"""
"""For labels of jobs that are held. (IS TRUE: so that they are looked up in a table of hashes, however many the planner expects.)"""

_WITH_HELD = """WITH held AS MATERIALIZED (SELECT created, seq FROM mognet.job WHERE app = %(app)s AND lease_end IS NOT NULL),
times AS MATERIALIZED (SELECT min(created) AS first, max(created) AS last FROM held) """


# --- finding


async def find(tables: Tables, connection: Connection, query: Query, start: Key | None, limit: int) -> Page:
    """At most so many records that match, after ``start``; fewer if their metadata has to be looked at here."""
    planned = await plan(tables, connection, query)
    if planned.rest:
        limit = CHUNK
    where, values = _where(query, planned)
    direction, sign = ("DESC", "<") if query.newest_first else ("ASC", ">")
    behind = ""
    if start is not None:
        behind = f" AND (created, seq) {sign} (%(created)s::float8, %(seq)s::int8)"
        values["created"], values["seq"] = start
    still = _STILL_WHOLE if planned.paths else ""
    if planned.way is None:
        found = f"SELECT * FROM {source(query)} WHERE {where}{behind}{still}"
    else:
        values["path"], values["labels"] = planned.way
        bounds = behind.replace("(created, seq)", "(label.created, label.seq)")
        for name, moment, side in (("since", query.created_after, ">"), ("until", query.created_before, "<")):
            bounds += "" if moment is None else f" AND label.created {side} %({name})s::float8"
        bounds += _HELD_ONLY if planned.held else ""
        found = f"""SELECT each.* FROM unnest(%(labels)s::bytea[]) AS wanted(value) CROSS JOIN LATERAL (
            SELECT job.* FROM {_ENTERED.format(where=where)} WHERE label.path = %(path)s::int8 AND label.value = wanted.value{bounds}
            ORDER BY label.created {direction}, label.seq {direction} LIMIT %(limit)s::int8) AS each WHERE true{still}"""
    statement = f"""{_WITH_HELD if planned.held else ""}SELECT {RECORD}
        FROM ({found} ORDER BY created {direction}, seq {direction} LIMIT %(limit)s::int8) AS job
        CROSS JOIN LATERAL (SELECT label, metadata, progress FROM mognet.content WHERE content.seq = job.seq OFFSET 0) AS content
        ORDER BY created {direction}, seq {direction}"""
    rows = await _read(tables, connection, statement, values | {"limit": limit}, planned.paths)
    records = [make_record(row) for row in rows]
    next = (records[-1].created, records[-1].place) if len(rows) == limit else None
    return Page([record for record in records if not planned.rest or has_metadata(record.metadata, planned.rest)], next)


# --- counting


async def count(tables: Tables, connection: Connection, query: Query, by: str) -> dict[str, int] | None:
    """How many records match; None: they have to be looked at one by one."""
    if by.startswith(METADATA):
        return await _count_by_label(tables, connection, query, by.removeprefix(METADATA))
    planned = await plan(tables, connection, query)
    if planned.rest:
        return None
    where, values = _where(query, planned)
    column = {"state": "state", "queue": "queue", "name": "name"}[by]
    rows_of = f"{source(query)} WHERE {where}"
    if planned.way is not None:
        rows_of = f"{_ENTERED.format(where=where)} WHERE label.path = %(path)s::int8 AND label.value = ANY(%(labels)s::bytea[])"
        rows_of += _HELD_ONLY if planned.held else ""
        values["path"], values["labels"] = planned.way
    still = _STILL_WHOLE if planned.paths else ""
    counted = f"{_WITH_HELD if planned.held else ''}SELECT job.{column}, count(*) FROM {rows_of}{still} GROUP BY job.{column}"
    rows = await _read(tables, connection, counted, values, planned.paths)
    return {str(STATES[group]) if by == "state" else from_column(group or ""): number for group, number in rows}


async def _count_by_label(tables: Tables, connection: Connection, query: Query, path: str) -> dict[str, int] | None:
    if query.metadata or _family(query) or query.id_prefix is not None or (query.states and not query.states & FINAL):
        return None  # so few that it is quicker
    number = (await learn(tables, connection)).whole.get(path)
    if number is None:
        return None
    if query == Query():
        return await _count_all_by_label(tables, connection, number, path)
    where, values = conditions(query)
    statement = f"""
        SELECT label.value, count(*) FROM {_ENTERED.format(where=where)} WHERE label.path = %(path)s::int8{_STILL_WHOLE}
        GROUP BY label.value
        UNION ALL SELECT NULL, count(*) FROM {source(query)} WHERE {where}"""
    rows = await _read(tables, connection, statement, values | {"path": number}, [number])
    numbers = Counter({"" if value is None else value.decode(): number for value, number in rows})
    numbers[""] -= numbers.total() - numbers[""]
    return {group: number for group, number in numbers.items() if number}


async def _count_all_by_label(tables: Tables, connection: Connection, number: int, path: str) -> dict[str, int]:
    """All jobs, as the index has them, less those that have expired and are yet to be deleted."""
    counted = await _read(tables, connection, _ALL_BY_LABEL, {"path": number}, [number])
    numbers, total = Counter[str](), 0
    for value, count, gone in counted:
        if gone is not None:
            numbers.subtract([label.decode() for label in labels(gone, [path]).values()])
        elif value is None:
            total = count
        else:
            numbers[value.decode()] += count
    numbers[""] = total - numbers.total()
    return {group: count for group, count in numbers.items() if count > 0}


_ALL_BY_LABEL = f"""
    SELECT value, count(*), NULL::bytea FROM mognet.label WHERE path = %(path)s::int8{_STILL_WHOLE} GROUP BY value
    UNION ALL
    SELECT NULL, count(*), NULL FROM mognet.job WHERE app = %(app)s AND created > 0 AND (expires IS NULL OR expires > {NOW})
    UNION ALL
    SELECT NULL, 1, metadata FROM mognet.job CROSS JOIN LATERAL (
        SELECT metadata FROM mognet.content WHERE content.seq = job.seq OFFSET 0) AS content
    WHERE app = %(app)s AND created > 0 AND cleanup <= {NOW} AND expires <= {NOW}"""


def group_of(record: Record, by: str) -> str:
    """To which group a record counts."""
    if by.startswith(METADATA):
        path = by.removeprefix(METADATA)
        return labels(record.metadata, [path]).get(path, b"").decode()
    return str(getattr(record, by) or "")
