"""Lists of one type as PostgreSQL's arrays, written at one go: the client library takes longer for an item than the server does.

And it takes the width that the numbers of one list need for that of the next list in the same statement.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import ClassVar
from uuid import UUID

from psycopg import pq
from psycopg.adapt import Dumper

_HEAD = struct.Struct("!iiI")
_DIMENSION = struct.Struct("!ii")
_LENGTH = struct.Struct("!i")
_NUMBER = struct.Struct("!q")
_UUID_LENGTH, _NUMBER_LENGTH, _NULL = _LENGTH.pack(16), _LENGTH.pack(8), _LENGTH.pack(-1)


class Uuids(list[UUID]):
    """Ids. On a connection that does not know of this they are a list like any other."""


class Numbers(list[int]):
    """Numbers of any size."""


class Blobs(list["bytes | None"]):
    """Bytes, or nothing."""


def _array(oid: int, lengths: Iterable[bytes], items: Sequence[bytes], *, nulls: bool = False) -> bytes:
    """Items, each behind its length."""
    if not items:
        return _HEAD.pack(0, 0, oid)
    parts = [b""] * (2 * len(items))  # filled in less time than it takes to put each behind its length
    parts[::2], parts[1::2] = lengths, items
    return b"".join((_HEAD.pack(1, int(nulls), oid), _DIMENSION.pack(len(items), 1), *parts))


class UuidsDumper(Dumper):
    """As ``uuid[]``."""

    format = pq.Format.BINARY
    oid = 2951
    element: ClassVar = 2950

    def dump(self, obj: Uuids) -> bytes:
        return _array(self.element, [_UUID_LENGTH] * len(obj), [id.int.to_bytes(16, "big") for id in obj])


class NumbersDumper(Dumper):
    """As ``int8[]``."""

    format = pq.Format.BINARY
    oid = 1016
    element: ClassVar = 20

    def dump(self, obj: Numbers) -> bytes:
        return _array(self.element, [_NUMBER_LENGTH] * len(obj), [_NUMBER.pack(number) for number in obj])


class BlobsDumper(Dumper):
    """As ``bytea[]``."""

    format = pq.Format.BINARY
    oid = 1001
    element: ClassVar = 17

    def dump(self, obj: Blobs) -> bytes:
        items = [item for item in obj if item is not None]
        if len(items) == len(obj):
            return _array(self.element, map(_LENGTH.pack, map(len, items)), items)
        lengths = [_NULL if item is None else _LENGTH.pack(len(item)) for item in obj]
        return _array(self.element, lengths, [item or b"" for item in obj], nulls=True)
