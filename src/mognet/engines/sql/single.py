"""Storing one plain new job by a single statement, which is a transaction in itself."""

# ruff: noqa: S608 - the texts are put together from constants and numbers only
from __future__ import annotations

from functools import cache

from mognet.engines.sql.session import INLINE, Session
from mognet.engines.sql.statements import ADDED, LAST
from mognet.labels import labels
from mognet.records import Job

# A job behind all others (?6: now), unless changes are noted, or other paths are indexed than ?13 stands for.
_VALUES = "seq + 1, ?1, ?2, 0, 1, ?3, ?4, ?5, seq + 1, max(created, ?6), NULL, NULL, ?7, ?8, ?9, ?10, ?11, ?12"
_LAST = f"WITH last(seq, created) AS ({LAST})"
_UNLESS = "FROM last WHERE (SELECT noted_until <= ?6 AND paths = ?13 FROM app WHERE app.app = ?1)"

_ADD = f"INSERT INTO job ({ADDED}) {_LAST} SELECT {_VALUES} {_UNLESS} ON CONFLICT (app, id) DO NOTHING"


def is_plain(job: Job) -> bool:
    """Whether this is enough for a job: it is small, and has no family."""
    return job.parent is None and job.root is None and len(job.body) <= INLINE and len(job.metadata) <= INLINE


def add(session: Session, job: Job) -> bool:
    """Store a plain job, and put it in line. False: its id is known, or more is to be done, and nothing was.

    With labels, a known id is an :class:`sqlite3.IntegrityError`.
    """
    now, paths = session.clock(), session.known_paths
    late_ttl = None if job.latest is None else job.ttl
    row = (
        session.app, job.id.bytes, job.priority, job.queue, now + job.delay, now, job.name, job.label, job.metadata, job.body,
        job.latest, late_ttl, session.paths_version,
    )  # fmt: skip
    found = labels(job.metadata, paths) if paths else {}
    if not found:
        return session.run(_ADD, *row) == 1
    _make_view(session, len(found))
    before = session.connection.total_changes  # what a trigger writes does not count as the statement's own
    session.run(_add_labelled(len(found)), *row, *[value for path, label in found.items() for value in (paths[path], label)])
    return session.connection.total_changes > before


# With labels it is a statement, too: on a view of the connection's own, whose trigger puts what is inserted into the tables.


@cache
def _add_labelled(labels: int) -> str:
    marks = ", ".join(f"?{number}" for number in range(14, 14 + 2 * labels))
    return f"INSERT INTO new_job_{labels} {_LAST} SELECT {_VALUES}, {marks} {_UNLESS}"


def _make_view(session: Session, labels: int) -> None:
    if labels in session.views:
        return
    view, numbers = f"new_job_{labels}", range(labels)
    columns = ", ".join(f"path{number}, label{number}" for number in numbers)
    nothing = ", ".join(["NULL"] * 2 * labels)
    session.run(f"CREATE TEMP VIEW IF NOT EXISTS {view} ({ADDED}, {columns}) AS SELECT {ADDED}, {nothing} FROM job")
    new = ", ".join(f"new.{column}" for column in ADDED.split(", "))
    puts = [f"INSERT INTO job ({ADDED}) VALUES ({new});"]
    puts += [f"INSERT INTO label (path, label, seq) VALUES (new.path{number}, new.label{number}, new.seq);" for number in numbers]
    session.run(f"CREATE TEMP TRIGGER IF NOT EXISTS add_job_{labels} INSTEAD OF INSERT ON {view} BEGIN {' '.join(puts)} END")
    session.views.add(labels)
