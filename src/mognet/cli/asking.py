"""Yes or no, before something is done that cannot be undone."""

from __future__ import annotations

import asyncio
import sys

from mognet.cli.text import clean


async def confirm(question: str) -> bool:
    """Ask the person at the terminal; without a terminal, nobody is asked and the answer is no."""
    if not sys.stdin.isatty():
        return False
    print(f"{clean(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    await _input()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _input() -> None:
    """Wait until a line was typed, so that Ctrl-C is heard and connections live while a person thinks."""
    loop = asyncio.get_running_loop()
    typed = asyncio.Event()
    try:
        loop.add_reader(sys.stdin, typed.set)
    except NotImplementedError:  # on Windows: then the line is waited for where it is read
        return
    try:
        await typed.wait()
    except asyncio.CancelledError:
        print(file=sys.stderr)
        raise
    finally:
        loop.remove_reader(sys.stdin)
