"""No statement's cost grows with the number of jobs stored: each finds its rows by an index, or by their numbers."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mognet.engines.sql import labels, search
from mognet.engines.sql import statements as sql
from mognet.engines.sql.connection import open_file
from mognet.engines.sql.session import NUMBERS, Session
from mognet.records import Query, Wanted
from mognet.states import ResultState

STATEMENTS = {name: text for name, text in vars(sql).items() if name[0].isupper() and isinstance(text, str) and "FROM " in text}
STATEMENTS |= {
    f"{make.__name__} {n}": make(n) for make in (sql.pick, sql.again, sql.put_contents, sql.add_jobs, sql.end_with) for n in (1, 3, 16)
}

INDEXES = {
    "KNOWN": "job_id",
    "PARENTS": "job_id",
    "HEADS": "job_line",
    "pick 1": "job_line",
    "pick 3": "job_line",
    "PICK_IDS": "job_id",
    "HOLDER": "job_id",
    "NOTES": "job_id",
    "GET": "job_id",
    "JOB": "job_id",
    "VALUE": "job_id",
    "ROWS": "job_id",
    "UNFINISHED_TREE": "job_parent",
    "LOST": "job_lease",
    "CARRIED": "job_carried",
    "EXPIRED": "job_cleanup",
}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_file(tmp_path / "jobs.db", "full")
    yield connection
    connection.close()


def plan(connection: sqlite3.Connection, statement: str, values: list[Any] | None = None) -> list[str]:
    number = max((n for n in range(1, 800) if f"?{n}" in statement), default=statement.count("?"))
    rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values if values is not None else [None] * number).fetchall()
    return [row[-1] for row in rows]


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_scans(connection: sqlite3.Connection, name: str) -> None:
    lines = plan(connection, STATEMENTS[name])
    assert not [line for line in lines if line.startswith(("SCAN job", "SCAN content", "SCAN note"))], lines
    # "app = ?" alone would be every job of the app.
    assert not [line for line in lines if "(app=?)" in line], lines
    if index := INDEXES.get(name):
        assert [line for line in lines if index in line], lines


@pytest.mark.parametrize("name", ["pick 1", "pick 3"])
def test_the_line_is_read_in_its_order(connection: sqlite3.Connection, name: str) -> None:
    """Jobs that are not due are not looked at, nor are more than the limit: ranges up to now, merged without sorting."""
    lines = plan(connection, STATEMENTS[name])
    assert not [line for line in lines if "TEMP B-TREE" in line], lines
    assert [line for line in lines if "(app=? AND queue=? AND priority=? AND due<?)" in line], lines


@pytest.mark.parametrize("name", ["CLAIMED", "RECORDS"])
def test_snapshots_are_complete_before_the_commit(connection: sqlite3.Connection, name: str) -> None:
    """What is fetched after the commit was sorted before it, or it would show what came later."""
    lines = plan(connection, STATEMENTS[name])
    assert lines[-1].startswith("USE TEMP B-TREE FOR") and "ORDER BY" in lines[-1], lines


def test_a_snapshot_does_not_hold_the_write_lock(connection: sqlite3.Connection, tmp_path: Path) -> None:
    columns = (1, 1, uuid4().bytes, 0, 1, 5, "q", 1.0, 1, 1.0, "f", None, b"{}", b"")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(sql.add_jobs(1, sql.PLAIN), columns)
    snapshot = connection.execute(sql.RECORDS, (1, "[1]"))
    connection.execute("UPDATE job SET stops = 7")
    connection.execute("COMMIT")
    other = open_file(tmp_path / "jobs.db", "full")
    other.execute("UPDATE job SET stops = 8")
    other.close()
    [(_, *record)] = snapshot.fetchall()
    assert record[11] == 0


WAITING = frozenset({ResultState.PENDING, ResultState.SUSPENDED})

QUERIES = {
    "parent": (Query(parent=uuid4()), ["job_parent (app=? AND parent=? AND rowid>? AND rowid<?)"]),
    "root": (Query(root=uuid4()), ["job_root (app=? AND root=? AND rowid>? AND rowid<?)", "job_id (app=? AND id=?"]),
    "parent and state": (Query(parent=uuid4(), states=WAITING), ["job_parent (app=? AND parent=? AND rowid>? AND rowid<?)"]),
    "id": (Query(id_prefix="abcdef"), ["job_id (app=? AND id>? AND id<?)"]),
    "created": (Query(created_after=1.0, created_before=2.0, name="f"), ["INTEGER PRIMARY KEY (rowid>? AND rowid<?)"]),
    "newest": (Query(newest_first=True), ["INTEGER PRIMARY KEY (rowid>? AND rowid<?)"]),
    "finished": (Query(states=frozenset({ResultState.SUCCESS})), ["INTEGER PRIMARY KEY (rowid>? AND rowid<?)"]),
}
COLLECTED = {
    "in line": (Query(in_line=True), {"job_line"}),
    "in a queue's line": (Query(in_line=True, queue="q"), {"job_line (app=? AND queue=?)"}),
    "pending": (Query(states=frozenset({ResultState.PENDING})), {"job_line", "job_carried"}),
    "running": (Query(states=frozenset({ResultState.RUNNING})), {"job_lease"}),
    "waiting": (Query(states=WAITING), {"job_line", "job_carried", "job_lease"}),
}


def make_plan(connection: sqlite3.Connection, query: Query) -> search.Plan:
    return search.Plan(make_session(connection), query)


def make_session(connection: sqlite3.Connection) -> Session:
    return Session(connection, 1, lambda: 3.0, None, 3.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize("start", [None, search.Start((1 << sql.APP_BITS) + 7)])
def test_a_search_enters_by_the_best_index(connection: sqlite3.Connection, name: str, start: search.Start | None) -> None:
    query, ranges = QUERIES[name]
    made = make_plan(connection, query)
    arms, _ = made.stretch(start, 100)
    for (table, condition), range in zip(arms, ranges, strict=True):
        lines = plan(connection, f"SELECT * FROM {table} WHERE {condition.sql} {made.order}", list(condition.values))
        assert lines[0].startswith(f"SEARCH job USING {'' if range.startswith('INTEGER') else 'INDEX '}{range}"), lines
        if not range.startswith("job_id"):
            assert not [line for line in lines if "TEMP B-TREE" in line], lines


@pytest.mark.parametrize("name", COLLECTED)
def test_unfinished_jobs_are_collected_from_their_indexes(connection: sqlite3.Connection, name: str) -> None:
    """From the indexes alone; then each is found by its row."""
    query, indexes = COLLECTED[name]
    traced: list[str] = []
    connection.set_trace_callback(traced.append)
    [(table, condition)], _ = make_plan(connection, query).stretch(None, 100)
    connection.set_trace_callback(None)
    lines = [line for text in traced for line in plan(connection, text, [])]
    for index in indexes:
        assert [line for line in lines if f"job USING COVERING INDEX {index}" in line or f"job USING INDEX {index}" in line], lines
    assert not [line for line in lines if "job" in line and "USING" not in line], lines
    lines = plan(connection, f"SELECT * FROM {table} WHERE {condition.sql}", list(condition.values))
    assert "SEARCH job USING INTEGER PRIMARY KEY (rowid=?)" in lines, lines


def test_states_are_numbered_as_the_statements_know_them() -> None:
    numbers = {"PENDING": 0, "RUNNING": 1, "SUSPENDED": 2, "SUCCESS": 3, "FAILURE": 4, "REVOKED": 5, "INVALID": 6}
    assert {state.value: number for state, number in NUMBERS.items()} == numbers


def test_running_jobs_of_a_label_are_looked_up_in_two_indexes(connection: sqlite3.Connection) -> None:
    """No row is looked at that is not an answer; and the set of those that run is not what leads into the labels."""
    connection.execute("INSERT INTO app (app, name) VALUES (1, 'app')")
    labels.declare({"tenant"}, only=False)(make_session(connection))
    query = Query(states=frozenset({ResultState.RUNNING}), metadata=(Wanted("tenant", frozenset({b"1"})),), newest_first=True)
    made = make_plan(connection, query)
    assert made.way == "label"
    traced: list[str] = []
    connection.set_trace_callback(traced.append)
    made.stretch(None, 100)
    connection.set_trace_callback(None)
    [text] = traced
    lines = plan(connection, text, [])
    assert lines[:3] == ["MERGE (UNION ALL)", "LEFT", "SEARCH label USING PRIMARY KEY (path=? AND label=? AND seq>? AND seq<?)"], lines
    tail = lines.index("RIGHT")
    assert lines[tail + 1] == "SEARCH tail USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)", lines
    assert {line for line in lines if line.startswith("SEARCH job")} == {
        "SEARCH job USING COVERING INDEX job_lease (app=? AND lease_end>?)"
    }
    assert not [line for line in lines if "TEMP B-TREE" in line], lines
