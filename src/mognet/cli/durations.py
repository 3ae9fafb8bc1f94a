"""Times given on the command line: 10s, 5m, 1h, or plain seconds."""

from __future__ import annotations

from datetime import timedelta

from pydantic import TypeAdapter, ValidationError

from mognet.cli.failures import USAGE, CommandError
from mognet.config import Duration

_durations: TypeAdapter[timedelta] = TypeAdapter(Duration)


def parse_duration(text: str, option: str) -> timedelta:
    """How long that is. Raises :class:`CommandError`."""
    try:
        return _durations.validate_python(text)
    except ValidationError:
        raise CommandError(f"{option} {text!r} is no time: write 500ms, 10s, 5m, 1h or 7d (a plain number is seconds)", USAGE) from None
