"""Looking through the records, a stretch of an index at a time, so that no look holds up the log for long."""

# ruff: noqa: S608 - the texts are put together from constants and numbers only
from __future__ import annotations

import re
from typing import NamedTuple

from mognet.engine import GroupBy
from mognet.engines.sql.session import NUMBERS, Finish, Operation, Row, Session, make_record
from mognet.engines.sql.statements import RECORD
from mognet.records import Query, Record
from mognet.states import FINAL

STRETCH = 5_000
"""Index entries that one statement looks at."""

CHUNK = 500
"""Records that one operation answers."""

SELECTIVE = 4
"""Digits of an id from which on the index of ids is the better way in."""

Key = tuple[float, int]
"""How far a look has come in the order of creation: when, and which row."""


class Page(NamedTuple):
    """Some of the records that match, and from where to go on (None: that was all)."""

    records: list[Record]
    next: Key | None


class Condition(NamedTuple):
    """A piece of SQL and its parameters."""

    sql: str
    values: tuple[object, ...] = ()


class _Plan:
    """A query as SQL: the ranges of indexes to go through, and the condition on their rows."""

    def __init__(self, session: Session, query: Query) -> None:
        self.session = session
        self.direction, self.after, self.until = ("DESC", "<", ">=") if query.newest_first else ("ASC", ">", "<=")
        self.order = f"ORDER BY created {self.direction}, seq {self.direction}"
        conditions = _conditions(query)
        way = next(name for name in ("id_prefix", "parent", "root", "open", "all") if name in conditions)
        self.ways = conditions.pop(way)[1]
        self.filter = _both(Condition("(expires IS NULL OR expires > ?)", (session.now,)), *(single for single, _ in conditions.values()))

    def stretch(self, start: Key | None) -> tuple[list[tuple[str, Condition]], Key | None]:
        """Tables and conditions of the stretch after ``start``, and where it ends (None: with the range)."""
        begin = Condition("1") if start is None else Condition(f"(created, seq) {self.after} (?, ?)", start)
        index, range = self.ways[0]
        sql, values = _both(self._app(range), begin)
        stop = self.session.one(
            f"SELECT created, seq FROM job INDEXED BY {index} WHERE {sql} {self.order} LIMIT 1 OFFSET {STRETCH - 1}", *values
        )
        finish = Condition("1") if stop is None else Condition(f"(created, seq) {self.until} (?, ?)", stop)
        return [(f"job INDEXED BY {index}", _both(self._app(range), begin, finish, self.filter)) for index, range in self.ways], stop

    def _app(self, range: Condition) -> Condition:
        return Condition(f"app = ? AND {range.sql}", (self.session.app, *range.values))


Ways = list[tuple[str, Condition]]


def _conditions(query: Query) -> dict[str, tuple[Condition, Ways]]:
    """The conditions of a query by name, each as a condition on rows and, if it can serve as one, as a way in through indexes."""
    found: dict[str, tuple[Condition, Ways]] = {"all": (Condition("1"), [("job_created", _created(query))])}

    def add(name: str, condition: Condition, ways: Ways) -> None:
        found[name] = condition, [(index, _both(way, _created(query))) for index, way in ways]

    if query.id_prefix is not None:
        between = Condition("id BETWEEN ? AND ?", _id_range(query.id_prefix))
        add("id_prefix" if len(query.id_prefix) >= SELECTIVE else "few digits", between, [("job_id", between)])
    if query.parent is not None:
        parent = Condition("parent = ?", (query.parent.bytes,))
        add("parent", parent, [("job_parent", parent)])
    if query.root is not None:
        root = query.root.bytes
        ways = [("job_root", Condition("root = ?", (root,))), ("job_id", Condition("id = ? AND root IS NULL", (root,)))]
        add("root", Condition("(root = ? OR (root IS NULL AND id = ?))", (root, root)), ways)
    if query.states:
        states = Condition(f"state IN ({', '.join(sorted(str(NUMBERS[state]) for state in query.states))})")
        add("state", states, [])
        if not query.states & FINAL:
            add("open", Condition("state < 3"), [("job_open", Condition("state < 3"))])
    if query.in_line:
        add("in_line", Condition("lined = 1"), [])
        if "open" not in found:
            add("open", Condition("state < 3"), [("job_open", Condition("state < 3"))])
    for column, value in {"name": query.name, "queue": query.queue, "node": query.node}.items():
        if value is not None:
            add(column, Condition(f"{column} = ?", (value,)), [])
    return found


def _created(query: Query) -> Condition:
    limits = [Condition("created > ?", (query.created_after,))] if query.created_after is not None else []
    limits += [Condition("created < ?", (query.created_before,))] if query.created_before is not None else []
    return _both(*limits) if limits else Condition("1")


def _both(*conditions: Condition) -> Condition:
    needed = [condition for condition in conditions if condition.sql != "1"] or [Condition("1")]
    return Condition(
        " AND ".join(condition.sql for condition in needed), tuple(value for condition in needed for value in condition.values)
    )


def _id_range(prefix: str) -> tuple[bytes, bytes]:
    """The first and the last id that start with these digits; an empty range if they are none."""
    if re.fullmatch("[0-9a-f]{0,32}", prefix) is None:
        return b"\xff", b""
    return bytes.fromhex(prefix.ljust(32, "0")), bytes.fromhex(prefix.ljust(32, "f"))


def find(query: Query, start: Key | None, limit: int) -> Operation[Page]:
    """At most so many records that match, by creation: some of those in the stretch after ``start``."""

    def work(session: Session) -> Finish[Page]:
        plan = _Plan(session, query)
        arms, stop = plan.stretch(start)
        sql = " UNION ALL ".join(f"SELECT {RECORD}, seq FROM {table} WHERE {condition.sql}" for table, condition in arms)
        values = [value for _, condition in arms for value in condition.values]
        rows: list[Row] = session.all(f"{sql} {plan.order} LIMIT ?", *values, limit)
        records = [make_record(row[:-1]) for row in rows]
        if len(rows) == limit:
            stop = records[-1].created, rows[-1][-1]
        return lambda: Page(records, stop)

    return work


def count(query: Query, by: GroupBy, start: Key | None) -> Operation[tuple[dict[str, int], Key | None]]:
    """How many records of the stretch after ``start`` match, by a column; and from where to go on."""

    def work(session: Session) -> Finish[tuple[dict[str, int], Key | None]]:
        arms, stop = _Plan(session, query._replace(newest_first=False)).stretch(start)
        numbers: dict[str, int] = {}
        for table, condition in arms:
            for group, number in session.all(f"SELECT {by}, count(*) FROM {table} WHERE {condition.sql} GROUP BY {by}", *condition.values):
                numbers[_group(by, group)] = numbers.get(_group(by, group), 0) + number
        return lambda: (numbers, stop)

    return work


def _group(by: GroupBy, value: str | int | None) -> str:
    return str(list(NUMBERS)[value]) if by == "state" and isinstance(value, int) else str(value or "")
