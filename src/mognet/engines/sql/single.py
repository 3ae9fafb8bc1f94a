"""Storing one plain new job by a single statement, which is a transaction in itself."""

# ruff: noqa: S608 - the text is put together from constants only
from __future__ import annotations

from mognet.engines.sql import labels
from mognet.engines.sql.session import INLINE, Session
from mognet.engines.sql.statements import ADDED, LAST
from mognet.records import Job

# A job behind all others (?6: now), unless its id is known, changes are noted, or other paths are indexed than ?13 stands for.
_ADD = f"""
INSERT INTO job ({ADDED}) WITH last(seq, created) AS ({LAST})
SELECT seq + 1, ?1, ?2, 0, 1, ?3, ?4, ?5, seq + 1, max(created, ?6), NULL, NULL, ?7, ?8, ?9, ?10, ?11, ?12 FROM last
WHERE (SELECT noted_until <= ?6 AND paths = ?13 FROM app WHERE app.app = ?1)
ON CONFLICT (app, id) DO NOTHING"""


def is_plain(job: Job) -> bool:
    """Whether this is enough for a job: it is small, and has no family."""
    return job.parent is None and job.root is None and len(job.body) <= INLINE and len(job.metadata) <= INLINE


def add(session: Session, job: Job) -> bool:
    """Store a plain job, and put it in line. False: its id is known, or more is to be done, and nothing was."""
    if job.metadata == b"{}" or not session.known_paths:
        return _add(session, job)
    connection = session.connection
    connection.execute("BEGIN IMMEDIATE")
    try:
        added = _add(session, job)
        if added:
            [(seq,)] = session.all("SELECT last_insert_rowid()")
            labels.add(session, [(seq, job.metadata)])
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return added


def _add(session: Session, job: Job) -> bool:
    now = session.clock()
    late_ttl = None if job.latest is None else job.ttl
    row = (job.priority, job.queue, now + job.delay, now, job.name, job.label, job.metadata, job.body, job.latest, late_ttl)
    return session.run(_ADD, session.app, job.id.bytes, *row, session.paths_version) == 1
