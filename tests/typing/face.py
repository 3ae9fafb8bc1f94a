"""How the public face is typed. Not run: mypy and pyright read it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, assert_type
from uuid import UUID

from pydantic import BaseModel

from mognet import (
    App,
    AppConfig,
    Backoff,
    ClassService,
    Context,
    Event,
    Middleware,
    Pause,
    Progress,
    Request,
    Result,
    ResultState,
    ResultTree,
    Retry,
    State,
    task,
)
from mognet.control import NodeStatus, QueueStats
from mognet.exceptions import InvalidErrorInfo, InvalidTaskArguments, TaskError, TooManyRetries, UnknownTask


class Owner(BaseModel):
    name: str


@task
async def with_context(context: Context, n: int, *, text: str = "") -> list[int]:
    return [n]


@task(name="plain", queue="q", priority=3, timeout=timedelta(seconds=5), retries=2, retry_on=(ValueError,), backoff=Backoff(base=2))
async def plain(n: int) -> Owner:
    return Owner(name=str(n))


@task(timeout=1.5, retry_on=ValueError)
def sync_with_context(context: Context, n: int) -> str:
    return context.call_threadsafe(other(context))


@task()
def sync_plain(*numbers: int) -> float:
    return float(sum(numbers))


@task
async def nothing() -> None: ...


async def other(context: Context) -> str:
    return context.request.name


app = App("x", AppConfig(max_retries=5), url="memory://")


@app.task
async def of_app(context: Context, owner: Owner) -> bool:
    return True


@app.task(name="more")
def of_app_with_options(owner: Owner) -> bytes:
    return b""


async def decorated_functions_are_unchanged(context: Context) -> None:
    assert_type(await with_context(context, 5, text="a"), list[int])
    assert_type(await plain(5), Owner)
    assert_type(sync_with_context(context, 5), str)
    assert_type(sync_plain(1, 2), float)
    assert_type(await of_app(context, Owner(name="a")), bool)
    assert_type(of_app_with_options(Owner(name="a")), bytes)


def requests() -> None:
    assert_type(app.create_request(with_context, 5, text="a"), Request[list[int]])
    assert_type(app.create_request(plain, n=5), Request[Owner])
    assert_type(app.create_request(sync_with_context, 5), Request[str])
    assert_type(app.create_request(sync_plain, 1, 2, 3), Request[float])
    assert_type(app.create_request(nothing), Request[None])
    assert_type(app.create_request(of_app, Owner(name="a")), Request[bool])
    # wrong calls are seen
    app.create_request(with_context)  # type: ignore[call-overload] # pyright: ignore
    app.create_request(with_context, "five")  # type: ignore[call-overload] # pyright: ignore
    app.create_request(with_context, 5, unknown=1)  # type: ignore[call-arg] # pyright: ignore
    app.create_request(plain, 5, 6)  # type: ignore[call-overload] # pyright: ignore
    app.create_request(sync_plain, "one")  # type: ignore[call-overload] # pyright: ignore


def request_fields() -> None:
    request = Request[int](
        name="a",
        args=(1,),
        kwargs={"a": 1},
        metadata={"any": object()},
        deadline=timedelta(seconds=1),
        delay=timedelta(seconds=1),
        queue_name="q",
        kwargs_repr="a",
        priority=3,
    )
    assert_type(request.id, UUID)
    assert_type(request.name, str)
    assert_type(request.stack, list[UUID])
    assert_type(request.metadata, dict[str, Any])
    assert_type(request.deadline, timedelta | datetime | None)
    assert_type(request.run_at, datetime | None)
    request.metadata["user_id"] = "dkl"


async def submitting() -> None:
    assert_type(await app.submit(with_context, 5), Result[list[int]])
    assert_type(await app.submit(plain, 5), Result[Owner])
    assert_type(await app.submit(sync_with_context, 5), Result[str])
    assert_type(await app.submit(sync_plain, 5), Result[float])
    assert_type(await app.submit(nothing), Result[None])
    request: Request[int] = Request(name="a")
    assert_type(await app.submit(request), Result[int])
    assert_type(await app.submit_many([request, request]), list[Result[int]])
    mixed: list[Request[Any]] = [request, Request[str](name="b")]
    assert_type(await app.submit_many(mixed), list[Result[Any]])


async def running(context: Context) -> None:
    assert_type(await app.run(with_context, 5), list[int])
    assert_type(await app.run(plain, 5), Owner)
    assert_type(await app.run(sync_with_context, 5), str)
    assert_type(await app.run(sync_plain, 5), float)
    request: Request[int] = Request(name="a")
    assert_type(await app.run(request), int)
    assert_type(await app.run(request, context=context), int)


async def inside(context: Context) -> None:
    request: Request[int] = Request(name="a")
    assert_type(await context.run(with_context, 5), list[int])
    assert_type(await context.run(sync_plain, 5), float)
    assert_type(await context.run(request), int)
    assert_type(await context.submit(plain, 5), Result[Owner])
    assert_type(await context.submit(request), Result[int])
    assert_type(context.create_request(plain, 5), Request[Owner])
    assert_type(await context.submit_many([request]), list[Result[int]])
    # its app has the same face, and with a request a context may be named
    assert_type(await context.app.submit(with_context, 5), Result[list[int]])
    assert_type(await context.app.run(sync_plain, 5), float)
    assert_type(context.app.create_request(plain, 5), Request[Owner])
    assert_type(await context.app.submit_many([request]), list[Result[int]])
    assert_type(await context.app.queue_stats("tasks"), QueueStats)
    assert_type(context.app.get_task_queue_names(), set[str])
    assert_type(await context.app.purge_task_queues(), dict[str, int])
    async for node in context.app.get_current_status_of_nodes(timeout=1):
        assert_type(node, NodeStatus)
    context.app.create_request(plain, "five")  # type: ignore[call-overload] # pyright: ignore
    assert_type(await app.submit(app.create_request(plain, 5), context=context), Result[Owner])
    assert_type(await app.submit(plain, 5, context=context), Result[Owner])
    assert_type(await app.submit(with_context, 5, text="a", context=context), Result[list[int]])
    assert_type(await app.submit(sync_with_context, 5, context=context, connection=None), Result[str])
    assert_type(await app.submit(sync_plain, 5, connection=None), Result[float])
    assert_type(await app.run(plain, 5, context=context), Owner)
    assert_type(await app.run(sync_with_context, 5, context=context), str)
    assert_type(await app.run(app.create_request(plain, 5), context=context), Owner)
    assert_type(context.attempt, int)
    assert_type(context.state, State)
    assert_type(context.request, Request[Any])
    assert_type(await context.get_result(), Result[Any])
    assert_type(await context.get_metadata(), dict[str, Any])
    await context.set_metadata(user_id="dkl", anything=object())
    assert_type(await context.gather(await context.submit(request), request.id, return_exceptions=True), list[Any])
    await context.state.set("a", 1)
    await context.state.set(a=1, b=2)
    assert_type(await context.state.get("a", 5), Any)
    assert_type(await context.state.pop("a"), Any)
    await context.state.clear()
    raise Pause(resume_after=timedelta(seconds=1))


async def results(result: Result[int]) -> None:
    assert_type(await result, int)
    assert_type(await result.get(), int)
    await result.wait(timeout=5)
    assert_type(result.id, UUID)
    assert_type(result.name, str | None)
    assert_type(result.state, ResultState)
    assert_type(result.parent_id, UUID | None)
    assert_type(result.created, datetime)
    assert_type(result.started, datetime | None)
    assert_type(result.finished, datetime | None)
    assert_type(result.duration, timedelta | None)
    assert_type(result.queue_time, timedelta | None)
    assert_type(result.done, bool)
    assert_type(result.unexpected_retry_count, int)
    assert_type(await result.get_metadata(), dict[str, Any])
    assert_type(await result.children.count(), int)
    assert_type(result.children.iter_ids(), AsyncIterator[UUID])
    assert_type(result.children.iter_instances(), AsyncIterator[Result[Any]])
    tree = await result.tree(max_depth=3, max_width=10)
    assert_type(tree, ResultTree)
    assert_type(tree.children, list[ResultTree])
    await result.delete(include_children=True)
    await result.set_ttl(timedelta(days=1), include_children=False)
    wider: Result[float] = result  # covariant
    del wider


async def apps() -> None:
    assert_type(await app.result_backend.get(UUID(int=1)), Result[Any] | None)
    assert_type(await app.revoke(UUID(int=1), force=True), Result[Any])
    assert_type(await app.retry("id", args=[1], kwargs={"n": 2}, delay=timedelta(1)), Result[Any])
    assert_type(await app.retry_many(metadata={"a": [1, None]}, state=["FAILURE", ResultState.INVALID], as_new=True), int)
    assert_type(await app.retry_many(state="FAILURE", args=[1], kwargs={"n": 2}), int)
    assert_type(await app.revoke_many(root=UUID(int=1), parent="id", node="n"), int)
    assert_type(await app.delete_many(created_before=datetime.now(), created_after=None), int)
    assert_type(await app.result_backend.count(by="metadata:a", state="PENDING"), dict[str, int])
    async for found in app.result_backend.find(
        metadata={"a": 1}, state={"RUNNING"}, queue="q", name="n", order="oldest", limit=5, after="c"
    ):
        assert_type(found, Result[Any])
        assert_type(found.cursor, str | None)
    await app.revoke_many(tenant_id="acme")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await app.delete_many(state=5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert_type(app.get_task_queue_names(), set[str])
    assert_type(await app.purge_task_queues(), dict[str, int])
    assert_type(await app.queue_stats("tasks"), QueueStats)
    async for node in app.get_current_status_of_nodes():
        assert_type(node, NodeStatus)
        assert_type(node.payload.running_request_ids, list[UUID])
    async with app as entered:
        assert_type(entered, App)
        await app.start()


class Database(ClassService[str]):
    def __call__(self, context: Context, table: str = "") -> str:
        return table

    async def close(self) -> None: ...


def by_function(context: Context, a: int) -> bytes:
    return b""


def other_function(context: Context, a: int) -> bytes:
    return b"other"


def services(context: Context) -> None:
    assert_type(context.get_service(by_function, 5), bytes)
    assert_type(context.get_service(Database, "users"), str)
    context.get_service(by_function, "five")  # type: ignore[call-overload] # pyright: ignore
    app.services[by_function] = other_function


class Tenant(Middleware):
    async def on_request_submitting(self, request: Request[Any], context: Context | None = None) -> None:
        request.metadata["tenant"] = "acme"

    async def on_task_completed(self, result: Result[Any], context: Context | None = None) -> None: ...


app.add_middleware(Tenant())


def errors(invalid: InvalidTaskArguments, unknown: UnknownTask, remote: TaskError, too_many: TooManyRetries) -> None:
    assert_type(invalid.errors, list[InvalidErrorInfo])
    assert_type(unknown.task_name, str)
    assert_type(remote.type_name, str)
    assert_type(remote.traceback, str)
    assert_type(too_many.request_id, UUID)
    raise Retry(after=5) from invalid


async def watching(context: Context, result: Result[int]) -> None:
    async for event in app.watch(metadata={"tenant": ["acme", "zoo"]}, since=await app.cursor()):
        assert_type(event, Event)
        assert_type(event.progress, Progress | None)
        assert_type(event.changed, frozenset[str])
    async for event in app.watch(name="cook", state=["FAILURE", ResultState.INVALID], metadata={"tenant": "acme"}):
        assert_type(event, Event)
    async for event in result.watch(since="cursor"):
        assert_type(event.state, ResultState)
    assert_type(await result.summary(), dict[ResultState, int])
    assert_type(result.progress, Progress | None)
    await context.progress(1, 2.5, "half")
    async for item in context.track(["a", "b"]):
        assert_type(item, str)
    for number in context.track_sync(range(3), total=3):
        assert_type(number, int)
    async for item in context.track(["a", "b"], message="packing {}".format):
        assert_type(item, str)
    for number in context.track_sync(range(3), message=lambda number: None if number == 0 else f"number {number + 1}"):
        assert_type(number, int)
    context.track(["a"], message=len)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
