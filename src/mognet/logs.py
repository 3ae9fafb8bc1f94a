"""Which job a log record belongs to."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple


class JobInfo(NamedTuple):
    """What every log record made inside a task carries."""

    task_id: str | None = None
    task: str | None = None
    queue: str | None = None
    attempt: int | None = None
    node: str | None = None


NO_JOB = JobInfo()

_current: ContextVar[JobInfo] = ContextVar("mognet_job", default=NO_JOB)
_installed: list[Any] = []


@contextmanager
def job_logs(info: JobInfo) -> Iterator[None]:
    """Inside the context, log records carry this job's attributes."""
    token = _current.set(info)
    try:
        yield
    finally:
        _current.reset(token)


def install() -> None:
    """Let every log record of this process have ``task_id``, ``task``, ``queue``, ``attempt`` and ``node`` (None outside tasks).

    Done by record factory, since a filter would have to be put on each handler, and those are the user's.
    """
    if _installed and logging.getLogRecordFactory() is _installed[-1]:
        return
    below = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = below(*args, **kwargs)
        for name, value in zip(JobInfo._fields, _current.get(), strict=True):
            if name not in record.__dict__:
                record.__dict__[name] = value
        return record

    _installed.append(factory)
    logging.setLogRecordFactory(factory)
