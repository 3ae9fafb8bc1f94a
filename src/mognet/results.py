"""What is known of a job, for whoever looks at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from mognet.codec import ErrorInfo, loads, rebuild_error
from mognet.cursors import write_cursor
from mognet.entries import LogEntry
from mognet.exceptions import ConnectionError, NotConnected, ResultFailed, ResultLost, ResultNotReady, Revoked
from mognet.progress import Progress, load_progress
from mognet.records import Record
from mognet.states import FAILED, ResultState
from mognet.times import from_seconds
from mognet.watching import Watch

READ_EVERY = 1.0
"""Seconds between attempts to read what a job has left, while its engine cannot be reached."""

T_co = TypeVar("T_co", covariant=True)


class _Source(Protocol):
    """Where a result comes from, and asks for more: :class:`mognet.backend.ResultBackend`."""

    async def get(self, id: UUID) -> Result[Any] | None: ...
    async def ended(self, id: UUID, *, known: Record | None = None, timeout: float | None = None) -> tuple[Record, bytes | None]: ...
    async def read_value(self, record: Record, data: bytes | None = None) -> Any: ...
    async def read_error(self, record: Record, data: bytes | None = None) -> ErrorInfo | None: ...
    async def get_metadata(self, id: UUID) -> dict[str, Any]: ...
    async def set_metadata(self, id: UUID, /, **metadata: Any) -> None: ...
    async def logs(self, id: UUID, *, after: int = 0) -> list[LogEntry]: ...
    async def delete(self, id: UUID, *, include_children: bool = True) -> None: ...
    async def set_ttl(self, id: UUID, ttl: timedelta, *, include_children: bool = True) -> None: ...
    async def get_children_count(self, id: UUID) -> int: ...
    def iterate_children_ids(self, id: UUID, *, count: int | None = None) -> AsyncIterator[UUID]: ...
    def iterate_children(self, id: UUID, *, count: int | None = None) -> AsyncIterator[Result[Any]]: ...
    def watch(self, id: UUID, *, since: str | None = None) -> Watch: ...
    async def summary(self, id: UUID, root: UUID) -> dict[ResultState, int]: ...


class ResultValue:
    """What a job left."""

    def __init__(self, result: Result[Any]) -> None:
        self._result = result

    async def get_raw_value(self) -> Any:
        """The value, or, if the job did not succeed, the exception that awaiting it would raise.

        Raises :class:`ResultNotReady`, or :class:`ResultValueLost` when the value has expired.
        """
        return await self._result.outcome()

    async def get_error(self) -> ErrorInfo | None:
        """The error of a job that failed, as data, with its traceback; None if there is none."""
        return await self._result.error()


class ResultChildren:
    """The jobs that a job submitted."""

    def __init__(self, id: UUID, source: _Source) -> None:
        self._id = id
        self._source = source

    async def count(self) -> int:
        """How many there are."""
        return await self._source.get_children_count(self._id)

    def iter_ids(self, *, count: int | None = None) -> AsyncIterator[UUID]:
        """Their ids, oldest first; at most ``count``."""
        return self._source.iterate_children_ids(self._id, count=count)

    def iter_instances(self, *, count: int | None = None) -> AsyncIterator[Result[Any]]:
        """Their results, oldest first; at most ``count``."""
        return self._source.iterate_children(self._id, count=count)


class Result(Generic[T_co]):
    """A job as it was when this was read; ``await result`` waits for its end and gives the value.

    Waiting brings the result up to date, and so does :meth:`refresh`.
    """

    def __init__(self, record: Record, source: _Source, identity: str | None = None) -> None:
        self._record = record
        self._source = source
        self._identity = identity

    # what is known

    @property
    def record(self) -> Record:
        """The job as the engine keeps it."""
        return self._record

    @property
    def cursor(self) -> str | None:
        """Where ``find`` goes on behind this result, if ``find`` gave it."""
        if self._identity is None:
            return None
        created, place, id = self._record.stand
        return write_cursor("find", self._identity, float(created), place, id.hex)

    @property
    def id(self) -> UUID:
        """The job's id."""
        return self._record.id

    @property
    def name(self) -> str | None:
        """The task's name; None if it was revoked before it was submitted."""
        return self._record.name

    @property
    def queue_name(self) -> str:
        """The queue it waits or waited in."""
        return self._record.queue

    @property
    def priority(self) -> int:
        """0 to 10, higher first."""
        return self._record.priority

    @property
    def state(self) -> ResultState:
        """Where it stands."""
        return self._record.state

    @property
    def attempt(self) -> int:
        """1, and one more for each retry that the task asked for."""
        return self._record.attempt

    @property
    def number_of_starts(self) -> int:
        """How often it was claimed, or went on after waiting for children."""
        return self._record.starts

    @property
    def number_of_stops(self) -> int:
        """How often it ended or paused in an orderly way."""
        return self._record.stops

    @property
    def unexpected_retry_count(self) -> int:
        """Starts without an orderly stop: how often its worker died; while it runs, the present start counts too."""
        return max(0, self._record.crashes)

    @property
    def parent_id(self) -> UUID | None:
        """The job that submitted it."""
        return self._record.parent

    @property
    def root_id(self) -> UUID:
        """The topmost job of its tree; its own id if it has no parent."""
        return self._record.root or self._record.id

    @property
    def created(self) -> datetime:
        """When it was submitted."""
        return from_seconds(self._record.created)

    @property
    def due(self) -> datetime:
        """From when on it may run."""
        return from_seconds(self._record.due)

    @property
    def started(self) -> datetime | None:
        """When it was first claimed."""
        return None if self._record.started is None else from_seconds(self._record.started)

    @property
    def finished(self) -> datetime | None:
        """When it reached its final state."""
        return None if self._record.finished is None else from_seconds(self._record.finished)

    @property
    def node_id(self) -> str | None:
        """The worker that ran it last."""
        return self._record.node

    @property
    def request_kwargs_repr(self) -> str | None:
        """A printable form of its arguments, if the request gave one."""
        return self._record.label

    @property
    def metadata(self) -> dict[str, Any]:
        """Its metadata as it was when this was read; :meth:`get_metadata` reads it anew."""
        metadata: dict[str, Any] = loads(self._record.metadata)
        return metadata

    @property
    def progress(self) -> Progress | None:
        """How far the task said it is (:meth:`Context.progress`); None if it has not said."""
        return load_progress(self._record.progress)

    @property
    def duration(self) -> timedelta | None:
        """From first start to end; None while either is missing."""
        return None if self.started is None or self.finished is None else self.finished - self.started

    @property
    def queue_time(self) -> timedelta | None:
        """From submit to first start; None if it has not started."""
        return None if self.started is None else self.started - self.created

    @property
    def done(self) -> bool:
        """Whether its state is final."""
        return self._record.done

    @property
    def successful(self) -> bool:
        """Whether it returned."""
        return self.state is ResultState.SUCCESS

    @property
    def failed(self) -> bool:
        """Whether it ended without a value: FAILURE, REVOKED or INVALID."""
        return self.state in FAILED

    @property
    def revoked(self) -> bool:
        """Whether it was revoked."""
        return self.state is ResultState.REVOKED

    # its end

    def __await__(self) -> Generator[Any, None, T_co]:
        return self._wait_and_get().__await__()

    async def _wait_and_get(self) -> T_co:
        data = None
        if not self.done:
            self._record, data = await self._source.ended(self.id, known=self._record)
        return await self.unwrap(data, patient=True)

    async def wait(self, timeout: float | None = None) -> None:
        """Wait for the job's end, at most ``timeout`` seconds, and bring this result up to date.

        Raises TimeoutError, or :class:`ResultLost` when the job's record is gone.
        """
        if not self.done:
            self._record, _ = await self._source.ended(self.id, known=self._record, timeout=timeout)

    async def get(self) -> T_co:
        """The value. Raises the task's own exception, :class:`Revoked`, or :class:`ResultNotReady` when it has not ended."""
        if not self.done:
            await self.refresh()
        return await self.unwrap()

    async def unwrap(self, data: bytes | None = None, *, patient: bool = False) -> T_co:
        """The value of a job that has ended, or its error, raised. ``data`` is either as it was stored, if it is known already.

        ``patient``: an engine that cannot be reached just now is waited for, as it was for the job's end.
        """
        value = await (self._read_patiently(data) if patient else self.outcome(data))
        if self.successful:
            return value  # type: ignore[no-any-return]
        raise value

    async def _read_patiently(self, data: bytes | None) -> Any:
        while True:
            try:
                return await self.outcome(data)
            except NotConnected:
                raise
            except ConnectionError:
                await asyncio.sleep(READ_EVERY)

    async def refresh(self) -> None:
        """Read the job again. Raises :class:`ResultLost` when its record is gone."""
        now = await self._source.get(self.id)
        if now is None:
            raise ResultLost(self.id)
        self._record = now.record

    async def outcome(self, data: bytes | None = None) -> Any:
        """The value, or the exception that stands for a job without one. Raises :class:`ResultNotReady`."""
        if not self.done:
            raise ResultNotReady(f"job {self.id} is {self.state}: await it before getting its value")
        if self.successful:
            return await self._source.read_value(self._record, data)
        if self.revoked:
            return Revoked(self)
        info = await self.error(data)
        return ResultFailed(self) if info is None else rebuild_error(info)

    async def error(self, data: bytes | None = None) -> ErrorInfo | None:
        """The error it ended with, as data."""
        return await self._source.read_error(self._record, data) if self.failed else None

    @property
    def value(self) -> ResultValue:
        """What the job left."""
        return ResultValue(self)

    # what belongs to it

    async def get_metadata(self) -> dict[str, Any]:
        """Its metadata as it is now. Raises :class:`ResultLost`."""
        return await self._source.get_metadata(self.id)

    async def set_metadata(self, /, **metadata: Any) -> None:
        """Merge these keys into its metadata. Raises :class:`InvalidMetadata`, :class:`ResultLost`."""
        await self._source.set_metadata(self.id, **metadata)

    async def logs(self, *, after: int = 0) -> list[LogEntry]:
        """What it has logged, oldest first, as far as it is kept (``AppConfig.keep_logs``); entries numbered above ``after``."""
        return await self._source.logs(self.id, after=after)

    def watch(self, since: str | None = None) -> Watch:
        """What happens to the job, from its present state to its final one; see :meth:`App.watch`.

        The events say it, the result itself stays as it was when it was read.
        """
        return self._source.watch(self.id, since=since)

    async def summary(self) -> dict[ResultState, int]:
        """How many jobs are in each state, of this one and all under it, in one call to the engine however many there are."""
        return await self._source.summary(self.id, self.root_id)

    @property
    def children(self) -> ResultChildren:
        """The jobs that it submitted."""
        return ResultChildren(self.id, self._source)

    async def tree(self, max_depth: int = 3, max_width: int = 500) -> ResultTree:
        """The jobs under this one, ``max_depth`` levels with this one, at most ``max_width`` children of each job.

        Brings this result up to date. Raises :class:`ResultLost` when its record is gone.
        """
        if not self.done:
            await self.refresh()
        return await self._tree(max_depth, max_width, frozenset())

    async def _tree(self, max_depth: int, max_width: int, above: frozenset[UUID]) -> ResultTree:
        node, path = ResultTree(self), above | {self.id}
        if max_depth > 1:
            async for child in self.children.iter_instances(count=max_width):
                if child.id not in path:  # ids that are used again may make a circle
                    node.children.append(await child._tree(max_depth - 1, max_width, path))
        return node

    async def delete(self, include_children: bool = True) -> None:
        """Delete the record and all that belongs to it; with all descendants, unless told otherwise."""
        await self._source.delete(self.id, include_children=include_children)

    async def set_ttl(self, ttl: timedelta, include_children: bool = True) -> None:
        """Let record and value live so long from now, or from the job's end; those of all descendants too."""
        await self._source.set_ttl(self.id, ttl, include_children=include_children)

    def to_dict(self) -> dict[str, Any]:
        """Everything above as plain values, for JSON."""
        return {
            "id": str(self.id),
            "name": self.name,
            "state": str(self.state),
            "queue": self.queue_name,
            "priority": self.priority,
            "attempt": self.attempt,
            "number_of_starts": self.number_of_starts,
            "number_of_stops": self.number_of_stops,
            "unexpected_retry_count": self.unexpected_retry_count,
            "parent_id": None if self.parent_id is None else str(self.parent_id),
            "root_id": str(self.root_id),
            "created": self.created.isoformat(),
            "due": self.due.isoformat(),
            "started": None if self.started is None else self.started.isoformat(),
            "finished": None if self.finished is None else self.finished.isoformat(),
            "duration": None if self.duration is None else self.duration.total_seconds(),
            "queue_time": None if self.queue_time is None else self.queue_time.total_seconds(),
            "node_id": self.node_id,
            "request_kwargs_repr": self.request_kwargs_repr,
            "metadata": self.metadata,
            "progress": None if (progress := self.progress) is None else progress.to_dict(),
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Result) and other._record == self._record

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Result({self.name!r}, id={str(self.id)!r}, state={self.state})"


@dataclass
class ResultTree:
    """A result with the trees of its children, oldest first."""

    result: Result[Any]
    children: list[ResultTree] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The tree as plain values, for JSON."""
        return {**self.result.to_dict(), "children": [child.to_dict() for child in self.children]}
