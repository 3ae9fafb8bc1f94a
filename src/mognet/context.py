"""What a running task has in its hands."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime, timedelta
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload
from uuid import UUID

from mognet.backend import ResultBackend
from mognet.calling import Calling
from mognet.codec import Call, dump_metadata, loads
from mognet.config import AppConfig
from mognet.control import NodeStatus, QueueStats
from mognet.events import Event, Want, make_want
from mognet.exceptions import AttemptLost, ResultLost
from mognet.progress import Reporter, track, track_sync
from mognet.records import Claim, Record, Token
from mognet.requests import Request
from mognet.results import Result
from mognet.services import ClassService, Services
from mognet.state import State
from mognet.times import LONGEST, from_seconds
from mognet.watching import Hub, Watch

KEEPS_SLOT = 1.0
"""Seconds without an event after which a task that watches gives its slot away: not for each event, since that is written each time."""

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class AppFace(Calling["Context"]):
    """What a task may want of its app (a :class:`mognet.App`). Inside a task, use the context's own ``run``: it frees the slot."""

    name: str
    config: AppConfig
    services: Services

    @property
    @abstractmethod
    def result_backend(self) -> ResultBackend:
        """Reads, waits for, labels and deletes jobs."""

    @abstractmethod
    async def revoke(self, id: UUID | str, *, force: bool = False) -> Result[Any]:
        """Stop a job and all under it."""

    @abstractmethod
    def get_task_queue_names(self) -> set[str]:
        """The queues that a worker of this app listens on."""

    @abstractmethod
    async def queue_stats(self, name: str) -> QueueStats:
        """How many jobs wait in a queue, and how many workers listen on it."""

    @abstractmethod
    async def purge_task_queues(self) -> dict[str, int]:
        """Delete the jobs that wait in the queues this app listens on."""

    @abstractmethod
    def get_current_status_of_nodes(self, *, timeout: float = 1.0) -> AsyncIterator[NodeStatus]:
        """Ask every node what it runs."""


class Slot(Protocol):
    """The worker's side of a running job."""

    def waiting(self) -> AbstractAsyncContextManager[None]:
        """Inside the context the job is SUSPENDED and another may use its slot."""
        ...


class Context(Calling["Context"]):
    """Handed to a task as its first argument.

    What it writes (state, metadata, children) is written only while this attempt owns the job; after that, state and metadata
    raise :class:`AttemptLost`, and a submit :class:`CouldNotSubmit` (or, if the job was revoked, the child is born REVOKED).
    """

    def __init__(self, app: AppFace, claim: Claim, call: Call, state: State, slot: Slot, loop: asyncio.AbstractEventLoop) -> None:
        self.app: AppFace = app
        """The app whose worker runs the task."""
        self.state: State = state
        """The task's own notes, kept over crashes, pauses and retries."""
        self.attempt: int = claim.record.attempt
        """1, and one more for each retry that the task asked for."""
        self._claim = claim
        self._call = call
        self._slot = slot
        self._loop = loop
        self._over = False
        self._calls: set[concurrent.futures.Future[Any]] = set()
        self._reporter: Reporter | None = None

    @functools.cached_property
    def request(self) -> Request[Any]:
        """The call, with the metadata as it was when this attempt began."""
        record, call = self._claim.record, self._call
        return Request.model_construct(
            id=record.id,
            name=record.name or "",
            args=tuple(call.args),
            kwargs=dict(call.kwargs),
            stack=list(call.stack),
            metadata=loads(record.metadata),
            deadline=_deadline(call),
            queue_name=record.queue,
            kwargs_repr=record.label,
            priority=record.priority,
        )

    @property
    def token(self) -> Token:
        """Proof of owning the job; different for each start, so that others can fence off a stale one too."""
        return self._claim.token

    @property
    def id(self) -> UUID:
        """The job's id: the same for each start, so an idempotency key."""
        return self._claim.token.id

    @property
    def stack(self) -> list[UUID]:
        """The ids of the jobs above this one, outermost first."""
        return self._call.stack

    @functools.cached_property
    def labels(self) -> dict[str, Any]:
        """The job's metadata as this attempt knows it: as it was claimed, with what the attempt has set since."""
        labels: dict[str, Any] = loads(self._claim.record.metadata)
        return labels

    @property
    def trace(self) -> Mapping[str, str]:
        """The trace context that was in force where the job was submitted (``traceparent``, ``tracestate``); empty if there was none."""
        return self._call.trace

    # children

    def _make_request(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request[Any]:
        return self.app.create_request(function, *args, **kwargs)

    async def _submit(self, request: Request[Any], context: Context | None, connection: Any = None) -> Result[Any]:
        result = await self.app.submit(request, context=context or self, **({} if connection is None else {"connection": connection}))
        return self._freeing_slot(result)

    async def _run(self, request: Request[Any], context: Context | None) -> Any:
        return await (await self._submit(request, context))

    async def _submit_many(self, requests: list[Request[Any]], context: Context | None) -> list[Result[Any]]:
        return [self._freeing_slot(result) for result in await self.app.submit_many(requests, context=context or self)]

    def _freeing_slot(self, result: Result[Any]) -> Result[Any]:
        return Result(result.record, _FreeingSlot(self.app.result_backend, self._slot))

    async def gather(self, *results_or_ids: Result[Any] | UUID, return_exceptions: bool = False) -> list[Any]:
        """Wait for several jobs; the slot is free meanwhile. Gives their values in order.

        The first error is raised, unless ``return_exceptions`` puts errors in their places. Raises :class:`ResultLost`.
        """
        backend = self.app.result_backend
        ids = [each for each in results_or_ids if isinstance(each, UUID)]
        known = dict(zip(ids, await backend.get_many(*ids), strict=True)) if ids else {}

        async def value(each: Result[Any] | UUID) -> Any:
            result = known[each] if isinstance(each, UUID) else each
            if result is None:
                raise ResultLost(str(each))
            return await Result(result.record, backend)

        async with self._slot.waiting():
            waits = [asyncio.ensure_future(value(each)) for each in results_or_ids]
            try:
                return await asyncio.gather(*waits, return_exceptions=return_exceptions)
            finally:
                for wait in waits:
                    wait.cancel()

    # services

    @overload
    def get_service(self, service: type[ClassService[R]], *args: Any, **kwargs: Any) -> R: ...
    @overload
    def get_service(self, service: Callable[Concatenate[Context, P], R], *args: P.args, **kwargs: P.kwargs) -> R: ...
    def get_service(self, service: Any, *args: Any, **kwargs: Any) -> Any:
        """What a service gives for these arguments: a function is called, a :class:`ClassService` made once and called."""
        return self.app.services.find(service)(self, *args, **kwargs)

    # the job itself

    async def get_result(self) -> Result[Any]:
        """The job's own result. Do not await it: a task that waits for itself never ends. Raises :class:`ResultLost`."""
        result = await self.app.result_backend.get(self.id)
        if result is None:
            raise ResultLost(self.id)
        return result

    async def get_metadata(self) -> dict[str, Any]:
        """The job's metadata as it is now."""
        return await self.app.result_backend.get_metadata(self.id)

    async def set_metadata(self, /, **metadata: Any) -> None:
        """Merge keys into the job's metadata; ``request.metadata`` stays as it was. Raises :class:`InvalidMetadata`."""
        if not await self.app.result_backend.change_metadata(self.id, metadata, self.token):
            raise AttemptLost(f"the metadata of job {self.id} cannot be written: this attempt no longer owns the job")
        self.labels.update(loads(dump_metadata(metadata)))

    # how far it is

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the task is: so much done, of so much in all if that is known, and a word on what it is doing.

        It may be called as often as you like: at most ten times a second something is written, and what was said last always is, before
        the job ends, pauses or is handed back. A message is cut at 200 characters. An engine that cannot be reached fails no task.
        Raises ValueError or TypeError for what is no finite number from 0 on, and :class:`AttemptLost`.
        """
        await self._progress().say(done, total, message)

    def track(
        self, items: Iterable[T] | AsyncIterable[T], total: float | None = None, message: str | Callable[[T], str | None] | None = None
    ) -> AsyncIterator[T]:
        """The items, one by one, while progress is told: ``async for item in context.track(items)``.

        An item counts as done when the next is asked for. ``total`` is their number if they have one. ``message`` is said beside it; a
        function is asked about each item as it is handed out: ``message="packing {}".format``.
        """
        return track(self._progress(), items, total, message)

    def track_sync(
        self, items: Iterable[T], total: float | None = None, message: str | Callable[[T], str | None] | None = None
    ) -> Iterator[T]:
        """The same for ``def`` tasks: ``for item in context.track_sync(items)``. Raises :class:`AttemptLost` once the job is stopped."""
        return track_sync(self._progress(), items, total, message)

    def _progress(self) -> Reporter:
        if self._reporter is None:

            async def write(data: bytes) -> bool:
                return await self.app.result_backend.write_progress(self.token, data)

            self._reporter = Reporter(self.id, write, self._loop)
            if self._over:
                self._reporter.stop()
        return self._reporter

    async def end_progress(self, *, write: bool) -> bool:
        """Called when the outcome of the attempt is known, before it is stored. False: what was said last could not be written yet."""
        return self._reporter is None or await self._reporter.close(write=write)

    def call_threadsafe(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """For ``def`` tasks: run a coroutine on the app's event loop, and give its result.

        Raises :class:`AttemptLost` once the job has been revoked or taken over, so that the function has a chance to stop.
        """
        if self._ended():
            coroutine.close()
            raise AttemptLost(f"job {self.id} has been stopped")
        if asyncio._get_running_loop() is self._loop:
            coroutine.close()
            raise RuntimeError("call_threadsafe would wait for itself here: it is for def tasks; in an async def task, await the coroutine")
        call = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._calls.add(call)
        if self._ended():  # since it was asked: end() may have missed this call
            call.cancel()
        try:
            return call.result()
        except concurrent.futures.CancelledError:
            if self._ended():
                raise AttemptLost(f"job {self.id} has been stopped") from None
            raise
        finally:
            self._calls.discard(call)

    def _ended(self) -> bool:
        return self._over

    def end(self) -> None:
        """Called when the attempt is over: a function that cannot be stopped is at least not left waiting on the event loop."""
        self._over = True
        if self._reporter is not None:
            self._reporter.stop()
        for call in list(self._calls):
            call.cancel()


class Inherited(Mapping[str, Any]):
    """Those keys of a job's metadata that its children inherit, as they are at each look."""

    def __init__(self, context: Context, keys: Collection[str]) -> None:
        self._context = context
        self._keys = keys

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(key)
        return self._context.labels[key]

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._context.labels if key in self._keys)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _FreeingWatch(Watch):
    """A watch that frees the slot of the job that watches while nothing is told: what it waits for may need one."""

    def __init__(self, slot: Slot, hub: Hub, want: Want, since: str | None) -> None:
        super().__init__(hub, want, since)
        self._slot = slot
        self._keeps_until: float | None = None
        """When nothing has been told for long enough, however often the wait was given up meanwhile."""

    async def __anext__(self) -> Event:
        event = await super().__anext__()
        self._keeps_until = None
        return event

    async def more(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._keeps_until is None:
            self._keeps_until = now + KEEPS_SLOT
        if now < self._keeps_until:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._keeps_until):
                    return await super().more()
        async with self._slot.waiting():
            await super().more()


class _FreeingSlot:
    """A backend whose waits free the slot of the job that waits."""

    def __init__(self, backend: ResultBackend, slot: Slot) -> None:
        self._backend = backend
        self._slot = slot

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def ended(self, id: UUID, *, known: Record | None = None, timeout: float | None = None) -> tuple[Record, bytes | None]:
        async with self._slot.waiting():
            return await self._backend.ended(id, known=known, timeout=timeout)

    def watch(self, id: UUID, *, since: str | None = None) -> Watch:
        return _FreeingWatch(self._slot, self._backend.hub, make_want(id, None, {}), since)


def _deadline(call: Call) -> datetime | timedelta | None:
    if call.latest is not None:
        return from_seconds(call.latest)
    return None if call.timeout is None else timedelta(seconds=min(call.timeout, LONGEST.total_seconds()))
