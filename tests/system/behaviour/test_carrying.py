"""What a job hands down, what the scope gives, and what travels over HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import mognet
from mognet import App, Context, Request, Result
from mognet.exceptions import InvalidMetadata
from mognet.http import MetadataMiddleware, outgoing_headers
from mognet.scope import scope_metadata, trace

from .conftest import Lab, nothing_runs, soon

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def tasks(app: App) -> dict[str, Any]:
    """A task that tells what it sees, and one that has it as a child."""

    @app.task(name="look")
    async def look(context: Context) -> dict[str, Any]:
        return {"metadata": context.request.metadata, "trace": dict(context.trace), "out": outgoing_headers(baggage={"tenant", "user"})}

    @app.task(name="parent")
    async def parent(context: Context, labels: dict[str, Any], change: dict[str, Any]) -> list[Any]:
        if change:
            await context.set_metadata(**change)
        plain = await context.run(Request(name="look", metadata=labels))
        many = await context.submit_many([Request(name="look", metadata=labels)])
        with mognet.metadata(tenant="scope"):
            scoped = await context.run(Request(name="look", metadata=labels))
        return [plain, *await context.gather(*many), scoped]

    return {"look": look, "parent": parent}


async def family(app: App, labels: dict[str, Any], metadata: dict[str, Any], change: dict[str, Any]) -> list[dict[str, Any]]:
    """What the children of a job with this metadata see as theirs."""
    result = await app.submit(Request(name="parent", args=(labels, change), metadata=metadata))
    return [seen["metadata"] for seen in await soon(result)]


async def test_declared_keys_flow_to_children_and_theirs(lab: Lab) -> None:
    app = await lab.working(inherited_metadata={"tenant", "user"})
    tasks(app)
    plain, many, scoped = await family(app, {}, {"tenant": "acme", "user": {"id": 1}, "other": 1}, {})
    assert plain == many == {"tenant": "acme", "user": {"id": 1}}
    assert scoped == {"tenant": "scope", "user": {"id": 1}}
    own, _, _ = await family(app, {"tenant": "own", "x": 1}, {"tenant": "acme"}, {})
    assert own == {"tenant": "own", "x": 1}

    @app.task(name="deep")
    async def deep(context: Context, levels: int) -> dict[str, Any]:
        return await context.run(deep, levels - 1) if levels else context.request.metadata

    request = app.create_request(deep, 3)
    request.metadata = {"tenant": "acme", "other": 1}
    assert await soon(app.run(request)) == {"tenant": "acme"}


async def test_what_the_task_has_set_flows_too(lab: Lab) -> None:
    app = await lab.working(inherited_metadata={"tenant", "user"})
    tasks(app)
    seen = await family(app, {}, {"tenant": "acme"}, {"user": "dkl", "tenant": "other"})
    assert [labels.get("user") for labels in seen] == ["dkl"] * 3
    assert [labels["tenant"] for labels in seen] == ["other", "other", "scope"]


async def test_nothing_flows_unless_it_is_declared(app: App) -> None:
    tasks(app)
    assert (await family(app, {}, {"tenant": "acme"}, {}))[:2] == [{}, {}]


async def test_the_scope_nests_and_goes_before_inheritance_but_not_before_the_request(idle: App) -> None:
    async def labels(**metadata: Any) -> dict[str, Any]:
        result = await idle.submit(Request(name="look", metadata=metadata))
        return await result.get_metadata()

    with mognet.metadata(tenant="a", user="x"):
        with mognet.metadata({"dotted.key": 1, "tenant": "b"}, more=[1]):
            assert await labels() == {"tenant": "b", "user": "x", "dotted.key": 1, "more": [1]}
            assert await labels(tenant="own") == {"tenant": "own", "user": "x", "dotted.key": 1, "more": [1]}
        assert await labels() == {"tenant": "a", "user": "x"}
        [many] = await idle.submit_many([Request(name="look")])
        assert await many.get_metadata() == {"tenant": "a", "user": "x"}
    assert await labels() == {}


async def test_the_scope_leaves_the_request_as_it_was(idle: App) -> None:
    request: Request[Any] = Request(name="look", metadata={"own": 1})
    with mognet.metadata(tenant="a"):
        await idle.submit(request)
    assert request.metadata == {"own": 1}


async def test_the_scope_follows_the_code(idle: App) -> None:
    """Into tasks and threads that are started inside, and into no others."""

    async def submit() -> dict[str, Any]:
        return await (await idle.submit(Request(name="look"))).get_metadata()

    inside, outside = asyncio.Event(), asyncio.create_task(submit())
    with mognet.metadata(tenant="a"):
        inside.set()
        assert await asyncio.create_task(submit()) == {"tenant": "a"}
        loop = asyncio.get_running_loop()
        assert await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(submit(), loop).result()) == {"tenant": "a"}
    assert await outside == {}


async def test_bad_metadata_in_the_scope_is_refused_by_name(idle: App) -> None:
    for labels, key in (({"k": float("nan")}, "'k'"), ({"k": "\0"}, "'k'"), ({1: 2}, "1"), ({"k": "x" * 20_000}, "max_metadata_size")):
        with mognet.metadata(labels), pytest.raises(InvalidMetadata, match=key):  # type: ignore[arg-type]
            await idle.submit(Request(name="look"))
    assert not [result async for result in idle.result_backend.iterate_children(Request(name="x").id)]
    assert sum((await idle.engine.count(mognet.app.Query())).values()) == 0


async def test_a_worker_started_in_a_scope_gives_its_tasks_none(lab: Lab) -> None:
    app = await lab.connected()
    tasks(app)
    with mognet.metadata(tenant="worker"), trace({"traceparent": TRACEPARENT}):
        await lab.start(app)
    seen = await soon(app.run(Request(name="parent", args=({}, {}))))
    assert [each["metadata"] for each in seen] == [{}, {}, {"tenant": "scope"}]
    assert [each["trace"] for each in seen] == [{}, {}, {}]


def test_a_scope_is_no_decorator() -> None:
    """Over an ``async def`` it would be left before anything has run."""
    with pytest.raises(TypeError, match="not callable"):

        @mognet.metadata(tenant="acme")  # type: ignore[operator]
        async def _submits() -> None: ...


def test_a_scope_may_be_entered_again() -> None:
    scope = mognet.metadata(tenant="acme")
    for _ in range(2):
        with scope, mognet.metadata(tenant="zoo"), scope:
            assert scope_metadata() == {"tenant": "acme"}
        assert scope_metadata() == {}


def test_a_scope_takes_values_by_key() -> None:
    for labels in ("tenant", ["tenant"], 5):
        with pytest.raises(TypeError, match="metadata takes values by key"), mognet.metadata(labels):  # type: ignore[arg-type]
            pass
    with mognet.metadata(None, tenant="acme"):
        assert dict(scope_metadata()) == {"tenant": "acme"}


async def test_trace_context_stays_with_a_job_that_runs_again(lab: Lab) -> None:
    app = await lab.working()
    seen: list[dict[str, str]] = []

    @app.task(name="lost")
    async def lost(context: Context) -> None:
        seen.append(dict(context.trace))
        raise LookupError

    async def ended(result: Result[Any]) -> None:
        with pytest.raises(LookupError):
            await soon(result)

    own, other = {"traceparent": TRACEPARENT, "tracestate": "a=1"}, {"traceparent": TRACEPARENT.replace("1", "2")}
    with trace(own):
        traced = await app.submit(lost)
    plain = await app.submit(lost)
    await ended(traced)
    await ended(plain)
    assert seen == [own, {}] or seen == [{}, own]
    seen.clear()
    await ended(await app.retry(traced.id, as_new=True))
    with trace(other):
        await ended(await app.retry(traced.id))
        await ended(await app.retry(traced.id, as_new=True))
        await ended(await app.retry(plain.id, as_new=True))
    assert seen == [own, own, own, other], "the job's goes before that of whoever has it run again, as with metadata"


async def test_trace_context_travels_with_a_job_and_its_children(lab: Lab) -> None:
    app = await lab.working(inherited_metadata={"tenant"})
    tasks(app)
    with trace({"traceparent": TRACEPARENT, "tracestate": "a=1"}), mognet.metadata(tenant="ä b"):
        seen = await soon(app.run(Request(name="look")))
        children = await soon(app.run(Request(name="parent", args=({}, {}))))
    for each in [seen, *children[:2]]:
        assert each["trace"] == {"traceparent": TRACEPARENT, "tracestate": "a=1"}
        assert each["out"] == {"traceparent": TRACEPARENT, "tracestate": "a=1", "baggage": "tenant=%C3%A4%20b"}
    assert (await soon(app.run(Request(name="look"))))["trace"] == {}


async def test_from_a_request_over_http_to_a_job_and_on(lab: Lab) -> None:
    app = await lab.working(inherited_metadata={"tenant", "user"})
    tasks(app)
    answers: list[dict[str, Any]] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        answers.append(await app.run(Request(name="look")))

    wrapped = MetadataMiddleware(page, headers={"X-Tenant-Id": "tenant"}, baggage={"user", "tenant"})
    headers = [(b"x-tenant-id", b"acme"), (b"baggage", b"user=dkl%20x;p=1, tenant=lost,evil=1"), (b"traceparent", TRACEPARENT.encode())]
    await soon(wrapped({"type": "http", "headers": headers}, *_no_wires()))
    await soon(wrapped({"type": "lifespan", "headers": headers}, *_no_wires()))
    first, second = answers
    assert first["metadata"] == {"tenant": "acme", "user": "dkl x"}
    assert first["out"] == {"traceparent": TRACEPARENT, "baggage": "tenant=acme,user=dkl%20x"}
    assert second["metadata"] == {}


def _no_wires() -> tuple[Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]]:
    async def receive() -> Any: ...

    async def send(_: Any) -> None: ...

    return receive, send


async def test_log_records_and_lines_carry_declared_keys(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = await lab.working(inherited_metadata={"tenant"}, searchable_metadata={"user.id", "number"})

    @app.task(name="logs")
    async def logs() -> None:
        logging.getLogger("mine").info("hello")

    await soon(app.run(Request(name="logs", metadata={"tenant": "acme", "user": {"id": 1}, "secret": "s"})))
    await nothing_runs(app)
    [mine] = [record for record in caplog.records if record.name == "mine"]
    assert vars(mine)["metadata"] == {"tenant": "acme", "user.id": 1}
    lines = [record.getMessage() for record in caplog.records if record.name == "mognet.task"]
    assert len(lines) == 2
    assert all(line.endswith(" s tenant=acme user.id=1") for line in lines)
    caplog.clear()
    await soon(app.run(Request(name="logs")))
    await nothing_runs(app)
    assert [vars(record)["metadata"] for record in caplog.records if record.name == "mine"] == [None]
