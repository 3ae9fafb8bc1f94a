"""The operations on the line: submit, claim, extend, settle, and putting back what was lost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from psycopg.errors import InvalidTextRepresentation

from mognet.engines.postgres import statements as sql
from mognet.engines.postgres.arrays import Blobs, Numbers, Uuids
from mognet.engines.postgres.connecting import Connection
from mognet.engines.postgres.labels import drop_labels, entries_of
from mognet.engines.postgres.rows import NUMBERS, WIDTH, make_record, token_text
from mognet.engines.postgres.tables import Known, Stale, Tables
from mognet.engines.postgres.text import from_column, to_column, to_column_or_none
from mognet.labels import labels
from mognet.outcomes import Again, Outcome
from mognet.records import Claim, Job, Record, Token
from mognet.states import ResultState

T = TypeVar("T")

SPARE = 32
"""Jobs that a claim looks at beyond those it wants, since others may just be taking some."""

_AGAIN = {None: 0, Again.RETRY: 1, Again.PAUSE: 2, Again.RELEASE: 3}
_REVOKED = NUMBERS[ResultState.REVOKED]
_EXPIRED = -1


# --- submit


class Submitted(NamedTuple):
    """What a submit did."""

    added: list[bool]
    born_revoked: list[UUID]
    told: int
    """Whether a change was noted, as :data:`statements.TOLD` says it."""
    heard: bool
    """Whether somebody may listen for new jobs."""


async def submit(tables: Tables, connection: Connection, jobs: Sequence[Job], enqueue: bool, *, alone: bool = True) -> Submitted:
    """Store jobs and put them in line, all or none. More than one statement only if some depend on others of the same batch.

    ``alone``: not inside a transaction.
    """
    runs = list(in_runs(jobs))
    if alone and len(runs) == 1:
        with suppress(InvalidTextRepresentation):  # a record has expired, and nothing was done
            return _submitted(jobs, await _submit(tables, connection, jobs, enqueue, strict=True))
    async with connection.transaction():
        answers = [_submitted(run, await _clear_and_submit(tables, connection, run, enqueue)) for run in runs]
    return Submitted(
        [new for answer in answers for new in answer.added],
        [id for answer in answers for id in answer.born_revoked],
        max(answer.told for answer in answers),
        any(answer.heard for answer in answers),
    )


def _submitted(jobs: Sequence[Job], rows: Sequence[tuple[Any, ...]]) -> Submitted:
    if len(rows) == len(jobs) and all(row[1] == 0 for row in rows):  # as nearly always
        return Submitted([True] * len(jobs), [], max(row[2] for row in rows), any(row[3] for row in rows))
    states = {id: state for id, state, _, _ in rows}
    born_revoked = [id for id, state in states.items() if state == _REVOKED]
    told, heard = max((row[2] for row in rows), default=0), any(row[3] for row in rows)
    return Submitted([states.get(job.id) == 0 for job in jobs], born_revoked, told, heard)


def in_runs(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Stretches of jobs none of which is the parent of another, or has the same id."""
    if len({job.id.int for job in jobs}) == len(jobs) and all(job.parent is None for job in jobs):  # as nearly always
        yield list(jobs)
        return
    run: list[Job] = []
    ids: set[UUID] = set()
    for job in jobs:
        if job.id in ids or job.parent in ids:
            yield run
            run, ids = [], set()
        run.append(job)
        ids.add(job.id)
    if run:
        yield run


def _submit_values(jobs: Sequence[Job], enqueue: bool, known: Known) -> tuple[str, dict[str, Any]]:
    """The statement that adds these jobs, and its values."""
    parents = {job.parent for job in jobs if job.parent is not None}
    fenced = any(job.parent_token is not None for job in jobs)
    values: dict[str, Any] = {
        "enqueue": enqueue,
        "version": known.version,
        "ids": Uuids([job.id for job in jobs]),
        "ids_parent": [job.parent for job in jobs] if parents else [],
        "roots": [job.root for job in jobs] if any(job.root is not None for job in jobs) else [],
        "tokens": [_fence(job) for job in jobs] if fenced else [],
    }
    values["names"], values["name"] = in_common([job.name for job in jobs], to_column)
    values["queues"], values["queue"] = in_common([job.queue for job in jobs], to_column)
    values["labels"], values["label"] = in_common([job.label for job in jobs], to_column_or_none)
    priorities, values["priority"] = in_common([job.priority for job in jobs])
    values["priorities"] = Numbers(priorities)
    values["delays"], values["delay"] = in_common([job.delay for job in jobs], float)
    values["ttls"], values["ttl"] = in_common([job.ttl for job in jobs], seconds)
    values["latests"], values["latest"] = in_common([job.latest for job in jobs], seconds)
    given = [job.metadata for job in jobs]
    metadatas, values["metadata"] = in_common(given)
    bodies, values["body"] = in_common([job.body for job in jobs])
    values["metadatas"], values["bodies"] = Blobs(metadatas), Blobs(bodies)
    if parents or fenced:
        values["parents"] = sorted(parents)
    if not known.paths:
        return sql.SUBMIT_CHILDREN if parents or fenced else sql.SUBMIT, values
    found = {metadata: labels(metadata, known.paths) for metadata in set(given)}  # many are alike
    values["paths"] = Numbers(known.paths.values())
    values["values"] = b"\n".join([found[metadata].get(path, b"") for path in known.paths for metadata in given])
    return sql.SUBMIT_LABELLED_CHILDREN if parents or fenced else sql.SUBMIT_LABELLED, values


def in_common(values: list[T], convert: Callable[[Any], Any] | None = None) -> tuple[list[Any], Any]:
    """Values as a statement takes them: none, and what they are all equal to; or all of them."""
    if values.count(values[0]) == len(values):
        return [], values[0] if convert is None else convert(values[0])
    return values if convert is None else [convert(value) for value in values], None


def seconds(value: float | None) -> float | None:
    """A duration that may be missing, of the one type that statements are prepared for."""
    return None if value is None else float(value)


def _fence(job: Job) -> str | None:
    if job.parent_token is None:
        return None
    return token_text(job.parent_token) if job.parent_token.id == job.parent else "nobody"


async def _submit(tables: Tables, connection: Connection, jobs: Sequence[Job], enqueue: bool, *, strict: bool) -> list[tuple[Any, ...]]:
    statement, values = _submit_values(jobs, enqueue, tables.known)
    rows = await tables.all(connection, statement, **values, strict=strict)
    if any(row[0] is None for row in rows):
        raise Stale
    return rows


async def _clear_and_submit(tables: Tables, connection: Connection, jobs: Sequence[Job], enqueue: bool) -> list[tuple[Any, ...]]:
    """Inside a transaction; what has expired goes first."""
    done: list[tuple[Any, ...]] = []
    left = list(jobs)
    while left:
        rows = await _submit(tables, connection, left, enqueue, strict=False)
        expired = {row[0] for row in rows if row[1] == _EXPIRED}
        done += [row for row in rows if row[0] not in expired]
        left = [job for job in left if job.id in expired]
        if expired:
            await remove(tables, connection, expired)
    return done


async def hold(tables: Tables, connection: Connection) -> None:
    """In somebody else's transaction: see that what is known of the app is so, and stays so until the end of that."""
    [(version, isolation)] = await tables.all(connection, sql.HOLD)
    if isolation in ("repeatable read", "serializable"):
        await tables.all(connection, sql.HOLD_ROW)
    if version != tables.known.version:
        raise Stale


async def ring_over(tables: Tables, connection: Connection, letters: Sequence[tuple[str, str]]) -> None:
    """In somebody else's transaction: rings that are heard when it commits."""
    channels, texts = zip(*letters, strict=True)
    await tables.all(connection, sql.RING, channels=list(channels), texts=list(texts))


# --- claim


async def claim(
    tables: Tables,
    connection: Connection,
    node: str,
    queues: Sequence[str],
    limit: int,
    lease: float,
    ids: Sequence[UUID] | None,
    holder: str,
) -> tuple[list[Claim], int]:
    """Lease the best jobs that are due; answer also whether a change was noted."""
    values = {"node": to_column(node), "queues": queues, "limit": limit, "lease": float(lease), "holder": holder}
    if ids is not None:
        rows = await tables.all(connection, sql.CLAIM_IDS, **values, ids=ids)
    else:
        rows = await tables.all(connection, sql.CLAIM, **values, near=limit + SPARE)
    claims = []
    for row in rows:
        record = make_record(row)
        claims.append(Claim(Token(record.id, record.starts, f"{holder}.{row[WIDTH + 1]}"), record, row[WIDTH] or b""))
    return claims, max((row[WIDTH + 2] for row in rows), default=0)


async def unclaim(tables: Tables, connection: Connection, holder: str) -> set[str]:
    """Take back a claim that nobody received; answer the queues it was taken from."""
    return {from_column(queue) for (queue,) in await tables.all(connection, sql.UNCLAIM, holder=holder)}


async def next_due(tables: Tables, connection: Connection, queues: Sequence[str], ids: Sequence[UUID] | None) -> float:
    """In how many seconds the next job is due."""
    if ids is not None:
        [(seconds,)] = await tables.all(connection, sql.NEXT_DUE_IDS, queues=queues, ids=ids)
    else:
        [(seconds,)] = await tables.all(connection, sql.NEXT_DUE, queues=queues)
    return float("inf") if seconds is None else float(seconds)


# --- holding


async def extend(tables: Tables, connection: Connection, tokens: Collection[Token], lease: float) -> set[Token]:
    """Let leases end later."""
    held: set[Token] = set()
    rest = sorted(tokens)
    while rest:  # of two tokens of one job, one at a time
        wanted = {token.id: token for token in rest}
        values = {"ids": Uuids(list(wanted)), "tokens": [token_text(token) for token in wanted.values()]}
        held |= {wanted[id] for (id,) in await tables.all(connection, sql.EXTEND, **values, lease=float(lease))}
        rest = [token for token in rest if wanted[token.id] is not token]
    return held


# --- settle


class Settled(NamedTuple):
    """What a settle did."""

    records: list[Record | None]
    noted: list[tuple[UUID, int]]
    """Those of the jobs that have ended which leave notes: id and key."""
    told: int
    """Whether a change was noted, as :data:`statements.TOLD` says it."""
    heard: bool
    """Whether somebody may listen for the ends of jobs."""


async def settle(tables: Tables, connection: Connection, outcomes: Sequence[Outcome]) -> Settled:
    """End attempts; of equal tokens only the first counts."""
    first = {outcome.token: number for number, outcome in reversed(list(enumerate(outcomes)))}
    numbers = [first[token] for token in sorted(first)]
    chosen = [outcomes[number] for number in numbers]
    one = chosen[0]
    if len({token.id for token in first}) == len(first) and all(
        each.again is None and (each.ttl, each.value_ttl, each.value is None) == (one.ttl, one.value_ttl, one.value is None)
        for each in chosen
    ):
        number_of = {token.id: number for token, number in first.items()}
        rows = [(*row[:WIDTH], number_of[row[0]], *row[WIDTH:]) for row in await _finish(tables, connection, chosen)]
    else:
        rows = await _settle(tables, connection, chosen, numbers)
    records: list[Record | None] = [None] * len(outcomes)
    for row in rows:
        records[row[WIDTH]] = make_record(row)
    noted = [(row[0], row[WIDTH + 1]) for row in rows if row[WIDTH + 2]]
    return Settled(records, noted, max((row[WIDTH + 3] for row in rows), default=0), any(row[WIDTH + 4] for row in rows))


async def _finish(tables: Tables, connection: Connection, outcomes: Sequence[Outcome]) -> list[tuple[Any, ...]]:
    one = outcomes[0]
    states, state = in_common([NUMBERS[outcome.state] for outcome in outcomes])
    values, value = in_common([outcome.value for outcome in outcomes])
    return await tables.all(
        connection,
        sql.FINISH,
        ids=Uuids([outcome.token.id for outcome in outcomes]),
        tokens=[token_text(outcome.token) for outcome in outcomes],
        states=Numbers(states),
        state=state,
        values=Blobs(values),
        value=value,
        ttl=seconds(one.ttl),
        value_ttl=seconds(one.ttl if one.value is None else one.value_ttl),
    )


async def _settle(tables: Tables, connection: Connection, outcomes: Sequence[Outcome], numbers: Sequence[int]) -> list[tuple[Any, ...]]:
    return await tables.all(
        connection,
        sql.SETTLE,
        ids=Uuids([outcome.token.id for outcome in outcomes]),
        tokens=[token_text(outcome.token) for outcome in outcomes],
        numbers=Numbers(numbers),
        states=Numbers(NUMBERS[outcome.state] for outcome in outcomes),
        agains=Numbers(_AGAIN[outcome.again] for outcome in outcomes),
        delays=[float(outcome.delay) for outcome in outcomes],
        ttls=[seconds(outcome.ttl) for outcome in outcomes],
        value_ttls=[seconds(outcome.ttl if outcome.value is None else outcome.value_ttl) for outcome in outcomes],
        values=Blobs([outcome.value for outcome in outcomes]),
    )


async def drop_notes(tables: Tables, connection: Connection, jobs: Sequence[tuple[UUID, int]]) -> None:
    """Delete the notes of jobs that have ended; the sweep does it if this is not reached."""
    async with connection.transaction():
        await tables.run(connection, sql.DROP_NOTES, seqs=Numbers(seq for _, seq in jobs))
        await tables.run(connection, sql.UNMARK_NOTED, ids=sorted(id for id, _ in jobs))


# --- deleting


async def remove(tables: Tables, connection: Connection, ids: Collection[UUID]) -> int:
    """Delete jobs that are locked with all that belongs to them, inside a transaction; answer how many could be seen."""
    known = tables.known
    labelled = known.paths | known.dropped
    rows = await tables.all(connection, sql.DELETE, ids=sorted(ids), labelled=bool(labelled))
    if not rows:
        return 0
    if rows[0][2] != known.version:
        raise Stale
    seqs = Numbers(row[0] for row in rows)
    await tables.run(connection, sql.DROP_NOTES, seqs=seqs)
    if known.logged:
        await tables.run(connection, sql.DROP_LOGS, seqs=seqs)
    if labelled:
        entries = [entry for seq, _, _, created, metadata in rows for entry in entries_of(metadata, labelled, created, seq)]
        await drop_labels(tables, connection, entries)
    return sum(row[1] for row in rows)
