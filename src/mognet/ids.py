"""The ids of jobs."""

from __future__ import annotations

import os
from uuid import UUID, SafeUUID

# By its slots, past the checks of its arguments.
_set_int, _set_safe, _UNKNOWN = vars(UUID)["int"].__set__, vars(UUID)["is_safe"].__set__, SafeUUID.unknown

AT_A_TIME = 64
"""Ids for which random bytes are asked of the system together."""

_FIXED = 0xF000 << 64 | 0xC000 << 48
_VERSION_4 = 0x4000 << 64 | 0x8000 << 48


def make_id(number: int) -> UUID:
    """``UUID(int=number)`` of a number that is one, in a quarter of the time."""
    id = UUID.__new__(UUID)
    _set_int(id, number)
    _set_safe(id, _UNKNOWN)
    return id


def random_id() -> UUID:
    """``uuid.uuid4()``, in a third of the time."""
    try:
        data = _random.pop()
    except IndexError:
        data, *more = _ask()
        _random.extend(more)
    id = UUID.__new__(UUID)
    _set_int(id, int.from_bytes(data, "big") & ~_FIXED | _VERSION_4)
    _set_safe(id, _UNKNOWN)
    return id


_random: list[bytes] = []
"""What the next ids are made of; taken by any thread."""


def _ask() -> list[bytes]:
    data = os.urandom(16 * AT_A_TIME)
    return [data[start : start + 16] for start in range(0, len(data), 16)]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.clear)  # or both processes would give the same ids to their jobs
