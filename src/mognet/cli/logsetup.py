"""What log records look like on the standard error stream."""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from mognet.cli.failures import USAGE, CommandError
from mognet.cli.options import Options
from mognet.cli.text import clean, clean_lines, json_text
from mognet.logs import FIELDS, install

TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_COLORS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}
_KNOWN = {*vars(logging.makeLogRecord({})), *FIELDS, "message", "asctime", "taskName"}


class SafeFormatter(logging.Formatter):
    """A %-style format whose messages and tracebacks cannot steer the terminal, nor pretend to be further records."""

    def __init__(self, fmt: str, *, color: bool = False) -> None:
        super().__init__(fmt, datefmt="%H:%M:%S" if fmt == TEXT else None)
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        """The record as text; a traceback follows indented."""
        safe = logging.makeLogRecord({key: clean(value) if isinstance(value, str) else value for key, value in vars(record).items()})
        safe.msg, safe.args, safe.exc_info, safe.exc_text, safe.stack_info = clean(record.getMessage()), None, None, None, None
        text = super().format(safe)
        if self._color and record.levelname in _COLORS:
            text = f"\033[{_COLORS[record.levelname]}m{text}\033[0m"
        more = [self.formatException(record.exc_info)] if record.exc_info else []
        more += [self.formatStack(record.stack_info)] if record.stack_info else []
        return "\n".join([text, *(f"    {line}" for part in more for line in clean_lines(part))])


class JSONFormatter(logging.Formatter):
    """One JSON object per record: time, level, logger, message, the job it belongs to, and what was given as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        data: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        data |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        data |= {name: value for name, value in vars(record).items() if name not in _KNOWN and name not in data}
        if record.exc_info:
            data["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            data["stack"] = record.stack_info
        return json_text(data)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to what is the standard error stream at that moment, so that live displays can be kept below."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        raise AttributeError("the stream follows sys.stderr")


def set_up(options: Options, *, default_level: str) -> None:
    """Send log records to the standard error stream, as the options say. Raises :class:`CommandError`."""
    level = (options.log_level or os.environ.get("MOGNET_LOG_LEVEL") or default_level).upper()
    if level not in _LEVELS:
        raise CommandError(f"log level {level!r} is none of {', '.join(_LEVELS)}", USAGE)
    handler = _Handler()
    handler.setFormatter(_formatter(wanted_format(options), color=options.color and sys.stderr.isatty()))
    install()
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    if level == "DEBUG":
        logging.getLogger("asyncio").setLevel("INFO")  # which selector it uses helps nobody


def wanted_format(options: Options) -> str:
    """``text``, ``json`` or a %-style format."""
    return options.log_format or os.environ.get("MOGNET_LOG_FORMAT") or "text"


def _formatter(wanted: str, *, color: bool) -> logging.Formatter:
    if wanted == "json":
        return JSONFormatter()
    if wanted == "text":
        return SafeFormatter(TEXT, color=color)
    try:
        formatter = SafeFormatter(wanted)
        sample = logging.makeLogRecord({"msg": "", "levelname": "INFO", **dict.fromkeys(FIELDS)})
        formatter.format(sample)
    except (ValueError, KeyError, TypeError) as error:
        raise CommandError(
            f"log format {wanted!r} is neither text, nor json, nor a format such as '%(levelname)s %(message)s' ({clean(error)})", USAGE
        ) from None
    return formatter
