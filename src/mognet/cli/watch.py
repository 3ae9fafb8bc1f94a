"""``mognet tasks watch``."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from mognet.cli.desk import LIVE_EVERY, TICK, Desk, Screen, patiently
from mognet.cli.display import STATE_STYLES, Span, live
from mognet.cli.failures import FAILED, OK
from mognet.cli.follow import amount, job_cells, job_table
from mognet.cli.ids import find, short
from mognet.cli.listing import error_data, note, took
from mognet.cli.text import clean, json_text, plural
from mognet.codec import ErrorInfo
from mognet.events import Event
from mognet.exceptions import ResultLost
from mognet.records import Query
from mognet.results import Result
from mognet.states import ResultState

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST = 1000
"""Running jobs that are followed when no ids are given."""

SAY_EVERY = 1.0
"""Seconds between two lines on the progress of one job, where there is no terminal."""


ROOMY = 60
"""Columns of a window that has room to say which worker runs a job."""


async def watch_tasks(desk: Desk, ids: Iterable[str]) -> int:
    """Follow jobs until they have ended. FAILED if one of them did not succeed."""
    backend = desk.app.result_backend
    results = [await find(backend, id) for id in ids]
    if not results and not ids:
        running = Query(states=frozenset({ResultState.RUNNING, ResultState.SUSPENDED}), limit=MOST)
        results = [result async for result in backend.search(running)]
    if not results:
        desk.note("nothing runs")
        return OK
    board = Board({result.id: result for result in results})
    teller: _Json | _Lines | None = _Json() if desk.json else None if live(sys.stdout) else _Lines()
    async with asyncio.TaskGroup() as group:
        drawing = None if teller is not None else group.create_task(_draw(desk, board), name="picture")
        following = [group.create_task(_follow(desk, result, board, teller), name="job") for result in board.jobs.values()]
        await asyncio.wait(following)
        board.over = True
        board.changed.set()
        if drawing is not None:
            await drawing
    return OK if not board.lost and all(result.successful for result in board.jobs.values()) else FAILED


async def _follow(desk: Desk, result: Result[Any], board: Board, teller: _Json | _Lines | None) -> None:
    try:
        async for event in result.watch():
            now = desk.app.result_backend.result(event.record)
            error = await patiently(now.error)
            board.tell(now, error)
            if teller is not None:
                teller.tell(event, now, error)
    except ResultLost as gone:
        desk.note(f"{clean(result.name or '-')} {short(result.id)} is gone: {gone}")
        board.lose(result.id)


async def _draw(desk: Desk, board: Board) -> None:
    with Screen(desk.options) as screen:
        while not board.over:
            screen.show(board)
            board.changed.clear()
            await asyncio.sleep(LIVE_EVERY)
            try:
                async with asyncio.timeout(TICK):
                    await board.changed.wait()
            except TimeoutError:
                pass
        screen.show(board)


class _Json:
    """One event per line."""

    def tell(self, event: Event, result: Result[Any], error: ErrorInfo | None) -> None:
        """Write an event."""
        print(json_text(event.to_dict() | {"error": error_data(error)}), flush=True)


class _Lines:
    """A line for each new state, and for progress now and then."""

    def __init__(self) -> None:
        self._said: dict[UUID, tuple[object, float]] = {}

    def tell(self, event: Event, result: Result[Any], error: ErrorInfo | None) -> None:
        """Write what is new of a job."""
        now, stand = time.monotonic(), (result.state, result.node_id, result.attempt)
        before, when = self._said.get(result.id, (None, 0.0))
        if stand == before and now - when < SAY_EVERY:
            return
        self._said[result.id] = (stand, now)
        words = [result.name or "-", short(result.id), result.state, amount(result.progress)]
        if result.done:
            words.append(took(result))
            words.append(_plain(note(result, error)))
        elif result.progress is not None and result.progress.message:
            words.append(result.progress.message)
        print(" ".join(clean(word) for word in words if word), flush=True)


def _plain(said: Span | str) -> str:
    return said.text if isinstance(said, Span) else said


@dataclass
class Board:
    """The jobs that are followed, as they were last told."""

    jobs: dict[UUID, Result[Any]]
    errors: dict[UUID, ErrorInfo | None] = field(default_factory=dict)
    lost: set[UUID] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False
    room: int | None = None
    """Lines that the window has; None: any number."""

    def tell(self, result: Result[Any], error: ErrorInfo | None) -> None:
        """A job as it is now."""
        self.jobs[result.id] = result
        self.errors[result.id] = error
        self.changed.set()

    def lose(self, id: UUID) -> None:
        """A job that is gone."""
        self.lost.add(id)
        self.changed.set()

    def fit(self, height: int) -> Board:
        """What a terminal of so many lines can show: first what has not ended, then what ended last."""
        return Board(self.jobs, self.errors, self.lost, room=height)

    def plain(self) -> str:
        """How many there are."""
        return self._totals()

    def rich(self, width: int) -> RenderableType:
        """The jobs with their bars."""
        from rich.console import Group
        from rich.text import Text

        shown = sorted(self.jobs.values(), key=lambda result: (result.done, -(result.record.finished or 0.0), result.record.stand))
        if self.room is not None and len(shown) > self.room - 1:
            shown = shown[: max(1, self.room - 2)]
        rows = [[*job_cells(result), Text(took(result)), self._note(result, nodes=width >= ROOMY)] for result in shown]
        lines: list[RenderableType] = [job_table(rows, width)]
        if len(self.jobs) > 1:
            more = len(self.jobs) - len(shown)
            text = self._totals() + (f"; {more:,} more than the window shows" if more else "")
            lines.append(Text(text, style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)

    def _note(self, result: Result[Any], *, nodes: bool) -> RenderableType:
        from rich.text import Text

        if result.id in self.lost:
            return Text("gone", style="red")
        error, told = self.errors.get(result.id), result.progress
        if error is None and not result.done and told is not None and told.message:
            return Text(clean(told.message), overflow="ellipsis", no_wrap=True)
        if nodes and error is None and result.node_id and not result.done:
            return Text(f"on {clean(result.node_id)}", style="dim", overflow="ellipsis", no_wrap=True)
        said = _plain(note(result, error)) if error is not None else ""
        return Text(clean(said), style="red", overflow="ellipsis", no_wrap=True)

    def _totals(self) -> str:
        counts = Counter(result.state for result in self.jobs.values())
        return f"{plural(len(self.jobs), 'job')}: " + ", ".join(f"{counts[state]:,} {state}" for state in STATE_STYLES if counts[state])
