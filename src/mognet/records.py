"""The values that cross the seam: what a job is, before and after it is stored.

All are immutable tuples. Times are seconds since 1970 (UTC) by the engine's clock; durations are seconds; ``bytes`` fields
are JSON texts that the engine stores as they are.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from mognet.states import FINAL, ResultState


class Token(NamedTuple):
    """Proof of owning a job: which claim of which job. Only the newest token can settle or write."""

    id: UUID
    start: int
    """The value of ``starts`` that the claim set."""
    holder: str
    """Random text, new for each claim."""


class Job(NamedTuple):
    """A job to submit."""

    id: UUID
    name: str
    queue: str
    body: bytes
    """The call: arguments, deadline, stack. Opaque to engines."""
    metadata: bytes = b"{}"
    """A JSON object."""
    priority: int = 5
    """0 to 10, higher first."""
    delay: float = 0.0
    """Seconds from now until it is due."""
    parent: UUID | None = None
    root: UUID | None = None
    """The topmost ancestor; None: the job itself."""
    parent_token: Token | None = None
    """The attempt that submits this child: if that attempt has lost its claim, the child is refused."""
    label: str | None = None
    """A printable form of the arguments."""
    ttl: float | None = None
    """Seconds that a record lives which ends by the engine's own doing: born final, or too late."""
    latest: float | None = None
    """The moment, in seconds since 1970, after which it is not to be run any more."""


class Record(NamedTuple):
    """A job as it is stored."""

    id: UUID
    name: str | None
    queue: str
    state: ResultState
    priority: int
    created: float
    due: float
    """From when on it may run; for running jobs, when it last became due."""
    metadata: bytes = b"{}"
    started: float | None = None
    """When it was first claimed."""
    finished: float | None = None
    starts: int = 0
    stops: int = 0
    attempt: int = 1
    """1, and one more for each retry that the task asked for; crashes and pauses do not count."""
    parent: UUID | None = None
    root: UUID | None = None
    node: str | None = None
    """The worker that claimed it last."""
    label: str | None = None
    ttl: float | None = None
    """A lifetime set by hand: seconds from its end, for record and value alike."""
    expires: float | None = None
    progress: bytes | None = None
    """How far the task says it is: a JSON text. Opaque to engines."""
    place: int = 0
    """Orders records that were created at the same moment; means nothing beside other stores' records."""

    @property
    def done(self) -> bool:
        """Whether the state is final."""
        return self.state in FINAL

    @property
    def stand(self) -> Place:
        """Its place in the order of creation."""
        return Place(self.created, self.place, self.id)

    @property
    def crashes(self) -> int:
        """How many starts have no orderly stop; while the job runs, the present start is one of them."""
        return self.starts - self.stops


def new_record(job: Job, now: float, place: int = 0) -> Record:
    """The record of a job that has just been submitted."""
    id, name, queue, _, metadata, priority, delay, parent, root, _, label, _, _ = job
    return Record(  # by position, which takes half the time
        id,
        name,
        queue,
        _PENDING,
        priority,
        now,
        now + delay,
        metadata,
        None,
        None,
        0,
        0,
        1,
        parent,
        root or id,
        None,
        label,
        place=place,
    )


_PENDING = ResultState.PENDING


class Claim(NamedTuple):
    """A job leased to a worker, with all it needs to run it."""

    token: Token
    record: Record
    body: bytes


class Wanted(NamedTuple):
    """A condition on metadata: the value at a path is one of these."""

    path: str
    """A key, or keys into objects with dots between them."""
    labels: frozenset[bytes]
    """Values as :func:`mognet.labels.label` writes them."""


class Place(NamedTuple):
    """Where a record stands in the order of creation."""

    created: float
    place: int
    id: UUID


ID_DIGITS = 32
"""Digits of a whole id."""


class Query(NamedTuple):
    """Which records: every condition that is given must hold; the default matches all."""

    states: frozenset[ResultState] = frozenset()
    """Any of these; empty: any state."""
    name: str | None = None
    queue: str | None = None
    node: str | None = None
    parent: UUID | None = None
    root: UUID | None = None
    """Jobs of this tree, the root included."""
    in_line: bool = False
    """Only jobs that wait in the engine's line: PENDING, or SUSPENDED without a worker that holds them."""
    id_prefix: str | None = None
    """Hexadecimal digits that the id starts with, without dashes."""
    created_after: float | None = None
    created_before: float | None = None
    newest_first: bool = False
    """By creation; otherwise oldest first."""
    limit: int | None = None
    metadata: tuple[Wanted, ...] = ()
    under: UUID | None = None
    """This job and all below it, as far as records lead."""
    after: Place | None = None
    """Only what comes behind this place, in the order asked for. The record that stood there may be gone."""

    @property
    def names_one(self) -> bool:
        """Whether it is about one job, by its whole id."""
        return self.id_prefix is not None and len(self.id_prefix) == ID_DIGITS


class Signal(NamedTuple):
    """Something that was published. Signals are hints: they may be lost or doubled."""

    channel: str
    body: bytes


class Changed(NamedTuple):
    """A record, as it is now, that has changed."""

    at: str
    """Where its change stands in the order of changes; to be given back to ``changes``."""
    record: Record


class Changes(NamedTuple):
    """What has changed: each job once, in the order of the last changes."""

    changed: list[Changed]
    at: str
    """From where to go on."""
    more: bool = False
    """Whether there is more to be read at once."""
    lost: bool = False
    """Whether the engine took no notes for some of the time since then, so that changes may be missing."""


class Reindexed(NamedTuple):
    """How far an index of metadata has come."""

    done: int
    """Jobs that this call looked at."""
    left: int
    """About so many are still to be looked at; 0: every declared key's index is whole."""


class LogLine(NamedTuple):
    """Something that a job logged."""

    number: int
    """1 for the job's first, and so on."""
    text: bytes


class Swept(NamedTuple):
    """What one sweep did."""

    recovered: int = 0
    """Jobs of lost workers, put back in line."""
    expired: int = 0
    """Records, values and notes deleted because their time was over."""
    more: bool = False
    """Whether the limit was reached, so that another sweep has work to do."""
    late: int = 0
    """Jobs that waited past their latest moment, and ended REVOKED."""
    carried: int = 0
    """Jobs that a broker did not bring in time, put in line."""


class Ticket(NamedTuple):
    """What a broker carries of a job that is due: the record is the truth, the ticket only says where to look."""

    id: UUID
    queue: str
    priority: int = 5


class Delivery(NamedTuple):
    """A ticket that a broker has handed out, and that waits for its acknowledgement."""

    ticket: Ticket
    receipt: object
    """What the broker knows it by; means nothing to others."""
