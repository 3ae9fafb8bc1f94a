"""From a request to a job in line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from mognet.backend import ResultBackend
from mognet.coalesce import Coalescer, Company
from mognet.codec import NO_CALL, Call, dump_call, dump_metadata
from mognet.config import AppConfig
from mognet.context import Context, Inherited
from mognet.control import CONTROL, RevokeMessage, write
from mognet.engine import Engine
from mognet.exceptions import CouldNotSubmit, ImproperlyConfigured, MognetError, NotStorable, ResultLost
from mognet.ids import random_id
from mognet.middleware import MiddlewareStack
from mognet.outcomes import revoke
from mognet.records import Job, new_record
from mognet.registry import Task, TaskRegistry
from mognet.requests import DEFAULT_PRIORITY, LONGEST_NAME, Request, new_request
from mognet.results import Result
from mognet.scope import scope_metadata, scope_trace
from mognet.states import FINAL, ResultState

MAX_LABEL = 1000
"""Characters of a printable form of the arguments that are stored."""

MAX_SHOWN = 64
"""Characters of one argument in it."""


class Client:
    """Submits and revokes: owns routing, ids, parents and limits."""

    def __init__(
        self, engine: Engine, backend: ResultBackend, config: AppConfig, registry: TaskRegistry, middleware: MiddlewareStack
    ) -> None:
        self._engine = engine
        self._backend = backend
        self._config = config
        self._registry = registry
        self._middleware = middleware
        self._submits: Coalescer[Job, bool] = Coalescer(engine.submit)
        self._submit_here: Callable[[Job], bool] | None = getattr(engine, "submit_here", None)
        self._company = Company()

    async def close(self) -> None:
        """Wait until all that was submitted has been sent."""
        await self._submits.drain()

    async def submit(self, request: Request[Any], context: Context | None, connection: Any = None) -> Result[Any]:
        """Store one request and put it in line; those submitted in the same moment go together.

        ``connection``: inside the transaction of the caller's own connection, and by itself.
        """
        [job] = await self._jobs([request], context)
        if connection is None:
            return await self._send(job)
        submit_on = getattr(self._engine, "submit_on", None)
        if submit_on is None:
            raise ImproperlyConfigured("connection= needs an engine on the caller's own database; this one cannot join a transaction")
        [added] = await submit_on(connection, [job])
        return self._answer(job, added, None if added else await self._backend.get(job.id))

    async def submit_call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result[Any]:
        """Submit a call of a task's function. If nobody is to see or change the request, there is none."""
        if self._middleware or scope_metadata():
            return await self.submit(create_request(self._registry, function, args, kwargs), None)
        task = self._registry.of(function)
        task.check(args, kwargs)
        return await self._send(self._plain_job(task, args, kwargs))

    async def _send(self, job: Job) -> Result[Any]:
        alone = not self._company.is_expected() and self._submits.is_idle
        if alone and self._submit_here is not None and self._submit_here(job):
            added = True
        elif alone and self._submit_here is None and self._company.is_same:
            added = await self._sent(self._submits.go_alone(job), job)
        else:
            added = await self._sent(self._submits.add(job), job)
            alone = False
        if alone and self._company.is_waiting():
            await asyncio.sleep(0)
        return self._answer(job, added, None if added else await self._backend.get(job.id))

    async def submit_many(self, requests: Sequence[Request[Any]], context: Context | None) -> list[Result[Any]]:
        """Store requests and put them in line in one round trip, all or none."""
        jobs = await self._jobs(requests, context)
        try:
            added = await self._engine.submit(jobs)
        except MognetError as error:
            raise CouldNotSubmit(f"{len(jobs)} requests could not be submitted: {error}") from error
        if all(added):  # as nearly always
            now = time.time()
            return [self._backend.result(new_record(job, now)) for job in jobs]
        known = [job.id for job, new in zip(jobs, added, strict=True) if not new]
        found = dict(zip(known, await self._backend.get_many(*known), strict=True))
        return [self._answer(job, new, found.get(job.id)) for job, new in zip(jobs, added, strict=True)]

    async def run(self, request: Request[Any], context: Context | None) -> Any:
        """Submit, and wait for the value."""
        [job] = await self._jobs([request], context)
        with self._backend.waiters.expect(job.id, unborn=True) as ended:
            result = await self._send(job)
            if result.done:
                return await result.unwrap(patient=True)
            self._backend.waiters.born(job.id)
            record, value = await ended
        return await self._backend.result(record).unwrap(value, patient=True)

    async def _sent(self, sending: Awaitable[bool], job: Job) -> bool:
        try:
            return await sending
        except MognetError as error:
            raise CouldNotSubmit(f"{job.name} {job.id} could not be submitted: {error}") from error

    def _answer(self, job: Job, added: bool, known: Result[Any] | None) -> Result[Any]:
        # One that is known but not there was submitted before in the caller's own transaction, or has just been deleted.
        if added or (known is None and job.parent_token is None):
            return self._backend.result(new_record(job, time.time()))  # but for the engine's clock
        if known is None:
            raise CouldNotSubmit(f"{job.name} {job.id} was not submitted: the attempt that submits it no longer owns its job {job.parent}")
        return known

    async def _jobs(self, requests: Sequence[Request[Any]], context: Context | None) -> list[Job]:
        """Jobs of requests as they are once they have what they inherit and what the scope gives, and all have been shown to middleware."""
        if context is not None:
            for request in requests:
                request.stack = [*context.stack, context.id]
        if labels := self._labels(context):
            # The caller's own are left as they are, to be submitted elsewhere too.
            requests = [request.model_copy(update={"metadata": {**labels, **request.metadata}}) for request in requests]
        if self._middleware:
            for request in requests:
                await self._middleware.call("on_request_submitting", request, context=context)
        return [self._job(request, context) for request in requests]

    def _labels(self, context: Context | None) -> dict[str, Any]:
        """What requests inherit and what the scope gives."""
        keys = self._config.inherited_metadata
        return {**(Inherited(context, keys) if keys and context is not None else {}), **scope_metadata()}

    def _job(self, request: Request[Any], context: Context | None) -> Job:
        name, args, kwargs, stack, deadline = request.name, request.args, request.kwargs, request.stack, request.deadline
        task = self._registry.find(name)
        latest = deadline.timestamp() if isinstance(deadline, datetime) else None
        timeout = deadline.total_seconds() if isinstance(deadline, timedelta) else None
        return Job(
            request.id,
            name,
            request.queue_name or self._route(name, task),
            self._body(name, args, kwargs, stack, timeout, latest),
            dump_metadata(request.metadata, limit=self._config.max_metadata_size),
            request.priority if "priority" in request.model_fields_set else _priority(task),
            request.due_in(),
            None if context is None else context.id,
            stack[0] if stack else None,
            None if context is None else context.token,
            self._label(args, kwargs) if request.kwargs_repr is None else _cut(request.kwargs_repr, MAX_LABEL),
            self._config.result_ttl.total_seconds(),
            latest,
        )

    def _plain_job(self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job:
        """The job of a request for a task, if nobody wants to see that and nothing else is put into it."""
        name = task.name
        if len(name) > LONGEST_NAME:
            Request(name=name)  # raises an error that says what is wrong
        return Job(
            random_id(),
            name,
            self._route(name, task),
            self._body(name, args, kwargs),
            priority=_priority(task),
            label=self._label(args, kwargs),
            ttl=self._config.result_ttl.total_seconds(),
        )

    def _body(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        stack: Sequence[UUID] = (),
        timeout: float | None = None,
        latest: float | None = None,
    ) -> bytes:
        trace = scope_trace()
        if not (args or kwargs or stack or trace) and timeout is None and latest is None:
            return NO_CALL
        return write_call(name, Call(list(args), kwargs, list(stack), timeout, latest, dict(trace)), limit=self._config.max_message_size)

    def _route(self, name: str, task: Task | None) -> str:
        """The queue where a request does not say: the configured route, else the task's, else the default."""
        return self._config.task_routes.get(name) or (task and task.queue) or self._config.default_task_route

    def _label(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        if not self._config.show_arguments:
            return None
        shown = [repr(arg) for arg in args] + [f"{name}={value!r}" for name, value in kwargs.items()]
        return _cut(", ".join(_cut(each, MAX_SHOWN) for each in shown), MAX_LABEL)

    def create_request(self, function: Callable[..., Any], args: Iterable[Any], kwargs: dict[str, Any]) -> Request[Any]:
        """A request whose arguments have been checked."""
        return create_request(self._registry, function, tuple(args), kwargs)

    async def revoke(
        self, id: UUID, *, force: bool = False, tombstone: bool = True, unless: Collection[ResultState] = FINAL
    ) -> Result[Any]:
        """Mark a job and all below it REVOKED in one step, then tell the nodes that may run some of it.

        An unknown id is marked, too, or, without ``tombstone``, raises :class:`ResultLost`. Nothing is done to a job that is in one of
        the states ``unless``.
        """
        change = revoke(ttl=self._config.result_ttl.total_seconds())._replace(tombstone=tombstone)
        record = await self._engine.update(id, change, unless=() if force else unless)
        if record is None:
            raise ResultLost(id)
        if record.state is ResultState.REVOKED or force:
            await self._engine.publish(CONTROL, write(RevokeMessage(id=id)))
        return self._backend.result(record)


def create_request(registry: TaskRegistry, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request[Any]:
    """A request for a task's function. Raises :class:`InvalidTaskArguments`, :class:`UnknownTask`."""
    task = registry.of(function)
    task.check(args, kwargs)
    if len(task.name) > LONGEST_NAME:
        return Request(name=task.name, args=args, kwargs=kwargs)  # which says what is wrong
    return new_request(task.name, args, kwargs)


def write_call(name: str, call: Call, *, limit: int) -> bytes:
    """The body of a job. Raises :class:`CouldNotSubmit` if it cannot be stored, or has more than ``limit`` bytes."""
    try:
        body = dump_call(call)
    except NotStorable as error:
        raise CouldNotSubmit(f"the arguments of {name} cannot be stored: {error}") from error
    if len(body) > limit:
        raise CouldNotSubmit(
            f"the arguments of {name} take {len(body)} bytes, more than max_message_size={limit}; store them elsewhere and pass a reference"
        )
    return body


def _priority(task: Task | None) -> int:
    """The priority where a request does not say."""
    return DEFAULT_PRIORITY if task is None or task.priority is None else task.priority


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
