"""Paths into metadata: a key, or keys into objects with dots between them."""

from __future__ import annotations

from typing import Any

MAX_PATH = 255
"""Characters of the longest path."""


def check_path(path: object) -> str:
    """The path itself. Raises ValueError that names it and says what is wrong."""
    if not isinstance(path, str):
        raise ValueError(f"{path!r} is no key of metadata: keys are strings")
    if not all(path.split(".")):
        raise ValueError(f"{path!r} is no key of metadata: write a key, or keys into objects with dots between them, such as 'user.id'")
    if len(path) > MAX_PATH:
        raise ValueError(f"{path[:40] + '…'!r} is no key of metadata: it has more than {MAX_PATH} characters")
    if not is_plain(path):
        raise ValueError(f"{path!r} is no key of metadata: it holds a NUL character or half of a surrogate pair, which cannot be stored")
    return path


def is_plain(text: str) -> bool:
    """Whether a text can be stored: without NUL characters, and without halves of surrogate pairs."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def value_at(metadata: Any, path: str, missing: Any = None) -> Any:
    """What stands at a path; ``missing`` if nothing does."""
    value = metadata
    for key in path.split("."):
        value = value.get(key, missing) if isinstance(value, dict) else missing
    return value
