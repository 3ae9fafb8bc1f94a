"""Acting on jobs that change in the same moment: what no longer matches is left alone, and nothing runs more often than was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from mognet import App, Result
from mognet.exceptions import ConnectionError, NotRetryable, ResultLost
from mognet.outcomes import Change
from mognet.records import Record
from mognet.states import FINAL, ResultState

from .conftest import Gate, Lab, soon, state_is, until


class Failing:
    """A task that fails each time."""

    def __init__(self, app: App) -> None:
        self.runs = 0
        app.task(name="failing")(self.run)

    async def run(self) -> None:
        self.runs += 1
        raise ValueError

    async def ended(self, result: Result[Any], runs: int) -> None:
        """Wait until it has run so often, and ended."""
        await until(lambda: self.runs >= runs)
        await state_is(result, "FAILURE")
        assert (self.runs, result.number_of_starts) == (runs, runs)


async def test_a_retry_whose_answer_is_lost_runs_the_job_once(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent again, but the job has ended once more meanwhile."""
    failing = Failing(app)
    result = await app.submit(failing.run)
    await failing.ended(result, 1)
    inner: Any = app.engine._engine  # type: ignore[attr-defined]
    update, lost = inner.update, []

    async def lose_the_answer(id: UUID, change: Change, *, unless: Collection[ResultState] = FINAL) -> Record | None:
        record: Record | None = await update(id, change, unless=unless)
        if change.body is not None and not lost:
            lost.append(record)
            await failing.ended(result, 2)
            raise ConnectionError("the answer was lost")
        return record

    monkeypatch.setattr(inner, "update", lose_the_answer)
    await soon(app.retry(result.id))
    assert lost
    await failing.ended(result, 2)


@pytest.mark.parametrize("many", [False, True])
async def test_two_who_saw_the_same_end_make_it_run_once(lab: Lab, app: App, many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    failing, other = Failing(app), await lab.connected()
    result = await app.submit(failing.run)
    await failing.ended(result, 1)
    body, seen, go_on = other.engine.body, asyncio.Event(), asyncio.Event()

    async def slow_body(id: UUID) -> bytes | None:
        seen.set()
        await go_on.wait()
        return await body(id)

    monkeypatch.setattr(other.engine, "body", slow_body)
    retrying = asyncio.create_task(other.retry_many(name="failing") if many else other.retry(result.id))
    await soon(seen.wait())
    assert await app.retry_many(name="failing") == 1
    await failing.ended(result, 2)
    go_on.set()
    await soon(retrying)
    await failing.ended(result, 2)
    await app.retry(result.id)
    await failing.ended(result, 3)


@pytest.mark.parametrize("fate", ["deleted", "succeeded"])
async def test_what_is_retried_just_when_it_goes(app: App, fate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error tells what has become of it."""
    runs = []

    @app.task
    async def f() -> int:
        runs.append(1)
        return 1 // (len(runs) - 1)

    result = await app.submit(f)
    await state_is(result, "FAILURE")
    body, again = app.engine.body, app.retry

    async def change_before(id: UUID) -> bytes | None:
        monkeypatch.setattr(app.engine, "body", body)
        if fate == "deleted":
            await app.engine.delete([id])
        else:
            await again(id)
            await state_is(result, "SUCCESS")
        return await body(id)

    monkeypatch.setattr(app.engine, "body", change_before)
    with pytest.raises(ResultLost if fate == "deleted" else NotRetryable) as raised:
        await app.retry(result.id)
    assert fate == "deleted" or "it succeeded" in str(raised.value)


async def test_other_arguments_that_come_too_late_are_not_passed_over(
    lab: Lab, app: App, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await lab.connected()

    @app.task
    async def f(n: int) -> int:
        if n == 0:
            raise ValueError
        await gate.pass_through()
        return n

    result = await app.submit(app.create_request(f, n=0))
    await state_is(result, "FAILURE")
    update = other.engine.update

    async def retry_before(*given: Any, **options: Any) -> Record | None:
        await app.retry(result.id, kwargs={"n": 1})
        return await update(*given, **options)

    monkeypatch.setattr(other.engine, "update", retry_before)
    with pytest.raises(NotRetryable, match="somebody else has just had it run again, with other arguments"):
        await other.retry(result.id, kwargs={"n": 2})
    gate.open()
    await state_is(result, "SUCCESS")
    assert await result.get() == 1


async def test_what_runs_again_is_not_deleted_as_failed(app: App, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.task
    async def f() -> int:
        if not gate.entered:
            gate.entered.append(None)
            raise ValueError
        await gate.pass_through()
        return 1

    result = await app.submit(f)
    await state_is(result, "FAILURE")
    delete = app.engine.delete

    async def retry_before(*given: Any, **options: Any) -> int:
        await app.retry(result.id)
        await gate.arrived(2)
        return await delete(*given, **options)

    monkeypatch.setattr(app.engine, "delete", retry_before)
    assert await app.delete_many(state="FAILURE", name=result.name) == 0
    gate.open()
    await state_is(result, "SUCCESS")


async def begins_soon(app: App, gate: Gate) -> Result[int]:
    """A job that is due in a moment, and then stands at the gate."""

    @app.task
    async def f() -> int:
        await gate.pass_through()
        return 1

    request = app.create_request(f)
    request.delay = timedelta(seconds=0.3)
    return await app.submit(request)


async def test_what_has_begun_is_not_revoked_as_pending(app: App, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    result = await begins_soon(app, gate)
    update = app.engine.update

    async def begin_before(*given: Any, **options: Any) -> Record | None:
        await gate.arrived()
        return await update(*given, **options)

    monkeypatch.setattr(app.engine, "update", begin_before)
    assert await app.revoke_many(state="PENDING", name=result.name) == 0
    gate.open()
    assert await soon(result) == 1


async def test_what_has_begun_is_not_purged(app: App, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    result = await begins_soon(app, gate)
    delete = app.engine.delete

    async def begin_before(*given: Any, **options: Any) -> int:
        await gate.arrived()
        return await delete(*given, **options)

    monkeypatch.setattr(app.engine, "delete", begin_before)
    assert sum((await soon(app.purge_task_queues())).values()) == 0
    gate.open()
    assert await soon(result) == 1
