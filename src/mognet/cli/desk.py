"""What every command works with: the app, how it was called, and where its answer goes."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from mognet.app import App
from mognet.cli.display import View, console, live
from mognet.cli.failures import single
from mognet.cli.keys import unechoed
from mognet.cli.loading import check_store, load_app
from mognet.cli.logsetup import set_up
from mognet.cli.options import Options
from mognet.cli.text import clean, json_text
from mognet.exceptions import ConnectionError, NotConnected

if TYPE_CHECKING:
    from rich.control import Control

LIVE_EVERY = 0.15
"""Seconds between two pictures on a terminal, at least."""

PLAIN_EVERY = 1.0
"""Seconds between two answers elsewhere, at least."""

TICK = 1.0
"""Seconds after which a picture is drawn again although nothing has changed: durations go on."""

NEVER = 86400.0

SIGNALLED = 128
"""And the number of the signal that ended it: the exit code, as shells have it."""

AGAIN = 1.0
"""Seconds after which an engine that could not be reached is asked again."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """What is asked for; while the engine cannot be reached, it is asked again and again. For what has been shown before."""
    told = False
    while True:
        try:
            return await ask()
        except NotConnected:
            raise
        except ConnectionError as error:
            if not told:
                _log.warning("the engine cannot be reached, and is asked again: %s", error)
            told = True
            await asyncio.sleep(AGAIN)


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


class Screen:
    """A terminal on which one picture takes the place of the last. ``alone``: nothing else is on it, and it is gone in the end."""

    def __init__(self, options: Options, *, alone: bool = False) -> None:
        from rich.live import Live

        self._console = console(color=options.color)
        self._begin, self._end = _control("\x1b[?2026h"), _control("\x1b[?2026l")
        self._width = 0
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop", screen=alone)
        self._used = ExitStack()

    def __enter__(self) -> Self:
        self._used.enter_context(unechoed())
        self._used.enter_context(self._live)
        return self

    def __exit__(self, *exc: object) -> None:
        self._used.close()

    @property
    def height(self) -> int:
        """Lines, as the window is now."""
        return self._console.height

    def show(self, view: View, *, last: bool = False) -> None:
        """Draw; ``last``: what has to stay is drawn in full, also if that is more than the window holds."""
        if last:
            self._live.vertical_overflow = "visible"
        before, self._width = self._width, self._console.width
        picture = (view if last else view.fit(self.height)).rich(self._width)
        with self._console:  # one write, which terminals that know these marks show as one
            self._console.control(self._begin)
            if self._width < before:  # the window has broken the lines of the last picture, so there are more than are known
                self._console.clear()
            self._live.update(picture, refresh=True)
            self._console.control(self._end)


def _control(code: str) -> Control:
    from rich.control import Control
    from rich.segment import ControlType, Segment

    control = Control()
    control.segment = Segment(code, None, [(ControlType.BELL,)])  # rich has no kind for it; what it writes is the code
    return control


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
        elif self.json or not live(sys.stdout):
            while True:
                write(await look(), self.options, json=self.json, again=True)
                await asyncio.sleep(self.poll)
        else:
            await self._live(look, self.poll)

    async def follow(self, look: Callable[[], Awaitable[Answer]], changed: Callable[[float], Awaitable[bool]]) -> None:
        """Show an answer anew whenever something has changed, until nothing can any more.

        ``changed`` waits for that, at most so many seconds, and says whether there may be more. JSON is one document per line. Once it
        has been shown, an engine that cannot be reached ends nothing.
        """
        if self.json or not live(sys.stdout):
            write(await look(), self.options, json=self.json, again=True)
            while await patiently(lambda: changed(NEVER)):
                write(await patiently(look), self.options, json=self.json, again=True)
                await asyncio.sleep(PLAIN_EVERY)
            write(await patiently(look), self.options, json=self.json, again=True)
            return
        answer = await look()
        with Screen(self.options) as screen:
            screen.show(answer.view)
            while await patiently(lambda: changed(TICK)):
                screen.show((await patiently(look)).view)
                await asyncio.sleep(LIVE_EVERY)
            screen.show((await patiently(look)).view, last=True)

    async def _live(self, look: Callable[[], Awaitable[Answer]], poll: float) -> None:
        with Screen(self.options) as screen:
            while True:
                screen.show((await look()).view)
                await asyncio.sleep(poll)

    def note(self, text: str) -> None:
        """Tell the person at the terminal something that is no part of the answer."""
        print(clean(text), file=sys.stderr, flush=True)


def serve(
    options: Options,
    body: Callable[[Desk], Coroutine[Any, Any, int]],
    *,
    json: bool = False,
    poll: float | None = None,
    makes: bool = False,
) -> int:
    """Load the app, connect it, and run the body of a command; its exit code. ``makes``: it may make a store that is not there yet."""
    set_up(options, default_level="WARNING")
    app = load_app(options)
    if not makes:
        check_store(app)
    desk = Desk(app, options, json, poll)

    async def connected() -> int:
        heard: list[int] = []
        with _heeding(heard):
            try:
                async with desk.app:
                    return await body(desk)
            except (asyncio.CancelledError, Exception) as error:  # if the terminal is gone, the last picture cannot be drawn
                if not heard:
                    raise
                _log.debug("ended by signal %d: %r", heard[0], error)
                return SIGNALLED + heard[0]

    try:
        return asyncio.run(connected())
    except BaseExceptionGroup as group:  # of tasks that a command has begun
        if (error := single(group)) is group:
            raise
        raise error from group


@contextmanager
def _heeding(heard: list[int]) -> Iterator[None]:
    """Inside the context, a signal that would end the process cancels the present task: so the terminal is left as it was found.

    asyncio does that for Ctrl-C. One that whoever started the process has it ignore (``nohup``) is ignored.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def hear(number: int) -> None:
        loop.remove_signal_handler(number)  # a second one ends the process at once
        heard.append(number)
        if task is not None:
            task.cancel()

    heeded: list[int] = []
    with suppress(NotImplementedError, RuntimeError, ValueError):  # on Windows, and in a thread
        for number in (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")):
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                loop.add_signal_handler(number, hear, number)
                heeded.append(number)
    try:
        yield
    finally:
        for number in heeded:
            loop.remove_signal_handler(number)
