"""A node: claims jobs, runs them side by side, and brings each to its end."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast
from uuid import UUID

from mognet.backend import ResultBackend
from mognet.claiming import RECONNECT, WAIT, Claimer, complain
from mognet.config import AppConfig
from mognet.context import AppFace, Context
from mognet.control import CONTROL, NodeStatus, RevokeMessage, Status, StatusQuery, read_message, write
from mognet.engine import Engine, OpenEngine
from mognet.exceptions import MognetError
from mognet.janitor import keep_tidy
from mognet.joblogs import JobLogs
from mognet.keeper import LeaseKeeper
from mognet.logs import install, mark_logs
from mognet.middleware import MiddlewareStack
from mognet.outcomes import Again, Outcome, released
from mognet.progress import EVERY
from mognet.records import Claim, Record, Signal, Token
from mognet.registry import TaskRegistry
from mognet.runner import Attempt, Runner, Stop
from mognet.settling import Settler
from mognet.slots import Place, Slots
from mognet.state import State
from mognet.states import ResultState

CLAIM_PATIENCE = 0.5
"""Seconds that a claim that was cancelled has to be undone before running jobs are stopped."""

PATIENCE = 5.0
"""Seconds that a cancelled task has to end when the worker stops, and an engine to take what is then still to be stored."""

_log = logging.getLogger(__name__)
_task_log = logging.getLogger("mognet.task")

_ENDS = {
    ResultState.SUCCESS: "succeeded",
    ResultState.FAILURE: "failed",
    ResultState.REVOKED: "revoked",
    ResultState.INVALID: "invalid",
}
_NOT_OURS = (Stop.REVOKED, Stop.LOST)


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
        self.burst: bool = False
        """Stop when nothing is due and nothing runs."""
        self.queues: list[str] = sorted(queues)
        self._app = app
        self._config: AppConfig = app.config
        self._lease = app.config.lease.total_seconds()
        self._state_ttl = app.config.state_ttl.total_seconds()
        self._declared = app.config.inherited_metadata | app.config.searchable_metadata
        self._engine = engine
        self._open_engine = open_engine
        self._middleware = middleware
        self._backend = backend
        self._runner = Runner(app.config, registry, middleware, self._context)
        self._settler = Settler(engine, app.config)
        self._logs = JobLogs(engine, keep=app.config.keep_logs, prints=app.config.keep_prints)
        self._slots = Slots(app.config.minimum_concurrency, app.config.maximum_concurrency)
        self._tasks: dict[Attempt, asyncio.Task[None]] = {}
        self._places: dict[Attempt, Place] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._news = asyncio.Event()
        """Something that the worker's end waits for may have happened."""
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._helpers: list[asyncio.Task[None]] = []
        self._grace_over = False
        self._interrupted = False
        self._last_contact = time.monotonic()

    # life

    async def run(self) -> None:
        """Work until :meth:`stop`, ``max_tasks`` or, with ``burst``, until there is nothing to do. Then hand back what runs."""
        install()
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._main = cast("asyncio.Task[Any]", asyncio.current_task())
        self._cancelled_before = self._main.cancelling()
        max_block = self._config.max_block.total_seconds()
        self._keeper = LeaseKeeper(self._open_engine, lease=self._lease, max_block=max_block, lost=self._lost)
        self._keeper.start()
        interval = min(self._config.sweep_interval.total_seconds(), self._lease / 3)
        sweeps = keep_tidy(self._engine, interval=interval, swept=self._in_touch)
        self._helpers = [
            loop.create_task(sweeps, name="mognet janitor"),
            loop.create_task(self._listen(), name="mognet control"),
            loop.create_task(self._logs.run(), name="mognet job logs"),
        ]
        try:
            await self._consume()
        finally:
            try:
                await self._hand_back()
                await self._end()
            finally:
                self.be_over()
        if self._interrupted:
            raise asyncio.CancelledError

    async def stop(self, grace: float | None = None) -> None:
        """Claim no more; let running tasks finish for ``grace`` seconds (default: ``shutdown_grace``), then hand them back.

        A second call with a shorter grace shortens it. Returns when the worker has stopped.
        """
        self.begin_to_stop()
        seconds = self._config.shutdown_grace.total_seconds() if grace is None else grace
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stopped.wait()
        self._end_grace()
        await self._stopped.wait()

    def begin_to_stop(self) -> None:
        """Claim no more."""
        self._stopping.set()

    def be_over(self) -> None:
        """It has stopped, or will never have run: whoever waits for that goes on."""
        self._stopped.set()

    @property
    def ready(self) -> bool:
        """Whether it has been in touch with its engine lately, so that it would get work."""
        return not self._stopping.is_set() and time.monotonic() - self._last_contact < WAIT * 3

    def _in_touch(self) -> None:
        self._last_contact = time.monotonic()

    # claiming

    async def _consume(self) -> None:
        claimer = Claimer(self._engine, self._config, self.queues, self._slots, self._idle, lambda: len(self._tasks), self._claimed)
        claiming = self._loop.create_task(claimer.run(self._stopping, burst=self.burst), name="mognet claims")
        stopping = self._loop.create_task(self._stopping.wait(), name="mognet stop signal")
        try:
            await asyncio.wait([claiming, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            claiming.cancel()
            await asyncio.wait([claiming], timeout=CLAIM_PATIENCE)
        if not claiming.done():  # its engine does not answer: what runs is stopped meanwhile
            self._helpers.append(claiming)
        elif not claiming.cancelled():
            claiming.result()

    def _claimed(self, claims: Sequence[Claim]) -> None:
        self._in_touch()
        if claims:
            self._idle.clear()
        for claim in claims:
            self._start(claim)

    # the end

    async def _hand_back(self) -> None:
        """Wait for what runs, as long as the grace lasts; stop and release the rest."""
        self._stopping.set()
        if self._closing():
            self._end_grace()
        await self._until(lambda: not self._tasks or self._grace_over)
        for attempt in list(self._tasks):
            self._cancel(attempt, Stop.RELEASE)
        await self._until(lambda: not self._tasks, PATIENCE)
        for attempt in [attempt for attempt in self._tasks if not attempt.settling]:
            self._end_by_force(attempt)
        await self._until(lambda: all(not attempt.settling for attempt in self._tasks), PATIENCE)
        self._settler.give_up()
        for task in self._tasks.values():
            task.cancel()
        await self._until(lambda: not self._tasks, 1.0)

    async def _end(self) -> None:
        ending = [*self._helpers, self._loop.create_task(self._keeper.stop())]
        for helper in self._helpers:
            helper.cancel()
        for each in ending:
            each.add_done_callback(lambda _: self._news.set())
        self._runner.close()
        await self._until(lambda: all(each.done() for each in ending), PATIENCE)

    def _end_grace(self) -> None:
        self._grace_over = True
        self._news.set()

    async def _until(self, done: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait, at most so long. A cancellation of the worker meanwhile ends the grace, and is passed on when all is handed back."""
        until = None if seconds is None else self._loop.time() + seconds
        while not done():
            self._news.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._news.wait()
            except TimeoutError:
                return
            except asyncio.CancelledError:
                self._interrupted = True
                self._end_grace()

    def _end_by_force(self, attempt: Attempt) -> None:
        """A coroutine that goes on after it was cancelled would keep the event loop, and so the process, from ending."""
        task = self._tasks[attempt]
        coroutine = cast("Coroutine[Any, Any, None]", task.get_coro())
        with suppress(BaseException):  # whatever it does about it
            attempt.variables.run(coroutine.close)
        if inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED:
            _log.error("%s did not stop within %.0f s of being cancelled, and is ended by force", attempt, PATIENCE)
            task.cancel()
        else:
            _log.error("%s cannot be stopped: it is left behind, and its lease runs out", attempt)

    # one job

    def _start(self, claim: Claim) -> None:
        attempt = Attempt(claim, closing=self._closing)
        self._places[attempt] = Place(attempt.token, self._engine, self._slots, lambda: attempt.over)
        self._keeper.add(attempt)
        self.running_tasks[attempt.token.id] = attempt
        self._run_task(attempt, self._work(attempt))

    def _run_task(self, attempt: Attempt, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[attempt] = self._loop.create_task(coroutine, name=attempt.task_name, context=attempt.variables)
        task.add_done_callback(self._ended)

    def _closing(self) -> bool:
        return self._main.cancelling() > self._cancelled_before

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task has ended whose attempt's end was not on its way."""
        attempt = next((attempt for attempt, each in self._tasks.items() if each is task), None)
        if attempt is None:
            return
        self._give_slot_back(attempt)
        self._leave(attempt)
        error = None if task.cancelled() else task.exception()
        if not attempt.settling and attempt.stop not in _NOT_OURS:
            # Cancelled before its first step, or ended by force: nobody has decided its end.
            coroutine.close() if (coroutine := task.get_coro()) is not None else None
            self._run_task(attempt, self._release(attempt))
            return
        if error is not None:
            _log.error("%s ended in an unexpected way", attempt, exc_info=error)
        self._forget(attempt)

    def _leave(self, attempt: Attempt) -> None:
        """The attempt is over, and its end is stored or left to others."""
        self._keeper.discard(attempt)
        id = attempt.token.id
        running = self.running_tasks.pop(id, attempt)
        if running is not attempt:  # a later one of the same job
            self.running_tasks[id] = running

    def _forget(self, attempt: Attempt) -> None:
        """Nothing is left to be done for it."""
        self._tasks.pop(attempt, None)
        if not self._tasks:
            self._idle.set()
        self._slots.notify()
        self._news.set()

    def _give_slot_back(self, attempt: Attempt) -> None:
        place = self._places.pop(attempt, None)
        if place is not None:
            place.leave()

    async def _begin(self, attempt: Attempt) -> None:
        """Under a task factory that starts tasks at once, wait until this one is known."""
        if self._tasks.get(attempt) is not asyncio.current_task():
            await asyncio.sleep(0)

    async def _work(self, attempt: Attempt) -> None:
        await self._begin(attempt)
        attempt.marks = mark_logs(attempt.claim.record, self._declared)
        self._logs.open(attempt.token)
        outcome = await self._outcome(attempt)
        attempt.settling = True
        self._give_slot_back(attempt)
        await self._last_words(attempt, outcome)
        if outcome is None or outcome.state is ResultState.REVOKED:
            await self._settle_alone(attempt, outcome)
        else:
            self._settle(attempt, outcome)

    async def _outcome(self, attempt: Attempt) -> Outcome | None:
        """What became of the attempt, whatever happens. None: the job is not this worker's any more."""
        record = attempt.claim.record
        try:
            if not (place := self._places[attempt]).has_slot:
                await place.begin()
            if _task_log.isEnabledFor(logging.INFO):
                waited = max(0.0, time.time() - record.due)
                line = "%s[%s] started, attempt %d, waited %.3f s%s"
                _task_log.info(line, record.name, record.id, record.attempt, waited, attempt.marks)
            if self._middleware:
                await self._middleware.call("on_running_task_count_changed", len(self.running_tasks))
            return await self._runner.run(attempt)
        except asyncio.CancelledError:  # before its function was called
            return None if attempt.stop in _NOT_OURS else released(attempt.token)
        except Exception as error:
            _log.exception("job %s could not be run", record.id)
            attempt.error = error
            return self._settler.failure(attempt.token, error)

    async def _last_words(self, attempt: Attempt, outcome: Outcome | None) -> None:
        """Store what the attempt logged and said last. Nothing that happens here keeps its end from being stored."""
        if self._tasks[attempt].cancelling():
            with suppress(asyncio.CancelledError):  # of the task's own making, and not received yet
                await asyncio.sleep(0)
        try:
            if self._config.keep_logs:
                await self._logs.close()
            if attempt.context is not None:
                # Where the engine cannot be reached, the job's end would have to wait as well.
                while not await attempt.context.end_progress(write=outcome is not None) and not self._stopping.is_set():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(EVERY):
                            await self._stopping.wait()
        except asyncio.CancelledError:  # by what the task has left behind, or by the end of the loop
            _log.debug("the last words of %s are cut short", attempt)
        except Exception:
            _log.exception("the last words of %s cannot be stored", attempt)

    async def _release(self, attempt: Attempt) -> None:
        await self._begin(attempt)
        attempt.settling = True
        outcome = released(attempt.token)
        await self._last_words(attempt, outcome)
        self._settle(attempt, outcome)

    # its end

    def _settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """Bring the outcome into the record, together with others. Its task ends, and is not woken again."""
        self._settler.settle(outcome, partial(self._settled, attempt, outcome), attempt.variables)
        self._tasks[attempt].remove_done_callback(self._ended)

    async def _settle_alone(self, attempt: Attempt, outcome: Outcome | None) -> None:
        """Bring the end of a job that is revoked into its record, or look whether somebody else has."""
        end: Record | MognetError | None
        try:
            if outcome is None:
                (found,) = await self._engine.get([attempt.token.id])
                end = found if found is not None and found.state is ResultState.REVOKED else None
            else:
                end = await self._settler.end_by_deadline(outcome)
        except MognetError as error:
            end = error
        self._settled(attempt, outcome, end)

    def _settled(self, attempt: Attempt, outcome: Outcome | None, end: Record | Exception | None) -> None:
        """It is in the record, or cannot be stored. None: the job is not this worker's any more."""
        try:
            self._log_end(attempt, outcome, end)
        finally:
            self._leave(attempt)
            if self._middleware:
                task = self._tasks[attempt] = asyncio.Task(self._call_hooks(attempt, end), loop=self._loop, context=attempt.variables)
                task.add_done_callback(lambda _: self._forget(attempt))
            else:
                self._forget(attempt)

    async def _call_hooks(self, attempt: Attempt, end: Record | Exception | None) -> None:
        if isinstance(end, Record) and end.done:
            await self._middleware.call("on_task_completed", self._backend.result(end), context=attempt.context)
        await self._middleware.call("on_running_task_count_changed", len(self.running_tasks))

    def _log_end(self, attempt: Attempt, outcome: Outcome | None, end: Record | Exception | None) -> None:
        job = attempt.claim.record
        if isinstance(end, Exception):
            unexpected = None if isinstance(end, MognetError) else end
            line = "%s[%s] ended, but its end is not stored, and it may run again: %s"
            _task_log.error(line, job.name, job.id, end, exc_info=unexpected)
            return
        level = logging.ERROR if end is not None and end.state is ResultState.FAILURE else logging.INFO
        if not _task_log.isEnabledFor(level):
            return
        if end is None:
            word = "lost: this worker's claim has ended, what the task did is discarded"
        elif outcome is not None and outcome.again is not None:
            word = {Again.RETRY: f"retrying in {outcome.delay:.1f} s", Again.PAUSE: "paused", Again.RELEASE: "handed back"}[outcome.again]
        else:
            word = _ENDS[end.state]
        took = time.monotonic() - attempt.started
        error = attempt.error if level == logging.ERROR or (outcome is not None and outcome.again is Again.RETRY) else None
        line = "%s[%s] %s, attempt %d, took %.3f s%s"
        _task_log.log(level, line, job.name, job.id, word, job.attempt, took, attempt.marks, exc_info=error)

    def _context(self, attempt: Attempt) -> Context:
        state = State(self._engine, attempt.token, ttl=self._state_ttl, limit=self._config.max_result_size)
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
            except Exception as error:
                failures += 1
                complain("control signals cannot be received, trying again", failures, error)
                await asyncio.sleep(RECONNECT.delay(failures))

    async def _obey(self, signal: Signal) -> None:
        message = read_message(signal.body)
        if isinstance(message, RevokeMessage):
            # The signal is a hint: the engine says which of the jobs below have really been lost.
            below = [a.token for a in self._tasks if a.token.id == message.id or message.id in a.call.stack]
            if below:
                held = await self._engine.extend(below, self._lease)
                for attempt in [a for a in self._tasks if a.token in below and a.token not in held]:
                    self._cancel(attempt, Stop.REVOKED)
        elif isinstance(message, StatusQuery):
            status = Status(running_request_ids=list(self.running_tasks), queues=self.queues, slots=self._slots.total)
            await self._engine.publish(message.reply_to, write(NodeStatus(node_id=self._config.node_id, payload=status)))
