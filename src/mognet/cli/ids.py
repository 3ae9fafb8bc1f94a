"""Ids, which may be shortened to any prefix that only one job has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from mognet.backend import ResultBackend
from mognet.cli.failures import NOT_FOUND, USAGE, CommandError
from mognet.cli.text import age, clean
from mognet.records import Query
from mognet.results import Result

_SHOWN = 10
"""Candidates that are listed."""


def parse_prefix(text: str) -> str:
    """The hexadecimal digits of an id or of its beginning. Raises :class:`CommandError`."""
    digits = text.strip().lower().replace("-", "")
    if not re.fullmatch(r"[0-9a-f]{1,32}", digits):
        raise CommandError(f"{text!r} is no id: an id is 32 hexadecimal digits, or the first few of them (see: tasks list)", USAGE)
    return digits


async def find(backend: ResultBackend, text: str) -> Result[Any]:
    """The one job whose id is, or begins with, the text. Raises :class:`CommandError`."""
    digits = parse_prefix(text)
    if len(digits) == 32:
        result = await backend.get(UUID(digits))
        if result is None:
            raise CommandError(f"there is no job {UUID(digits)}: it never existed, was deleted, or has expired", NOT_FOUND)
        return result
    found = [result async for result in backend.search(Query(id_prefix=digits, newest_first=True, limit=_SHOWN + 1))]
    if not found:
        raise CommandError(f"there is no job whose id begins with {text!r} (see: tasks list)", NOT_FOUND)
    if len(found) > 1:
        lines = [f"  {result.id}  {clean(result.name or '-')}  {result.state}  {age(result.created)} ago" for result in found[:_SHOWN]]
        more = ["  … and more"] if len(found) > _SHOWN else []
        raise CommandError(f"{text!r} begins the ids of several jobs; give more digits:", USAGE, details=(*lines, *more))
    return found[0]


def short(id: UUID) -> str:
    """The first digits of an id, which are nearly always enough."""
    return str(id)[:8]


def shorten(ids: Iterable[UUID]) -> dict[UUID, str]:
    """As many of the first digits as tell these ids apart, at least eight."""
    known = list(dict.fromkeys(ids))
    length = 8
    while length < 36 and len({str(id)[:length] for id in known}) < len(known):
        length += 1
    return {id: str(id)[:length].rstrip("-") for id in known}
