"""Looking through the records, a stretch of an index at a time, so that no look holds up the server for long."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import from_json, to_json

from mognet.engine import METADATA, next_step
from mognet.engines.redis import keys
from mognet.engines.redis.indexing import Indexing, Paths
from mognet.engines.redis.scripts import DIGITS, STATES, Arg, Run, id_arg, make_record, micros, optional
from mognet.labels import has_metadata, label, labels
from mognet.paths import is_plain
from mognet.records import Place, Query, Record, Wanted
from mognet.states import FINAL, ResultState

CHUNK = 250
"""Records that one call answers."""

SELECTIVE = 4
"""Digits of an id from which on the set of all ids is the better way in."""

MANY = 100
"""Labels up to which an index is a way in."""

FIRST = (b"", b"")
"""The place before all others: score and id."""


class Count(NamedTuple):
    """How many jobs are alike."""

    state: ResultState
    lined: bool
    queue: str
    name: str | None
    number: int


class Searching:
    """The search and the count of one engine."""

    def __init__(self, start: keys.Prefix, run: Run, indexing: Indexing) -> None:
        self._start = start
        self._run = run
        self._indexing = indexing

    # records

    async def search(self, query: Query) -> AsyncIterator[Record]:
        """The records that match, by creation."""
        left = query.limit
        if is_void(query) or (left is not None and left <= 0):
            return
        if _is_selective(query):
            known = [record async for record in self._among(query) if query.after is None or _is_behind(record, query.after, query)]
            for record in sorted(known, key=lambda record: record.stand, reverse=query.newest_first)[:left]:
                yield record
            return
        place: Sequence[bytes] = FIRST if query.after is None else _score(query.after)
        more: Any = 1
        while more and (left is None or left > 0):
            more, *place, rows = await self._stretch(query, place, left)
            next_step.get()()
            for record in records_of(rows, query):
                yield record
                left = None if left is None else left - 1
                if left == 0:
                    break

    async def _stretch(self, query: Query, place: Sequence[bytes], left: int | None, by: str = "") -> Any:
        """The next records, or how many there are of each group; nothing: they cannot be counted at the server."""
        path = by.removeprefix(METADATA) if by.startswith(METADATA) else None

        async def attempt(paths: Paths) -> Any:
            judged = all(_field(wanted, paths) is not None for wanted in query.metadata)
            group = by.encode() if path is None else _group_field(path, paths)
            if group is None or (by and not judged):
                return ()
            most = min(CHUNK, left) if left is not None and judged else CHUNK
            version = b"-" if path is None and not query.metadata else paths.version
            asked = [*conditions(query, paths), *self._ways(query, paths)]
            return await self._run("search", version, int(query.newest_first), *place, most, group, *asked)

        return await self._indexing.current(attempt)

    def _ways(self, query: Query, paths: Paths) -> list[Arg]:
        """A job that stands beside the ways (or none), and the ways to all the others."""
        top, ways = self._narrow(query, paths)
        if query.parent is None and query.root is None:
            unfinished, finished = keys.by_creation(self._start)
            if query.in_line or (query.states and not query.states & FINAL):
                sets = [unfinished]
            elif query.states and query.states <= FINAL:
                sets = [finished]
            else:
                sets = [unfinished, finished]
            ways.append([item for each in sets for item in (each, b"")])
        return _ways_arg(top, ways)

    def narrow_ways(self, query: Query, paths: Paths) -> list[Arg]:
        """The same, but none that leads to jobs of all kinds."""
        if query.id_prefix is not None and query.names_one:
            return _ways_arg(query.id_prefix.encode(), [[]])
        return _ways_arg(*self._narrow(query, paths))

    def _narrow(self, query: Query, paths: Paths) -> tuple[bytes, list[list[Arg]]]:
        top, ways = b"", list[list[Arg]]()
        if query.parent is not None:
            ways.append([keys.children(self._start, id_arg(query.parent)), b""])
        elif query.root is not None:
            top = id_arg(query.root)
            ways.append([keys.tree(self._start, top), b""])
        for wanted in query.metadata:
            if wanted.path in paths.whole and len(wanted.labels) <= MANY:
                index = keys.index(self._start, paths.numbers[wanted.path])
                ways.append([item for label in wanted.labels for item in (index, label)])
        return top, ways

    async def _among(self, query: Query) -> AsyncIterator[Record]:
        """Those that match of the jobs that are found by id or by family, in no order."""
        # How they were found says that they are below.
        rest = query._replace(under=None)

        def ask(ids: list[bytes]) -> Callable[[Paths], Awaitable[Any]]:
            return lambda paths: self._run("among", paths.version if query.metadata else b"-", *conditions(rest, paths), *ids)

        async for ids in self._with_prefix(query.id_prefix or "") if query.under is None else self._below(query.under):
            looked = 0
            while looked < len(ids):
                more, rows = await self._indexing.current(ask(ids[looked:]))
                looked += more
                next_step.get()()
                for record in records_of(rows, query):
                    yield record

    async def _with_prefix(self, prefix: str) -> AsyncIterator[list[bytes]]:
        last = b""
        while ids := await self._run("prefix", prefix.encode(), CHUNK, last):
            yield ids
            last = ids[-1]

    async def _below(self, top: UUID) -> AsyncIterator[list[bytes]]:
        """A job, and all below it as far as records lead; ids that are used again may make a circle."""
        todo = [id_arg(top)]
        seen = set(todo)
        yield todo[:]
        while todo:
            family = Query(parent=UUID(todo.pop().decode()))
            children = [id async for record in self.search(family) if (id := id_arg(record.id)) not in seen]
            seen.update(children)
            for start in range(0, len(children), CHUNK):
                part = children[start : start + CHUNK]
                yield part
                todo += [id for id, has in zip(part, await self._run("parents", *part), strict=True) if has]

    # counts

    async def count(self, query: Query, by: str) -> dict[str, int]:
        """How many records match, by state, queue or name, or by a value in their metadata."""
        query = query._replace(limit=None, newest_first=False, after=None)
        path = by.removeprefix(METADATA) if by.startswith(METADATA) else None
        if is_void(query):
            return {}
        if path is None and query == Query(states=query.states, name=query.name, queue=query.queue, in_line=query.in_line):
            return await self._known(query, by)
        used = {wanted.path for wanted in query.metadata} | ({path} if path is not None else set())
        whole = await self._indexing.whole(used) if used else frozenset()
        if not _is_selective(query):
            groups = await self._values(path) if path in whole and path is not None and query == Query() else await self._grouped(query, by)
            if groups is not None:
                return groups
        counter = Counter[str]()
        async for record in self.search(query):
            counter[_group(record, by, path)] += 1
        return dict(counter)

    async def _known(self, query: Query, by: str) -> dict[str, int]:
        """From the numbers that are kept."""
        counter = Counter[str]()
        for state, lined, queue, name, number in await self._counts():
            fits = (lined or not query.in_line) and (not query.states or state in query.states)
            if fits and query.name in (None, name) and query.queue in (None, queue):
                counter[{"state": str(state), "queue": queue, "name": name or ""}[by]] += number
        return dict(counter)

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

    async def _values(self, path: str) -> dict[str, int] | None:
        """By an index, of all records; None: it is given up just now."""

        async def attempt(paths: Paths) -> Any:
            return await self._run("values", paths.version, paths.numbers[path], last) if path in paths.whole else ()

        groups: dict[str, int] = {}
        more, total, last = 1, 0, b""
        while more:
            answer = await self._indexing.current(attempt)
            if answer == ():
                return None
            if answer is not None:
                more, total, found = answer
                groups.update((label.decode(), number) for label, number in zip(found[::2], found[1::2], strict=True))
                last = found[-2] if found else last
        without = total - sum(groups.values())
        return groups | {"": without} if without > 0 else groups

    async def _grouped(self, query: Query, by: str) -> dict[str, int] | None:
        """By looking at the records at the server; None: they have to be looked at here."""
        counter = Counter[str]()
        place: Sequence[bytes] = FIRST
        more: Any = 1
        while more:
            answer = await self._stretch(query, place, None, by)
            if answer == ():
                return None
            next_step.get()()
            more, *place, found = answer
            for name, number in zip(found[::2], found[1::2], strict=True):
                counter[self._group_name(name, by)] += number
        return dict(counter)

    def _group_name(self, name: bytes, by: str) -> str:
        if by == "state":
            return str(STATES[int(name)])
        if name and by.startswith(METADATA) and by.removeprefix(METADATA) not in self._indexing.paths.whole:
            return label(from_json(name)).decode()
        return name.decode("utf-8", "surrogatepass")


def _ways_arg(single: bytes, ways: list[list[Arg]]) -> list[Arg]:
    """Sets, each with the label that its entries begin with, as ``finding.lua`` takes them."""
    return [single, len(ways), *(item for way in ways for item in (len(way) // 2, *way))]


def _field(wanted: Wanted, paths: Paths) -> bytes | None:
    """By which field of a job's metadata the server judges this condition; None: it cannot."""
    if wanted.path in paths.whole:
        return paths.numbers[wanted.path]
    # A string's text is its label. Other values have more than one text.
    if all(each.startswith(b'"') for each in wanted.labels):
        return _key(wanted.path)
    return None


def _group_field(path: str, paths: Paths) -> bytes | None:
    return paths.numbers[path] if path in paths.whole else _key(path)


def _key(path: str) -> bytes | None:
    """The field of a key, which has the value as a JSON text; None: it is a path into objects, or no key that can be stored."""
    return to_json(path) if "." not in path and is_plain(path) else None


def conditions(query: Query, paths: Paths) -> list[Arg]:
    """A query as ``finding.lua`` takes it; what that cannot judge is left out."""
    judged = [(field, wanted.labels) for wanted in query.metadata if (field := _field(wanted, paths)) is not None]
    ids = [b"" if id is None else id_arg(id) for id in (query.parent, query.root, query.under)]
    low = b"-inf" if query.created_after is None else b"(" + micros(query.created_after)
    high = b"+inf" if query.created_before is None else b"(" + micros(query.created_before)
    states = b"".join(DIGITS[state] for state in query.states)
    asked: list[Arg] = [states, optional(query.name), optional(query.queue), optional(query.node), *ids]
    asked += [(query.id_prefix or "").encode(), low, high, int(query.in_line), len(judged)]
    for field, wanted_labels in judged:
        asked += [field, len(wanted_labels), *wanted_labels]
    return asked


def is_void(query: Query) -> bool:
    """Whether nothing can match."""
    prefix = query.id_prefix is not None and re.fullmatch("[0-9a-f]{0,32}", query.id_prefix) is None
    return prefix or not all(wanted.labels for wanted in query.metadata)


def _is_selective(query: Query) -> bool:
    """Whether its jobs are better found by id or by family, and then put in order."""
    return query.under is not None or (query.id_prefix is not None and len(query.id_prefix) >= SELECTIVE and not query.in_line)


def _is_behind(record: Record, place: Place, query: Query) -> bool:
    return record.stand < place if query.newest_first else record.stand > place


def _score(place: Place) -> tuple[bytes, bytes]:
    return b"%d" % (round(place.created * 1_000_000) + place.place), id_arg(place.id)


def records_of(rows: Sequence[Any], query: Query) -> list[Record]:
    """The records of ids and rows, as far as their metadata matches: what the server cannot judge, it leaves."""
    records = [make_record(UUID(id.decode()), row) for id, row in zip(rows[::2], rows[1::2], strict=True)]
    return [record for record in records if has_metadata(record.metadata, query.metadata)] if query.metadata else records


def _group(record: Record, by: str, path: str | None) -> str:
    if path is not None:
        return labels(record.metadata, [path]).get(path, b"").decode()
    return str(getattr(record, by) or "")
