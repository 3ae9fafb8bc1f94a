"""Storing new jobs, and putting them in line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from uuid import UUID

from mognet.engines.sql import changes
from mognet.engines.sql import statements as sql
from mognet.engines.sql.ending import body_key, end, remove
from mognet.engines.sql.session import (
    INLINE,
    NUMBERS,
    Finish,
    Operation,
    Row,
    Session,
    dump,
    expired,
    flat_blocks,
    id_list,
    make_record,
    make_uuid,
)
from mognet.records import Job, Record, Token
from mognet.states import ResultState

OUT, IN_LINE, CARRIED = 0, 1, 2
"""Whether a job is in line; not if a broker carries it."""


def submit(jobs: Sequence[Job], enqueue: bool) -> Operation[list[bool]]:
    """Store jobs, and put them in line."""

    def work(session: Session) -> Finish[list[bool]]:
        batch = _Batch(session, jobs, enqueue)
        added = [batch.add(job) for job in jobs]
        if not batch.insert():
            batch = _Batch(session, jobs, enqueue, hopeful=False)
            added = [batch.add(job) for job in jobs]
            batch.insert()
        revoked = batch.write()

        def finish() -> list[bool]:
            if queues := {job.queue for job, is_new in zip(jobs, added, strict=True) if is_new and (enqueue or job.delay > 0)}:
                session.ears.ring(queues)
            if revoked:
                session.ears.tell_done([(record, None) for record in revoked()])
            return added

        return finish

    return work


class _Batch:
    """The rows of one submit, as they come to be; each job sees those before it.

    ``hopeful``: as if no id were known. If one is, the insert says so, and all begins anew with a look.
    """

    def __init__(self, session: Session, jobs: Sequence[Job], enqueue: bool, *, hopeful: bool = True) -> None:
        self.session, self.enqueue = session, enqueue
        self.known: set[UUID] = set()
        if not hopeful:
            self.known, stale = self._find_known(jobs)
            if stale:
                remove(session, stale)
        self.parents = self._find_parents(jobs)
        self.seq, created = session.last()
        self.first = self.seq + 1
        self.created = max(created, session.now)
        self.columns = sql.PLAIN if all((job.parent, job.root, job.latest) == (None, None, None) for job in jobs) else sql.ADDED
        self.values: list[object] = []
        """Of all rows, one behind the other."""
        self.contents: list[Row] = []
        self.revoked: defaultdict[float | None, list[int]] = defaultdict(list)

    def _find_known(self, jobs: Sequence[Job]) -> tuple[set[UUID], list[int]]:
        known, stale = set(), []
        for seq, id, expires in self.session.all(sql.KNOWN, self.session.app, *id_list({job.id for job in jobs})):
            if expired(expires, self.session.now):
                stale.append(seq)
            else:
                known.add(make_uuid(id))
        return known, stale

    def _find_parents(self, jobs: Sequence[Job]) -> dict[UUID, tuple[int, Token | None]]:
        wanted = {job.parent for job in jobs if job.parent is not None}
        found: dict[UUID, tuple[int, Token | None]] = {}
        if wanted:
            for id, state, holder, start, expires in self.session.all(sql.PARENTS, self.session.app, *id_list(wanted)):
                if not expired(expires, self.session.now):
                    uuid = make_uuid(id)
                    found[uuid] = state, None if holder is None else Token(uuid, start, holder)
        return found

    @property
    def rows(self) -> range:
        """The numbers of the rows so far."""
        return range(self.first, self.seq + 1)

    def add(self, job: Job) -> bool:
        if job.id in self.known:
            return False
        state, token = self.parents.get(job.parent, (None, None)) if job.parent is not None else (None, None)
        revoked = state == NUMBERS[ResultState.REVOKED]
        if not revoked and job.parent_token is not None and token != job.parent_token:
            return False
        self.known.add(job.id)
        self.parents[job.id] = NUMBERS[ResultState.REVOKED if revoked else ResultState.PENDING], None
        self.seq += 1
        session = self.session
        lined = OUT if revoked else IN_LINE if self.enqueue or job.delay > 0 else CARRIED
        # No bytes: they take four times as long to bind, since sqlite3 looks for an adapter each time.
        self.values += (
            self.seq,
            session.app,
            bytearray(job.id.bytes),
            0,
            lined,
            job.priority,
            job.queue,
            session.now + job.delay,
            self.seq,
            self.created,
            job.name,
            job.label,
            bytearray(job.metadata),
            bytearray(job.body) if len(job.body) <= INLINE else None,
        )
        if self.columns is sql.ADDED:
            self.values += (
                None if job.parent is None else job.parent.bytes,
                None if job.root is None or job.root == job.id else job.root.bytes,
                job.latest,
                None if job.latest is None else job.ttl,
            )
        if len(job.body) > INLINE:
            self.contents.append((body_key(self.seq), job.body))
        if revoked:
            self.revoked[job.ttl].append(self.seq)
        return not revoked

    def insert(self) -> bool:
        """Write the rows. False: an id was known after all, and nothing is written."""
        session, added = self.session, 0
        for size, block in flat_blocks(self.values, sql.width(self.columns)):
            added += session.connection.execute(sql.add_jobs(size, self.columns), block).rowcount
        if added == len(self.rows):
            return True
        session.run(sql.DROP_RANGE, self.rows[0], self.rows[-1])
        return False

    def write(self) -> Callable[[], list[Record]] | None:
        """Write all else; answer what fetches the jobs that were born REVOKED."""
        session = self.session
        if self.contents:
            session.blocks(sql.put_contents, self.contents)
        if self.rows:
            session.paths()
            session.newest = self.seq
            changes.note(session, self.rows)
        if not self.revoked:
            return None
        for ttl, seqs in self.revoked.items():
            end(session, ResultState.REVOKED, seqs, ttl)
        cursor = session.open(sql.RECORDS, session.app, dump([seq for seqs in self.revoked.values() for seq in seqs]))
        return lambda: [make_record(row[1:]) for row in cursor.fetchall()]


def bury(session: Session, id: UUID, state: ResultState, ttl: float | None) -> Finish[Record]:
    """Leave a tombstone."""
    last = session.last()
    seq, created = last.seq + 1, max(last.created, session.now)
    start = NUMBERS[ResultState.PENDING]
    row = (seq, session.app, id.bytes, start, OUT, 5, "", session.now, seq, created, None, None, b"{}", None)
    session.run(sql.add_jobs(1, sql.PLAIN), *row)
    end(session, state, [seq], ttl)
    changes.note(session, [seq])
    cursor = session.open(sql.RECORDS, session.app, dump([seq]))

    def finish() -> Record:
        record = make_record(cursor.fetchall()[0][1:])
        session.ears.tell_done([(record, None)])
        return record

    return finish
