"""Looking through the records, a stretch of an index at a time, so that no look holds up the server for long."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from mognet.engine import GroupBy
from mognet.engines.redis import keys
from mognet.engines.redis.scripts import DIGITS, STATES, Arg, id_arg, make_record, micros, optional
from mognet.records import Query, Record
from mognet.states import FINAL, ResultState

CHUNK = 250
"""Records that one call answers."""

SELECTIVE = 4
"""Digits of an id from which on the set of all ids is the better way in."""


class Run(Protocol):
    """Runs a script."""

    def __call__(self, name: str, /, *arguments: Arg) -> Awaitable[Any]: ...


class Count(NamedTuple):
    """How many jobs are alike."""

    state: ResultState
    lined: bool
    queue: str
    name: str | None
    number: int


class Searching:
    """The search and the count of one engine."""

    def __init__(self, start: keys.Prefix, run: Run) -> None:
        self._start = start
        self._run = run

    async def search(self, query: Query) -> AsyncIterator[Record]:
        """The records that match, by creation."""
        left = query.limit
        if left is not None and left <= 0:
            return
        if query.id_prefix is not None and re.fullmatch("[0-9a-f]{0,32}", query.id_prefix) is None:
            return
        if query.id_prefix is not None and len(query.id_prefix) >= SELECTIVE and not query.in_line:
            ids = self._with_prefix(query.id_prefix)
            for record in (await self._among([id async for id in ids], query))[:left]:
                yield record
            return
        from_, after = b"", b""
        while True:
            most = CHUNK if left is None else min(CHUNK, left)
            more, from_, after, rows = await self._run("search", *self._arguments(query, from_, after, most))
            for id, row in zip(rows[::2], rows[1::2], strict=True):
                yield make_record(UUID(id.decode()), row)
            left = None if left is None else left - len(rows) // 2
            if not more or (left is not None and left <= 0):
                return

    def _arguments(self, query: Query, from_: bytes, after: bytes, most: int) -> list[Arg]:
        low = b"-inf" if query.created_after is None else b"(" + micros(query.created_after)
        high = b"+inf" if query.created_before is None else b"(" + micros(query.created_before)
        parent = b"" if query.parent is None else id_arg(query.parent)
        root = b"" if query.root is None else id_arg(query.root)
        states = b"".join(DIGITS[state] for state in query.states)
        arguments: list[Arg] = [int(query.newest_first), low, high, from_, after, most, states]
        arguments += [optional(query.name), optional(query.queue), optional(query.node), parent, root, (query.id_prefix or "").encode()]
        arguments.append(int(query.in_line))
        unfinished, finished = keys.by_creation(self._start)
        if parent:
            return [*arguments, b"", keys.children(self._start, parent)]
        if root:
            return [*arguments, root, keys.tree(self._start, root)]
        if query.in_line or (query.states and not query.states & FINAL):
            return [*arguments, b"", unfinished]
        if query.states and query.states <= FINAL:
            return [*arguments, b"", finished]
        return [*arguments, b"", unfinished, finished]

    async def _with_prefix(self, prefix: str) -> AsyncIterator[bytes]:
        last = b""
        while ids := await self._run("prefix", prefix.encode(), 10 * CHUNK, last):
            for id in ids:
                yield id
            last = ids[-1]

    async def _among(self, ids: list[bytes], query: Query) -> list[Record]:
        """Those of these jobs that match, by creation."""
        found: list[Record] = []
        for start in range(0, len(ids), CHUNK):
            part = ids[start : start + CHUNK]
            rows = await self._run("get", *part)
            found += [make_record(UUID(id.decode()), row) for id, row in zip(part, rows, strict=True) if row is not None]
        matching = [record for record in found if _matches(record, query)]
        return sorted(matching, key=lambda record: record.created, reverse=query.newest_first)

    async def count(self, query: Query, by: GroupBy) -> dict[str, int]:
        """How many records match, by state, queue or name."""
        query = query._replace(limit=None, newest_first=False)
        groups: dict[str, int] = {}
        if query == Query(states=query.states, name=query.name, queue=query.queue, in_line=query.in_line):
            for state, lined, queue, name, number in await self._counts():
                if (
                    (lined or not query.in_line)
                    and (not query.states or state in query.states)
                    and query.name in (None, name)
                    and query.queue in (None, queue)
                ):
                    group = {"state": str(state), "queue": queue, "name": name or ""}[by]
                    groups[group] = groups.get(group, 0) + number
            return groups
        async for record in self.search(query):
            group = str(getattr(record, by) or "")
            groups[group] = groups.get(group, 0) + 1
        return groups

    async def _counts(self) -> list[Count]:
        answer = await self._run("count")
        while answer is None:
            answer = await self._run("count")
        counts: list[Count] = []
        for field, number in zip(answer[::2], answer[1::2], strict=True):
            length, _, rest = field[2:].partition(b":")
            queue, name = rest[: int(length)], rest[int(length) :]
            known = name[1:].decode("utf-8", "surrogatepass") if name.startswith(b"+") else None
            counts.append(Count(STATES[int(field[:1])], field[1:2] == b"1", queue.decode("utf-8", "surrogatepass"), known, int(number)))
        return counts


def _matches(record: Record, query: Query) -> bool:
    return (
        (not query.states or record.state in query.states)
        and query.name in (None, record.name)
        and query.queue in (None, record.queue)
        and query.node in (None, record.node)
        and query.parent in (None, record.parent)
        and query.root in (None, record.root)
        and (query.created_after is None or record.created > query.created_after)
        and (query.created_before is None or record.created < query.created_before)
    )
