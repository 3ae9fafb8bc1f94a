"""Every error that mognet raises.

::

    MognetError
    ├── ImproperlyConfigured
    ├── CouldNotSubmit
    │   └── InvalidMetadata            (also a ValueError)
    ├── ConnectionError                (also the built-in ConnectionError)
    │   ├── NotConnected
    │   └── ServerStarting
    ├── BrokerError
    │   └── QueueNotFound
    ├── ResultError
    │   ├── ResultNotReady
    │   ├── ResultFailed
    │   │   └── Revoked
    │   ├── ResultValueLost
    │   ├── ResultLost
    │   └── NotRetryable
    ├── InvalidQuery                   (also a ValueError)
    │   └── InvalidCursor
    ├── NotStorable                    (also a ValueError)
    ├── AttemptLost
    ├── TooManyRetries
    ├── InvalidTaskArguments           (also a ValueError)
    ├── UnknownTask
    └── TaskError

Errors that travel with a job keep all they know in ``args``, as plain JSON, and read it from there: so they are the same
on whichever machine they are rebuilt.
"""

from __future__ import annotations

import builtins
import copyreg
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from mognet.times import in_seconds


class FailedResult(Protocol):
    """What an error needs to know of the result it is about."""

    @property
    def id(self) -> UUID:
        """The job's id."""
        ...

    @property
    def name(self) -> str | None:
        """The task's name."""
        ...

    @property
    def state(self) -> str:
        """Where the job stands."""
        ...


class MognetError(Exception):
    """The base of every error raised by mognet."""


class ImproperlyConfigured(MognetError):
    """A setting, URL or file does not fit; the message names it and the remedy."""


class CouldNotSubmit(MognetError):
    """A request was refused, or did not reach its engine; nothing was stored unless the message says so."""


class InvalidMetadata(CouldNotSubmit, ValueError):
    """Metadata that cannot be stored; the message names the key. Nothing was written."""


class InvalidQuery(MognetError, ValueError):
    """A question about jobs that makes no sense, or that would touch all of them; the message names the part. Nothing was done."""


class InvalidCursor(InvalidQuery):
    """A cursor that is none, or that belongs to another app, another store, or another kind of question."""


class ConnectionError(MognetError, builtins.ConnectionError):
    """The engine cannot be reached."""


class ServerStarting(ConnectionError):
    """The engine's server is there, but says that it is starting, and lets nobody in yet."""


class NotConnected(ConnectionError):
    """The app is not connected: call ``await app.connect()``, or use ``async with app``."""


class BrokerError(MognetError):
    """A queue operation failed."""


class QueueNotFound(BrokerError):
    """No such queue: no job is in it, no route leads to it and no worker listens on it."""

    def __init__(self, queue_name: str) -> None:
        super().__init__(queue_name)

    @property
    def queue_name(self) -> str:
        """The name that was asked for."""
        return str(self.args[0])

    def __str__(self) -> str:
        return f"no queue is called {self.queue_name!r}"


class ResultError(MognetError):
    """The base of errors about a result."""


class ResultNotReady(ResultError):
    """The job has not finished: wait for it (``await result``) before getting its value."""


class ResultFailed(ResultError):
    """The job ended without a value and without an error of its own."""

    result: FailedResult | None = None
    """The result, where the error was raised; an error that came from another job knows only what follows."""

    def __init__(self, result: FailedResult) -> None:
        super().__init__(str(result.id), result.name, str(result.state))
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        """To be pickled or copied: without the result, which belongs to this process."""
        others = {name: value for name, value in vars(self).items() if name != "result"}
        return copyreg.__newobj__, (type(self), *self.args), others  # type: ignore[attr-defined]

    @property
    def result_id(self) -> UUID:
        """The job's id."""
        return UUID(self.args[0])

    @property
    def _job(self) -> str:
        return f"{self.args[1] or 'task'} {self.args[0]}"

    def __str__(self) -> str:
        return f"{self._job} ended {self.args[2]}"


class Revoked(ResultFailed):
    """The job was revoked, or its deadline passed."""

    def __str__(self) -> str:
        return f"{self._job} was revoked"


class _AboutResult(ResultError):
    def __init__(self, result_id: UUID | str) -> None:
        super().__init__(str(result_id))

    @property
    def result_id(self) -> UUID:
        """The job's id."""
        return UUID(self.args[0])


class ResultValueLost(_AboutResult):
    """The job succeeded, but its value has expired."""

    def __str__(self) -> str:
        return f"the value of job {self.args[0]} is gone: it expired or was deleted"


class ResultLost(_AboutResult):
    """No record of the job is left: it expired, was deleted, or never existed."""

    def __str__(self) -> str:
        return f"no record of job {self.args[0]} is left: it expired, was deleted, or never existed"


class NotRetryable(ResultError):
    """The job cannot be run again: it has not ended, it succeeded, or what it was called with is not kept any more.

    Or somebody else was quicker to have it run again, with other arguments.
    """

    def __init__(self, result_id: UUID | str, reason: str) -> None:
        super().__init__(str(result_id), reason)

    @property
    def result_id(self) -> UUID:
        """The job's id."""
        return UUID(self.args[0])

    @property
    def reason(self) -> str:
        """Why not."""
        return str(self.args[1])

    def __str__(self) -> str:
        return f"job {self.args[0]} cannot be run again: {self.reason}"


class NotStorable(MognetError, ValueError):
    """A value that cannot be written as JSON, or is larger than allowed."""


class AttemptLost(MognetError):
    """This attempt no longer owns its job (it was revoked, deleted, or taken over by another worker): it can write nothing."""


class TooManyRetries(MognetError):
    """The job was started again too often: its workers died (``AppConfig.max_retries``), or it used up its own ``retries``."""

    def __init__(self, request_id: UUID | str, actual_retries: int, max_retries: int) -> None:
        super().__init__(str(request_id), actual_retries, max_retries)

    @property
    def request_id(self) -> UUID:
        """The job's id."""
        return UUID(self.args[0])

    @property
    def actual_retries(self) -> int:
        """How often it was started again."""
        return int(self.args[1])

    @property
    def max_retries(self) -> int:
        """The limit."""
        return int(self.args[2])

    def __str__(self) -> str:
        return f"job {self.args[0]} was to be retried {self.actual_retries} times; the limit is {self.max_retries}"


class InvalidErrorInfo(NamedTuple):
    """One thing that is wrong with a call's arguments."""

    loc: tuple[int | str, ...]
    msg: str
    type: str


class InvalidTaskArguments(MognetError, ValueError):
    """The arguments do not fit the task's signature; ``errors`` says where and why."""

    def __init__(self, errors: Sequence[InvalidErrorInfo | Mapping[str, Any]], task_name: str | None = None) -> None:
        items = [e._asdict() if isinstance(e, InvalidErrorInfo) else dict(e) for e in errors]
        super().__init__([{"loc": list(e["loc"]), "msg": e["msg"], "type": e["type"]} for e in items], task_name)

    @property
    def errors(self) -> list[InvalidErrorInfo]:
        """One entry for each thing wrong: where (``loc``), what (``msg``) and its kind (``type``)."""
        return [InvalidErrorInfo(tuple(e["loc"]), e["msg"], e["type"]) for e in self.args[0]]

    @property
    def task_name(self) -> str | None:
        """The task that was called, if known."""
        return self.args[1] if len(self.args) > 1 else None

    def __str__(self) -> str:
        what = "; ".join(f"{'.'.join(map(str, e.loc)) or 'arguments'}: {e.msg}" for e in self.errors)
        return f"invalid arguments for {self.task_name or 'task'}: {what}"


class UnknownTask(MognetError):
    """No task of this name is registered where the job was to run."""

    def __init__(self, task_name: str) -> None:
        super().__init__(task_name)

    @property
    def task_name(self) -> str:
        """The name that was asked for."""
        return str(self.args[0])

    def __str__(self) -> str:
        return f"no task is registered as {self.task_name!r}; is its module imported, or listed in AppConfig.imports?"


class TaskError(MognetError):
    """An exception of a task that could not be rebuilt here: its class is not loaded in this process."""

    def __init__(self, type_name: str, message: str, traceback: str = "") -> None:
        super().__init__(type_name, message, traceback)

    @property
    def type_name(self) -> str:
        """``module:qualified name`` of the original class."""
        return str(self.args[0])

    @property
    def message(self) -> str:
        """The original exception's text."""
        return str(self.args[1])

    @property
    def traceback(self) -> str:
        """The traceback's text, as it was where the task ran."""
        return str(self.args[2])

    def __str__(self) -> str:
        return f"{self.type_name.rpartition(':')[2]}: {self.message}"


# --- not errors: a task raises these to say how it goes on. They are BaseExceptions, so that the task's own
# ``except Exception`` does not swallow them.


def _seconds(value: float | timedelta | None) -> float | None:
    return None if value is None else in_seconds(value, "a waiting time")


class Pause(BaseException):
    """Raised by a task: stop here, free the slot, and run the function again later, with its state kept.

    Without ``resume_after`` (seconds or a timedelta) it runs again behind the jobs that were ready before it.
    """

    def __init__(self, resume_after: float | timedelta | None = None) -> None:
        super().__init__(resume_after)
        self.resume_after: float | None = _seconds(resume_after)


class Retry(BaseException):
    """Raised by a task: this attempt did not work, run the function again as a new attempt.

    ``after`` is seconds or a timedelta; without it, the task's own back-off decides. A task that declares ``retries`` ends
    FAILURE when they are used up; one that does not may ask again as often as it likes (``context.attempt`` counts).
    """

    def __init__(self, after: float | timedelta | None = None) -> None:
        super().__init__(after)
        self.after: float | None = _seconds(after)
