"""``mognet tasks tree``."""

from __future__ import annotations

import asyncio
from typing import Any

from mognet.cli.desk import Answer, Desk
from mognet.cli.display import Line, Lines, Span, state_span
from mognet.cli.failures import OK, USAGE, CommandError
from mognet.cli.ids import find, short
from mognet.cli.labels import Label
from mognet.cli.listing import note, took
from mognet.results import Result, ResultTree
from mognet.states import FINAL

DEPTH, WIDTH = 3, 16
"""What fits on a screen. JSON is for programs, which would not notice that something is missing."""

ALL = 1_000_000_000


async def show_tree(desk: Desk, id: str, depth: int | None, width: int | None, template: str | None, *, watch: bool = False) -> int:
    """Show a job and what is below it; ``watch``: until all of it has ended."""
    if watch and desk.poll is not None:
        raise CommandError("--watch shows what changes when it changes, and needs no --poll", USAGE)
    max_depth = depth or (ALL if desk.json else DEPTH)
    max_width = width or (ALL if desk.json else WIDTH)
    label = None if template is None else Label(template)
    result = await find(desk.app.result_backend, id)

    async def look() -> Answer:
        await result.refresh()
        tree = await result.tree(max_depth, max_width)
        return Answer(tree.to_dict(), Lines() if desk.json else Lines(await Drawing(max_depth, max_width, label).lines(tree), cut=True))

    if watch:
        await desk.follow(look, Changes(desk, result).wait)
    else:
        await desk.show(look)
    return OK


class Changes:
    """Tells when something below a job has changed, and when nothing can change any more."""

    def __init__(self, desk: Desk, result: Result[Any]) -> None:
        self._result = result
        self._events = desk.app.watch(root=result.root_id)
        self._part = result.root_id != result.id

    async def wait(self, seconds: float) -> bool:
        """Wait for a change, at most so long; whether there may be more."""
        if self._part and not any(count for state, count in (await self._result.summary()).items() if state not in FINAL):
            return False
        try:
            async with asyncio.timeout(seconds):
                await anext(self._events)
            while True:  # what has come with it is in the same picture
                async with asyncio.timeout(0.02):
                    await anext(self._events)
        except TimeoutError:
            return True
        except StopAsyncIteration:
            return False


class Drawing:
    """A tree as lines, with a word on what was left out."""

    def __init__(self, max_depth: int, max_width: int, label: Label | None = None) -> None:
        self._max_depth = max_depth
        self._max_width = max_width
        self._label = label

    async def lines(self, tree: ResultTree) -> list[Line]:
        """The lines, the job itself first."""
        lines: list[Line] = [await self._job(tree)]
        await self._add_below(lines, tree, "", 1)
        return lines

    async def _add_below(self, lines: list[Line], tree: ResultTree, indent: str, depth: int) -> None:
        hidden = await self._hidden(tree, depth)
        for i, child in enumerate(tree.children):
            last = i == len(tree.children) - 1 and not hidden
            lines.append([Span(indent + ("└── " if last else "├── "), "dim"), *await self._job(child)])
            await self._add_below(lines, child, indent + ("    " if last else "│   "), depth + 1)
        if hidden:
            option = "--max-depth" if depth == self._max_depth else "--max-width"
            lines.append([Span(f"{indent}└── … {hidden:,} more ({option})", "dim")])

    async def _hidden(self, tree: ResultTree, depth: int) -> int:
        """How many children the limits hide. Only where they may hide some is the engine asked."""
        if depth < self._max_depth and len(tree.children) < self._max_width:
            return 0
        return max(0, await tree.result.children.count() - len(tree.children))

    async def _job(self, tree: ResultTree) -> list[Span | str]:
        result = tree.result
        if self._label is not None:
            return [self._label.of(result)]
        pieces: list[Span | str] = [
            Span(result.name or "-", shrink=True),
            " ",
            Span(short(result.id), "dim"),
            " ",
            state_span(result.state),
        ]
        for text in (took(result), note(result, await result.error())):
            pieces += [" ", text] if text else []
        return pieces
