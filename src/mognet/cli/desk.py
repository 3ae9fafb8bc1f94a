"""What every command works with: the app, how it was called, and where its answer goes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple

from mognet.app import App
from mognet.cli.display import View, console
from mognet.cli.loading import load_app
from mognet.cli.logsetup import set_up
from mognet.cli.options import Options
from mognet.cli.text import clean, json_text


class Answer(NamedTuple):
    """What a command found: as data, and as a person reads it."""

    data: Any
    view: View


def write(answer: Answer, options: Options, *, json: bool, again: bool = False) -> None:
    """Write an answer to the standard output; ``again``: it is one of many."""
    if json:
        print(json_text(answer.data, indent=None if again else 2), flush=True)
    elif sys.stdout.isatty():
        screen = console(color=options.color)
        screen.print(answer.view.rich(screen.width))
    else:
        print(answer.view.plain() + ("\n" if again else ""), flush=True)


@dataclass
class Desk:
    """The app, how it was called, and where answers go."""

    app: App
    options: Options
    json: bool = False
    poll: float | None = None

    async def show(self, look: Callable[[], Awaitable[Answer]]) -> None:
        """Show an answer; with ``--poll``, again and again until Ctrl-C. JSON is then one document per line."""
        if self.poll is None:
            write(await look(), self.options, json=self.json)
        elif self.json or not sys.stdout.isatty():
            while True:
                write(await look(), self.options, json=self.json, again=True)
                await asyncio.sleep(self.poll)
        else:
            await self._live(look, self.poll)

    async def _live(self, look: Callable[[], Awaitable[Answer]], poll: float) -> None:
        from rich.live import Live

        screen = console(color=self.options.color)
        with Live(console=screen, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                view = (await look()).view.fit(screen.height)
                live.update(view.rich(screen.width), refresh=True)
                await asyncio.sleep(poll)

    def note(self, text: str) -> None:
        """Tell the person at the terminal something that is no part of the answer."""
        print(clean(text), file=sys.stderr, flush=True)


def serve(options: Options, body: Callable[[Desk], Coroutine[Any, Any, int]], *, json: bool = False, poll: float | None = None) -> int:
    """Load the app, connect it, and run the body of a command; its exit code."""
    set_up(options, default_level="WARNING")
    desk = Desk(load_app(options), options, json, poll)

    async def connected() -> int:
        async with desk.app:
            return await body(desk)

    return asyncio.run(connected())
