"""Looking through the records, a stretch at a time, so that no look holds up the log for long.

Records are in the order of their creation by their row numbers. So a look goes through the table, or through an index that has the
rows of one parent or root in order. The unfinished have no such index, which each new job would have to enter: their rows are
collected from the line, the leases, and what brokers carry.

The jobs of a label are in the table "label" up to the row ``indexed`` of the session; of those behind it, the tail, the metadata is looked
at (see labels.py).
"""

# ruff: noqa: S608 - the texts are put together from constants and numbers only
from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from mognet.engine import METADATA, GroupBy
from mognet.engines.sql.session import NUMBERS, Finish, Operation, Row, Session, dump, make_record
from mognet.engines.sql.statements import APP_BITS, RECORD
from mognet.records import Query, Record, Wanted
from mognet.states import FINAL, ResultState

STRETCH = 5_000
"""Rows that one statement looks at."""

COLLECTED = 50_000
"""Rows of unfinished jobs that one statement collects."""

CHUNK = 500
"""Records that one operation answers."""

SELECTIVE = 4
"""Digits of an id from which on the index of ids is the better way in."""


FEW = 4
"""As many times the records that are asked for are collected at first, where an index leads to them; as many times the jobs that run
may those of a label be, to be gone through."""


class Start(NamedTuple):
    """How far a look has come: the last row, those that were collected and come next, and how many to collect then."""

    seq: int
    rows: array[int] = array("q")
    collect: int = COLLECTED


class Page(NamedTuple):
    """Some of the records that match, and from where to go on (None: that was all)."""

    records: list[Record]
    next: Start | None


class Condition(NamedTuple):
    """A piece of SQL and its parameters."""

    sql: str
    values: tuple[object, ...] = ()


ANY = Condition("1")

Ways = list[tuple[str, Condition]]
"""Tables, by which index, and ranges of them."""

Conditions = dict[str, tuple[Condition, Ways]]
"""Conditions by name, each as one on rows and, if it can serve as one, as ways in."""

_UNDER = """
WITH RECURSIVE tree(id) AS (
    SELECT ?
    UNION
    SELECT job.id FROM tree CROSS JOIN job ON job.app = ? AND job.parent = tree.id WHERE job.expires IS NULL OR job.expires > ?)
SELECT job.seq FROM tree CROSS JOIN job ON job.app = ? AND job.id = tree.id"""

_HELD = frozenset({ResultState.RUNNING, ResultState.SUSPENDED})

MOST_LABELS = 400
"""Values whose ranges one statement merges; SQLite's limit for compound statements is 500."""

MOST_HINTS = 16
"""Values whose texts are looked for in metadata, before it is read."""

TABLE, ROWS, LABELS, TAIL = "job NOT INDEXED", "job", "label", "job AS tail NOT INDEXED"
LINE, CARRIED, LEASES = "job INDEXED BY job_line", "job INDEXED BY job_carried", "job INDEXED BY job_lease"


class Plan:
    """A query as SQL: the ranges to go through, and the condition on their rows."""

    def __init__(self, session: Session, query: Query) -> None:
        self.session = session
        self.newest_first = query.newest_first
        self.order = "ORDER BY seq DESC" if query.newest_first else "ORDER BY seq"
        conditions = _conditions(session, query)
        self.way, self.narrow = self._way_in(query, conditions)
        single, self.ways = conditions.pop(self.way)
        self.again = single if self.way == "label" else ANY
        """What may no longer be true of rows that were collected for an earlier page."""
        self.low, self.high = _rows_between(session, query.created_after, query.created_before)
        if query.after is not None:
            if query.newest_first:
                self.high = min(self.high, query.after.place - 1)
            else:
                self.low = max(self.low, query.after.place + 1)
        rest = [single for name, (single, _) in conditions.items() if name != "all"]
        self.filter = _both(_present(session), *rest)

    def _way_in(self, query: Query, conditions: Conditions) -> tuple[str, Condition]:
        """The condition whose ranges to go through, and what is looked up in another index meanwhile, so that fewer rows are looked at."""
        ways = ["id_prefix", "parent", "root", "under", "label", "open", "all"]
        if query.states and query.states <= _HELD:
            ways.insert(4, "open")  # those that run are few, of whatever label
        way = next(name for name in ways if name in conditions)
        if way != "open":
            return way, ANY
        if "label" in conditions and self._are_few(conditions["label"][1], conditions["open"][1]):
            held = self._union("seq", conditions["open"][1])
            return "label", Condition(f"+seq IN ({held.sql})", held.values)
        return way, _both(*(single for name, (single, _) in conditions.items() if name.startswith("label")))

    def _are_few(self, labelled: Ways, held: Ways) -> bool:
        """Whether it is quicker to go through the jobs of one label, and ask a set of those that run, than to look up each of these."""
        labelled = [(table, range) for table, range in labelled if table != TAIL]
        if len(labelled) > 1:
            return False
        sql, values = self._union("1", held)
        [(number,)] = self.session.all(f"SELECT count(*) FROM ({sql} LIMIT {COLLECTED})", *values)
        sql, values = self._union("1", labelled)
        return self.session.one(f"{sql} LIMIT 1 OFFSET {FEW * number}", *values) is None

    def _union(self, columns: str, ways: Ways, rows: tuple[int, int] | None = None, narrow: Condition = ANY) -> Condition:
        arms = [(table, arm) for table, range in ways if (arm := self._arm(table, range, rows, narrow)) is not None]
        sql = " UNION ALL ".join(f"SELECT {columns} FROM {table} WHERE {condition.sql}" for table, condition in arms)
        return Condition(sql, tuple(value for _, condition in arms for value in condition.values))

    def _arm(self, table: str, range: Condition, rows: tuple[int, int] | None, narrow: Condition) -> Condition | None:
        if rows is None:
            return _both(self._app(table, range), narrow)
        if table != TAIL:
            return _both(self._app(table, range), _between(rows), narrow)
        low, high = max(rows[0], self.session.indexed + 1), rows[1]
        return _both(_between((low, high)), narrow, range) if low <= high else None

    def stretch(self, start: Start | None, most: int) -> tuple[list[tuple[str, Condition]], Start | None]:
        """Tables and conditions of the stretch after ``start``, and where it ends (None: with the range)."""
        if self.way in ("open", "under", "label"):
            return self._collected(start, most)
        table, range = self.ways[0]
        sql, values = _both(self._app(table, range), _between(self._rows(start, None)))
        stop = self.session.one(f"SELECT seq FROM {table} WHERE {sql} {self.order} LIMIT 1 OFFSET {STRETCH - 1}", *values)
        end = None if stop is None else Start(stop[0])
        rows = _between(self._rows(start, end))
        return [(table, _both(self._app(table, range), rows, self.filter)) for table, range in self.ways], end

    def _collected(self, start: Start | None, most: int) -> tuple[list[tuple[str, Condition]], Start | None]:
        rows = start.rows if start is not None else array("q")
        collect = self._first(most) if start is None else start.collect
        full, again = True, self.again
        if not rows:
            again = ANY
            sql, values = self._union("seq", self.ways, self._rows(start, None), self.narrow)
            rows = array("q", [seq for (seq,) in self.session.all(f"{sql} {self.order} LIMIT {collect}", *values)])
            full = len(rows) == collect
            collect = min(COLLECTED, FEW * collect)
        most = most if start is None else max(most, CHUNK)
        now, later = rows[:most], rows[most:]
        end = Start(now[-1], later, collect) if later or (full and now) else None
        return [(TABLE, _both(Condition("seq IN (SELECT value FROM json_each(?))", (dump(now),)), again, self.filter))], end

    def _first(self, most: int) -> int:
        """How many rows to collect at first, for so many records."""
        if self.way != "label":
            return COLLECTED
        return FEW * most if self.narrow == ANY else most

    def _rows(self, start: Start | None, end: Start | None) -> tuple[int, int]:
        low, high = self.low, self.high
        if self.newest_first:
            high = high if start is None else min(high, start.seq - 1)
            low = low if end is None else max(low, end.seq)
        else:
            low = low if start is None else max(low, start.seq + 1)
            high = high if end is None else min(high, end.seq)
        return low, high

    def _app(self, table: str, range: Condition) -> Condition:
        if range == ANY or table in (LABELS, ROWS):
            return range
        return Condition(f"app = ? AND {range.sql}", (self.session.app, *range.values))


def conditions_on_rows(session: Session, query: Query) -> Condition:
    """All conditions of a query, on whatever rows are looked at."""
    conditions = _conditions(session, query._replace(after=None))
    return _both(_present(session), *(single for name, (single, _) in conditions.items() if name != "all"))


def _present(session: Session) -> Condition:
    return Condition("(expires IS NULL OR expires > ?)", (session.now,))


def _labelled(session: Session, wanted: Sequence[Wanted]) -> Conditions:
    """The conditions on metadata: those whose paths are indexed by the index, the others by looking at it."""
    found: Conditions = {}
    paths, whole = session.paths() if wanted else {}, session.whole() if wanted else frozenset()
    for number, each in enumerate(wanted):
        if each.path not in whole or not each.labels or len(each.labels) > MOST_LABELS:
            found[f"metadata {number}"] = _looked_at(each), []
            continue
        path, values = paths[each.path], sorted(each.labels)
        marks = ", ".join("?" * len(values))
        entry = f"EXISTS (SELECT 1 FROM label WHERE path = ? AND label IN ({marks}) AND label.seq = job.seq)"
        look = _looked_at(each)
        single = Condition(f"iif(job.seq > ?, {look.sql}, {entry})", (session.indexed, *look.values, path, *values))
        ways: Ways = [(LABELS, Condition("path = ? AND label = ?", (path, value))) for value in values]
        found["label" if "label" not in found else f"label {number}"] = single, [*ways, (TAIL, look)]
    return found


def _looked_at(wanted: Wanted) -> Condition:
    """Whether a job's metadata hold.

    Most that do not are told by their text, without being read: without a backslash in it, the text of a string in JSON is the string.
    """
    text = json.dumps([wanted.path, sorted(label.decode() for label in wanted.labels)])
    exact = Condition("has_metadata(metadata, ?)", (text,))
    if not 0 < len(wanted.labels) <= MOST_HINTS or not all(map(_is_literal, wanted.labels)):
        return exact
    hints = " OR ".join(["instr(metadata, ?)"] * len(wanted.labels))
    return Condition(f"((instr(metadata, x'5c') OR {hints}) AND {exact.sql})", (*sorted(wanted.labels), *exact.values))


def _is_literal(label: bytes) -> bool:
    """Whether each JSON text without a backslash that has this value somewhere has this text there."""
    return label.startswith(b'"') or label in (b"true", b"false", b"null")


def _conditions(session: Session, query: Query) -> Conditions:
    """The conditions of a query."""
    found: Conditions = {"all": (ANY, [(TABLE, ANY)])}
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
    if query.under is not None:
        below = Condition(f"job.seq IN ({_UNDER})", (query.under.bytes, session.app, session.now, session.app))
        found["under"] = below, [(ROWS, below)]
    found |= _labelled(session, query.metadata)
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


def _between(rows: tuple[int, int]) -> Condition:
    return Condition("seq BETWEEN ? AND ?", rows)


def _both(*conditions: Condition) -> Condition:
    needed = [condition for condition in conditions if condition != ANY] or [ANY]
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


def count(query: Query, by: GroupBy | str, start: Start | None) -> Operation[tuple[dict[str, int], Start | None]]:
    """How many records of the stretch after ``start`` match, by a column or a path in metadata; and from where to go on."""

    def work(session: Session) -> Finish[tuple[dict[str, int], Start | None]]:
        path = by.removeprefix(METADATA) if by.startswith(METADATA) else None
        if path is not None and query == Query() and path in session.whole():
            numbers = _counted_by_label(session, path)
            return lambda: (numbers, None)
        group = Condition(by) if path is None else Condition("metadata_label(metadata, ?)", (path,))
        arms, stop = Plan(session, query._replace(newest_first=False, after=None)).stretch(start, STRETCH)
        numbers = {}
        for table, condition in arms:
            statement = f"SELECT {group.sql}, count(*) FROM {table} WHERE {condition.sql} GROUP BY 1"
            for value, number in session.all(statement, *group.values, *condition.values):
                numbers[_group(by, value)] = numbers.get(_group(by, value), 0) + number
        return lambda: (numbers, stop)

    return work


def _counted_by_label(session: Session, path: str) -> dict[str, int]:
    """All jobs of an app by their label at a path, by its index and the tail, less those that have expired and are yet to be deleted."""
    [(total,)] = session.all("SELECT count(*) FROM job INDEXED BY job_id WHERE app = ?", session.app)
    numbers = Counter(
        {
            label: number
            for label, number in session.all("SELECT label, count(*) FROM label WHERE path = ? GROUP BY label", session.paths()[path])
        }
    )
    low, high = session.rows()
    tail = session.all(
        "SELECT metadata_label(metadata, ?), count(*) FROM job NOT INDEXED WHERE seq BETWEEN ? AND ? GROUP BY 1",
        path,
        max(low, session.indexed + 1),
        high,
    )
    numbers.update({label: number for label, number in tail if label is not None})
    gone = session.all(
        "SELECT metadata_label(metadata, ?) FROM job INDEXED BY job_cleanup WHERE app = ? AND cleanup <= ? AND expires <= ?",
        path,
        session.app,
        session.now,
        session.now,
    )
    without = total - sum(numbers.values()) - sum(label is None for (label,) in gone)
    numbers.subtract(label for (label,) in gone if label is not None)
    numbers[b""] = without
    return {label.decode(): number for label, number in numbers.items() if number > 0}


def _group(by: str, value: bytes | str | int | None) -> str:
    if by == "state" and isinstance(value, int):
        return str(list(NUMBERS)[value])
    return value.decode() if isinstance(value, bytes) else str(value or "")
