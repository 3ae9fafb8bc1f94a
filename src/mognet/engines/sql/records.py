"""The operations on records and notes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from mognet.codec import merge_metadata
from mognet.engines.sql import changes, labels
from mognet.engines.sql import statements as sql
from mognet.engines.sql.ending import body_key, end, remove, value_key
from mognet.engines.sql.session import INLINE, NUMBERS, Finish, Operation, Session, dump, expired, id_list, make_record
from mognet.engines.sql.submitting import bury
from mognet.outcomes import Change, may_rerun
from mognet.records import Record, Token
from mognet.states import FINAL, ResultState


class Found(NamedTuple):
    """A job that can be seen."""

    seq: int
    record: Record
    token: Token | None


# --- reading


def get(ids: Sequence[UUID]) -> Operation[list[Record | None]]:
    """Records, in the order asked for."""

    def work(session: Session) -> Finish[list[Record | None]]:
        records: list[Record | None] = [None] * len(ids)
        for number, *columns in session.all(sql.GET, session.app, *id_list(ids)):
            record = make_record(columns)
            if not expired(record.expires, session.now):
                records[number] = record
        return lambda: records

    return work


def value(id: UUID) -> Operation[bytes | None]:
    """What a job left."""

    def work(session: Session) -> Finish[bytes | None]:
        row = session.one(sql.VALUE, session.app, id.bytes, session.now)
        return lambda: None if row is None else row[0]

    return work


def body(id: UUID) -> Operation[bytes | None]:
    """The call of a job that has not succeeded."""

    def work(session: Session) -> Finish[bytes | None]:
        row = session.one(sql.BODY, session.app, id.bytes, session.now)
        return lambda: None if row is None else row[0]

    return work


def load(token: Token) -> Operation[dict[str, bytes]]:
    """The notes of the job that a token holds."""

    def work(session: Session) -> Finish[dict[str, bytes]]:
        rows = session.all(sql.NOTES, session.app, token.id.bytes, token.start, token.holder, session.now)
        return lambda: dict(rows)

    return work


# --- writing


def save(token: Token, changes: Mapping[str, bytes | None], ttl: float | None) -> Operation[dict[str, bytes] | None]:
    """Change notes; answer what was there."""

    def work(session: Session) -> Finish[dict[str, bytes] | None]:
        row = session.one(sql.HOLDER, session.app, token.id.bytes, token.start, token.holder)
        if row is None:
            return lambda: None
        seq, expire = row
        if expired(expire, session.now):
            session.run(sql.DROP_NOTES, dump([seq]))
        replaced: dict[str, bytes] = {}
        for name, data in changes.items():
            old = session.one(sql.NOTE, seq, name)
            if old is not None:
                replaced[name] = old[0]
            if data is not None:
                session.run(sql.PUT_NOTE, seq, name, data)
            elif old is not None:
                session.run(sql.DROP_NOTE, seq, name)
        if ttl is not None or expire is not None:
            session.run(sql.LIMIT_NOTES, seq, None if ttl is None else session.now + ttl)
        return lambda: replaced

    return work


def delete(ids: Collection[UUID], states: Collection[ResultState]) -> Operation[int]:
    """Delete jobs, of these states if any are named; answer how many could be seen."""
    numbers = dump(sorted(NUMBERS[state] for state in states or NUMBERS))

    def work(session: Session) -> Finish[int]:
        rows = session.json(sql.ROWS, session.app, *id_list(set(ids)), session.now, numbers)
        if rows:
            remove(session, [seq for seq, _ in rows])
        return lambda: sum(seen for _, seen in rows)

    return work


def update(id: UUID, change: Change, unless: Collection[ResultState]) -> Operation[Record | None]:
    """Apply a change."""

    def work(session: Session) -> Finish[Record | None]:
        found = _find(session, id)
        if found is None:
            return bury(session, id, change.state or ResultState.REVOKED, change.ttl) if change.tombstone else lambda: None
        if change.token is not None and found.token != change.token:
            return lambda: None
        if found.record.state in unless:
            return lambda: found.record
        if change.body is not None:
            return _rerun(session, found, change, change.body)
        ended = _apply(session, found, change)
        cursor = session.open(sql.RECORDS, session.app, dump({found.seq, *(ended if session.ears.expected() else ())}))

        def finish() -> Record:
            records = {row[0]: make_record(row[1:]) for row in cursor.fetchall()}
            if ended:
                session.ears.tell_done([(records[seq], None) for seq in ended if seq in records])
            return records[found.seq]

        return finish

    return work


def _find(session: Session, id: UUID) -> Found | None:
    row = session.one(sql.JOB, session.app, id.bytes)
    if row is None:
        return None
    record, (seq, start, holder) = make_record(row[:-3]), row[-3:]
    if expired(record.expires, session.now):
        remove(session, [seq])
        return None
    return Found(seq, record, None if holder is None else Token(id, start, holder))


def _apply(session: Session, found: Found, change: Change) -> list[int]:
    """Write the change; answer the rows of the jobs that it ended."""
    seq, record = found.seq, found.record
    ended: list[int] = []
    changed = _merge(session, found, change)
    if change.progress is not None:
        session.run(sql.PROGRESS, seq, change.progress)
        changed = True
    if change.state in FINAL:
        if change.descendants:
            ended = session.json(sql.UNFINISHED_TREE, session.app, seq, session.now)
        elif not record.done:
            ended = [seq]
        if ended:
            end(session, change.state, ended, change.ttl)
    elif change.ttl is not None:
        session.run(sql.SET_TTL, seq, change.ttl, session.now)
        changed = True
    if change.state is ResultState.SUSPENDED and record.state is ResultState.RUNNING:
        session.run(sql.SUSPEND, seq)
        changed = True
    elif change.state is ResultState.RUNNING and record.state is ResultState.SUSPENDED:
        session.run(sql.RESUME, seq)
        changed = True
    changes.note(session, [*([seq] if changed and seq not in ended else []), *ended])
    return ended


def _merge(session: Session, found: Found, change: Change) -> bool:
    """Put the change's metadata over the job's. False: there is nothing new in it."""
    if change.metadata is None:
        return False
    old, new = found.record.metadata, merge_metadata(found.record.metadata, change.metadata, change.max_metadata)
    if new == old:
        return False
    session.run(sql.MERGE, found.seq, new)
    labels.change(session, found.seq, old, new)
    return True


def _rerun(session: Session, found: Found, change: Change, body: bytes) -> Finish[Record]:
    """A new series of attempts for a job that ended without a value."""
    seq, record = found.seq, found.record
    if not may_rerun(record, change):
        return lambda: record
    _merge(session, found, change)
    arrival = session.last().seq + 1
    session.run(sql.SET_LAST, session.app, arrival)
    session.run(sql.DROP_CONTENTS, dump([body_key(seq), value_key(seq)]))
    session.run(sql.RERUN, session.app, seq, session.now + change.delay, arrival, body if len(body) <= INLINE else None)
    if len(body) > INLINE:
        session.blocks(sql.put_contents, [(body_key(seq), body)])
    changes.note(session, [seq])
    cursor = session.open(sql.RECORDS, session.app, dump([seq]))

    def finish() -> Record:
        session.ears.ring({record.queue})
        return make_record(cursor.fetchall()[0][1:])

    return finish
