"""An app and event loops: it is connected in one at a time."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mognet import App, Context, Request, Result
from mognet.exceptions import ImproperlyConfigured, NotConnected

from .conftest import Lab, nothing_runs, soon, until


def elsewhere(function: Callable[[], Awaitable[Any]]) -> Any:
    """What it gives in a loop of another thread."""

    async def call() -> Any:
        return await function()

    found: list[Any] = []

    def run() -> None:
        try:
            found.append(asyncio.run(call()))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def test_a_loop_that_ended_without_closing_the_app_takes_nothing_along() -> None:
    app = App("lab", url="memory://lost-loop")

    @app.task(name="work")
    async def work() -> int:
        return 5

    async def forget() -> None:
        await app.connect()

    async def submit() -> None:
        await app.submit(work)

    async def run() -> None:
        async with app:
            start = asyncio.create_task(app.start())
            assert await soon(app.run(work)) == 5
        await soon(start)

    asyncio.run(forget())
    with pytest.raises(NotConnected, match="another one"):
        asyncio.run(submit())
    asyncio.run(run())
    asyncio.run(forget())
    asyncio.run(app.close())
    with pytest.raises(NotConnected):
        _ = app.engine


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs Python 3.12: before, there was no such factory")
async def test_tasks_that_start_at_once(lab: Lab) -> None:
    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - unknown to older ones
    app, completed = lab.app(minimum_concurrency=1, keep_logs=5), []

    class Completed:
        async def on_task_completed(self, result: Result[Any], context: Context | None = None) -> None:
            completed.append(result.name)

    @app.task(name="child")
    async def child(n: int) -> int:
        return n

    @app.task(name="parent")
    async def parent(context: Context) -> list[int]:
        await context.progress(1, 2)
        return await context.gather(*[await context.submit(child, n) for n in range(5)])

    @app.task(name="fails")
    async def fails() -> None:
        raise ValueError("always")

    app.add_middleware(Completed())
    await lab.start(app)
    assert await soon(asyncio.gather(*[app.run(child, n) for n in range(20)])) == list(range(20))
    result = await app.submit(parent)
    assert [str(event.state) async for event in result.watch()][-1] == "SUCCESS"
    assert await result == list(range(5))
    with pytest.raises(ValueError, match="always"):
        await soon(app.run(fails))
    await nothing_runs(app)
    await until(lambda: Counter(completed) == {"child": 25, "parent": 1, "fails": 1})


async def test_while_one_loop_has_it_others_are_told(lab: Lab) -> None:
    app = await lab.connected()
    request = Request[None](name="work")
    result = await app.submit(Request[None](name="work"))
    for use in (
        lambda: app.submit(request),
        lambda: app.run(request),
        lambda: app.submit_many([request]),
        lambda: app.revoke(request.id),
        lambda: result,
        lambda: result.wait(),
        lambda: anext(app.watch(result.id)),
    ):
        answer = await asyncio.to_thread(elsewhere, use)
        assert isinstance(answer, NotConnected)
        assert "another one" in str(answer)
    for begin in (app.connect, app.start, app.close):
        answer = await asyncio.to_thread(elsewhere, begin)
        assert isinstance(answer, ImproperlyConfigured)
        assert "another event loop" in str(answer)
    assert (await app.submit(request)).id == request.id
    assert (await soon(anext(app.watch(result.id)))).state == "PENDING"
