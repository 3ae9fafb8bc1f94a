"""The command line: ``mognet [OPTIONS] APP COMMAND``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line, by default the process's own, and exit with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        from mognet import __version__

        print(f"mognet {__version__}")
        raise SystemExit(0)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a character that the terminal does not know must not end the command
            stream.reconfigure(errors="backslashreplace")
    from mognet.cli.shell import execute

    try:
        code = execute(words)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    raise SystemExit(code)


__all__ = ["main"]
