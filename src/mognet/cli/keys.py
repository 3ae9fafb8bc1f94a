"""Single keys from a terminal."""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

ENTER, ERASE, ESCAPE = "\n", "\x7f", "\x1b"

_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.)")
"""What arrows and function keys send."""


def _ours() -> bool:
    """Whether this process may say how the terminal is to be: one in the background may not."""
    try:
        return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # a terminal of another session
        return False


@contextmanager
def unechoed() -> Iterator[None]:
    """Inside the context, the terminal does not show what is typed, which would tear what is drawn; it stays for who reads next."""
    try:
        import termios
    except ImportError:  # not on this system
        yield
        return
    if not _ours():
        yield
        return
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    silent = [*before]
    silent[3] &= ~termios.ECHO
    try:
        termios.tcsetattr(stdin, termios.TCSANOW, silent)
        yield
    finally:
        _restore(stdin, before)


def _restore(terminal: int, settings: list[Any]) -> None:
    import termios

    with suppress(termios.error):  # it may be gone
        termios.tcsetattr(terminal, termios.TCSADRAIN, settings)


@contextmanager
def keys(hear: Callable[[str], None]) -> Iterator[None]:
    """Inside the context, each key that is pressed is handed over: a character; arrows and the like are left out.

    Where the terminal cannot tell, none is.
    """
    try:
        import termios
        import tty
    except ImportError:  # not on this system
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")

    def read() -> None:
        typed = os.read(stdin, 1024)
        if not typed:  # the terminal is gone
            loop.remove_reader(stdin)
        for key in _SEQUENCE.sub("", decoder.decode(typed)).replace("\r", ENTER).replace("\b", ERASE):
            hear(key)

    try:
        tty.setcbreak(stdin)  # Ctrl-C stays a signal
        loop.add_reader(stdin, read)
        yield
    finally:
        loop.remove_reader(stdin)
        _restore(stdin, before)
