"""Which paths in the metadata are indexed: what the server was told last, and how its indexes come to be whole."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic_core import from_json, to_json

from mognet import labels as form
from mognet.engines.redis import keys
from mognet.engines.redis.scripts import NOTHING, STALE, Arg, Described, Run, describe, labels
from mognet.exceptions import ConnectionError
from mognet.records import Reindexed

STEP = 500
"""Jobs that one call takes into the indexes."""

ATTEMPTS = 100
"""Declarations that an operation may be overtaken by, one after the other, until it gives up."""


RECENT, SHORT = 500, 1000
"""Metadata of so many jobs is remembered, if it has no more than so many bytes."""


@dataclass(frozen=True, slots=True)
class Paths:
    """A declaration."""

    version: bytes = b""
    """Another one at each change; nothing at all: nothing was ever declared."""
    numbers: Mapping[str, bytes] = field(default_factory=dict)
    """What the paths are called on the server."""
    whole: frozenset[str] = frozenset()
    """Those whose index leads to all jobs."""
    plain: Mapping[str, bytes] = field(init=False)
    """The numbers of the paths that are keys."""
    deep: tuple[str, ...] = field(init=False)
    """The other paths."""
    recent: dict[bytes, Described] = field(init=False, repr=False, compare=False)
    """Metadata that came lately, as it is stored: many jobs in a row are of the same tenant or user."""

    def __post_init__(self) -> None:
        derived = {
            "plain": {path: number for path, number in self.numbers.items() if "." not in path},
            "deep": tuple(path for path in self.numbers if "." in path),
            "recent": {},
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def of_job(self, metadata: bytes) -> Described:
        """The metadata of a new job, and what it is to be found by."""
        found = self.recent.get(metadata)
        if found is None:
            found = self._of_job(metadata)
            if len(metadata) <= SHORT:
                if len(self.recent) >= RECENT:
                    self.recent.clear()
                self.recent[metadata] = found
        return found

    def _of_job(self, metadata: bytes) -> Described:
        data: dict[str, Any] = from_json(metadata)
        if not data:
            return NOTHING
        found: list[bytes] = []
        for key, number in self.plain.items():
            if key in data:
                value = data[key]
                text = to_json(value) if type(value) is str else b""
                # The text of a short string is its label.
                found += (number, text if 0 < len(text) <= form.MAX_LABEL else form.label(value))
        for path, label in form.labels(metadata, self.deep).items():
            found += (self.numbers[path], label)
        return describe(to_json(data), found)

    def of_change(self, metadata: bytes) -> list[bytes]:
        """The fields of new metadata of a job, and what becomes of its labels."""
        fields = labels(metadata)
        if self.numbers and fields:
            tops = set(from_json(metadata))
            reached = [path for path in self.numbers if path.partition(".")[0] in tops]
            found = form.labels(metadata, reached)
            for path in reached:
                fields += (self.numbers[path], b"+" + found[path] if path in found else b"-")
        return fields


class Indexing:
    """The declared paths as far as this engine knows. Whoever uses them says by which version; if the server has another, it asks again."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.paths = Paths()
        self._wanted: set[str] = set()
        """What was declared here, to be declared again if the server is emptied."""

    async def current(self, attempt: Callable[[Paths], Awaitable[Any]]) -> Any:
        """The answer of a script, called with the paths that are declared now."""
        for _ in range(ATTEMPTS):
            answer = await attempt(self.paths)
            if answer != STALE:
                return answer
            await self.ask()
        raise ConnectionError("the declaration of searchable metadata changes faster than it can be read")

    async def _declare(self, paths: Collection[str], *, only: bool) -> Paths:
        version, *pairs = await self._run("declare", secrets.token_hex(8).encode(), int(only), *map(keys.text, paths))
        told = {path.decode("utf-8", "surrogatepass"): number for path, number in zip(pairs[::2], pairs[1::2], strict=True)}
        numbers = {path: number.rstrip(b"?") for path, number in told.items()}
        whole = frozenset(path for path, number in told.items() if number == numbers[path])
        self.paths = Paths(version, numbers, whole)
        return self.paths

    async def ask(self) -> Paths:
        """What is declared now."""
        paths = await self._declare([], only=False)
        # Where nothing was ever declared. (What others have given up stays so.)
        return paths if paths.version or not self._wanted else await self._declare(self._wanted, only=False)

    async def whole(self, paths: Collection[str]) -> frozenset[str]:
        """The paths whose index is whole; the server is asked if one of these is not known to be."""
        return self.paths.whole if self.paths.whole.issuperset(paths) else (await self.ask()).whole

    async def declare(self, paths: Collection[str], *, only: bool) -> frozenset[str]:
        """Let the server index these paths; answers those whose index is whole."""
        self._wanted = set(paths) if only else self._wanted.union(paths)
        return (await self._declare(paths, only=only)).whole & frozenset(paths)

    async def reindex(self, limit: int) -> Reindexed:
        """Take so many jobs into the indexes that are not whole."""
        done = 0
        while True:
            step = await self.current(partial(self._step, min(STEP, limit - done)))
            done += step.done
            if not step.left or done >= limit:
                return Reindexed(done, step.left)

    async def _step(self, most: int, paths: Paths) -> Any:
        behind = [path for path in paths.numbers if path not in paths.whole]
        tops = list({path.partition(".")[0]: to_json(path.partition(".")[0]) for path in behind}.values())
        answer = await self._run("walk", paths.version, most, *tops)
        if answer == STALE:
            return STALE
        if answer is None:
            return Reindexed(0, 0)
        score, id, more, looked, rows = answer
        entries: list[Arg] = []
        for job, values in zip(rows[::2], rows[1::2], strict=True):
            entries += _entries(job, dict(zip(tops, values, strict=True)), behind, paths)
        version = b"" if more else secrets.token_hex(8).encode()
        left = await self._run("index", paths.version, version, score, id, *entries)
        return STALE if left == STALE else Reindexed(looked, left)


def _entries(job: bytes, values: dict[bytes, bytes | None], behind: Sequence[str], paths: Paths) -> list[Arg]:
    """A job's labels as ``index.lua`` takes them."""
    there = {key: value for key, value in values.items() if value is not None}
    metadata = b"{%b}" % b",".join(b"%b:%b" % pair for pair in there.items())
    entries: list[Arg] = []
    for path, label in form.labels(metadata, behind).items():
        key = to_json(path.partition(".")[0])
        entries += (job, paths.numbers[path], key, there[key], label)
    return entries
