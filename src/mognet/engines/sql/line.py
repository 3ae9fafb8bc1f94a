"""The operations on the line: submit, claim, extend, settle, and putting back what was lost."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple
from uuid import UUID

from mognet.engines.sql import statements as sql
from mognet.engines.sql.session import NUMBERS, Finish, Operation, Row, Session, dump, expired, id_list, load, make_record, token_list
from mognet.outcomes import Again, Outcome
from mognet.records import Claim, Job, Record, Token
from mognet.states import ResultState

NEVER = float("inf")

_STATE, _STARTED, _STARTS, _NODE = (Record._fields.index(field) for field in ("state", "started", "starts", "node"))

OUT, IN_LINE, CARRIED = 0, 1, 2
"""Whether a job is in line; not if a broker carries it."""

MOST_QUEUES = 400
"""Ranges that one statement merges; SQLite's limit for compound statements is 500."""


class Claimed(NamedTuple):
    """The answer of a claim."""

    claims: list[Claim]
    before: list[tuple[int, str, int, bool, str | None, int]]
    """What undoes the claim: row, holder, and what was before: state, whether started, node, whether in line."""
    next_due: float
    """When the next job of these queues will be due."""


# --- submit


def submit(jobs: Sequence[Job], enqueue: bool) -> Operation[list[bool]]:
    """Store jobs, and put them in line."""

    def work(session: Session) -> Finish[list[bool]]:
        batch = _Batch(session, jobs, enqueue)
        added = [batch.add(job) for job in jobs]
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
    """The rows of one submit, as they come to be; each job sees those before it."""

    def __init__(self, session: Session, jobs: Sequence[Job], enqueue: bool) -> None:
        self.session, self.enqueue = session, enqueue
        self.known, self.stale = self._find_known(jobs)
        self.parents = self._find_parents(jobs)
        self.last = session.last()
        self.rows: list[Row] = []
        self.contents: list[Row] = []
        self.revoked: defaultdict[float | None, list[int]] = defaultdict(list)

    def _find_known(self, jobs: Sequence[Job]) -> tuple[set[UUID], list[int]]:
        known, stale = set(), []
        for seq, id, expires in self.session.all(sql.KNOWN, self.session.app, *id_list({job.id for job in jobs})):
            if expired(expires, self.session.now):
                stale.append(seq)
            else:
                known.add(UUID(bytes=id))
        return known, stale

    def _find_parents(self, jobs: Sequence[Job]) -> dict[UUID, tuple[int, Token | None]]:
        wanted = {job.parent for job in jobs if job.parent is not None}
        found: dict[UUID, tuple[int, Token | None]] = {}
        if wanted:
            for id, state, holder, start, expires in self.session.all(sql.PARENTS, self.session.app, *id_list(wanted)):
                if not expired(expires, self.session.now):
                    uuid = UUID(bytes=id)
                    found[uuid] = state, None if holder is None else Token(uuid, start, holder)
        return found

    def add(self, job: Job) -> bool:
        if job.id in self.known:
            return False
        state, token = self.parents.get(job.parent, (None, None)) if job.parent is not None else (None, None)
        revoked = state == NUMBERS[ResultState.REVOKED]
        if not revoked and job.parent_token is not None and token != job.parent_token:
            return False
        self.known.add(job.id)
        self.parents[job.id] = NUMBERS[ResultState.REVOKED if revoked else ResultState.PENDING], None
        self.last += 1
        session = self.session
        lined = OUT if revoked else IN_LINE if self.enqueue or job.delay > 0 else CARRIED
        root = None if job.root is None or job.root == job.id else job.root.bytes
        self.rows.append(
            (
                self.last,
                session.app,
                job.id.bytes,
                0,
                lined,
                job.priority,
                job.queue,
                session.now + job.delay,
                self.last,
                session.now,
                None if job.parent is None else job.parent.bytes,
                root,
                job.name,
                job.label,
                job.metadata,
            )
        )
        if revoked:
            self.revoked[job.ttl].append(self.last)
        else:
            self.contents.append((self.last, job.body))
        return not revoked

    def write(self) -> Callable[[], list[Record]] | None:
        """Write what was added; answer what fetches the jobs that were born REVOKED."""
        session = self.session
        if self.stale:
            remove(session, self.stale)
        session.blocks(sql.add_jobs, self.rows)
        session.blocks(sql.put_contents, self.contents)
        if not self.revoked:
            return None
        for ttl, seqs in self.revoked.items():
            session.run(sql.END, session.app, NUMBERS[ResultState.REVOKED], session.now, ttl, None, dump(seqs))
        cursor = session.open(sql.RECORDS, session.app, dump([seq for seqs in self.revoked.values() for seq in seqs]))
        return lambda: [make_record(row[1:]) for row in cursor.fetchall()]


# --- claim


def claim(node: str, queues: Collection[str], limit: int, lease: float, ids: Collection[UUID] | None) -> Operation[Claimed]:
    """Lease the best jobs that are due."""

    def work(session: Session) -> Finish[Claimed]:
        if ids is not None:
            seqs, next_due = _pick_ids(session, queues, limit, ids)
        else:
            seqs, next_due = _pick(session, queues, limit)
        if not seqs:
            return lambda: Claimed([], [], next_due)
        secret, picked = secrets.token_hex(8), dump(seqs)
        cursor = session.open(sql.CLAIMED, session.app, picked)
        session.run(sql.CLAIM, session.app, secret, node, session.now, session.now + lease, picked)

        def finish() -> Claimed:
            claims, before = [], []
            for *columns, seq, lined, body in cursor.fetchall():
                holder = f"{secret}-{seq}"
                before.append((seq, holder, columns[_STATE], columns[_STARTED] is not None, columns[_NODE], lined))
                columns[_STATE], columns[_NODE] = NUMBERS[ResultState.RUNNING], node
                columns[_STARTS] += 1
                if columns[_STARTED] is None:
                    columns[_STARTED] = session.now
                record = make_record(columns)
                claims.append(Claim(Token(record.id, record.starts, holder), record, body or b""))
            return Claimed(claims, before, next_due)

        return finish

    return work


def _pick(session: Session, queues: Collection[str], limit: int) -> tuple[list[int], float]:
    """Rows of the best jobs that are due, and when the next one will be."""
    levels: defaultdict[int, list[tuple[float, str]]] = defaultdict(list)
    next_due = NEVER
    for queue, priority, due in session.all(sql.HEADS, session.app, dump(set(queues))):
        if due <= session.now:
            levels[priority].append((due, queue))
        else:
            next_due = min(next_due, due)
    seqs: list[int] = []
    for priority, heads in levels.items():
        left = limit - len(seqs)
        if left <= 0:
            break
        # The first n jobs are among the n queues whose heads are due first.
        chosen = [queue for _, queue in sorted(heads)[: min(left, MOST_QUEUES)]]
        seqs += session.json(sql.pick(len(chosen)), session.app, priority, session.now, left, *chosen)
    return seqs, next_due


def _pick_ids(session: Session, queues: Collection[str], limit: int, ids: Collection[UUID]) -> tuple[list[int], float]:
    wanted = session.app, *id_list(set(ids)), session.now, dump(queues)
    seqs: list[int] = session.json(sql.PICK_IDS, *wanted, limit)
    row = None if seqs else session.one(sql.NEXT_OF_IDS, *wanted)
    return seqs, NEVER if row is None or row[0] is None else row[0]


def unclaim(claimed: Claimed) -> Operation[None]:
    """Take back a claim that nobody received: it never happened."""

    def work(session: Session) -> Finish[None]:
        session.run(sql.UNCLAIM, session.app, dump(claimed.before))
        return lambda: session.ears.ring({claim.record.queue for claim in claimed.claims})

    return work


# --- holding


def held(session: Session, tokens: Sequence[Token]) -> dict[int, int]:
    """The rows that these tokens hold, by the tokens' numbers; of equal tokens only the first counts."""
    rows: dict[int, int] = {}
    taken = set()
    for number, seq, start, _ in session.json(sql.HELD, session.app, *token_list(tokens)):
        if start == tokens[number].start and seq not in taken:
            taken.add(seq)
            rows[number] = seq
    return rows


def extend(tokens: Sequence[Token], lease: float) -> Operation[set[Token]]:
    """Let leases end later."""

    def work(session: Session) -> Finish[set[Token]]:
        rows = held(session, tokens)
        if rows:
            session.run(sql.EXTEND, session.app, session.now + lease, dump(rows.values()))
        return lambda: {tokens[number] for number in rows}

    return work


# --- settle


def settle(outcomes: Sequence[Outcome]) -> Operation[list[Record | None]]:
    """End attempts."""

    def work(session: Session) -> Finish[list[Record | None]]:
        rows = held(session, [outcome.token for outcome in outcomes])
        if not rows:
            nothing: list[Record | None] = [None] * len(outcomes)
            return lambda: nothing
        _end_all(session, [(seq, outcomes[number]) for number, seq in rows.items() if outcomes[number].again is None])
        _again(session, [(seq, outcomes[number]) for number, seq in sorted(rows.items()) if outcomes[number].again is not None])
        cursor = session.open(sql.RECORDS, session.app, dump(rows.values()))

        def finish() -> list[Record | None]:
            records = {row[0]: make_record(row[1:]) for row in cursor.fetchall()}
            settled = [records[rows[number]] if number in rows else None for number in range(len(outcomes))]
            ended = [
                (record, outcome.value) for record, outcome in zip(settled, outcomes, strict=True) if record is not None and record.done
            ]
            if ended:
                session.ears.tell_done(ended)
            if len(ended) < len(rows):
                session.ears.ring({record.queue for record in settled if record is not None and not record.done})
            return settled

        return finish

    return work


def _end_all(session: Session, fates: Sequence[tuple[int, Outcome]]) -> None:
    if not fates:
        return
    alike: defaultdict[tuple[ResultState, float | None, float | None], list[int]] = defaultdict(list)
    for seq, outcome in fates:
        value_ttl = outcome.ttl if outcome.value is None else outcome.value_ttl
        alike[outcome.state, outcome.ttl, value_ttl].append(seq)
    for (state, ttl, value_ttl), seqs in alike.items():
        end(session, state, seqs, ttl, value_ttl)
    session.blocks(sql.put_contents, [(seq, outcome.value) for seq, outcome in fates if outcome.value is not None])
    if empty := [seq for seq, outcome in fates if outcome.value is None]:
        session.run(sql.DROP_CONTENTS, dump(empty))
    session.run(sql.DROP_NOTES, dump([seq for seq, _ in fates]))


def _again(session: Session, fates: Sequence[tuple[int, Outcome]]) -> None:
    if not fates:
        return
    last, rows = session.last(), []
    for seq, outcome in fates:
        state, released = NUMBERS[outcome.state], outcome.again is Again.RELEASE
        last += not released
        due, arrival = (None, None) if released else (session.now + outcome.delay, last)
        rows.append((seq, state, due, int(outcome.again is Again.RETRY), arrival))
    session.blocks(sql.again, rows)
    session.run(sql.SET_LAST, last)


def end(session: Session, state: ResultState, seqs: Sequence[int], ttl: float | None, value_ttl: float | None = None) -> None:
    """Bring jobs to a final state; what they leave is the caller's business."""
    session.run(sql.END, session.app, NUMBERS[state], session.now, ttl, value_ttl, dump(seqs))


# --- upkeep


class Upkeep(NamedTuple):
    """What a sweep did."""

    recovered: int
    carried: int
    expired: int
    more: bool


def sweep(grace: float, limit: int) -> Operation[Upkeep]:
    """Put lost jobs back in line, and those that a broker has carried for too long; delete what has expired."""

    def work(session: Session) -> Finish[Upkeep]:
        lost, queues = session.one(sql.LOST, session.app, session.now, limit) or ("[]", "[]")
        recovered = session.run(sql.RECOVER, session.app, lost) if lost != "[]" else 0
        carried, late = session.one(sql.CARRIED, session.app, session.now - grace, limit) or ("[]", "[]")
        lined_up = session.run(sql.LINE_UP, session.app, carried) if carried != "[]" else 0
        expiring = session.json(sql.EXPIRED, session.app, session.now, limit)
        count = _clean(session, expiring)

        def finish() -> Upkeep:
            if recovered or lined_up:
                session.ears.ring({*load(queues), *load(late)})
            return Upkeep(recovered, lined_up, count, limit in (recovered, lined_up, len(expiring)))

        return finish

    return work


def _clean(session: Session, rows: Sequence[tuple[int, int, int]]) -> int:
    gone = [seq for seq, _, is_gone in rows if is_gone]
    values = dump([seq for seq, state, is_gone in rows if not is_gone and state >= NUMBERS[ResultState.SUCCESS]])
    notes = dump([seq for seq, state, is_gone in rows if not is_gone and state < NUMBERS[ResultState.SUCCESS]])
    count = len(gone)
    if gone:
        remove(session, gone)
    if values != "[]":
        count += session.run(sql.DROP_CONTENTS, values)
        session.run(sql.CLEANED, session.app, values)
    if notes != "[]":
        count += session.run(sql.DROP_NOTES, notes)
        session.run(sql.CLEANED, session.app, notes)
    return count


def remove(session: Session, seqs: Sequence[int]) -> None:
    """Delete jobs with all that belongs to them."""
    rows = dump(seqs)
    session.run(sql.DROP_CONTENTS, rows)
    session.run(sql.DROP_NOTES, rows)
    session.run(sql.DROP_JOBS, session.app, rows)
