"""The driver's errors, in the engine's words."""

from __future__ import annotations

import psycopg
from psycopg import errors

from mognet.exceptions import ConnectionError, ImproperlyConfigured, MognetError, ServerStarting

_AGAIN = ("40001", "40P01", "23505")
"""Serialization failure, deadlock, and an id that came to be in the same moment: the same once more will do."""

_STARTING = "57P03"

_UNAVAILABLE = {
    "57P01": "it is being shut down, or ended this connection",
    "57P02": "it crashed, and starts again",
    _STARTING: "it is starting, or being shut down",
    "53300": "it has no connection left: raise max_connections, lower ?pool_size=, or put a pooler between",
    "53100": "its disk is full: make room there",
    "53200": "it is out of memory",
    "25006": "it is a standby or read-only: name the primary, or all hosts (postgresql://a,b/db)",
    "57014": "it took too long",
    "55P03": "something else holds a lock",
}

_MISTAKES = {
    "28": "user or password is wrong, or pg_hba.conf does not let them in: check the URL",
    "3D000": "there is no such database: CREATE DATABASE it, or correct the URL",
    "42501": "the role lacks a right: GRANT USAGE ON SCHEMA and ALL ON ALL TABLES and SEQUENCES IN SCHEMA, or let it CREATE the schema",
    "3F000": "the schema is gone: connect anew to create it",
    "42P01": "a table is gone: connect anew to create it",
}

_PHRASES = (
    ("authentication failed", "28"),
    ("no pg_hba.conf entry", "28"),
    ("no password supplied", "28"),
    ("role ", "28"),
    ("database ", "3D000"),
    ("too many clients", "53300"),
    ("remaining connection slots", "53300"),
    ("too many connections", "53300"),
    ("read-only", "25006"),
    ("the database system is", _STARTING),  # … starting up, in recovery mode, not yet accepting connections, shutting down
)


def worth_repeating(error: psycopg.Error) -> bool:
    """Whether the transaction was undone and may be tried again at once."""
    return error.sqlstate in _AGAIN


def broke_connection(error: psycopg.Error) -> bool:
    """Whether the connection is of no more use, whatever it says of itself."""
    return error.sqlstate is None or error.sqlstate.startswith(("57P", "08", "25006"))


def translated(error: psycopg.Error, shown: str, *, connecting: bool = False, advice: str = "") -> MognetError | None:
    """What to raise in its place; None: it is a bug, and should be seen as it is.

    ``shown`` is the URL without secrets, ``advice`` what to say to whoever cannot reach the server.
    """
    text = _text(error)
    code = error.sqlstate or (_code_of(str(error)) if connecting else None)
    if code in _UNAVAILABLE:
        kind = ServerStarting if code == _STARTING else ConnectionError
        return kind(f"PostgreSQL at {shown} cannot be used: {_UNAVAILABLE[code]} ({text})")
    for start, remedy in _MISTAKES.items():
        if code is not None and code.startswith(start):
            return ImproperlyConfigured(f"PostgreSQL at {shown} refuses: {remedy} ({text})")
    if isinstance(error, errors.OperationalError | errors.InterfaceError) or broke_connection(error):
        return ConnectionError(f"PostgreSQL at {shown} cannot be reached: {'; '.join(filter(None, (text, advice)))}")
    return None


def _text(error: psycopg.Error) -> str:
    text = error.diag.message_primary or _first_line(error)
    return " ".join(text.split())[:300] or type(error).__name__


def _first_line(error: psycopg.Error) -> str:
    """What happened; the lines that follow guess why, or tell it of each host."""
    return str(error).strip().partition("\n")[0].removeprefix("connection failed: ").removeprefix("connection is bad: ")


def _code_of(text: str) -> str | None:
    return next((code for phrase, code in _PHRASES if phrase in text and (phrase[-1] != " " or "does not exist" in text)), None)
