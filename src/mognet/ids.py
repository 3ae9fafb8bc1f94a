"""The ids of jobs."""

from __future__ import annotations

import os
from uuid import UUID, SafeUUID

# By its slots, past the checks of its arguments.
_set_int, _set_safe, _UNKNOWN = vars(UUID)["int"].__set__, vars(UUID)["is_safe"].__set__, SafeUUID.unknown

_FIXED = 0xF000 << 64 | 0xC000 << 48
_VERSION_4 = 0x4000 << 64 | 0x8000 << 48


def make_id(number: int) -> UUID:
    """``UUID(int=number)`` of a number that is one, in a quarter of the time."""
    id = UUID.__new__(UUID)
    _set_int(id, number)
    _set_safe(id, _UNKNOWN)
    return id


def random_id() -> UUID:
    """``uuid.uuid4()``, in half the time."""
    id = UUID.__new__(UUID)
    _set_int(id, int.from_bytes(os.urandom(16), "big") & ~_FIXED | _VERSION_4)
    _set_safe(id, _UNKNOWN)
    return id
