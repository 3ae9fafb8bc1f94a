"""``mognet top``."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from dataclasses import replace

from mognet.app import App
from mognet.cli.desk import Answer, Desk, Screen, write
from mognet.cli.display import Lines, View, live
from mognet.cli.failures import OK
from mognet.cli.keys import ENTER, ERASE, ESCAPE, keys
from mognet.cli.picture import MOST_RUNNING, Picture
from mognet.cli.queues import ANSWER_TIME, measure
from mognet.exceptions import ConnectionError
from mognet.records import Query
from mognet.redaction import redact_url
from mognet.states import ResultState

LOOK_EVERY = 1.0
"""Seconds between two looks at queues and nodes."""

DRAW_EVERY = 0.25
"""Seconds between two pictures."""

RECENT = 86400.0
"""Seconds for which a failure is a recent one, from when the job was submitted."""

MOST_FAILURES = 20

LONGEST_NAME = 100
"""Characters of a name that may be typed."""

_FAILED = frozenset({ResultState.FAILURE, ResultState.INVALID})


class Controls:
    """What has been typed."""

    def __init__(self) -> None:
        self.over: bool = False
        self.paused: bool = False
        self.name: str = ""
        self.heard: asyncio.Event = asyncio.Event()
        self._typing = False

    def hear(self, key: str) -> None:
        """A key was pressed."""
        if self._typing:
            self._type(key)
        elif key in "qQ":
            self.over = True
        elif key in "pP":
            self.paused = not self.paused
        elif key == "/":
            self._typing = True
        elif key == ESCAPE:
            self.name = ""
        self.heard.set()

    def _type(self, key: str) -> None:
        if key == ENTER:
            self._typing = False
        elif key == ESCAPE:
            self._typing, self.name = False, ""
        elif key == ERASE:
            self.name = self.name[:-1]
        elif key.isprintable():
            self.name = (self.name + key)[:LONGEST_NAME]

    def line(self) -> str:
        """What is on, and which key does what."""
        if self._typing:
            return f"/{self.name}_  Enter: only these names  Esc: all"
        name = f"only names with {self.name!r} (Esc: all)  " if self.name else ""
        return name + ("PAUSED, p goes on" if self.paused else "p pauses") + "  / filters by name  q quits"


def where(app: App) -> str:
    """Where an app's jobs are kept, without passwords."""
    return redact_url(app.url)


async def show_top(desk: Desk) -> int:
    """Show what goes on, until it is told to stop; in a pipe or as JSON, once."""
    picture = Picture(f"mognet {desk.app.name}", place=where(desk.app))
    if desk.json or not live(sys.stdout):
        await _look(desk, picture)
        view: View = Lines() if desk.json else picture
        write(Answer(picture.data(), view), desk.options, json=desk.json)
        return OK
    controls = Controls()
    with Screen(desk.options, alone=True) as screen, keys(controls.hear):
        watching = asyncio.create_task(_watch(desk, picture), name="what changes")
        looking = asyncio.create_task(_look_again(desk, picture, controls), name="queues and nodes")
        try:
            await _draw(screen, picture, controls, watching, looking)
        finally:
            watching.cancel()
            looking.cancel()
            await asyncio.gather(watching, looking, return_exceptions=True)
    return OK


async def _draw(screen: Screen, picture: Picture, controls: Controls, *others: asyncio.Task[None]) -> None:
    """Until it is told to stop, or one of the others fails."""
    still: Picture | None = None
    while not controls.over:
        still = (still or picture.still()) if controls.paused else None
        screen.show(replace(still or picture, name=controls.name, last=controls.line()))
        controls.heard.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAW_EVERY):
                await controls.heard.wait()
        for task in others:
            if task.done():
                task.result()


async def _watch(desk: Desk, picture: Picture) -> None:
    async for event in desk.app.watch():
        picture.tell(desk.app.result_backend.result(event.record))


async def _look_again(desk: Desk, picture: Picture, controls: Controls) -> None:
    while True:
        began = time.monotonic()
        try:
            if not controls.paused:
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
    picture.looked = True
