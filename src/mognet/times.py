"""How long is too long: every duration and moment that is given has to be one that calendars and clocks can still reckon with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

LONGEST = timedelta(days=36_525)
"""A hundred years: "for ever" that can still be added to today's date."""

_FIRST = datetime(1, 1, 3, tzinfo=UTC)
_LAST = datetime(9999, 12, 29, tzinfo=UTC)


def in_seconds(value: float | timedelta, what: str) -> float:
    """A duration of 0 seconds to a hundred years, as seconds. Raises ValueError, and TypeError for what is no duration."""
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise TypeError(f"{what} must be a timedelta or a number of seconds, not {value!r}")
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not 0 <= seconds <= LONGEST.total_seconds():
        raise ValueError(f"{what} must be from 0 seconds to 100 years, not {value!r}")
    return seconds


def check_moment(moment: datetime, what: str) -> None:
    """Raise ValueError for a moment that is more than a hundred years away, or that has no place on this machine's clock."""
    try:
        away = moment.timestamp() - datetime.now(UTC).timestamp()
    except (OverflowError, OSError, ValueError):
        away = float("inf")
    if abs(away) > LONGEST.total_seconds():
        raise ValueError(f"{what} must be within 100 years, not {moment.isoformat()}")


def from_seconds(seconds: float) -> datetime:
    """The moment so many seconds after 1970 (UTC); one beyond the calendar as the calendar's last day. Never fails."""
    try:
        return min(max(datetime.fromtimestamp(seconds, UTC), _FIRST), _LAST)
    except (OverflowError, OSError, ValueError):
        return _FIRST if seconds < 0 else _LAST
