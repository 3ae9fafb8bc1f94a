"""Requests, submitting, and the record that exists before submit returns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from mognet import App, Context, Middleware, Request, Result, ResultState
from mognet.exceptions import CouldNotSubmit, NotConnected, Revoked, UnknownTask
from mognet.scope import trace

from .conftest import Gate, Lab, soon, state_is


async def test_the_record_exists_before_submit_returns(idle: App, lab: Lab) -> None:
    other = await lab.connected()
    for request in (Request[None](name="none"), Request[None](name="none", delay=timedelta(hours=1))):
        result = await idle.submit(request)
        assert isinstance(result, Result)
        found = await other.result_backend.get(request.id)
        assert found is not None
        assert (found.id, found.name, found.state, found.parent_id) == (request.id, "none", ResultState.PENDING, None)
        assert (found.number_of_starts, found.number_of_stops, found.unexpected_retry_count) == (0, 0, 0)
        assert found.started is found.finished is found.node_id is found.duration is found.queue_time is None
        assert not (found.done or found.successful or found.failed or found.revoked)
        assert abs((datetime.now(UTC) - found.created).total_seconds()) < 60


def test_a_request_has_a_random_id_if_none_is_given() -> None:
    assert Request(name="a").id != Request(name="a").id
    id = uuid4()
    assert Request(name="a", id=id).id == id
    assert Request(name="a", id=id).priority == 5


def test_a_request_for_a_function_is_like_any_other(app: App) -> None:
    @app.task(name="a")
    async def work(x: int, *, y: int) -> None: ...

    made = app.create_request(work, 1, y=2)
    written = Request[None](name="a", args=(1,), kwargs={"y": 2}, id=made.id)
    assert (made, made.model_fields_set - {"id"}) == (written, written.model_fields_set - {"id"})
    assert made.model_dump() == Request.model_validate(made.model_dump()).model_dump() == written.model_dump()
    assert (type(made.stack), type(made.metadata), made.model_extra) == (list, dict, None)
    assert app.create_request(work, 1, y=2).metadata is not made.metadata
    with pytest.raises(ValueError, match="priority"):
        made.priority = 11
    made.priority = 7
    assert made.model_copy().priority == 7
    assert "priority" in made.model_fields_set


async def test_a_call_is_stored_like_its_request(lab: Lab) -> None:
    app = await lab.connected(task_routes={"routed": "special"}, show_arguments=True)

    @app.task(name="routed", queue="own", priority=2)
    async def routed(x: int) -> None: ...

    @app.task(name="queued", queue="own", priority=9)
    async def queued(x: int = 1, *, y: str = "") -> None: ...

    @app.task(name="bare")
    def bare() -> None: ...

    async def stored(result: Result[Any]) -> tuple[object, ...]:
        [record] = await app.engine.get([result.id])
        assert record is not None
        shown = record._replace(id=result.id, root=None, created=0.0, due=0.0, place=0)
        return (await app.engine.body(result.id), *shown[1:])

    with trace({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}):
        traced = await app.submit(bare), await app.submit(app.create_request(bare))
    pairs = [
        (await app.submit(routed, 1), await app.submit(app.create_request(routed, 1))),
        (await app.submit(queued, 3, y="ä"), await app.submit(app.create_request(queued, 3, y="ä"))),
        (await app.submit(queued), await app.submit(app.create_request(queued))),
        (await app.submit(bare), await app.submit(app.create_request(bare))),
        traced,
    ]
    for call, request in pairs:
        assert await stored(call) == await stored(request)
        assert call.record._replace(id=request.id, root=None, created=0.0, due=0.0) == request.record._replace(
            root=None, created=0.0, due=0.0
        )
    assert len({await stored(call) for call, _ in pairs}) == len(pairs)


async def test_a_name_that_is_too_long_is_refused(idle: App) -> None:
    @idle.task(name="x" * 256)
    def work() -> None: ...

    with pytest.raises(ValueError, match="255"):
        idle.create_request(work)
    with pytest.raises(ValueError, match="255"):
        await idle.submit(work)


@pytest.mark.parametrize("priority", [-1, 11, 1000])
def test_priorities_go_from_0_to_10(priority: int) -> None:
    with pytest.raises(ValueError, match="priority"):
        Request(name="a", priority=priority)
    request = Request[None](name="a")
    with pytest.raises(ValueError, match=r"10|0"):
        request.priority = priority
    assert [Request(name="a", priority=p).priority for p in (0, 10)] == [0, 10]


async def test_kwargs_repr_is_shown(idle: App) -> None:
    result = await idle.submit(Request(name="a", kwargs={"secret": 1}, kwargs_repr="secret=***"))
    assert result.request_kwargs_repr == "secret=***"
    plain = await idle.submit(Request(name="a", kwargs={"secret": 1}))
    assert plain.request_kwargs_repr is None


async def test_submitting_a_known_id_again_changes_nothing(app: App, idle: App, gate: Gate) -> None:
    runs: list[int] = []

    @app.task(name="once")
    async def once(n: int) -> int:
        runs.append(n)
        await gate.pass_through()
        return n

    id = uuid4()

    def request(n: int) -> Request[int]:
        return Request(name="once", id=id, args=(n,), metadata={"n": n})

    first = await app.submit(request(1))
    await gate.arrived()
    for other in (app, idle):
        again = await other.submit(request(2))
        assert (again.id, again.state) == (id, "RUNNING")
        assert await again.get_metadata() == {"n": 1}
    gate.open()
    assert await soon(first) == 1
    assert await soon(idle.run(request(3))) == 1
    assert await soon(app.run(request(3))) == 1
    done = await idle.submit(request(4))
    assert done.done
    assert await done.get() == 1
    assert runs == [1]
    assert await done.get_metadata() == {"n": 1}


async def test_the_same_id_twice_at_once(app: App) -> None:
    runs: list[int] = []

    @app.task(name="once")
    async def once(n: int) -> int:
        runs.append(n)
        return n

    id = uuid4()
    results = await soon(asyncio.gather(*(app.run(Request(name="once", id=id, args=(n,))) for n in range(20))))
    assert len(runs) == len(set(results)) == 1


async def test_a_tombstone_keeps_a_later_submit_from_running(app: App) -> None:
    runs: list[int] = []

    @app.task(name="never")
    async def never() -> None:
        runs.append(1)

    id = uuid4()
    tombstone = await app.revoke(id)
    assert (tombstone.id, tombstone.name, tombstone.state, tombstone.done) == (id, None, "REVOKED", True)
    result = await app.submit(Request(name="never", id=id))
    assert result.revoked
    with pytest.raises(Revoked):
        await soon(result)
    with pytest.raises(Revoked):
        await soon(app.run(Request(name="never", id=id)))
    many = await app.submit_many([Request(name="never", id=id), Request(name="never")])
    assert many[0].revoked
    await soon(many[1].wait())
    assert runs == [1]


async def test_submit_many_gives_results_in_order(app: App) -> None:
    @app.task
    async def double(n: int) -> int:
        return 2 * n

    results = await app.submit_many([app.create_request(double, n) for n in range(500)])
    assert await soon(asyncio.gather(*results)) == [2 * n for n in range(500)]
    assert await app.submit_many([]) == []


async def test_submit_many_is_all_or_none(idle: App) -> None:
    requests = [Request(name="a"), Request(name="b"), Request(name="c", args=(object(),)), Request(name="d")]
    with pytest.raises(CouldNotSubmit):
        await idle.submit_many(requests)
    assert await idle.result_backend.get_many(*(r.id for r in requests)) == [None] * 4


async def test_submit_many_is_one_round_trip(idle: App, monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = idle._engine
    trips: list[int] = []
    submit = engine.submit

    async def counted(jobs: Sequence[Any], **kwargs: Any) -> Any:
        trips.append(len(jobs))
        return await submit(jobs, **kwargs)

    monkeypatch.setattr(engine, "submit", counted)
    await idle.submit_many([Request(name="a") for _ in range(300)])
    assert trips == [300]


async def test_too_large_requests_are_refused(lab: Lab) -> None:
    app = await lab.connected(max_message_size=1000)
    request = Request[None](name="a", args=("x" * 1000,))
    with pytest.raises(CouldNotSubmit, match="max_message_size"):
        await app.submit(request)
    assert await app.result_backend.get(request.id) is None


async def test_submitting_to_an_app_that_is_not_connected(lab: Lab) -> None:
    app = lab.app()
    request = Request[None](name="a")
    for call in (
        lambda: app.submit(request),
        lambda: app.run(request),
        lambda: app.submit_many([request]),
        lambda: app.revoke(request.id),
        lambda: app.queue_stats("tasks"),
        lambda: app.purge_task_queues(),
    ):
        with pytest.raises(NotConnected, match="connect"):
            await call()
    with pytest.raises(ConnectionError):
        _ = app.result_backend


async def test_delay_and_run_at_do_not_hold_slots(narrow: App) -> None:
    order: list[str] = []

    @narrow.task(name="note")
    async def note(what: str) -> None:
        order.append(what)

    loop = asyncio.get_running_loop()
    start = loop.time()
    soonish = [
        Request[None](name="note", args=("delay",), delay=timedelta(seconds=0.3), priority=10),
        Request[None](name="note", args=("run_at",), run_at=datetime.now(UTC) + timedelta(seconds=0.6), priority=10),
        Request[None](name="note", args=("local",), run_at=datetime.now() + timedelta(seconds=0.9), priority=10),
    ]
    results = [await narrow.submit(request) for request in soonish]
    await soon(narrow.run(Request[None](name="note", args=("now",))))
    assert order == ["now"]
    for result, seconds in zip(results, (0.3, 0.6, 0.9), strict=True):
        await soon(result)
        assert loop.time() - start >= seconds - 0.01
    assert order == ["now", "delay", "run_at", "local"]


async def test_a_run_at_in_the_past_runs_now(app: App) -> None:
    @app.task(name="now")
    async def now() -> int:
        return 1

    assert await soon(app.run(Request(name="now", run_at=datetime(2001, 1, 1, tzinfo=UTC)))) == 1


async def test_delays_wake_an_idle_worker_in_time(app: App) -> None:
    @app.task(name="now")
    async def now() -> int:
        return 1

    start = asyncio.get_running_loop().time()
    await soon(app.run(Request(name="now", delay=timedelta(seconds=0.2))))
    assert asyncio.get_running_loop().time() - start < 3.0


async def test_run_waits_for_what_a_slow_middleware_lets_through(app: App) -> None:
    class Slow(Middleware):
        async def on_request_submitting(self, request: Request[Any], context: Context | None = None) -> None:
            await asyncio.sleep(0.1)

    @app.task
    async def one() -> int:
        return 1

    app.add_middleware(Slow())
    assert await soon(app.run(one)) == 1


async def test_context_makes_a_child_from_outside(app: App) -> None:
    @app.task
    async def leaf(context: Context) -> list[str]:
        return [str(id) for id in context.request.stack]

    @app.task
    async def by_submit(context: Context) -> Any:
        result = await app.submit(leaf, context=context)
        assert result.parent_id == context.request.id
        request = app.create_request(leaf)
        second = await app.submit(request, context=context)
        many = await app.submit_many([app.create_request(leaf)], context=context)
        return await context.gather(result, second, *many)

    top = await app.submit(by_submit)
    assert await soon(top) == [[str(top.id)]] * 3
    assert await top.children.count() == 3


async def test_requests_by_name_and_route(lab: Lab) -> None:
    app = await lab.working(task_routes={"routed": "special"}, default_task_route="usual")
    queues: dict[str, str | None] = {}

    for name, options in {"plain": {}, "routed": {"queue": "ignored"}, "own": {"queue": "mine"}}.items():

        @app.task(name=name, **options)
        async def note(context: Context) -> None:
            queues[context.request.name] = context.request.queue_name

    await lab.close()
    assert app.get_task_queue_names() == {"usual", "special", "mine"}
    app = lab.app(task_routes={"routed": "special"}, default_task_route="usual")
    app.registry = lab._apps[0].registry
    await lab.start(app)
    await soon(asyncio.gather(*(app.run(Request(name=name)) for name in ("plain", "routed", "own"))))
    assert queues == {"plain": "usual", "routed": "special", "own": "mine"}
    result = await app.submit(Request(name="plain", queue_name="other"))
    assert result.queue_name == "other"
    assert (await app.queue_stats("other")).message_count == 1


async def test_functions_that_are_no_tasks(idle: App) -> None:
    async def nothing() -> None: ...

    with pytest.raises(UnknownTask, match="nothing") as caught:
        idle.create_request(nothing)
    assert caught.value.task_name.endswith("nothing")
    with pytest.raises(UnknownTask):
        await idle.submit(nothing)


async def test_state_after_each_turn(app: App, gate: Gate) -> None:
    @app.task
    async def work(context: Context) -> str:
        await gate.pass_through()
        return "done"

    result = await app.submit(work)
    await gate.arrived()
    await state_is(result, "RUNNING")
    assert (result.number_of_starts, result.number_of_stops) == (1, 0)
    assert result.node_id == app.config.node_id
    assert result.started is not None
    assert result.queue_time is not None
    assert app.worker is not None
    assert set(app.worker.running_tasks) == {result.id}
    gate.open()
    await soon(result)
    assert (result.state, result.number_of_starts, result.number_of_stops) == ("SUCCESS", 1, 1)
    assert result.unexpected_retry_count == 0
    assert result.successful
    assert result.done
    assert not result.failed
    assert not result.revoked
    assert result.started is not None
    assert result.finished is not None
    assert result.created <= result.started <= result.finished
    assert result.duration == result.finished - result.started
    assert isinstance(result.id, UUID)


async def test_what_is_no_call_is_refused_with_a_hint(idle: App) -> None:
    with pytest.raises(TypeError, match=r"Request\(name='jobs.add'"):
        await idle.submit("jobs.add", 1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="own arguments"):
        await idle.submit(Request(name="any"), 1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="own arguments"):
        await idle.submit(Request(name="any"), 1, 2)  # type: ignore[call-overload]
