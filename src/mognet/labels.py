"""Metadata as something to look for: values in one normal form, and the paths to them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from pydantic_core import from_json, to_json

from mognet.records import Wanted

MAX_LABEL = 100
"""Bytes of a label; what is longer is shortened to a digest."""


def label(value: Any) -> bytes:
    """A JSON value as it is indexed and compared: equal values have equal labels, whatever the order of keys and the form of numbers."""
    text = to_json(_normal(value))
    return text if len(text) <= MAX_LABEL else b"#" + blake2b(text, digest_size=20).hexdigest().encode()


def _normal(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _normal(value[key]) for key in sorted(value)}
    return [_normal(item) for item in value] if isinstance(value, list) else value


def labels(metadata: bytes, paths: Collection[str]) -> dict[str, bytes]:
    """The labels of the values at these paths, as far as there are any. A path is a key, or keys into objects with dots between them."""
    if metadata == b"{}" or not paths:
        return {}
    data: Any = from_json(metadata)
    found = {}
    for path in paths:
        value = data.get(path, _NOTHING) if "." not in path else _reach(data, path)
        if type(value) is str:
            text = to_json(value)
            found[path] = text if len(text) <= MAX_LABEL else label(value)
        elif value is not _NOTHING:
            found[path] = label(value)
    return found


def select(metadata: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """The values at these paths, as far as there are any, by path; a key that is called like a path goes before it."""
    found = ((path, metadata[path] if path in metadata else _reach(metadata, path)) for path in paths)
    return {path: value for path, value in found if value is not _NOTHING}


def _reach(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value.get(key, _NOTHING) if isinstance(value, dict) else _NOTHING
    return value


_NOTHING = object()


def has_metadata(metadata: bytes, wanted: Sequence[Wanted]) -> bool:
    """Whether every condition holds."""
    found = labels(metadata, [each.path for each in wanted])
    return all(found.get(each.path) in each.labels for each in wanted)
