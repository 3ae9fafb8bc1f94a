"""``mognet run``: a worker, and the signals that stop it."""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

from mognet import __version__
from mognet.app import App
from mognet.cli.durations import parse_duration
from mognet.cli.failures import INTERRUPTED, OK, UNREACHABLE, USAGE, CommandError
from mognet.cli.loading import load_app
from mognet.cli.logsetup import set_up, wanted_format
from mognet.cli.options import Options
from mognet.cli.text import clean, plural, span
from mognet.redaction import redact_url
from mognet.worker import Worker

_log = logging.getLogger("mognet.run")

PATIENCE = 5.0
"""Seconds that closing may take."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Wishes(NamedTuple):
    """What the command line says about the worker."""

    include: list[str]
    exclude: list[str]
    concurrency: int | None = None
    grace: str | None = None
    burst: bool = False
    loop: str = "auto"


def run_worker(options: Options, wishes: Wishes) -> int:
    """Run a worker of the app until it is told to stop; the exit code."""
    started = time.monotonic()
    set_up(options, default_level="INFO")
    app = load_app(options)
    apply(app, wishes)
    spare_the_collector()
    say = _log.info if wanted_format(options) == "json" else _print
    with asyncio.Runner(loop_factory=loop_factory(wishes.loop)) as runner:
        return runner.run(Shift(app, say, started, burst=wishes.burst).work())


def spare_the_collector() -> None:
    """Look for garbage less often, and never among what was loaded at the start.

    A worker makes many objects that live for one job; looking through them after each 700 costs about a quarter of its time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def apply(app: App, wishes: Wishes) -> None:
    """Put the flags over the app's settings. Raises :class:`CommandError`."""
    config = app.config
    include, exclude = _names(wishes.include), _names(wishes.exclude)
    if include and exclude:
        raise CommandError("give -q (only these queues) or -x (all but these), not both", USAGE)
    if include or exclude:
        config.task_queues = type(config.task_queues)(include=include, exclude=exclude)
    if wishes.concurrency is not None:
        if config.maximum_concurrency is not None and config.maximum_concurrency < wishes.concurrency:
            config.maximum_concurrency = wishes.concurrency
        config.minimum_concurrency = wishes.concurrency
    if wishes.grace is not None:
        config.shutdown_grace = parse_duration(wishes.grace, "--grace")


def _names(given: list[str]) -> set[str]:
    return {name.strip() for each in given for name in each.split(",") if name.strip()}


def loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop: uvloop's if it is wanted, or there. Raises :class:`CommandError`."""
    if loop == "asyncio" or (loop == "auto" and importlib.util.find_spec("uvloop") is None):
        return None
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        if loop == "auto":
            return None
        raise CommandError("uvloop is not installed: pip install uvloop, or use --loop asyncio", USAGE) from None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _print(text: str) -> None:
    print(clean(text), flush=True)


class Shift:
    """One worker, from its first line to its last."""

    def __init__(self, app: App, say: Callable[[str], None], began: float, *, burst: bool = False) -> None:
        self._app = app
        self._say = say
        self._began = began
        self._burst = burst
        self._signals = 0
        self._welcomed = False
        self._stops: list[asyncio.Task[None]] = []

    async def work(self) -> int:
        """Run the worker; 0 after every orderly end."""
        loop = asyncio.get_running_loop()
        # Not loop.add_signal_handler: while a task blocks the loop that would hear nothing, and the third signal is to end that.
        before = {each: signal.signal(each, lambda number, _: self._on_signal(loop, signal.Signals(number))) for each in _SIGNALS}
        try:
            return await self._work(loop)
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    async def _work(self, loop: asyncio.AbstractEventLoop) -> int:
        config = self._app.config
        slots = plural(config.minimum_concurrency, "slot")
        self._say(f"mognet {__version__} · {redact_url(self._app.url)} · node {config.node_id} · {slots}")
        self._start = loop.create_task(self._app.start(burst=self._burst, begin=self._welcome), name="mognet worker")
        try:
            await asyncio.wait([self._start])
        finally:
            for task in self._stops:
                task.cancel()
            await self._close()
        if not self._start.cancelled():
            self._start.result()
        self._say("stopped" if self._welcomed else "stopped before the engine was reached")
        code = OK if self._welcomed else UNREACHABLE
        await self._leave_behind(code)
        return code

    async def _close(self) -> None:
        """Close the app; an engine that does not answer is not waited for: what it was to be told, its leases will tell."""
        closing = asyncio.create_task(self._app.close(), name="mognet close")
        if (await asyncio.wait([closing], timeout=PATIENCE))[1]:
            _log.error("the engine does not answer, and is left without a goodbye")
        else:
            closing.result()

    @staticmethod
    async def _leave_behind(code: int) -> None:
        """Exit now if tasks that refuse to be cancelled, or their ``to_thread`` calls, are left: the loop would wait for them."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        threads = asyncio.create_task(asyncio.get_running_loop().shutdown_default_executor())
        if (await asyncio.wait({*others, threads}, timeout=1.0))[1]:
            logging.shutdown()
            sys.stdout.flush()
            os._exit(code)

    def _welcome(self, worker: Worker) -> None:
        """Say what there is to do, now that the modules named by ``imports`` are known and the engine is reached."""
        self._welcomed = True
        queues, names = worker.queues, self._app.registry.names()
        if not queues:
            raise CommandError("no queue is left to listen to: change -x, or task_queues in the settings", USAGE)
        shown = ", ".join(queues[:5]) + (f" and {len(queues) - 5} more" if len(queues) > 5 else "")
        self._say(f"{plural(len(names), 'task')} · {plural(len(queues), 'queue')}: {shown}")
        if not names:
            _log.warning("no task is registered: decorate functions with @task or @app.task, and name their modules in AppConfig.imports")
        how = "stops when nothing is left to do" if self._burst else "Ctrl-C stops it gently"
        self._say(f"ready in {time.monotonic() - self._began:.2f} s — {how}")

    def _on_signal(self, loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
        self._signals += 1
        if self._signals >= 3:
            os._exit(INTERRUPTED)
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._obey, number, self._signals)

    def _obey(self, number: signal.Signals, count: int) -> None:
        worker = self._app.worker
        if worker is None:
            self._start.cancel()
        elif count == 1:
            self._say(self._farewell(number.name, len(worker.running_tasks)))
            self._stop(None)
        else:
            self._say(f"{number.name}: handing back {plural(len(worker.running_tasks), 'running job')} now — a third signal leaves at once")
            self._stop(timedelta(0))

    def _farewell(self, name: str, running: int) -> str:
        if not running:
            return f"{name}: stopping"
        grace = span(self._app.config.shutdown_grace)
        return f"{name}: stopping, {plural(running, 'running job')} may go on for {grace} — once more hands back at once"

    def _stop(self, grace: timedelta | None) -> None:
        self._stops.append(asyncio.get_running_loop().create_task(self._app.stop(grace), name="mognet stop"))
