"""``mognet top``."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from mognet.app import App
from mognet.cli.desk import Answer, Desk, Screen, write
from mognet.cli.display import Column, Lines, Sheet, Span, View, state_span
from mognet.cli.failures import OK
from mognet.cli.follow import amount, percent
from mognet.cli.ids import short
from mognet.cli.keys import keys
from mognet.cli.listing import note, took
from mognet.cli.queues import ANSWER_TIME, measure, queues_sheet
from mognet.cli.text import age, clean
from mognet.codec import ErrorInfo
from mognet.control import NodeStatus
from mognet.exceptions import ConnectionError
from mognet.records import Query
from mognet.redaction import redact_url
from mognet.results import Result
from mognet.states import ResultState

if TYPE_CHECKING:
    from rich.console import RenderableType

LOOK_EVERY = 1.0
"""Seconds between two looks at queues and nodes."""

DRAW_EVERY = 0.25
"""Seconds between two pictures."""

RECENT = 86400.0
"""Seconds for which a failure is a recent one, from when the job was submitted."""

MOST_RUNNING, MOST_FAILURES = 200, 20

_FAILED = frozenset({ResultState.FAILURE, ResultState.INVALID})
_RUNNING = (Column("ID"), Column("TASK", shrink=True), Column("QUEUE", shrink=True), Column("TOOK", right=True), Column("DONE", right=True),
            Column("NODE", shrink=True), Column("MESSAGE", shrink=True))  # fmt: skip
_FAILURES = (Column("ID"), Column("TASK", shrink=True), Column("STATE"), Column("AGO", right=True), Column("NOTE", shrink=True))
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
        failures = [result.to_dict() | {"error": _error(self.errors.get(result.id))} for result in self._failures()]
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
        return Picture(**{**vars(self), "room": height})

    def plain(self) -> str:
        """As text for a pipe: nothing is cut."""
        return "\n\n".join(f"{name}\n{sheet.plain()}" for name, sheet in self._sheets().items())

    def rich(self, width: int) -> RenderableType:
        """For a terminal: what runs gets the lines that the rest leaves."""
        from rich.console import Group
        from rich.text import Text

        heights = self._heights(self.room or 1000)
        sheets = {name: sheet for name, sheet in self._sheets().items() if name in heights}
        parts: list[RenderableType] = [Text(clean(self._head()), style="bold", no_wrap=True, overflow="ellipsis")]
        for name, sheet in sheets.items():
            parts += [Text(""), sheet.fit(heights[name]).rich(width)]
        last = Text(clean(self.trouble), "red") if self.trouble else Text("q quits", "dim")
        return Group(*parts, last)

    def _heights(self, room: int) -> dict[str, int]:
        """How many lines each table gets; those that a small window has no place for get none."""
        room -= 2  # the title and the last line
        wanted = {name: max(1, len(sheet.rows) + bool(sheet.rows)) for name, sheet in self._sheets().items()}
        shown = [name for n, name in enumerate(("running", "failures", "queues", "nodes"), 1) if n == 1 or 4 * n <= room]
        room -= len(shown)  # the line before each
        heights = {name: min(wanted[name], max(3, room // 4)) for name in shown[1:]}
        return heights | {"running": min(wanted["running"], room - sum(heights.values()))}

    def _head(self) -> str:
        now = time.strftime("%H:%M:%S")
        ready, running = (sum(row[key] for row in self.queues) for key in ("ready", "running"))
        return f"{self.title}  {now}  {ready:,} ready, {running:,} running  {self.place}"  # what is cut off is the end of the place

    def _sheets(self) -> dict[str, Sheet]:
        return {
            "queues": queues_sheet(self.queues),
            "nodes": Sheet(_NODES, [_node(node) for node in self.nodes], empty="no worker answers"),
            "running": Sheet(_RUNNING, [_job(result) for result in self._running()], empty="nothing runs"),
            "failures": Sheet(_FAILURES, [self._failure(result) for result in self._failures()], empty="no failures"),
        }

    def _running(self) -> list[Result[Any]]:
        return sorted(self.running.values(), key=lambda result: result.record.started or 0.0, reverse=True)

    def _failures(self) -> list[Result[Any]]:
        return sorted(self.failures.values(), key=lambda result: result.record.finished or 0.0, reverse=True)

    def _failure(self, result: Result[Any]) -> Sequence[Span | str]:
        said = note(result, self.errors.get(result.id))
        return [short(result.id), result.name or "-", state_span(result.state), age(result.finished), said]


def _node(node: NodeStatus) -> Sequence[Span | str]:
    payload = node.payload
    return [node.node_id, f"{len(payload.running_request_ids):,}", f"{payload.slots:,}", ", ".join(payload.queues)]


def _job(result: Result[Any]) -> Sequence[Span | str]:
    told = result.progress
    done = amount(told) if told is None or told.fraction is None else f"{amount(told)} {percent(told)}"
    return [
        short(result.id),
        result.name or "-",
        result.queue_name,
        took(result),
        done,
        result.node_id or "",
        told.message or "" if told else "",
    ]


def _error(error: ErrorInfo | None) -> dict[str, str] | None:
    return None if error is None else {"type": error.type_name.removeprefix("builtins:"), "message": error.message}


def where(app: App) -> str:
    """Where an app's jobs are kept, without passwords."""
    return redact_url(app.url)


async def show_top(desk: Desk) -> int:
    """Show what goes on, until it is told to stop; in a pipe or as JSON, once."""
    picture = Picture(f"mognet {desk.app.name}", place=where(desk.app))
    if desk.json or not sys.stdout.isatty():
        await _look(desk, picture)
        view: View = Lines() if desk.json else picture
        write(Answer(picture.data(), view), desk.options, json=desk.json)
        return OK
    with Screen(desk.options, alone=True) as screen, keys("q", "Q") as quit_:
        watching = asyncio.create_task(_watch(desk, picture), name="what changes")
        looking = asyncio.create_task(_look_again(desk, picture), name="queues and nodes")
        try:
            while not quit_.is_set():
                screen.show(picture)
                try:
                    async with asyncio.timeout(DRAW_EVERY):
                        await quit_.wait()
                except TimeoutError:
                    pass
                for task in (watching, looking):
                    if task.done():
                        task.result()
        finally:
            watching.cancel()
            looking.cancel()
            await asyncio.gather(watching, looking, return_exceptions=True)
    return OK


async def _watch(desk: Desk, picture: Picture) -> None:
    async for event in desk.app.watch():
        picture.tell(desk.app.result_backend.result(event.record))


async def _look_again(desk: Desk, picture: Picture) -> None:
    while True:
        began = time.monotonic()
        try:
            await _look(desk, picture)
            picture.trouble = ""
        except ConnectionError as error:
            picture.trouble = f"the engine cannot be reached: {error}"
        await asyncio.sleep(max(LOOK_EVERY, 2 * (time.monotonic() - began - ANSWER_TIME)))  # a look at very many jobs takes its time


async def _look(desk: Desk, picture: Picture) -> None:
    backend = desk.app.result_backend
    nodes = [node async for node in desk.app.get_current_status_of_nodes(timeout=ANSWER_TIME)]
    picture.nodes = sorted(nodes, key=lambda node: node.node_id)
    picture.queues = await measure(desk.app, nodes)
    running = Query(states=frozenset({ResultState.RUNNING}), newest_first=True, limit=MOST_RUNNING)
    picture.running = {result.id: result async for result in backend.search(running)}
    failures = Query(states=_FAILED, newest_first=True, limit=MOST_FAILURES, created_after=time.time() - RECENT)
    picture.failures = {result.id: result async for result in backend.search(failures)}
    picture.errors = {id: picture.errors.get(id) or await result.error() for id, result in picture.failures.items()}
