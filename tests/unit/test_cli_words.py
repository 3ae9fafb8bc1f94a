"""Words of a command line: the app before the command, ids, labels, arguments."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from mognet import App, Context
from mognet.cli.arguments import COMMANDS, split
from mognet.cli.durations import parse_duration
from mognet.cli.failures import CommandError
from mognet.cli.ids import parse_prefix, shorten
from mognet.cli.labels import FIELDS, Label
from mognet.cli.loading import find_app
from mognet.cli.options import Options
from mognet.cli.shell import app as typer_app
from mognet.cli.shell import nodes_app, queues_app, store_app, tasks_app
from mognet.cli.taskargs import find_task, make_request, parse_labels, parse_values
from mognet.records import Record
from mognet.results import Result
from mognet.states import ResultState


@pytest.mark.parametrize(
    ("line", "options", "app", "command"),
    [
        ("kitchen run", "", "kitchen", "run"),
        ("kitchen:app.inner run --burst", "", "kitchen:app.inner", "run --burst"),
        ("run --burst", "", None, "run --burst"),
        ("tasks run", "", "tasks", "run"),
        ("tasks list", "", None, "tasks list"),
        ("tasks tasks list", "", "tasks", "tasks list"),
        ("tasks queues list", "", "tasks", "queues list"),
        ("queues tasks get 12", "", "queues", "tasks get 12"),
        ("queues list", "", None, "queues list"),
        ("tasks", "", None, "tasks"),
        ("tasks -h", "", None, "tasks -h"),
        ("call call", "", None, "call call"),
        ("run run", "", None, "run run"),
        ("kitchen call cook dish=tasks", "", "kitchen", "call cook dish=tasks"),
        ("--url x kitchen run", "--url x", "kitchen", "run"),
        ("kitchen --url=x run --log-level DEBUG -c 3 --no-color", "--url=x --log-level DEBUG --no-color", "kitchen", "run -c 3"),
        ("tasks list --app kitchen --json", "--app kitchen", None, "tasks list --json"),
        ("kitchen call cook -- --url x", "", "kitchen", "call cook -- --url x"),
        ("kitchen", "", "kitchen", ""),
        ("demo tasks", "", None, "demo tasks"),
        ("--help", "", None, "--help"),
        ("", "", None, ""),
        ("run --url", "--url", None, "run"),
    ],
)
def test_app_options_and_command_are_told_apart(line: str, options: str, app: str | None, command: str) -> None:
    assert split(line.split()) == (options.split(), app, command.split())


def test_the_list_of_commands_is_complete() -> None:
    groups = {"tasks": tasks_app, "queues": queues_app, "nodes": nodes_app, "store": store_app}
    names = {str(each.name or each.callback.__name__) for each in typer_app.registered_commands if each.callback}
    assert set(COMMANDS) == names | set(groups)
    for name, group in groups.items():
        assert COMMANDS[name] == {each.name for each in group.registered_commands}


@pytest.mark.parametrize("text", ["", "xyz", "12 34", "-", "g", "1" * 33, "\x1b[31m", "../etc"])
def test_garbage_is_no_id(text: str) -> None:
    with pytest.raises(CommandError, match="is no id") as error:
        parse_prefix(text)
    assert error.value.code == 2


def test_ids_may_be_written_with_dashes_or_without() -> None:
    assert parse_prefix(" 12AB-34 ") == "12ab34"
    ids = [UUID(int=1), UUID(int=2), UUID("12345678" * 4)]
    assert shorten(ids)[ids[2]].startswith("12345678")
    assert len(set(shorten(ids).values())) == 3
    assert shorten([ids[2]]) == {ids[2]: "12345678"}


def result(**fields: Any) -> Result[Any]:
    record = Record(UUID(int=7), "shop.mail", "tasks", ResultState.RUNNING, 5, 0.0, 0.0, b'{"a": 1}')
    return Result(record._replace(**fields), None)  # type: ignore[arg-type]


class TestLabels:
    def test_fields(self) -> None:
        text = Label("{name}({id!r}) {state!s} {{{short_id}}} {metadata} {node_id}.").of(result())
        assert text == f'shop.mail({UUID(int=7)}) RUNNING {{00000000}} {{"a": 1}} .'

    def test_every_field_exists(self) -> None:
        for name in FIELDS:
            Label("{" + name + "}").of(result())
        assert set(result().to_dict()) <= set(FIELDS)

    @pytest.mark.parametrize(
        "template", ["{id.__class__}", "{0}", "{}", "{id[0]}", "{secret}", "{name:>99999999}", "{", "}", "{a{b}}", "{name!x}"]
    )
    def test_everything_else_is_refused(self, template: str) -> None:
        with pytest.raises(CommandError, match="label") as error:
            Label(template)
        assert error.value.code == 2

    def test_an_unknown_field_lists_those_there_are(self) -> None:
        with pytest.raises(CommandError, match="there are: id, short_id, name"):
            Label("{nope}")

    def test_stored_braces_are_no_fields(self) -> None:
        assert Label("{name}").of(result(name="{id}\x1b[0m")) == "{id}"


class Dish(BaseModel):
    name: str
    hot: bool = False


def make_app() -> App:
    app = App("words", url="memory://")

    @app.task(name="shop.cook")
    async def cook(context: Context, dish: str, minutes: int = 5, *, tags: list[str] | None = None) -> None: ...

    @app.task(name="shop.serve")
    async def serve(dish: Dish, fast: bool = False, options: dict[str, int] | None = None) -> None: ...

    @app.task(name="bar.serve")
    async def serve_too(anything: Any, /, **more: int) -> None: ...

    return app


class TestArguments:
    app = make_app()

    def kwargs(self, task: str, *words: str) -> tuple[Any, ...]:
        request = make_request(self.app, find_task(self.app, task), words)
        return (*request.args, request.kwargs)

    def test_text_is_converted_by_the_annotation(self) -> None:
        assert self.kwargs("cook", "dish=5", "minutes=5") == ({"dish": "5", "minutes": "5"},)
        given = self.kwargs("shop.serve", 'dish={"name": "soup"}', "fast=true", 'options={"a": 1}')
        assert given == ({"dish": {"name": "soup"}, "fast": "true", "options": {"a": 1}},)
        assert self.kwargs("cook", "dish=x", 'tags=["a"]') == ({"dish": "x", "tags": ["a"]},)
        assert self.kwargs("cook", "dish=x", "tags=null") == ({"dish": "x", "tags": None},)

    def test_json_is_taken_as_it_is(self) -> None:
        assert self.kwargs("cook", "dish=a=b:=c", "minutes:=3") == ({"dish": "a=b:=c", "minutes": 3},)

    def test_files(self, tmp_path: Path) -> None:
        file = tmp_path / "dish.json"
        file.write_text('{"name": "soup"}')
        assert self.kwargs("shop.serve", f"dish:=@{file}") == ({"dish": {"name": "soup"}},)
        assert self.kwargs("cook", f"dish=@{file}") == ({"dish": '{"name": "soup"}'},)
        with pytest.raises(CommandError, match="cannot be read"):
            self.kwargs("cook", f"dish=@{tmp_path}/none")

    def test_arguments_by_position_only_and_by_any_name(self) -> None:
        assert self.kwargs("bar.serve", "anything=x", "a=1", "b:=2") == ("x", {"a": "1", "b": 2})
        with pytest.raises(CommandError) as error:
            self.kwargs("bar.serve", "anything=x", "a=one")
        assert "  a: Input should be a valid integer" in "\n".join(error.value.details)

    def test_a_missing_argument_is_marked_in_the_signature(self) -> None:
        with pytest.raises(CommandError, match=r"do not fit shop.cook") as error:
            self.kwargs("cook", "minutes=2")
        line, marks, why = error.value.details
        assert line.strip().startswith("cook(dish: str, minutes: int = 5, tags: list[str] | None = None")
        assert line[marks.index("^") : len(marks)] == "dish: str"
        assert why.strip() == "dish: missing a required argument — give it as dish=VALUE"

    def test_a_value_that_does_not_fit_is_marked_too(self) -> None:
        with pytest.raises(CommandError) as error:
            self.kwargs("cook", "dish=x", "minutes=soon")
        line, marks, why = error.value.details
        assert line[marks.index("^") : len(marks)] == "minutes: int = 5"
        assert "valid integer" in why

    @pytest.mark.parametrize("word", ["dish", "=x", "1a=2", "a b=3", "a:={", "a:=", ""])
    def test_what_is_no_argument(self, word: str) -> None:
        with pytest.raises(CommandError) as error:
            parse_values([word])
        assert error.value.code == 2

    def test_twice_the_same(self) -> None:
        with pytest.raises(CommandError, match="twice"):
            parse_values(["a=1", "a=2"])

    def test_labels_are_found_by_the_words_that_gave_them(self) -> None:
        words = ["tenant=acme", "user.id:=7", "user.name=ada", 'a:={"b":1}', "a.c=", "..=x"]
        assert parse_labels(words) == {"tenant": "acme", "user": {"id": 7, "name": "ada"}, "a": {"b": 1, "c": ""}, "..": "x"}
        for words in (["a=1", "a.b=2"], ["a.b=1", "a=2"], ["a=1", "a.b.c=2"]):
            with pytest.raises(CommandError, match="no room") as error:
                parse_labels(words)
            assert error.value.code == 2

    def test_task_names(self) -> None:
        assert find_task(self.app, "cook").name == "shop.cook"
        with pytest.raises(CommandError, match=r"several tasks are called 'serve': bar\.serve, shop\.serve") as error:
            find_task(self.app, "serve")
        assert error.value.code == 2
        with pytest.raises(CommandError, match="there is no task 'ook'") as error:
            find_task(self.app, "ook")
        assert error.value.code == 3


@pytest.mark.parametrize("text", ["soon", "-5", "", "5 parsecs", "nan", "1e400"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(CommandError, match="is no time"):
        parse_duration(text, "--delay")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("source", "spec", "says"),
    [
        ("", "cli_mod", r"\(cli_mod.py\) has no attribute 'app'; write `app = App"),
        ("from mognet import App\nkitchen = App('k')", "cli_mod", "did you mean cli_mod:kitchen"),
        ("app = 1", "cli_mod", "cli_mod:app is of type int, not an App"),
        ("class app: pass", "cli_mod", "is the class app, not an App"),
        ("def app(): pass", "cli_mod", "is a function, not an App"),
        ("import os\n\n1/0", "cli_mod", r"cannot be imported: ZeroDivisionError: division by zero \(cli_mod.py:3\)"),
        ("import no_such_module", "cli_mod", r"ModuleNotFoundError: No module named 'no_such_module' \(cli_mod.py:1\)"),
        ("def f(:", "cli_mod", r"SyntaxError: .*\(cli_mod.py:1\)"),
        ("raise SystemExit(3)", "cli_mod", r"SystemExit: 3 \(cli_mod.py:1\)"),
        ("from mognet import App\napp = App('')", "cli_mod", r"^an app's name is 1 to 100 characters.* — found at cli_mod.py:2$"),
        (
            "from mognet import AppConfig\nAppConfig(lease='x')",
            "cli_mod",
            r"cannot be imported: ValidationError: .*lease.*\(cli_mod.py:2\)$",
        ),
        ("", "cli_other", "there is no module 'cli_other' in"),
        ("", "cli_mod.sub", "cannot be imported|there is no module 'cli_mod.sub'"),
        ("", "cli_mod.py", "is a file, and an app is named by its module: write cli_mod$"),
        ("", "./a/b.py:x", "write a.b:x"),
        ("", "a b", "names no app"),
        ("", ":app", "names no app"),
        ("", "os;x", "names no app"),
    ],
)
def test_an_app_that_cannot_be_loaded(folder: Path, source: str, spec: str, says: str) -> None:
    (folder / "cli_mod.py").write_text(source)
    with pytest.raises(CommandError, match=says) as error:
        find_app(spec)
    assert error.value.code == 2
    assert "\n" not in str(error.value)


def test_a_wrong_variable_is_no_fault_of_the_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "cli_mod.py").write_text("from mognet import App\napp = App('k')")
    monkeypatch.setenv("MOGNET_MAX_RETRIES", "x")
    with pytest.raises(CommandError, match=r"^MOGNET_MAX_RETRIES: max_retries: Input should be a valid integer.* — found at cli_mod.py:2$"):
        find_app("cli_mod")


def test_an_app_that_can(folder: Path) -> None:
    (folder / "cli_mod.py").write_text("from mognet import App\nclass inner:\n    kitchen = App('k')")
    assert find_app("cli_mod:inner.kitchen").name == "k"


def test_commands_that_are_proposed_say_the_same_app_but_no_secret() -> None:
    assert Options("a:b").again("run") == "mognet a:b run"
    assert Options("a", "sqlite:///x y.db").again("run") == "mognet --url 'sqlite:///x y.db' a run"
    assert "secret" not in Options("a", "redis://u:secret@h").again("run")


def test_imports_stay_light() -> None:
    code = (
        "import sys, mognet; print([m for m in ('typer', 'rich', 'mognet.cli') if m in sys.modules]);"
        "import mognet.cli.shell; print([m for m in ('rich', 'mognet.cli.desk') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split("\n")[:2] == ["[]", "[]"]
    code = "import sys\nfrom mognet.cli import main\ntry: main(['--version'])\nexcept SystemExit: print('typer' in sys.modules)"
    assert (
        json.dumps(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()[-1]) == '"False"'
    )
