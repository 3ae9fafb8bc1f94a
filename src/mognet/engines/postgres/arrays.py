"""Lists of one type as PostgreSQL's arrays, written at one go: the client library takes longer for an item than the server does.

And it takes the width that the numbers of one list need for that of the next list in the same statement.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import ClassVar
from uuid import UUID

from psycopg import pq
from psycopg.adapt import Dumper

_HEAD = struct.Struct("!iiI")
_DIMENSION = struct.Struct("!ii")
_LENGTH = struct.Struct("!i")
_NUMBER = struct.Struct("!iq")
_UUID_LENGTH, _NULL = _LENGTH.pack(16), _LENGTH.pack(-1)


class Uuids(list[UUID]):
    """Ids. On a connection that does not know of this they are a list like any other."""


class Numbers(list[int]):
    """Numbers of any size."""


class Blobs(list["bytes | None"]):
    """Bytes, or nothing."""


def _array(oid: int, items: Sequence[bytes], *, nulls: bool) -> bytes:
    """Items that begin with their lengths."""
    if not items:
        return _HEAD.pack(0, 0, oid)
    return b"".join((_HEAD.pack(1, int(nulls), oid), _DIMENSION.pack(len(items), 1), *items))


class UuidsDumper(Dumper):
    """As ``uuid[]``."""

    format = pq.Format.BINARY
    oid = 2951
    element: ClassVar = 2950

    def dump(self, obj: Uuids) -> bytes:
        return _array(self.element, [_UUID_LENGTH + id.bytes for id in obj], nulls=False)


class NumbersDumper(Dumper):
    """As ``int8[]``."""

    format = pq.Format.BINARY
    oid = 1016
    element: ClassVar = 20

    def dump(self, obj: Numbers) -> bytes:
        return _array(self.element, [_NUMBER.pack(8, number) for number in obj], nulls=False)


class BlobsDumper(Dumper):
    """As ``bytea[]``."""

    format = pq.Format.BINARY
    oid = 1001
    element: ClassVar = 17

    def dump(self, obj: Blobs) -> bytes:
        items = [_NULL if item is None else _LENGTH.pack(len(item)) + item for item in obj]
        return _array(self.element, items, nulls=None in obj)
