"""How far a task is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from mognet import App, Context, Pause, Progress, Result, Retry
from mognet.exceptions import AttemptLost, ConnectionError, ResultFailed
from mognet.outcomes import Change
from mognet.records import Record

from .conftest import Gate, Lab, soon, until


@pytest.fixture
def writes(app: App, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When progress was written."""
    times: list[float] = []
    update = app.engine.update

    async def counted(id: Any, change: Change, **options: Any) -> Record | None:
        if change.progress is not None:
            times.append(time.monotonic())
        return await update(id, change, **options)

    monkeypatch.setattr(app.engine, "update", counted)
    return times


async def told(result: Result[Any]) -> Progress | None:
    await result.refresh()
    return result.progress


async def test_it_is_told_while_the_task_runs(app: App, gate: Gate) -> None:
    @app.task
    async def f(context: Context) -> None:
        await context.progress(3, 10, "boiling")
        await gate.pass_through()

    before = datetime.now(UTC) - timedelta(seconds=1)
    result = await app.submit(f)
    assert result.progress is None
    async for event in app.watch(result.id):
        if event.progress is not None:
            break
    progress = await told(result)
    assert progress == event.progress
    assert progress is not None
    assert (progress.done, progress.total, progress.message, progress.fraction) == (3, 10, "boiling", 0.3)
    assert before < progress.updated < datetime.now(UTC) + timedelta(seconds=1)
    assert result.to_dict()["progress"] == {"done": 3, "total": 10, "message": "boiling", "updated": progress.updated.isoformat()}
    gate.open()
    await result
    assert await told(result) == progress


@pytest.mark.parametrize("end", ["return", "raise", "retry", "pause"])
async def test_the_last_one_lands(app: App, end: str) -> None:
    ran: list[int] = []

    @app.task(retries=1)
    async def f(context: Context) -> None:
        ran.append(1)
        for n in range(100):
            await context.progress(n + len(ran) * 1000)
        if end == "raise":
            raise ValueError(end)
        if len(ran) == 1 and end != "return":
            raise Retry(3600) if end == "retry" else Pause(3600)

    result = await app.submit(f)

    async def landed() -> bool:
        progress = await told(result)
        return progress is not None and progress.done in (1099, 2099)

    await until(landed)
    if end in ("retry", "pause"):
        assert not result.done
    elif end == "raise":
        with pytest.raises(ValueError, match="raise"):
            await result
    progress = await told(result)
    assert progress is not None
    assert progress.done == (1000 * len(ran) + 99)


async def test_handed_back_it_is_written_too(lab: Lab, gate: Gate) -> None:
    app = await lab.working(shutdown_grace=0)

    @app.task
    async def f(context: Context) -> None:
        await context.progress(1)
        await context.progress(2)
        await gate.pass_through()

    result = await app.submit(f)
    await gate.arrived()
    await soon(app.stop(grace=0))
    progress = await told(result)
    assert (result.state, progress and progress.done) == ("SUSPENDED", 2)


async def test_a_silent_task_has_said_its_last_word(app: App, gate: Gate) -> None:
    @app.task
    async def f(context: Context) -> None:
        await context.progress(1)
        await context.progress(2)
        await gate.pass_through()

    result = await app.submit(f)

    async def landed() -> bool:
        progress = await told(result)
        return progress is not None and progress.done == 2

    await until(landed)
    gate.open()


async def test_at_most_ten_writes_a_second(app: App, writes: list[float]) -> None:
    @app.task
    async def f(context: Context) -> float:
        begin = time.monotonic()
        for n in range(100_000):
            await context.progress(n + 1, 100_000)
        return time.monotonic() - begin

    @app.task
    def g(context: Context) -> float:
        begin = time.monotonic()
        for _ in context.track_sync(range(100_000)):
            pass
        return time.monotonic() - begin

    @app.task
    async def slow(context: Context) -> float:
        begin = time.monotonic()
        async for _ in context.track(range(80)):
            await asyncio.sleep(0.01)
        return time.monotonic() - begin

    for task, count in ((f, 100_000), (g, 100_000), (slow, 80)):
        writes.clear()
        result = await app.submit(task)
        took = await soon(result, 60)
        progress = await told(result)
        assert progress is not None
        assert (progress.done, progress.total) == (count, count)
        assert len(writes) <= took * 10 + 2
        assert all(later - sooner > 0.09 for sooner, later in pairwise(writes[:-1]))


async def test_tracking(app: App) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    @app.task
    async def f(context: Context) -> list[Any]:
        seen: list[Any] = []
        for items, total in ((numbers(), None), (numbers(), 2), ([], None), ("ab", None), (iter("c"), 5)):
            async for item in context.track(items, total):  # type: ignore[arg-type]
                seen.append(item)
            progress = context._progress()._said
            seen.append(None if progress is None else list(progress[:2]))
        async for item in context.track("xyz"):
            if item == "y":
                break
        return seen

    result = await app.submit(f)
    assert await result == [1, 2, [2, None], 1, 2, [2, 2], [0, 0], "a", "b", [2, 2], "c", [1, 5]]
    progress = await told(result)
    assert progress is not None
    assert (progress.done, progress.total) == (1, 3)


async def test_tracking_with_a_message(app: App) -> None:
    """One for all, or one for each item, which stays until the next has one."""

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    def number(item: object) -> str | None:
        return None if item == 2 else f"item {item}"

    @app.task
    async def f(context: Context) -> list[Any]:
        said: list[Any] = []

        def look() -> None:
            progress = context._progress()._said
            said.append(None if progress is None else [progress[0], progress[2]])

        context._progress()._turn = float("inf")  # nothing is written meanwhile, so that what was said can be seen
        for items, message in ((numbers(), "counting"), (numbers(), number), ([1, 3], number)):
            async for _ in context.track(items, message=message):  # type: ignore[arg-type]
                look()
            look()
        return said

    @app.task
    def g(context: Context) -> None:
        for _ in context.track_sync([1, 2, 3], message="item {}".format):
            pass

    assert await app.run(f) == [
        *([0, "counting"], [1, "counting"], [2, "counting"]),
        *([0, "item 1"], [1, None], [2, None]),
        *([0, "item 1"], [1, "item 3"], [2, "item 3"]),
    ]
    result = await app.submit(g)
    await result
    progress = await told(result)
    assert progress is not None
    assert (progress.done, progress.total, progress.message) == (3, 3, "item 3")


async def test_from_a_thread(app: App) -> None:
    @app.task
    def f(context: Context) -> int:
        context.call_threadsafe(context.progress(1, 2, "half"))
        return sum(context.track_sync([1, 2, 3]))

    result = await app.submit(f)
    assert await result == 6
    progress = await told(result)
    assert progress is not None
    assert (progress.done, progress.total, progress.message) == (3, 3, None)


async def test_what_cannot_be_told(app: App) -> None:
    @app.task
    async def f(context: Context) -> list[str]:
        errors = []
        bad: list[tuple[Any, ...]] = [
            *((float("nan"),), (float("inf"), 1), (1, float("inf")), (-1,), (1, -2), (10**400,)),
            *(("1",), (True,), (None,), (1, 2, 3), (1, "2")),
        ]
        for args in bad:
            try:
                await context.progress(*args)
            except (ValueError, TypeError) as error:
                errors.append(type(error).__name__)
        await context.progress(Decimal("1.5"), 0, "ü\ud800\0" + "x" * 1000)
        return errors

    result = await app.submit(f)
    assert await result == ["ValueError"] * 6 + ["TypeError"] * 5
    progress = await told(result)
    assert progress is not None
    assert (progress.done, progress.total, progress.fraction) == (1.5, 0, None)
    assert progress.message is not None
    assert progress.message.startswith("ü\\ud800\0xxx")
    assert progress.message.endswith("…")
    assert len(progress.message) < 220


async def test_a_revoked_task_hears_of_it(app: App, gate: Gate) -> None:
    heard: list[type] = []

    @app.task
    def f(context: Context) -> None:
        try:
            for _ in context.track_sync(iter(int, 1)):
                gate.entered.append(1)
                time.sleep(0.001)
        except AttemptLost as error:
            heard.append(type(error))

    result = await app.submit(f)
    await gate.arrived()
    await app.revoke(result.id)
    await until(lambda: heard)
    with pytest.raises(ResultFailed):
        await result


async def test_an_engine_in_trouble_fails_no_task(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    update, failures = app.engine.update, [0]

    async def shaky(id: Any, change: Change, **options: Any) -> Record | None:
        if change.progress is not None and failures[0] < 3:
            failures[0] += 1
            raise ConnectionError("gone")
        return await update(id, change, **options)

    monkeypatch.setattr(app.engine, "update", shaky)

    @app.task
    async def f(context: Context) -> None:
        for n in range(40):
            await context.progress(n)
            await asyncio.sleep(0.01)

    result = await app.submit(f)
    await soon(result)
    progress = await told(result)
    assert progress is not None
    assert progress.done == 39
    assert failures == [3]


async def test_nothing_that_is_not_ours_is_read_as_progress(lab: Lab) -> None:
    app = await lab.connected()

    @app.task
    async def f() -> None: ...

    record = (await app.submit(f)).record
    for data in (
        b"",
        b"{",
        b"1",
        b"[]",
        b"[1,2]",
        b'["1",2,null,0]',
        b"[1,2,3,4]",
        b'[1,2,null,"x"]',
        b"[NaN,2,null,0]",
        b"[1,2,null,null]",
    ):
        assert Result(record._replace(progress=data), app.result_backend).progress is None


async def test_a_task_that_leaves_a_cancellation_behind_ends_as_it_did(app: App) -> None:
    @app.task
    async def f(context: Context) -> int:
        await context.progress(1)
        await context.progress(2)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return 7

    result = await app.submit(f)
    await soon(result.wait())
    assert await result.get() == 7
    assert result.number_of_starts == 1
    progress = await told(result)
    assert progress is not None
    assert progress.done == 2
