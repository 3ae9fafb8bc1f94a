"""The operations on the line: claim, extend, settle."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard
from uuid import UUID

from mognet.engines.sql import changes, ending
from mognet.engines.sql import statements as sql
from mognet.engines.sql.session import NUMBERS, Finish, Operation, Row, Session, dump, id_list, make_record, make_uuid, token_list
from mognet.outcomes import Again, Outcome
from mognet.records import Claim, Record, Token
from mognet.states import ResultState

NEVER = float("inf")

MOST_QUEUES = 400
"""Ranges that one statement merges; SQLite's limit for compound statements is 500."""

_FIELDS = {name: number for number, name in enumerate(Record._fields)}
_ID, _STATE, _STARTED, _STARTS, _STOPS = (_FIELDS[name] for name in ("id", "state", "started", "starts", "stops"))
_NODE, _PARENT, _ROOT, _DUE, _ATTEMPT = (_FIELDS[name] for name in ("node", "parent", "root", "due", "attempt"))
_FINISHED, _EXPIRES = _FIELDS["finished"], _FIELDS["expires"]


class Claimed(NamedTuple):
    """The answer of a claim."""

    claims: list[Claim]
    rows: list[Row]
    """What was before: the columns of each record, its row, whether it was in line, and its body."""
    next_due: float
    """When the next job of these queues will be due."""


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
        changes.note(session, seqs)

        def finish() -> Claimed:
            rows = cursor.fetchall()
            claims = [_claimed(row, secret, node, session.now) for row in rows]
            session.remember(claims)
            return Claimed(claims, rows, next_due)

        return finish

    return work


def _claimed(row: Row, secret: str, node: str, now: float) -> Claim:
    """What a claim makes of the job that this row was before it."""
    *fields, seq, _, body = row
    id = fields[_ID] = make_uuid(fields[_ID])
    starts = fields[_STARTS] = fields[_STARTS] + 1
    fields[_STATE], fields[_NODE] = ResultState.RUNNING, node
    if fields[_STARTED] is None:
        fields[_STARTED] = now
    if fields[_PARENT] is not None:
        fields[_PARENT] = make_uuid(fields[_PARENT])
    fields[_ROOT] = id if fields[_ROOT] is None else make_uuid(fields[_ROOT])
    return Claim(Token(id, starts, f"{secret}-{seq}"), Record._make(fields), body or b"")


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
        before = [
            (row[-3], claim.token.holder, row[_STATE], row[_STARTED] is not None, row[_NODE], row[-2])
            for claim, row in zip(claimed.claims, claimed.rows, strict=True)
        ]
        session.run(sql.UNCLAIM, session.app, dump(before))
        changes.note(session, [row[0] for row in before])  # somebody may have been told of the claim
        return lambda: session.ears.ring({claim.record.queue for claim in claimed.claims})

    return work


# --- holding


class Hold(NamedTuple):
    """A job that a token holds."""

    seq: int
    touched: int
    """Whether its record has changed since the claim."""
    large: int
    """Whether its body is in content, if it is anywhere."""


def held(session: Session, tokens: Sequence[Token]) -> dict[int, Hold]:
    """The jobs that these tokens hold, by the tokens' numbers; of equal tokens only the first counts."""
    found: dict[int, Hold] = {}
    taken = set()
    for number, seq, start, touched, large in session.json(sql.HELD, session.app, *token_list(tokens)):
        if start == tokens[number].start and seq not in taken:
            taken.add(seq)
            found[number] = Hold(seq, touched, large)
    return found


def extend(tokens: Sequence[Token], lease: float) -> Operation[set[Token]]:
    """Let leases end later."""

    def work(session: Session) -> Finish[set[Token]]:
        holds = held(session, tokens)
        if holds:
            session.run(sql.EXTEND, session.app, session.now + lease, dump([hold.seq for hold in holds.values()]))
        return lambda: {tokens[number] for number in holds}

    return work


# --- settle


def settle(outcomes: Sequence[Outcome]) -> Operation[list[Record | None]]:
    """End attempts."""

    def work(session: Session) -> Finish[list[Record | None]]:
        holds = held(session, [outcome.token for outcome in outcomes])
        records: list[Record | None] = [None] * len(outcomes)
        if not holds:
            return lambda: records
        ends = [(hold.seq, outcomes[number]) for number, hold in holds.items() if outcomes[number].again is None]
        if ends:
            ending.settle(session, ends, [hold.seq for hold in holds.values() if hold.large])
        if len(ends) < len(holds):
            _again(session, [(hold.seq, outcomes[n]) for n, hold in sorted(holds.items()) if outcomes[n].again is not None])
        changes.note(session, [hold.seq for hold in holds.values()])
        read = _answer(session, outcomes, holds, records)

        def finish() -> list[Record | None]:
            read()
            if ends and session.ears.expected():
                pairs = zip(records, outcomes, strict=True)
                session.ears.tell_done([(record, outcome.value) for record, outcome in pairs if _ended(record)])
            if len(ends) < len(holds):
                session.ears.ring({record.queue for record in records if record is not None and not record.done})
            for number in holds:
                session.claimed.pop(outcomes[number].token.holder, None)
            return records

        return finish

    return work


def _answer(session: Session, outcomes: Sequence[Outcome], holds: Mapping[int, Hold], records: list[Record | None]) -> Callable[[], None]:
    """Fill in the records as they are after the settle; the answer does the rest when it is committed.

    What this engine claimed, and nobody has changed since, is known; what is not, is read.
    """
    unknown: dict[int, int] = {}
    for number, hold in holds.items():
        outcome = outcomes[number]
        record = None if hold.touched else session.claimed.get(outcome.token.holder)
        if record is None:
            unknown[hold.seq] = number
        else:
            records[number] = _settled(record, outcome, session.now)
    if not unknown:
        return lambda: None
    cursor = session.open(sql.RECORDS, session.app, dump(unknown))

    def read() -> None:
        for seq, *columns in cursor.fetchall():
            records[unknown[seq]] = make_record(columns)

    return read


def _settled(record: Record, outcome: Outcome, now: float) -> Record:
    """What the statements below make of a record that is as it was claimed."""
    fields: list[Any] = list(record)
    fields[_STATE] = outcome.state
    fields[_STOPS] += 1
    if outcome.again is None:
        ttl = outcome.ttl if record.ttl is None else record.ttl
        fields[_FINISHED], fields[_EXPIRES] = now, None if ttl is None else now + ttl
    else:
        fields[_ATTEMPT] += outcome.again is Again.RETRY
        if outcome.again is not Again.RELEASE:
            fields[_DUE] = now + outcome.delay
    return Record._make(fields)


def _again(session: Session, fates: Sequence[tuple[int, Outcome]]) -> None:
    """Back in line."""
    first = last = session.last().seq
    rows = []
    for seq, outcome in fates:
        state, released = NUMBERS[outcome.state], outcome.again is Again.RELEASE
        last += not released
        due, arrival = (None, None) if released else (session.now + outcome.delay, last)
        rows.append((seq, state, due, int(outcome.again is Again.RETRY), arrival))
    session.blocks(sql.again, rows)
    if last > first:
        session.run(sql.SET_LAST, session.app, last)


def _ended(record: Record | None) -> TypeGuard[Record]:
    return record is not None and record.done
