"""What one operation works with inside a transaction, and what it hands back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import UUID

from mognet.engines.sql import statements as sql
from mognet.ids import make_id
from mognet.records import Claim, Record, Token
from mognet.states import ResultState

T_co = TypeVar("T_co", covariant=True)

STATES = tuple(ResultState)
"""The states in the order of their numbers in the file."""

NUMBERS: Mapping[ResultState, int] = {state: number for number, state in enumerate(STATES)}

Row = tuple[Any, ...]

INLINE = 1000
"""Bytes of a body or a value up to which it stands in the job's row."""

MOST_CLAIMED = 20_000
"""Records of running jobs that are remembered."""


class Ears(Protocol):
    """Who is told of what a transaction did, once it is committed."""

    def ring(self, queues: Collection[str]) -> None:
        """Something changed in these queues' line."""

    def tell_done(self, ended: Sequence[tuple[Record, bytes | None]]) -> None:
        """These jobs have ended, and left these values."""

    def expected(self) -> bool:
        """Whether anybody wants to know which jobs end."""

    def tell_changed(self) -> None:
        """A change was noted."""


@dataclass(slots=True)
class Session:
    """The connection, as an operation sees it."""

    connection: sqlite3.Connection
    app: int
    clock: Callable[[], float]
    ears: Ears
    now: float = 0.0
    """The time at which the transaction began."""
    held_up: float = 0.0
    """When a transaction could begin at last for which others had left no room for long; on the monotonic clock."""
    passed_over: bool = False
    """Whether the last sweep left lost jobs where they were for that reason."""
    news: bool = False
    """Whether a change was noted, of which others are told after the commit."""
    opened: list[sqlite3.Cursor] = field(default_factory=list)
    """Cursors whose rows are fetched after the commit."""
    claimed: dict[str, Record] = field(default_factory=dict)
    """The records of jobs that were claimed here, by holder, so that their end need not read them again."""
    known_paths: dict[str, int] = field(default_factory=dict)
    """The paths that were indexed when this was last read; that they still are, ``paths_version`` says."""
    paths_version: int = 0
    _whole: frozenset[str] = frozenset()
    indexed: int = 0
    """The row up to which labels were written when this was last read."""
    newest: int = 0
    """The highest number that was given when this was last looked at."""
    tip: int = field(init=False)
    """The number of the last job that was stored alone; often nobody has added any since."""

    cursor: sqlite3.Cursor = field(init=False)
    """For statements without rows."""

    def __post_init__(self) -> None:
        self.cursor = self.connection.cursor()
        self.tip = self.app << sql.APP_BITS

    def run(self, statement: str, *parameters: object) -> int:
        """Execute; answer how many rows changed."""
        return self.connection.execute(statement, parameters).rowcount

    def open(self, statement: str, *parameters: object) -> sqlite3.Cursor:
        """Execute a statement whose rows are fetched later."""
        cursor = self.connection.execute(statement, parameters)
        self.opened.append(cursor)
        return cursor

    def give_up(self) -> None:
        """End what a transaction that failed had begun: an open cursor would keep its old view of the file, and with it out of the next.

        Paths that it has read may be of its own making.
        """
        for cursor in self.opened:
            cursor.close()
        self.opened.clear()
        self.news = False
        self.paths_version = -1

    def all(self, statement: str, *parameters: object) -> list[Row]:
        """All rows of a statement that has few."""
        return self.connection.execute(statement, parameters).fetchall()

    def one(self, statement: str, *parameters: object) -> Row | None:
        """The first row."""
        row: Row | None = self.connection.execute(statement, parameters).fetchone()
        return row

    def json(self, statement: str, *parameters: object) -> Any:
        """The value of a statement that answers one JSON text."""
        (text,) = self.connection.execute(statement, parameters).fetchone()
        return json.loads(text)

    def blocks(self, statement: Callable[[int], str], rows: Sequence[Row], *, before: Row = ()) -> int:
        """Execute a statement with VALUES for many rows, a block at a time; ``before`` come the parameters that all blocks share."""
        if len(rows) == 1:
            return self.connection.execute(statement(1), before + rows[0]).rowcount
        return sum(self.connection.execute(statement(size), before + block).rowcount for size, block in in_blocks(rows))

    def last(self) -> Last:
        """The highest number given to a job or a turn so far, and when the last job was created."""
        row = self.one(sql.LAST, self.app)
        last = Last(*row) if row is not None else Last(self.app << sql.APP_BITS, 0.0)
        self.newest, self.tip = last.seq, min(self.tip, last.seq)  # the job in row `tip` may be gone
        return last

    def rows(self) -> tuple[int, int]:
        """The numbers between which the app's rows are."""
        return self.app << sql.APP_BITS, ((self.app + 1) << sql.APP_BITS) - 1

    def noted(self) -> bool:
        """Whether changes are noted."""
        row = self.one(sql.FLAGS, self.app)
        return row is not None and row[1] > self.now

    def paths(self) -> dict[str, int]:
        """The paths in metadata that are indexed, with their numbers."""
        row = self.one(sql.FLAGS, self.app)
        if row is not None:
            version, _, self.indexed = row
            if version != self.paths_version:
                paths = self.all(sql.PATHS, self.app)
                self.known_paths = {name: number for name, number, _ in paths}
                self._whole = frozenset(name for name, _, whole in paths if whole)
                self.paths_version = version
        return self.known_paths

    def whole(self) -> frozenset[str]:
        """Those of them that are indexed for all jobs."""
        self.paths()
        return self._whole

    def behind(self) -> int:
        """How many jobs may have no labels yet, by what this connection has seen."""
        return max(self.tip, self.newest) - self.indexed if self.known_paths else 0

    def remember(self, claims: Iterable[Claim]) -> None:
        """Keep what was claimed, for its end."""
        self.claimed.update({claim.token.holder: claim.record for claim in claims})
        if len(self.claimed) > MOST_CLAIMED:  # lost leases, mostly: their ends are never told here
            for holder in list(self.claimed)[: MOST_CLAIMED // 2]:
                del self.claimed[holder]


class Last(NamedTuple):
    """Where the numbers of an app stand."""

    seq: int
    created: float


class Finish(Protocol[T_co]):
    """The rest of an operation, done after its transaction is committed; answers its result."""

    def __call__(self) -> T_co: ...


class Operation(Protocol[T_co]):
    """What happens inside a transaction. May be called again, in a new one, if that was rolled back."""

    def __call__(self, session: Session) -> Finish[T_co]: ...


def in_snapshot(operation: Operation[T_co]) -> Operation[T_co]:
    """A read of several statements, which all see the file as it is when the first begins. It has nothing to fetch afterwards."""

    def work(session: Session) -> Finish[T_co]:
        session.connection.execute("BEGIN")
        try:
            return operation(session)
        finally:
            if session.connection.in_transaction:  # SQLite may have ended it after an error
                session.connection.execute("ROLLBACK")

    return work


def in_blocks(rows: Sequence[Row]) -> Iterator[tuple[int, Row]]:
    """The values of many rows, in blocks of the sizes that statements are prepared for."""
    start = 0
    for size in sql.SIZES:
        while len(rows) - start >= size:
            yield size, tuple(value for row in rows[start : start + size] for value in row)
            start += size


def flat_blocks(values: Sequence[object], width: int) -> Iterator[tuple[int, Sequence[object]]]:
    """The same of rows of this width that stand one behind the other."""
    start = 0
    for size in sql.SIZES:
        while len(values) - start >= size * width:
            yield size, values[start : start + size * width]
            start += size * width


def id_list(ids: Collection[UUID]) -> tuple[int, bytes]:
    """Ids as statements take them: how many, and their bytes."""
    return len(ids), b"".join([id.bytes for id in ids])


def token_list(tokens: Sequence[Token]) -> tuple[str, bytes]:
    """Tokens as statements take them: the holders, and the bytes of the ids."""
    return dump([token.holder for token in tokens]), b"".join([token.id.bytes for token in tokens])


def dump(values: Iterable[object]) -> str:
    """A JSON list."""
    return json.dumps(list(values))


def load(text: str) -> Any:
    """The value of a JSON text."""
    return json.loads(text)


_ID, _STATE, _PARENT, _ROOT = (Record._fields.index(field) for field in ("id", "state", "parent", "root"))


def make_record(columns: Sequence[Any]) -> Record:
    """A record from the columns :data:`statements.RECORD`."""
    fields = list(columns)
    fields[_ID] = id = make_uuid(fields[_ID])
    fields[_STATE] = STATES[fields[_STATE]]
    if fields[_PARENT] is not None:
        fields[_PARENT] = make_uuid(fields[_PARENT])
    fields[_ROOT] = id if fields[_ROOT] is None else make_uuid(fields[_ROOT])
    return Record._make(fields)


def make_uuid(data: bytes) -> UUID:
    """``UUID(bytes=data)`` of 16 bytes that are one."""
    return make_id(int.from_bytes(data, "big"))


def expired(expires: float | None, now: float) -> bool:
    """Whether a record with this end can no longer be seen."""
    return expires is not None and expires <= now
