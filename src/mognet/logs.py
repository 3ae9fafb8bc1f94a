"""Which job a log record belongs to."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

from mognet.records import Record

FIELDS = ("task_id", "task", "queue", "attempt", "node")
"""What every log record made inside a task carries."""

_current: ContextVar[Record | None] = ContextVar("mognet_job", default=None)
_installed: list[Any] = []


def mark_logs(job: Record) -> None:
    """From here on, log records made in this asyncio task, and in what it starts, carry the job's attributes."""
    _current.set(job)


def _attributes(job: Record | None) -> tuple[object, ...]:
    return (None,) * len(FIELDS) if job is None else (str(job.id), job.name, job.queue, job.attempt, job.node)


def install() -> None:
    """Let every log record of this process have ``task_id``, ``task``, ``queue``, ``attempt`` and ``node`` (None outside tasks).

    Done by record factory, since a filter would have to be put on each handler, and those are the user's.
    """
    if _installed and logging.getLogRecordFactory() is _installed[-1]:
        return
    below = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = below(*args, **kwargs)
        for name, value in zip(FIELDS, _attributes(_current.get()), strict=True):
            if name not in record.__dict__:
                record.__dict__[name] = value
        return record

    _installed.append(factory)
    logging.setLogRecordFactory(factory)
