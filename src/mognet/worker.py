"""A node: claims jobs, runs them side by side, and brings each to its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar, cast
from uuid import UUID

from mognet.backend import ResultBackend
from mognet.backoff import Backoff
from mognet.coalesce import Coalescer
from mognet.codec import dump_error
from mognet.config import AppConfig
from mognet.context import AppFace, Context
from mognet.control import CONTROL, NodeStatus, RevokeMessage, Status, StatusQuery, read_message, write
from mognet.engine import Engine, OpenEngine
from mognet.exceptions import ConnectionError, MognetError, NotStorable
from mognet.janitor import keep_tidy
from mognet.keeper import LeaseKeeper
from mognet.logs import JobInfo, install, job_logs
from mognet.middleware import MiddlewareStack
from mognet.outcomes import Again, Change, Outcome, failed, resume, revoke, suspend
from mognet.records import Claim, Record, Signal, Token
from mognet.registry import TaskRegistry
from mognet.runner import Attempt, Runner, Stop
from mognet.slots import Slots
from mognet.state import State
from mognet.states import ResultState

WAIT = 5.0
"""Seconds that one claim waits for work."""

PATIENCE = 5.0
"""Seconds that a cancelled task has to end when the worker stops."""

_log = logging.getLogger(__name__)
_task_log = logging.getLogger("mognet.task")

_RECONNECT = Backoff(base=0.1, cap=30.0)
_ENDS = {
    ResultState.SUCCESS: "succeeded",
    ResultState.FAILURE: "failed",
    ResultState.REVOKED: "revoked",
    ResultState.INVALID: "invalid",
}

R = TypeVar("R")


class Worker:
    """Runs the jobs of some queues until it is told to stop.

    ``running_tasks`` maps the ids of the jobs it runs to their attempts.
    """

    def __init__(
        self,
        app: AppFace,
        engine: Engine,
        open_engine: OpenEngine,
        registry: TaskRegistry,
        middleware: MiddlewareStack,
        backend: ResultBackend,
        queues: Collection[str],
    ) -> None:
        self.running_tasks: dict[UUID, Attempt] = {}
        self.burst = False
        """Stop when nothing is due and nothing runs."""
        self.queues = sorted(queues)
        self._app = app
        self._config: AppConfig = app.config
        self._engine = engine
        self._open_engine = open_engine
        self._middleware = middleware
        self._backend = backend
        self._runner = Runner(app.config, registry, middleware, self._context)
        self._settles: Coalescer[Outcome, Record | None] = Coalescer(self._settle_batch, limit=500)
        self._slots = Slots(app.config.minimum_concurrency, app.config.maximum_concurrency)
        self._tasks: dict[Attempt, asyncio.Task[None]] = {}
        self._places: dict[Attempt, _Place] = {}
        self._taken = 0
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._grace_over = asyncio.Event()
        self._last_contact = time.monotonic()

    # life

    async def run(self) -> None:
        """Work until :meth:`stop`, ``max_tasks`` or, with ``burst``, until there is nothing to do. Then hand back what runs."""
        install()
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._main = cast("asyncio.Task[Any]", asyncio.current_task())
        lease = self._config.lease.total_seconds()
        self._keeper = LeaseKeeper(self._open_engine, lease=lease, max_block=self._config.max_block.total_seconds(), lost=self._lost)
        self._keeper.start()
        sweeps = keep_tidy(self._engine, interval=min(self._config.sweep_interval.total_seconds(), lease / 3))
        helpers = [loop.create_task(sweeps, name="mognet janitor"), loop.create_task(self._listen(), name="mognet control")]
        try:
            await self._consume()
        finally:
            await self._hand_back()
            for helper in helpers:
                helper.cancel()
            await asyncio.wait(helpers)
            await self._keeper.stop()
            self._runner.close()
            self._stopped.set()

    async def stop(self, grace: float | None = None) -> None:
        """Claim no more; let running tasks finish for ``grace`` seconds (default: ``shutdown_grace``), then hand them back.

        A second call with a shorter grace shortens it. Returns when the worker has stopped.
        """
        self._stopping.set()
        seconds = self._config.shutdown_grace.total_seconds() if grace is None else grace
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stopped.wait()
        self._grace_over.set()
        await self._stopped.wait()

    @property
    def ready(self) -> bool:
        """Whether it has been in touch with its engine lately, so that it would get work."""
        return not self._stopping.is_set() and time.monotonic() - self._last_contact < WAIT * 3

    async def _consume(self) -> None:
        stopping = asyncio.create_task(self._stopping.wait(), name="mognet stop signal")
        try:
            failures = 0
            while not self._stopping.is_set():
                limit = self._claimable()
                if limit == 0:
                    if self._taken == self._config.max_tasks:
                        break
                    await self._first(stopping, self._slots.changed())
                    continue
                try:
                    claimed = await self._first(stopping, self._claim(limit))
                    failures = 0
                except ConnectionError as error:
                    failures += 1
                    delay = _RECONNECT.delay(failures)
                    _log.warning("no work can be claimed, trying again in %.1f s: %s", delay, error)
                    await self._first(stopping, asyncio.sleep(delay))
                    continue
                if self.burst and not claimed:
                    if not self._tasks:
                        break
                    await self._first(stopping, self._slots.changed())
        finally:
            stopping.cancel()

    def _claimable(self) -> int:
        free = self._slots.free()
        return free if self._config.max_tasks is None else min(free, self._config.max_tasks - self._taken)

    async def _claim(self, limit: int) -> int:
        claims = await self._engine.claim(
            self._config.node_id,
            self.queues,
            limit,
            lease=self._config.lease.total_seconds(),
            wait=0.0 if self.burst else WAIT,
        )
        self._last_contact = time.monotonic()
        for claim in claims:
            self._start(claim)
        return len(claims)

    @staticmethod
    async def _first(stopping: asyncio.Task[Any], work: Coroutine[Any, Any, Any]) -> Any:
        """The result of the work; None, and the work cancelled, when the worker is to stop first."""
        task = asyncio.create_task(work)
        try:
            await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        return None if task.cancelled() else task.result()

    async def _hand_back(self) -> None:
        """Wait for what runs, as long as the grace lasts; release the rest."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            self._grace_over.set()
        while self._tasks and not self._grace_over.is_set():
            over = asyncio.ensure_future(self._grace_over.wait())
            await asyncio.wait([over, *self._tasks.values()], return_when=asyncio.FIRST_COMPLETED)
            over.cancel()
        for attempt in [attempt for attempt in self._tasks if not attempt.settling]:
            self._cancel(attempt, Stop.RELEASE)
        if self._tasks:
            _, stubborn = await asyncio.wait(list(self._tasks.values()), timeout=PATIENCE)
            for task in stubborn:
                _log.error("%s does not stop: it is left behind, and its lease runs out", task.get_name())

    # one job

    def _start(self, claim: Claim) -> None:
        attempt = Attempt(claim, closing=self._closing)
        self._taken += 1
        self._places[attempt] = _Place(attempt, self._engine, self._slots)
        self._keeper.add(attempt.token, f"{claim.record.name}[{claim.record.id}]")
        self.running_tasks[claim.record.id] = attempt
        self._tasks[attempt] = self._loop.create_task(self._work(attempt), name=f"{claim.record.name}[{claim.record.id}]")

    def _closing(self) -> bool:
        return self._main.cancelling() > 0

    async def _work(self, attempt: Attempt) -> None:
        record = attempt.claim.record
        try:
            with job_logs(JobInfo(str(record.id), record.name, record.queue, record.attempt, self._config.node_id)):
                await self._work_logged(attempt)
        finally:
            self._keeper.discard(attempt.token)
            self._tasks.pop(attempt, None)
            if self.running_tasks.get(record.id) is attempt:
                del self.running_tasks[record.id]
            self._give_slot_back(attempt)
            if self._middleware:
                await self._middleware.call("on_running_task_count_changed", len(self.running_tasks))

    async def _work_logged(self, attempt: Attempt) -> None:
        record = attempt.claim.record
        if _task_log.isEnabledFor(logging.INFO):
            waited = max(0.0, time.time() - record.due)
            _task_log.info("%s[%s] started, attempt %d, waited %.3f s", record.name, record.id, record.attempt, waited)
        if self._middleware:
            await self._middleware.call("on_running_task_count_changed", len(self.running_tasks))
        outcome = await self._runner.run(attempt)
        attempt.settling = True
        self._give_slot_back(attempt)
        settled = await self._settle(attempt, outcome)
        self._log_end(attempt, outcome, settled)
        if self._middleware and settled is not None and settled.done:
            await self._middleware.call("on_task_completed", self._backend.result(settled), context=attempt.context)

    def _give_slot_back(self, attempt: Attempt) -> None:
        if attempt in self._places:
            self._places.pop(attempt).leave()

    async def _settle(self, attempt: Attempt, outcome: Outcome | None) -> Record | None:
        """Bring the outcome into the record. None: the job is not this worker's any more."""
        if outcome is None:
            record = (await self._engine.get([attempt.token.id]))[0]
            return record if record is not None and record.state is ResultState.REVOKED else None
        if outcome.state is ResultState.REVOKED:
            return await self._end_by_deadline(outcome)
        return await self._settles.add(outcome)

    async def _end_by_deadline(self, outcome: Outcome) -> Record | None:
        """Past its deadline a job takes its descendants along, like any revoked job."""
        change = revoke(ttl=outcome.ttl)._replace(token=outcome.token, tombstone=False)
        record = await self._insist(lambda: self._engine.update(outcome.token.id, change))
        if record is not None:
            await self._engine.publish(CONTROL, write(RevokeMessage(id=outcome.token.id)))
        return record

    async def _settle_batch(self, outcomes: list[Outcome]) -> Sequence[Record | None]:
        try:
            return await self._insist(lambda: self._engine.settle(outcomes))
        except Exception as error:
            if len(outcomes) > 1:
                return [(await self._settle_batch([outcome]))[0] for outcome in outcomes]
            _log.exception("the outcome of job %s cannot be stored", outcomes[0].token.id)
            reason = NotStorable(f"the job's outcome cannot be stored: {error}")
            return await self._engine.settle(
                [failed(outcomes[0].token, dump_error(reason), ttl=outcomes[0].ttl, value_ttl=outcomes[0].value_ttl)]
            )

    async def _insist(self, operation: Callable[[], Awaitable[R]]) -> R:
        """Repeat a repeatable operation until the engine can be reached: what a task has done is not thrown away."""
        failures = 0
        while True:
            try:
                return await operation()
            except ConnectionError as error:
                failures += 1
                delay = _RECONNECT.delay(failures)
                _log.warning("an outcome cannot be stored, trying again in %.1f s: %s", delay, error)
                await asyncio.sleep(delay)

    def _log_end(self, attempt: Attempt, outcome: Outcome | None, record: Record | None) -> None:
        if record is None:
            word = "lost: this worker's claim has ended, what the task did is discarded"
        elif outcome is not None and outcome.again is not None:
            word = {Again.RETRY: f"retrying in {outcome.delay:.1f} s", Again.PAUSE: "paused", Again.RELEASE: "handed back"}[outcome.again]
        else:
            word = _ENDS[record.state]
        took = time.monotonic() - attempt.started
        level = logging.ERROR if record is not None and record.state is ResultState.FAILURE else logging.INFO
        error = attempt.error if level == logging.ERROR or (outcome is not None and outcome.again is Again.RETRY) else None
        job = attempt.claim.record
        _task_log.log(level, "%s[%s] %s, attempt %d, took %.3f s", job.name, job.id, word, job.attempt, took, exc_info=error)

    def _context(self, attempt: Attempt) -> Context:
        state = State(self._engine, attempt.token, ttl=self._config.state_ttl.total_seconds())
        return Context(self._app, attempt.claim, attempt.call, state, self._places[attempt], self._loop)

    # stopping what runs

    def _cancel(self, attempt: Attempt, why: Stop) -> None:
        if attempt.settling:
            return
        attempt.stop = attempt.stop or why
        self._tasks[attempt].cancel(f"mognet: {why.value}")

    def _lost(self, tokens: Collection[Token]) -> None:
        """Called by the keeper, in this loop, again and again while such an attempt still runs."""
        for attempt in [attempt for attempt in self._tasks if attempt.token in tokens]:
            self._cancel(attempt, Stop.LOST)

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                async with self._engine.subscribe(CONTROL) as signals:
                    failures = 0
                    async for signal in signals:
                        await self._obey(signal)
            except ConnectionError as error:
                failures += 1
                _log.warning("control signals cannot be received, trying again: %s", error)
                await asyncio.sleep(_RECONNECT.delay(failures))

    async def _obey(self, signal: Signal) -> None:
        message = read_message(signal.body)
        if isinstance(message, RevokeMessage):
            # The signal is a hint: the engine says which of the jobs below have really been lost.
            below = [a.token for a in self._tasks if a.token.id == message.id or message.id in a.call.stack]
            if below:
                held = await self._engine.extend(below, self._config.lease.total_seconds())
                for attempt in [a for a in self._tasks if a.token in below and a.token not in held]:
                    self._cancel(attempt, Stop.REVOKED)
        elif isinstance(message, StatusQuery):
            status = Status(running_request_ids=list(self.running_tasks), queues=self.queues, slots=self._slots.total)
            await self._engine.publish(message.reply_to, write(NodeStatus(node_id=self._config.node_id, payload=status)))


class _Place:
    """A running job's place among the slots."""

    def __init__(self, attempt: Attempt, engine: Engine, slots: Slots) -> None:
        self._attempt = attempt
        self._engine = engine
        self._slots = slots
        self._waits = 0
        self._has_slot = True
        slots.start()

    def leave(self) -> None:
        """The job is over here."""
        self._slots.end(waiting=not self._has_slot)

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """See :class:`mognet.context.Slot`. Only the first of several waits at once gives the slot away, the last takes it back."""
        self._waits += 1
        if self._waits == 1:
            self._has_slot = False
            self._slots.pause()
            await self._note(suspend(self._attempt.token))
        try:
            yield
        finally:
            self._waits -= 1
            # An attempt that is being stopped does not go on; one whose own code gave up waiting does.
            if self._waits == 0 and not self._attempt.over:
                await self._slots.go_on()
                self._has_slot = True
                await self._note(resume(self._attempt.token))

    async def _note(self, change: Change) -> None:
        try:
            await self._engine.update(self._attempt.token.id, change)
        except MognetError as error:
            _log.warning("job %s is not shown as %s: %s", self._attempt.token.id, change.state, error)
