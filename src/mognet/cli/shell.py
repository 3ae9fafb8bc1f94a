"""The commands and their options, for typer. What they do is written in the modules beside this one, and imported when needed."""

from __future__ import annotations

import importlib
import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mognet.cli.arguments import split
from mognet.cli.commands import (
    Format,
    FormatOption,
    JsonOption,
    PollOption,
    store_reindex,
    tasks_count,
    tasks_delete,
    tasks_list,
    tasks_retry,
    tasks_revoke,
)
from mognet.cli.failures import INTERRUPTED, USAGE, report
from mognet.cli.options import Options
from mognet.cli.text import clean

_SETTINGS = {"help_option_names": ["-h", "--help"]}


class Loop(str, Enum):  # noqa: UP042 - older typers show a StrEnum's choices badly
    """Which event loop a worker runs on."""

    auto = "auto"
    asyncio = "asyncio"
    uvloop = "uvloop"


IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id, or as many of its first digits as no other id has.")]
LabelOption = Annotated[str | None, typer.Option("--text-label-format", metavar="TEMPLATE", help="Text per job, such as '{name} {state}'.")]

app = typer.Typer(name="mognet", context_settings=_SETTINGS, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
tasks_app = typer.Typer(help="Look at jobs, revoke them, run them again, delete them.", no_args_is_help=True)
queues_app = typer.Typer(help="Look at queues, and empty them.", no_args_is_help=True)
nodes_app = typer.Typer(help="Ask the workers.", no_args_is_help=True)
store_app = typer.Typer(help="Look at where the jobs are kept.", no_args_is_help=True)


def execute(words: list[str]) -> int:
    """Run a command line; its exit code. Nothing but a broken pipe is raised."""
    _complete_after_app()
    parts = split(words)
    if parts.app is not None and any(word == "--app" or word.startswith("--app=") for word in parts.options):
        return _usage(f"{parts.app!r} is no command, and --app names the app already")
    try:
        code = typer.main.get_command(app).main(parts.in_order(), prog_name="mognet", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's own: usage
            return _refuse(error, parts.app)
        return report(error, debug=_debug(parts.options))


def _debug(options: list[str]) -> bool:
    given = [
        value.rpartition("=")[2].upper() for option, value in zip(["", *options], options, strict=False) if "--log-level" in option + value
    ]
    return (given[-1] if given else os.environ.get("MOGNET_LOG_LEVEL", "").upper()) == "DEBUG"


def _refuse(error: Exception, app: str | None) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "mognet"
    if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
        typer.echo(context.get_help())
        return USAGE
    text = str(error.format_message()).strip().rstrip(".").replace(": Value error, ", ": ")  # type: ignore[attr-defined]
    if text == "Missing command" and app is not None and path == "mognet":
        return _usage(f"a command is missing after the app {app!r} (or is {app!r} a misspelt command?)")
    if app is None and text.startswith("Got unexpected extra argument"):
        text += ", and an app goes before the command: mognet APP COMMAND"
    if context is not None and context.parent is not None and text.startswith("No such command '"):
        name = text.split("'")[1]
        if name in context.find_root().command.commands:
            return _usage(f"{text} in {context.info_name!r}: it goes right behind the app, mognet {app or 'APP'} {name}")
    return _usage(text, path)


def _usage(text: str, path: str = "mognet") -> int:
    typer.echo(f"error: {clean(text)} (see: {path} --help)", err=True)
    return USAGE


def _complete_after_app() -> None:
    """While a shell asks for completions, hide the app from typer, which would take it for a command."""
    name = next(
        (each for each in ("_TYPER_COMPLETE_ARGS", "COMP_WORDS") if "_MOGNET_COMPLETE" in os.environ and os.environ.get(each)), None
    )
    if name is None:
        return
    words = os.environ[name].split(" ")
    parts = split([word for word in words[1:] if word])
    if parts.app is not None and parts.command and parts.app in words:
        place = words.index(parts.app)
        os.environ[name] = " ".join(words[:place] + words[place + 1 :])
        if os.environ.get("COMP_CWORD", "").isdecimal():
            os.environ["COMP_CWORD"] = str(int(os.environ["COMP_CWORD"]) - 1)
    elif parts.app is not None and os.environ[name].endswith(" ") and parts.app in words:
        os.environ[name] = f"{words[0]} "
        os.environ["COMP_CWORD"] = "1"


def _show_version(wanted: bool) -> None:
    if wanted:
        from mognet import __version__

        typer.echo(f"mognet {__version__}")
        raise typer.Exit


@app.callback(
    subcommand_metavar="[APP] COMMAND [ARGS]...",
    epilog="APP is module or module:attribute (the attribute is app if not given); the current directory is on the path. "
    "It may be left out when --app, MOGNET_APP or `app` in [tool.mognet] names it.",
)
def _global(
    context: typer.Context,
    app: Annotated[
        str | None, typer.Option("--app", metavar="MODULE[:ATTRIBUTE]", help="The app, if it does not stand before the command.")
    ] = None,
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help="Where the jobs are kept; goes before what the app says.")] = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", metavar="LEVEL", help="DEBUG, INFO, WARNING or ERROR. DEBUG shows tracebacks.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option("--log-format", metavar="FORMAT", help="text, json, or a format like '%(message)s'.")
    ] = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours. They are left out of pipes anyway.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Run background tasks, and see what they do.

    These options may also stand after the command.
    """
    context.obj = Options(app, url, log_level, log_format, no_color)


@app.command()
def run(
    context: typer.Context,
    include: Annotated[
        list[str] | None, typer.Option("-q", "--include-queues", metavar="NAME", help="Listen to these queues only (a,b).")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("-x", "--exclude-queues", metavar="NAME", help="Listen to all queues but these.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option("-c", "--concurrency", metavar="N", min=1, help="Jobs that run at once.")] = None,
    burst: Annotated[bool, typer.Option("--burst", help="Stop when nothing is left to do.")] = False,
    grace: Annotated[
        str | None, typer.Option("--grace", metavar="TIME", help="How long running jobs may go on after Ctrl-C (25s).")
    ] = None,
    loop: Annotated[Loop, typer.Option("--loop", help="The event loop; auto is uvloop if it is installed.")] = Loop.auto,
) -> int:
    """Run a worker until it is told to stop.

    SIGTERM or Ctrl-C stops it gently: running jobs get their grace, then they are handed back. A second one hands them back at once,
    a third one leaves.
    """
    from mognet.cli.run import Wishes, run_worker

    return run_worker(context.obj, Wishes(include or [], exclude or [], concurrency, grace, burst, loop.value))


_TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="The task's name, or its end if only one task's name ends so.")]
_ValuesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="key=text, converted as the task says; key:=JSON; key=@FILE, key:=@FILE."),
]
_QueueOption = Annotated[str | None, typer.Option("--queue", metavar="NAME", help="The queue to put it in.")]
_PriorityOption = Annotated[int | None, typer.Option("--priority", metavar="N", min=0, max=10, help="0 to 10, higher first.")]
_DelayOption = Annotated[str | None, typer.Option("--delay", metavar="TIME", help="Not before so long from now: 10s, 5m, 2h.")]
_MetadataOption = Annotated[list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="A label: key=text or key:=JSON.")]


@app.command()
def call(
    context: typer.Context,
    task: _TaskArgument,
    values: _ValuesArgument = None,
    timeout: Annotated[str | None, typer.Option("--timeout", metavar="TIME", help="Stop waiting (the job goes on), exit code 124.")] = None,
    queue: _QueueOption = None,
    priority: _PriorityOption = None,
    delay: _DelayOption = None,
    metadata: _MetadataOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the job with its value or error, as JSON.")] = False,
) -> int:
    """Submit a job, show how it goes, and print its value.

    The value goes to the standard output as JSON, all else to the standard error stream.
    """
    from mognet.cli.call import Call, call_task
    from mognet.cli.desk import serve

    wanted = Call(task, values or [], queue, priority, delay, metadata or [])
    return serve(context.obj, lambda desk: call_task(desk, wanted, timeout), json=json, makes=True)


@app.command()
def submit(
    context: typer.Context,
    task: _TaskArgument,
    values: _ValuesArgument = None,
    queue: _QueueOption = None,
    priority: _PriorityOption = None,
    delay: _DelayOption = None,
    metadata: _MetadataOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the job, as JSON.")] = False,
) -> int:
    """Submit a job, print its id, and leave."""
    from mognet.cli.call import Call, submit_task
    from mognet.cli.desk import serve

    wanted = Call(task, values or [], queue, priority, delay, metadata or [])
    return serve(context.obj, lambda desk: submit_task(desk, wanted), json=json, makes=True)


tasks_app.command("list")(tasks_list)
tasks_app.command("count")(tasks_count)


@tasks_app.command("get")
def tasks_get(
    context: typer.Context,
    id: IdArgument,
    include_value: Annotated[bool, typer.Option("--include-value", help="Also the value, or the error with its traceback.")] = False,
    format: FormatOption = Format.text,
    json: JsonOption = False,
) -> int:
    """Show all that is known of a job."""
    from mognet.cli.desk import serve
    from mognet.cli.jobs import get_task

    return serve(context.obj, lambda desk: get_task(desk, id, include_value=include_value), json=json or format is Format.json)


DepthOption = Annotated[
    int | None, typer.Option("--max-depth", metavar="N", min=1, help="How many levels, with the job itself: 3 if not given, in JSON all.")
]
WidthOption = Annotated[
    int | None, typer.Option("--max-width", metavar="N", min=1, help="How many children of each job: 16 if not given, in JSON all.")
]


@tasks_app.command("tree")
def tasks_tree(
    context: typer.Context,
    id: IdArgument,
    max_depth: DepthOption = None,
    max_width: WidthOption = None,
    label: LabelOption = None,
    format: FormatOption = Format.text,
    json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew whenever something changes, until all of it has ended.")] = False,
    poll: PollOption = None,
) -> int:
    """Show a job with all that it submitted."""
    from mognet.cli.desk import serve
    from mognet.cli.tree import show_tree

    wanted = json or format is Format.json
    return serve(context.obj, lambda desk: show_tree(desk, id, max_depth, max_width, label, watch=watch), json=wanted, poll=poll)


@tasks_app.command("watch")
def tasks_watch(
    context: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Jobs, by ids or their first digits; none: all that run.")
    ] = None,
    format: FormatOption = Format.text,
    json: JsonOption = False,
) -> int:
    """Follow jobs until they have ended. Exit code 1: one of them did not succeed."""
    from mognet.cli.desk import serve
    from mognet.cli.watch import watch_tasks

    return serve(context.obj, lambda desk: watch_tasks(desk, ids or []), json=json or format is Format.json)


@tasks_app.command("logs")
def tasks_logs(
    context: typer.Context,
    id: IdArgument,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what is logged from now on, until the job has ended.")] = False,
    most: Annotated[int | None, typer.Option("-n", "--lines", metavar="N", min=0, help="At most the last N entries.")] = None,
    format: FormatOption = Format.text,
    json: JsonOption = False,
) -> int:
    """Show what a job has logged, as far as it is kept (setting keep_logs)."""
    from mognet.cli.desk import serve
    from mognet.cli.joblogs import show_logs

    return serve(context.obj, lambda desk: show_logs(desk, id, follow=follow, most=most), json=json or format is Format.json)


tasks_app.command("revoke")(tasks_revoke)
tasks_app.command("retry")(tasks_retry)
tasks_app.command("delete")(tasks_delete)


@queues_app.command("list")
def queues_list(context: typer.Context, format: FormatOption = Format.text, json: JsonOption = False, poll: PollOption = None) -> int:
    """Show how much waits in each queue, and who listens."""
    from mognet.cli.desk import serve
    from mognet.cli.queues import list_queues

    return serve(context.obj, list_queues, json=json or format is Format.json, poll=poll)


@queues_app.command("purge")
def queues_purge(
    context: typer.Context,
    force: Annotated[bool, typer.Option("--force", help="Really delete.")] = False,
    format: FormatOption = Format.text,
    json: JsonOption = False,
) -> int:
    """Delete the jobs that wait in the queues this app listens to. Without --force, only say how many."""
    from mognet.cli.desk import serve
    from mognet.cli.queues import purge_queues

    return serve(context.obj, lambda desk: purge_queues(desk, force=force), json=json or format is Format.json)


@nodes_app.command("status")
def nodes_status(
    context: typer.Context,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.05, help="How long to wait for answers.")] = 1.0,
    label: LabelOption = None,
    format: FormatOption = Format.text,
    json: JsonOption = False,
    poll: PollOption = None,
) -> int:
    """Ask every worker what it runs."""
    from mognet.cli.desk import serve
    from mognet.cli.nodes import show_nodes

    return serve(context.obj, lambda desk: show_nodes(desk, timeout, label), json=json or format is Format.json, poll=poll)


@app.command()
def top(context: typer.Context, format: FormatOption = Format.text, json: JsonOption = False) -> int:
    """Show what goes on: queues, workers, what runs, what failed. In a terminal live, until q is pressed."""
    from mognet.cli.desk import serve
    from mognet.cli.top import show_top

    return serve(context.obj, show_top, json=json or format is Format.json)


@store_app.command("info")
def store_info(context: typer.Context, format: FormatOption = Format.text, json: JsonOption = False) -> int:
    """Show where the jobs are kept, in which form, and how many."""
    from mognet.cli.store import show_store

    return show_store(context.obj, json=json or format is Format.json)


_CheckOption = Annotated[bool, typer.Option("--check", help="Only say whether that is needed: then the exit code is 1.")]


_ToOption = Annotated[
    int | None, typer.Option("--to", metavar="N", min=1, help="This version of the schema, also an older one; stop all workers first.")
]


@store_app.command("migrate")
def store_migrate(
    context: typer.Context,
    check: _CheckOption = False,
    to: _ToOption = None,
    format: FormatOption = Format.text,
    json: JsonOption = False,
) -> int:
    """Bring the database's schema up to date, as the first worker would."""
    from mognet.cli.store import migrate_store

    return migrate_store(context.obj, check=check, to=to, json=json or format is Format.json)


store_app.command("reindex")(store_reindex)


@app.command()
def doctor(context: typer.Context, format: FormatOption = Format.text, json: JsonOption = False) -> int:
    """Check the app, its settings and its engine. Exit code 1: something has to be mended; 4: no engine."""
    from mognet.cli.doctor import examine

    return examine(context.obj, json=json or format is Format.json)


@app.command()
def demo(
    folder: Annotated[Path | None, typer.Argument(help="Python source to survey; this Python's own library if not given.")] = None,
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, help="Worker processes.")] = 2,
    no_kill: Annotated[bool, typer.Option("--no-kill", help="Let all workers live.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the database, and say where it is.")] = False,
) -> int:
    """Run a real job on two workers, and kill one. Needs no app."""
    try:
        entry = importlib.import_module("mognet.cli.demo").demo
    except ModuleNotFoundError as error:
        if error.name != "mognet.cli.demo":
            raise
        return _usage("this installation has no demo")
    code = entry(folder, workers, no_kill, keep)
    return code if isinstance(code, int) else 0


app.add_typer(tasks_app, name="tasks")
app.add_typer(queues_app, name="queues")
app.add_typer(nodes_app, name="nodes")
app.add_typer(store_app, name="store")
