"""Looking through the records, a stretch at a time, so that no look holds up the log for long.

Records are in the order of their creation by their row numbers. So a look goes through the table, or through an index that has the
rows of one parent or root in order. The unfinished have no such index, which each new job would have to enter: their rows are
collected from the line, the leases, and what brokers carry.
"""

# ruff: noqa: S608 - the texts are put together from constants and numbers only
from __future__ import annotations

import re
from array import array
from typing import NamedTuple

from mognet.engine import GroupBy
from mognet.engines.sql.session import NUMBERS, Finish, Operation, Row, Session, dump, make_record
from mognet.engines.sql.statements import APP_BITS, RECORD
from mognet.records import Query, Record
from mognet.states import FINAL, ResultState

STRETCH = 5_000
"""Rows that one statement looks at."""

COLLECTED = 50_000
"""Rows of unfinished jobs that one statement collects."""

CHUNK = 500
"""Records that one operation answers."""

SELECTIVE = 4
"""Digits of an id from which on the index of ids is the better way in."""


class Start(NamedTuple):
    """How far a look has come: the last row, and those that were collected and come next."""

    seq: int
    rows: array[int] = array("q")


class Page(NamedTuple):
    """Some of the records that match, and from where to go on (None: that was all)."""

    records: list[Record]
    next: Start | None


class Condition(NamedTuple):
    """A piece of SQL and its parameters."""

    sql: str
    values: tuple[object, ...] = ()


Ways = list[tuple[str, Condition]]
"""Tables, by which index, and ranges of them."""

TABLE = "job NOT INDEXED"
LINE, CARRIED, LEASES = "job INDEXED BY job_line", "job INDEXED BY job_carried", "job INDEXED BY job_lease"


class Plan:
    """A query as SQL: the ranges to go through, and the condition on their rows."""

    def __init__(self, session: Session, query: Query) -> None:
        self.session = session
        self.newest_first = query.newest_first
        self.order = "ORDER BY seq DESC" if query.newest_first else "ORDER BY seq"
        conditions = _conditions(query)
        self.way = next(name for name in ("id_prefix", "parent", "root", "open", "all") if name in conditions)
        self.ways = conditions.pop(self.way)[1]
        self.low, self.high = _rows_between(session, query.created_after, query.created_before)
        rest = [single for name, (single, _) in conditions.items() if name != "all"]
        self.filter = _both(Condition("(expires IS NULL OR expires > ?)", (session.now,)), *rest)

    def stretch(self, start: Start | None, most: int) -> tuple[list[tuple[str, Condition]], Start | None]:
        """Tables and conditions of the stretch after ``start``, and where it ends (None: with the range)."""
        if self.way == "open":
            return self._collected(start, most)
        table, range = self.ways[0]
        sql, values = _both(self._app(range), self._rows(start, None))
        stop = self.session.one(f"SELECT seq FROM {table} WHERE {sql} {self.order} LIMIT 1 OFFSET {STRETCH - 1}", *values)
        end = None if stop is None else Start(stop[0])
        return [(table, _both(self._app(range), self._rows(start, end), self.filter)) for table, range in self.ways], end

    def _collected(self, start: Start | None, most: int) -> tuple[list[tuple[str, Condition]], Start | None]:
        rows = start.rows if start is not None else array("q")
        full = True
        if not rows:
            arms = [(table, _both(self._app(range), self._rows(start, None))) for table, range in self.ways]
            sql = " UNION ALL ".join(f"SELECT seq FROM {table} WHERE {condition.sql}" for table, condition in arms)
            values = [value for _, condition in arms for value in condition.values]
            rows = array("q", [seq for (seq,) in self.session.all(f"{sql} {self.order} LIMIT {COLLECTED}", *values)])
            full = len(rows) == COLLECTED
        now, later = rows[:most], rows[most:]
        end = Start(now[-1], later) if later or (full and now) else None
        return [(TABLE, _both(Condition("seq IN (SELECT value FROM json_each(?))", (dump(now),)), self.filter))], end

    def _rows(self, start: Start | None, end: Start | None) -> Condition:
        low, high = self.low, self.high
        if self.newest_first:
            high = high if start is None else min(high, start.seq - 1)
            low = low if end is None else max(low, end.seq)
        else:
            low = low if start is None else max(low, start.seq + 1)
            high = high if end is None else min(high, end.seq)
        return Condition("seq BETWEEN ? AND ?", (low, high))

    def _app(self, range: Condition) -> Condition:
        return range if range.sql == "1" else Condition(f"app = ? AND {range.sql}", (self.session.app, *range.values))


def _conditions(query: Query) -> dict[str, tuple[Condition, Ways]]:
    """The conditions of a query by name, each as a condition on rows and, if it can serve as one, as ways in."""
    found: dict[str, tuple[Condition, Ways]] = {"all": (Condition("1"), [(TABLE, Condition("1"))])}
    if query.id_prefix is not None:
        between = Condition("id BETWEEN ? AND ?", _id_range(query.id_prefix))
        name = "id_prefix" if len(query.id_prefix) >= SELECTIVE else "few digits"
        found[name] = between, [("job INDEXED BY job_id", between)]
    if query.parent is not None:
        parent = Condition("parent = ?", (query.parent.bytes,))
        found["parent"] = parent, [("job INDEXED BY job_parent", parent)]
    if query.root is not None:
        root = query.root.bytes
        own = Condition("id = ? AND root IS NULL", (root,))
        ways = [("job INDEXED BY job_root", Condition("root = ?", (root,))), ("job INDEXED BY job_id", own)]
        found["root"] = Condition("(root = ? OR (root IS NULL AND id = ?))", (root, root)), ways
    if query.states:
        states = Condition(f"state IN ({', '.join(sorted(str(NUMBERS[state]) for state in query.states))})")
        found["state"] = states, []
    if query.in_line:
        found["in_line"] = Condition("lined = 1"), []
    if query.in_line or (query.states and not query.states & FINAL):
        found["open"] = Condition("state < 3"), _unfinished(query)
    for column, value in {"name": query.name, "queue": query.queue, "node": query.node}.items():
        if value is not None:
            found[column] = Condition(f"{column} = ?", (value,)), []
    for sign, moment in {">": query.created_after, "<": query.created_before}.items():
        if moment is not None:
            found[f"created {sign}"] = Condition(f"created {sign} ?", (moment,)), []
    return found


def _unfinished(query: Query) -> Ways:
    """Where unfinished jobs in these states are: in line or carried if they wait, leased if not; those that are suspended may be either."""
    line = Condition("lined = 1") if query.queue is None else Condition("lined = 1 AND queue = ?", (query.queue,))
    if query.in_line:
        return [(LINE, line)]
    ways: Ways = []
    if query.states & {ResultState.PENDING, ResultState.SUSPENDED}:
        ways += [(LINE, line), (CARRIED, Condition("lined = 2"))]
    if query.states & {ResultState.RUNNING, ResultState.SUSPENDED}:
        ways += [(LEASES, Condition("lease_end IS NOT NULL"))]
    return ways


def _rows_between(session: Session, after: float | None, before: float | None) -> tuple[int, int]:
    """The first and the last row that may have been created between these moments: by halving, since rows are in order of creation."""
    lowest = session.app << APP_BITS
    highest = lowest + (1 << APP_BITS) - 1
    if after is None and before is None:
        return lowest, highest
    row = session.one("SELECT max(seq) FROM job WHERE seq BETWEEN ? AND ?", lowest, highest)
    last = lowest if row is None or row[0] is None else row[0]

    def first(sign: str, moment: float) -> int:
        low, high = lowest, last + 1
        while low < high:
            middle = (low + high) // 2
            row = session.one(
                f"SELECT seq, created {sign} ? FROM job WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT 1", moment, middle, high - 1
            )
            if row is None or row[1]:
                high = middle
            else:
                low = row[0] + 1
        return low

    # What is created from now on may match "after", too.
    return lowest if after is None else first(">", after), highest if before is None else first(">=", before) - 1


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


def find(query: Query, start: Start | None, limit: int) -> Operation[Page]:
    """At most so many records that match, by creation: some of those in the stretch after ``start``."""

    def work(session: Session) -> Finish[Page]:
        plan = Plan(session, query)
        arms, stop = plan.stretch(start, limit)
        sql = " UNION ALL ".join(f"SELECT {RECORD}, seq FROM {table} WHERE {condition.sql}" for table, condition in arms)
        values = [value for _, condition in arms for value in condition.values]
        rows: list[Row] = session.all(f"{sql} {plan.order} LIMIT ?", *values, limit)
        records = [make_record(row[:-1]) for row in rows]
        if len(rows) == limit and (stop is None or stop.seq != rows[-1][-1]):
            stop = Start(rows[-1][-1])
        return lambda: Page(records, stop)

    return work


def count(query: Query, by: GroupBy, start: Start | None) -> Operation[tuple[dict[str, int], Start | None]]:
    """How many records of the stretch after ``start`` match, by a column; and from where to go on."""

    def work(session: Session) -> Finish[tuple[dict[str, int], Start | None]]:
        arms, stop = Plan(session, query._replace(newest_first=False)).stretch(start, STRETCH)
        numbers: dict[str, int] = {}
        for table, condition in arms:
            for group, number in session.all(f"SELECT {by}, count(*) FROM {table} WHERE {condition.sql} GROUP BY {by}", *condition.values):
                numbers[_group(by, group)] = numbers.get(_group(by, group), 0) + number
        return lambda: (numbers, stop)

    return work


def _group(by: GroupBy, value: str | int | None) -> str:
    return str(list(NUMBERS)[value]) if by == "state" and isinstance(value, int) else str(value or "")
