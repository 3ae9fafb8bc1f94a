"""What typer cannot do: an app before the command that may be missing, and global options anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

COMMANDS: Mapping[str, frozenset[str]] = {
    "run": frozenset(),
    "call": frozenset(),
    "submit": frozenset(),
    "tasks": frozenset({"list", "count", "get", "logs", "tree", "watch", "revoke", "retry", "delete"}),
    "queues": frozenset({"list", "purge"}),
    "nodes": frozenset({"status"}),
    "top": frozenset(),
    "store": frozenset({"info", "migrate", "reindex"}),
    "doctor": frozenset(),
    "demo": frozenset(),
}
"""The commands, and the commands below them."""

_WITH_VALUE = ("--app", "--url", "--log-level", "--log-format")
_FLAGS = ("--no-color",)


class Words(NamedTuple):
    """A command line, taken apart."""

    options: list[str]
    """Global options, from wherever they stood."""
    app: str | None
    """The app that stands before the command."""
    command: list[str]
    """The rest, which begins with the command."""

    def in_order(self) -> list[str]:
        """The words as the parser wants them: options first, the app among them."""
        return [*self.options, *(["--app", self.app] if self.app is not None else []), *self.command]


def split(words: Sequence[str]) -> Words:
    """Tell global options, app and command apart."""
    options: list[str] = []
    rest: list[str] = []
    todo = list(words)
    while todo:
        word = todo.pop(0)
        if word == "--":
            rest += [word, *todo]
            break
        if word in _WITH_VALUE:
            options += [word, *todo[:1]]
            del todo[:1]
        elif word in _FLAGS or word.startswith(tuple(f"{option}=" for option in _WITH_VALUE)):
            options.append(word)
        else:
            rest.append(word)
    place = _place_of_app(rest)
    app = None if place is None else rest.pop(place)
    return Words(options, app, rest)


def _place_of_app(words: Sequence[str]) -> int | None:
    plain = [i for i, word in enumerate(words) if not word.startswith("-")]
    if not plain:
        return None
    word = words[plain[0]]
    following = words[plain[1]] if len(plain) > 1 else None
    below = COMMANDS.get(word)
    if below is None:
        return plain[0]
    # A module may be called as a group of commands is: `mognet tasks run` runs the app in tasks.py.
    return plain[0] if below and following in COMMANDS and following not in below else None
