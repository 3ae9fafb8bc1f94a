"""``mognet tasks revoke``, ``mognet tasks retry`` and ``mognet tasks delete``: jobs by their ids, or all that match."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
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
    known = [await _known(desk, id, force=force) for id in ids]
    for result in known:
        if result is not None and result.done and not result.revoked and not force:
            raise CommandError(f"job {result.id} has ended already ({result.state}); --force revokes what it has left unfinished", REFUSED)
    targets = [UUID(parse_prefix(id)) if result is None else result.id for id, result in zip(ids, known, strict=True)]
    results = [await desk.app.revoke(target, force=force) for target in targets]
    below = ["" if result is None else _below(result) for result in known]
    lines = [f"{_name(result)}{result.id} is {result.state}{more}" for result, more in zip(results, below, strict=True)]
    return await _tell(desk, results, lines)


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
    known = [await find(desk.app.result_backend, id) for id in ids]
    for result in known:
        if not result.failed:  # then none is run again
            raise CommandError(f"job {result.id} cannot be run again: it is {result.state}", REFUSED)
    targets = [result.id for result in known]
    results = [await desk.app.retry(target, as_new=as_new, delay=wait) for target in targets]
    lines = [
        f"{_name(result)}{target} runs again" + (f", as {result.id}" if as_new else "")
        for target, result in zip(targets, results, strict=True)
    ]
    return await _tell(desk, results, lines)


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
    if not counts and (hint := which.hint(f"tasks {deed.verb}")) is not None:
        desk.note(hint)
    if counts and not await _agreed(desk, deed.verb, "", counts, yes=yes):
        return REFUSED
    try:
        count = await deed.act(**filters) if counts else 0
    except asyncio.CancelledError:
        desk.note("interrupted: what was done stays done; the same command does the rest")
        raise
    return await _tell_count(desk, deed.key, deed.said, count)


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


async def _tell(desk: Desk, results: Sequence[Result[Any]], lines: Sequence[str]) -> int:
    """About one job as such, about several as a list."""

    async def look() -> Answer:
        data = [result.to_dict() for result in results]
        return Answer(data[0] if len(data) == 1 else data, Lines([[line] for line in lines]))

    await desk.show(look)
    return OK


def _name(result: Result[Any]) -> str:
    return f"{result.name} " if result.name else ""
