"""The commands that are about many jobs, and their options, for typer."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mognet.cli.filters import Which


class Format(str, Enum):  # noqa: UP042 - older typers show a StrEnum's choices badly
    """How an answer is written."""

    text = "text"
    json = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="How to write the answer.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
PollOption = Annotated[float | None, typer.Option("--poll", metavar="SECONDS", min=0.05, help="Look again so often, until Ctrl-C.")]
IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids, or as many of their first digits as are unique.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]

Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="KEY=VALUE", help="Metadata: key=text, key:=JSON. All keys; of one key's values, any."),
]
State = Annotated[list[str] | None, typer.Option("--state", metavar="A,B", help="Only these states.")]
Name = Annotated[str | None, typer.Option("--name", metavar="TASK", help="Only this task.")]
Queue = Annotated[str | None, typer.Option("--queue", metavar="NAME", help="Only this queue.")]
Node = Annotated[str | None, typer.Option("--node", metavar="ID", help="Only what this node ran last.")]
Root = Annotated[str | None, typer.Option("--root", metavar="ID", help="Only the tree of this job.")]
Parent = Annotated[str | None, typer.Option("--parent", metavar="ID", help="Only what this job submitted.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Only what was submitted so long ago or later: 10m, 1h, 2026-03-01T12:30.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only what was submitted so long ago or earlier.")]


def _which(where: list[str] | None, states: list[str] | None, *words: str | None) -> Which:
    from mognet.cli.filters import Which

    return Which(where or [], states or [], *words)


def tasks_list(
    context: typer.Context,
    where: Where = None,
    state: State = None,
    name: Name = None,
    queue: Queue = None,
    node: Node = None,
    root: Root = None,
    parent: Parent = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 50,
    after: Annotated[str | None, typer.Option("--after", metavar="CURSOR", help="Go on behind a job: its cursor.")] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="A,B", help="What to show; an unknown name lists what there is.")
    ] = None,
    format: FormatOption = Format.text,
    json: JsonOption = False,
    poll: PollOption = None,
) -> int:
    """List jobs, newest first."""
    from mognet.cli.desk import serve
    from mognet.cli.listing import Page, list_tasks

    which = _which(where, state, name, queue, node, root, parent, since, until)
    page = Page(limit, columns, after)
    return serve(context.obj, lambda desk: list_tasks(desk, which, page), json=json or format is Format.json, poll=poll)


def tasks_count(
    context: typer.Context,
    by: Annotated[str, typer.Option("--by", metavar="WHAT", help="state, queue, name or metadata:KEY.")] = "state",
    where: Where = None,
    state: State = None,
    name: Name = None,
    queue: Queue = None,
    node: Node = None,
    root: Root = None,
    parent: Parent = None,
    since: Since = None,
    until: Until = None,
    format: FormatOption = Format.text,
    json: JsonOption = False,
    poll: PollOption = None,
) -> int:
    """Count jobs."""
    from mognet.cli.counting import count_tasks
    from mognet.cli.desk import serve

    which = _which(where, state, name, queue, node, root, parent, since, until)
    return serve(context.obj, lambda desk: count_tasks(desk, which, by), json=json or format is Format.json, poll=poll)


def tasks_revoke(
    context: typer.Context,
    ids: IdsArgument = None,
    where: Where = None,
    state: State = None,
    name: Name = None,
    queue: Queue = None,
    node: Node = None,
    root: Root = None,
    parent: Parent = None,
    since: Since = None,
    until: Until = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also what a finished job has left unfinished; mark an id that is not known yet.")
    ] = False,
    yes: YesOption = False,
    format: FormatOption = Format.text,
    json: JsonOption = False,
) -> int:
    """Stop jobs and all that they submitted."""
    from mognet.cli.changing import revoke_tasks
    from mognet.cli.desk import serve

    which = _which(where, state, name, queue, node, root, parent, since, until)
    return serve(context.obj, lambda desk: revoke_tasks(desk, ids or [], which, force=force, yes=yes), json=json or format is Format.json)


def tasks_retry(
    context: typer.Context,
    ids: IdsArgument = None,
    where: Where = None,
    state: State = None,
    name: Name = None,
    queue: Queue = None,
    node: Node = None,
    root: Root = None,
    parent: Parent = None,
    since: Since = None,
    until: Until = None,
    as_new: Annotated[bool, typer.Option("--as-new", help="Copies with ids of their own; the jobs stay as they are.")] = False,
    delay: Annotated[str | None, typer.Option("--delay", metavar="TIME", help="Not before so long from now: 10s, 5m, 2h.")] = None,
    yes: YesOption = False,
    format: FormatOption = Format.text,
    json: JsonOption = False,
) -> int:
    """Run jobs once more that ended FAILURE, INVALID or REVOKED.

    By filters, what was revoked is left alone unless --state names it.
    """
    from mognet.cli.changing import retry_tasks
    from mognet.cli.desk import serve

    which = _which(where, state, name, queue, node, root, parent, since, until)
    return serve(
        context.obj,
        lambda desk: retry_tasks(desk, ids or [], which, as_new=as_new, delay=delay, yes=yes),
        json=json or format is Format.json,
    )


def tasks_delete(
    context: typer.Context,
    ids: IdsArgument = None,
    where: Where = None,
    state: State = None,
    name: Name = None,
    queue: Queue = None,
    node: Node = None,
    root: Root = None,
    parent: Parent = None,
    since: Since = None,
    until: Until = None,
    yes: YesOption = False,
    format: FormatOption = Format.text,
    json: JsonOption = False,
) -> int:
    """Delete jobs: those that are named with all below them, or those that match and no others."""
    from mognet.cli.changing import delete_tasks
    from mognet.cli.desk import serve

    which = _which(where, state, name, queue, node, root, parent, since, until)
    return serve(context.obj, lambda desk: delete_tasks(desk, ids or [], which, yes=yes), json=json or format is Format.json)


def store_reindex(context: typer.Context, format: FormatOption = Format.text, json: JsonOption = False) -> int:
    """Index the metadata of jobs that were there before their keys were searchable. May be stopped, and goes on next time."""
    from mognet.cli.desk import serve
    from mognet.cli.reindex import reindex

    return serve(context.obj, reindex, json=json or format is Format.json)
