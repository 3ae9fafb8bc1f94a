"""What ``mognet top`` shows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from mognet.cli.display import Column, Sheet, Span, state_span
from mognet.cli.follow import amount, percent
from mognet.cli.ids import short
from mognet.cli.listing import error_data, note, took
from mognet.cli.queues import queues_sheet
from mognet.cli.text import age, clean
from mognet.codec import ErrorInfo
from mognet.control import NodeStatus
from mognet.results import Result
from mognet.states import ResultState

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

MOST_RUNNING = 200
"""Jobs that run, of which a picture knows: those begun last."""

_RUNNING = (Column("ID"), Column("TASK", shrink=True, keep_end=True), Column("QUEUE", shrink=True), Column("TOOK", right=True),
            Column("DONE", right=True), Column("NODE", shrink=True), Column("MESSAGE", shrink=True))  # fmt: skip
_FAILURES = (
    Column("ID"),
    Column("TASK", shrink=True, keep_end=True),
    Column("STATE"),
    Column("AGO", right=True),
    Column("NOTE", shrink=True),
)
_NODES = (Column("NODE", shrink=True), Column("RUNS", right=True), Column("SLOTS", right=True), Column("QUEUES", shrink=True))


@dataclass
class Picture:
    """What goes on."""

    title: str
    queues: list[dict[str, Any]] = field(default_factory=list)
    nodes: list[NodeStatus] = field(default_factory=list)
    running: dict[UUID, Result[Any]] = field(default_factory=dict)
    failures: dict[UUID, Result[Any]] = field(default_factory=dict)
    errors: dict[UUID, ErrorInfo | None] = field(default_factory=dict)
    trouble: str = ""
    place: str = ""
    """Where the jobs are kept."""
    room: int | None = None
    """Lines that the window has; None: any number."""
    name: str = ""
    """Of jobs, only those whose task has this in its name."""
    now: float | None = None
    """The moment that it shows; None: the present one."""
    last: str = ""
    """The line below."""
    looked: bool = False
    """Whether anything is known yet."""

    def data(self) -> dict[str, Any]:
        """The same, for JSON."""
        nodes = [
            {
                "node_id": node.node_id,
                "queues": node.payload.queues,
                "slots": node.payload.slots,
                "running": len(node.payload.running_request_ids),
            }
            for node in self.nodes
        ]
        failures = [result.to_dict() | {"error": error_data(self.errors.get(result.id))} for result in self._failures()]
        return {"queues": self.queues, "nodes": nodes, "running": [result.to_dict() for result in self._running()], "failures": failures}

    def tell(self, result: Result[Any]) -> None:
        """A job has changed."""
        if result.state is ResultState.RUNNING:
            self.running[result.id] = result
            if len(self.running) > MOST_RUNNING:
                del self.running[next(iter(self.running))]
        else:
            self.running.pop(result.id, None)

    def fit(self, height: int) -> Picture:
        """What a terminal of so many lines can show."""
        return replace(self, room=height)

    def still(self) -> Picture:
        """As it is now; what is told later does not change it."""
        return replace(self, running=dict(self.running), now=time.time())

    def plain(self) -> str:
        """As text for a pipe: nothing is cut."""
        return "\n\n".join(f"{name}\n{sheet.plain()}" for name, sheet in self._sheets().items())

    def rich(self, width: int) -> RenderableType:
        """For a terminal. What there is little room for gets few lines, then no space around it, then only its first columns."""
        from rich.console import Group
        from rich.text import Text

        below = _line(self.trouble, "red") if self.trouble else _line(self.last, "dim")
        if not self.looked:
            return Group(_line(f"{self.title}  {self.place}", "bold"), _line("looking …", "dim"), below)
        sheets = self._sheets()
        heights, spaced = _share(sheets, (self.room or 1000) - 2)  # without the title and the last line
        parts: list[RenderableType] = [_line(self._head(), "bold")]
        for name in [name for name in sheets if name in heights]:
            parts += [Text("")] * spaced + [sheets[name].fit(heights[name]).rich(width)]
        return Group(*parts, below)

    def _head(self) -> str:
        now = time.strftime("%H:%M:%S", time.localtime(self.now))
        ready, running = (sum(row[key] for row in self.queues) for key in ("ready", "running"))
        return f"{self.title}  {now}  {ready:,} ready, {running:,} running  {self.place}"  # what is cut off is the end of the place

    def _sheets(self) -> dict[str, Sheet]:
        return {
            "queues": replace(queues_sheet(self.queues), without=None),
            "nodes": Sheet(_NODES, [_node(node) for node in self.nodes], empty="no worker answers", spare=("SLOTS", "QUEUES")),
            "running": Sheet(
                _RUNNING,
                [self._job(result) for result in self._running()],
                empty=f"nothing runs{self._named()}",
                spare=("QUEUE", "NODE", "MESSAGE", "DONE"),
            ),
            "failures": Sheet(
                _FAILURES,
                [self._failure(result) for result in self._failures()],
                empty=f"no failures{self._named()}",
                spare=("STATE", "AGO"),
            ),
        }

    def _named(self) -> str:
        return f" whose name has {self.name!r}" if self.name else ""

    def _wanted(self, results: Iterable[Result[Any]]) -> list[Result[Any]]:
        return [result for result in results if self.name.casefold() in (result.name or "").casefold()]

    def _running(self) -> list[Result[Any]]:
        return sorted(self._wanted(self.running.values()), key=lambda result: result.record.started or 0.0, reverse=True)

    def _failures(self) -> list[Result[Any]]:
        return sorted(self._wanted(self.failures.values()), key=lambda result: result.record.finished or 0.0, reverse=True)

    def _failure(self, result: Result[Any]) -> Sequence[Span | str]:
        said = note(result, self.errors.get(result.id))
        now = None if self.now is None else datetime.fromtimestamp(self.now, UTC)
        return [short(result.id), result.name or "-", state_span(result.state), age(result.finished, now), said]

    def _job(self, result: Result[Any]) -> Sequence[Span | str]:
        told = result.progress
        done = amount(told) if told is None or told.fraction is None else f"{amount(told)} {percent(told)}"
        return [
            short(result.id),
            result.name or "-",
            result.queue_name,
            took(result, self.now),
            done,
            result.node_id or "",
            told.message or "" if told else "",
        ]


def _share(sheets: Mapping[str, Sheet], room: int) -> tuple[dict[str, int], int]:
    """How many lines each table gets, and how many stand before each: the first lines of all, as long as there is room, then in turns."""
    wanted = {name: len(sheet.rows) + 1 if sheet.rows else 1 for name, sheet in sheets.items()}
    heights: dict[str, int] = {}
    for name in ("running", "failures", "queues", "nodes"):
        least = min(2, wanted[name])
        if not heights or least <= room:
            heights[name], room = least, room - least
    spaced = int(room >= len(heights))
    room -= spaced * len(heights)
    while hungry := [name for name in heights if heights[name] < wanted[name]][: max(0, room)]:
        for name in hungry:
            heights[name] += 1
        room -= len(hungry)
    return heights, spaced


def _line(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(clean(text), style, no_wrap=True, overflow="ellipsis")


def _node(node: NodeStatus) -> Sequence[Span | str]:
    payload = node.payload
    return [node.node_id, f"{len(payload.running_request_ids):,}", f"{payload.slots:,}", ", ".join(payload.queues)]
