"""Whoever waits for a job gets what it left, also when the engine goes away between its end and the reading of that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest

from mognet import App
from mognet.engines.guarded import GuardedEngine
from mognet.engines.memory import MemoryEngine
from mognet.exceptions import ConnectionError, NotConnected

LARGE = "x" * 10_000  # more than comes along with the news of a job's end


class Away(MemoryEngine):
    """Its values cannot be read for a while."""

    failures = 3
    error: ConnectionError = ConnectionError("away")

    async def value(self, id: UUID) -> bytes | None:
        self.failures -= 1
        if self.failures >= 0:
            raise self.error
        return await super().value(id)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.setattr("mognet.results.READ_EVERY", 0.01)
    app = App("away", url=f"memory://{uuid4().hex}")

    @app.task(name="large")
    async def large() -> str:
        return LARGE

    @app.task(name="fail")
    async def fail() -> None:
        raise ConnectionError(LARGE)

    app.__dict__.update(large=large, fail=fail)
    return app


async def result(app: App, task: Callable[[], Awaitable[str]]) -> str:
    return await (await app.submit(task))


async def break_engine(app: App) -> Away:
    away = Away("away", store=app.engine._engine._store)  # type: ignore[attr-defined]
    guarded = app.engine
    assert isinstance(guarded, GuardedEngine)
    guarded._engine, guarded._patience = away, 0.0
    return away


@pytest.mark.parametrize("how", ["await", "run"])
async def test_the_value_is_waited_for(app: App, how: str) -> None:
    async with app:
        away = await break_engine(app)
        working, large = asyncio.create_task(app.start()), app.__dict__["large"]
        async with asyncio.timeout(5):
            assert await (app.run(large) if how == "run" else result(app, large)) == LARGE
        assert away.failures < 0
    await working


async def test_an_error_of_that_kind_is_the_tasks_own(app: App) -> None:
    async with app:
        away = await break_engine(app)
        job = await app.submit(app.__dict__["fail"])
        await app.start(burst=True)
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionError, match="xxx"):
                await job
        assert away.failures < 0


async def test_an_app_that_is_closed_is_not_waited_for(app: App) -> None:
    async with app:
        away = await break_engine(app)
        away.error, away.failures = NotConnected("closed"), 1
        job = await app.submit(app.__dict__["large"])
        await app.start(burst=True)
        async with asyncio.timeout(5):
            with pytest.raises(NotConnected):
                await job


async def test_who_does_not_wait_is_told_at_once(app: App) -> None:
    async with app:
        await break_engine(app)
        job = await app.submit(app.__dict__["large"])
        await app.start(burst=True)
        with pytest.raises(ConnectionError, match="away"):
            await job.get()
