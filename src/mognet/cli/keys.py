"""Single keys from a terminal."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keys(*wanted: str) -> Iterator[asyncio.Event]:
    """Inside the context, the event is set when one of these keys is pressed. Where the terminal cannot tell, it never is."""
    pressed = asyncio.Event()
    try:
        import termios
        import tty
    except ImportError:  # not on this system
        yield pressed
        return
    if not sys.stdin.isatty():
        yield pressed
        return
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(stdin)

    def read() -> None:
        typed = os.read(stdin, 64)
        if not typed:  # the terminal is gone
            loop.remove_reader(stdin)
        if any(key.encode() in typed for key in wanted):
            pressed.set()

    try:
        tty.setcbreak(stdin)  # Ctrl-C stays a signal
        loop.add_reader(stdin, read)
        yield pressed
    finally:
        loop.remove_reader(stdin)
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
