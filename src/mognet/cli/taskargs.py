"""From words to a task's arguments: ``key=text``, ``key:=JSON``, ``key=@FILE``, ``key:=@FILE``."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mognet.app import App
from mognet.cli.failures import NOT_FOUND, USAGE, CommandError
from mognet.cli.text import clean
from mognet.exceptions import InvalidErrorInfo, InvalidTaskArguments
from mognet.registry import Task
from mognet.requests import Request

_REST = r"(?P<how>:=|=)(?P<at>@?)(?P<value>.*)"
_PAIR = re.compile(rf"(?P<key>[^\W\d]\w*){_REST}", re.DOTALL)
_LABEL = re.compile(rf"(?P<key>[^=:][^=]*?){_REST}", re.DOTALL)


class Given(dict[str, Any]):
    """Values by name; ``texts`` are those that were not given as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: set[str] = set()


def parse_labels(words: Sequence[str]) -> dict[str, Any]:
    """Read the metadata of a job: ``key=text`` and its kin; dots reach into objects, as they do where jobs are searched for.

    Raises :class:`CommandError`.
    """
    labels: dict[str, Any] = {}
    for key, value in parse_values(words, option="--metadata ", form=_LABEL, what="label").items():
        *above, last = key.split(".") if all(key.split(".")) else [key]
        place: Any = labels
        for each in above:
            place = place.setdefault(each, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last in place:
            raise CommandError(f"--metadata {key!r} has no room: another label says already what stands there", USAGE)
        place[last] = value
    return labels


def parse_values(words: Sequence[str], *, option: str = "", form: re.Pattern[str] = _PAIR, what: str = "argument") -> Given:
    """Read ``key=text`` and its kin. Raises :class:`CommandError`."""
    given = Given()
    for word in words:
        match = form.fullmatch(word)
        if match is None:
            raise CommandError(f"{option}{word!r} is no {what}: write key=text, key:=JSON, or key=@FILE", USAGE)
        key, text = match["key"], match["value"]
        if key in given:
            raise CommandError(f"{option}{key!r} is given twice", USAGE)
        if match["at"]:
            text = _read(key, text)
        if match["how"] == "=":
            given[key] = text
            given.texts.add(key)
            continue
        try:
            given[key] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CommandError(f"{option}{key}:= is followed by what is no JSON ({clean(error)}); for text, write {key}=", USAGE) from None
    return given


def _read(key: str, path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    except OSError as error:
        raise CommandError(
            f"{key}: {path!r} cannot be read: {error.strerror} (for text that begins with @, use {key}:='\"@…\"')", USAGE
        ) from None
    except UnicodeDecodeError:
        raise CommandError(f"{key}: {path!r} is not UTF-8 text", USAGE) from None


def find_task(app: App, name: str) -> Task:
    """The task of this name, or the one whose name ends so. Raises :class:`CommandError`."""
    exact = app.registry.find(name)
    if exact is not None:
        return exact
    names = app.registry.names()
    found = [each for each in names if each.endswith(f".{name}")]
    if len(found) == 1:
        return app.registry.get(found[0])
    if found:
        raise CommandError(f"several tasks are called {name!r}: {', '.join(found)}; write more of the name", USAGE)
    if not names:
        raise CommandError(f"there is no task {name!r}: no task is registered at all; is its module in AppConfig.imports?", NOT_FOUND)
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    raise CommandError(f"there is no task {name!r}; there are: {shown}", NOT_FOUND)


def make_request(app: App, task: Task, words: Sequence[str]) -> Request[Any]:
    """A request for the task, its arguments checked and converted by its annotations. Raises :class:`CommandError`."""
    given = parse_values(words)
    try:
        return _request(app, task, given)
    except InvalidTaskArguments as error:
        changed = _texts_as_json(task, given, error.errors)
        if not changed:
            raise _misfit(task, error.errors) from None
    try:
        return _request(app, task, given)
    except InvalidTaskArguments as error:
        raise _misfit(task, error.errors) from None


def _request(app: App, task: Task, given: Given) -> Request[Any]:
    by_name = dict(given)
    only_by_position = [p.name for p in task.signature.parameters.values() if p.kind is inspect.Parameter.POSITIONAL_ONLY]
    args = [by_name.pop(name) for name in only_by_position if name in by_name]
    return app.create_request(task.function, *args, **by_name)


def _name_of(task: Task, error: InvalidErrorInfo) -> str:
    """The argument that an error is about."""
    places = [str(part) for part in error.loc]
    parameter = task.signature.parameters.get(places[0]) if places else None
    if parameter is not None and parameter.kind is inspect.Parameter.VAR_KEYWORD and len(places) > 1:
        return places[1]
    return places[0] if places else ""


def _texts_as_json(task: Task, given: Given, errors: Sequence[InvalidErrorInfo]) -> bool:
    """Where text did not fit the annotation (a list, a model), take it as JSON; whether anything changed."""
    changed = False
    for name in {_name_of(task, error) for error in errors} & given.texts:
        try:
            given[name] = json.loads(given[name])
        except (ValueError, RecursionError):
            continue
        given.texts.discard(name)
        changed = True
    return changed


def _misfit(task: Task, errors: Sequence[InvalidErrorInfo]) -> CommandError:
    """The signature, a mark under what does not fit, and why."""
    line, places = f"{task.name.rpartition('.')[2]}(", {}
    for i, parameter in enumerate(task.signature.parameters.values()):
        piece = describe(parameter)
        line += ", " if i else ""
        places[parameter.name] = (len(line), len(piece))
        line += piece
    line += ")"
    marks, why = [" "] * len(line), []
    for error in errors:
        name = _name_of(task, error)
        start, length = places.get(str(error.loc[0]) if error.loc else name, (0, 0))
        marks[start : start + length] = "^" * length
        help = f"give it as {name}=VALUE" if error.type == "missing_argument" else ""
        why.append(f"  {name}: {error.msg}" + (f" — {help}" if help else ""))
    under = [f"  {''.join(marks).rstrip()}"] if "^" in marks else []
    return CommandError(f"these arguments do not fit {task.name}:", USAGE, details=(f"  {line}", *under, *why))


def describe(parameter: inspect.Parameter) -> str:
    """A parameter as it is written in code."""
    annotation = parameter.annotation
    stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
    text = f"{stars}{parameter.name}"
    typed = annotation is not inspect.Parameter.empty
    if typed:
        text += f": {annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)}"
    if parameter.default is not inspect.Parameter.empty:
        text += (" = " if typed else "=") + repr(parameter.default)
    return clean(text)
