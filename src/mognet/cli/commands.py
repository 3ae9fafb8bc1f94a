"""The commands that are about many jobs, and their options, for typer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mognet.cli.filters import Which
else:
    Which = Any  # filters bring the app along, and are imported where they are needed


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


_FILTERS = {
    "where": Where,
    "state": State,
    "name": Name,
    "queue": Queue,
    "node": Node,
    "root": Root,
    "parent": Parent,
    "since": Since,
    "until": Until,
}
"""In the order of :class:`mognet.cli.filters.Which`."""


def about_many(command: Callable[..., int]) -> Callable[..., int]:
    """The command with the options that say which jobs, in the place of its parameter ``which``."""
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name == "which":
            parameters += [parameter.replace(name=name, default=None, annotation=option) for name, option in _FILTERS.items()]
        else:
            parameters.append(parameter)

    def run(**given: Any) -> int:
        from mognet.cli.filters import Which

        where, states, *words = (given.pop(name) for name in _FILTERS)
        return command(**given, which=Which(where or [], states or [], *words))

    functools.update_wrapper(run, command)
    run.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


@about_many
def tasks_list(
    context: typer.Context,
    which: Which,
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

    page = Page(limit, columns, after)
    return serve(context.obj, lambda desk: list_tasks(desk, which, page), json=json or format is Format.json, poll=poll)


@about_many
def tasks_count(
    context: typer.Context,
    which: Which,
    by: Annotated[str, typer.Option("--by", metavar="WHAT", help="state, queue, name or metadata:KEY.")] = "state",
    format: FormatOption = Format.text,
    json: JsonOption = False,
    poll: PollOption = None,
) -> int:
    """Count jobs."""
    from mognet.cli.counting import count_tasks
    from mognet.cli.desk import serve

    return serve(context.obj, lambda desk: count_tasks(desk, which, by), json=json or format is Format.json, poll=poll)


@about_many
def tasks_revoke(
    context: typer.Context,
    which: Which,
    ids: IdsArgument = None,
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

    return serve(context.obj, lambda desk: revoke_tasks(desk, ids or [], which, force=force, yes=yes), json=json or format is Format.json)


@about_many
def tasks_retry(
    context: typer.Context,
    which: Which,
    ids: IdsArgument = None,
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

    return serve(
        context.obj,
        lambda desk: retry_tasks(desk, ids or [], which, as_new=as_new, delay=delay, yes=yes),
        json=json or format is Format.json,
    )


@about_many
def tasks_delete(
    context: typer.Context,
    which: Which,
    ids: IdsArgument = None,
    yes: YesOption = False,
    format: FormatOption = Format.text,
    json: JsonOption = False,
) -> int:
    """Delete jobs: those that are named with all below them, or those that match and no others."""
    from mognet.cli.changing import delete_tasks
    from mognet.cli.desk import serve

    return serve(context.obj, lambda desk: delete_tasks(desk, ids or [], which, yes=yes), json=json or format is Format.json)


def store_reindex(context: typer.Context, format: FormatOption = Format.text, json: JsonOption = False) -> int:
    """Index the metadata of jobs that were there before their keys were searchable. May be stopped, and goes on next time."""
    from mognet.cli.desk import serve
    from mognet.cli.reindex import reindex

    return serve(context.obj, reindex, json=json or format is Format.json)
