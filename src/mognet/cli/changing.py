"""``mognet tasks revoke``, ``mognet tasks retry`` and ``mognet tasks delete``: jobs by their ids, or all that match."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from mognet.cli.asking import confirm
from mognet.cli.desk import Answer, Desk
from mognet.cli.display import Lines
from mognet.cli.durations import parse_duration
from mognet.cli.failures import NOT_FOUND, OK, REFUSED, USAGE, CommandError
from mognet.cli.filters import Which
from mognet.cli.ids import find, parse_prefix
from mognet.cli.text import plural
from mognet.finding import Filters
from mognet.records import Query
from mognet.results import Result
from mognet.states import FAILED, FINAL, ResultState

_DELETED_AT_ONCE = 500
_BY_ITSELF = FAILED - {ResultState.REVOKED}
"""What ``retry`` takes unless ``--state`` says otherwise."""


@dataclass(frozen=True)
class Deed:
    """What is done to all jobs that match."""

    verb: str
    key: str
    said: str
    states: Collection[ResultState]
    """Those it can be done to."""
    usual: Collection[ResultState]
    """Those it is done to when no state is named."""
    act: Callable[..., Awaitable[int]]


async def revoke_tasks(desk: Desk, ids: Sequence[str], which: Which, *, force: bool, yes: bool) -> int:
    """Stop jobs and what is below them."""
    _one_way("revoke", ids, which)
    if which:
        if force:
            raise CommandError("--force is for jobs that are named by their ids", USAGE)
        unfinished = frozenset(ResultState) - FINAL
        return await _all(desk, which, Deed("revoke", "revoked", "revoked", unfinished, unfinished, desk.app.revoke_many), yes=yes)
    async with _told(desk, ids) as told:
        known = [await _known(desk, id, force=force) for id in ids]
        for before in known:
            if before is not None and before.done and not before.revoked and not force:
                raise CommandError(
                    f"job {before.id} has ended already ({before.state}); --force revokes what it has left unfinished", REFUSED
                )
        for id, before in zip(ids, known, strict=True):
            result = await desk.app.revoke(UUID(parse_prefix(id)) if before is None else before.id, force=force)
            told.append((result, f"{_name(result)}{result.id} is {result.state}{'' if before is None else _below(before)}"))
    return OK


def _below(before: Result[Any]) -> str:
    """What has become of the jobs under one that was revoked."""
    if before.done and not before.revoked:
        return " as before, and all that was unfinished below it is REVOKED"
    return ", and so is all that was unfinished below it"


async def _known(desk: Desk, id: str, *, force: bool) -> Result[Any] | None:
    try:
        return await find(desk.app.result_backend, id)
    except CommandError as error:
        if error.code != NOT_FOUND or len(parse_prefix(id)) < 32:
            raise
        if not force:
            raise CommandError(f"{error}; --force marks this id, so that a later submit of it will not run", NOT_FOUND) from None
        return None


async def retry_tasks(desk: Desk, ids: Sequence[str], which: Which, *, as_new: bool, delay: str | None, yes: bool) -> int:
    """Run jobs once more that ended without a value."""
    _one_way("retry", ids, which)
    wait = timedelta(0) if delay is None else parse_duration(delay, "--delay")
    if which:

        async def act(**filters: Any) -> int:
            return await desk.app.retry_many(as_new=as_new, delay=wait, **filters)

        return await _all(desk, which, Deed("retry", "retried", "will run again", FAILED, _BY_ITSELF, act), yes=yes)
    async with _told(desk, ids) as told:
        known = [await find(desk.app.result_backend, id) for id in ids]
        for before in known:  # if one cannot, none is run again
            if not before.failed or before.name is None:
                why = f"it is {before.state}" if before.name is not None else "it was revoked before it was submitted"
                raise CommandError(f"job {before.id} cannot be run again: {why}", REFUSED)
        for before in known:
            result = await desk.app.retry(before.id, as_new=as_new, delay=wait)
            told.append((result, f"{_name(result)}{before.id} runs again" + (f", as {result.id}" if as_new else "")))
    return OK


async def delete_tasks(desk: Desk, ids: Sequence[str], which: Which, *, yes: bool) -> int:
    """Delete jobs: those that are named with all below them, or those that match."""
    _one_way("delete", ids, which)
    if which:
        return await _all(desk, which, Deed("delete", "deleted", "deleted", tuple(ResultState), (), desk.app.delete_many), yes=yes)
    backend = desk.app.result_backend
    tops = [(await find(backend, id)).id for id in ids]
    counts: dict[str, int] = {}
    for top in tops:
        for state, count in (await backend.tally(Query(under=top))).items():
            counts[state] = counts.get(state, 0) + count
    if not await _agreed(desk, "delete", "with all below, ", counts, yes=yes):
        return REFUSED
    deleted = 0
    for top in tops:
        below = [result.id async for result in backend.search(Query(under=top))]
        for start in range(0, len(below), _DELETED_AT_ONCE):
            deleted += await desk.app.engine.delete(below[start : start + _DELETED_AT_ONCE])
    return await _tell_count(desk, "deleted", "deleted", deleted)


def _one_way(command: str, ids: Sequence[str], which: Which) -> None:
    if ids and which:
        raise CommandError(f"tasks {command}: name jobs by their ids, or by filters such as --where, not by both", USAGE)
    if not ids and not which:
        raise CommandError(f"tasks {command}: which jobs? Give ids, or filters such as --where tenant_id=acme or --state failure", USAGE)


async def _all(desk: Desk, which: Which, deed: Deed, *, yes: bool) -> int:
    filters: Filters = await which.filters(desk.app)
    asked = filters.get("state")
    states = set(deed.usual) if asked is None else {ResultState(state) for state in asked} & set(deed.states)
    if asked is not None and not states:
        raise CommandError(f"tasks {deed.verb} is for jobs that are {', '.join(s for s in ResultState if s in deed.states)}", USAGE)
    filters["state"] = states or None
    counts = await desk.app.result_backend.count(by="state", **filters)
    if not counts and (hint := await _unasked(desk, filters, deed, asked) or which.hint(f"tasks {deed.verb}")) is not None:
        desk.note(hint)
    if counts and not await _agreed(desk, deed.verb, "", counts, yes=yes):
        return REFUSED
    try:
        count = await deed.act(**filters) if counts else 0
    except asyncio.CancelledError:
        desk.note("interrupted: what was done stays done; the same command does the rest")
        raise
    return await _tell_count(desk, deed.key, deed.said, count)


async def _unasked(desk: Desk, filters: Filters, deed: Deed, asked: object) -> str | None:
    """What matches, but is left alone unless its state is named."""
    others = set(deed.states) - set(deed.usual)
    if asked is not None or not deed.usual or not others:
        return None
    left: Filters = {**filters, "state": others}
    counts = await desk.app.result_backend.count(by="state", **left)
    words = [f"{count:,} {state} (--state {state.lower()})" for state, count in counts.items()]
    return f"left alone, unless their state is named: {', '.join(words)}" if words else None


async def _agreed(desk: Desk, verb: str, how: str, counts: Mapping[str, int], *, yes: bool) -> bool:
    """Say how many they are, and ask."""
    what = f"{verb} {plural(sum(counts.values()), 'job')} ({how}{', '.join(f'{count:,} {state}' for state, count in counts.items())})"
    if yes or await confirm(f"{what}?"):
        return True
    desk.note(f"nothing was done: --yes would {what}")
    return False


async def _tell_count(desk: Desk, key: str, said: str, count: int) -> int:
    async def look() -> Answer:
        return Answer({key: count}, Lines([[f"{plural(count, 'job')} {said}"]]))

    await desk.show(look)
    return OK


@asynccontextmanager
async def _told(desk: Desk, ids: Sequence[str]) -> AsyncIterator[list[tuple[Result[Any], str]]]:
    """What is put into the list is told in the end, also if an error keeps the rest from being done; as data, several ids make a list."""
    done: list[tuple[Result[Any], str]] = []

    async def look() -> Answer:
        data = [result.to_dict() for result, _ in done]
        return Answer(data if len(ids) > 1 else data[0], Lines([[line] for _, line in done]))

    try:
        yield done
    finally:
        if done or (desk.json and len(ids) > 1):
            await desk.show(look)


def _name(result: Result[Any]) -> str:
    return f"{result.name} " if result.name else ""
