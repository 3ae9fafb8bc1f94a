"""The operations on the line: submit, claim, extend, settle, and putting back what was lost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from mognet.engines.postgres import statements as sql
from mognet.engines.postgres.connecting import Connection
from mognet.engines.postgres.rows import NUMBERS, WIDTH, make_record, token_text
from mognet.engines.postgres.statements import qualified
from mognet.engines.postgres.text import from_column, to_column, to_column_or_none
from mognet.outcomes import Again, Outcome
from mognet.records import Claim, Job, Record, Token
from mognet.states import ResultState

T = TypeVar("T")

SPARE = 32
"""Jobs that a claim looks at beyond those it wants, since others may just be taking some."""

PIECE = 100
"""Ends of different kinds that one statement stores: it compares all with all."""

_AGAIN = {None: 0, Again.RETRY: 1, Again.PAUSE: 2, Again.RELEASE: 3}
_REVOKED = NUMBERS[ResultState.REVOKED]


class Tables(NamedTuple):
    """One app's part of a schema; every statement is executed through it."""

    app: int
    schema: str

    async def all(self, connection: Connection, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """All rows of a statement."""
        cursor = await connection.execute(qualified(statement, self.schema), {"app": self.app, **values}, binary=True)
        return await cursor.fetchall()

    async def run(self, connection: Connection, statement: str, **values: Any) -> int:
        """How many rows a statement changed."""
        cursor = await connection.execute(qualified(statement, self.schema), {"app": self.app, **values}, binary=True)
        return cursor.rowcount


# --- submit


class Submitted(NamedTuple):
    """What a submit did."""

    added: list[bool]
    born_revoked: list[UUID]
    heard: bool
    """Whether somebody listens for new jobs."""


async def submit(tables: Tables, connection: Connection, jobs: Sequence[Job], enqueue: bool, ear: int) -> Submitted:
    """Store jobs and put them in line, all or none. More than one statement only if some depend on others of the same batch."""
    runs = list(in_runs(jobs))
    if len(runs) <= 1:
        answers = [await _submit(tables, connection, run, enqueue, ear) for run in runs]
    else:
        async with connection.transaction():
            answers = [await _submit(tables, connection, run, enqueue, ear) for run in runs]
    return Submitted(
        [new for answer in answers for new in answer.added],
        [id for answer in answers for id in answer.born_revoked],
        any(answer.heard for answer in answers),
    )


def in_runs(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Stretches of jobs none of which is the parent of another, or has the same id."""
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


def submit_values(jobs: Sequence[Job], enqueue: bool, ear: int | None) -> tuple[str, dict[str, Any]]:
    """The statement that adds these jobs, and its values."""
    parents = {job.parent for job in jobs if job.parent is not None}
    fenced = any(job.parent_token is not None for job in jobs)
    values: dict[str, Any] = {
        "enqueue": enqueue,
        "ear": ear,
        "ids": [job.id for job in jobs],
        "ids_parent": [job.parent for job in jobs] if parents else [],
        "roots": [job.root for job in jobs] if any(job.root is not None for job in jobs) else [],
        "tokens": [_fence(job) for job in jobs] if fenced else [],
    }
    values["names"], values["name"] = in_common([job.name for job in jobs], to_column)
    values["queues"], values["queue"] = in_common([job.queue for job in jobs], to_column)
    values["labels"], values["label"] = in_common([job.label for job in jobs], to_column_or_none)
    values["priorities"], values["priority"] = in_common([job.priority for job in jobs])
    values["delays"], values["delay"] = in_common([job.delay for job in jobs], float)
    values["ttls"], values["ttl"] = in_common([job.ttl for job in jobs], seconds)
    values["latests"], values["latest"] = in_common([job.latest for job in jobs], seconds)
    values["metadatas"], values["metadata"] = in_common([job.metadata for job in jobs])
    values["bodies"], values["body"] = in_common([job.body for job in jobs])
    if not parents and not fenced:
        return sql.SUBMIT, values
    return sql.SUBMIT_CHILDREN, values | {"parents": sorted(parents)}


def in_common(values: list[T], convert: Callable[[Any], Any] = lambda value: value) -> tuple[list[Any], Any]:
    """Values as a statement takes them: none, and what they are all equal to; or all of them."""
    if values.count(values[0]) == len(values):
        return [], convert(values[0])
    return [convert(value) for value in values], None


def seconds(value: float | None) -> float | None:
    """A duration that may be missing, of the one type that statements are prepared for."""
    return None if value is None else float(value)


def _fence(job: Job) -> str | None:
    if job.parent_token is None:
        return None
    return token_text(job.parent_token) if job.parent_token.id == job.parent else "nobody"


async def _submit(tables: Tables, connection: Connection, jobs: Sequence[Job], enqueue: bool, ear: int) -> Submitted:
    statement, values = submit_values(jobs, enqueue, ear)
    return submitted(jobs, await tables.all(connection, statement, **values))


def submitted(jobs: Sequence[Job], rows: Sequence[tuple[Any, ...]]) -> Submitted:
    """What the rows of a submit say."""
    states = {id: state for id, state, _ in rows}
    heard = any(not alone for _, _, alone in rows[:1])
    return Submitted([states.get(job.id) == 0 for job in jobs], [id for id, state in states.items() if state == _REVOKED], heard)


def submit_over(
    tables: Tables, jobs: Sequence[Job], letter: tuple[str, str]
) -> Iterator[tuple[bytes, dict[str, Any], Callable[[Sequence[tuple[Any, ...]]], list[bool]]]]:
    """Statements that add jobs in somebody else's transaction, and what their rows mean; the last one rings when that commits."""
    for run in in_runs(jobs):
        statement, values = submit_values(run, True, None)  # nobody is kept from listening for as long as that lasts
        yield qualified(statement, tables.schema), {"app": tables.app, **values}, lambda rows, run=run: submitted(run, rows).added  # type: ignore[misc]
    yield b"SELECT pg_notify(%(channel)s, %(text)s)", {"channel": letter[0], "text": letter[1]}, lambda rows: []


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
) -> list[Claim]:
    """Lease the best jobs that are due."""
    values = {"node": to_column(node), "queues": queues, "limit": limit, "lease": float(lease), "holder": holder}
    if ids is not None:
        rows = await tables.all(connection, sql.CLAIM_IDS, **values, ids=ids)
    else:
        rows = await tables.all(connection, sql.CLAIM, **values, near=limit + SPARE)
    claims = []
    for row in rows:
        record = make_record(row)
        claims.append(Claim(Token(record.id, record.starts, f"{holder}.{row[WIDTH + 1]}"), record, row[WIDTH] or b""))
    return claims


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
        values = {"ids": list(wanted), "tokens": [token_text(token) for token in wanted.values()]}
        held |= {wanted[id] for (id,) in await tables.all(connection, sql.EXTEND, **values, lease=float(lease))}
        rest = [token for token in rest if wanted[token.id] is not token]
    return held


# --- settle


class Settled(NamedTuple):
    """What a settle did."""

    records: list[Record | None]
    noted: list[tuple[UUID, int]]
    """Those of the jobs that have ended which leave notes: id and key."""
    heard: bool
    """Whether somebody listens for the ends of jobs."""


async def settle(tables: Tables, connection: Connection, outcomes: Sequence[Outcome], ear: int) -> Settled:
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
        rows = [(*row[:WIDTH], number_of[row[0]], *row[WIDTH:]) for row in await _finish(tables, connection, chosen, ear)]
    else:
        rows = await _settle(tables, connection, chosen, numbers, ear)
    records: list[Record | None] = [None] * len(outcomes)
    for row in rows:
        records[row[WIDTH]] = make_record(row)
    noted = [(row[0], row[WIDTH + 1]) for row in rows if row[WIDTH + 2]]
    return Settled(records, noted, any(not row[WIDTH + 3] for row in rows[:1]))


async def _finish(tables: Tables, connection: Connection, outcomes: Sequence[Outcome], ear: int) -> list[tuple[Any, ...]]:
    one = outcomes[0]
    states, state = in_common([NUMBERS[outcome.state] for outcome in outcomes])
    values, value = in_common([outcome.value for outcome in outcomes])
    return await tables.all(
        connection,
        sql.FINISH,
        ear=ear,
        ids=[outcome.token.id for outcome in outcomes],
        tokens=[token_text(outcome.token) for outcome in outcomes],
        states=states,
        state=state,
        values=values,
        value=value,
        ttl=seconds(one.ttl),
        value_ttl=seconds(one.ttl if one.value is None else one.value_ttl),
    )


async def _settle(
    tables: Tables, connection: Connection, outcomes: Sequence[Outcome], numbers: Sequence[int], ear: int
) -> list[tuple[Any, ...]]:
    return await tables.all(
        connection,
        sql.SETTLE,
        ear=ear,
        ids=[outcome.token.id for outcome in outcomes],
        tokens=[token_text(outcome.token) for outcome in outcomes],
        numbers=list(numbers),
        states=[NUMBERS[outcome.state] for outcome in outcomes],
        agains=[_AGAIN[outcome.again] for outcome in outcomes],
        delays=[float(outcome.delay) for outcome in outcomes],
        ttls=[seconds(outcome.ttl) for outcome in outcomes],
        value_ttls=[seconds(outcome.ttl if outcome.value is None else outcome.value_ttl) for outcome in outcomes],
        values=[outcome.value for outcome in outcomes],
    )


async def drop_notes(tables: Tables, connection: Connection, jobs: Sequence[tuple[UUID, int]]) -> None:
    """Delete the notes of jobs that have ended; the sweep does it if this is not reached."""
    async with connection.transaction():
        await tables.run(connection, sql.DROP_NOTES, seqs=[seq for _, seq in jobs])
        await tables.run(connection, sql.UNMARK_NOTED, ids=sorted(id for id, _ in jobs))


# --- deleting


async def remove(tables: Tables, connection: Connection, ids: Collection[UUID]) -> int:
    """Delete jobs with all that belongs to them, inside a transaction; answer how many could be seen."""
    rows = await tables.all(connection, sql.DELETE, ids=sorted(ids))
    if rows:
        await tables.run(connection, sql.DROP_NOTES, seqs=[seq for seq, _ in rows])
    return sum(seen for _, seen in rows)
