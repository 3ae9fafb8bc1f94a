"""Cursors: where a question is to go on, as one word that a program may keep and give back."""

from __future__ import annotations

import base64
import json
from typing import Any, Literal
from uuid import UUID

from mognet.exceptions import InvalidCursor
from mognet.records import Place

Kind = Literal["find", "watch"]

MAX_CURSOR = 4096
"""Characters of the longest cursor that is looked at."""


def write_cursor(kind: Kind, identity: str, *parts: str | float) -> str:
    """A cursor of this kind, for the store that says of itself that it is ``identity``."""
    text = json.dumps([kind, identity, *parts], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(kind: Kind, identity: str, cursor: str) -> list[Any]:
    """The parts of a cursor. Raises :class:`InvalidCursor` if it is none of this kind and store."""
    parts: list[Any]
    try:
        if len(cursor) > MAX_CURSOR:
            raise ValueError("too long")
        found, where, *parts = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        raise InvalidCursor(f"{_shown(cursor)} is no cursor: give back what an earlier answer gave, unchanged") from None
    if found != kind:
        raise InvalidCursor(f"{_shown(cursor)} is the cursor of another question than {kind}()")
    if where != identity:
        raise InvalidCursor(f"{_shown(cursor)} is the cursor of another app or store, or of one that was emptied since: begin without it")
    return list(parts)


def read_place(created: object, place: object, id: object) -> Place:
    """A place in the order of creation, from three parts of a cursor. Raises ValueError if no job can stand there.

    Engines count moments in smaller units, and to the places beside this one: none of it may overflow.
    """
    if not (type(created) is float and 0 <= created < 2**40 and type(place) is int and 0 <= place < 2**62 and isinstance(id, str)):
        raise ValueError("no place")
    return Place(created, place, UUID(id))


def _shown(cursor: object) -> str:
    text = repr(cursor)
    return text if len(text) <= 60 else f"{text[:59]}…"
