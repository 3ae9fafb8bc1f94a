"""How commands end: the exit codes, and one line that says what is wrong and what to do."""

from __future__ import annotations

import sys
import traceback

from mognet.cli.text import clean, clean_lines
from mognet.engines.migrations import NewerSchema
from mognet.exceptions import (
    ConnectionError,
    CouldNotSubmit,
    ImproperlyConfigured,
    InvalidMetadata,
    InvalidQuery,
    InvalidTaskArguments,
    MognetError,
    NotRetryable,
    QueueNotFound,
    ResultLost,
    UnknownTask,
)

OK = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
UNREACHABLE = 4
REFUSED = 5
TIMED_OUT = 124
INTERRUPTED = 130


class CommandError(Exception):
    """A command cannot go on. ``details`` are further lines, for what one line cannot show."""

    def __init__(self, message: str, code: int = FAILED, *, details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (NewerSchema, REFUSED),
    (ImproperlyConfigured, USAGE),
    (InvalidMetadata, USAGE),
    (InvalidQuery, USAGE),
    (InvalidTaskArguments, USAGE),
    (ConnectionError, UNREACHABLE),
    (CouldNotSubmit, REFUSED),
    (NotRetryable, REFUSED),
    (UnknownTask, NOT_FOUND),
    (QueueNotFound, NOT_FOUND),
    (ResultLost, NOT_FOUND),
)


def single(error: BaseException) -> BaseException:
    """The error itself, out of groups that hold nothing else; of several of one kind, the first."""
    while isinstance(error, BaseExceptionGroup) and len({type(each) for each in error.exceptions}) == 1:
        error = error.exceptions[0]
    return error


def exit_code(error: BaseException) -> int:
    """The exit code that an error leads to."""
    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, CouldNotSubmit) and isinstance(error.__cause__, ConnectionError):
        return UNREACHABLE
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def report(error: BaseException, *, debug: bool) -> int:
    """Tell of an error on the standard error stream; answer the exit code. Only ``debug`` shows a traceback."""
    if debug:
        for line in clean_lines("".join(traceback.format_exception(error)).rstrip()):
            print(line, file=sys.stderr)
    error = single(error)
    if isinstance(error, CommandError | MognetError):
        text = clean(error) or type(error).__name__
    else:
        text = f"unexpected {type(error).__name__}: {clean(error)}" + ("" if debug else " (--log-level DEBUG shows where)")
    if exit_code(error) == UNREACHABLE and "cannot be reached" not in text:
        text = f"the engine cannot be reached: {text}"
    print(f"error: {text}", file=sys.stderr)
    for line in error.details if isinstance(error, CommandError) else ():
        print(clean(line), file=sys.stderr)
    return exit_code(error)
