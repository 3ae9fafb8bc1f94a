"""The app whose workers are killed: its tasks write down, in a file of their own, what really happens."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from mognet import App, Context, Pause, task
from mognet.exceptions import ConnectionError, CouldNotSubmit

T = TypeVar("T")

app = App(os.environ.get("JOBS_APP", "processes"))


@cache
def _ledger() -> int:
    return os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(kind: str, id: UUID | str | None = None, **facts: Any) -> None:
    """One line, in one write, so that lines of several processes do not mix; what was written survives SIGKILL."""
    line = {"kind": kind, "id": None if id is None else str(id), "pid": os.getpid(), "at": time.monotonic(), **facts}
    os.write(_ledger(), json.dumps(line).encode() + b"\n")


def begin(context: Context, **facts: Any) -> None:
    """Every task does this first."""
    note("start", context.id, start=context.token.start, **facts)


async def insist(operation: Callable[[], Awaitable[T]]) -> T:
    """What a task, or a client, does while the engine cannot be reached: the same again. (A submit of the same request adds nothing.)"""
    while True:
        try:
            return await operation()
        except (ConnectionError, CouldNotSubmit) as error:
            if isinstance(error, CouldNotSubmit) and not isinstance(error.__cause__, ConnectionError):
                raise
        await asyncio.sleep(0.02)


@task(name="quick")
async def quick(context: Context, number: int = 0) -> int:
    begin(context)
    await asyncio.sleep(0)
    return number


@task(name="hold")
async def hold(context: Context, seconds: float = 600) -> str:
    """Take a while, and say how it went."""
    begin(context)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note("cancelled", context.id)
        raise
    note("finish", context.id, start=context.token.start)
    return "held"


@task(name="steps")
async def steps(context: Context) -> list[int]:
    """Note each step in the state, and hang after the first one, the first time."""
    done: list[int] = await context.state.get("done", [])
    begin(context, done=done)
    for step in range(len(done), 3):
        done.append(step)
        await context.state.set("done", done)
        note("step", context.id, step=step)
        if step == 0:
            await asyncio.sleep(600)
    return done


@task(name="shoot")
async def shoot(context: Context, number: int, times: int = 1000) -> str:
    """Send a signal to its own worker, so many times."""
    shots = await context.state.get("shots", 0) + 1
    begin(context, shots=shots)
    if shots > times:
        return "alive"
    await context.state.set("shots", shots)
    os.kill(os.getpid(), number)
    await asyncio.sleep(600)
    return "dead"


@task(name="nap")
def nap(context: Context, seconds: float = 60) -> None:
    """A function that nobody can stop."""
    begin(context)
    time.sleep(seconds)


@task(name="deaf")
async def deaf(context: Context) -> str:
    """Does not listen when it is cancelled, the first time."""
    shots = await context.state.get("shots", 0)
    await context.state.set("shots", shots + 1)
    begin(context)
    while not shots:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            note("ignored", context.id)
    return "heard"


@task(name="parent")
async def parent(context: Context, seconds: float = 600) -> list[str]:
    """Wait for a child that a former attempt may have submitted."""
    known = await context.state.get("child")
    begin(context, known=known)
    if known is None:
        child = await context.submit(hold, seconds)
        await context.state.set("child", str(child.id))
        known = str(child.id)
    note("waiting", context.id, child=known)
    return list(await context.gather(UUID(known)))


@task(name="block")
async def block(context: Context, seconds: float) -> str:
    """Block the event loop, the first time."""
    times = await context.state.get("times", 0)
    await context.state.set("times", times + 1)
    begin(context, times=times)
    if times == 0:
        time.sleep(seconds)
    note("finish", context.id, start=context.token.start)
    return f"blocked {times}"


@task(name="ghost")
async def ghost(context: Context) -> str:
    """Notice that the process stood still for long, and then try to write whatever there is to write."""
    mine = context.token.start
    begin(context)
    if mine > 1:
        await context.set_metadata(by="the second")
        await context.state.set("by", "the second")
        note("took over", context.id)
        await asyncio.sleep(2.5)
        by = await context.state.get("by")
        return f"second, by {by}"
    last = time.monotonic()
    while time.monotonic() - last < 0.5:
        last = time.monotonic()
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            note("cancelled", context.id)
    for name, write in {
        "state": context.state.set("by", "the ghost"),
        "metadata": context.set_metadata(by="the ghost"),
        "child": context.submit(quick, 666),
    }.items():
        note("haunt", context.id, what=name, got=await _end_of(write, context))
    return "first"


async def _end_of(write: Coroutine[Any, Any, Any], context: Context) -> str:
    writing = asyncio.ensure_future(write)
    while not writing.done():
        try:
            await asyncio.wait([writing])
        except asyncio.CancelledError:
            note("cancelled", context.id)
    error = writing.exception()
    return "written" if error is None else type(error).__name__


@task(name="stumble")
async def stumble(context: Context) -> int:
    """Fail until somebody has mended it."""
    begin(context)
    if not (await insist(context.get_metadata)).get("mended"):
        raise ValueError("not yet")
    note("finish", context.id, start=context.token.start)
    return 1


@task(name="spawn")
async def spawn(context: Context, children: int, seconds: float) -> int:
    begin(context)
    requests = [context.create_request(work, number, seconds) for number in range(children)]
    results = [await insist(lambda request=request: context.submit(request)) for request in requests]  # type: ignore[misc]
    return sum(await context.gather(*results))


@task(name="delayed_parent")
async def delayed_parent(context: Context, seconds: float) -> int:
    begin(context)
    request = context.create_request(quick, 1)
    request.delay = timedelta(seconds=seconds)
    return await context.run(request)


@task(name="work")
async def work(context: Context, number: int, seconds: float) -> int:
    """Work in a few steps, each noted in the state and in the metadata."""
    done: int = await insist(lambda: context.state.get("done", 0))
    await insist(lambda: context.state.set("read", done))  # ends here if it had lost its job already, and so read nothing
    begin(context, done=done)
    for step in range(done, 3):
        await asyncio.sleep(seconds / 3)
        await insist(lambda step=step: context.set_metadata(**{f"step{step}": context.token.start}))  # type: ignore[misc]
        await insist(lambda step=step: context.state.set("done", step + 1))  # type: ignore[misc]
        note("step", context.id, step=step + 1)
    if number % 7 == 3 and not await insist(lambda: context.state.get("paused")):
        await insist(lambda: context.state.set("paused", True))
        raise Pause(resume_after=timedelta(seconds=0.05))
    note("finish", context.id, start=context.token.start)
    return number
