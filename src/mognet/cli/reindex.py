"""``mognet store reindex``: bring the indexes of metadata in line with the settings."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mognet.cli.desk import Answer, Desk
from mognet.cli.display import Lines, console, live
from mognet.cli.failures import OK
from mognet.cli.text import clean, plural

STEP = 1000
"""Jobs at a time."""

Show = Callable[[int, int], None]
"""Says how many are done, and how many are left."""


async def reindex(desk: Desk) -> int:
    """Look at the jobs that were there before a key was declared, and forget the indexes of keys that are declared no more."""
    engine, keys = desk.app.engine, sorted(desk.app.config.searchable_metadata)
    await engine.declare(keys, only=True)
    done, left = 0, None
    try:
        with _progress(color=desk.options.color) as show:
            while left is None or left:
                stretch = await engine.reindex(limit=STEP)
                done, left = done + stretch.done, stretch.left
                show(done, left)
    except asyncio.CancelledError:
        rest = "" if left is None else f", about {left:,} are left"
        desk.note(f"interrupted after {plural(done, 'job')}{rest}; the next `store reindex` goes on from here")
        raise
    what = f"indexed: {clean(', '.join(keys))}" if keys else "no key is in searchable_metadata, so none is indexed"

    async def look() -> Answer:
        return Answer({"keys": keys, "jobs": done}, Lines([[f"{what}; {plural(done, 'job')} looked at"]]))

    await desk.show(look)
    return OK


@contextmanager
def _progress(*, color: bool) -> Iterator[Show]:
    """A bar in a terminal; elsewhere, a line now and then."""
    if not live(sys.stderr):
        yield _tell_tenths()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("indexing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True, color=color), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, left: bar.update(task, completed=done, total=done + left)


def _tell_tenths() -> Show:
    told = 0

    def show(done: int, left: int) -> None:
        nonlocal told
        tenth = 10 * done // max(1, done + left)
        if left and tenth > told:
            told = tenth
            print(f"indexing: {done:,} of about {done + left:,} jobs", file=sys.stderr, flush=True)

    return show
