"""``mognet doctor``: looks at what usually goes wrong, and says what mends it."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import platform
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

from mognet import __version__
from mognet.app import App
from mognet.cli.desk import Answer, write
from mognet.cli.display import Line, Lines, Span
from mognet.cli.doctor_sqlite import examine_sqlite
from mognet.cli.failures import FAILED, OK, CommandError
from mognet.cli.findings import Finding, error, ok, warning
from mognet.cli.loading import load_app
from mognet.cli.logsetup import set_up
from mognet.cli.options import Options
from mognet.cli.queues import measure
from mognet.cli.text import clean, plural, span
from mognet.exceptions import MognetError
from mognet.records import Job
from mognet.redaction import redact_url

WAKE_UP = 5.0
"""Seconds that a signal may take before it counts as lost."""


def examine(options: Options, *, json: bool) -> int:
    """Look at everything, and show it; 1 if something has to be mended."""
    set_up(options, default_level="ERROR")
    findings = [_versions()]
    try:
        app = load_app(options)
    except (CommandError, MognetError) as problem:
        findings.append(error("app", clean(problem)))
        return _show(findings, options, json=json)
    findings += _imports(app)

    async def look() -> list[Finding]:
        return [finding async for finding in _engine(app, options)]

    return _show([*findings, *asyncio.run(look())], options, json=json)


def _show(findings: list[Finding], options: Options, *, json: bool) -> int:
    healthy = all(finding.grade != "error" for finding in findings)
    data = {"ok": healthy, "findings": [finding._asdict() for finding in findings]}
    lines: list[Line] = []
    for finding in findings:
        lines.append([finding.mark, " ", Span(finding.subject, "bold"), f"  {finding.text}"])
        if finding.remedy:
            lines.append([Span(f"    → {finding.remedy}", "dim")])

    write(Answer(data, Lines(lines)), options, json=json)
    return OK if healthy else FAILED


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


async def _engine(app: App, options: Options) -> AsyncIterator[Finding]:
    shown = redact_url(app.url)
    origin = app.origins.get("url", "code")
    began = time.perf_counter()
    try:
        await app.connect()
    except (MognetError, OSError) as problem:
        where = {"default": "the default", "--url": "given by --url"}.get(origin, f"from {origin}")
        yield error("engine", f"{shown} ({where}) cannot be used: {clean(problem)}", "--url tries another")
        return
    try:
        yield ok("engine", f"{shown}, connected in {span(time.perf_counter() - began)}")
        yield await _round_trip(app)
        if app.url.startswith("sqlite:"):
            for finding in await asyncio.to_thread(lambda: list(examine_sqlite(_path(app.url)))):
                yield finding
        elif app.url.startswith("memory:"):
            yield warning(
                "engine", "memory:// keeps jobs in one process, and forgets them with it", "leave the URL out: a SQLite file is the default"
            )
        async for finding in _queues(app, options):
            yield finding
    except MognetError as problem:
        yield error("engine", f"{shown}: {clean(problem)}")
    finally:
        await app.close()


def _path(url: str) -> Path:
    from mognet.engines.sql.connection import parse_url

    return parse_url(url).path


async def _round_trip(app: App) -> Finding:
    """Write a record that no worker sees, delete it, and send ourselves a signal."""
    job = Job(uuid4(), "mognet.doctor", "mognet.doctor", b"{}", ttl=60.0)
    began = time.perf_counter()
    await app.engine.submit([job], enqueue=False)
    written = time.perf_counter() - began
    await app.engine.delete([job.id])
    channel = f"doctor:{job.id.hex}"
    async with app.engine.subscribe(channel) as signals:
        began = time.perf_counter()
        await app.engine.publish(channel, b"{}")
        try:
            async with asyncio.timeout(WAKE_UP):
                await anext(signals)
        except TimeoutError:
            return error(
                "round trip", f"write {_ms(written)}, but a signal did not arrive within {WAKE_UP:g} s", "waiting still works, but slowly"
            )
    return ok("round trip", f"write {_ms(written)}, wake-up {_ms(time.perf_counter() - began)}")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


async def _queues(app: App, options: Options) -> AsyncIterator[Finding]:
    rows = await measure(app)
    alone = [row for row in rows if row["ready"] and not row["workers"]]
    for row in alone:
        queue = clean(row["queue"])
        start = "run" if row["queue"] in app.get_task_queue_names() else f"run -q {queue}"
        yield warning(
            "workers", f"no worker listens on queue {queue!r}, but {plural(row['ready'], 'job')} wait there", options.again(start)
        )
    if not alone:
        listening = sum(bool(row["workers"]) for row in rows)
        yield ok("workers", f"{plural(listening, 'queue')} of {len(rows)} with a worker, and no job waits for one")
