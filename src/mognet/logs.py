"""Which job a log record belongs to."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from contextvars import ContextVar
from functools import cached_property
from typing import Any

from mognet.codec import dumps, loads
from mognet.labels import select
from mognet.records import Record

FIELDS = ("task_id", "task", "queue", "attempt", "node", "metadata")
"""What every log record made inside a task carries."""

SHOWN = 100
"""Characters of a value of metadata in a log line."""


class Marks:
    """What log records of one attempt carry."""

    def __init__(self, job: Record, keys: Collection[str]) -> None:
        self._job = job
        self._keys = keys

    @cached_property
    def metadata(self) -> dict[str, Any] | None:
        """The declared keys of the job's metadata, as they were when the attempt began; None if it has none of them."""
        if not self._keys or self._job.metadata == b"{}":
            return None
        return select(loads(self._job.metadata), sorted(self._keys)) or None

    @cached_property
    def attributes(self) -> tuple[object, ...]:
        """The values of :data:`FIELDS`."""
        job = self._job
        return str(job.id), job.name, job.queue, job.attempt, job.node, self.metadata

    def __str__(self) -> str:
        """The metadata as the end of a log line."""
        return "".join(f" {path}={_shown(value)}" for path, value in (self.metadata or {}).items())


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else dumps(value).decode()
    if not text.isprintable():  # it may come from anybody, and must neither end the line nor steer a terminal
        text = json.dumps(text)[1:-1] if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


_current: ContextVar[Marks | None] = ContextVar("mognet_job", default=None)
_installed: list[Any] = []


def mark_logs(job: Record, keys: Collection[str] = ()) -> Marks:
    """From here on, log records made in this asyncio task, and in what it starts, carry the job's attributes and these keys of metadata."""
    marks = Marks(job, keys)
    _current.set(marks)
    return marks


def _attributes(marks: Marks | None) -> tuple[object, ...]:
    return (None,) * len(FIELDS) if marks is None else marks.attributes


def install() -> None:
    """Let every log record of this process have what :data:`FIELDS` names (None outside tasks).

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
