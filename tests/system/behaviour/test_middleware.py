"""Middleware: hooks, their order, and that their errors harm nothing."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from typing import Any

import pytest

from mognet import App, Context, Middleware, Pause, Request, Result, Retry
from mognet.exceptions import Revoked

from .conftest import Gate, Lab, nothing_runs, soon, until


class Recorder(Middleware):
    def __init__(self, log: list[Any], who: str = "") -> None:
        self.log = log
        self.who = who

    async def on_app_starting(self, app: Any) -> None:
        self.log.append(f"{self.who}app starting")

    async def on_app_started(self, app: Any) -> None:
        self.log.append(f"{self.who}app started")

    async def on_app_stopping(self, app: Any) -> None:
        self.log.append(f"{self.who}app stopping")

    async def on_app_stopped(self, app: Any) -> None:
        self.log.append(f"{self.who}app stopped")

    async def on_request_submitting(self, request: Request[Any], context: Context | None = None) -> None:
        self.log.append(f"{self.who}submitting {request.name} by {context and context.request.name}")

    async def on_task_starting(self, context: Context) -> None:
        self.log.append(f"{self.who}starting {context.request.name}")

    async def on_task_completed(self, result: Result[Any], context: Context | None = None) -> None:
        self.log.append(f"{self.who}completed {result.name} {result.state} {context is not None}")

    async def on_running_task_count_changed(self, running_task_count: int) -> None:
        self.log.append(f"{self.who}running {running_task_count}")


async def test_the_life_of_an_app_and_a_task(lab: Lab) -> None:
    log: list[str] = []
    app = lab.app()
    app.add_middleware(Recorder(log))

    @app.task(name="child")
    async def child() -> int:
        log.append("child")
        return 1

    @app.task(name="parent")
    async def parent(context: Context) -> int:
        return await context.run(child)

    start = await lab.start(app)
    assert log == ["app starting", "app started"]
    log.clear()
    assert await soon(app.run(parent)) == 1
    await until(lambda: log[-1] == "running 0")
    order = [
        "submitting parent by None",
        "starting parent",
        "submitting child by parent",
        "starting child",
        "child",
        "completed child SUCCESS True",
        "completed parent SUCCESS True",
    ]
    assert [each for each in log if not each.startswith("running")] == order
    assert [each for each in log if each.startswith("running")] == ["running 1", "running 2", "running 1", "running 0"]
    log.clear()
    await app.close()
    await soon(start)
    assert log == ["app stopping", "app stopped"]


async def test_in_the_order_they_were_added(app: App) -> None:
    log: list[str] = []
    for who in ("first ", "second ", "third "):
        app.add_middleware(Recorder(log, who))

    @app.task(name="work")
    async def work() -> None: ...

    await soon(app.run(work))
    await nothing_runs(app)
    await until(lambda: log[-1] == "third running 0")
    for hook in ("submitting", "starting", "completed"):
        assert [each.split()[0] for each in log if each.split()[1] == hook] == ["first", "second", "third"]


async def test_an_error_is_logged_and_harms_nothing(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            if not name.startswith("on_"):
                raise AttributeError(name)

            async def fail(*args: Any, **kwargs: Any) -> None:
                raise RuntimeError(f"broken {name}")

            return fail

    log: list[str] = []
    app = lab.app()
    app.add_middleware(Broken())
    app.add_middleware(Recorder(log))

    @app.task(name="work")
    async def work() -> int:
        return 1

    with caplog.at_level(logging.ERROR):
        start = await lab.start(app)
        assert await soon(app.run(work)) == 1
        await until(lambda: log[-1] == "running 0")
        await app.close()
        await soon(start)
    for hook in (
        "on_app_starting",
        "on_app_started",
        "on_app_stopping",
        "on_app_stopped",
        "on_request_submitting",
        "on_task_starting",
        "on_task_completed",
        "on_running_task_count_changed",
    ):
        assert f"broken {hook}" in caplog.text
    assert "completed work SUCCESS True" in log


@pytest.mark.parametrize("wish", [Pause, Retry])
async def test_a_hook_is_no_task(app: App, caplog: pytest.LogCaptureFixture, wish: type[BaseException]) -> None:
    """What only a task may raise is an error in a hook like any other; the job was handed back and claimed again, without end."""

    class Wishes:
        async def on_task_starting(self, context: Context) -> None:
            raise wish

    app.add_middleware(Wishes())

    @app.task(name="work")
    async def work(context: Context) -> int:
        return context._claim.record.starts

    assert await soon(app.run(work)) == 1
    assert "on_task_starting of" in caplog.text


async def test_all_hooks_are_optional(app: App) -> None:
    class Nothing:
        pass

    app.add_middleware(Nothing())
    app.add_middleware(Middleware())

    @app.task
    async def work() -> int:
        return 1

    assert await soon(app.run(work)) == 1


async def test_what_it_puts_into_metadata_is_stored(app: App) -> None:
    class Tenant(Middleware):
        async def on_request_submitting(self, request: Request[Any], context: Context | None = None) -> None:
            request.metadata["tenant"] = "acme" if context is None else context.request.metadata["tenant"] + "/child"
            request.metadata |= {"own": request.metadata.get("own", "none")}
            request.kwargs["extra"] = 5
            request.priority = 9

    app.add_middleware(Tenant())

    @app.task(name="child")
    async def child(context: Context, extra: int = 0) -> Any:
        return [context.request.metadata, extra, context.request.priority]

    @app.task(name="parent")
    async def parent(context: Context, extra: int = 0) -> Any:
        return await context.run(child)

    request = app.create_request(child)
    request.metadata["own"] = "mine"
    result = await app.submit(request)
    assert await result.get_metadata() == {"tenant": "acme", "own": "mine"}
    assert await soon(result) == [{"tenant": "acme", "own": "mine"}, 5, 9]
    assert (await soon(app.run(parent)))[0] == {"tenant": "acme/child", "own": "none"}
    many = await app.submit_many([app.create_request(child) for _ in range(3)])
    assert [await each.get_metadata() for each in many] == [{"tenant": "acme", "own": "none"}] * 3


async def test_completed_is_called_once_for_every_end(app: App, gate: Gate) -> None:
    log: list[Any] = []
    app.add_middleware(Recorder(log))

    @app.task(name="fail")
    async def fail() -> None:
        raise KeyError("x")

    @app.task(name="again")
    async def again(context: Context) -> None:
        if context.attempt < 3:
            raise Retry(after=0)

    @app.task(name="revoked")
    async def revoked() -> None:
        await gate.pass_through()

    @app.task(name="late", timeout=0.05)
    async def late() -> None:
        await asyncio.sleep(30)

    for name in ("fail", "again", "unknown", "late"):
        await soon((await app.submit(Request(name=name))).wait())
    result = await app.submit(revoked)
    await gate.arrived()
    await app.revoke(result.id)
    with pytest.raises(Revoked):
        await soon(result)
    await until(lambda: len([each for each in log if each.startswith("completed")]) >= 5)
    await until(lambda: log[-1] == "running 0")
    assert [each for each in log if each.startswith("completed")] == [
        "completed fail FAILURE True",
        "completed again SUCCESS True",
        "completed unknown INVALID False",
        "completed late REVOKED True",
        "completed revoked REVOKED True",
    ]
    assert log.count("starting again") == 3


async def test_a_hook_that_waits_holds_up_only_its_own_job(app: App, gate: Gate) -> None:
    class Slow(Middleware):
        async def on_task_starting(self, context: Context) -> None:
            if context.request.name == "slow":
                await gate.pass_through()

    app.add_middleware(Slow())

    @app.task(name="slow")
    async def slow() -> int:
        return 1

    @app.task(name="quick")
    async def quick() -> int:
        return 2

    result = await app.submit(slow)
    await gate.arrived()
    assert await soon(app.run(quick)) == 2
    other = await app.submit(slow)
    await gate.arrived(2)
    await app.revoke(other.id)
    with pytest.raises(Revoked):
        await soon(other)
    await until(lambda: len(gate.cancelled) == 1)
    gate.open()
    assert await soon(result) == 1
    await nothing_runs(app)


async def test_a_hook_sees_what_the_record_says(app: App) -> None:
    seen: list[Any] = []

    class Look(Middleware):
        async def on_task_completed(self, result: Result[Any], context: Context | None = None) -> None:
            seen.append([await result.get(), await result.get_metadata(), result.duration is not None])

    app.add_middleware(Look())

    @app.task
    async def work(context: Context) -> int:
        await context.set_metadata(a=1)
        return 5

    await soon(app.run(work))
    await until(lambda: seen)
    assert seen == [[5, {"a": 1}, True]]


async def test_all_hooks_of_an_attempt_share_its_variables(app: App) -> None:
    """So what a hook opens at the start, as a trace's span, another can close at the end."""
    span: ContextVar[str] = ContextVar("span", default="none")
    closed: list[str] = []

    class Spans(Middleware):
        async def on_task_starting(self, context: Context) -> None:
            context.token_of_span = span.set(f"span of {context.request.args[0]}")  # type: ignore[attr-defined]

        async def on_task_completed(self, result: Result[Any], context: Context | None = None) -> None:
            closed.append(span.get())
            span.reset(context.token_of_span)  # type: ignore[union-attr]
            closed.append(span.get())

    app.add_middleware(Spans())

    @app.task
    async def work(number: int) -> str:
        return span.get()

    assert await soon(app.run(work, 1)) == "span of 1"
    assert await soon(app.run(work, 2)) == "span of 2"
    await until(lambda: len(closed) == 4)
    assert closed == ["span of 1", "none", "span of 2", "none"]
