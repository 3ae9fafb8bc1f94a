"""An app and event loops: it is connected in one at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mognet import App, Request
from mognet.exceptions import ImproperlyConfigured, NotConnected

from .conftest import Lab, soon


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


async def test_while_one_loop_has_it_others_are_told(lab: Lab) -> None:
    app = await lab.connected()
    request = Request[None](name="work")
    for use in (lambda: app.submit(request), lambda: app.run(request), lambda: app.submit_many([request]), lambda: app.revoke(request.id)):
        answer = await asyncio.to_thread(elsewhere, use)
        assert isinstance(answer, NotConnected)
        assert "another one" in str(answer)
    for begin in (app.connect, app.start, app.close):
        answer = await asyncio.to_thread(elsewhere, begin)
        assert isinstance(answer, ImproperlyConfigured)
        assert "another event loop" in str(answer)
    assert (await app.submit(request)).id == request.id
