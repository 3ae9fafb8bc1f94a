"""Who starts and who closes an app at the same time: whoever returns, it is closed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mognet import App, ClassService
from mognet.exceptions import NotConnected

from .conftest import Gate, Lab, soon, works


def slow_to_close(app: App, gate: Gate) -> None:
    """Let the app have a service that closes when the gate is opened."""

    class Slow(ClassService[None]):
        def __call__(self, context: Any) -> None:
            pass

        async def close(self) -> None:
            await gate.pass_through()

    app.services.find(Slow)


def closed(app: App) -> bool:
    with pytest.raises(NotConnected):
        _ = app.engine
    return app.worker is None


async def some_turns() -> None:
    """Time enough for whoever does not wait."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_start_and_other_closes_wait_for_a_close(lab: Lab, gate: Gate) -> None:
    app = await lab.connected()
    slow_to_close(app, gate)
    seen: list[bool] = []

    async def and_see(coroutine: Any) -> None:
        await coroutine
        seen.append(closed(app))

    start = asyncio.create_task(and_see(app.start()))
    await works(app)
    closes = [asyncio.create_task(and_see(app.close())) for _ in range(2)]
    await gate.arrived()
    await some_turns()
    assert not start.done()
    assert not any(close.done() for close in closes)
    gate.open()
    await soon(asyncio.gather(start, *closes))
    assert seen == [True, True, True]


async def test_a_start_that_is_given_up_waits_for_the_close(lab: Lab, gate: Gate) -> None:
    app, starting = await lab.connected(), Gate()
    slow_to_close(app, gate)

    class Waits:
        async def on_app_starting(self, app: App) -> None:
            await starting.pass_through()

    app.add_middleware(Waits())
    start = asyncio.create_task(app.start())
    await starting.arrived()
    close = asyncio.create_task(app.close())
    await gate.arrived()
    await some_turns()
    assert starting.cancelled
    assert not start.done()
    gate.open()
    await soon(asyncio.gather(start, close))
    assert closed(app)


async def test_a_start_during_a_close_begins_when_it_is_closed(lab: Lab, gate: Gate) -> None:
    app = await lab.connected()
    slow_to_close(app, gate)

    @app.task(name="work")
    async def work() -> int:
        return 1

    close = asyncio.create_task(app.close())
    await gate.arrived()
    start = asyncio.create_task(app.start())
    await some_turns()
    assert app.worker is None
    gate.open()
    await soon(close)
    await works(app)
    assert await soon(app.run(work)) == 1
    await app.close()
    await soon(start)


async def test_a_close_that_is_cancelled_closes_all_the_same(lab: Lab, gate: Gate) -> None:
    app = await lab.connected()
    slow_to_close(app, gate)
    start = await lab.start(app)
    close = asyncio.create_task(app.close())
    await gate.arrived()
    close.cancel()
    await soon(asyncio.wait([close]))
    assert close.cancelled()
    assert closed(app)
    await soon(start)


async def test_a_hook_may_close_the_app_that_is_closing(lab: Lab) -> None:
    app, hooks = lab.app(), []

    class Closes:
        async def on_app_stopping(self, app: App) -> None:
            hooks.append("stopping")
            await app.close()

        async def on_app_stopped(self, app: App) -> None:
            hooks.append("stopped")
            await app.close()

    app.add_middleware(Closes())
    start = await lab.start(app)
    await soon(app.close())
    await soon(start)
    assert hooks == ["stopping", "stopped"]
    assert closed(app)


@pytest.mark.parametrize("how", ["close", "stop"])
async def test_a_hook_may_end_the_app_that_has_just_started(lab: Lab, how: str) -> None:
    """It does not wait for the worker, which waits for the hook."""
    app, ran = lab.app(), []

    class Ends:
        async def on_app_started(self, app: App) -> None:
            await getattr(app, how)()
            ran.append(app.result_backend if how == "stop" else closed(app))

    app.add_middleware(Ends())
    await soon(app.start())
    assert ran
    await soon(app.close())
    assert closed(app)


@pytest.mark.parametrize("connected", [True, False])
async def test_a_hook_may_close_the_app_that_is_about_to_start(lab: Lab, connected: bool) -> None:
    app, hooks = lab.app(), []

    class Closes:
        async def on_app_starting(self, app: App) -> None:
            hooks.append("starting")
            await app.close()

        async def on_app_stopped(self, app: App) -> None:
            hooks.append("stopped")

    app.add_middleware(Closes())
    if connected:
        await app.connect()
    await soon(app.start())
    assert closed(app)
    assert hooks == ["starting", "stopped"]


@pytest.mark.parametrize("how", ["closed by the hook", "cancelled"])
async def test_who_stops_an_app_whose_worker_never_begins_is_not_left_waiting(lab: Lab, gate: Gate, how: str) -> None:
    app = lab.app()

    class Waits:
        async def on_app_started(self, app: App) -> None:
            await gate.pass_through()
            await app.close()

    app.add_middleware(Waits())
    start = asyncio.create_task(app.start())
    await gate.arrived()
    stop = asyncio.create_task(app.stop(grace=0))
    await some_turns()
    if how == "cancelled":
        start.cancel()
    gate.open()
    await soon(asyncio.wait([start]))
    await soon(stop)
    await soon(app.close())
    assert closed(app)
