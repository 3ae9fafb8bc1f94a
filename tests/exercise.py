"""An app that does all that apps do, with its worker: to show that a server, reached in some way or with some rights, is enough for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

from mognet import App, AppConfig, Context, Result, ResultState, Retry
from mognet.exceptions import ConnectionError, CouldNotSubmit, ResultLost, Revoked
from mognet.testing.fixtures import running


async def double(number: int) -> int:
    return number * 2


async def total(context: Context, numbers: list[int]) -> int:
    await context.set_metadata(of=len(numbers))
    await context.state.set("begun", True)
    results = await context.submit_many([context.create_request(double, number) for number in numbers])
    assert await context.state.get("begun")
    return sum(await context.gather(*results))


async def stubborn(context: Context) -> int:
    if context.attempt == 1:
        raise Retry(after=0.01)
    return context.attempt


async def endless() -> None:
    await asyncio.Event().wait()


async def unheard() -> None:
    """Its queue has no worker."""


def make_app(name: str | None = None, **settings: Any) -> App:
    """An app with these tasks, of a name of its own where it gets none; leases are short, so that what no signal tells is learned soon."""
    config = AppConfig(**{"lease": 3.0, "task_queues": {"exclude": {"unheard"}}, **settings})
    app = App(name or f"exercise-{uuid4().hex[:8]}", config)
    for function in (double, total, stubborn, endless):
        app.task(function)
    app.task(queue="unheard")(unheard)
    return app


async def until(condition: Callable[[], Any]) -> Any:
    """Look until it is met; the limit is the caller's."""
    while not (met := condition()):  # noqa: ASYNC110 - what is looked at tells nobody
        await asyncio.sleep(0.01)
    return met


@asynccontextmanager
async def working(name: str | None = None, **settings: Any) -> AsyncIterator[App]:
    """Such an app, with a worker; and a limit, so that what never comes fails the test."""
    async with asyncio.timeout(60), running(make_app(name, **settings)) as worker:
        yield worker.app


async def exercise(name: str | None = None, **settings: Any) -> None:
    """Run such an app where the settings say, and ask it for all that an app has to offer."""
    async with working(name, **settings) as app:
        assert await app.run(double, 21) == 42
        result = await app.submit(total, [1, 2, 3])
        assert await result == 12
        assert await result.get_metadata() == {"of": 3}
        assert len((await result.tree()).children) == 3
        assert await app.run(stubborn) == 2
        await _revoke(app)
        await app.submit(unheard)
        assert (await app.queue_stats("unheard")).message_count == 1
        assert [node.node_id async for node in app.get_current_status_of_nodes(timeout=0.2)] == [app.config.node_id]
        await result.set_ttl(timedelta(hours=1))
        await result.delete()
        assert await app.result_backend.get(result.id) is None


async def _revoke(app: App) -> None:
    """One that runs, and one that waits."""
    running, waiting = await app.submit(endless), await app.submit(unheard)
    while running.state is not ResultState.RUNNING:
        await asyncio.sleep(0.01)
        await running.refresh()
    for result in (running, waiting):
        await app.revoke(result.id)
        try:
            await result
        except Revoked:
            continue
        raise AssertionError(f"{result} was not revoked")
    await until(lambda: app.worker is None or not app.worker.running_tasks)


class Going:
    """An app that submits without pause, whatever happens, and its worker."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.results: dict[int, Result[int]] = {}
        self._number = 0
        self._task = asyncio.create_task(self._submit())

    async def _submit(self) -> None:
        while True:
            try:
                self.results[self._number] = await self.app.submit(double, self._number)
                self._number += 1
            except (ConnectionError, CouldNotSubmit) as error:
                if isinstance(error, CouldNotSubmit) and not isinstance(error.__cause__, ConnectionError):
                    raise
            await asyncio.sleep(0.01)

    async def on(self) -> None:
        """Wait until something that is submitted from now on has run."""
        async with asyncio.timeout(30):
            first = self._number + 1
            await until(lambda: first in self.results)
            assert await self.results[first] == 2 * first

    async def end(self, *, lost: bool = False) -> None:
        """All that was submitted has run; ``lost``: but for what a fail-over may lose."""
        self._task.cancel()
        await asyncio.wait([self._task])
        async with asyncio.timeout(30):
            for number, result in self.results.items():
                try:
                    assert await result == 2 * number
                except ResultLost:
                    assert lost
