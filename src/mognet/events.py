"""What a watch wants, what it has been sent, and what it tells."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from mognet.codec import ErrorInfo, load_error, loads
from mognet.cursors import read_cursor, read_place, write_cursor
from mognet.exceptions import InvalidCursor, InvalidQuery, NotConnected
from mognet.finding import read_filters
from mognet.labels import label, labels
from mognet.progress import Progress, load_progress
from mognet.records import Place, Query, Record
from mognet.states import ResultState

MOST_WAITING = 2000
"""Jobs that wait to be told by one watch. When there are more it reads by itself, at its own pace, and nothing waits for it."""

MOST_SEEN = 1000
"""Jobs of which one watch remembers what it told last."""


T = TypeVar("T")

_WITH_ERROR = frozenset({ResultState.FAILURE, ResultState.INVALID})

ReadValue = Callable[[UUID], Awaitable[bytes | None]]
"""Reads what a job has left: its value, or its error."""


def read_error(data: bytes | None) -> ErrorInfo | None:
    """An error as it was stored; None if there is none, or it is none."""
    with suppress(ValueError):
        return None if data is None else load_error(data)
    return None


@dataclass(frozen=True, slots=True)
class Event:
    """A job as it was read after something changed in it. What happened between two readings is one event.

    What a :class:`mognet.Result` tells, too, has the same name there.
    """

    cursor: str
    """Given as ``since`` to a new watch of the same jobs, it goes on behind this event."""
    id: UUID
    name: str | None
    """The task's name; None if the job was revoked before it was submitted."""
    state: ResultState
    progress: Progress | None = field(hash=False)
    """How far the task says it is."""
    metadata: dict[str, Any] = field(hash=False)
    """All of the job's metadata."""
    changed: frozenset[str]
    """The keys of it whose value this watch has not told yet: all, for a job that it tells for the first time, or lost sight of."""
    queue_name: str
    node_id: str | None
    """The worker that runs it, or ran it last."""
    parent_id: UUID | None
    """The job that submitted it."""
    root_id: UUID
    """The topmost job of its tree; its own id if it has no parent."""
    record: Record = field(repr=False)
    """The job as the engine keeps it."""
    read_value: ReadValue = field(repr=False, compare=False)

    async def error(self) -> ErrorInfo | None:
        """Why the job has failed, as data: ``type_name``, ``message``, ``traceback``. It is read when it is asked for.

        None if the job has not ended as FAILURE or INVALID, if it runs again by now, or if its error has expired.
        """
        return read_error(await self.read_value(self.id)) if self.state in _WITH_ERROR else None

    @property
    def done(self) -> bool:
        """Whether its state is final."""
        return self.record.done

    def __copy__(self) -> Event:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Event:
        return replace(self, metadata=deepcopy(self.metadata, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        """To be pickled: all but the way to the engine, which belongs to this process."""
        return Event, (*(getattr(self, each.name) for each in fields(self)[:-1]), _read_nowhere)

    def to_dict(self) -> dict[str, Any]:
        """Everything above as plain values, for JSON."""
        return {
            "cursor": self.cursor,
            "id": str(self.id),
            "name": self.name,
            "state": str(self.state),
            "progress": None if self.progress is None else self.progress.to_dict(),
            "metadata": self.metadata,
            "changed": sorted(self.changed),
            "queue": self.queue_name,
            "node_id": self.node_id,
            "parent_id": None if self.parent_id is None else str(self.parent_id),
            "root_id": str(self.root_id),
        }


async def _read_nowhere(_: UUID) -> bytes | None:
    raise NotConnected("this event was pickled: ask for its error where it was told")


class Want(NamedTuple):
    """Which jobs are watched: one, a tree, those that are so, or all."""

    query: Query = Query()
    id: UUID | None = None
    root: UUID | None = None

    @property
    def top(self) -> UUID | None:
        """The job whose end may end the watch."""
        return self.id or self.root

    def fits(self, record: Record, found: Mapping[str, bytes]) -> bool:
        """Whether a job is as it is wanted; ``found`` are the labels of its metadata."""
        query = self.query
        return (
            (query.name is None or record.name == query.name)
            and (not query.states or record.state in query.states)
            and all(found.get(each.path) in each.labels for each in query.metadata)
        )


def make_want(id: UUID | None, root: UUID | None, filters: Mapping[str, Any]) -> Want:
    """What the arguments ask for. Raises :class:`InvalidQuery`."""
    given = {name: value for name, value in filters.items() if value is not None}
    if (id is not None) + (root is not None) + bool(given) > 1:
        raise InvalidQuery(
            "watch one job by its id, a tree by root=, jobs by metadata=, name= and state=, or all of them: not two of these"
        )
    if id is not None:
        return Want(Query(id_prefix=id.hex), id=id)
    if root is not None:
        return Want(Query(root=root), root=root)
    if given.get("metadata") == {}:
        raise InvalidQuery("metadata={} says nothing: leave it out to watch all jobs")
    return Want(read_filters("watch", given))


class Walk(NamedTuple):
    """A walk through the jobs as they are, beside the changes."""

    place: Place | None = None
    """Behind this one."""


class Spot(NamedTuple):
    """Where a watch stands: what a cursor says."""

    at: str
    """In the order of changes."""
    walk: Walk | None = None

    def cursor(self, identity: str) -> str:
        """The cursor."""
        if self.walk is None:
            return write_cursor("watch", identity, self.at)
        place = self.walk.place or Place(0.0, 0, UUID(int=0))
        return write_cursor("watch", identity, self.at, place.created, place.place, place.id.hex)


def read_spot(identity: str, cursor: str) -> Spot:
    """What a cursor says. Raises :class:`InvalidCursor`."""
    try:
        match read_cursor("watch", identity, cursor):
            case [str(at)]:
                return Spot(at)
            case [str(at), created, place, id]:
                return Spot(at, Walk(read_place(created, place, id)))
    except ValueError as error:
        if isinstance(error, InvalidCursor):
            raise
    raise InvalidCursor("the cursor is of a form that this version of mognet does not know")


class Entry(NamedTuple):
    """A job to be told."""

    spot: Spot
    record: Record


class Phase(Enum):
    """What a watch is waiting for."""

    NEW = "nothing was asked yet"
    JOINING = "to be let in"
    WALKING = "the jobs as they are"
    CATCHING_UP = "what changed meanwhile"
    LIVE = "what changes"
    OVER = "nothing"


class Box:
    """What has been sent to one watch and is not told yet: each job once, in the order of the last changes."""

    def __init__(self, want: Want, since: str | None) -> None:
        self.want: Want = want
        self.since: str | None = since
        self.phase: Phase = Phase.NEW
        self.spot: Spot = Spot("")
        """From where it reads on by itself; while it is live, up to where all has been told."""
        self.arrived: asyncio.Event = asyncio.Event()
        self.error: Exception | None = None
        self.told: bool = False
        """Whether the watch has told anything."""
        self.top_done: bool = False
        self.all_done: bool = False
        """When last asked, nothing of the tree was unfinished any more."""
        self._waiting: OrderedDict[UUID, Entry] = OrderedDict()

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be told."""
        return not self._waiting

    def put(self, entry: Entry, before: Spot | None = None) -> None:
        """Send a job. ``before``: up to where there was nothing for this watch, if nothing waits."""
        record = entry.record
        if before is not None and self.empty:
            self.spot = before
        if record.id == self.want.top:
            self.top_done = record.done
        if not record.done:
            self.all_done = False
        self._waiting.pop(record.id, None)
        self._waiting[record.id] = entry
        if self.want.id is not None and record.done:
            self.end()
        elif self.phase is Phase.LIVE and len(self._waiting) > MOST_WAITING:
            self._waiting.clear()
            self.phase = Phase.CATCHING_UP
        self.arrived.set()

    def take(self) -> Entry | None:
        """The next job to tell."""
        if not self._waiting:
            return None
        _, entry = self._waiting.popitem(last=False)
        if self.phase is Phase.LIVE:
            self.spot = entry.spot
        return entry

    def start_over(self, spot: Spot) -> None:
        """Go on from here, when the jobs as they are have been walked through."""
        self._waiting.clear()
        self.spot, self.phase = spot, Phase.WALKING
        self.arrived.set()

    def end(self, error: Exception | None = None) -> None:
        """Nothing more will come."""
        if self.phase is not Phase.OVER:
            self.phase, self.error = Phase.OVER, error
        self.arrived.set()

    def clear(self) -> None:
        """Nothing that waits is told any more."""
        self._waiting.clear()


class Audience:
    """Which watches want to know of a job."""

    def __init__(self) -> None:
        self.boxes: dict[Box, None] = {}
        self._all: set[Box] = set()
        self._by_id: defaultdict[UUID, set[Box]] = defaultdict(set)
        self._by_root: defaultdict[UUID, set[Box]] = defaultdict(set)
        self._by_label: defaultdict[tuple[str, bytes], set[Box]] = defaultdict(set)
        self._paths: Counter[str] = Counter()
        self._ways: Counter[str] = Counter()
        """The paths by whose labels boxes are found: the first of each."""
        self._queries: Counter[Query] = Counter()

    def add(self, box: Box) -> None:
        """From now on, this one too."""
        self.boxes[box] = None
        for home in self._homes(box.want):
            home.add(box)
        self._count(box.want, 1)

    def discard(self, box: Box) -> None:
        """This one no more."""
        if box not in self.boxes:
            return
        del self.boxes[box]
        for home in self._homes(box.want):
            home.discard(box)
        self._count(box.want, -1)
        for homes, keys in self._keys(box.want):
            for key in [key for key in keys if not homes[key]]:
                del homes[key]

    def of(self, record: Record) -> list[Box]:
        """The boxes that a record goes into."""
        boxes = [*self._by_id.get(record.id, ()), *self._by_root.get(record.root or record.id, ())]
        found = labels(record.metadata, self._paths) if self._paths else {}
        some = [self._all, *(self._by_label.get((path, found[path]), ()) for path in found.keys() & self._ways.keys())]
        return boxes + [box for each in some for box in each if box.want.fits(record, found)]

    def tops(self) -> list[UUID]:
        """The jobs and roots that are watched."""
        return [*self._by_id, *self._by_root]

    def of_top(self, id: UUID) -> list[Box]:
        """The boxes of those who watch this job, or its tree."""
        return [*self._by_id.get(id, ()), *self._by_root.get(id, ())]

    def of_trees(self) -> Iterator[tuple[UUID, set[Box]]]:
        """The roots that are watched, and by whom."""
        yield from list(self._by_root.items())

    def query(self) -> Query:
        """What all want: the source can filter by it if that is the same for all."""
        return next(iter(self._queries)) if len(self._queries) == 1 else Query()

    def _homes(self, want: Want) -> list[set[Box]]:
        return [homes[key] for homes, keys in self._keys(want) for key in keys] or [self._all]

    def _keys(self, want: Want) -> list[tuple[defaultdict[Any, set[Box]], list[Any]]]:
        """Under which keys of which tables a box is found; none: it gets everything."""
        if want.id is not None:
            return [(self._by_id, [want.id])]
        if want.root is not None:
            return [(self._by_root, [want.root])]
        return [(self._by_label, [(path, each) for each in found]) for path, found in want.query.metadata[:1]]

    def _count(self, want: Want, step: int) -> None:
        _add(self._queries, want.query, step)
        for each in want.query.metadata:
            _add(self._paths, each.path, step)
        for each in want.query.metadata[:1]:
            _add(self._ways, each.path, step)


def _add(counter: Counter[T], key: T, step: int) -> None:
    counter[key] += step
    if not counter[key]:
        del counter[key]


class Memory:
    """What a watch has told: not to tell the same twice, and to say what is new."""

    def __init__(self, read_value: ReadValue) -> None:
        self._read_value = read_value
        self._seen: OrderedDict[UUID, Record] = OrderedDict()

    def event(self, entry: Entry, identity: str) -> Event | None:
        """The event of an entry; None: that was the last one of this job already."""
        record = entry.record
        before = self._seen.pop(record.id, None)
        self._seen[record.id] = record
        if len(self._seen) > MOST_SEEN:
            self._seen.popitem(last=False)
        if before == record:
            return None
        metadata: dict[str, Any] = loads(record.metadata)
        return Event(
            cursor=entry.spot.cursor(identity),
            id=record.id,
            name=record.name,
            state=record.state,
            progress=load_progress(record.progress),
            metadata=metadata,
            changed=_changed(before, record, metadata),
            queue_name=record.queue,
            node_id=record.node,
            parent_id=record.parent,
            root_id=record.root or record.id,
            record=record,
            read_value=self._read_value,
        )


def _changed(before: Record | None, record: Record, metadata: dict[str, Any]) -> frozenset[str]:
    if before is None:
        return frozenset(metadata)
    if before.metadata == record.metadata:
        return frozenset()
    old = loads(before.metadata)
    both = old.keys() & metadata.keys()
    # As JSON: Python takes True for 1.
    return frozenset(old.keys() ^ metadata.keys()) | {key for key in both if label(old[key]) != label(metadata[key])}
