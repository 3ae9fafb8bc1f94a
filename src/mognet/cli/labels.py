"""Templates for one job's text: ``{field}`` from a fixed list, and nothing else (``str.format`` would reach into objects)."""

from __future__ import annotations

import re
from typing import Any

from mognet.cli.failures import USAGE, CommandError
from mognet.cli.text import clean, json_text, span
from mognet.results import Result

FIELDS = (
    "id",
    "short_id",
    "name",
    "state",
    "queue",
    "priority",
    "attempt",
    "number_of_starts",
    "number_of_stops",
    "unexpected_retry_count",
    "parent_id",
    "root_id",
    "created",
    "due",
    "started",
    "finished",
    "duration",
    "queue_time",
    "node_id",
    "request_kwargs_repr",
    "progress",
    "metadata",
)
"""What may stand in braces."""

_PIECE = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<field>[^{}]*?)(?:![rsa])?\}|(?P<stray>[{}])|(?P<text>[^{}]+)")


class Label:
    """A template that has been read. Raises :class:`CommandError` for a field that there is not."""

    def __init__(self, template: str) -> None:
        self._pieces: list[tuple[bool, str]] = []
        for match in _PIECE.finditer(template):
            field = match["field"]
            if match["stray"]:
                raise CommandError(f"label {template!r}: a single {match['stray']!r} stands alone; write it twice", USAGE)
            if field is not None and field not in FIELDS:
                raise CommandError(f"label {template!r}: there is no field {field!r}; there are: {', '.join(FIELDS)}", USAGE)
            self._pieces.append((True, field) if field is not None else (False, match["text"] or match["brace"][0]))

    def of(self, result: Result[Any]) -> str:
        """The text for a job."""
        values = result.to_dict() | {
            "short_id": str(result.id)[:8],
            "duration": span(result.duration),
            "queue_time": span(result.queue_time),
        }
        return clean("".join(_text(values[text]) if is_field else text for is_field, text in self._pieces))


def _text(value: Any) -> str:
    return json_text(value) if isinstance(value, dict) else "" if value is None else str(value)
