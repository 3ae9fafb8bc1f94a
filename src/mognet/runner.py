"""From a claim to an outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from mognet import outcomes
from mognet.codec import Call, dump_error, dumps, load_call
from mognet.config import AppConfig
from mognet.context import Context, request_of
from mognet.exceptions import InvalidTaskArguments, MognetError, NotStorable, Pause, Retry, TooManyRetries, UnknownTask
from mognet.middleware import MiddlewareStack
from mognet.outcomes import Outcome
from mognet.records import Claim, Token
from mognet.registry import Task, TaskRegistry
from mognet.threads import Threads


class Stop(Enum):
    """Why the worker cancels a running attempt."""

    REVOKED = "revoked"
    """Somebody revoked the job: its record has ended already."""
    LOST = "lost"
    """The lease has ended, and the job is not this worker's any more."""
    RELEASE = "release"
    """The worker stops: the job is to be handed back."""


@dataclass(eq=False)
class Attempt:
    """One run of one job on this worker."""

    claim: Claim
    call: Call | None = None
    context: Context | None = None
    stop: Stop | None = None
    """Set before the attempt is cancelled."""
    error: BaseException | None = None
    """What the task raised."""
    settling: bool = False
    """Its outcome is known and on its way: too late to stop it."""
    closing: Callable[[], bool] = lambda: False
    """Whether the whole worker is being cancelled."""
    limit: asyncio.Timeout | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        """Whether it is being stopped."""
        return self.stop is not None or self.closing() or (self.limit is not None and self.limit.expired())

    @property
    def token(self) -> Token:
        """Proof of owning the job."""
        return self.claim.token


MakeContext = Callable[[Attempt, Any], Context]


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
        self._life = {"ttl": config.result_ttl.total_seconds(), "value_ttl": config.result_value_ttl.total_seconds()}

    async def run(self, attempt: Attempt) -> Outcome | None:
        """Run the job. None: there is nothing to settle, because the job is not this worker's any more."""
        gates = (self._crashed_too_often, self._unreadable, self._too_deep, self._too_late)
        for gate in gates:
            outcome = gate(attempt)
            if outcome is not None:
                return outcome
        try:
            task = self._registry.get(attempt.claim.record.name or "")
            args, kwargs = task.arguments(attempt.call.args, attempt.call.kwargs)  # type: ignore[union-attr]
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
        if attempt.call is not None and len(attempt.call.stack) > self._config.max_recursion:
            return self._failed(attempt, RecursionError(f"more than max_recursion={self._config.max_recursion} jobs under each other"))
        return None

    def _too_late(self, attempt: Attempt) -> Outcome | None:
        if attempt.call is not None and attempt.call.latest is not None and attempt.call.latest <= time.time():
            return outcomes.revoked(attempt.token, **self._life)
        return None

    # the call

    async def _call(self, attempt: Attempt, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome | None:
        call, record = attempt.call, attempt.claim.record
        request = request_of(attempt.claim, call.args, call.kwargs, call.stack)  # type: ignore[union-attr]
        context = attempt.context = self._make_context(attempt, request)
        if self._middleware:
            await self._middleware.call("on_task_starting", context)
        if task.takes_context:
            args = (context, *args)
        limit = attempt.limit = asyncio.timeout(self._seconds(attempt, task))
        try:
            async with limit:
                value = await (task.function(*args, **kwargs) if task.is_async else self._threads.run(task.function, *args, **kwargs))
        except asyncio.CancelledError as error:
            return self._cancelled(attempt, error)
        except Pause as pause:
            return outcomes.paused(attempt.token, pause.resume_after or 0.0)
        except Retry as wish:
            return self._retry(attempt, task, wish)
        except TimeoutError as error:
            if limit.expired():
                return outcomes.revoked(attempt.token, **self._life)
            return self._raised(attempt, task, error)
        except (Exception, GeneratorExit, SystemExit) as error:
            return self._raised(attempt, task, error)
        finally:
            context.end()
        if attempt.stop in (Stop.REVOKED, Stop.LOST):
            return None
        return self._returned(attempt, value, record.name)

    def _seconds(self, attempt: Attempt, task: Task) -> float | None:
        call = attempt.call
        latest = None if call is None or call.latest is None else max(0.0, call.latest - time.time())
        limits = [limit for limit in (task.timeout, call and call.timeout, latest) if limit is not None]
        return min(limits, default=None)

    # the verdict

    def _returned(self, attempt: Attempt, value: Any, name: str | None) -> Outcome:
        try:
            data = dumps(value)
            if len(data) > self._config.max_result_size:
                raise NotStorable(
                    f"the value of {len(data)} bytes is more than max_result_size={self._config.max_result_size}; "
                    "store it elsewhere and return a reference"
                )
        except NotStorable as error:
            return self._failed(attempt, NotStorable(f"the value that {name} returned cannot be stored: {error}"))
        return outcomes.succeeded(attempt.token, data, **self._life)

    def _cancelled(self, attempt: Attempt, error: asyncio.CancelledError) -> Outcome | None:
        if attempt.stop is Stop.RELEASE or (attempt.stop is None and attempt.closing()):
            return outcomes.released(attempt.token)
        if attempt.stop is not None:
            return None
        return self._failed(attempt, error)

    def _retry(self, attempt: Attempt, task: Task, wish: Retry) -> Outcome:
        used = attempt.claim.record.attempt
        if task.retries and used > task.retries:
            return self._failed(attempt, wish.__cause__ or TooManyRetries(attempt.token.id, used - 1, task.retries))
        return outcomes.retry(attempt.token, task.backoff.delay(used) if wish.after is None else wish.after)

    def _raised(self, attempt: Attempt, task: Task, error: BaseException) -> Outcome | None:
        if attempt.stop in (Stop.REVOKED, Stop.LOST):
            return None
        used, attempt.error = attempt.claim.record.attempt, error
        if used <= task.retries and isinstance(error, task.retry_on):
            return outcomes.retry(attempt.token, task.backoff.delay(used))
        return self._failed(attempt, error)

    def _failed(self, attempt: Attempt, error: BaseException) -> Outcome:
        attempt.error = error
        return outcomes.failed(attempt.token, dump_error(error), **self._life)

    def _invalid(self, attempt: Attempt, error: BaseException) -> Outcome:
        return outcomes.invalid(attempt.token, dump_error(error), **self._life)
