"""From words to filters: which jobs a command is about."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from mognet.app import App
from mognet.cli.durations import parse_duration
from mognet.cli.failures import USAGE, CommandError
from mognet.cli.ids import find, parse_prefix
from mognet.cli.text import clean
from mognet.finding import Filters
from mognet.states import ResultState

_CONDITION = re.compile(r"(?P<key>[^=:][^=]*?)(?P<how>:=|=)(?P<value>.*)", re.DOTALL)


class Which(NamedTuple):
    """The words that say which jobs a command is about."""

    where: list[str]
    states: list[str]
    name: str | None = None
    queue: str | None = None
    node: str | None = None
    root: str | None = None
    parent: str | None = None
    since: str | None = None
    until: str | None = None

    def __bool__(self) -> bool:
        return any(self[:])

    async def filters(self, app: App) -> Filters:
        """What they mean at this moment. Raises :class:`CommandError`."""
        states, now = parse_states(self.states), datetime.now().astimezone()
        return Filters(
            metadata=parse_where(self.where) or None,
            state=states or None,
            name=None if self.name is None else _full_name(app, self.name),
            queue=self.queue,
            node=self.node,
            root=await _id(app, self.root),
            parent=await _id(app, self.parent),
            created_after=_moment(self.since, "--since", now),
            created_before=_moment(self.until, "--until", now),
        )

    def hint(self, command: str) -> str | None:
        """What may have been meant, when nothing was found."""
        for match in map(_CONDITION.fullmatch, self.where):
            if match is not None and match["how"] == "=" and _is_json(match["value"]):
                key, value = match["key"], match["value"]
                return f"{command} --where {key}={value} looks for text; for the JSON value, write {key}:={value}"
        return None


def parse_where(words: list[str]) -> dict[str, Any]:
    """Values by key: ``key=text``, ``key:=JSON``; a key that stands several times may have any of its values."""
    values: dict[str, list[Any]] = {}
    for word in words:
        match = _CONDITION.fullmatch(word)
        if match is None:
            raise CommandError(f"--where {word!r} is no condition: write key=text or key:=JSON; dots reach into objects (user.id=7)", USAGE)
        key, text = match["key"], match["value"]
        if match["how"] == "=":
            values.setdefault(key, []).append(text)
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CommandError(f"--where {key}:= is followed by what is no JSON ({clean(error)}); for text, write {key}=", USAGE) from None
        values.setdefault(key, []).extend(value if isinstance(value, list) else [value])
    return values


def parse_states(words: list[str]) -> set[ResultState]:
    """States, each word one or several with commas. Raises :class:`CommandError`."""
    states = set()
    for word in [word.strip() for each in words for word in each.split(",") if word.strip()]:
        try:
            states.add(ResultState(word.upper()))
        except ValueError:
            raise CommandError(f"--state: there is no state {word!r}; there are: {', '.join(ResultState)}", USAGE) from None
    if words and not states:
        raise CommandError(f"--state names no state; there are: {', '.join(ResultState)}", USAGE)
    return states


def _full_name(app: App, name: str) -> str:
    if app.registry.find(name) is None:
        longer = [each for each in app.registry.names() if each.endswith(f".{name}")]
        return longer[0] if len(longer) == 1 else name
    return name


async def _id(app: App, text: str | None) -> UUID | None:
    if text is None:
        return None
    digits = parse_prefix(text)
    return UUID(digits) if len(digits) == 32 else (await find(app.result_backend, text)).id


def _moment(text: str | None, option: str, now: datetime) -> datetime | None:
    """A moment: so long ago (``1h``), or a date and time (``2026-03-01T12:30``)."""
    if text is None:
        return None
    try:
        if re.match(r"\s*\d{4}-", text):
            return datetime.fromisoformat(text.strip())
        return now - min(parse_duration(text, option), timedelta(days=365 * 100))
    except (ValueError, CommandError):
        raise CommandError(f"{option} {text!r} is no moment: write 2026-03-01T12:30, or how long ago it was: 10m, 1h", USAGE) from None


def _is_json(text: str) -> bool:
    try:
        return not isinstance(json.loads(text), str)
    except (ValueError, RecursionError):
        return False
