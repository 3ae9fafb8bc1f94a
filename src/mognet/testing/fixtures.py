"""What the pytest fixtures are made of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

from mognet.app import App
from mognet.exceptions import ImproperlyConfigured, NotConnected
from mognet.records import Query, Record
from mognet.states import FINAL, ResultState
from mognet.testing.asynchronous import async_fixture

_UNFINISHED = frozenset(ResultState) - FINAL


class RunningWorker:
    """A connected app, and the worker that runs its jobs in the background."""

    def __init__(self, app: App, start: asyncio.Task[None]) -> None:
        self.app = app
        self._start = start

    async def drain(self, timeout: float = 30.0) -> None:
        """Wait until nothing is due in the worker's queues and nothing runs; what waits for a later moment is not waited for.

        Raises TimeoutError, which names what is left, and whatever ended the worker before.
        """
        until, pause = time.monotonic() + timeout, 0.001
        while left := await self._left():
            if self._start.done():
                self._start.result()
                raise RuntimeError(f"the worker has ended, and {_names(left)} will not be run")
            if time.monotonic() > until:
                raise TimeoutError(f"after {timeout:g} s there is still something to do: {_names(left)}")
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.02)

    async def _left(self) -> list[Record]:
        worker, now = self.app.worker, time.time()
        running = set(worker.running_tasks) if worker is not None else set()
        queues = worker.queues if worker is not None else self.app.get_task_queue_names()
        records = [result.record async for result in self.app.result_backend.search(Query(states=_UNFINISHED))]
        left = [r for r in records if r.id in running or r.state is ResultState.RUNNING or (r.queue in queues and r.due <= now)]
        if left or not running:
            return left
        # Their ends are stored, and the hooks behind them still run.
        return [record for record in await self._records(running) if record is not None]

    async def _records(self, ids: set[Any]) -> list[Record | None]:
        return [None if result is None else result.record for result in await self.app.result_backend.get_many(*ids)]


def _names(records: list[Record]) -> str:
    names = [f"{record.name}[{record.id}] {record.state}" for record in records]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


@asynccontextmanager
async def running(app: App) -> AsyncIterator[RunningWorker]:
    """Inside the context the app is connected and a worker runs; after it, neither."""
    await app.connect()
    start = asyncio.create_task(app.start(), name=f"mognet worker of {app.name}")
    try:
        while app.worker is None and not start.done():  # noqa: ASYNC110 - a moment, once
            await asyncio.sleep(0)
        yield RunningWorker(app, start)
    finally:
        await app.close()
        await start


def create_app_fixture(app: App, **options: Any) -> Any:
    """An async fixture that connects the app, runs its worker in the background, gives the app, and closes it.

    ``options`` are those of ``pytest.fixture``. Each use is a life of its own, so tests may each have their own event loop::

        app_fixture = create_app_fixture(app)

        async def test_addition(app_fixture):
            assert await app_fixture.run(add, 1, 2) == 3
    """

    async def app_fixture() -> AsyncIterator[App]:
        async with running(app):
            yield app

    return async_fixture(**options)(app_fixture)


def swap_for_memory(app: App) -> Callable[[], None]:
    """Let the app keep its jobs in a memory of its own from its next connect on; the function given takes that back."""
    if not isinstance(app, App):
        raise TypeError(f"the fixture mognet_app should return a mognet.App, not {app!r}")
    with suppress(NotConnected):
        _ = app.loop
        raise ImproperlyConfigured(
            "the fixture mognet_app should return an app that is not connected: mognet_worker connects it, to memory"
        )
    url, given = app.config.url, "url" in app.config.model_fields_set
    app.config.url = f"memory://test-{uuid4().hex}"

    def swap_back() -> None:
        app.config.url = url
        if not given:
            app.config.model_fields_set.discard("url")

    return swap_back
