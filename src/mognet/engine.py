"""The seam: all that app, client and worker know of where jobs are kept.

An engine holds the line (what is to run) and the records (what is known of each job), and changes both in one atomic step.
It decides nothing else: retries, deadlines, routing and limits live above it.

The laws, each of which has a group of tests in :mod:`mognet.testing.conformance`:

* **repeatable**: ``submit``, ``settle``, ``update`` and ``extend`` may be sent twice; the second time changes nothing.
  (A settle sent twice answers None the second time: the token is spent.)
* **one holder**: between a claim and its lease's end nobody else gets the job.
* **fenced**: only the newest token can settle, save, or make a change that carries a token.
* **final is final**: a record in a final state keeps its state, value and times, unless somebody asks to run the job again.
* **order**: priority (high first), then due time, then arrival.
* **the engine's clock** decides what is due, whose lease has ended, and what has expired.
* **bytes in = bytes out**: bodies, values, notes and signals come back as they were; metadata as an equal JSON object.
* **signals are hints**: they may be lost or doubled; whoever waits also looks.
* **changes are folded, never lost**: who reads ``changes`` from where it left off is told of every job that changed since, in its
  latest state.
* **nothing leaks**: after a delete, an expiry, or a final state, no trace is left of what is gone.
* **cancelling is safe**: an operation whose caller is cancelled happened or did not; a cancelled ``claim`` holds no job.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Literal, Protocol, Self, runtime_checkable
from uuid import UUID

from mognet.outcomes import Change, Outcome
from mognet.records import (
    Changes,
    Claim,
    Delivery,
    Job,
    LogLine,
    Query,
    Record,
    Reindexed,
    Signal,
    Swept,
    Ticket,
    Token,
)
from mognet.states import FINAL, ResultState

DONE = "done"
"""The channel on which an engine tells of each job that reached a final state (:func:`mognet.codec.pack_done`)."""

CHANGED = "changed"
"""The channel on which an engine rings, with an empty body, when there may be something new for those who read ``changes``."""

KEEP_NOTES = 24 * 3600.0
"""Seconds for which an engine goes on taking notes of changes after somebody last asked for them."""

SMALL_VALUE = 4096
"""A value up to this many bytes travels along with the DONE signal."""

GroupBy = Literal["state", "queue", "name"]

METADATA = "metadata:"
"""What stands before the path when records are counted by a value in their metadata."""


@runtime_checkable
class Engine(Protocol):
    """Line and records of one app. An async context manager: entering connects, leaving closes.

    Operations raise :class:`mognet.exceptions.ConnectionError` when the engine cannot be reached. Who gets one may ask again within a
    second, for ever: that its servers are not stormed meanwhile is the engine's own business. Entering is not guarded in this way: who
    tries again waits longer each time, by :func:`until_back`.
    """

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    # the line

    async def submit(self, jobs: Sequence[Job], *, enqueue: bool = True) -> list[bool]:
        """Store the jobs' records, and put them in line; all or none.

        True: this call added the job, PENDING, due ``delay`` seconds from now. False: it did not, and the record says why:

        * the id is known (also as a tombstone): nothing changes;
        * ``parent`` is REVOKED: the job is born REVOKED;
        * ``parent_token`` no longer holds the parent: no record is made.

        A parent that has no record, or ended otherwise, is no hindrance when ``parent_token`` is None.

        ``enqueue=False``: a broker carries the jobs that are due at once. They are PENDING but not in line, and only a claim by
        ``ids`` (or a sweep, if none comes) finds them; jobs with a delay go in line all the same.
        """
        ...

    async def claim(
        self,
        node: str,
        queues: Collection[str],
        limit: int,
        *,
        lease: float,
        wait: float = 0.0,
        ids: Collection[UUID] | None = None,
    ) -> list[Claim]:
        """Lease up to ``limit`` due jobs of these queues, best first, for ``lease`` seconds.

        Each becomes RUNNING with a new token, ``starts`` + 1 and ``node``; ``started`` is set the first time. If none is due,
        wait up to ``wait`` seconds, and return as soon as one is (or nothing). ``ids`` narrows the choice to those jobs, and
        includes those that were submitted with ``enqueue=False``.
        If the caller is cancelled, no job stays claimed.
        """
        ...

    async def extend(self, tokens: Collection[Token], lease: float) -> set[Token]:
        """Let these leases end ``lease`` seconds from now; answer those that still hold their job.

        A lease that has ended but whose job nobody else got is extended all the same.
        """
        ...

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Record | None]:
        """End attempts: each token is spent, ``stops`` + 1, and the job is final or in line again. None: claim lost.

        A final outcome stores the value, sets ``finished`` and ``expires``, deletes the notes and rings :data:`DONE`.
        A lifetime set by hand (``record.ttl``) goes before the outcome's. Again.RETRY raises ``attempt``.
        """
        ...

    # the records

    async def get(self, ids: Collection[UUID]) -> list[Record | None]:
        """The records, in the order asked for; None: there is none, or it has expired."""
        ...

    async def value(self, id: UUID) -> bytes | None:
        """What a final job left (its value, or its error); None: nothing, or it has expired."""
        ...

    async def body(self, id: UUID) -> bytes | None:
        """The call of a job that has not ended, or that ended without a value; None: there is none, or it is not kept any more."""
        ...

    async def update(self, id: UUID, change: Change, *, unless: Collection[ResultState] = FINAL) -> Record | None:
        """Apply a change in one step and answer the record as it then is; None: no such record, or ``change.token`` is stale.

        Nothing changes while the record is in one of the states ``unless``. The state of a final record never changes,
        whatever ``unless`` says, but with ``descendants`` its unfinished descendants do. REVOKED spends the tokens of the
        jobs it ends (``stops`` + 1 for those that ran), takes them out of line, deletes their notes and rings :data:`DONE`.
        Metadata that would grow beyond ``change.max_metadata`` raises :class:`mognet.exceptions.InvalidMetadata`, and nothing
        changes. SUSPENDED and RUNNING (with a token) raise ``stops`` and ``starts``; in the state already, nothing changes.
        With ``change.body`` it is a rerun: it changes FAILURE, REVOKED and INVALID records (if ``unless`` lets it) and no others,
        never a tombstone, and with ``change.ended`` only one whose ``finished`` is that.
        """
        ...

    async def delete(self, ids: Collection[UUID], *, states: Collection[ResultState] = ()) -> int:
        """Delete records with value, notes and place in line; answer how many there were. Their tokens are void.

        ``states``: only those that are in one of these at that moment; none: in any.
        """
        ...

    def search(self, query: Query) -> AsyncIterator[Record]:
        """The records that match, by creation: :attr:`Record.stand`. Jobs of one submit are in the order in which they were given."""
        ...

    async def count(self, query: Query, *, by: GroupBy | str = "state") -> dict[str, int]:
        """How many records match, by state, queue or name, or by the value at a path in their metadata (``"metadata:PATH"``).

        In the last case the groups are the values as :func:`mognet.labels.label` writes them, and ``""`` those without one. ``limit``,
        ``newest_first`` and ``after`` play no part.
        """
        ...

    # what makes it quick to find records by their metadata

    async def declare(self, keys: Collection[str], *, only: bool = False) -> frozenset[str]:
        """From now on, index the values at these paths in the metadata of this app's jobs, whichever process submits or changes them.

        Answers which of these keys' indexes are whole: that of a key which is declared while there are jobs is so only after ``reindex``.
        Until then, as without a declaration, a search finds the same records, but goes through all of them. ``only``: other keys' indexes
        are given up.
        """
        ...

    async def reindex(self, *, limit: int = 1000) -> Reindexed:
        """Bring the indexes of declared keys up to date by up to ``limit`` jobs. May be stopped, and goes on at the next call."""
        ...

    # what has changed

    async def identity(self) -> str:
        """A random text that was made for this app's records when they were first opened: to know cursors that belong elsewhere."""
        ...

    async def changes(self, since: str | None, query: Query = Query(), *, limit: int = 1000) -> Changes:  # noqa: B008 - immutable
        """Which jobs have changed since then: were submitted, claimed, settled, or changed by ``update`` or ``sweep``.

        ``save``, ``log`` and a claim that is undone are none. ``since`` is what an earlier call gave as ``at``; None: nothing, and the
        ``at`` of now. At most about ``limit`` at a time; of those only what matches the query (its order, ``limit`` and ``after`` play no
        part). A job that is deleted or expires is not told.
        An engine takes notes only if somebody has asked within :data:`KEEP_NOTES` seconds: then ``lost`` says that they do not reach
        back to ``since``. Raises ValueError for a ``since`` that was never given.
        """
        ...

    # what a job logs

    async def log(self, lines: Mapping[Token, Sequence[bytes]], *, keep: int) -> set[Token]:
        """Add lines to the logs of jobs; of each the last ``keep`` stay, as long as the record.

        For a token that is missing from the answer nothing was written: it lost its job.
        """
        ...

    async def logs(self, id: UUID, *, after: int = 0) -> list[LogLine]:
        """The lines of a job's log that are kept, oldest first; those numbered above ``after``."""
        ...

    # a running task's notes

    async def load(self, token: Token) -> dict[str, bytes]:
        """The job's notes; none if the token is stale."""
        ...

    async def save(self, token: Token, changes: Mapping[str, bytes | None], *, ttl: float | None = None) -> dict[str, bytes] | None:
        """Set notes (None deletes one), and answer those that were replaced or deleted. None: claim lost, nothing written.

        Notes last until the job ends, or ``ttl`` seconds from the last save.
        """
        ...

    # signals

    async def publish(self, channel: str, body: bytes) -> None:
        """Send a signal to all who subscribe to the channel now, in any process."""
        ...

    def subscribe(self, *channels: str) -> AbstractAsyncContextManager[AsyncIterator[Signal]]:
        """Inside the context, what is published on these channels arrives; outside, nothing is kept."""
        ...

    # upkeep

    async def sweep(self, *, grace: float = 30.0, limit: int = 1000) -> Swept:
        """Put jobs whose lease has ended back in line (PENDING, due as before), and delete what has expired.

        A job that was SUSPENDED under its lease loses the stop that this counted: its worker did not end it in order.
        Jobs that nobody holds and whose ``latest`` moment has passed end REVOKED, with their descendants, as by ``update``; their
        record lives for the ``ttl`` that the job brought. Jobs submitted with ``enqueue=False`` that nobody has claimed ``grace``
        seconds after they were due go in line: a broker that lost them is not waited for. At most ``limit`` jobs or records of
        each kind in one call.
        """
        ...


@runtime_checkable
class Broker(Protocol):
    """Carries tickets between the processes of one app; :class:`mognet.engines.paired.Paired` makes an engine of it and a store.

    Tickets are hints, as signals are: one that is lost, doubled or late changes nothing, since the record decides. Entering does not
    wait for the broker, so that its store can be used while it is down; operations raise
    :class:`mognet.exceptions.ConnectionError` when it cannot be reached in time.
    """

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def push(self, tickets: Sequence[Ticket]) -> None:
        """Return when the broker has said that it keeps them. An error leaves open which of them it got."""
        ...

    async def pull(self, queues: Collection[str], limit: int, wait: float = 0.0) -> list[Delivery]:
        """Up to ``limit`` tickets of these queues, best first: priority, then arrival. If there is none, wait for one.

        What is pulled is out of others' reach until it is acknowledged or given back, so it is not kept for longer than a claim
        takes. If the caller is cancelled, nothing stays pulled.
        """
        ...

    def ack(self, deliveries: Collection[Delivery]) -> None:
        """Forget these tickets. Nothing is waited for: one whose connection is gone comes again, and is refused by the record."""
        ...

    def give_back(self, deliveries: Collection[Delivery]) -> None:
        """Let others have these tickets, at their old places as far as the broker can. Nothing is waited for."""
        ...

    async def depth(self, queue: str) -> int:
        """How many tickets wait in a queue."""
        ...


OpenEngine = Callable[[], Engine]
"""Makes an engine on the same line and records; what another event loop needs to reach them too."""


next_step: ContextVar[Callable[[], None]] = ContextVar("mognet_next_step", default=lambda: None)
"""What an engine calls when a ``search`` or ``count`` has come on by a step: whoever has set a deadline lets it begin anew.

So one that goes through very many records is not taken for one that gets no answer."""


async def until_back(engine: Engine | Broker, seconds: float) -> bool:
    """Wait so long; less if the engine, entered or not, has an ``until_back`` of its own and tells by it that its server is back (True)."""
    wait = getattr(engine, "until_back", None)
    if wait is None:
        await asyncio.sleep(seconds)
        return False
    return bool(await wait(seconds))


async def check_login(engine: Engine | Broker) -> None:
    """Have an engine that enters a server only when it needs it say now if that refuses the login.

    By :class:`mognet.exceptions.ImproperlyConfigured`; a server that cannot be reached is no matter.
    """
    check = getattr(engine, "check_login", None)
    if check is not None:
        await check()
