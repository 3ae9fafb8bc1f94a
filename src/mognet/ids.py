"""The ids of jobs."""

from __future__ import annotations

import os
from hashlib import blake2b
from uuid import UUID, SafeUUID

# By its slots, past the checks of its arguments.
_set_int, _set_safe, _UNKNOWN = vars(UUID)["int"].__set__, vars(UUID)["is_safe"].__set__, SafeUUID.unknown

AT_A_TIME = 64
"""Ids for which random bytes are asked of the system together."""

_FIXED = 0xF000 << 64 | 0xC000 << 48
_VERSION_4 = 0x4000 << 64 | 0x8000 << 48
_VERSION_8 = 0x8000 << 64 | 0x8000 << 48
_SEAL = 0xFFFFFFFF << 48


def make_id(number: int) -> UUID:
    """``UUID(int=number)`` of a number that is one, in a quarter of the time."""
    id = UUID.__new__(UUID)
    _set_int(id, number)
    _set_safe(id, _UNKNOWN)
    return id


def random_id() -> UUID:
    """``uuid.uuid4()``, in a third of the time."""
    try:
        number = _numbers.pop()
    except IndexError:
        number, *more = _ask()
        _numbers.extend(more)
    id = UUID.__new__(UUID)
    _set_int(id, number)
    _set_safe(id, _UNKNOWN)
    return id


_numbers: list[int] = []
"""The next ids; taken by any thread."""


def _ask() -> list[int]:
    data = os.urandom(16 * AT_A_TIME)
    return [int.from_bytes(data[start : start + 16], "big") & ~_FIXED | _VERSION_4 for start in range(0, len(data), 16)]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_numbers.clear)  # or both processes would give the same ids to their jobs


def copy_id(id: UUID, life: str) -> UUID:
    """The id of a copy of a job: always the same one for the same life of the job, and one that :func:`is_copy` knows."""
    return _sealed(int.from_bytes(blake2b(id.bytes + life.encode(), digest_size=16).digest(), "big"))


def is_copy(id: UUID) -> bool:
    """Whether :func:`copy_id` made it. Of other ids of version 8, one in 67 million is taken for such a one; of other versions, none."""
    return id == _sealed(id.int)


def _sealed(number: int) -> UUID:
    """An id of version 8 (RFC 9562: for whoever has a use for one) of which the middle follows from the rest."""
    rest = number & ~_SEAL
    seal = int.from_bytes(blake2b(rest.to_bytes(16, "big"), digest_size=4, person=b"mognet copy").digest(), "big") << 48
    return make_id(rest | seal & ~_FIXED | _VERSION_8)
