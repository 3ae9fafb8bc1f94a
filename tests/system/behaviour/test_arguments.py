"""Arguments and values: what goes in by the annotations comes out by them."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import TypedDict

from mognet import App, Context, Request, task
from mognet.exceptions import CouldNotSubmit, ImproperlyConfigured, InvalidTaskArguments, NotStorable, UnknownTask
from mognet.records import Query

from .conftest import Lab, nothing_runs, soon


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Word(StrEnum):
    YES = "yes"


class Owner(BaseModel):
    name: str
    tags: set[str] = set()
    text: bytes = b""


class Picture(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


@dataclass
class Point:
    x: int
    y: int = 0
    raw: bytes = b""
    deep: list[Point] = field(default_factory=list)


class Row(TypedDict):
    a: int
    b: bytes


class Pair(NamedTuple):
    left: int
    right: str


BYTES = bytes(range(256))

VALUES: list[tuple[Any, Any]] = [
    (int, 5),
    (float, 1.5),
    (bool, True),
    (str, "text \u0000 \U0001f40e"),
    (None, None),
    (bytes, BYTES),
    (UUID, UUID(int=5)),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6)),
    (date, date(2026, 1, 2)),
    (timedelta, timedelta(days=1, microseconds=5)),
    (Decimal, Decimal("1.10")),
    (Path, Path("/tmp/x")),
    (Colour, Colour.RED),
    (Level, Level.HIGH),
    (Word, Word.YES),
    (Owner, Owner(name="dkl", tags={"a", "b"}, text=b"plain")),
    (Picture, Picture(data=BYTES)),
    (list[Picture], [Picture(data=BYTES)]),
    (list[Owner], [Owner(name="dkl")]),
    (Point, Point(1, raw=BYTES, deep=[Point(2, raw=b"\xff")])),
    (dict[str, Point], {"p": Point(1)}),
    (Row, {"a": 1, "b": BYTES}),
    (Pair, Pair(1, "r")),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (tuple[int, str], (1, "a")),
    (list[bytes], [BYTES, b""]),
    (dict[int, str], {1: "one"}),
    (dict[UUID, datetime], {UUID(int=1): datetime(2026, 1, 1)}),
    (int | None, None),
    (Literal["a", "b"], "b"),
    (Annotated[int, Field(ge=3)], 3),
    (Any, {"plain": [1, None]}),
    (int, 2**70),
]


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "def"])
async def test_every_kind_of_value_there_and_back(app: App, is_async: bool) -> None:
    seen: list[type] = [object]
    for number, (kind, value) in enumerate(VALUES):

        async def as_async(value: Any) -> Any:
            assert type(value) is seen[0]
            return value

        def as_def(value: Any) -> Any:
            assert type(value) is seen[0]
            return value

        seen[0] = type(value)
        function = as_async if is_async else as_def
        function.__annotations__ = {"value": kind, "return": kind}
        app.task(name=f"echo{number}")(function)
        assert await soon(app.run(function, value)) == value, kind
        back = await soon(app.run(Request(name=f"echo{number}", kwargs={"value": value})))
        assert (back, type(back)) == (value, type(value)), kind


async def test_without_annotations_it_is_json(app: App) -> None:
    @app.task
    async def echo(value):  # type: ignore[no-untyped-def]
        return value

    @app.task
    async def point():  # type: ignore[no-untyped-def]
        return Point(1)

    assert await soon(app.run(echo, {"a": [1, 2.5, None, "x"]})) == {"a": [1, 2.5, None, "x"]}
    assert await soon(app.run(echo, (1, 2))) == [1, 2]
    assert await soon(app.run(echo, UUID(int=1))) == str(UUID(int=1))
    assert await soon(app.run(point)) == {"x": 1, "y": 0, "raw": "", "deep": []}


async def test_another_app_without_the_task_gets_json(app: App, idle: App) -> None:
    @app.task(name="owner")
    async def owner() -> Owner:
        return Owner(name="dkl")

    assert isinstance(await soon(app.run(owner)), Owner)
    assert (await soon(idle.run(Request(name="owner"))))["name"] == "dkl"


async def test_converted_by_annotations(app: App) -> None:
    @app.task(name="convert")
    async def convert(number: int, owner: Owner, when: datetime) -> list[str]:
        return [type(number).__name__, type(owner).__name__, type(when).__name__]

    request = Request[list[str]](name="convert", kwargs={"number": "5", "owner": {"name": "dkl"}, "when": "2026-01-02T03:04:05Z"})
    assert await soon(app.run(request)) == ["int", "Owner", "datetime"]


async def test_all_kinds_of_parameters(app: App) -> None:
    @app.task(name="shape")
    async def shape(
        context: Context, a: int, /, b: int, c: int = 3, *rest: int, key: str, other: str = "o", **more: float
    ) -> dict[str, Any]:
        return {"a": a, "b": b, "c": c, "rest": rest, "key": key, "other": other, "more": more}

    @app.task(name="plain")
    def plain(*args: Any, **kwargs: Any) -> Any:
        return [args, kwargs]

    assert await soon(app.run(shape, 1, 2, key="k")) == {"a": 1, "b": 2, "c": 3, "rest": [], "key": "k", "other": "o", "more": {}}
    assert await soon(app.run(shape, 1, b=2, c=4, key="k", other="p", x=1.5)) == {
        "a": 1,
        "b": 2,
        "c": 4,
        "rest": [],
        "key": "k",
        "other": "p",
        "more": {"x": 1.5},
    }
    assert (await soon(app.run(shape, 1, 2, 3, 4, 5, key="k")))["rest"] == [4, 5]
    request = Request[Any](name="shape", args=("1", "2", "3", "4"), kwargs={"key": "k", "extra": "0.5"})
    assert (await soon(app.run(request)))["more"] == {"extra": 0.5}
    assert await soon(app.run(plain, 1, "a", x=[1])) == [[1, "a"], {"x": [1]}]


async def test_the_context_is_not_passed_by_the_caller(app: App) -> None:
    @app.task
    async def annotated(ctx: Context, n: int) -> int:
        return n

    @app.task
    async def named(context, n: int) -> int:  # type: ignore[no-untyped-def]
        assert isinstance(context, Context)
        return n

    @app.task
    def without(n: int) -> int:
        return n

    @app.task
    async def second(n: int, context: int) -> int:
        return n + context

    for function in (annotated, named, without):
        assert await soon(app.run(function, 5)) == 5
        assert await soon(app.run(function, n=5)) == 5
    assert await soon(app.run(second, 1, 2)) == 3
    request = app.create_request(second, n=1, **{"context": 2})
    assert await soon(app.run(request)) == 3


async def test_a_call_by_function_is_checked_at_once(idle: App) -> None:
    @idle.task(name="strict")
    async def strict(n: int, owner: Owner, *, key: str = "") -> None: ...

    calls: list[tuple[tuple[Any, ...], dict[str, Any], set[tuple[Any, ...]]]] = [
        ((), {}, {("n",), ("owner",)}),
        (("five", Owner(name="a")), {}, {("n",)}),
        ((5, {"name": 3}), {}, {("owner", "name")}),
        ((5, {"name": "a"}, 7), {}, {(2,)}),
        ((5, {"name": "a"}), {"unknown": 1}, {("unknown",)}),
        ((5, {"name": "a"}), {"n": 1}, {("n",)}),
        ((5, {"name": "a"}), {"key": 5}, {("key",)}),
        ((object(), {"name": "a"}), {}, {("n",)}),
    ]
    for args, kwargs, places in calls:
        for call in (idle.create_request, idle.submit, idle.run):
            with pytest.raises(InvalidTaskArguments) as caught:
                made: Any = call(strict, *args, **kwargs)
                await made
            assert {error.loc for error in caught.value.errors} == places
            assert all(error.msg and error.type for error in caught.value.errors)
            assert caught.value.task_name == "strict"
    assert [result async for result in idle.result_backend.search(Query())] == []


async def test_a_request_by_name_is_checked_where_it_runs(app: App, idle: App) -> None:
    runs: list[int] = []

    @app.task(name="strict")
    async def strict(n: int, owner: Owner) -> None:
        runs.append(n)

    result = await idle.submit(Request(name="strict", args=("five",)))
    with pytest.raises(InvalidTaskArguments) as caught:
        await soon(result)
    assert {error.loc for error in caught.value.errors} == {("owner",)}
    assert result.state == "INVALID"
    assert result.failed
    with pytest.raises(InvalidTaskArguments) as caught:
        await soon(idle.run(Request(name="strict", args=("five", {"name": 5}))))
    assert {error.loc for error in caught.value.errors} == {("n",), ("owner", "name")}
    assert runs == []


async def test_an_unknown_task(app: App, idle: App) -> None:
    result = await idle.submit(Request(name="nobody.knows"))
    with pytest.raises(UnknownTask, match=r"nobody\.knows") as caught:
        await soon(result)
    assert caught.value.task_name == "nobody.knows"
    assert result.state == "INVALID"


async def test_a_validator_that_breaks(app: App) -> None:
    def broken(value: Any) -> Any:
        raise KeyError("validator")

    @app.task(name="broken")
    async def work(n: Annotated[int, BeforeValidator(broken)]) -> int:
        return n

    work.__annotations__["n"] = Annotated[int, BeforeValidator(broken)]
    result = await app.submit(Request(name="broken", args=(1,)))
    with pytest.raises(KeyError, match="validator"):
        await soon(result)
    assert result.failed
    await nothing_runs(app)


async def test_arguments_that_cannot_be_stored(idle: App) -> None:
    @idle.task
    async def anything(value: Any) -> None: ...

    for value in (object(), lambda: None, "\ud800", asyncio.Lock()):
        with pytest.raises(InvalidTaskArguments):
            idle.create_request(anything, value)
        with pytest.raises(CouldNotSubmit, match="arguments"):
            await idle.submit(Request(name="anything", args=(value,)))


async def test_values_that_cannot_be_stored(app: App) -> None:
    @app.task
    async def bad(kind: str) -> Any:
        return {"object": object(), "surrogate": "\ud800", "function": print, "deep": [{"a": {1, object}}]}[kind]

    for kind in ("object", "surrogate", "function", "deep"):
        result = await app.submit(bad, kind)
        with pytest.raises(NotStorable, match="cannot be stored"):
            await soon(result)
        assert result.state == "FAILURE"


async def test_values_above_the_limit(lab: Lab) -> None:
    app = await lab.working(max_result_size=1000)

    @app.task
    async def large(n: int) -> str:
        return "x" * n

    @app.task
    def fail(n: int) -> None:
        raise ValueError("x" * n)

    assert len(await soon(app.run(large, 990))) == 990
    result = await app.submit(large, 1001)
    with pytest.raises(NotStorable, match="max_result_size=1000"):
        await soon(result)
    assert result.state == "FAILURE"
    failed = await app.submit(fail, 10_000_000)
    with pytest.raises(Exception, match="x"):
        await soon(failed)
    assert failed.state == "FAILURE"
    stored = await app.engine.value(failed.id)
    assert stored is not None
    assert len(stored) < 50_000


async def test_a_value_that_does_not_fit_its_annotation_is_given_as_json(app: App) -> None:
    @app.task
    async def lies() -> int:
        return "five"  # type: ignore[return-value]

    assert await soon(app.run(lies)) == "five"


def a_task(n: int) -> int:
    return n


def test_task_returns_the_function_unchanged() -> None:
    app = App("x", url="memory://")

    async def work(n: int) -> int:
        return n

    assert app.task(work) is work
    assert app.task(name="other")(work) is work
    name = f"unchanged.{uuid.uuid4()}"
    assert task(name=name)(a_task) is a_task
    assert app.create_request(a_task, 1).name == name
    assert a_task(5) == 5


def test_one_name_for_two_functions() -> None:
    app = App("x", url="memory://")

    @app.task(name="twice")
    def first() -> None: ...

    with pytest.raises(ImproperlyConfigured, match=r"twice.*first.*second"):

        @app.task(name="twice")
        def second() -> None: ...

    app.task(name="twice")(first)


@pytest.mark.parametrize(
    "options", [{"priority": 11}, {"priority": -1}, {"retries": -1}, {"timeout": 0}, {"timeout": timedelta(seconds=-1)}], ids=str
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    app = App("x", url="memory://")
    with pytest.raises(ValueError, match=r"priority|retries|timeout"):
        app.task(**options)(a_task)
