"""What may become of a claimed job, and what else may change in a record.

Each fate has one constructor; engines apply them and know no other transition.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from mognet.records import Record, Token
from mognet.states import FAILED, ResultState


class Again(Enum):
    """Why a job goes back in line."""

    RETRY = "retry"
    """Its attempt counts: ``attempt`` rises. Due ``delay`` seconds from now."""
    PAUSE = "pause"
    """Due ``delay`` seconds from now, and behind what is already in line."""
    RELEASE = "release"
    """Handed back untouched: due as before, so it keeps its place."""


class Outcome(NamedTuple):
    """The end of one attempt. Make it by one of the functions below."""

    token: Token
    state: ResultState
    value: bytes | None = None
    """What the task returned, or the error it ended with. Opaque to engines."""
    again: Again | None = None
    delay: float = 0.0
    ttl: float | None = None
    """Seconds the record lives from now; None: for ever."""
    value_ttl: float | None = None


def succeeded(token: Token, value: bytes, *, ttl: float | None = None, value_ttl: float | None = None) -> Outcome:
    """The function returned."""
    return Outcome(token, ResultState.SUCCESS, value, ttl=ttl, value_ttl=value_ttl)


def failed(token: Token, error: bytes, *, ttl: float | None = None, value_ttl: float | None = None) -> Outcome:
    """The function raised for good, or the job crashed too often."""
    return Outcome(token, ResultState.FAILURE, error, ttl=ttl, value_ttl=value_ttl)


def revoked(token: Token, error: bytes | None = None, *, ttl: float | None = None, value_ttl: float | None = None) -> Outcome:
    """The deadline passed."""
    return Outcome(token, ResultState.REVOKED, error, ttl=ttl, value_ttl=value_ttl)


def invalid(token: Token, error: bytes, *, ttl: float | None = None, value_ttl: float | None = None) -> Outcome:
    """It could not be started: unknown task, arguments that do not fit."""
    return Outcome(token, ResultState.INVALID, error, ttl=ttl, value_ttl=value_ttl)


def retry(token: Token, delay: float) -> Outcome:
    """Run it again ``delay`` seconds from now, as a new attempt."""
    return Outcome(token, ResultState.PENDING, again=Again.RETRY, delay=delay)


def paused(token: Token, delay: float = 0.0) -> Outcome:
    """Run it again, ``delay`` seconds from now, behind what is then in line."""
    return Outcome(token, ResultState.SUSPENDED, again=Again.PAUSE, delay=delay)


def released(token: Token) -> Outcome:
    """Give it back unfinished, at its old place in line."""
    return Outcome(token, ResultState.SUSPENDED, again=Again.RELEASE)


class Change(NamedTuple):
    """A change to a record. Make it by one of the functions below."""

    state: ResultState | None = None
    metadata: bytes | None = None
    """A JSON object whose keys replace those of the record, one by one."""
    max_metadata: int | None = None
    """Bytes that the record's metadata may grow to; if it would be more, nothing changes and InvalidMetadata is raised."""
    token: Token | None = None
    """Only if this token still holds the job."""
    descendants: bool = False
    """Apply to all unfinished descendants too, in the same step."""
    ttl: float | None = None
    tombstone: bool = False
    """If no record exists, leave one in this final state, so that a later submit changes nothing."""
    progress: bytes | None = None
    """How far the task is, in place of what the record said."""
    body: bytes | None = None
    """Begin a new series of attempts, with this body and ``delay`` seconds from now. See :func:`rerun`."""
    delay: float = 0.0
    ended: float | None = None
    """Run again only what ended at this moment: what has done so already, and ended anew, is left as it is."""


def revoke(*, ttl: float | None = None) -> Change:
    """Mark a job and all its unfinished descendants REVOKED; an unknown id gets a tombstone."""
    return Change(ResultState.REVOKED, descendants=True, ttl=ttl, tombstone=True)


def suspend(token: Token) -> Change:
    """The attempt waits for its children: SUSPENDED, ``stops`` + 1; it keeps its lease."""
    return Change(ResultState.SUSPENDED, token=token)


def resume(token: Token) -> Change:
    """The attempt goes on: RUNNING, ``starts`` + 1; the token stays as it is."""
    return Change(ResultState.RUNNING, token=token)


def merge_metadata(metadata: bytes, token: Token | None = None, *, limit: int | None = None) -> Change:
    """Merge the keys of a JSON object into the record's metadata, up to ``limit`` bytes."""
    return Change(metadata=metadata, token=token, max_metadata=limit)


def set_progress(token: Token, progress: bytes) -> Change:
    """Say how far the attempt is."""
    return Change(token=token, progress=progress)


def rerun(
    body: bytes, *, delay: float = 0.0, metadata: bytes | None = None, limit: int | None = None, ended: float | None = None
) -> Change:
    """Run a job that ended without a value once more, under its id: the one way out of a final state, and only on request.

    PENDING, due ``delay`` seconds from now and behind what is in line; attempts and crashes count from the start, and what its last
    end left (value, times, progress, latest moment, lifetime) is gone. Keys of ``metadata`` replace the record's. With ``ended``, when
    it was seen to have ended, this may be sent twice: it brings that end to nothing, and no later one.
    """
    return Change(ResultState.PENDING, metadata=metadata, max_metadata=limit, body=body, delay=delay, ended=ended)


def may_rerun(record: Record, change: Change) -> bool:
    """Whether a rerun is of this record: none is of one that has a value, or was never more than revoked."""
    return record.state in FAILED and record.name is not None and change.ended in (None, record.finished)


def set_ttl(ttl: float) -> Change:
    """Let record and value live ``ttl`` seconds from now, or from the job's end if it has not ended."""
    return Change(ttl=ttl)


__all__ = [
    "Again",
    "Change",
    "Outcome",
    "failed",
    "invalid",
    "may_rerun",
    "merge_metadata",
    "paused",
    "released",
    "rerun",
    "resume",
    "retry",
    "revoke",
    "revoked",
    "set_progress",
    "set_ttl",
    "succeeded",
    "suspend",
]
