"""A model of an engine: what the laws say, in as few words as possible, without speed, storage, signals or concurrency."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from uuid import UUID

from mognet.outcomes import Again, Outcome
from mognet.records import Claim, Job, Record, Token
from mognet.states import FAILED, ResultState

PENDING, RUNNING, SUSPENDED, REVOKED = ResultState.PENDING, ResultState.RUNNING, ResultState.SUSPENDED, ResultState.REVOKED


@dataclass
class Kept:
    """One job."""

    record: Record
    body: bytes
    arrival: int = 0
    in_line: bool = False
    token: Token | None = None
    lease_end: float = 0.0
    value: bytes | None = None
    value_expires: float | None = None
    notes: dict[str, bytes] = field(default_factory=dict)
    notes_expire: float | None = None


class Model:
    """All jobs, and the time."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.jobs: dict[UUID, Kept] = {}
        self.arrivals = 0

    def pass_time(self, seconds: float) -> None:
        """What has expired is gone at once."""
        self.now += seconds
        for id, job in list(self.jobs.items()):
            ends = (job.record.expires, job.value_expires, job.notes_expire)
            record, value, notes = (end is not None and end <= self.now for end in ends)
            if record:
                del self.jobs[id]
            job.value = None if value else job.value
            job.notes = {} if notes else job.notes

    def submit(self, job: Job) -> bool:
        """A new job, a known one, one that is born revoked, or one whose parent's attempt is over."""
        if job.id in self.jobs:
            return False
        revoked = job.parent in self.jobs and self.jobs[job.parent].record.state is REVOKED
        if not revoked and job.parent_token is not None and self.held(job.parent_token) is None:
            return False
        record = Record(job.id, job.name, job.queue, PENDING, job.priority, self.now, self.now + job.delay, job.metadata)
        kept = self.jobs[job.id] = Kept(record._replace(parent=job.parent, root=job.root, label=job.label), job.body)
        if revoked:
            self.end(kept, REVOKED, job.ttl)
        else:
            self.line_up(kept)
        return not revoked

    def line_up(self, job: Kept, *, behind: bool = True) -> None:
        """Put in line: behind what is there, or where it stood."""
        job.in_line, job.token = True, None
        if behind:
            self.arrivals += 1
            job.arrival = self.arrivals

    def due(self, queues: Iterable[str]) -> list[Kept]:
        """What may be claimed, best first."""
        jobs = [job for job in self.jobs.values() if job.in_line and job.record.queue in queues and job.record.due <= self.now]
        return sorted(jobs, key=lambda job: (-job.record.priority, job.record.due, job.arrival))

    def claim(self, claim: Claim, node: str, lease: float) -> None:
        """The engine chose this job."""
        job = self.jobs[claim.token.id]
        job.in_line, job.token, job.lease_end, old = False, claim.token, self.now + lease, job.record
        job.record = old._replace(state=RUNNING, starts=old.starts + 1, node=node, started=old.started or self.now)

    def held(self, token: Token) -> Kept | None:
        """The job that this token holds."""
        job = self.jobs.get(token.id)
        return job if job is not None and job.token == token else None

    def settle(self, outcome: Outcome) -> Kept | None:
        """The end of an attempt."""
        job = self.held(outcome.token)
        if job is None:
            return None
        if outcome.again is None:
            return self.end(job, outcome.state, outcome.ttl, outcome.value_ttl, outcome.value)
        old, released = job.record, outcome.again is Again.RELEASE
        due, attempt = old.due if released else self.now + outcome.delay, old.attempt + (outcome.again is Again.RETRY)
        job.record = old._replace(state=outcome.state, stops=old.stops + (old.state is RUNNING), due=due, attempt=attempt)
        self.line_up(job, behind=not released)
        return job

    def end(self, job: Kept, state: ResultState, ttl: float | None, value_ttl: float | None = None, value: bytes | None = None) -> Kept:
        """A final state: out of line, no token, no notes."""
        old = job.record
        ttl, value_ttl = (ttl, value_ttl) if old.ttl is None else (old.ttl, old.ttl)
        job.record = old._replace(state=state, finished=self.now, stops=old.stops + (old.state is RUNNING))
        job.in_line, job.token, job.notes, job.value = False, None, {}, value
        self.limit(job, ttl, value_ttl)
        return job

    def limit(self, job: Kept, ttl: float | None, value_ttl: float | None) -> None:
        """How long a final record and its value live from now on."""
        ends = [self.now + seconds for seconds in (ttl, value_ttl) if seconds is not None]
        job.record, job.value_expires = job.record._replace(expires=None if ttl is None else ends[0]), min(ends, default=None)

    def revoke(self, id: UUID, ttl: float | None, *, force: bool) -> None:
        """A job and its unfinished descendants; or a tombstone."""
        job = self.jobs.get(id)
        if job is None:
            self.jobs[id] = Kept(Record(id, None, "", PENDING, 5, self.now, self.now), b"")
            self.end(self.jobs[id], REVOKED, ttl)
        elif force or not job.record.done:
            for each in [job, *self.descendants(id)]:
                if not each.record.done:
                    self.end(each, REVOKED, ttl)

    def descendants(self, id: UUID) -> Iterator[Kept]:
        """All below a job."""
        for child in [job for job in self.jobs.values() if job.record.parent == id]:
            yield child
            yield from self.descendants(child.record.id)

    def change(self, job: Kept, state: ResultState) -> None:
        """Suspend or resume."""
        old = job.record
        if {old.state, state} == {RUNNING, SUSPENDED}:
            job.record = old._replace(state=state, stops=old.stops + (state is SUSPENDED), starts=old.starts + (state is RUNNING))

    def merge(self, job: Kept, metadata: bytes) -> None:
        """Put labels over labels."""
        job.record = job.record._replace(metadata=json.dumps({**json.loads(job.record.metadata), **json.loads(metadata)}).encode())

    def rerun(self, id: UUID, body: bytes, metadata: bytes) -> None:
        """A new series of attempts for what ended without a value, and was a job at all."""
        job = self.jobs.get(id)
        if job is None or job.record.state not in FAILED or job.record.name is None:
            return
        old = job.record._replace(state=PENDING, due=self.now, stops=job.record.starts, attempt=1)
        job.record = old._replace(started=None, finished=None, node=None, ttl=None, expires=None, progress=None)
        job.body, job.value, job.value_expires = body, None, None
        self.merge(job, metadata)
        self.line_up(job)

    def sweep(self) -> int:
        """Put the jobs of lost workers back in line."""
        lost = [job for job in self.jobs.values() if job.token is not None and job.lease_end <= self.now]
        for job in lost:
            job.record = job.record._replace(state=PENDING, stops=job.record.stops - (job.record.state is SUSPENDED))
            self.line_up(job, behind=False)
        return len(lost)
