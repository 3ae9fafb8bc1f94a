"""``mognet doctor``: looks at what usually goes wrong, and says what mends it."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import platform
import time
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

from mognet import __version__
from mognet.app import App
from mognet.cli.desk import Answer, write
from mognet.cli.failures import FAILED, OK, UNREACHABLE, CommandError
from mognet.cli.findings import as_lines
from mognet.cli.loading import load_app
from mognet.cli.logsetup import set_up
from mognet.cli.options import Options
from mognet.cli.queues import measure
from mognet.cli.store import looks
from mognet.cli.text import clean, plural, span
from mognet.engines.findings import Checkup, Finding, error, ok, warning
from mognet.exceptions import ConnectionError, ImproperlyConfigured, MognetError
from mognet.records import Job
from mognet.redaction import redact_url

WAKE_UP = 5.0
"""Seconds that a signal may take before it counts as lost."""


def examine(options: Options, *, json: bool) -> int:
    """Look at everything, and show it; 1 if something has to be mended, 4 if an engine cannot be reached."""
    set_up(options, default_level="ERROR")
    findings = [_versions()]
    try:
        app = load_app(options)
    except (CommandError, MognetError) as problem:
        findings.append(error("app", clean(problem)))
        return _show(findings, options, json=json)
    findings += _imports(app)
    visit = _Visit(app, options)

    async def look() -> list[Finding]:
        return [finding async for finding in visit.findings()]

    findings += asyncio.run(look())
    return _show(findings, options, json=json, reached=visit.reached)


def _show(findings: list[Finding], options: Options, *, json: bool, reached: bool = True) -> int:
    healthy = all(finding.grade != "error" for finding in findings)
    data = {"ok": healthy, "findings": [finding._asdict() for finding in findings]}
    write(Answer(data, as_lines(findings)), options, json=json)
    return OK if healthy else FAILED if reached else UNREACHABLE


def _versions() -> Finding:
    loop = "uvloop present" if importlib.util.find_spec("uvloop") else "uvloop absent (pip install uvloop makes a busy worker faster)"
    return ok("versions", f"Python {platform.python_version()}, mognet {__version__}, {loop}")


def _imports(app: App) -> Iterator[Finding]:
    sound = []
    for module in app.config.imports:
        try:
            importlib.import_module(module)
            sound.append(module)
        except (Exception, SystemExit) as problem:
            text = f"{module} cannot be imported: {type(problem).__name__}: {clean(problem)}"
            yield error("imports", text, f"correct `imports` ({app.origins['imports']}), or the module")
    all_sound = sound == app.config.imports
    app.config.imports = sound  # the rest is to be looked at all the same
    names = app.registry.names()
    tasks = plural(len(names), "task") + (": " + ", ".join(names[:5]) + (", …" if len(names) > 5 else "") if names else "")
    if names:
        yield ok("app", f"{app.name}, {tasks}")
    elif all_sound:
        yield warning("app", f"{app.name}, no task is registered", "decorate functions with @task, and name their modules in `imports`")


class _Visit:
    """A look at the engine of an app, and at the servers behind it."""

    def __init__(self, app: App, options: Options) -> None:
        self.app = app
        self.options = options
        self.reached = True

    async def findings(self) -> AsyncIterator[Finding]:
        """First as workers see it, and then by itself."""
        began = time.perf_counter()
        try:
            await self.app.connect()
        except (MognetError, OSError) as problem:
            yield self._refused(problem)
        else:
            try:
                yield ok("engine", f"{redact_url(self.app.url)}, connected in {span(time.perf_counter() - began)}")
                yield await _round_trip(self.app)
                async for finding in _queues(self.app, self.options):
                    yield finding
            except MognetError as problem:
                self._note(problem)
                yield error("engine", f"{redact_url(self.app.url)}: {clean(problem)}", "--url tries another")
            finally:
                await self.app.close()
        try:
            sections = looks(self.app)
        except ImproperlyConfigured:
            return  # which has been said
        for section, checkup in sections.items():
            for finding in await self._ask(checkup):
                yield finding._replace(section=section)

    def _refused(self, problem: Exception) -> Finding:
        self._note(problem)
        config = self.app.config
        setting = "url" if config.url is not None or config.result_backend is None else "result_backend"
        origin = self.app.origins.get(setting, "code")
        where = {"default": "the default", "--url": "given by --url"}.get(origin, f"from {origin}")
        return error("engine", f"{redact_url(self.app.url)} ({where}) cannot be used: {clean(problem)}", "--url tries another")

    def _note(self, problem: Exception) -> None:
        self.reached = self.reached and not isinstance(problem, ConnectionError | OSError)

    async def _ask(self, checkup: Checkup) -> list[Finding]:
        try:
            return await checkup.examine(self.app.get_task_queue_names())
        except (MognetError, OSError) as problem:
            if not self.reached:
                return []  # which has been said, most likely of this very server
            self._note(problem)
            return [error(checkup.title, f"{checkup.shown} cannot be looked at: {clean(problem)}", "start it, or correct the URL")]


async def _round_trip(app: App) -> Finding:
    """Write a record that no worker sees, read and delete it, and send ourselves a signal."""
    job = Job(uuid4(), "mognet.doctor", "mognet.doctor", b"{}", ttl=60.0)
    began = time.perf_counter()
    await app.engine.submit([job], enqueue=False)
    written, began = time.perf_counter() - began, time.perf_counter()
    found = await app.engine.get([job.id])
    read = time.perf_counter() - began
    await app.engine.delete([job.id])
    if found == [None]:
        return error("round trip", "a record was gone as soon as it was written", "name a server that takes writes and keeps them")
    channel = f"doctor:{job.id.hex}"
    async with app.engine.subscribe(channel) as signals:
        began = time.perf_counter()
        await app.engine.publish(channel, b"{}")
        try:
            async with asyncio.timeout(WAKE_UP):
                await anext(signals)
        except TimeoutError:
            text = f"write {_ms(written)}, read {_ms(read)}, but a signal did not arrive within {WAKE_UP:g} s"
            return error(
                "round trip", text, "waiting still works, but slowly; a user of the engine may lack the right to publish and subscribe"
            )
    return ok("round trip", f"write {_ms(written)}, read {_ms(read)}, wake-up {_ms(time.perf_counter() - began)}")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def waiting(count: int) -> str:
    """``1 job waits``, ``2 jobs wait``."""
    return f"{plural(count, 'job')} {'waits' if count == 1 else 'wait'}"


async def _queues(app: App, options: Options) -> AsyncIterator[Finding]:
    rows = await measure(app)
    alone = [row for row in rows if row["ready"] and not row["workers"]]
    for row in alone:
        queue = clean(row["queue"])
        start = "run" if row["queue"] in app.get_task_queue_names() else f"run -q {queue}"
        yield warning("workers", f"no worker listens on queue {queue!r}, but {waiting(row['ready'])} there", options.again(start))
    if not alone:
        listening = sum(bool(row["workers"]) for row in rows)
        yield ok("workers", f"{plural(listening, 'queue')} of {len(rows)} with a worker, and no job waits for one")
