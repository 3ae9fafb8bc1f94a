"""What is written comes back as it was, and what cannot be written is refused by name."""

from __future__ import annotations

import dataclasses
import enum
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from mognet.codec import (
    EMPTY_CALL,
    Call,
    describe_error,
    dump_call,
    dump_error,
    dump_metadata,
    dumps,
    load_call,
    load_error,
    loads,
    merge_metadata,
    pack_done,
    rebuild_error,
    unpack_done,
)
from mognet.exceptions import InvalidErrorInfo, InvalidMetadata, InvalidTaskArguments, NotStorable, TaskError, TooManyRetries, UnknownTask
from mognet.records import Record
from mognet.states import ResultState

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(texts, plain, max_size=5)


class Colour(enum.Enum):
    RED = "red"


class Model(BaseModel):
    at: datetime


@dataclasses.dataclass
class Point:
    x: int


class Plain(Exception):
    """Its text is made from what is no argument of Exception."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Grudging(Exception):
    """Cannot say what it is without an attribute that JSON cannot hold."""

    def __init__(self) -> None:
        super().__init__("grudging")
        self.thing = object()

    def __str__(self) -> str:
        return f"about {self.thing!r}"


@given(plain)
def test_json_values_come_back(value: Any) -> None:
    assert loads(dumps(value)) == value


tricky = st.text(st.sampled_from('[]{}"\\,:a'), max_size=12)


@given(st.recursive(tricky, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(tricky, inner, max_size=3), max_leaves=8))
def test_the_depth_of_a_value_is_seen_whatever_its_strings_hold(value: Any) -> None:
    padding = ["[" * 200, "]" * 200]  # so that it is looked at at all
    depth = 1 + max(_depth(value), 0)
    dumps([value, padding[0], padding[1]], nesting=depth)
    with pytest.raises(NotStorable, match=f"deeper than {depth - 1} levels"):
        dumps([value, padding[0], padding[1]], nesting=depth - 1)


def _depth(value: Any) -> int:
    if not isinstance(value, list | dict):
        return 0
    return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)


def test_integers_that_could_not_be_read() -> None:
    for number in (10**4300, -(10**4300), 10**9000):
        for value in (number, [number], {"a": "x" * 9000, "b": [1, number, 2]}):
            with pytest.raises(NotStorable, match="number out of range"):
                dumps(value)
    for fine in (10**4299, "9" * 9000, [12345678901] * 5000):
        assert loads(dumps(fine)) == fine


@given(objects)
def test_metadata_comes_back(metadata: dict[str, Any]) -> None:
    assert loads(dump_metadata(metadata)) == metadata


@given(objects, objects)
def test_merging_replaces_whole_keys(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert loads(merge_metadata(dump_metadata(old), dump_metadata(new))) == {**old, **new}


def test_metadata_takes_what_pydantic_knows() -> None:
    id = uuid4()
    when = datetime(2026, 1, 2, tzinfo=UTC)
    metadata = {"id": id, "when": when, "colour": Colour.RED, "model": Model(at=when), "point": Point(3), "raw": b"\x00\xff"}
    assert loads(dump_metadata(metadata)) == {
        "id": str(id),
        "when": "2026-01-02T00:00:00Z",
        "colour": "red",
        "model": {"at": "2026-01-02T00:00:00Z"},
        "point": {"x": 3},
        "raw": "AP8=",
    }


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [object(), float("nan"), float("inf"), [float("nan")], _cycle(), "\ud800", "a\0b", {"x": "\0"}, {1: 2}, _deep(65), {"a": {2: 3}}],
)
def test_metadata_that_cannot_be_stored_is_refused_by_its_key(value: Any) -> None:
    with pytest.raises(InvalidMetadata, match="'guilty'"):
        dump_metadata({"innocent": 1, "guilty": value})


def test_what_can_be_read_only_once_is_refused() -> None:
    """Rather than stored as what is left of it."""
    for wrap in (lambda value: value, lambda value: [value], lambda value: {"a": (value,)}):
        with pytest.raises(InvalidMetadata, match=r"'guilty' .* generator"):
            dump_metadata({"innocent": 1, "guilty": wrap(each for each in (1, 2))})


hostile_texts = st.text() | st.text(st.sampled_from('\0\\u0\ud800"')) | st.just("x" * 4301)
hostile = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | hostile_texts
    | st.binary()
    | st.just(Colour.RED)
    | st.sampled_from([4299, 4300]).map(lambda digits: 10**digits),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(hostile_texts | st.integers(), inner, max_size=3)
        | inner.map(lambda value: _wrapped(value, 62))
    ),
    max_leaves=6,
)


def _wrapped(value: Any, levels: int) -> Any:
    for _ in range(levels):
        value = [value]
    return value


@given(st.dictionaries(hostile_texts | st.integers(), hostile, max_size=3))
def test_metadata_is_taken_or_refused_as_it_is_beside_a_key_that_needs_a_closer_look(metadata: dict[Any, Any]) -> None:
    beside = "\x01"

    def outcome(given: dict[Any, Any]) -> Any:
        try:
            return loads(dump_metadata(given))
        except InvalidMetadata as error:
            return str(error)

    expected = outcome({**metadata, beside: b"\xff"})
    if isinstance(expected, dict):
        del expected[beside]
    metadata.pop(beside, None)
    assert outcome(metadata) == expected


@pytest.mark.parametrize("key", [1, None, "\0", "\ud800"])
def test_metadata_keys_are_plain_strings(key: Any) -> None:
    with pytest.raises(InvalidMetadata, match="key"):
        dump_metadata({key: 1})


@pytest.mark.parametrize("metadata", [{"guilty": "\ud800"}, {"guilty": [{"a": "\udfff"}]}, {"guilty": {"\ud800": 1}}, {"guilty\ud800": 1}])
def test_half_a_surrogate_pair_in_metadata_is_called_that(metadata: dict[str, Any]) -> None:
    with pytest.raises(InvalidMetadata, match=r"guilty.* cannot be stored: it holds half of a surrogate pair.* replaces it"):
        dump_metadata(metadata)


def test_metadata_has_a_limit() -> None:
    assert len(dump_metadata({"a": "x" * 92}, limit=100)) == 100
    with pytest.raises(InvalidMetadata, match="largest key is 'long'"):
        dump_metadata({"short": 1, "long": "x" * 92}, limit=100)
    with pytest.raises(InvalidMetadata, match="would grow to 13 bytes"):
        merge_metadata(b'{"a":1}', b'{"b":1}', limit=10)


calls = st.builds(
    Call,
    args=st.lists(plain, max_size=3),
    kwargs=objects,
    stack=st.lists(st.uuids(), max_size=3),
    timeout=st.none() | st.floats(0, 1e9),
    latest=st.none() | st.floats(0, 1e12),
)


@given(calls)
def test_calls_come_back(call: Call) -> None:
    assert load_call(dump_call(call)) == call


def test_an_empty_call_is_short() -> None:
    assert dump_call(EMPTY_CALL) == b'{"v":1}'


@given(st.binary(max_size=40))
def test_a_body_that_is_no_call_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        load_call(b"?" + body)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"v":2}', b'{"v":1,"args":{}}', b'{"v":1,"stack":["x"]}', b'{"v":1,"timeout":"x"}'])
def test_a_call_of_another_shape_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        load_call(body)


def test_what_cannot_be_written_says_so() -> None:
    for value in (object(), _cycle(), "\ud800"):
        with pytest.raises(NotStorable):
            dumps(value)


def _raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as raised:
        return raised


@pytest.mark.parametrize(
    "error",
    [
        Plain(7),
        ValueError("x", 3),
        KeyError("k"),
        OSError(2, "no such file", "f.txt"),
        RecursionError("deep"),
        UnknownTask("t"),
        TooManyRetries(UUID(int=1), 4, 3),
        InvalidTaskArguments([InvalidErrorInfo(("a", 0), "wrong", "kind")], "t"),
        ImportError("no module", name="gone", path="/gone.py"),
        StopAsyncIteration(3),
    ],
)
def test_errors_come_back_as_their_own_class(error: Exception) -> None:
    info = load_error(dump_error(_raised(error)))
    rebuilt = rebuild_error(info)
    assert type(rebuilt) is type(error)
    assert str(rebuilt) == str(error)
    assert rebuilt.args == error.args
    assert vars(rebuilt) == vars(error)
    assert isinstance(rebuilt.__cause__, TaskError)
    assert "test_codec" in rebuilt.__cause__.traceback


class Slotted(Exception):
    __slots__ = ("code", "unset")

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def test_slots_of_c_and_python_come_back() -> None:
    rebuilt = rebuild_error(load_error(dump_error(_raised(Slotted(7)))))
    assert isinstance(rebuilt, Slotted) and rebuilt.code == 7 and not hasattr(rebuilt, "unset")
    missing = rebuild_error(load_error(dump_error(ImportError("no module", name="gone", path="/gone.py"))))
    assert isinstance(missing, ImportError) and (missing.name, missing.path, missing.msg) == ("gone", "/gone.py", "no module")


def test_notes_come_back() -> None:
    error = ValueError("x")
    error.add_note("look at line 3")
    assert rebuild_error(load_error(dump_error(error))).__notes__ == ["look at line 3"]


def test_groups_come_back_with_their_parts() -> None:
    group = ExceptionGroup("two", [Plain(1), ExceptionGroup("inner", [KeyError("k"), Slotted(2)])])
    rebuilt = rebuild_error(load_error(dump_error(_raised(group))))
    assert isinstance(rebuilt, ExceptionGroup) and rebuilt.message == "two"
    first, inner = rebuilt.exceptions
    assert isinstance(first, Plain) and first.code == 1
    assert isinstance(inner, ExceptionGroup) and [type(each) for each in inner.exceptions] == [KeyError, Slotted]


def test_an_error_that_cannot_be_rebuilt_is_a_task_error() -> None:
    rebuilt = rebuild_error(load_error(dump_error(_raised(Grudging()))))
    assert isinstance(rebuilt, TaskError)
    assert rebuilt.type_name.endswith(":Grudging")
    assert rebuilt.message.startswith("about <object")
    unknown = rebuild_error(describe_error(Plain(1))._replace(type_name="nowhere:Gone"))
    assert isinstance(unknown, TaskError) and unknown.message == "code 1"


def test_no_code_of_an_error_class_is_run() -> None:
    ran = []

    class Trap(Exception):
        def __new__(cls, *args: object) -> Trap:
            ran.append("new")
            return super().__new__(cls, *args)

        def __init__(self, *args: object) -> None:
            ran.append("init")
            super().__init__(*args)

        def __setattr__(self, name: str, value: object) -> None:
            ran.append("setattr")
            super().__setattr__(name, value)

    info = describe_error(Trap("x"))._replace(attributes={"planted": 1})
    ran.clear()
    rebuilt = rebuild_error(info)
    assert type(rebuilt) is Trap and rebuilt.args == ("x",)
    assert vars(rebuilt)["planted"] == 1
    assert [each for each in ran if each != "setattr"] == []


@given(st.dictionaries(st.sampled_from(["type_name", "message", "traceback", "args", "attributes"]), plain))
def test_a_damaged_error_is_a_value_error_or_harmless(fields: dict[str, Any]) -> None:
    try:
        info = load_error(dumps(fields))
    except ValueError:
        return
    assert isinstance(rebuild_error(info), Exception)


@pytest.mark.parametrize("value", ["hello", ["a", "b", "c", None, None], 5, None])
def test_a_value_is_no_error(value: Any) -> None:
    """Who asks for the error of a job that runs again meanwhile may come upon its value."""
    with pytest.raises(ValueError, match="not the description of an error"):
        load_error(dumps(value))


records = st.builds(
    Record,
    id=st.uuids(),
    name=st.none() | texts,
    queue=texts,
    state=st.sampled_from(ResultState),
    priority=st.integers(0, 10),
    created=st.floats(0, 1e10),
    due=st.floats(0, 1e10),
    started=st.none() | st.floats(0, 1e10),
    finished=st.none() | st.floats(0, 1e10),
    ttl=st.none() | st.floats(0, 1e10),
    expires=st.none() | st.floats(0, 1e10),
    metadata=objects.map(dump_metadata),
    parent=st.none() | st.uuids(),
    root=st.none() | st.uuids(),
    node=st.none() | texts,
    progress=st.none() | plain.map(dumps),
)


@given(records, st.none() | plain.map(dumps))
def test_a_done_signal_carries_record_and_value(record: Record, value: bytes | None) -> None:
    assert unpack_done(pack_done(record, value)) == (record, value)


def test_what_is_refused_is_named_in_short() -> None:
    with pytest.raises(InvalidMetadata, match=r"key 'n' cannot be stored: .* or a number with too many digits"):
        dump_metadata({"n": 10**5000})
    with pytest.raises(InvalidMetadata, match="the largest key is 'kkk") as error:
        dump_metadata({"k" * 20_000: 1}, limit=1000)
    assert len(str(error.value)) < 300
