"""Records and tokens, as the tables hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mognet.engines.postgres.text import from_column, to_column
from mognet.records import Record, Token
from mognet.states import ResultState

STATES = tuple(ResultState)
"""The states in the order of their numbers."""

NUMBERS: Mapping[ResultState, int] = {state: number for number, state in enumerate(STATES)}

WIDTH = 21
"""Columns of a record in a row."""


def make_record(row: Sequence[Any]) -> Record:
    """A record from the columns :data:`statements.RECORD`, which may be followed by others."""
    (id, name, queue, state, priority, created, due, started, finished, starts, stops, attempt) = row[:12]
    (parent, root, node, ttl, expires, label, metadata, progress, seq) = row[12:21]
    return Record(
        id,
        None if name is None else from_column(name),
        from_column(queue),
        STATES[state],
        priority,
        created,
        due,
        metadata,
        started,
        finished,
        starts,
        stops,
        attempt,
        parent,
        id if root is None else root,
        None if node is None else from_column(node),
        None if label is None else from_column(label),
        ttl,
        expires,
        progress,
        seq,
    )


def token_text(token: Token) -> str:
    """A token as its column holds it."""
    return f"{token.start}-{to_column(token.holder)}"
