"""``mognet call`` and ``mognet submit``."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

from pydantic import ValidationError

from mognet.cli.desk import Desk
from mognet.cli.durations import parse_duration
from mognet.cli.failures import FAILED, OK, TIMED_OUT, USAGE, CommandError
from mognet.cli.follow import Follower, follower
from mognet.cli.ids import short
from mognet.cli.jobs import describe, end_of
from mognet.cli.taskargs import find_task, make_request, parse_labels
from mognet.cli.text import clean, json_text, span
from mognet.codec import dumps, loads
from mognet.exceptions import MognetError, ResultValueLost
from mognet.requests import Request
from mognet.results import Result
from mognet.states import ResultState

NOBODY_AFTER = 2.0
"""Seconds after which a job that nobody has started raises the question whether a worker listens."""

ASK_NODES = 0.5
"""Seconds that workers have to answer that question."""


class Call(NamedTuple):
    """What the command line says about a job to submit."""

    task: str
    values: list[str]
    queue: str | None = None
    priority: int | None = None
    delay: str | None = None
    metadata: list[str] = []  # noqa: RUF012 - never changed


def prepare(desk: Desk, wanted: Call) -> Request[Any]:
    """The request that the words stand for. Raises :class:`CommandError`."""
    task = find_task(desk.app, wanted.task)
    delay = None if wanted.delay is None else parse_duration(wanted.delay, "--delay")
    metadata = parse_labels(wanted.metadata)
    request = make_request(desk.app, task, wanted.values)
    try:
        if wanted.priority is not None:
            request.priority = wanted.priority
        if wanted.queue is not None:
            request.queue_name = wanted.queue
        request.delay = delay
    except ValidationError as error:
        problem = error.errors()[0]
        raise CommandError(f"--{str(problem['loc'][0]).removesuffix('_name')}: {problem['msg']}", USAGE) from None
    request.metadata = metadata
    return request


async def submit_task(desk: Desk, wanted: Call) -> int:
    """Submit, and print the id; as JSON, the job."""
    result = await desk.app.submit(prepare(desk, wanted))
    print(json_text(result.to_dict(), indent=2) if desk.json else result.id)
    return OK


async def call_task(desk: Desk, wanted: Call, timeout: str | None) -> int:
    """Submit, show how it goes, and print the value; as JSON, the job with its value or error."""
    limit = None if timeout is None else parse_duration(timeout, "--timeout")
    request = prepare(desk, wanted)
    result = await desk.app.submit(request)
    try:
        ended = await follow(desk, result, limit)
    except asyncio.CancelledError:
        desk.note(
            f"interrupted; the job goes on. See it: {_see(desk, result)} — stop it: {desk.options.again(f'tasks revoke {result.id}')}"
        )
        raise
    if not ended:
        with suppress(MognetError):  # what was last known will do
            await result.refresh()
    if desk.json:
        print(json_text(await describe(result) | await end_of(result), indent=2))
    if not ended:
        desk.note(f"… still {result.state} after {span(limit)}; the job goes on. See it: {_see(desk, result)}")
        return TIMED_OUT
    return await tell_end(desk, result)


def _see(desk: Desk, result: Result[Any]) -> str:
    return desk.options.again(f"tasks get {result.id} --include-value")


async def follow(desk: Desk, result: Result[Any], limit: timedelta | None) -> bool:
    """Show the job until its end, or until the time is over; whether it has ended."""
    loop = asyncio.get_running_loop()
    end = loop.create_task(result.wait(), name="the job's end")
    with follower(color=desk.options.color) as show:
        show(result)
        helpers = [
            loop.create_task(_show_events(desk, result, show), name="what the job does"),
            loop.create_task(_look_for_workers(desk, result, show), name="is there a worker?"),
        ]
        try:
            await asyncio.wait([end], timeout=None if limit is None else limit.total_seconds())
            if end.done():
                end.result()
            return end.done()
        finally:
            for task in (end, *helpers):
                task.cancel()
            await asyncio.gather(end, *helpers, return_exceptions=True)


async def _show_events(desk: Desk, result: Result[Any], show: Follower) -> None:
    async for event in result.watch():
        show(desk.app.result_backend.result(event.record))


async def _look_for_workers(desk: Desk, result: Result[Any], show: Follower) -> None:
    """Unless the job has been started within a moment."""
    await asyncio.sleep(NOBODY_AFTER)
    current = await desk.app.result_backend.get(result.id)
    if current is None or current.started is not None or current.done:
        return
    queue = result.queue_name
    async for node in desk.app.get_current_status_of_nodes(timeout=ASK_NODES):
        if queue in node.payload.queues:
            return
    start = "run" if queue in desk.app.get_task_queue_names() else f"run -q {clean(queue)}"
    why = " (jobs at memory:// are seen by their own process only)" if desk.app.url.startswith("memory:") else ""
    show.note(f"no worker listens on queue {clean(queue)!r}{why} — start one with: {desk.options.again(start)}")


async def tell_end(desk: Desk, result: Result[Any]) -> int:
    """Say how the job ended, and print its value."""
    took = f" in {span(result.duration)}" if result.duration is not None else ""
    waited = f", waited {span(result.queue_time)}" if result.queue_time is not None else ""
    if result.successful:
        try:
            value = loads(dumps(await result.get()))
        except ResultValueLost as lost:
            raise CommandError(str(lost), FAILED) from None
        desk.note(f"✓ succeeded{took}{waited}")
        if not desk.json:
            print(json_text(value, indent=2 if sys.stdout.isatty() else None))
        return OK
    error = await result.error()
    what = f": {error.type_name.rpartition(':')[2].removeprefix('builtins.')}: {error.message}" if error is not None else ""
    word = {ResultState.FAILURE: "failed", ResultState.REVOKED: "was revoked", ResultState.INVALID: "is invalid"}[result.state]
    desk.note(f"✗ {result.name} {short(result.id)} {word}{took}{waited}{what}")
    if error is not None and error.traceback:
        desk.note(f"its traceback: {_see(desk, result)}")
    return FAILED
