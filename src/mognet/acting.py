"""What is done to jobs from outside once they are submitted: run again, and revoked, run again or deleted by what they are."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Unpack
from uuid import UUID, uuid4

from mognet.backend import job_id
from mognet.client import Client, write_call
from mognet.codec import Call, load_call, loads
from mognet.context import AppFace
from mognet.engine import Engine
from mognet.exceptions import ConnectionError, CouldNotSubmit, InvalidQuery, MognetError, NotRetryable, ResultLost
from mognet.finding import Filters, read_filters
from mognet.ids import copy_id, is_copy
from mognet.outcomes import rerun
from mognet.records import Query, Record
from mognet.registry import TaskRegistry
from mognet.requests import Request
from mognet.results import Result
from mognet.scope import scope_trace, trace
from mognet.states import FAILED, FINAL, ResultState
from mognet.times import in_seconds

_log = logging.getLogger(__name__)

PAGE = 200
"""Jobs that are found, and then dealt with, at a time."""

AT_ONCE = 16
"""Jobs that are changed side by side."""

_UNFINISHED = frozenset(ResultState) - FINAL
_BY_ITSELF = FAILED - {ResultState.REVOKED}


class _Wish(NamedTuple):
    """How jobs are to run again."""

    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    delay: float = 0.0

    @property
    def replaces(self) -> bool:
        """Whether they are to be called with something else."""
        return self.args is not None or self.kwargs is not None


class Acting(AppFace):
    """The part of an app that changes jobs which are there already."""

    registry: TaskRegistry

    @property
    @abstractmethod
    def engine(self) -> Engine:
        """The engine it is connected to."""

    @abstractmethod
    def _connected_client(self) -> Client: ...

    async def retry(
        self,
        id: UUID | str,
        *,
        as_new: bool = False,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        delay: float | timedelta | None = None,
    ) -> Result[Any]:
        """Run a job that ended FAILURE, REVOKED or INVALID once more.

        Under the same id it begins a new series of attempts: PENDING, without the value, times and latest moment of its first life; or,
        with ``as_new``, a copy begins a life of its own, without a parent, and the job stays as it is. ``args`` and ``kwargs`` replace what
        it was called with, each as a whole.
        Raises :class:`NotRetryable`, :class:`ResultLost`, :class:`InvalidTaskArguments`.
        """
        wish = _wish(args, kwargs, delay)
        (record,) = await self.engine.get([job_id(id)])
        if record is None:
            raise ResultLost(id)
        if not as_new:
            return self.result_backend.result(await self._rerun(record, wish))
        return await self._copy(record, uuid4(), wish)

    async def revoke_many(self, **filters: Unpack[Filters]) -> int:
        """Revoke the unfinished jobs that match (:class:`mognet.finding.Filters`), with all under them; how many matched.

        With ``state``, one that is in no such state any more when its turn comes is left alone.

        May be stopped and repeated, as all that deals with many. Raises :class:`InvalidQuery`, also if there is no filter.
        """
        query = _narrowed(_query("revoke_many", filters), _UNFINISHED)
        others = frozenset(ResultState) - (query.states if query is not None else _UNFINISHED)

        async def act(record: Record) -> bool:
            client = self._connected_client()
            try:
                return (await client.revoke(record.id, tombstone=False, unless=others)).revoked
            except ResultLost:
                return False

        return await self._each(query, act)

    async def retry_many(
        self,
        *,
        as_new: bool = False,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        delay: float | timedelta | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """Run the jobs once more that match (:class:`mognet.finding.Filters`) and ended FAILURE or INVALID; how many will run.

        What was revoked is left alone, unless ``state`` names REVOKED, and what cannot be run again is, too: the log says so. With
        ``as_new`` there is one copy of each job, however often this is called, and such copies are not copied themselves. ``args`` and
        ``kwargs`` replace what each was called with, as in :meth:`retry`; those that do not fit a job's task end the call.
        Raises :class:`InvalidQuery`, also if there is no filter, and :class:`InvalidTaskArguments`.
        """
        query, wish = _query("retry_many", filters), _wish(args, kwargs, delay)
        unfit: list[MognetError] = []
        copies = 0

        async def act(record: Record) -> bool:
            nonlocal copies
            if as_new and is_copy(record.id):
                copies += 1
                return False
            try:
                if not as_new:
                    await self._rerun(record, wish)
                    return True
                # Its id follows from the job's end: whoever repeats this finds it there.
                copy = copy_id(record.id, f"{record.starts}:{record.finished}")
                if await self.result_backend.get(copy) is not None:
                    return False
                await self._copy(record, copy, wish)
                return True
            except (NotRetryable, ResultLost, CouldNotSubmit) as error:
                if isinstance(error.__cause__, ConnectionError):
                    raise
                unfit.append(error)  # one that cannot run must not keep the others from it
                return False

        count = await self._each(_narrowed(query, FAILED if query.states else _BY_ITSELF), act)
        if unfit:
            _log.warning("%d jobs were left as they are; the first: %s", len(unfit), unfit[0])
        if copies:
            _log.warning(
                "%d jobs are copies that such a call has made, and are not copied: without as_new, they run again themselves", copies
            )
        return count

    async def delete_many(self, **filters: Unpack[Filters]) -> int:
        """Delete the jobs that match (:class:`mognet.finding.Filters`), and no others, whatever their state; how many.

        One that runs is stopped; with ``state``, one that is in no such state any more when its turn comes is left alone.
        Raises :class:`InvalidQuery`, also if there is no filter.
        """
        query, count = _query("delete_many", filters), 0
        async for records in self._pages(query):
            count += await self.engine.delete([record.id for record in records], states=query.states)
        return count

    # one job

    async def _rerun(self, record: Record, wish: _Wish) -> Record:
        call = (await self._call(record, wish))._replace(latest=None)
        body = write_call(record.name or "", call, limit=self.config.max_message_size)
        # For the end that was seen only: if the job has run again since, by this or by somebody else's doing, that was what is wanted.
        now = await self.engine.update(record.id, rerun(body, delay=wish.delay, ended=record.finished), unless=())
        if now is None:
            raise ResultLost(record.id)
        if now.done and now.finished == record.finished:
            raise _unfit(now)
        if wish.replaces and await self.engine.body(record.id) not in (body, None):
            raise NotRetryable(record.id, "somebody else has just had it run again, with other arguments")
        return now

    async def _copy(self, record: Record, id: UUID, wish: _Wish) -> Result[Any]:
        call = await self._call(record, wish)
        request: Request[Any] = Request(
            id=id,
            name=record.name or "",
            args=tuple(call.args),
            kwargs=call.kwargs,
            metadata=loads(record.metadata),
            deadline=None if call.timeout is None else timedelta(seconds=call.timeout),
            delay=timedelta(seconds=wish.delay) if wish.delay else None,
            queue_name=record.queue,
            kwargs_repr=None if wish.replaces else record.label,
            priority=record.priority,
        )
        with trace(call.trace or scope_trace()):  # like its metadata, what the job has goes before what is in force here
            return await self.submit(request)

    async def _call(self, record: Record, wish: _Wish) -> Call:
        """What a job is to be called with now. Raises :class:`NotRetryable`, :class:`InvalidTaskArguments`."""
        if record.state not in FAILED or record.name is None:
            raise _unfit(record)
        body = await self.engine.body(record.id)
        if body is None:
            (now,) = await self.engine.get([record.id])  # it may have gone, or have run again, just now
            if now is None:
                raise ResultLost(record.id)
            raise NotRetryable(record.id, "what it was called with is not kept any more") if now.state in FAILED else _unfit(now)
        try:
            call = load_call(body)
        except ValueError as error:
            raise NotRetryable(record.id, f"its call cannot be read: {error}") from error
        if not wish.replaces:
            return call
        call = call._replace(args=call.args if wish.args is None else wish.args, kwargs=call.kwargs if wish.kwargs is None else wish.kwargs)
        task = self.registry.find(record.name)
        if task is not None:
            task.check(call.args, call.kwargs)
        return call

    # many jobs

    async def _each(self, query: Query | None, act: Callable[[Record], Awaitable[bool]]) -> int:
        """Do something to each job that matches, several at once; for how many it worked."""
        gate, count = asyncio.Semaphore(AT_ONCE), 0

        async def one(record: Record) -> bool:
            async with gate:
                return await act(record)

        async for records in self._pages(query):
            # All of a page end, also if one fails, so that nothing goes on behind the caller's back.
            for done in await asyncio.gather(*map(one, records), return_exceptions=True):
                if isinstance(done, BaseException):
                    raise done
                count += done
        return count

    async def _pages(self, query: Query | None) -> AsyncIterator[list[Record]]:
        """The jobs that match, oldest first, so that parents come before their children; those that come meanwhile are left out."""
        if query is None:
            return
        last = [record.stand async for record in self.engine.search(query._replace(newest_first=True, limit=1))]
        page = query._replace(limit=PAGE)
        while last and (records := [record async for record in self.engine.search(page)]):
            yield [record for record in records if record.stand <= last[0]]
            if records[-1].stand >= last[0]:
                break
            page = page._replace(after=records[-1].stand)


def _query(call: str, filters: Filters) -> Query:
    query = read_filters(call, filters)
    if query == Query():
        raise InvalidQuery(f"{call}() without a filter would be about every job: say which, by state=…, metadata=… or another filter")
    return query


def _narrowed(query: Query, states: Collection[ResultState]) -> Query | None:
    """The query for those of its states that are among these; None: there is none."""
    wanted = query.states.intersection(states) if query.states else frozenset(states)
    return query._replace(states=wanted) if wanted else None


def _wish(args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, delay: float | timedelta | None) -> _Wish:
    if args is not None and (isinstance(args, str | bytes) or not isinstance(args, Sequence)):
        raise TypeError(f"args={args!r}: should be a list of arguments")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs={kwargs!r}: should be arguments by name")
    return _Wish(
        None if args is None else list(args), None if kwargs is None else dict(kwargs), 0.0 if delay is None else in_seconds(delay, "delay")
    )


def _unfit(record: Record) -> NotRetryable:
    if record.name is None:
        return NotRetryable(record.id, "it was revoked before it was submitted, so there is nothing to run")
    if record.state is ResultState.SUCCESS:
        return NotRetryable(record.id, "it succeeded; submit a new request instead")
    return NotRetryable(record.id, f"it has not ended, it is {record.state}")
