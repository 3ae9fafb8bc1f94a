"""What an engine says of its jobs beside their records: which ones there are, what has changed, and what they logged."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from mognet.engine import KEEP_NOTES, GroupBy
from mognet.engines.redis import keys
from mognet.engines.redis.indexing import Indexing, Paths
from mognet.engines.redis.scripts import Arg, hold, id_arg, make_record, micros
from mognet.engines.redis.search import Searching, conditions, is_void
from mognet.labels import has_metadata
from mognet.records import Changed, Changes, LogLine, Query, Record, Reindexed, Token

MOST = 500
"""Changes that one call of a script looks at."""

MAX_DIGITS = 16
"""Digits of the number of a change, which is not below the clock in microseconds."""


class Reports:
    """The part of the engine that asks and is told; who inherits says how a script is run."""

    def __init__(self, start: keys.Prefix) -> None:
        self._start = start
        self._indexing = Indexing(self._run)
        self._searching = Searching(start, self._run, self._indexing)

    async def _run(self, name: str, /, *arguments: Arg) -> Any:
        raise NotImplementedError

    # which jobs there are

    def search(self, query: Query) -> AsyncIterator[Record]:
        return self._searching.search(query)

    async def count(self, query: Query, *, by: GroupBy | str = "state") -> dict[str, int]:
        return await self._searching.count(query, by)

    async def declare(self, keys: Collection[str], *, only: bool = False) -> frozenset[str]:
        return await self._indexing.declare(keys, only=only)

    async def reindex(self, *, limit: int = 1000) -> Reindexed:
        return await self._indexing.reindex(limit)

    # what has changed

    async def identity(self) -> str:
        identity: bytes = await self._run("identity", secrets.token_hex(8).encode())
        return identity.decode()

    async def changes(self, since: str | None, query: Query = Query(), *, limit: int = 1000) -> Changes:  # noqa: B008 - immutable
        if since is not None and not (since.isascii() and since.isdecimal() and len(since) <= MAX_DIGITS):
            raise ValueError(f"since={since!r} is no place in the order of changes")
        start = b"" if since is None else since.encode()

        async def attempt(paths: Paths) -> Any:
            version = paths.version if query.metadata else b"-"
            asked = [*conditions(query, paths), *self._searching.narrow_ways(query, paths)]
            return await self._run("changes", version, start, max(1, min(limit, MOST)), micros(KEEP_NOTES), *asked)

        at, more, lost, rows = await self._indexing.current(attempt)
        told = [
            Changed(number.decode(), make_record(UUID(id.decode()), row))
            for number, id, row in zip(rows[::3], rows[1::3], rows[2::3], strict=True)
        ]
        if query.metadata or is_void(query):
            told = [each for each in told if not is_void(query) and has_metadata(each.record.metadata, query.metadata)]
        return Changes(told, at.decode(), more=more == 1, lost=lost == 1)

    # what a job logs

    async def log(self, lines: Mapping[Token, Sequence[bytes]], *, keep: int) -> set[Token]:
        if not lines:
            return set()
        arguments: list[Arg] = [keep]
        for token, new in lines.items():
            kept = new[-keep:] if keep > 0 else ()
            arguments += [id_arg(token.id), hold(token), len(new), len(kept), *kept]
        held: list[int] = await self._run("log", *arguments)
        return {token for token, holds in zip(lines, held, strict=True) if holds}

    async def logs(self, id: UUID, *, after: int = 0) -> list[LogLine]:
        total, lines = await self._run("logs", id_arg(id), max(0, after))
        first = int(total) - len(lines) + 1
        return [LogLine(number, line) for number, line in enumerate(lines, first)]
