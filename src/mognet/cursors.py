"""Cursors: where a question is to go on, as one word that a program may keep and give back."""

from __future__ import annotations

import base64
import json
from typing import Any, Literal

from mognet.exceptions import InvalidCursor

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


def _shown(cursor: object) -> str:
    text = repr(cursor)
    return text if len(text) <= 60 else f"{text[:59]}…"
