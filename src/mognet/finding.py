"""From the filters of a caller to a query of the engine, and from what the engine counts to what people read."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Set, ValuesView
from datetime import datetime
from typing import Any, Literal, Self, TypedDict
from uuid import UUID

from mognet.codec import dump_metadata, dumps, loads
from mognet.cursors import read_cursor, read_place
from mognet.engine import METADATA, Engine
from mognet.exceptions import ImproperlyConfigured, InvalidCursor, InvalidMetadata, InvalidQuery
from mognet.labels import label
from mognet.paths import check_path, is_plain, value_at
from mognet.records import Place, Query, Wanted
from mognet.states import ResultState

_log = logging.getLogger(__name__)

Order = Literal["newest", "oldest"]

MAX_VALUES = 1000
"""Values that one question may ask for, all its keys together."""

MOST_TOLD = 1000
"""Keys of which a process says that they are not indexed: callers may have chosen them, and what has been said is remembered."""

LONG_GROUPS = 100
"""Groups whose value is too long for its label, and is looked up: the largest ones."""


class Filters(TypedDict, total=False):
    """Which jobs. Every filter that is given has to hold; one that is left out, or is None, does not count.

    * ``metadata``: values by key. A dotted path reaches into objects; values are compared as JSON; a list of values means any of them,
      so what is itself a list stands in another one.
    * ``state``: a state, or several.
    * ``name``: the task's. ``queue``; ``node``: the worker that claimed it last.
    * ``root``: every job of this tree, the root included. ``parent``: what this job submitted.
    * ``created_after``, ``created_before``: a datetime without a time zone is local time.
    """

    metadata: Mapping[str, Any] | None
    state: ResultState | str | Iterable[ResultState | str] | None
    name: str | None
    queue: str | None
    root: UUID | str | None
    parent: UUID | str | None
    node: str | None
    created_after: datetime | None
    created_before: datetime | None


def read_filters(call: str, filters: Mapping[str, Any]) -> Query:
    """The query that the filters of a call make. Raises :class:`InvalidQuery`, and TypeError for a filter that there is not."""
    for name in filters:
        if name not in Filters.__annotations__:
            known = ", ".join(Filters.__annotations__)
            raise TypeError(f"{call}() has no filter {name!r}: there are {known}; a key of metadata is given as metadata={{{name!r}: …}}")
    return Query(
        states=_states(filters.get("state")),
        name=_text("name", filters.get("name")),
        queue=_text("queue", filters.get("queue")),
        node=_text("node", filters.get("node")),
        parent=_id("parent", filters.get("parent")),
        root=_id("root", filters.get("root")),
        created_after=_moment("created_after", filters.get("created_after")),
        created_before=_moment("created_before", filters.get("created_before")),
        metadata=read_metadata(filters.get("metadata")),
    )


def read_order(query: Query, order: Order, limit: int | None) -> Query:
    """The query with an order and a limit. Raises :class:`InvalidQuery`."""
    if order not in ("newest", "oldest"):
        raise InvalidQuery(f"order={_shown(order)}: should be 'newest' or 'oldest'")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InvalidQuery(f"limit={_shown(limit)}: should be a number from 1, or None for no limit")
    return query._replace(newest_first=order == "newest", limit=None if limit is None else min(limit, 2**31 - 1))


def read_after(identity: str, cursor: str) -> Place:
    """The place that a cursor of ``find`` stands for. Raises :class:`InvalidCursor`."""
    try:
        created, place, id = read_cursor("find", identity, cursor)
        return read_place(created, place, id)
    except ValueError as error:
        if isinstance(error, InvalidCursor):
            raise
        raise InvalidCursor("this cursor was changed: give back what an earlier answer gave") from None


def _shown(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 100 else f"{text[:99]}…"


def _states(given: Any) -> frozenset[ResultState]:
    if given is None:
        return frozenset()
    words = [given] if isinstance(given, str) else _several("state", given)
    if not words:
        raise InvalidQuery("state: none is named, and nothing is in no state; to ask for any state, leave it out")
    try:
        return frozenset(ResultState(word) for word in words)
    except ValueError as error:
        raise InvalidQuery(f"state: {error}; there are: {', '.join(ResultState)}") from None


def _several(name: str, given: Any) -> list[Any]:
    try:
        return list(given)
    except TypeError:
        raise InvalidQuery(f"{name}={_shown(given)}: should be one, or a list of them") from None


def _text(name: str, given: Any) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str):
        raise InvalidQuery(f"{name}={_shown(given)}: should be a string")
    if not is_plain(given):
        raise InvalidQuery(f"{name}={_shown(given)}: holds a NUL character or half of a surrogate pair, which no {name} does")
    return given


def _id(name: str, given: Any) -> UUID | None:
    if given is None or isinstance(given, UUID):
        return given
    try:
        return UUID(given)
    except (ValueError, AttributeError, TypeError):
        raise InvalidQuery(f"{name}={_shown(given)}: should be a job's id, which is a UUID") from None


def _moment(name: str, given: Any) -> float | None:
    if given is None:
        return None
    if not isinstance(given, datetime):
        raise InvalidQuery(f"{name}={_shown(given)}: should be a datetime")
    try:
        return given.timestamp()
    except (OverflowError, OSError, ValueError):
        raise InvalidQuery(f"{name}={given.isoformat()}: has no place on this machine's clock") from None


def read_metadata(given: Any) -> tuple[Wanted, ...]:
    """The conditions that values by key make. Raises :class:`InvalidQuery`."""
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise InvalidQuery(f"metadata={_shown(given)}: should be values by key, such as {{'tenant_id': 'acme'}}")
    conditions = tuple(_condition(key, value) for key, value in given.items())
    if sum(len(each.labels) for each in conditions) > MAX_VALUES:
        largest = max(conditions, key=lambda each: len(each.labels))
        raise InvalidQuery(f"metadata key {largest.path!r}: a question may ask for {MAX_VALUES:,} values in all; ask several times")
    return conditions


def _condition(key: Any, value: Any) -> Wanted:
    try:
        path = check_path(key)
    except ValueError as error:
        raise InvalidQuery(f"metadata: {error}") from None
    # Views and iterators, too: as one value, they would be a JSON list, which no job has that anybody would look for in this way.
    values = list(value) if isinstance(value, list | tuple | Set | ValuesView | Iterator) else [value]
    if not values:
        raise InvalidQuery(f"metadata key {path!r}: the list of values is empty, and nothing is one of none; an empty list itself is [[]]")
    return Wanted(path, frozenset(label(_as_json(path, each)) for each in values))


def _as_json(path: str, value: Any) -> Any:
    try:
        return loads(dump_metadata({path: value}))[path]
    except InvalidMetadata as error:
        raise InvalidQuery(f"{error}: no job has it") from None


# --- what is counted


def read_by(by: Any) -> str:
    """By what is to be counted. Raises :class:`InvalidQuery`."""
    if isinstance(by, str) and by.startswith(METADATA):
        try:
            check_path(by.removeprefix(METADATA))
        except ValueError as error:
            raise InvalidQuery(f"by={by!r}: {error}") from None
    elif by not in ("state", "queue", "name"):
        meant = f"; did you mean 'metadata:{by}'?" if isinstance(by, str) and by not in ("", METADATA.removesuffix(":")) else ""
        raise InvalidQuery(f"by={by!r}: should be 'state', 'queue', 'name' or 'metadata:KEY'{meant}")
    return str(by)


def name_groups(counted: Mapping[str, int], values: Mapping[str, str]) -> dict[str, int]:
    """Counts by label as counts by what people read: strings as they are, or, where that could be something else, too, all as JSON.

    ``values`` are the JSON texts of values that are longer than their labels. Those without a value stay "".
    """
    texts = {values.get(each, each): count for each, count in counted.items()}
    return {_readable(text, texts): count for text, count in texts.items()}


def _readable(text: str, texts: Mapping[str, int]) -> str:
    plain = loads(text.encode()) if text.startswith('"') else text
    return text if not plain or plain in texts else str(plain)


def sort_groups(counted: Mapping[str, int]) -> dict[str, int]:
    """The largest first."""
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def is_shortened(group: str) -> bool:
    """Whether a label stands for a value that is longer than it."""
    return group.startswith("#")


async def long_values(engine: Engine, query: Query, path: str, counted: Mapping[str, int]) -> dict[str, str]:
    """The JSON texts of the values whose labels are shortened, for the largest groups."""
    groups = [each for each in sort_groups(counted) if is_shortened(each)][:LONG_GROUPS]
    found = {}
    for group in groups:
        one = query._replace(metadata=(*query.metadata, Wanted(path, frozenset({group.encode()}))), limit=1, newest_first=True)
        async for record in engine.search(one):
            found[group] = dumps(value_at(loads(record.metadata), path)).decode()
    return found


# --- what is not indexed


class Indexes:
    """Which keys of metadata a search of this process may rely on, as far as it knows."""

    def __init__(self, engine: Engine, declared: frozenset[str] = frozenset(), whole: frozenset[str] = frozenset()) -> None:
        self._engine = engine
        self._declared = declared
        self._whole = whole

    @classmethod
    async def declare(cls, engine: Engine, keys: Collection[str]) -> Self:
        """Have the engine index these keys."""
        try:
            declared = frozenset(map(check_path, keys))  # a set of settings may have been changed in place
        except ValueError as error:
            raise ImproperlyConfigured(f"searchable_metadata: {error}") from None
        return cls(engine, declared, await engine.declare(declared) if declared else declared)

    async def warn(self, query: Query, by: str = "state") -> None:
        """Say, once for each key in this process, that the engine has to look at every job to find by it, and what helps.

        After :data:`MOST_TOLD` keys no more is said: so many are not chosen by whoever wrote the program.
        """
        paths = [each.path for each in query.metadata]
        asked = [*paths, by.removeprefix(METADATA)] if by.startswith(METADATA) else paths
        if query.root is not None or query.parent is not None or not self._whole.isdisjoint(paths) or _told.issuperset(asked):
            return
        if len(_told) >= MOST_TOLD:
            return
        if not self._whole.issuperset(self._declared):  # somebody may have completed them since
            self._whole = await self._engine.declare(self._declared)
        for path in asked if self._whole.isdisjoint(paths) else ():
            if path in _told or path in self._whole or len(_told) >= MOST_TOLD:
                continue
            _told.add(path)
            why = (
                "its index is not complete:" if path in self._declared else "it has no index. Add it to AppConfig.searchable_metadata, and"
            )
            last = f" No other key is named after these {MOST_TOLD}." if len(_told) == MOST_TOLD else ""
            _log.warning("every job is looked at to find by the metadata key %r: %s %s%s", path, why, _REINDEX, last)


_REINDEX = "run `mognet APP store reindex` once, APP being the app's MODULE:ATTRIBUTE, as for `mognet APP run`."

_told: set[str] = set()
"""Keys of which this process has said so."""
