"""The states of a job, and which of them are final.

PENDING -> RUNNING -> SUCCESS | FAILURE | REVOKED | INVALID, with RUNNING <-> SUSPENDED.
"""

from __future__ import annotations

from enum import StrEnum


class ResultState(StrEnum):
    """Where a job stands. The last four are final: a job that reached one never leaves it."""

    PENDING = "PENDING"
    """Waiting in line, or for its time (a delay, or the back-off before a retry)."""

    RUNNING = "RUNNING"
    """Leased to a worker that runs its function."""

    SUSPENDED = "SUSPENDED"
    """Started, and now waiting: for its children, after a pause, or handed back by a worker that stopped."""

    SUCCESS = "SUCCESS"
    """The function returned, and its value is stored."""

    FAILURE = "FAILURE"
    """The function raised, or crashed its workers too often."""

    REVOKED = "REVOKED"
    """Stopped on request, or by its deadline."""

    INVALID = "INVALID"
    """Could not be started: no such task, or arguments that do not fit it."""


FINAL: frozenset[ResultState] = frozenset({ResultState.SUCCESS, ResultState.FAILURE, ResultState.REVOKED, ResultState.INVALID})
"""States that never change again, but by an explicit rerun (:func:`mognet.outcomes.rerun`) of what has no value."""

FAILED: frozenset[ResultState] = FINAL - {ResultState.SUCCESS}
"""Final states without a value."""
