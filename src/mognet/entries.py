"""What a job has logged, as its readers get it and as it is stored."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mognet.records import LogLine
from mognet.times import from_seconds

MAX_TEXT = 2_000
"""Characters of a message that are kept, from its beginning."""

MAX_TRACE = 6_000
"""Characters of a traceback that are kept, from its end."""

PRINT = "PRINT"
"""The level of what was printed."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One log record, or one printed line, of a job."""

    number: int
    """1 for the job's first, and so on; the first ones may be gone."""
    time: datetime
    level: str
    """A level's name, or ``PRINT``."""
    logger: str
    message: str
    exception: str | None = None
    """The traceback, if there is one."""

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {
            "number": self.number,
            "time": self.time.isoformat(),
            "level": self.level,
            "logger": self.logger,
            "message": self.message,
            "exception": self.exception,
        }


def pack_record(record: logging.LogRecord) -> bytes:
    """A log record as it is stored. Never fails: what cannot be formatted is kept as it was given."""
    try:
        message = record.getMessage()
    except Exception:  # arguments that do not fit the message must not hide it, nor fail the task
        message = f"{record.msg!r} with arguments that do not fit"
    trace = logging.Formatter().formatException(record.exc_info) if record.exc_info and record.exc_info[0] is not None else None
    return pack(record.created, record.levelname, record.name, message, trace)


def pack(time: float, level: str, logger: str, message: str, exception: str | None = None) -> bytes:
    """An entry as it is stored."""
    text = message if len(message) <= MAX_TEXT else f"{message[: MAX_TEXT - 1]}…"
    fields: list[Any] = [round(time, 6), level[:40], logger[:200], text]
    if exception is not None:
        fields.append(exception[-MAX_TRACE:])
    return json.dumps(fields, separators=(",", ":")).encode()  # in ASCII, so that any text can be kept


def read_entry(line: LogLine) -> LogEntry:
    """An entry from what was stored; what is none is shown as text."""
    try:
        time, level, logger, message, *rest = json.loads(line.text)
        exception = None if not rest else str(rest[0])
        return LogEntry(line.number, from_seconds(float(time)), str(level), str(logger), str(message), exception)
    except (ValueError, TypeError, OverflowError):
        return LogEntry(line.number, from_seconds(0.0), "?", "?", line.text.decode(errors="replace"))
