"""Looking through the records, by creation, a page at a time."""

# ruff: noqa: S608 - the texts are put together from constants only
from __future__ import annotations

import re
from typing import Any, NamedTuple
from uuid import UUID

from mognet.engine import GroupBy
from mognet.engines.postgres.connecting import Connection
from mognet.engines.postgres.line import Tables
from mognet.engines.postgres.rows import NUMBERS, STATES, WIDTH, make_record
from mognet.engines.postgres.statements import NOW, RECORD
from mognet.engines.postgres.text import from_column, to_column
from mognet.records import Query, Record
from mognet.states import FINAL

CHUNK = 500
"""Records in one page."""

Key = tuple[float, int]


class Page(NamedTuple):
    """Some of the records that match, and from where to go on (None: that was all)."""

    records: list[Record]
    next: Key | None


def conditions(query: Query) -> tuple[str, dict[str, Any]]:
    """A query as SQL, and its values."""
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
    if query.states:
        parts.append("state = ANY(%(states)s::int8[])")
        values["states"] = sorted(NUMBERS[state] for state in query.states)
    if query.in_line:
        parts.append("lined = 1")
    if query.id_prefix is not None:
        parts.append("id BETWEEN %(first)s AND %(last)s")
        values["first"], values["last"] = id_range(query.id_prefix)
    for name, sign, moment in (("after", ">", query.created_after), ("before", "<", query.created_before)):
        if moment is not None:
            parts.append(f"created {sign} %({name})s::float8")
            values[name] = float(moment)
    return " AND ".join(parts), values


def source(query: Query) -> str:
    """The table, or the parts of it that a query can be narrowed to by small indexes, each job in one of them only."""
    if query.in_line or not query.states or query.states & FINAL or query.parent is not None or query.root is not None:
        return "mognet.job"
    held = "SELECT * FROM mognet.job WHERE app = %(app)s AND lease_end IS NOT NULL"
    lined = "SELECT * FROM mognet.job WHERE app = %(app)s AND lined = {}"
    return f"({held} UNION ALL {lined.format(1)} UNION ALL {lined.format(2)}) AS job"


def id_range(prefix: str) -> tuple[UUID, UUID]:
    """The first and the last id that start with these digits; an empty range if they are none."""
    if re.fullmatch("[0-9a-f]{0,32}", prefix) is None:
        return UUID(int=1), UUID(int=0)
    return UUID(hex=prefix.ljust(32, "0")), UUID(hex=prefix.ljust(32, "f"))


async def find(tables: Tables, connection: Connection, query: Query, start: Key | None, limit: int) -> Page:
    """At most so many records that match, after ``start``."""
    where, values = conditions(query)
    direction, sign = ("DESC", "<") if query.newest_first else ("ASC", ">")
    if start is not None:
        where += f" AND (created, seq) {sign} (%(created)s::float8, %(seq)s::int8)"
        values["created"], values["seq"] = start
    inner = f"SELECT * FROM {source(query)} WHERE {where} ORDER BY created {direction}, seq {direction} LIMIT %(limit)s::int8"
    statement = f"""SELECT {RECORD}, job.seq FROM ({inner}) AS job
        CROSS JOIN LATERAL (SELECT label, metadata FROM mognet.content WHERE content.seq = job.seq OFFSET 0) AS content
        ORDER BY created {direction}, job.seq {direction}"""
    rows = await tables.all(connection, statement, **values, limit=limit)
    records = [make_record(row) for row in rows]
    return Page(records, (records[-1].created, rows[-1][WIDTH]) if len(rows) == limit else None)


async def count(tables: Tables, connection: Connection, query: Query, by: GroupBy) -> dict[str, int]:
    """How many records match, by a column."""
    where, values = conditions(query)
    column = {"state": "state", "queue": "queue", "name": "name"}[by]
    rows = await tables.all(connection, f"SELECT {column}, count(*) FROM {source(query)} WHERE {where} GROUP BY {column}", **values)
    return {str(STATES[group]) if by == "state" else from_column(group or ""): number for group, number in rows}
