"""The scripts, one for each transition, and the rows that they answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from pydantic_core import from_json, to_json

from mognet.engines.redis import keys
from mognet.engines.redis.keys import text
from mognet.records import Record, Token
from mognet.states import ResultState

STATES = tuple(ResultState)
"""The states in the order of their digits."""

DIGITS = {state: b"%d" % number for number, state in enumerate(STATES)}
_BY_DIGIT = {digit: state for state, digit in DIGITS.items()}

Arg = bytes | int


class Run(Protocol):
    """Runs a script."""

    def __call__(self, name: str, /, *arguments: Arg) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua text, and the name under which the server keeps it."""

    name: str
    text: bytes
    sha: bytes


SHARED = ("common", "steps", "metadata", "rows")
"""What stands before each script."""

USED = {
    "fields": frozenset({"search", "among", "changes", "walk", "update", "index"}),
    "finding": frozenset({"search", "among", "changes", "walk"}),
}
"""What stands before some: those that look into metadata, and those that look for jobs."""

STALE = b"stale"
"""What a script answers that was called with the paths of an older declaration, and did nothing."""


@cache
def script(name: str) -> Script:
    """A transition's script, with what all of them share before it."""
    folder = files("mognet.engines.redis") / "lua"
    parts = (*SHARED, *(part for part, users in USED.items() if name in users), name)
    source = inline(nested([(folder / f"{part}.lua").read_text("utf-8") for part in parts])).encode()
    return Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())


def nested(parts: Sequence[str]) -> str:
    """One text of them, in which each stands in a function inside of the one before.

    A function that is made looks for the locals of its own text one by one, but has those of the texts around it at hand.
    """
    return "return (function()\n".join(parts) + " end)()" * (len(parts) - 1)


_CONSTANTS = re.compile(r"^local ([A-Z_]+(?:, [A-Z_]+)*) = ((?:'[^']*'|[\de.]+)(?:, (?:'[^']*'|[\de.]+))*)$", re.MULTILINE)
_WORDS = re.compile(r"'(?:[^'\\]|\\.)*'|--[^\n]*|\b[A-Z_]+\b")


def inline(source: str) -> str:
    """The same script with the values of its constants in the place of their names.

    Every call of a script makes all its functions anew, and what they use of the script's locals is looked for one by one: the fewer
    these are, the less a call costs (it saves a tenth of a submit of one job).
    """
    values: dict[str, str] = {}
    for names, texts in _CONSTANTS.findall(source):
        values.update(zip(names.split(", "), texts.split(", "), strict=True))
    return _WORDS.sub(lambda word: values.get(word[0], word[0]), _CONSTANTS.sub("", source))


# --- arguments


def optional(value: bytes | str | None) -> bytes:
    """A value, or none, as one argument."""
    if value is None:
        return b"-"
    return b"+" + (value if isinstance(value, bytes) else text(value))


def micros(seconds: float | None) -> bytes:
    """A duration or a moment in microseconds; none: an empty text, which Lua reads as no number."""
    return b"" if seconds is None else b"%d" % round(seconds * 1_000_000)


def hold(token: Token | None) -> bytes:
    """A token as it stands in a job's hash."""
    return b"" if token is None else b"%d:%b" % (token.start, text(token.holder))


def id_arg(id: UUID) -> bytes:
    """An id as it stands in keys."""
    return id.hex.encode()


class Described(NamedTuple):
    """Metadata as it goes with a new job (``lua/metadata.lua``)."""

    lengths: bytes
    """How long its text and its labels are; nothing: there is no metadata."""
    head: bytes
    """What stands before the call: both of them."""
    labels: Sequence[bytes]
    """Numbers of paths, and the labels there."""


NOTHING = Described(b"", b"", ())


def describe(text: bytes, labels: Sequence[bytes]) -> Described:
    """Metadata from its JSON text, without spaces."""
    if not labels:
        return Described(b"%d:0" % len(text), text, labels)
    found = b"".join([b"%b,%d:%b" % (number, len(label), label) for number, label in zip(labels[::2], labels[1::2], strict=True)])
    return Described(b"%d:%d" % (len(text), len(found)), text + found, labels)


@lru_cache(maxsize=500)
def key_text(key: str) -> bytes:
    """A key of metadata as a JSON text: most jobs have the same ones."""
    return to_json(key)


def labels(metadata: bytes) -> list[bytes]:
    """The keys and values of a JSON object, each as a JSON text."""
    if metadata == b"{}":
        return []
    return [item for key, value in from_json(metadata).items() for item in (key_text(key), to_json(value))]


# --- answers

Row = Sequence[Any]


def make_record(id: UUID, row: Row) -> Record:
    """A record from a row of a script."""
    name, queue, state, priority, created, due, begun, finished, starts, stops, attempt, parent, root, node, label, *rest = row
    ttl, expires, offset, meta, progress = rest
    return Record(
        id,
        _text(name),
        queue.decode("utf-8", "surrogatepass"),
        _BY_DIGIT[state],
        int(priority),
        int(created) / 1e6,
        int(due) / 1e6,
        meta or b"{}",
        _seconds(begun),
        _seconds(finished),
        int(starts or 0),
        int(stops or 0),
        int(attempt or 1),
        None if parent is None else UUID(parent.decode()),
        id if root is None else UUID(root.decode()),
        _text(node),
        _text(label),
        _seconds(ttl),
        _seconds(expires),
        progress,
        0 if offset is None else int(offset),
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "surrogatepass")


def _seconds(value: bytes | None) -> float | None:
    return None if value is None else int(value) / 1e6


def unpack_ended(body: bytes) -> list[tuple[Record, bytes | None]]:
    """What a script told on the ``done`` channel: records and small values."""
    head, _, rest = body.partition(b";")
    fields: list[bytes | None] = []
    at = 0
    for length in map(int, head.split(b",")):
        fields.append(None if length < 0 else rest[at : at + length])
        at += max(0, length)
    each = keys.RECORD + 3
    return [
        (make_record(UUID((fields[start] or b"").decode()), fields[start + 1 : start + each - 1]), fields[start + each - 1])
        for start in range(0, len(fields), each)
    ]
