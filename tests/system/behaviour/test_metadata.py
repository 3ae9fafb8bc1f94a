"""Metadata: labels that anyone can read and change, and that nobody loses."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel

from mognet import App, Context, Request, Retry
from mognet.exceptions import AttemptLost, CouldNotSubmit, InvalidMetadata, ResultLost

from .conftest import Gate, Lab, soon, state_is


class Colour(Enum):
    RED = "red"


class Owner(BaseModel):
    name: str
    since: datetime


@dataclass
class Point:
    x: int


MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SOME_ID = UUID("12345678-1234-5678-1234-567812345678")

VALUES = [
    ("text", "text"),
    ("žluťoučký 🐎", "žluťoučký 🐎"),
    (5, 5),
    (1.5, 1.5),
    (True, True),
    (None, None),
    ([1, "two", None], [1, "two", None]),
    ({"a": {"b": [1]}}, {"a": {"b": [1]}}),
    (MOMENT, "2026-01-02T03:04:05Z"),
    (SOME_ID, str(SOME_ID)),
    (Colour.RED, "red"),
    (Owner(name="dkl", since=MOMENT), {"name": "dkl", "since": "2026-01-02T03:04:05Z"}),
    ([Owner(name="dkl", since=MOMENT)], [{"name": "dkl", "since": "2026-01-02T03:04:05Z"}]),
    (Point(3), {"x": 3}),
    ((1, 2), [1, 2]),
]


def cyclic_dict() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


def cyclic_list() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


REFUSED = {
    "object": object(),
    "nan": float("nan"),
    "infinity": float("inf"),
    "deep nan": {"a": [float("nan")]},
    "cyclic dict": cyclic_dict(),
    "cyclic list": cyclic_list(),
    "lone surrogate": "\ud800",
    "lone surrogate in a key": {"\ud800": 1},
    "NUL": "a\0b",
    "NUL in a key": {"a\0b": 1},
    "number as a key": {1: "one"},
    "deep tuple as a key": [{"a": {(1, 2): "x"}}],
    "too large": "x" * 20_000,
    "function": print,
    "coroutine function": asyncio.sleep,
}


async def metadata(app: App, id: UUID) -> dict[str, Any]:
    """As anyone reads it."""
    result = await app.result_backend.get(id)
    assert result is not None
    return await result.get_metadata()


@pytest.mark.parametrize(("value", "stored"), VALUES, ids=lambda value: type(value).__name__)
async def test_values_are_stored_in_their_json_form(idle: App, value: Any, stored: Any) -> None:
    result = await idle.submit(Request(name="none", metadata={"key": value}))
    assert await metadata(idle, result.id) == {"key": stored}
    await result.set_metadata(other=value)
    assert await result.get_metadata() == {"key": stored, "other": stored}


@pytest.mark.parametrize("kind", REFUSED)
async def test_what_cannot_be_stored_is_refused_by_its_key(idle: App, kind: str) -> None:
    request = Request[None](name="none", metadata={"fine": 1})
    request.metadata["the_key"] = REFUSED[kind]
    with pytest.raises(CouldNotSubmit, match="'the_key'") as caught:
        await idle.submit(request)
    assert isinstance(caught.value, InvalidMetadata)
    assert await idle.result_backend.get(request.id) is None, "nothing was submitted"
    with pytest.raises(CouldNotSubmit, match="'the_key'"):
        await idle.submit_many([Request(name="fine", id=(fine := uuid4())), request])
    assert await idle.result_backend.get_many(fine, request.id) == [None, None]


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_refused_change_changes_nothing(idle: App, kind: str) -> None:
    result = await idle.submit(Request(name="none", metadata={"old": 1}))
    with pytest.raises(InvalidMetadata, match="'the_key'"):
        await result.set_metadata(the_key=REFUSED[kind], new=2)
    assert await result.get_metadata() == {"old": 1}


async def test_keys_are_strings(idle: App) -> None:
    request = Request[None](name="none")
    request.metadata[5] = "five"  # type: ignore[index]
    with pytest.raises(CouldNotSubmit, match="5"):
        await idle.submit(request)
    assert await idle.result_backend.get(request.id) is None
    for key in ("\ud800", "a\0b"):
        with pytest.raises(CouldNotSubmit, match="key"):
            await idle.submit(Request(name="none", metadata={key: 1}))


async def test_a_child_with_refused_metadata_is_not_submitted(app: App) -> None:
    child = uuid4()

    @app.task
    async def parent(context: Context) -> str:
        with pytest.raises(CouldNotSubmit, match="'bad'"):
            await context.submit(Request(name="none", id=child, metadata={"bad": object()}))
        return "refused"

    assert await app.run(parent) == "refused"
    assert await app.result_backend.get(child) is None


async def test_metadata_may_not_grow_beyond_the_limit(lab: Lab) -> None:
    app = await lab.connected(max_metadata_size=1000)
    result = await app.submit(Request(name="none", metadata={"a": "x" * 800}))
    with pytest.raises(InvalidMetadata, match=r"would grow to 1\d\d\d bytes, more than max_metadata_size=1000; .* the largest key is 'b'"):
        await result.set_metadata(n=1, b="y" * 800)
    assert await result.get_metadata() == {"a": "x" * 800}
    await result.set_metadata(a="small", b="y" * 800)
    assert await result.get_metadata() == {"a": "small", "b": "y" * 800}


async def test_set_in_the_constructor_or_afterwards(idle: App) -> None:
    request = Request[None](name="none", metadata={"a": 1})
    request.metadata["b"] = 2
    result = await idle.submit(request)
    assert await metadata(idle, result.id) == {"a": 1, "b": 2}
    request.metadata["late"] = 3
    assert await metadata(idle, result.id) == {"a": 1, "b": 2}
    other = Request[None](name="none")
    other.metadata = {"whole": "field"}
    assert await metadata(idle, (await idle.submit(other)).id) == {"whole": "field"}
    assert await metadata(idle, (await idle.submit(Request(name="none"))).id) == {}


async def test_the_record_has_its_metadata_when_submit_returns(idle: App, lab: Lab) -> None:
    other = await lab.connected()
    result = await idle.submit(Request(name="none", metadata={"a": 1}))
    found = await other.result_backend.get(result.id)
    assert found is not None
    assert found.state == "PENDING"
    assert await found.get_metadata() == {"a": 1}


async def test_a_result_knows_the_metadata_it_was_read_with(idle: App) -> None:
    result = await idle.submit(Request(name="none", metadata={"a": {"b": 1}}))
    assert result.metadata == {"a": {"b": 1}}
    await result.set_metadata(c=2)
    result.metadata["a"] = "changed here alone"
    assert result.metadata == {"a": {"b": 1}}
    await result.refresh()
    assert result.metadata == {"a": {"b": 1}, "c": 2}
    [found] = [found async for found in idle.result_backend.find(metadata={"c": 2})]
    assert found.metadata == result.metadata


async def test_a_task_reads_it_from_its_request(app: App) -> None:
    @app.task
    async def as_async(context: Context) -> dict[str, Any]:
        return context.request.metadata

    @app.task
    def as_def(context: Context) -> dict[str, Any]:
        return context.request.metadata

    for function in (as_async, as_def):
        request: Request[Any] = app.create_request(function)
        request.metadata["user_id"] = "dkl"
        assert await soon(app.run(request)) == {"user_id": "dkl"}


async def test_a_running_task_changes_the_record_and_not_its_request(app: App, gate: Gate) -> None:
    @app.task
    async def work(context: Context) -> list[Any]:
        await context.set_metadata(user_id="dkl", a=2)
        await gate.pass_through()
        return [context.request.metadata, await context.get_metadata()]

    request = app.create_request(work)
    request.metadata |= {"a": 1, "b": 1}
    result = await app.submit(request)
    await gate.arrived()
    assert await metadata(app, result.id) == {"a": 2, "b": 1, "user_id": "dkl"}
    gate.open()
    assert await soon(result) == [{"a": 1, "b": 1}, {"a": 2, "b": 1, "user_id": "dkl"}]
    assert await metadata(app, result.id) == {"a": 2, "b": 1, "user_id": "dkl"}


async def test_a_def_task_changes_it_through_call_threadsafe(app: App) -> None:
    @app.task
    def work(context: Context) -> dict[str, Any]:
        context.call_threadsafe(context.set_metadata(user_id="dkl"))
        return context.call_threadsafe(context.get_metadata())

    result = await app.submit(work)
    assert await soon(result) == {"user_id": "dkl"}
    assert await metadata(app, result.id) == {"user_id": "dkl"}


async def test_the_change_of_an_earlier_attempt_is_in_the_next_ones_request(app: App) -> None:
    @app.task
    async def work(context: Context) -> dict[str, Any]:
        if context.attempt == 1:
            await context.set_metadata(seen=True)
            raise Retry(after=0)
        return context.request.metadata

    assert await soon(app.run(work)) == {"seen": True}


async def test_anyone_reads_and_changes_it_in_every_state(app: App, idle: App, gate: Gate) -> None:
    @app.task
    async def work() -> str:
        await gate.pass_through()
        return "value"

    later = await app.submit(Request(name="none", run_at=datetime(2100, 1, 1, tzinfo=UTC), metadata={"a": 1}))
    await later.set_metadata(b=2)
    assert await metadata(idle, later.id) == {"a": 1, "b": 2}
    result = await app.submit(work)
    await gate.arrived()
    await idle.result_backend.set_metadata(result.id, running=True)
    assert await metadata(app, result.id) == {"running": True}
    gate.open()
    assert await soon(result) == "value"
    await idle.result_backend.set_metadata(result.id, finished=True)
    assert await app.result_backend.get_metadata(result.id) == {"running": True, "finished": True}
    assert await result.get() == "value"
    revoked = await app.revoke(later.id)
    await revoked.set_metadata(why="test")
    assert await metadata(app, later.id) == {"a": 1, "b": 2, "why": "test"}


async def test_a_job_that_is_not_there(idle: App) -> None:
    with pytest.raises(ResultLost):
        await idle.result_backend.get_metadata(uuid4())
    with pytest.raises(ResultLost):
        await idle.result_backend.set_metadata(uuid4(), a=1)


async def test_values_may_be_replaced_but_not_merged_within(idle: App) -> None:
    result = await idle.submit(Request(name="none", metadata={"deep": {"a": 1}, "gone": 1}))
    await result.set_metadata(deep={"b": 2}, gone=None)
    assert await result.get_metadata() == {"deep": {"b": 2}, "gone": None}


@pytest.mark.parametrize("key", ["id", "self", "metadata", "key", "a b", "ž", '"', "$.a", "%s"])
async def test_any_key(idle: App, key: str) -> None:
    result = await idle.submit(Request(name="none"))
    await result.set_metadata(**{key: 1})
    await idle.result_backend.set_metadata(result.id, **{key + "2": 2})
    assert await result.get_metadata() == {key: 1, key + "2": 2}


async def test_any_key_inside_a_task(app: App) -> None:
    @app.task
    async def work(context: Context) -> dict[str, Any]:
        await context.set_metadata(**{"self": 1, "id": 2})
        return await context.get_metadata()

    assert await soon(app.run(work)) == {"self": 1, "id": 2}


async def test_writers_of_different_keys_never_lose_one(lab: Lab) -> None:
    others = [await lab.connected(max_metadata_size=100_000) for _ in range(3)]
    result = await others[0].submit(Request(name="none", metadata={"first": 0}))

    async def write(number: int) -> None:
        await others[number % 3].result_backend.set_metadata(result.id, **{f"key{number}": number})

    await soon(asyncio.gather(*map(write, range(300))))
    assert await result.get_metadata() == {"first": 0} | {f"key{i}": i for i in range(300)}


async def test_a_task_and_others_write_at_once(app: App, idle: App, gate: Gate) -> None:
    @app.task
    async def work(context: Context) -> None:
        await gate.pass_through()
        await asyncio.gather(*(context.set_metadata(**{f"task{i}": i}) for i in range(100)))

    result = await app.submit(work)
    await gate.arrived()
    gate.open()
    await soon(asyncio.gather(*(idle.result_backend.set_metadata(result.id, **{f"other{i}": i}) for i in range(100))))
    await soon(result)
    assert await metadata(idle, result.id) == {f"{who}{i}": i for who in ("task", "other") for i in range(100)}


async def test_a_stale_attempt_writes_none(app: App) -> None:
    refused: list[str] = []

    @app.task
    async def work(context: Context) -> None:
        await app.revoke(context.id)
        try:
            await context.set_metadata(late=True)
        except AttemptLost as error:
            refused.append(str(error))
            raise

    result = await app.submit(work)
    await state_is(result, "REVOKED")
    assert await result.get_metadata() == {}


OTHER_PROCESS = """
import asyncio, json, sys
from uuid import UUID
from mognet import App

async def main():
    async with App("lab", url=sys.argv[1]) as app:
        result = await app.result_backend.get(UUID(sys.argv[2]))
        before = await result.get_metadata()
        await asyncio.gather(*(result.set_metadata(**{f"there{i}": i}) for i in range(100)))
        print(json.dumps([str(result.state), before]))

asyncio.run(main())
"""


async def test_from_another_process(app: App, url: str, gate: Gate) -> None:
    if url.startswith("memory:"):
        pytest.skip("memory is this process's alone")

    @app.task
    async def work(context: Context) -> None:
        await context.set_metadata(step=1)
        await gate.pass_through()

    request = app.create_request(work)
    request.metadata["user_id"] = "dkl"
    result = await app.submit(request)
    await gate.arrived()
    process = asyncio.create_task(
        asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", OTHER_PROCESS, url, str(result.id)], check=True, stdout=subprocess.PIPE, timeout=60
        )
    )
    for i in range(100):
        await result.set_metadata(**{f"here{i}": i})
    done = await process
    assert json.loads(done.stdout)[0] == "RUNNING"
    assert json.loads(done.stdout)[1].items() >= {"user_id": "dkl", "step": 1}.items()
    gate.open()
    await soon(result)
    assert await result.get_metadata() == {"user_id": "dkl", "step": 1} | {f"{w}{i}": i for w in ("here", "there") for i in range(100)}
