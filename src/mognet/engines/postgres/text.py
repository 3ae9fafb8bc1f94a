"""Any Python text in a column that refuses NUL and lone surrogates, and back."""

from __future__ import annotations

import re

MARK = "\x1a"
"""Begins an escape: this character and four hexadecimal digits."""

_REFUSED = re.compile("[\x00\x1a\ud800-\udfff]")
_ESCAPE = re.compile("\x1a([0-9a-f]{4})")


def to_column(text: str) -> str:
    """The text as it is stored; nearly always as it is."""
    return _REFUSED.sub(lambda match: f"{MARK}{ord(match[0]):04x}", text) if _REFUSED.search(text) else text


def to_column_or_none(text: str | None) -> str | None:
    """The same where there may be none."""
    return None if text is None else to_column(text)


def from_column(text: str) -> str:
    """The text as it was."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text) if MARK in text else text
