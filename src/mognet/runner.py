"""From a claim to an outcome."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from mognet import outcomes
from mognet.codec import EMPTY_CALL, Call, dump_error, dumps, load_call
from mognet.config import AppConfig
from mognet.context import Context, Inherited
from mognet.exceptions import InvalidTaskArguments, MognetError, NotStorable, Pause, Retry, TooManyRetries, UnknownTask
from mognet.middleware import MiddlewareStack
from mognet.outcomes import Outcome
from mognet.records import Claim, Token
from mognet.registry import Task, TaskRegistry
from mognet.scope import NOTHING, enter_job
from mognet.threads import Threads


class Stop(Enum):
    """Why the worker cancels a running attempt."""

    REVOKED = "revoked"
    """Somebody revoked the job: its record has ended already."""
    LOST = "lost"
    """The lease has ended, and the job is not this worker's any more."""
    RELEASE = "release"
    """The worker stops: the job is to be handed back."""


@dataclass(eq=False, slots=True)
class Attempt:
    """One run of one job on this worker."""

    claim: Claim
    call: Call = EMPTY_CALL
    context: Context | None = None
    stop: Stop | None = None
    """Set before the attempt is cancelled."""
    error: BaseException | None = None
    """What the task raised."""
    settling: bool = False
    """Its outcome is known and on its way: too late to stop it."""
    closing: Callable[[], bool] = bool  # which says False
    """Whether the whole worker is being cancelled."""
    limit: asyncio.Timeout | None = None
    marks: object = ""
    """What its log lines end with."""
    started: float = field(default_factory=time.monotonic)
    variables: contextvars.Context = field(default_factory=contextvars.copy_context)
    """What its code runs in, to its last line."""

    token: Token = field(init=False)
    """Proof of owning the job."""
    task_name: str = field(init=False)

    def __post_init__(self) -> None:
        self.token = self.claim.token
        self.task_name = self.claim.record.name or "task"

    def __str__(self) -> str:
        return f"{self.task_name}[{self.token.id}]"

    @property
    def over(self) -> bool:
        """Whether it is being stopped."""
        return self.stop is not None or self.closing() or self.expired

    @property
    def expired(self) -> bool:
        """Whether its deadline has passed."""
        return self.limit is not None and self.limit.expired()


MakeContext = Callable[[Attempt], Context]


class Runner:
    """Owns retries, deadlines and the limits on crashes and recursion. Knows nothing of engines: it gives one outcome.

    An attempt passes the gates one by one; the first that has an outcome ends it. Behind the last one, the function is called
    and its end judged.
    """

    def __init__(self, config: AppConfig, registry: TaskRegistry, middleware: MiddlewareStack, make_context: MakeContext) -> None:
        self._config = config
        self._registry = registry
        self._middleware = middleware
        self._make_context = make_context
        self._threads = Threads()
        self._lives = {"ttl": config.result_ttl.total_seconds(), "value_ttl": config.result_value_ttl.total_seconds()}
        self._gates = (self._crashed_too_often, self._unreadable, self._too_deep, self._too_late)

    def close(self) -> None:
        """Let go of the threads of ``def`` tasks; one whose function cannot be stopped ends when that returns."""
        self._threads.close()

    async def run(self, attempt: Attempt) -> Outcome | None:
        """Run the job. None: there is nothing to settle, because the job is not this worker's any more."""
        for gate in self._gates:
            outcome = gate(attempt)
            if outcome is not None:
                return outcome
        try:
            task = self._registry.get(attempt.claim.record.name or "")
            args, kwargs = task.arguments(attempt.call.args, attempt.call.kwargs)
        except (UnknownTask, InvalidTaskArguments) as error:
            return self._invalid(attempt, error)
        except MognetError as error:
            return self._failed(attempt, error)
        return await self._call(attempt, task, args, kwargs)

    # the gates

    def _crashed_too_often(self, attempt: Attempt) -> Outcome | None:
        crashes = attempt.claim.record.crashes - 1
        if crashes > self._config.max_retries:
            return self._failed(attempt, TooManyRetries(attempt.token.id, crashes, self._config.max_retries))
        return None

    def _unreadable(self, attempt: Attempt) -> Outcome | None:
        try:
            attempt.call = load_call(attempt.claim.body)
        except ValueError as error:
            return self._invalid(attempt, MognetError(f"the job's body cannot be read: {error}"))
        return None

    def _too_deep(self, attempt: Attempt) -> Outcome | None:
        if len(attempt.call.stack) > self._config.max_recursion:
            return self._failed(attempt, RecursionError(f"more than max_recursion={self._config.max_recursion} jobs under each other"))
        return None

    def _too_late(self, attempt: Attempt) -> Outcome | None:
        call = attempt.call
        too_late = (call.latest is not None and call.latest <= time.time()) or (call.timeout is not None and call.timeout <= 0)
        return self._revoked(attempt) if too_late else None

    # the call

    async def _call(self, attempt: Attempt, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome | None:
        context = attempt.context = self._make_context(attempt)
        self._enter(context)
        if self._middleware:
            await self._middleware.call("on_task_starting", context)
        if task.takes_context:
            args = (context, *args)
        seconds = self._seconds(attempt, task)
        try:
            if seconds is None:
                value = await self._result(task, args, kwargs)
            else:
                attempt.limit = asyncio.timeout(seconds)
                async with attempt.limit:
                    value = await self._result(task, args, kwargs)
        except GeneratorExit:  # the event loop is gone
            raise
        except BaseException as error:  # whatever it is, it is this attempt's end, and not the worker's
            # Past its deadline a job is revoked, also if it took the cancellation for something else.
            outcome = self._revoked(attempt) if attempt.expired else self._judge(attempt, task, error)
        else:
            outcome = self._revoked(attempt) if attempt.expired else self._returned(attempt, value)
        finally:
            context.end()
        return None if attempt.stop in (Stop.REVOKED, Stop.LOST) else outcome

    def _enter(self, context: Context) -> None:
        """Let the task know what its job hands down, and nothing of where the worker was started."""
        keys = self._config.inherited_metadata
        enter_job(Inherited(context, keys) if keys else NOTHING, context.trace)

    def _result(self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
        if task.is_async:
            result: Awaitable[Any] = task.function(*args, **kwargs)
            return result
        return self._threads.run(task.function, *args, **kwargs)

    def _seconds(self, attempt: Attempt, task: Task) -> float | None:
        call = attempt.call
        if task.timeout is call.timeout is call.latest is None:
            return None
        latest = None if call.latest is None else max(0.0, call.latest - time.time())
        limits = [limit for limit in (task.timeout, call.timeout, latest) if limit is not None]
        return min(limits, default=None)

    # the verdict

    def _returned(self, attempt: Attempt, value: Any) -> Outcome:
        try:
            data = dumps(value)
            if len(data) > self._config.max_result_size:
                raise NotStorable(
                    f"its {len(data)} bytes are more than max_result_size={self._config.max_result_size}; "
                    "store it elsewhere and return a reference"
                )
        except NotStorable as error:
            return self._failed(attempt, NotStorable(f"the value that {attempt.claim.record.name} returned cannot be stored: {error}"))
        return outcomes.succeeded(attempt.token, data, **self._lives)

    def _judge(self, attempt: Attempt, task: Task, error: BaseException) -> Outcome:
        tries = attempt.claim.record.attempt
        attempt.error = error
        if isinstance(error, Pause):
            return outcomes.paused(attempt.token, error.resume_after or 0.0)
        if isinstance(error, Retry):
            return self._retry(attempt, task, error)
        if isinstance(error, asyncio.CancelledError) and (attempt.stop is Stop.RELEASE or attempt.closing()):
            return outcomes.released(attempt.token)
        if tries <= task.retries and isinstance(error, task.retry_on):
            return outcomes.retry(attempt.token, task.backoff.delay(tries))
        return self._failed(attempt, error)

    def _retry(self, attempt: Attempt, task: Task, wish: Retry) -> Outcome:
        tries = attempt.claim.record.attempt
        if task.retries and tries > task.retries:
            return self._failed(attempt, wish.__cause__ or TooManyRetries(attempt.token.id, tries - 1, task.retries))
        return outcomes.retry(attempt.token, task.backoff.delay(tries) if wish.after is None else wish.after)

    def _failed(self, attempt: Attempt, error: BaseException) -> Outcome:
        attempt.error = error
        return self._ended(outcomes.failed, attempt, dump_error(error, limit=self._config.max_result_size))

    def _revoked(self, attempt: Attempt) -> Outcome:
        return self._ended(outcomes.revoked, attempt)

    def _invalid(self, attempt: Attempt, error: BaseException) -> Outcome:
        return self._ended(outcomes.invalid, attempt, dump_error(error, limit=self._config.max_result_size))

    def _ended(self, fate: Callable[..., Outcome], attempt: Attempt, *value: bytes) -> Outcome:
        return fate(attempt.token, *value, **self._lives)
