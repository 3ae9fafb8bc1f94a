"""The context variables of whoever calls end with the call: nothing that goes on behind it keeps them."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Sequence
from contextvars import Context, ContextVar, copy_context
from typing import Any, cast
from uuid import uuid4

import mognet
from mognet import Request
from mognet.engine import Broker
from mognet.engines.owed import Owed
from mognet.exceptions import ConnectionError
from mognet.records import Ticket

from .conftest import Lab, soon, until

caller: ContextVar[str] = ContextVar("caller")


def variables(task: asyncio.Task[Any]) -> Context:
    """What a task runs in."""
    if sys.version_info >= (3, 12):
        return task.get_context()
    return next(each for each in gc.get_referents(task) if isinstance(each, Context))


def keepers() -> list[str]:
    """The tasks that hold on to a caller's variables."""
    return [task.get_name() for task in asyncio.all_tasks() if caller in variables(task)]


async def test_no_task_of_an_app_keeps_them(lab: Lab) -> None:
    app = lab.app()

    @app.task(name="work")
    async def work() -> None: ...

    async def call() -> None:
        caller.set("me")
        with mognet.metadata(tenant="acme"):
            await app.connect()
            result = await app.submit(Request(name="work"))
            watch = result.watch()
            await anext(watch)
            await app.queue_stats(result.queue_name)
            worker = await asyncio.create_task(lab.start(app), context=Context())
            await result
            async for _ in watch:
                pass
            assert not worker.done()

    assert keepers() == []
    await soon(asyncio.create_task(call(), context=copy_context()))
    await until(lambda: keepers() == [], 3.0)


async def test_nor_one_that_brings_tickets_after_all() -> None:
    pushes, again = 0, asyncio.Event()

    class Silent:
        async def push(self, tickets: Sequence[Ticket]) -> None:
            nonlocal pushes
            pushes += 1
            if pushes > 1:
                again.set()
            raise ConnectionError("gone")

    owed = Owed(cast("Broker", Silent()))

    async def call() -> None:
        caller.set("me")
        await owed.push([Ticket(uuid4(), "q")])

    await asyncio.create_task(call())
    await soon(again.wait())
    assert keepers() == []
    await owed.close()
