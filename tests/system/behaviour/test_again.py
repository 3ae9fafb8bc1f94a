"""Retries, pauses, state, and the order in which jobs run."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from mognet import App, Backoff, Context, Pause, Request, Retry
from mognet.exceptions import NotStorable, TooManyRetries
from mognet.outcomes import merge_metadata, succeeded
from mognet.records import Job

from .conftest import Gate, Lab, soon, state_is, until

AT_ONCE = Backoff(base=0)


class Known(Exception):
    pass


class Other(Exception):
    pass


# retries


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "def"])
async def test_it_runs_again(app: App, is_async: bool) -> None:
    attempts: list[int] = []

    async def as_async(context: Context) -> str:
        attempts.append(context.attempt)
        if context.attempt < 3:
            raise Known("again")
        return "value"

    def as_def(context: Context) -> str:
        attempts.append(context.attempt)
        if context.attempt < 3:
            raise Known("again")
        return "value"

    function = app.task(retries=5, retry_on=(Known,), backoff=AT_ONCE)(as_async if is_async else as_def)
    result = await app.submit(function)
    assert await soon(result) == "value"
    assert attempts == [1, 2, 3]
    assert (result.attempt, result.number_of_starts, result.number_of_stops, result.unexpected_retry_count) == (3, 3, 3, 0)


async def test_not_more_often_than_it_may(app: App) -> None:
    attempts: list[int] = []

    @app.task(retries=2, backoff=AT_ONCE)
    async def work(context: Context) -> None:
        attempts.append(context.attempt)
        raise Known(context.attempt)

    result = await app.submit(work)
    with pytest.raises(Known, match="3"):
        await soon(result)
    assert attempts == [1, 2, 3]
    assert (result.state, result.attempt) == ("FAILURE", 3)


async def test_not_by_default_and_not_for_others(app: App) -> None:
    attempts: list[str] = []

    @app.task
    async def by_default() -> None:
        attempts.append("default")
        raise Known

    @app.task(retries=5, retry_on=Known, backoff=AT_ONCE)
    async def for_others() -> None:
        attempts.append("others")
        raise Other

    with pytest.raises(Known):
        await soon(app.run(by_default))
    with pytest.raises(Other):
        await soon(app.run(for_others))
    assert attempts == ["default", "others"]


async def test_it_waits_for_its_backoff(narrow: App) -> None:
    order: list[str] = []

    @narrow.task(retries=1, backoff=Backoff(base=0.3, jitter=False))
    async def first(context: Context) -> None:
        order.append(f"first {context.attempt}")
        if context.attempt == 1:
            raise Known

    @narrow.task
    async def second() -> None:
        order.append("second")

    start = asyncio.get_running_loop().time()
    result = await narrow.submit(first)
    await soon(narrow.run(second))
    await state_is(result, "PENDING")
    await soon(result)
    assert asyncio.get_running_loop().time() - start >= 0.3
    assert order == ["first 1", "second", "first 2"]


def test_backoff_is_exponential_jittered_and_capped() -> None:
    backoff = Backoff(base=1, factor=2, cap=10)
    assert [backoff.ceiling(n) for n in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert backoff.ceiling(100_000) == 10
    delays = [backoff.delay(4) for _ in range(500)]
    assert all(0 <= delay <= 8 for delay in delays)
    assert min(delays) < 2
    assert max(delays) > 6, "full jitter: the whole range"
    assert Backoff(base=1, jitter=False).delay(3) == 4


async def test_retry_from_inside(app: App) -> None:
    times: list[float] = []
    loop = asyncio.get_running_loop()

    @app.task
    async def work(context: Context) -> int:
        times.append(loop.time())
        if context.attempt == 1:
            raise Retry(after=0.2)
        if context.attempt == 2:
            raise Retry(after=timedelta(0))
        return context.attempt

    assert await soon(app.run(work)) == 3
    assert times[1] - times[0] >= 0.19


async def test_retry_from_inside_a_def_task(app: App) -> None:
    @app.task
    def work(context: Context) -> int:
        if context.attempt == 1:
            try:
                raise Retry(after=0)
            except Exception:
                return 0
        return context.attempt

    assert await soon(app.run(work)) == 2


async def test_retry_counts_against_the_tasks_retries(app: App) -> None:
    @app.task(retries=1)
    async def work() -> None:
        raise Retry(after=0)

    @app.task(retries=1)
    async def from_known() -> None:
        try:
            raise Known("cause")
        except Known as error:
            raise Retry(after=0) from error

    with pytest.raises(TooManyRetries):
        await soon(app.run(work))
    with pytest.raises(Known, match="cause"):
        await soon(app.run(from_known))


async def test_a_job_between_attempts_can_be_revoked(app: App) -> None:
    runs: list[int] = []

    @app.task
    async def work() -> None:
        runs.append(1)
        raise Retry(after=0.2)

    result = await app.submit(work)

    async def waits() -> bool:
        await result.refresh()
        return result.attempt == 2

    await until(waits)
    await app.revoke(result.id)
    await asyncio.sleep(0.3)
    assert runs == [1]


# crashes


async def crash(app: App, times: int) -> None:
    """Claim the next job as a worker does that dies at once, so many times."""
    for _ in range(times):
        assert len(await app.engine.claim("ghost", ["tasks"], 1, lease=0.001, wait=5)) == 1
        await asyncio.sleep(0.01)
        await app.engine.sweep(grace=0)


async def test_crashes_are_counted_apart_from_retries(lab: Lab) -> None:
    app = await lab.connected(max_retries=3)

    @app.task(retries=1, backoff=AT_ONCE)
    async def work(context: Context) -> Any:
        result = await context.get_result()
        if context.attempt == 1:
            raise Known
        return [context.attempt, result.number_of_starts, result.unexpected_retry_count]

    result = await app.submit(work)
    await crash(app, 3)
    await lab.start(app)
    attempt, starts, crashes = await soon(result)
    assert (attempt, starts) == (2, 5)
    assert crashes == 4, "the three, and the present start"
    assert (result.unexpected_retry_count, result.attempt, result.state) == (3, 2, "SUCCESS")


async def test_a_task_that_crashes_its_worker_stops_after_max_retries_more_starts(lab: Lab) -> None:
    app = await lab.connected(max_retries=2)
    runs: list[int] = []

    @app.task
    async def work() -> None:
        runs.append(1)

    result = await app.submit(work)
    await crash(app, 3)
    await lab.start(app)
    with pytest.raises(TooManyRetries) as caught:
        await soon(result)
    assert result.state == "FAILURE"
    assert (caught.value.request_id, caught.value.actual_retries, caught.value.max_retries) == (result.id, 3, 2)
    assert runs == []


async def test_a_stale_attempt_can_write_nothing(lab: Lab, gate: Gate) -> None:
    app = await lab.connected()
    result = await app.submit(Request(name="work"))
    [stale] = await app.engine.claim("ghost", ["tasks"], 1, lease=0.001, wait=5)
    await asyncio.sleep(0.01)
    await app.engine.sweep(grace=0)

    @app.task(name="work")
    async def work(context: Context) -> str:
        await context.state.set("a", "mine")
        await gate.pass_through()
        return await context.state.get("a")

    await lab.start(app)
    await gate.arrived()
    assert await app.engine.settle([succeeded(stale.token, b'"stale"')]) == [None]
    assert await app.engine.save(stale.token, {"a": b'"stale"'}) is None
    assert await app.engine.update(result.id, merge_metadata(b'{"a":1}', stale.token)) is None
    child = Job(uuid4(), "none", "tasks", b"{}", parent=result.id, parent_token=stale.token)
    assert await app.engine.submit([child]) == [False]
    gate.open()
    assert await soon(result) == "mine"
    assert await result.get_metadata() == {}
    assert await result.children.count() == 0


# pauses


async def test_a_pause_frees_the_slot_and_goes_on_later(narrow: App) -> None:
    order: list[str] = []

    @narrow.task(name="paused")
    async def paused(context: Context) -> Any:
        order.append("paused")
        if await context.state.get("times", 0) < 2:
            await context.state.set("times", await context.state.get("times", 0) + 1)
            raise Pause
        return [context.attempt, await context.state.get("times")]

    @narrow.task(name="other")
    async def other(n: int) -> None:
        order.append(f"other {n}")

    await narrow.close()
    await narrow.connect()
    requests = [Request[Any](name="paused"), *(Request[Any](name="other", args=(n,)) for n in range(3))]
    results = await narrow.submit_many(requests)
    task = asyncio.ensure_future(narrow.start())
    assert await soon(results[0]) == [1, 2]
    assert order == ["paused", "other 0", "other 1", "other 2", "paused", "paused"]
    await results[0].refresh()
    assert (results[0].number_of_starts, results[0].number_of_stops, results[0].unexpected_retry_count) == (3, 3, 0)
    await narrow.close()
    await soon(task)


async def test_a_pause_with_a_time(app: App) -> None:
    times: list[float] = []
    loop = asyncio.get_running_loop()

    @app.task
    async def work(context: Context) -> str:
        times.append(loop.time())
        if len(times) == 1:
            raise Pause(resume_after=timedelta(seconds=0.2))
        if len(times) == 2:
            raise Pause(resume_after=0.1)
        return "done"

    result = await app.submit(work)
    await state_is(result, "SUSPENDED")
    assert await soon(result) == "done"
    assert times[1] - times[0] >= 0.19
    assert times[2] - times[1] >= 0.09


async def test_a_def_task_pauses_and_nothing_swallows_it(app: App) -> None:
    @app.task
    def work(context: Context) -> str:
        if context.call_threadsafe(context.state.get("seen")):
            return "done"
        context.call_threadsafe(context.state.set("seen", True))
        try:
            raise Pause(resume_after=0)
        except Exception:
            return "swallowed"

    assert await soon(app.run(work)) == "done"


async def test_a_paused_job_can_be_revoked(app: App) -> None:
    @app.task
    async def work() -> None:
        raise Pause(resume_after=3600)

    result = await app.submit(work)
    await state_is(result, "SUSPENDED")
    assert (await app.revoke(result.id)).revoked


@pytest.mark.parametrize("make", [lambda: Pause(-1), lambda: Retry(-1), lambda: Pause(timedelta(seconds=-1)), lambda: Retry(float("nan"))])
def test_times_that_make_no_sense(make: Any) -> None:
    with pytest.raises(ValueError, match="waiting time"):
        make()


# state


async def test_state(app: App) -> None:
    @app.task
    async def work(context: Context) -> Any:
        state = context.state
        assert await state.get("a") is None
        assert await state.get("a", 5) == 5
        await state.set("a", {"deep": [1, None]})
        await state.set(b=2, c=3)
        await state.set("none", None)
        assert await state.get("none", 5) is None
        assert await state.pop("b") == 2
        assert await state.pop("b") is None
        assert await state.pop("b", 7) == 7
        assert [await state.get(key) for key in "abc"] == [{"deep": [1, None]}, None, 3]
        for bad in (object(), "\ud800"):
            with pytest.raises(NotStorable):
                await state.set("bad", bad)
        await state.set("when", datetime(2026, 1, 2, tzinfo=UTC))
        assert await state.get("when") == "2026-01-02T00:00:00Z"
        await state.set("\0 any ž key", 1)
        assert await state.get("\0 any ž key") == 1
        await state.clear()
        return [await state.get(key) for key in ("a", "c", "when")]

    assert await soon(app.run(work)) == [None] * 3


async def test_state_is_kept_over_retries_and_pauses(app: App) -> None:
    @app.task(retries=1, backoff=AT_ONCE)
    async def work(context: Context) -> Any:
        turn = await context.state.get("turn", 0)
        await context.state.set("turn", turn + 1)
        if turn == 0:
            raise Known
        if turn == 1:
            raise Pause
        return turn

    assert await soon(app.run(work)) == 2


async def test_state_is_cleared_when_the_job_ends(app: App, lab: Lab) -> None:
    tokens: list[Any] = []

    @app.task
    async def work(context: Context, fail: bool) -> None:
        tokens.append(context.token)
        await context.state.set("a", 1)
        if fail:
            raise Known

    for fail in (True, False):
        await soon((await app.submit(work, fail)).wait())
    for token in tokens:
        assert await app.engine.load(token) == {}
    result = await app.submit(Request(name="none"))
    await result.delete()


async def test_state_expires_by_its_own_ttl(lab: Lab) -> None:
    app = await lab.working(state_ttl=timedelta(seconds=0.1))

    @app.task
    async def work(context: Context) -> Any:
        if context.attempt == 1:
            await context.state.set("a", 1)
            assert await context.state.get("a") == 1
            raise Retry(after=0.3)
        return await context.state.get("a", "expired")

    assert await soon(app.run(work)) == "expired"


async def test_each_job_has_its_own_state(app: App) -> None:
    @app.task
    async def work(context: Context, n: int) -> Any:
        await context.state.set("n", n)
        await asyncio.sleep(0)
        return await context.state.get("n")

    assert await soon(asyncio.gather(*(app.run(work, n) for n in range(20)))) == list(range(20))


# order


async def test_priority_then_due_time_then_arrival(lab: Lab) -> None:
    app = lab.app(minimum_concurrency=1, task_queues={"include": {"a", "b"}})
    order: list[str] = []

    @app.task(name="note")
    async def note(what: str) -> None:
        order.append(what)

    await app.connect()

    def request(what: str, queue: str = "a", **options: Any) -> Request[None]:
        return Request(name="note", args=(what,), queue_name=queue, **options)

    now = datetime.now(UTC)
    results = [
        await app.submit(each)
        for each in (
            request("usual 1"),
            request("low", priority=0),
            request("usual 2", queue="b"),
            request("high 1", priority=10),
            request("delayed", delay=timedelta(seconds=0.05)),
            request("usual 3"),
            request("high 2", queue="b", priority=10),
            request("run at", run_at=now + timedelta(seconds=0.02)),
            request("above", priority=6),
        )
    ]
    await asyncio.sleep(0.1)
    await lab.start(app)
    await soon(asyncio.gather(*results))
    assert order == ["high 1", "high 2", "above", "usual 1", "usual 2", "usual 3", "run at", "delayed", "low"]


async def test_arrival_in_one_batch(lab: Lab) -> None:
    app = lab.app(minimum_concurrency=1)
    order: list[int] = []

    @app.task(name="note")
    async def note(n: int) -> None:
        order.append(n)

    await app.connect()
    results = await app.submit_many([Request[None](name="note", args=(n,)) for n in range(200)])
    await lab.start(app)
    await soon(asyncio.gather(*results))
    assert order == list(range(200))


async def test_a_tasks_own_priority(lab: Lab) -> None:
    app = lab.app(minimum_concurrency=1)
    order: list[str] = []

    @app.task(priority=9)
    async def urgent() -> None:
        order.append("urgent")

    @app.task(priority=1)
    async def idle() -> None:
        order.append("idle")

    await app.connect()
    low, high = await app.submit(idle), await app.submit(urgent)
    assert (low.priority, high.priority) == (1, 9)
    raised = app.create_request(idle)
    raised.priority = 10
    first = await app.submit(raised)
    await lab.start(app)
    await soon(asyncio.gather(low, high, first))
    assert order == ["idle", "urgent", "idle"]


async def test_only_the_queues_it_listens_to(lab: Lab, gate: Gate) -> None:
    app = lab.app(task_queues={"exclude": {"slow"}})
    order: list[str] = []

    @app.task(name="fast")
    async def fast() -> None:
        order.append("fast")

    @app.task(name="slow", queue="slow")
    async def slow() -> None:
        order.append("slow")

    await lab.start(app)
    assert app.get_task_queue_names() == {"tasks"}
    left = await app.submit(slow)
    await soon(app.run(fast))
    assert order == ["fast"]
    other = lab.app(task_queues={"include": {"slow"}})
    other.task(name="slow", queue="slow")(slow)
    await lab.start(other)
    await soon(left)
    assert order == ["fast", "slow"]
