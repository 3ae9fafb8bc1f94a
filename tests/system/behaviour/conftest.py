"""Every behaviour is shown on every engine: add one to ENGINES, and it is held to all of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mognet import App, AppConfig, Result
from mognet import app as app_module
from mognet.engines import engine_factory
from mognet.registry import global_registry
from servers.postgres import empty_postgres
from servers.rabbitmq import shared_rabbitmq
from servers.redis import empty_redis

ENGINES: dict[str, Callable[[Path], str]] = {
    "memory": lambda _: f"memory://{uuid4().hex}",
    "sqlite": lambda folder: f"sqlite:///{folder}/jobs.db",
    "redis": lambda _: empty_redis(),
    "postgres": lambda _: empty_postgres(),
    "rabbitmq+redis": lambda _: empty_redis(),
}
"""Where jobs are kept. With "rabbitmq+", tickets for them travel over RabbitMQ: every app of this process then is a pair."""

EXACT = {"test_a_pause_frees_the_slot_and_goes_on_later", "test_priority_then_due_time_then_arrival"}
"""Here tickets and the store's line have to be compared, which a pair does only when told: see decision 0015."""


class Lab:
    """Makes apps that share one engine, and closes them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._apps: list[App] = []
        self._starts: list[asyncio.Task[None]] = []

    def app(self, name: str = "lab", **settings: Any) -> App:
        """An app, not connected."""
        app = App(name, AppConfig(**settings), url=self.url)
        self._apps.append(app)
        return app

    async def connected(self, name: str = "lab", **settings: Any) -> App:
        """An app without a worker."""
        app = self.app(name, **settings)
        await app.connect()
        return app

    async def start(self, app: App, **options: Any) -> asyncio.Task[None]:
        """Run a worker of an app in the background."""
        task = asyncio.create_task(app.start(**options))
        self._starts.append(task)
        while app.worker is None and not task.done():  # noqa: ASYNC110 - a moment
            await asyncio.sleep(0.001)
        return task

    async def working(self, name: str = "lab", **settings: Any) -> App:
        """An app with a worker."""
        app = await self.connected(name, **settings)
        await self.start(app)
        return app

    async def close(self) -> None:
        for app in self._apps:
            await app.close()
        await soon(asyncio.gather(*self._starts))


async def soon(awaitable: Awaitable[Any], seconds: float = 20.0) -> Any:
    """What is awaited, which must not take for ever."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait for a condition (a function, or one that gives an awaitable) to be met."""
    async with asyncio.timeout(seconds):
        while True:
            met = condition()
            met = await met if isinstance(met, Awaitable) else met
            if met:
                return met
            await asyncio.sleep(0.002)


async def state_is(result: Result[Any], state: str) -> None:
    """Wait until a job is in a state."""

    async def there() -> bool:
        await result.refresh()
        return result.state == state

    try:
        await until(there, 15.0)
    except TimeoutError:
        pytest.fail(f"{result} does not become {state}")


async def nothing_runs(app: App) -> None:
    """Wait until the app's worker holds no job."""
    worker = app.worker
    assert worker is not None
    await until(lambda: not worker.running_tasks)


class Gate:
    """Lets a task say that it is there, and wait until it may go on; for async and ``def`` tasks of this process."""

    def __init__(self) -> None:
        self.entered: list[Any] = []
        self.left: list[Any] = []
        self.cancelled: list[Any] = []
        self._open = asyncio.Event()
        self._arrival = asyncio.Event()

    async def pass_through(self, who: Any = None) -> None:
        self.entered.append(who)
        self._arrival.set()
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(who)
            raise
        self.left.append(who)

    async def arrived(self, count: int = 1) -> None:
        await until(lambda: len(self.entered) >= count)

    def open(self) -> None:
        self._open.set()


@pytest.fixture(params=list(ENGINES))
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where jobs are kept, on each engine in turn."""
    if request.param.startswith("rabbitmq+"):
        broker = (shared_rabbitmq() + ("?order=exact" if request.node.originalname in EXACT else ""),)
        monkeypatch.setattr(app_module, "engine_factory", lambda url, name, **_: engine_factory(url, name, broker=broker))
    return ENGINES[request.param](tmp_path)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings and no tasks of the surroundings."""
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("MOGNET_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setattr(global_registry, "_by_name", {})
    monkeypatch.setattr(global_registry, "_by_function", {})


async def works(app: App) -> None:
    """Wait until the app has a worker."""
    await until(lambda: app.worker)


@pytest.fixture
async def lab(url: str) -> AsyncIterator[Lab]:
    lab = Lab(url)
    yield lab
    await lab.close()


@pytest.fixture
async def app(lab: Lab) -> App:
    """An app with a worker."""
    return await lab.working()


@pytest.fixture
async def idle(lab: Lab) -> App:
    """A connected app without a worker."""
    return await lab.connected()


@pytest.fixture
async def narrow(lab: Lab) -> App:
    """An app whose worker runs one job at a time."""
    return await lab.working(minimum_concurrency=1)


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()
