"""From filters to what is found, held against going through all jobs by hand."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mognet import finding
from mognet.backend import ResultBackend
from mognet.codec import dump_metadata, loads
from mognet.cursors import write_cursor
from mognet.engines.memory import MemoryEngine
from mognet.exceptions import InvalidCursor, InvalidQuery
from mognet.finding import Indexes, name_groups, read_metadata
from mognet.labels import label
from mognet.outcomes import failed, paused, revoke, succeeded
from mognet.records import Job, Query, Record
from mognet.registry import TaskRegistry
from mognet.states import ResultState

START = 1_700_000_000.0
NOTHING = object()

VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 1.0, -1, 0.5, 2**60, "", "0", "1", "true", "null", "acme", "ä", '"1"', "x" * 200, "x" * 199]),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
    max_leaves=3,
)
PATHS = st.sampled_from(["tenant", "user", "user.a", "user.a.b", "tenant.b", "none"])


class Fate(NamedTuple):
    """A job, and what becomes of it."""

    name: str
    queue: str
    metadata: dict[str, Any]
    end: str
    node: str
    above: int | None
    later: bool
    """Whether it comes a second after the one before; else at the same moment."""


FATES = st.builds(
    Fate,
    name=st.sampled_from(["mail", "report"]),
    queue=st.sampled_from(["q", "slow"]),
    metadata=st.dictionaries(st.sampled_from(["tenant", "user"]), VALUES, max_size=2),
    end=st.sampled_from(["wait", "run", "succeed", "fail", "pause", "revoke"]),
    node=st.sampled_from(["n1", "n2"]),
    above=st.none() | st.integers(0, 5),
    later=st.booleans(),
)


def moment(second: int) -> datetime:
    return datetime.fromtimestamp(START + second, UTC)


def one_or_some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return values | st.lists(values, min_size=1, max_size=3)


FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.dictionaries(
            PATHS, VALUES.filter(lambda value: not isinstance(value, list)) | st.lists(VALUES, min_size=1), max_size=2
        ),
        "state": one_or_some(st.sampled_from([*ResultState, "PENDING", "SUCCESS"])),
        "name": st.sampled_from(["mail", "report", "other"]),
        "queue": st.sampled_from(["q", "slow"]),
        "node": st.sampled_from(["n1", "n2"]),
        "root": st.integers(0, 7),
        "parent": st.integers(0, 7),
        "created_after": st.integers(-1, 6).map(moment),
        "created_before": st.integers(-1, 8).map(moment),
    },
)


def equal(a: Any, b: Any) -> bool:
    """JSON equality, by hand: 1 is 1.0, but not True and not "1"."""
    if isinstance(a, bool) or isinstance(b, bool) or not isinstance(a, int | float) or not isinstance(b, int | float):
        if type(a) is not type(b):
            return False
        if isinstance(a, list):
            return len(a) == len(b) and all(map(equal, a, b))
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return bool(a == b)


def at(value: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return NOTHING
        value = value[key]
    return value


def fits(record: Record, filters: dict[str, Any]) -> bool:
    """Whether every filter holds, each in the plainest way."""

    def wanted(path: str, value: Any) -> bool:
        found = at(loads(record.metadata), path)
        return any(equal(found, each) for each in (value if isinstance(value, list) else [value]))

    state = filters.get("state")
    created = datetime.fromtimestamp(record.created, UTC)
    return all(
        (
            all(wanted(path, value) for path, value in filters.get("metadata", {}).items()),
            state is None or record.state in ([state] if isinstance(state, str) else state),
            filters.get("name") in (None, record.name),
            filters.get("queue") in (None, record.queue),
            filters.get("node") in (None, record.node),
            filters.get("root") in (None, record.root),
            filters.get("parent") in (None, record.parent),
            "created_after" not in filters or created > filters["created_after"],
            "created_before" not in filters or created < filters["created_before"],
        )
    )


async def play(fates: list[Fate], now: list[float]) -> tuple[MemoryEngine, list[UUID]]:
    """An engine on which that has happened."""
    engine = MemoryEngine(clock=lambda: now[0])
    ids = [UUID(int=n + 1) for n in range(len(fates))]
    for n, fate in enumerate(fates):
        now[0] += fate.later
        above = ids[fate.above] if fate.above is not None and fate.above < n else None
        [parent] = await engine.get([above]) if above is not None else [None]
        job = Job(ids[n], fate.name, fate.queue, b"", dump_metadata(fate.metadata), parent=above, root=parent and parent.root)
        await engine.submit([job])
        if fate.end == "revoke":
            await engine.update(ids[n], revoke())
        elif fate.end != "wait" and (claims := await engine.claim(fate.node, [fate.queue], 1, lease=100, ids=[ids[n]])):
            ends: dict[str, Callable[..., Any]] = {"succeed": lambda t: succeeded(t, b"1"), "fail": lambda t: failed(t, b"{}")}
            ends["pause"] = lambda t: paused(t, 100)
            if fate.end in ends:
                await engine.settle([ends[fate.end](claims[0].token)])
    return engine, ids


def with_ids(filters: dict[str, Any], ids: list[UUID]) -> dict[str, Any]:
    known = {name: ids[filters[name]] if filters[name] < len(ids) else uuid4() for name in ("root", "parent") if name in filters}
    return filters | known


@given(st.lists(FATES, max_size=8), FILTERS, st.sampled_from(["newest", "oldest"]), st.integers(1, 4))
def test_what_is_found_is_what_fits(fates: list[Fate], filters: dict[str, Any], order: Any, size: int) -> None:
    """All at once and page by page, in both orders."""

    async def main() -> None:
        engine, ids = await play(fates, [START])
        wanted = with_ids(filters, ids)
        records = [record async for record in engine.search(Query())]
        expected = [record.id for record in records if fits(record, wanted)]
        if order == "newest":
            expected.reverse()
        backend = ResultBackend(engine, TaskRegistry(), max_metadata_size=1000)
        assert [result.id async for result in backend.find(order=order, **wanted)] == expected
        paged, cursor = [], None
        while page := [result async for result in backend.find(order=order, limit=size, after=cursor, **wanted)]:
            paged += [result.id for result in page]
            cursor = page[-1].cursor
        assert paged == expected

    asyncio.run(main())


@given(st.lists(FATES, max_size=8), FILTERS, PATHS)
def test_what_is_counted_is_what_fits(fates: list[Fate], filters: dict[str, Any], path: str) -> None:
    async def main() -> None:
        engine, ids = await play(fates, [START])
        wanted = with_ids(filters, ids)
        records = [record async for record in engine.search(Query()) if fits(record, wanted)]
        backend = ResultBackend(engine, TaskRegistry(), max_metadata_size=1000)
        assert await backend.count(**wanted) == Counter(record.state for record in records)
        assert await backend.count(by="queue", **wanted) == Counter(record.queue for record in records)
        assert await backend.count(by="name", **wanted) == Counter(record.name for record in records)
        values = [at(loads(record.metadata), path) for record in records]
        groups = Counter(b"" if value is NOTHING else label(value) for value in values)
        counted = await backend.count(by=f"metadata:{path}", **wanted)
        assert sorted(counted.values()) == sorted(groups.values()), "no two groups have one name"
        assert list(counted.values()) == sorted(counted.values(), reverse=True)
        for value in values:
            names = ["" if value is NOTHING else value] if value is NOTHING or isinstance(value, str) else []
            assert any(name in counted for name in names) or any(equal(loads(name.encode()), value) for name in counted if readable(name))

    asyncio.run(main())


def readable(text: str) -> bool:
    try:
        loads(text.encode())
    except ValueError:
        return False
    return True


def test_names_of_groups() -> None:
    """A string is shown as it is, unless that could be something else."""
    assert name_groups({'"acme"': 2, "1": 1, "null": 3, '{"a":1}': 4}, {}) == {"acme": 2, "1": 1, "null": 3, '{"a":1}': 4}
    assert name_groups({'"1"': 2, "1": 1}, {}) == {'"1"': 2, "1": 1}
    assert name_groups({'"1"': 2, '"2"': 1}, {}) == {"1": 2, "2": 1}
    assert name_groups({"": 3, '""': 1}, {}) == {"": 3, '""': 1}
    assert name_groups({'"\\"1\\""': 1, '"1"': 2, "1": 3}, {}) == {'"\\"1\\""': 1, '"1"': 2, "1": 3}
    assert name_groups({"#ab": 1, '"#ab"': 2, "#cd": 3}, {"#cd": f'"{"x" * 99}"'}) == {"#ab": 1, '"#ab"': 2, "x" * 99: 3}


@pytest.fixture
def backend() -> ResultBackend:
    return ResultBackend(MemoryEngine(), TaskRegistry(), max_metadata_size=1000)


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        ({"metadata": {"a": float("nan")}}, "metadata key 'a'"),
        ({"metadata": {"a": [1, float("inf")]}}, "metadata key 'a'"),
        ({"metadata": {"a": "\0"}}, "metadata key 'a'"),
        ({"metadata": {"a": "\ud800"}}, "metadata key 'a'"),
        ({"metadata": {"a": object()}}, "metadata key 'a'"),
        ({"metadata": {"a": {1: 2}}}, "metadata key 'a'"),
        ({"metadata": {"a": CYCLE}}, "metadata key 'a'"),
        ({"metadata": {"a": []}}, "metadata key 'a': the list of values is empty"),
        ({"metadata": {"a": range(5)}}, "metadata key 'a'"),
        ({"metadata": {"a": list(range(1001)), "b": 1}}, "metadata key 'a': .*1,000"),
        ({"metadata": {1: 2}}, "1 is no key"),
        ({"metadata": {"": 2}}, "'' is no key"),
        ({"metadata": {"a..b": 2}}, "'a..b' is no key"),
        ({"metadata": {"a\0": 2}}, "NUL"),
        ({"metadata": {"\udfff": 2}}, "surrogate"),
        ({"metadata": {"x" * 256: 2}}, "more than 255"),
        ({"metadata": ["a"]}, "metadata="),
        ({"metadata": "a"}, "metadata="),
        ({"state": "RUNING"}, "state: .*RUNNING"),
        ({"state": []}, "state: none is named"),
        ({"state": 5}, "state=5"),
        ({"state": [None]}, "state: "),
        ({"name": 5}, "name=5"),
        ({"name": "\0"}, "name=.*NUL"),
        ({"queue": b"q"}, "queue="),
        ({"node": "\ud800"}, "node="),
        ({"root": "nope"}, "root='nope'"),
        ({"parent": 7}, "parent=7"),
        ({"created_after": "yesterday"}, "created_after='yesterday'"),
        ({"created_before": timedelta(1)}, "created_before="),
        ({"created_before": 5.0}, "created_before="),
    ],
)
async def test_bad_filters_are_named(backend: ResultBackend, filters: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidQuery, match=f"(?s){says}"):
        backend.find(**filters)
    with pytest.raises(InvalidQuery, match=f"(?s){says}"):
        await backend.count(**filters)


def test_what_goes_through_values_is_a_list_of_them() -> None:
    tenants = {"acme": 1, "zoo": 2}
    for values in (["acme", "zoo"], set(tenants), tenants.keys(), dict(enumerate(tenants)).values(), (each for each in tenants)):
        assert read_metadata({"tenant": values}) == read_metadata({"tenant": ["acme", "zoo"]})
    with pytest.raises(InvalidQuery, match="the list of values is empty"):
        read_metadata({"tenant": iter([])})
    assert read_metadata({"tenant": "acme"}) != read_metadata({"tenant": ["a", "c", "m", "e"]})


async def test_bad_questions_are_named(backend: ResultBackend) -> None:
    ask: Any = backend
    for limit in (0, -1, 1.5, "5", True):
        with pytest.raises(InvalidQuery, match="limit="):
            ask.find(limit=limit)
    with pytest.raises(InvalidQuery, match="order='up'"):
        ask.find(order="up")
    for by in ("tenant_id", "", None, "metadata:", "metadata:a..b", 5, ["state"]):
        with pytest.raises(InvalidQuery, match="by="):
            await ask.count(by=by)
    with pytest.raises(InvalidQuery, match="did you mean 'metadata:tenant_id'"):
        await ask.count(by="tenant_id")
    with pytest.raises(InvalidQuery, match=r"or 'metadata:KEY'$"):
        await ask.count(by="metadata")
    with pytest.raises(TypeError, match=r"no filter 'tenant_id'.*metadata=\{'tenant_id'"):
        ask.find(tenant_id="acme")
    with pytest.raises(TypeError, match="no filter 'limit'"):
        await ask.count(limit=5)
    assert [each async for each in ask.find(limit=10**30)] == []


async def test_cursors_from_elsewhere(backend: ResultBackend) -> None:
    engine = backend._engine
    await engine.submit([Job(uuid4(), "t", "q", b"")])
    [result] = [each async for each in backend.find()]
    here = await engine.identity()
    good = (result.record.created, result.record.place, result.id.hex)
    assert result.cursor == write_cursor("find", here, *good)
    assert [each async for each in backend.find(after=result.cursor)] == []
    [plain] = await backend.get_many(result.id)
    assert plain is not None
    assert plain.cursor is None
    bad: list[Any] = [
        "",
        "x",
        "ä",
        "a" * 5000,
        5,
        None and "",
        b"x",
        write_cursor("find", "elsewhere", *good),
        write_cursor("watch", here, "1"),
    ]
    changed: list[tuple[Any, ...]] = [
        (),
        good[:2],
        (*good, 1),
        (float("nan"), *good[1:]),
        (1.7e308, *good[1:]),
        (1, *good[1:]),
        (good[0], -(2**64), good[2]),
    ]
    changed += [
        (good[0], 2**63 - 1, good[2]),
        (good[0], -1, good[2]),
        (good[0], 2**63, good[2]),
        (*good[:2], "nope"),
        (*good[:2], 7),
        ("1", *good[1:]),
    ]
    bad += [write_cursor("find", here, *parts) for parts in changed]
    for cursor in bad:
        if cursor is not None:
            with pytest.raises(InvalidCursor):
                [each async for each in backend.find(after=cursor)]


class Partly(MemoryEngine):
    """Some of its indexes are whole."""

    whole: frozenset[str] = frozenset({"ready"})
    asked = 0

    async def declare(self, keys: Any, *, only: bool = False) -> frozenset[str]:
        self.asked += 1
        return frozenset(keys) & self.whole


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """What has been said since it was last asked."""
    monkeypatch.setattr(finding, "_told", set())

    def new() -> list[str]:
        messages = [record.getMessage() for record in caplog.records if record.name == "mognet.finding"]
        caplog.clear()
        return messages

    with caplog.at_level(logging.WARNING, "mognet"):
        yield new


async def test_what_is_not_indexed_is_said_once(told: Callable[[], list[str]]) -> None:
    engine = Partly()
    backend = ResultBackend(engine, TaskRegistry(), max_metadata_size=1000, indexes=await Indexes.declare(engine, ["ready", "later"]))

    async def find(**filters: Any) -> list[str]:
        assert [each async for each in backend.find(**filters)] == []
        return told()

    assert await find() == await find(metadata={"ready": 1}) == await find(state="RUNNING") == []
    assert await find(metadata={"ready": 1, "other": 2}) == [], "the index of one key is the way in"
    assert await find(metadata={"other": 2}, root=uuid4()) == []
    [message] = await find(metadata={"other": 2})
    assert "'other'" in message
    assert "searchable_metadata" in message
    assert "run `mognet APP store reindex` once" in message
    assert await find(metadata={"other": 3}) == []
    [message] = await find(metadata={"later": 2})
    assert "'later'" in message
    assert "not complete" in message
    assert await find(metadata={"later": 2}) == []
    await backend.count(by="metadata:third")
    [message] = told()
    assert "'third'" in message
    await backend.count(by="metadata:ready")
    assert told() == []


async def test_keys_that_callers_make_up_fill_neither_memory_nor_log(
    told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "MOST_TOLD", 3)
    engine = Partly()
    backend = ResultBackend(engine, TaskRegistry(), max_metadata_size=1000, indexes=await Indexes.declare(engine, ["later"]))
    for number in range(10):
        await backend.count(metadata={f"{number} a": 1, f"{number} b": 1})
    messages = told()
    assert ["after these 3" in each for each in messages] == [False, False, True]
    assert len(finding._told) == 3
    assert engine.asked == 3, "once at first, and once for each of those that said something"


async def test_an_index_that_has_become_whole_is_noticed(told: Callable[[], list[str]]) -> None:
    engine = Partly()
    backend = ResultBackend(engine, TaskRegistry(), max_metadata_size=1000, indexes=await Indexes.declare(engine, ["later"]))
    engine.whole = frozenset({"later"})
    for _ in range(3):
        assert [each async for each in backend.find(metadata={"later": 1})] == []
    assert told() == []
    assert engine.asked == 2, "at first, and once again"


async def test_long_values_are_shown(backend: ResultBackend) -> None:
    for tenant in ("x" * 200, "x" * 200, "y" * 200, {"name": "z" * 200}):
        await backend._engine.submit([Job(uuid4(), "t", "q", b"", dump_metadata({"tenant": tenant}))])
    counted = await backend.count(by="metadata:tenant")
    assert counted == {"x" * 200: 2, "y" * 200: 1, '{"name":"' + "z" * 200 + '"}': 1}
