"""``mognet store``: what is kept where, and in which form."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from mognet.app import App
from mognet.cli.desk import Answer, write
from mognet.cli.display import Line, Lines, Span, state_span
from mognet.cli.failures import FAILED, OK, REFUSED, CommandError
from mognet.cli.loading import load_app
from mognet.cli.logsetup import set_up
from mognet.cli.options import Options
from mognet.engines.checkups import checkups
from mognet.engines.findings import Checkup, Schema
from mognet.records import Query
from mognet.states import ResultState


def looks(app: App) -> dict[str, Checkup]:
    """What looks at the servers of an app: the broker if it has one, and the store."""
    place = app._place
    return checkups(place.store, app.name, broker=place.broker)


def show_store(options: Options, *, json: bool) -> int:
    """Show where an app's jobs are kept, and how many. Changes nothing there."""

    async def body(app: App, store: Checkup) -> int:
        broker = looks(app).get("broker")
        schema = await store.schema()
        data = {
            "app": app.name,
            "engine": store.title,
            "place": store.shown,
            "broker": None if broker is None else broker.shown,
            "schema": None if schema is None else schema._asdict(),
            "size": await store.size(),
            "jobs": await _jobs(app, schema),
        }
        write(Answer(data, _lines(data, schema, options.again("store migrate"))), options, json=json)
        return OK

    return _serve(options, body)


async def _jobs(app: App, schema: Schema | None) -> dict[str, int] | None:
    """How many there are in each state; None: a schema of another version says it differently. To look must not bring it up to date."""
    if schema is not None and schema.found != schema.known:
        return None if schema.found else {}
    async with app:
        counts = await app.engine.count(Query(), by="state")
    return {str(state): counts[state] for state in ResultState if counts.get(state)}


def _lines(data: dict[str, Any], schema: Schema | None, again: str) -> Lines:
    size, jobs = data["size"], data["jobs"]
    lines: list[Line] = [_line("app", data["app"]), _line("engine", data["engine"]), _line("place", data["place"])]
    if data["broker"] is not None:
        lines.append(_line("broker", data["broker"]))
    lines.append(_line("schema", _describe(schema, again)))
    if size is not None:
        what = " (the whole server's memory)" if data["engine"] == "Redis" else " (all apps)"
        lines.append(_line("size", _bytes(size) + what))
    if not jobs:
        return Lines([*lines, _line("jobs", "none" if jobs == {} else "not counted: the schema is of another version")])
    lines.append(_line("jobs", f"{sum(jobs.values()):,}"))
    for name, count in jobs.items():
        lines.append([Span("        "), state_span(ResultState(name)), f" {count:,}"])
    return Lines(lines)


def _line(name: str, value: str) -> Line:
    return [Span(f"{name:<8}", "dim"), value]


def _bytes(count: int) -> str:
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _describe(schema: Schema | None, again: str) -> str:
    if schema is None:
        return "none is needed"
    if schema.found == schema.known:
        return f"version {schema.found}, up to date"
    if schema.found > schema.known:
        return f"version {schema.found}, of a newer mognet: this one knows {schema.known}"
    return f"{f'version {schema.found}' if schema.found else 'none yet'}; this mognet brings {schema.known}: {again}"


def migrate_store(options: Options, *, check: bool, to: int | None, json: bool) -> int:
    """Bring the schema up to date, or to a version, or say whether that is needed (1)."""

    async def body(app: App, store: Checkup) -> int:
        schema = await store.schema()
        data: dict[str, Any] = {"engine": store.title, "place": store.shown, "schema": None if schema is None else schema._asdict()}
        wanted = None if schema is None else schema.known if to is None else to
        needed = schema is not None and schema.found != wanted
        if schema is None:
            text = f"{store.title} has no schema: there is nothing to bring up to date"
        elif schema.found > schema.known:
            raise CommandError(
                f"{store.shown} has schema {schema.found}, and this mognet knows none later than {schema.known}: upgrade mognet, "
                f"or bring it back with the newer one: {options.again(f'store migrate --to {schema.known}')}",
                REFUSED,
            )
        elif to is not None and to > schema.known:
            raise CommandError(f"there is no schema {to}: this mognet knows none later than {schema.known}", REFUSED)
        elif not needed:
            text = f"schema {wanted} is up to date" if wanted == schema.known else f"it has schema {wanted}"
        elif check:
            text = f"a migration is needed: from {_version(schema.found)} to {wanted}"
        else:
            await store.migrate(to)
            text = f"brought from {_version(schema.found)} to {wanted}"
        data |= {"needed": needed, "done": needed and not check}
        write(Answer(data, Lines([[text]])), options, json=json)
        return FAILED if needed and check else OK

    return _serve(options, body)


def _version(number: int) -> str:
    return f"schema {number}" if number else "no schema"


def _serve(options: Options, body: Callable[[App, Checkup], Awaitable[int]]) -> int:
    set_up(options, default_level="WARNING")
    app = load_app(options)
    *_, store = looks(app).values()

    async def whole() -> int:
        return await body(app, store)

    return asyncio.run(whole())
