"""``mognet nodes status``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mognet.cli.desk import Answer, Desk
from mognet.cli.display import Line, Lines, Span, state_span
from mognet.cli.failures import OK
from mognet.cli.ids import short
from mognet.cli.labels import Label
from mognet.cli.listing import took
from mognet.cli.text import clean, plural
from mognet.control import NodeStatus
from mognet.results import Result

_SHOWN = 20
"""Jobs listed per node; JSON has all."""


async def show_nodes(desk: Desk, timeout: float, template: str | None) -> int:
    """Show the workers that answer, and what they run."""
    label = None if template is None else Label(template)

    async def look() -> Answer:
        nodes = [node async for node in desk.app.get_current_status_of_nodes(timeout=timeout)]
        nodes.sort(key=lambda node: node.node_id)
        running = [await _running(desk, node) for node in nodes]
        data = [_node(node, results) for node, results in zip(nodes, running, strict=True)]
        lines = [line for node, results in zip(nodes, running, strict=True) for line in _lines(node, results, label)]
        if not nodes:
            lines = [[f"no worker has answered within {timeout:g} s — start one with: {desk.options.again('run')}"]]
        return Answer({"node_status": data}, Lines(lines, cut=bool(nodes)))

    await desk.show(look)
    return OK


async def _running(desk: Desk, node: NodeStatus) -> list[Result[Any]]:
    found = await desk.app.result_backend.get_many(*node.payload.running_request_ids)
    return [result for result in found if result is not None]


def _node(node: NodeStatus, results: Sequence[Result[Any]]) -> dict[str, Any]:
    return {
        "node_id": node.node_id,
        "queues": node.payload.queues,
        "slots": node.payload.slots,
        "running_requests": [result.to_dict() for result in results],
    }


def _lines(node: NodeStatus, results: Sequence[Result[Any]], label: Label | None) -> list[Line]:
    slots = f"{len(results)}/{node.payload.slots} slots"
    head: Line = [Span(clean(node.node_id), "bold"), f"  {slots}  ", Span(f"queues {', '.join(node.payload.queues)}", "dim")]
    shown: list[Line] = [["  ", *_job(result, label)] for result in results[:_SHOWN]]
    more: list[Line] = [[Span(f"  … {plural(len(results) - _SHOWN, 'more job', 'more jobs')}", "dim")]] if len(results) > _SHOWN else []
    return [head, *shown, *more]


def _job(result: Result[Any], label: Label | None) -> list[Span | str]:
    if label is not None:
        return [label.of(result)]
    return [Span(result.name or "-", shrink=True), " ", Span(short(result.id), "dim"), " ", state_span(result.state), " ", took(result)]
