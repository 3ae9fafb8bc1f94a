"""Deadlines and revoking: what is stopped, and what goes with it."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from mognet import App, Context, Request, Result
from mognet.exceptions import AttemptLost, Revoked
from mognet.records import Job

from .conftest import Gate, Lab, nothing_runs, soon, state_is, until

# deadlines


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "def"])
async def test_a_timedelta_is_the_run_time_allowed(app: App, is_async: bool) -> None:
    release = threading.Event()
    cancelled: list[int] = []

    async def as_async() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    def as_def() -> None:
        release.wait(30)

    function = app.task(as_async if is_async else as_def)
    request = app.create_request(function)
    request.deadline = timedelta(seconds=0.05)
    result = await app.submit(request)
    with pytest.raises(Revoked):
        await soon(result)
    assert result.state == "REVOKED"
    release.set()
    assert cancelled == [1] * is_async
    await nothing_runs(app)


async def test_waiting_in_line_is_not_running(narrow: App, gate: Gate) -> None:
    @narrow.task
    async def first() -> None:
        await gate.pass_through()

    @narrow.task
    async def second() -> int:
        return 1

    holding = await narrow.submit(first)
    await gate.arrived()
    request = narrow.create_request(second)
    request.deadline = timedelta(seconds=0.1)
    result = await narrow.submit(request)
    await asyncio.sleep(0.15)
    gate.open()
    assert await soon(result) == 1
    await soon(holding)


async def test_a_datetime_is_the_latest_moment(app: App) -> None:
    @app.task(name="long")
    async def long() -> None:
        await asyncio.sleep(30)

    @app.task(name="short")
    async def short() -> int:
        return 1

    start = time.monotonic()
    with pytest.raises(Revoked):
        await soon(app.run(Request(name="long", deadline=datetime.now(UTC) + timedelta(seconds=0.1))))
    assert time.monotonic() - start < 5
    assert await soon(app.run(Request(name="short", deadline=datetime.now(UTC) + timedelta(seconds=60)))) == 1


async def test_a_deadline_that_has_passed_never_runs(app: App) -> None:
    runs: list[int] = []

    @app.task(name="never")
    async def never() -> None:
        runs.append(1)

    result = await app.submit(Request(name="never", deadline=datetime.now(UTC) - timedelta(seconds=1)))
    with pytest.raises(Revoked):
        await soon(result)
    assert result.revoked
    zero = await app.submit(Request(name="never", deadline=timedelta(0)))
    with pytest.raises(Revoked):
        await soon(zero)
    assert runs == []


async def test_the_tasks_own_timeout(app: App) -> None:
    @app.task(timeout=0.05)
    async def by_seconds() -> None:
        await asyncio.sleep(30)

    @app.task(timeout=timedelta(seconds=0.05))
    async def by_timedelta() -> None:
        await asyncio.sleep(30)

    for function in (by_seconds, by_timedelta):
        with pytest.raises(Revoked):
            await soon(app.run(function))


@pytest.mark.parametrize("how", ["returns", "raises"])
async def test_a_task_that_does_not_let_itself_be_stopped(app: App, how: str) -> None:
    @app.task(timeout=0.05)
    async def stubborn() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            if how == "raises":
                raise KeyError("instead") from None
        return "value"

    result = await app.submit(stubborn)
    with pytest.raises(Revoked):
        await soon(result)
    assert result.state == "REVOKED"


async def test_a_timeout_of_its_own_is_an_error_like_others(app: App) -> None:
    @app.task(timeout=30)
    async def own() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(30)

    result = await app.submit(own)
    with pytest.raises(TimeoutError):
        await soon(result)
    assert result.state == "FAILURE"


async def test_a_deadline_takes_the_children_along(app: App, gate: Gate) -> None:
    @app.task
    async def child(context: Context) -> None:
        if context.request.stack and len(context.request.stack) < 3:
            await context.run(child)
        await gate.pass_through()

    @app.task(timeout=0.3)
    async def parent(context: Context) -> None:
        await context.submit(child)
        await context.submit(Request(name="none", delay=timedelta(hours=1)))
        await asyncio.sleep(30)

    result = await app.submit(parent)
    with pytest.raises(Revoked):
        await soon(result)
    assert {r.state for r in await everyone(result)} == {"REVOKED"}
    assert len(await everyone(result)) == 5
    await until(lambda: gate.cancelled)
    assert gate.left == []
    await nothing_runs(app)


# revoking


async def everyone(result: Result[Any]) -> list[Result[Any]]:
    """A job and all below it, as they are now."""
    await result.refresh()
    found, todo = [result], [result]
    while todo:
        async for child in todo.pop().children.iter_instances():
            found.append(child)
            todo.append(child)
    return found


async def test_a_pending_job_never_runs(narrow: App, gate: Gate) -> None:
    runs: list[int] = []

    @narrow.task
    async def first() -> None:
        await gate.pass_through()

    @narrow.task
    async def second() -> None:
        runs.append(1)

    holding = await narrow.submit(first)
    await gate.arrived()
    result = await narrow.submit(second)
    revoked = await narrow.revoke(result.id)
    assert (revoked.id, revoked.state, revoked.number_of_starts) == (result.id, "REVOKED", 0)
    assert revoked.finished is not None
    with pytest.raises(Revoked):
        await soon(result)
    gate.open()
    await soon(holding)
    await soon(narrow.run(first))
    assert runs == []


async def test_a_delayed_job_never_runs(app: App) -> None:
    runs: list[int] = []

    @app.task(name="late")
    async def late() -> None:
        runs.append(1)

    result = await app.submit(Request(name="late", delay=timedelta(seconds=0.1)))
    await app.revoke(result.id)
    await asyncio.sleep(0.2)
    assert runs == []


async def test_a_running_job_is_cancelled_at_once(app: App, gate: Gate) -> None:
    @app.task
    async def work() -> None:
        await gate.pass_through()

    result = await app.submit(work)
    await gate.arrived()
    start = time.monotonic()
    revoked = await app.revoke(result.id)
    assert revoked.state == "REVOKED"
    await until(lambda: gate.cancelled)
    assert time.monotonic() - start < 2
    with pytest.raises(Revoked):
        await soon(result)
    await nothing_runs(app)
    assert (result.number_of_starts, result.number_of_stops) == (1, 1)


async def test_on_whatever_node_it_runs(lab: Lab, gate: Gate) -> None:
    one, two, outside = await lab.working(node_id="one"), lab.app(node_id="two"), await lab.connected()

    @one.task(name="work")
    async def work(context: Context) -> None:
        await gate.pass_through()

    two.task(name="work")(work)
    await lab.start(two)
    results = [await outside.submit(Request(name="work")) for _ in range(8)]
    await gate.arrived(8)
    for result in results:
        await outside.revoke(result.id)
    await until(lambda: len(gate.cancelled) == 8)
    await nothing_runs(one)
    await nothing_runs(two)


async def test_even_if_the_signal_is_lost(lab: Lab, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    app = await lab.working(lease=timedelta(seconds=0.3))
    outside = await lab.connected()

    async def lost(channel: str, body: bytes) -> None:
        return None

    monkeypatch.setattr(outside._engine, "publish", lost)

    @app.task(name="work")
    async def work() -> None:
        await gate.pass_through()

    result = await outside.submit(Request(name="work"))
    await gate.arrived()
    await outside.revoke(result.id)
    await until(lambda: gate.cancelled)
    await nothing_runs(app)


@pytest.mark.parametrize("how", ["returns", "raises"])
async def test_a_task_that_does_not_let_itself_be_cancelled(app: App, gate: Gate, how: str) -> None:
    @app.task
    async def stubborn(context: Context) -> str:
        try:
            await gate.pass_through()
        except asyncio.CancelledError:
            if how == "raises":
                raise KeyError("instead") from None
        return "value"

    result = await app.submit(stubborn)
    await gate.arrived()
    await app.revoke(result.id)
    await nothing_runs(app)
    with pytest.raises(Revoked):
        await soon(result)
    assert result.state == "REVOKED"


async def test_a_def_task_goes_on_but_its_result_is_discarded(app: App) -> None:
    entered, release, ended = threading.Event(), threading.Event(), threading.Event()
    lost: list[str] = []

    @app.task
    def work(context: Context) -> str:
        entered.set()
        release.wait(20)
        for coroutine in (context.set_metadata(late=True), context.state.set("late", 1), context.submit(Request(name="none"))):
            try:
                context.call_threadsafe(coroutine)
            except AttemptLost as error:
                lost.append(str(error))
        ended.set()
        return "value"

    result = await app.submit(work)
    await until(entered.is_set)
    await app.revoke(result.id)
    with pytest.raises(Revoked):
        await soon(result)
    await nothing_runs(app)
    release.set()
    await until(ended.is_set)
    assert len(lost) == 3
    await result.refresh()
    assert result.state == "REVOKED"
    assert await result.get_metadata() == {}
    assert await result.children.count() == 0


async def test_a_def_task_that_waits_on_the_loop_is_let_go(app: App, gate: Gate) -> None:
    ended: list[BaseException] = []

    @app.task
    def work(context: Context) -> None:
        try:
            context.call_threadsafe(gate.pass_through())
        except BaseException as error:
            ended.append(error)
            raise

    result = await app.submit(work)
    await gate.arrived()
    await app.revoke(result.id)
    await until(lambda: ended)
    assert isinstance(ended[0], AttemptLost)
    with pytest.raises(Revoked):
        await soon(result)


async def test_all_descendants_however_deep(lab: Lab, gate: Gate) -> None:
    app = await lab.working(max_recursion=200)

    @app.task
    async def down(context: Context, n: int) -> None:
        if n == 0:
            await gate.pass_through()
        else:
            await context.run(down, n - 1)

    result = await app.submit(down, 60)
    await gate.arrived()
    assert len(await everyone(result)) == 61
    await app.revoke(result.id)
    assert {each.state for each in await everyone(result)} == {"REVOKED"}
    await until(lambda: gate.cancelled)
    await nothing_runs(app)
    assert gate.left == []


async def test_all_descendants_however_many(app: App, gate: Gate) -> None:
    @app.task(name="leaf")
    async def leaf() -> None:
        await gate.pass_through()

    @app.task
    async def wide(context: Context) -> None:
        requests = [Request[None](name="leaf") for _ in range(30)]
        requests += [Request[None](name="leaf", delay=timedelta(hours=1)) for _ in range(300)]
        await app.submit_many(requests, context=context)
        await gate.pass_through("parent")

    result = await app.submit(wide)
    await gate.arrived(31)
    await app.revoke(result.id)
    family = await everyone(result)
    assert len(family) == 331
    assert {each.state for each in family} == {"REVOKED"}
    await until(lambda: len(gate.cancelled) == 31)
    await nothing_runs(app)


async def test_in_a_bounded_number_of_round_trips(idle: App, monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = idle._engine
    trips: list[str] = []
    parents: list[UUID] = [uuid4()]

    def counted(name: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            trips.append(name)
            return real(*args, **kwargs)

        return call

    await idle.submit(Request(name="none", id=parents[0], delay=timedelta(hours=1)))
    for depth in range(20):
        jobs = [Job(uuid4(), "none", "tasks", b"{}", delay=3600.0, parent=parents[-1], root=parents[0]) for _ in range(5)]
        await engine.submit(jobs)
        parents.append(jobs[depth % 5].id)
    for name in ("submit", "claim", "extend", "settle", "get", "value", "update", "delete", "count", "load", "save", "publish", "search"):
        monkeypatch.setattr(engine, name, counted(name, getattr(engine, name)))
    await idle.revoke(parents[0])
    assert len(trips) <= 2, trips
    monkeypatch.undo()
    top = await idle.result_backend.get(parents[0])
    assert top is not None
    assert len(await everyone(top)) == 101
    assert {each.state for each in await everyone(top)} == {"REVOKED"}


async def test_a_finished_job_is_returned_unchanged(app: App, gate: Gate) -> None:
    @app.task
    async def child() -> None:
        await gate.pass_through()

    @app.task
    async def parent(context: Context) -> int:
        await context.submit(child)
        return 5

    result = await app.submit(parent)
    assert await soon(result) == 5
    await gate.arrived()
    before = await app.result_backend.get(result.id)
    assert await app.revoke(result.id) == before
    assert gate.cancelled == []
    [running] = [each async for each in result.children.iter_instances()]
    assert running.state == "RUNNING"
    forced = await app.revoke(result.id, force=True)
    assert forced == before
    assert await forced.get() == 5
    await until(lambda: gate.cancelled)
    with pytest.raises(Revoked):
        await soon(running)


async def test_failed_and_invalid_jobs_stay_what_they_are(app: App) -> None:
    @app.task
    async def fail() -> None:
        raise KeyError("x")

    for result in (await app.submit(fail), await app.submit(Request(name="unknown"))):
        await soon(result.wait())
        state = result.state
        for force in (False, True):
            again = await app.revoke(result.id, force=force)
            assert again.state == state


async def test_revoking_twice(idle: App) -> None:
    result = await idle.submit(Request(name="none"))
    first = await idle.revoke(result.id)
    assert await idle.revoke(result.id) == first
    tombstone = await idle.revoke(uuid4())
    assert await idle.revoke(tombstone.id) == tombstone


async def test_a_child_submitted_under_a_revoked_parent_is_born_revoked(app: App, gate: Gate) -> None:
    seen: list[Any] = []

    @app.task
    async def parent(context: Context) -> None:
        try:
            await gate.pass_through()
        except asyncio.CancelledError:
            for what in (Request[None](name="none", metadata={"a": 1}), Request[None](name="none")):
                child = await context.submit(what)
                seen.append((child.state, child.parent_id, await child.get_metadata()))
                try:
                    await child
                except Revoked as error:
                    seen.append(type(error))
            many = await app.submit_many([Request(name="none")], context=context)
            seen.append([each.state for each in many])
            raise

    result = await app.submit(parent)
    await gate.arrived()
    await app.revoke(result.id)
    await nothing_runs(app)
    assert seen == [("REVOKED", result.id, {"a": 1}), Revoked, ("REVOKED", result.id, {}), Revoked, ["REVOKED"]]
    assert await result.children.count() == 3


async def test_waiting_parents_are_woken(narrow: App, gate: Gate) -> None:
    seen: list[str] = []

    @narrow.task
    async def child() -> None:
        await gate.pass_through()

    @narrow.task
    async def parent(context: Context) -> str:
        request = context.create_request(child)
        seen.append(str(request.id))
        try:
            await context.run(request)
        except Revoked:
            return "child revoked"
        return "no"

    result = await narrow.submit(parent)
    await gate.arrived()
    await narrow.revoke(UUID(seen[0]))
    assert await soon(result) == "child revoked"


async def test_revoked_while_waiting_for_children(narrow: App, gate: Gate) -> None:
    @narrow.task
    async def child() -> None:
        await gate.pass_through()

    @narrow.task
    async def parent(context: Context) -> None:
        await context.run(child)

    @narrow.task
    async def after() -> int:
        return 1

    result = await narrow.submit(parent)
    await gate.arrived()
    await state_is(result, "SUSPENDED")
    await narrow.revoke(result.id)
    assert await soon(narrow.run(after)) == 1, "the slot is free"
    assert {each.state for each in await everyone(result)} == {"REVOKED"}


async def test_a_task_may_revoke(app: App, gate: Gate) -> None:
    @app.task
    async def victim() -> None:
        await gate.pass_through()

    @app.task
    async def killer(context: Context) -> str:
        result = await context.submit(victim)
        await gate.arrived()
        return (await context.app.revoke(result.id)).state

    assert await soon(app.run(killer)) == "REVOKED"
    await until(lambda: gate.cancelled)


async def test_revoke_against_success(app: App) -> None:
    @app.task
    async def quick(n: int) -> int:
        return n

    results = [await app.submit(quick, n) for n in range(100)]
    revoked = await soon(asyncio.gather(*(app.revoke(result.id) for result in results)))
    for n, (result, answer) in enumerate(zip(results, revoked, strict=True)):
        await soon(result.wait())
        assert result.state == answer.state
        if result.successful:
            assert await result.get() == n
        else:
            assert result.revoked


async def test_a_job_that_waits_past_its_latest_moment_is_revoked(lab: Lab) -> None:
    app = await lab.working(lease=0.6, minimum_concurrency=1)
    gate = Gate()

    @app.task
    async def hold() -> None:
        await gate.pass_through()

    holder = await app.submit(hold)
    await gate.arrived()
    latest = datetime.now(UTC) + timedelta(seconds=0.2)
    behind = await app.submit(Request(name=app.registry.of(hold).name, deadline=latest))
    delayed = await app.submit(Request(name="any", deadline=latest, delay=timedelta(hours=1)))
    nowhere = await app.submit(Request(name="any", deadline=latest, queue_name="nobody listens"))
    for result in (behind, delayed, nowhere):
        with pytest.raises(Revoked):
            await soon(result)
        assert result.number_of_starts == 0
    gate.open()
    assert await soon(holder) is None
    assert len(gate.entered) == 1
