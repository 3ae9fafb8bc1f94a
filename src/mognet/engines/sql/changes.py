"""Notes of what has changed, for those who read on and on.

A note is a number in the job's row, of which an index keeps the order: each job has one at most, and a change moves it to the end. Numbers
are counted in the app's row, and not below the clock: so a file that was restored from a backup gives none again that somebody has read,
for other changes. They are given only while somebody reads, or has read within a day: otherwise a change costs nothing more.
"""

# ruff: noqa: S608 - the texts are put together from constants only
from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple

from mognet.engine import KEEP_NOTES
from mognet.engines.sql import statements as sql
from mognet.engines.sql.search import conditions_on_rows
from mognet.engines.sql.session import Finish, Operation, Session, dump, make_record
from mognet.engines.sql.statements import RECORD
from mognet.records import Changed, Changes, Query

PROLONGED_BY = 3600.0
"""Seconds of the time for which notes are taken that pass before it is prolonged."""


def note(session: Session, seqs: Sequence[int]) -> None:
    """These jobs have changed."""
    if seqs and session.noted():
        last: int = max(session.one(sql.CHANGED, session.app)[0], _ticks(session))  # type: ignore[index] # the app has a row
        session.run(sql.NOTE_CHANGES, last + 1, dump(seqs))
        session.run(sql.SET_CHANGED, session.app, last + len(seqs))
        session.news = True


def _ticks(session: Session) -> int:
    return int(session.now * 1_000_000)


def begin(session: Session) -> Finish[str]:
    """Take notes from now on, or for longer; answer the place of now."""
    last, _, until = session.one(sql.NOTES_TAKEN, session.app) or (0, 0, 0.0)
    if until <= session.now:
        last = max(last + 1, _ticks(session))
        session.run(sql.TAKE_NOTES, session.app, last, session.now + KEEP_NOTES)
    elif until - session.now < KEEP_NOTES - PROLONGED_BY:
        session.run(sql.PROLONG_NOTES, session.app, session.now + KEEP_NOTES)
    return lambda: str(last)


def number(since: str) -> int:
    """The number of a place. Raises ValueError."""
    if not (since.isascii() and since.isdecimal() and len(since) < 19):
        raise ValueError(f"since={since!r} is no place in the order of changes")
    return int(since)


class Read(NamedTuple):
    """What was read, and whether it is time to say that somebody does."""

    changes: Changes
    prolong: bool


def read(since: int, query: Query, limit: int) -> Operation[Read]:
    """What has changed since a number."""

    def work(session: Session) -> Finish[Read]:
        last, first, noted_until = session.one(sql.NOTES_TAKEN, session.app) or (0, 0, 0.0)
        end = session.one(sql.NTH_CHANGE, session.app, since, limit - 1)
        until = last if end is None else end[0]
        where = conditions_on_rows(session, query)
        rows = session.all(
            f"SELECT {RECORD}, changed FROM job INDEXED BY job_changed WHERE app = ? AND changed > ? AND changed <= ? "
            f"AND {where.sql} ORDER BY changed",
            session.app,
            since,
            until,
            *where.values,
        )
        changed = [Changed(str(row[-1]), make_record(row[:-1])) for row in rows]
        left = noted_until - session.now
        lost = left <= 0 or since < first or since > last
        changes = Changes(changed, str(until), session.now, more=until < last, lost=lost)
        return lambda: Read(changes, left < KEEP_NOTES - PROLONGED_BY)

    return work


def identity(session: Session) -> Finish[str]:
    """What the app's records are known by; made up if nobody has asked before."""
    row = session.one(sql.IDENTITY, session.app)
    known: str | None = None if row is None else row[0]
    if known is None:
        known = secrets.token_hex(8)
        session.run(sql.SET_IDENTITY, session.app, known)
    return lambda: known
