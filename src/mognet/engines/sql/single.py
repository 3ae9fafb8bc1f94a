"""Storing one plain new job by a single statement, which is a transaction in itself.

The job's row is the one behind that of the last job that was stored so: usually nobody else has added any since, and then it need not be
looked for. The statement sees to it that this is so.
"""

# ruff: noqa: S608 - the texts are put together from constants and numbers only
from __future__ import annotations

from mognet.engines.sql import statements as sql
from mognet.engines.sql.session import INLINE, Session
from mognet.records import Job

NO_METADATA = b"{}"

_IS_NEWER = f"""
    (SELECT seq < ?2 AND created <= ?8 FROM job
     WHERE seq > ?1 << {sql.APP_BITS} AND seq < (?1 + 1) << {sql.APP_BITS} ORDER BY seq DESC LIMIT 1)"""


_COLUMNS = "seq, app, id, state, lined, priority, queue, due, arrival, created, name, body"


# A job in row ?2, created now (?8): unless there it would not be behind all others, its id is known, changes are noted, or other paths are
# indexed than ?3 stands for.
def _insert(columns: str, values: str) -> str:
    return f"""
INSERT INTO job ({_COLUMNS}, {columns})
SELECT ?2, ?1, ?4, 0, 1, ?5, ?6, ?7, ?2, ?8, ?9, ?10, {values}
FROM app WHERE app.app = ?1 AND turn < ?2 AND indexed < ?2 AND noted_until <= ?8 AND paths = ?3 AND coalesce({_IS_NEWER}, 1)
ON CONFLICT (app, id) DO NOTHING"""


_INSERT = _insert("metadata, label, latest, late_ttl", "?11, ?12, ?13, ?14")
# Values that are bound cost more than those that are not there.
_INSERT_PLAIN = _insert("metadata", "?11")
_INSERT_BARE = _insert("metadata", "x'7b7d'")


def add(session: Session, job: Job) -> bool:
    """Store a job, and put it in line. False: it is large or has a family, its id is known, or more is to be done, and nothing was."""
    if job.parent is not None or job.root is not None or len(job.body) > INLINE or len(job.metadata) > INLINE:
        return False
    return _put(session, job) or (_renew(session) and _put(session, job))


def _put(session: Session, job: Job) -> bool:
    now, seq = session.clock(), session.tip + 1
    row = (session.app, seq, session.paths_version, job.id.bytes, job.priority, job.queue, now + job.delay, now, job.name, job.body)
    if job.label is None and job.latest is None:
        cursor = session.cursor.execute(*((_INSERT_BARE, row) if job.metadata == NO_METADATA else (_INSERT_PLAIN, (*row, job.metadata))))
    else:
        full = (*row, job.metadata, job.label, job.latest, None if job.latest is None else job.ttl)
        cursor = session.cursor.execute(_INSERT, full)
    if cursor.rowcount != 1:
        return False
    session.tip = seq
    return True


def _renew(session: Session) -> bool:
    """Look where the numbers stand now. False: that was not in the way."""
    paths, noted_until, _ = session.one(sql.FLAGS, session.app) or (0, 0.0, 0)
    if paths != session.paths_version or noted_until > session.clock():
        return False
    before, session.tip = session.tip, session.last().seq
    return session.tip != before
