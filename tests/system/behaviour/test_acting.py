"""What has ended runs again; what matches is revoked, run again or deleted."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from mognet import App, Context, Request, acting
from mognet.exceptions import (
    CouldNotSubmit,
    InvalidQuery,
    InvalidTaskArguments,
    NotRetryable,
    ResultLost,
    UnknownTask,
)
from mognet.outcomes import merge_metadata
from mognet.registry import TaskRegistry

from .conftest import Gate, Lab, nothing_runs, soon, state_is, until

ACME: dict[str, Any] = {"metadata": {"tenant_id": "acme"}}


class Oven:
    """A task that fails until it is mended."""

    def __init__(self, app: App, name: str = "bake") -> None:
        self.mended = False
        self.calls: list[tuple[Any, ...]] = []

        @app.task(name=name)
        async def bake(context: Context, dish: str = "pie", *, minutes: int = 1) -> str:
            self.calls.append((context.id, context.attempt, dish, minutes))
            if not self.mended:
                raise ValueError("cold")
            return dish

    async def fail(self, app: App, count: int = 1, **fields: Any) -> list[UUID]:
        """So many jobs that have failed."""
        requests = [Request(name="bake", metadata={"tenant_id": "acme", "n": n}, **fields) for n in range(count)]
        results = await app.submit_many(requests)
        for result in results:
            await soon(result.wait())
            assert result.state == "FAILURE"
        return [result.id for result in results]


async def states(app: App, ids: list[UUID]) -> list[str | None]:
    return [None if result is None else str(result.state) for result in await app.result_backend.get_many(*ids)]


# one job


async def test_a_failed_job_runs_again_under_its_id(app: App) -> None:
    oven = Oven(app)
    [id] = await oven.fail(app, args=("tart",), kwargs={"minutes": 3})
    oven.mended = True
    result = await app.retry(id)
    assert (result.id, result.state, result.attempt, result.finished, result.started) == (id, "PENDING", 1, None, None)
    assert await soon(result) == "tart"
    assert oven.calls == [(id, 1, "tart", 3)] * 2
    assert (result.state, result.attempt, result.unexpected_retry_count) == ("SUCCESS", 1, 0)
    assert await result.get_metadata() == {"tenant_id": "acme", "n": 0}


async def test_as_often_as_it_fails(app: App) -> None:
    oven = Oven(app)
    [id] = await oven.fail(app)
    for _ in range(3):
        result = await app.retry(id)
        await soon(result.wait())
        assert result.state == "FAILURE"
        with pytest.raises(ValueError, match="cold"):
            await result
    oven.mended = True
    assert await soon(await app.retry(str(id))) == "pie"


async def test_with_other_arguments(app: App) -> None:
    oven = Oven(app)
    [id] = await oven.fail(app, args=("tart",), kwargs={"minutes": 3})
    for args, kwargs in ((None, {"minutes": "long"}), (["a", "b"], None), (None, {"dish": "twice"}), ([object()], None)):
        with pytest.raises(InvalidTaskArguments):
            await app.retry(id, args=args, kwargs=kwargs)
    wrong: Any = app
    for field in ({"args": "tart"}, {"args": 5}, {"kwargs": [1]}):
        with pytest.raises(TypeError, match=next(iter(field))):
            await wrong.retry(id, **field)
    with pytest.raises(ValueError, match="delay"):
        await app.retry(id, delay=-1)
    with pytest.raises(CouldNotSubmit, match="max_message_size"):
        await app.retry(id, args=["x" * 2**20])
    assert await states(app, [id]) == ["FAILURE"], "nothing was done"
    oven.mended = True
    assert await soon(await app.retry(id, args=["cake"])) == "cake"
    assert oven.calls[-1] == (id, 1, "cake", 3)


async def test_only_the_named_arguments(app: App) -> None:
    oven = Oven(app)
    [id] = await oven.fail(app, args=("tart",), kwargs={"minutes": 3})
    oven.mended = True
    assert await soon(await app.retry(id, kwargs={"minutes": 9}, delay=timedelta(milliseconds=1))) == "tart"
    assert oven.calls[-1] == (id, 1, "tart", 9)


async def test_not_before_its_time(lab: Lab, app: App) -> None:
    oven = Oven(app)
    [id] = await oven.fail(app)
    result = await app.retry(id, delay=timedelta(hours=1))
    assert (result.due - datetime.now(UTC)).total_seconds() == pytest.approx(3600, abs=60)
    assert result.state == "PENDING"
    assert len(oven.calls) == 1


async def test_what_was_unknown_where_it_ran(lab: Lab, app: App) -> None:
    """An INVALID job, mended by a worker that knows its task; asked for where nobody knows it."""
    result = await app.submit(Request(name="bake", args=("tart",)))
    with pytest.raises(UnknownTask):
        await soon(result)
    assert result.state == "INVALID"
    Oven(app).mended = True
    stranger = await lab.connected()
    stranger.registry = TaskRegistry()
    again = await stranger.retry(result.id, args=["cake"])
    assert await soon(again) == "cake"


async def test_what_was_revoked_or_came_too_late(lab: Lab, app: App) -> None:
    """The latest moment, which would end it again, is dropped; how long it may run is not."""
    oven = Oven(app)
    oven.mended = True
    past = await app.submit(Request(name="bake", deadline=datetime.now(UTC) - timedelta(seconds=1)))
    await soon(past.wait())
    assert past.state == "REVOKED"
    assert await soon(await app.retry(past.id)) == "pie"
    waiting = await app.submit(Request(name="bake", delay=timedelta(hours=1)))
    await app.revoke(waiting.id)
    assert await soon(await app.retry(waiting.id)) == "pie"

    @app.task
    async def sleep(context: Context) -> None:
        await asyncio.sleep(60)

    request = app.create_request(sleep)
    request.deadline = timedelta(milliseconds=20)
    short = await app.submit(request)
    for _ in range(2):
        await soon(short.wait())
        assert short.state == "REVOKED"
        short = await app.retry(short.id)


async def test_whoever_waits_is_told(lab: Lab, app: App) -> None:
    oven = Oven(app)
    [id] = await oven.fail(app)
    oven.mended = True
    other = await lab.connected()
    result = await app.retry(id, delay=0.05)
    [seen] = await other.result_backend.get_many(id)
    assert seen is not None
    assert await soon(asyncio.gather(result, seen)) == ["pie", "pie"]


async def test_news_of_an_earlier_end_are_not_believed(app: App) -> None:
    """The signal that a job was revoked may come when it is to run again already."""
    Oven(app).mended = True
    for n in range(20):
        job = await app.submit(Request(name="bake", delay=timedelta(hours=1)))
        await app.revoke(job.id)
        again = await app.retry(job.id, delay=0.001 * (n % 2))
        if n % 3:
            assert await soon(again) == "pie"
        else:
            assert await soon((await soon(app.result_backend.wait(job.id))).get()) == "pie"


async def test_what_cannot_run_again(lab: Lab, app: App, gate: Gate) -> None:
    @app.task
    async def work(context: Context) -> None:
        await gate.pass_through()

    running, waiting = await app.submit(work), await app.submit(Request(name="work", delay=timedelta(hours=1)))
    await gate.arrived()
    for result, why in ((running, "it is RUNNING"), (waiting, "it is PENDING")):
        for as_new in (False, True):
            with pytest.raises(NotRetryable, match=why) as caught:
                await app.retry(result.id, as_new=as_new)
            assert caught.value.result_id == result.id
    gate.open()
    await soon(running)
    with pytest.raises(NotRetryable, match="it succeeded"):
        await app.retry(running.id)
    unborn = uuid4()
    await app.revoke(unborn)
    with pytest.raises(NotRetryable, match="nothing to run"):
        await app.retry(unborn)
    with pytest.raises(ResultLost):
        await app.retry(uuid4())
    with pytest.raises(ValueError, match="UUID"):
        await app.retry("nope")
    assert await states(app, [running.id, waiting.id, unborn]) == ["SUCCESS", "PENDING", "REVOKED"]


async def test_a_copy_is_a_job_of_its_own(app: App) -> None:
    oven = Oven(app)

    @app.task
    async def parent(context: Context) -> str:
        child = await context.submit(Request(name="bake", args=("tart",), metadata={"tenant_id": "acme"}, priority=8, kwargs_repr="a tart"))
        await child.wait()
        return str(child.id)

    id = UUID(await soon(app.run(parent)))
    oven.mended = True
    copy = await app.retry(id, as_new=True)
    assert copy.id != id
    assert (copy.name, copy.queue_name, copy.priority, copy.request_kwargs_repr) == ("bake", "tasks", 8, "a tart")
    assert (copy.parent_id, copy.root_id) == (None, copy.id)
    assert await copy.get_metadata() == {"tenant_id": "acme"}
    assert await soon(copy) == "tart"
    other = await app.retry(id, as_new=True, args=["cake"])
    assert other.id not in (id, copy.id)
    assert other.request_kwargs_repr is None
    assert await soon(other) == "cake"
    assert await states(app, [id]) == ["FAILURE"]


async def test_children_stay_children(app: App) -> None:
    """A job that runs again has its place in its tree."""
    oven = Oven(app)

    @app.task
    async def parent(context: Context) -> str:
        child = await context.submit(Request(name="bake"))
        await child.wait()
        return str(child.id)

    result = await app.submit(parent)
    id = UUID(await soon(result))
    oven.mended = True
    again = await app.retry(id)
    assert (again.parent_id, again.root_id) == (result.id, result.id)
    assert await soon(again) == "pie"
    assert await result.children.count() == 1


# many jobs


async def test_all_that_failed_run_again(app: App) -> None:
    oven = Oven(app)
    ids = await oven.fail(app, 7)
    other = await app.submit(Request(name="bake", metadata={"tenant_id": "zoo"}))
    await soon(other.wait())
    revoked = await app.submit(Request(name="bake", metadata={"tenant_id": "acme"}, delay=timedelta(hours=1)))
    await app.revoke(revoked.id)
    oven.mended = True
    assert await app.retry_many(**ACME, delay=0.01) == 7
    for id in ids:
        assert await soon((await app.result_backend.wait(id)).get()) == "pie"
    assert await app.retry_many(**ACME) == 0
    assert await states(app, [other.id, revoked.id]) == ["FAILURE", "REVOKED"]
    assert await app.retry_many(**ACME, state="REVOKED") == 1
    await soon(app.result_backend.wait(revoked.id))
    assert await app.retry_many(**ACME, state=["SUCCESS", "RUNNING", "PENDING"]) == 0


@pytest.mark.parametrize("as_new", [False, True])
async def test_all_run_again_with_other_arguments(app: App, as_new: bool) -> None:
    oven = Oven(app)
    ids = await oven.fail(app, 3, args=("tart",), kwargs={"minutes": 3})
    oven.mended = True
    with pytest.raises(InvalidTaskArguments):
        await app.retry_many(**ACME, as_new=as_new, kwargs={"hours": 1})
    assert await states(app, ids) == ["FAILURE"] * 3
    assert await app.retry_many(**ACME, as_new=as_new, args=["flan"]) == 3
    await until(lambda: len(oven.calls) == 6)
    assert [call[2:] for call in oven.calls] == [("tart", 3)] * 3 + [("flan", 3)] * 3
    assert ({call[0] for call in oven.calls[3:]} == set(ids)) is not as_new
    with pytest.raises(TypeError, match="args="):
        await app.retry_many(**ACME, args="flan")


async def test_copies_are_made_once(lab: Lab, idle: App, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever repeats it makes no second copies, nor copies of copies; a job that has failed anew gets a new one."""
    worker = await lab.working()
    oven = Oven(worker)
    ids = await oven.fail(idle, 3)
    await worker.close()
    assert await idle.retry_many(**ACME, as_new=True) == 3
    assert await idle.retry_many(**ACME, as_new=True) == 0
    results = [result async for result in idle.result_backend.find(**ACME, state="PENDING")]
    assert len(results) == 3
    assert sorted([(await result.get_metadata())["n"] for result in results]) == [0, 1, 2]
    assert await states(idle, ids) == ["FAILURE"] * 3
    await lab.start(worker)
    for result in results:
        await soon(result.wait())
        assert result.state == "FAILURE"
    caplog.clear()
    for _ in range(2):
        assert await worker.retry_many(**ACME, as_new=True) == 0
    assert "3 jobs are copies" in caplog.text
    again = await worker.retry(ids[0])
    await soon(again.wait())
    assert await worker.retry_many(**ACME, as_new=True) == 1
    await worker.result_backend.delete(ids[1])
    assert await worker.retry_many(**ACME, as_new=True) == 0, "also if the job is gone"
    await until(lambda: len(oven.calls) == 8)
    await nothing_runs(worker)
    other = await worker.retry(results[0].id, as_new=True)
    await soon(other.wait())
    oven.mended = True
    assert await worker.retry_many(**ACME) == 7, "four copies, one that was asked for by its id, and two jobs"


async def test_what_cannot_run_again_is_left_out(idle: App, caplog: pytest.LogCaptureFixture) -> None:
    unborn = uuid4()
    await idle.revoke(unborn)
    job = await idle.submit(Request(name="bake"))
    await idle.revoke(job.id)
    with caplog.at_level(logging.WARNING, "mognet.acting"):
        assert await idle.retry_many(state="REVOKED") == 1
    assert str(unborn) in caplog.text
    assert await states(idle, [unborn, job.id]) == ["REVOKED", "PENDING"]
    large = await idle.submit(Request(name="bake", args=("x" * 1000,)))
    assert await idle.revoke_many(state="PENDING") == 2
    idle.config.max_message_size = 500
    for as_new in (True, False):
        assert await idle.retry_many(name="bake", state="REVOKED", as_new=as_new) == 1, "one that is too large now hinders no other"
    assert await states(idle, [large.id, job.id]) == ["REVOKED", "PENDING"]


async def test_all_that_matches_is_revoked(lab: Lab, gate: Gate) -> None:
    app = await lab.working(minimum_concurrency=3)

    @app.task(name="work")
    async def work(context: Context) -> None:
        await context.submit(Request(name="below", queue_name="nowhere"))
        await gate.pass_through(context.id)

    requests = [Request(name="work", metadata={"tenant_id": tenant}) for tenant in ("acme", "zoo", "acme")]
    first, other, last = await app.submit_many(requests)
    waiting = await app.submit_many([Request(name="work", metadata={"tenant_id": "acme"}, delay=timedelta(hours=1)) for _ in range(5)])
    await gate.arrived(3)
    idle = await lab.connected()
    assert await idle.revoke_many(**ACME) == 7
    await until(lambda: sorted(gate.cancelled) == sorted([first.id, last.id]))
    for result in (first, last, *waiting):
        await soon(result.wait())
        assert result.state == "REVOKED"
    assert await idle.result_backend.count(name="below") == {"REVOKED": 2, "PENDING": 1}
    await state_is(other, "RUNNING")
    assert await idle.revoke_many(**ACME) == 0
    assert await idle.revoke_many(state="SUCCESS") == 0
    gate.open()
    await soon(other)


async def test_all_that_matches_is_deleted(lab: Lab, gate: Gate) -> None:
    app = await lab.working(minimum_concurrency=2)

    @app.task(name="work")
    async def work(context: Context) -> None:
        await gate.pass_through(context.id)

    running = await app.submit(Request(name="work", metadata={"tenant_id": "acme"}))
    keep = await app.submit(Request(name="work", metadata={"tenant_id": "zoo"}))
    await gate.arrived(2)
    waiting = await app.submit_many([Request(name="work", metadata={"tenant_id": "acme"}) for _ in range(5)])
    assert await app.delete_many(**ACME, state="PENDING") == 5
    assert await app.delete_many(**ACME) == 1
    assert await app.delete_many(**ACME) == 0
    assert await states(app, [running.id, *(result.id for result in waiting)]) == [None] * 6
    gate.open()
    await soon(keep)
    await nothing_runs(app)
    assert await app.result_backend.count() == {"SUCCESS": 1}


async def test_not_without_a_filter(idle: App) -> None:
    job = await idle.submit(Request(name="work"))
    wrong: Any = idle
    for call in (wrong.revoke_many, wrong.retry_many, wrong.delete_many):
        for filters in ({}, {"metadata": {}}, {"state": None, "name": None}):
            with pytest.raises(InvalidQuery, match="without a filter"):
                await call(**filters)
        for filters in ({"state": []}, {"metadata": {"tenant_id": []}}, {"metadata": {"a": float("nan")}}):
            with pytest.raises(InvalidQuery):
                await call(**filters)
        with pytest.raises(TypeError, match="no filter 'tenant_id'"):
            await call(tenant_id="acme")
        with pytest.raises(TypeError):
            await call(limit=5)
    assert await states(idle, [job.id]) == ["PENDING"]


@pytest.mark.parametrize("deed", ["revoke", "retry", "delete"])
async def test_stopped_and_repeated(lab: Lab, idle: App, deed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done stays done, the rest is done by the next call, and nothing twice; page by page."""
    monkeypatch.setattr(acting, "PAGE", 10)
    results = await idle.submit_many([Request(name="work", metadata={"tenant_id": "acme"}) for _ in range(45)])
    if deed == "retry":
        assert await idle.revoke_many(**ACME) == 45
    filters = {**ACME, "state": "REVOKED"} if deed == "retry" else ACME
    many = {"revoke": idle.revoke_many, "retry": idle.retry_many, "delete": idle.delete_many}[deed]
    left = {"revoke": "PENDING", "retry": "REVOKED", "delete": "PENDING"}[deed]

    async def remaining() -> int:
        return (await idle.result_backend.count(**ACME)).get(left, 0)

    call = asyncio.create_task(many(**filters))
    await until(lambda: call.done() or remaining_is_less(remaining))
    call.cancel()
    await asyncio.wait([call])
    rest = await remaining()
    # What was on its way to the engine when the call was stopped is done all the same: a page at most.
    assert rest - acting.PAGE <= await soon(many(**filters)) <= rest
    assert await remaining() == 0
    expected = {"revoke": "REVOKED", "retry": "PENDING", "delete": None}[deed]
    assert await states(idle, [result.id for result in results]) == [expected] * 45


async def remaining_is_less(remaining: Any) -> bool:
    return bool(await remaining() < 45)


async def test_jobs_that_come_meanwhile_are_left_out(idle: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends, however many are submitted while it runs."""
    monkeypatch.setattr(acting, "PAGE", 5)
    await idle.submit_many([Request(name="work") for _ in range(12)])
    delete, calls = idle.engine.delete, 0

    async def busy(ids: Any, **options: Any) -> int:
        nonlocal calls
        calls += 1
        await idle.submit_many([Request(name="work") for _ in range(5)])
        return await delete(ids, **options)

    monkeypatch.setattr(idle.engine, "delete", busy)
    assert await idle.delete_many(name="work") == 12
    assert calls == 3
    assert await idle.result_backend.count() == {"PENDING": 15}


async def test_a_fault_stops_it_in_order(idle: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first error is raised when all that was begun has ended."""
    await idle.submit_many([Request(name="work") for _ in range(30)])
    update, under_way = idle.engine.update, 0

    async def faulty(id: UUID, change: Any, **options: Any) -> Any:
        nonlocal under_way
        under_way += 1
        try:
            await asyncio.sleep(0.001)
            if under_way > 8:
                raise ConnectionError("gone")
            return await update(id, change, **options)
        finally:
            under_way -= 1

    monkeypatch.setattr(idle.engine, "update", faulty)
    with pytest.raises(ConnectionError, match="gone"):
        await idle.revoke_many(name="work")
    assert under_way == 0
    monkeypatch.undo()
    await idle.engine.update(uuid4(), merge_metadata(b"{}"))
    left = (await idle.result_backend.count()).get("PENDING", 0)
    assert await idle.revoke_many(name="work") == left
