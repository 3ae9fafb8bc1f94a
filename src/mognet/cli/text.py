"""Text for terminals: nothing that was stored may steer the terminal it is shown on."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

# Control characters (C0, C1), what turns the direction of text, line and paragraph separators, invisible tags, and
# halves of surrogate pairs, which no stream can encode.
_UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
_COLOURS = re.compile("\x1b\\[[0-9;:]*m")
_SPACES = re.compile("[\t-\r\x1c-\x1f\x85\u2028\u2029]+")
_REST = re.compile(f"[{_UNSAFE}]")
_IN_JSON = re.compile(f"[{_UNSAFE}]".replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))


def clean(value: object) -> str:
    """The value as one line of text without colours and control characters; tabs and line ends become spaces, the others vanish."""
    return _REST.sub("", _SPACES.sub(" ", _COLOURS.sub("", str(value))))


def clean_lines(value: object) -> list[str]:
    """The lines of a text (a traceback), each as :func:`clean` makes it, with its indentation."""
    return [clean(line) for line in str(value).split("\n")]


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON that is readable and safe to show: control characters of stored strings are written as escapes."""
    return _IN_JSON.sub(_escape, json.dumps(value, ensure_ascii=False, indent=indent, default=str))


def _escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1] if match[0] != "\x7f" else "\\u007f"


def span(value: float | timedelta | None) -> str:
    """How long something took, in three or four figures; empty for None."""
    if value is None:
        return ""
    seconds = max(0.0, value.total_seconds() if isinstance(value, timedelta) else value)
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole} s"


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago a moment was, in its largest unit."""
    if moment is None:
        return ""
    seconds = max(0.0, ((now or datetime.now(UTC)) - moment).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def local(moment: datetime | None) -> str:
    """A moment by the clock on the wall."""
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def plural(count: int, one: str, many: str | None = None) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
