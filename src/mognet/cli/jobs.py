"""``mognet tasks get``."""

from __future__ import annotations

from typing import Any

from mognet.cli.desk import Answer, Desk
from mognet.cli.display import Line, Lines, Span, state_span
from mognet.cli.failures import OK
from mognet.cli.ids import find
from mognet.cli.listing import note, took
from mognet.cli.text import age, clean_lines, json_text, local, plural, span
from mognet.codec import dumps, loads
from mognet.exceptions import ResultValueLost
from mognet.results import Result


async def get_task(desk: Desk, id: str, *, include_value: bool) -> int:
    """Show all that is known of a job."""
    result = await find(desk.app.result_backend, id)

    async def look() -> Answer:
        data = await describe(result)
        more = await end_of(result) if include_value else {}
        return Answer(data | more, Lines(await _lines(result, data, more)))

    await desk.show(look)
    return OK


async def describe(result: Result[Any]) -> dict[str, Any]:
    """All that is known of a job, but what it left."""
    return result.to_dict() | {"children_count": await result.children.count()}


async def end_of(result: Result[Any]) -> dict[str, Any]:
    """What the job left: its value, or its error."""
    data: dict[str, Any] = {"value": None, "value_lost": False, "error": None}
    if result.successful:
        try:
            data["value"] = loads(dumps(await result.get()))
        except ResultValueLost:
            data["value_lost"] = True
    elif error := await result.error():
        data["error"] = {"type": error.type_name.removeprefix("builtins:"), "message": error.message, "traceback": error.traceback}
    return data


def _label(text: str) -> Span:
    return Span(f"{text:<10}", "dim")


async def _lines(result: Result[Any], data: dict[str, Any], end: dict[str, Any]) -> list[Line]:
    said = note(result, await result.error())
    lines: list[Line] = [
        [Span(result.name or "(not submitted)", "bold"), " ", str(result.id)],
        [_label("state"), state_span(result.state), "  " if said else "", said],
        [_label("queue"), f"{result.queue_name}, priority {result.priority}"],
        [_label("created"), f"{local(result.created)} ({age(result.created)} ago)"],
    ]
    if result.started is not None:
        lines.append([_label("started"), f"{local(result.started)}, waited {span(result.queue_time)}"])
    if result.finished is not None:
        lines.append([_label("finished"), f"{local(result.finished)}" + (f", took {took(result)}" if result.started else "")])
    if result.node_id:
        lines.append([_label("node"), result.node_id])
    if result.number_of_starts:
        counted = f"attempt {result.attempt}; {plural(result.number_of_starts, 'start')}, {plural(result.number_of_stops, 'stop')}"
        lines.append([_label("runs"), counted])
    if result.parent_id is not None:
        lines.append([_label("parent"), str(result.parent_id)])
    if data["children_count"]:
        lines.append([_label("children"), f"{data['children_count']:,}"])
    if result.request_kwargs_repr:
        lines.append([_label("arguments"), result.request_kwargs_repr])
    if data["metadata"]:
        lines.append([_label("metadata"), json_text(data["metadata"])])
    return [*lines, *_end_lines(end)]


def _end_lines(end: dict[str, Any]) -> list[Line]:
    if not end:
        return []
    if end["value_lost"]:
        return [[_label("value"), "gone: it expired or was deleted"]]
    if end["error"] is not None:
        return [[_label("traceback")], *([f"  {line}"] for line in clean_lines(end["error"]["traceback"].rstrip()))]
    return [[_label("value"), json_text(end["value"])]]
