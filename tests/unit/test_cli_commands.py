"""The commands, in this process, on the memory engine."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sqlite3
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest

from mognet import App, AppConfig, Context, Request
from mognet.cli.shell import execute
from mognet.exceptions import ConnectionError
from mognet.states import ResultState

NASTY = "evil\x1b]52;c;aGk=\x07\r[red]x\u202e"


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Mognet = Callable[..., Said]


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> App:
    monkeypatch.chdir(tmp_path)
    for name in ("MOGNET_APP", "MOGNET_URL", "MOGNET_LOG_LEVEL", "MOGNET_LOG_FORMAT"):
        monkeypatch.delenv(name, raising=False)
    app = App("kitchen", AppConfig(node_id="n1"), url="memory://")

    @app.task(name="kitchen.cook")
    async def cook(context: Context, dish: str, minutes: int = 0) -> dict[str, Any]:
        await context.progress(1, 4, "stirring")
        return {"dish": dish, "minutes": minutes}

    @app.task(name="kitchen.burn", queue="fire")
    async def burn(why: str = "no rows") -> None:
        raise ValueError(why)

    @app.task(name="kitchen.menu")
    async def menu(context: Context, dishes: list[str]) -> int:
        return len(await context.gather(*[await context.submit(cook, dish) for dish in dishes]))

    module = types.ModuleType("kitchen_of_cli_tests")
    module.app = app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return app


@pytest.fixture
def mognet(app: App, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Mognet]:
    root, path = logging.getLogger(), list(sys.path)
    before = list(root.handlers), root.level

    def run(*words: str) -> Said:
        capsys.readouterr()
        code = execute([*(("kitchen_of_cli_tests",) if words[0] != "!" else ()), *words[words[0] == "!" :]])
        return Said(code, *capsys.readouterr())

    yield run
    root.handlers[:], root.level = before
    sys.path[:] = path


def work(app: App) -> None:
    async def burst() -> None:
        try:
            await app.start(burst=True)
        finally:
            await app.close()

    asyncio.run(burst())


def submit(app: App, *requests: Request[Any]) -> list[UUID]:
    async def send() -> list[UUID]:
        async with app:
            return [result.id for result in await app.submit_many(requests)]

    return asyncio.run(send())


def cook(**fields: Any) -> Request[Any]:
    return Request(name="kitchen.cook", kwargs={"dish": "soup"}, **fields)


class TestCall:
    def test_submit_prints_the_id_alone(self, app: App, mognet: Mognet) -> None:
        said = mognet("submit", "cook", "dish=soup", "minutes=2", "--metadata", "who=ada", "--metadata", "n:=3", "--priority", "9")
        assert (said.code, said.err) == (0, "")
        job = mognet("tasks", "get", str(UUID(said.out.strip())), "--json").json
        assert (job["name"], job["state"], job["priority"]) == ("kitchen.cook", "PENDING", 9)
        assert job["metadata"] == {"who": "ada", "n": 3}

    def test_queue_and_delay(self, app: App, mognet: Mognet) -> None:
        id = mognet("submit", "cook", "dish=soup", "--queue", "other", "--delay", "5m").out.strip()
        said = mognet("tasks", "list", "--queue", "other")
        assert id[:8] in said.out
        assert "due in 4 min 59 s" in said.out or "due in 5 min" in said.out
        assert mognet("submit", "cook", "dish=soup", "--delay", "-5").code == 2
        assert mognet("submit", "cook", "dish=soup", "--queue", "").err.startswith("error: --queue: ")

    def test_the_value_alone_goes_to_the_standard_output(self, app: App, mognet: Mognet) -> None:
        said = call_while_working(app, mognet, "call", "cook", "dish=pea soup", "minutes=3")
        assert said.code == 0
        assert said.out == '{"dish": "pea soup", "minutes": 3}\n'
        assert "✓ succeeded in " in said.err
        assert ", waited " in said.err

    def test_a_failure_goes_to_the_standard_error_stream(self, app: App, mognet: Mognet) -> None:
        said = call_while_working(app, mognet, "call", "burn", f"why={NASTY}")
        assert (said.code, said.out) == (1, "")
        assert "✗ kitchen.burn " in said.err
        assert "ValueError: evil]52;c;aGk= [red]x" in said.err
        assert "\x1b" not in said.err
        assert "tasks get " in said.err

    def test_nobody_works(self, app: App, mognet: Mognet) -> None:
        said = mognet("call", "cook", "dish=x", "--timeout", "2.8")
        assert (said.code, said.out) == (124, "")
        assert "no worker listens on queue 'tasks'" in said.err
        assert "start one with: mognet kitchen_of_cli_tests run" in said.err
        assert "still PENDING after 2.8 s; the job goes on. See it: mognet kitchen_of_cli_tests tasks get " in said.err

    def test_the_job_as_json(self, app: App, mognet: Mognet) -> None:
        done = call_while_working(app, mognet, "call", "cook", "dish=soup", "--json")
        assert (done.code, done.json["state"], done.json["value"], done.json["error"]) == (
            0,
            "SUCCESS",
            {"dish": "soup", "minutes": 0},
            None,
        )
        assert done.json == mognet("tasks", "get", done.json["id"], "--include-value", "--json").json
        failed = call_while_working(app, mognet, "call", "burn", "why=x", "--json")
        assert (failed.code, failed.json["state"], failed.json["error"]["message"]) == (1, "FAILURE", "x")
        waiting = mognet("call", "cook", "dish=soup", "--json", "--delay", "5m", "--timeout", "50ms")
        assert (waiting.code, waiting.json["state"], waiting.json["value"]) == (124, "PENDING", None)
        assert mognet("submit", "cook", "dish=soup", "--delay", "5m", "--json").json["state"] == "PENDING"

    def test_arguments_that_do_not_fit(self, app: App, mognet: Mognet) -> None:
        said = mognet("call", "cook", "minutes=3")
        assert said.code == 2
        assert said.err.split("\n")[1:4] == [
            "  cook(dish: str, minutes: int = 0)",
            "       ^^^^^^^^^",
            "  dish: missing a required argument — give it as dish=VALUE",
        ]
        assert mognet("call", "nothing").code == 3
        assert mognet("tasks", "list", "--json").json == []

    def test_too_large(self, app: App, mognet: Mognet) -> None:
        app.config.max_message_size = 100
        said = mognet("submit", "cook", "dish=" + "x" * 200)
        assert said.code == 5
        assert "max_message_size" in said.err


def call_while_working(app: App, mognet: Mognet, *words: str) -> Said:
    """Call, with a worker of the same app in the same loop."""
    connect = app.connect

    async def connect_and_work() -> None:
        await connect()
        if app.worker is None and not hasattr(app, "_worker_of_test"):
            app._worker_of_test = asyncio.create_task(app.start())  # type: ignore[attr-defined]
            while not [node async for node in app.get_current_status_of_nodes(timeout=0.05)]:
                pass  # until it listens

    app.connect = connect_and_work  # type: ignore[method-assign]
    try:
        return mognet(*words)
    finally:
        app.connect = connect  # type: ignore[method-assign]
        del app._worker_of_test  # type: ignore[attr-defined]


class TestTasks:
    def test_list(self, app: App, mognet: Mognet) -> None:
        assert mognet("tasks", "list").out == "no jobs found\n"
        ids = submit(app, cook(), Request(name="kitchen.burn", kwargs={"why": NASTY}), cook(delay=timedelta(hours=1)))
        work(app)
        said = mognet("tasks", "list")
        header, *rows = said.out.rstrip("\n").split("\n")
        assert header.split() == ["ID", "TASK", "QUEUE", "STATE", "AGE", "TOOK", "TRY", "NOTE"]
        assert [row[:8] for row in rows] == [str(id)[:8] for id in reversed(ids)]
        assert "ValueError: evil]52;c;aGk= [red]x" in rows[1]
        assert "\x1b" not in said.out

    def test_list_as_json_is_one_array(self, app: App, mognet: Mognet) -> None:
        ids = submit(app, cook(), cook(metadata={"x": NASTY}))
        for words in (("--json",), ("--format", "json")):
            said = mognet("tasks", "list", *words)
            assert [job["id"] for job in said.json] == [str(id) for id in reversed(ids)]
            assert said.json[0]["metadata"] == {"x": NASTY}
            assert "\x1b" not in said.out
            assert "\u202e" not in said.out

    def test_list_what_is_asked_for(self, app: App, mognet: Mognet) -> None:
        first, second, third = submit(app, cook(), Request(name="kitchen.burn"), cook(queue_name="later"))
        work(app)

        def listed(*words: str) -> set[str]:
            return {job["id"] for job in mognet("tasks", "list", "--json", *words).json}

        assert listed("--state", "failure,PENDING") == {str(second), str(third)}
        assert listed("--state", "failure", "--state", "pending") == {str(second), str(third)}
        assert listed("--name", "cook") == listed("--name", "kitchen.cook") == {str(first), str(third)}
        assert listed("--queue", "later") == {str(third)}
        assert listed("--node", "n1") == {str(first), str(second)}
        assert listed("--since", "1h") == {str(first), str(second), str(third)}
        assert listed("--since", "0") == set()
        assert listed("--limit", "1") == {str(third)}
        assert mognet("tasks", "list", "--limit", "0").code == 2
        assert mognet("tasks", "list", "--state", "odd").code == 2

    def test_columns(self, app: App, mognet: Mognet) -> None:
        submit(app, cook())
        names = "id,task,queue,state,age,took,try,node,progress,note,waited,priority,created,started,finished,parent,args,metadata"
        header, row = mognet("tasks", "list", "--columns", names).out.rstrip().split("\n")
        assert len(header.split()) == len(names.split(","))
        assert "kitchen.cook" in row
        said = mognet("tasks", "list", "--columns", "id,nope")
        assert said.code == 2
        assert f"there are: {names.replace(',', ', ')}, metadata:KEY" in said.err

    def test_get(self, app: App, mognet: Mognet) -> None:
        good, bad = submit(app, cook(metadata={"who": "ada"}), Request(name="kitchen.burn"))
        work(app)
        job = mognet("tasks", "get", str(good), "--json", "--include-value").json
        assert (job["state"], job["value"], job["error"]) == ("SUCCESS", {"dish": "soup", "minutes": 0}, None)
        job = mognet("tasks", "get", str(bad), "--json", "--include-value").json
        assert (job["state"], job["error"]["type"], job["error"]["message"]) == ("FAILURE", "ValueError", "no rows")
        assert "Traceback" in job["error"]["traceback"]
        assert "value" not in mognet("tasks", "get", str(good), "--json").json
        text = mognet("tasks", "get", str(good), "--include-value").out
        assert f"kitchen.cook {good}" in text
        assert '"who": "ada"' in text
        assert '"dish": "soup"' in text
        text = mognet("tasks", "get", str(bad), "--include-value").out
        assert "ValueError: no rows" in text.split("\n")[1]
        assert "    Traceback" not in text
        assert "  Traceback (most recent call last):" in text.split("\n")

    def test_ids_may_be_shortened(self, app: App, mognet: Mognet) -> None:
        one, two = UUID("aaaa1111" + "0" * 24), UUID("aaaa2222" + "0" * 24)
        submit(app, cook(id=one), cook(id=two))
        assert mognet("tasks", "get", "AAAA-1", "--json").json["id"] == str(one)
        said = mognet("tasks", "get", "aaaa")
        assert said.code == 2
        assert str(one) in said.err
        assert str(two) in said.err
        assert mognet("tasks", "get", "bbbb").code == 3
        assert mognet("tasks", "get", str(uuid4())).code == 3
        said = mognet("tasks", "get", "no id")
        assert said.code == 2
        assert said.err.count("\n") == 1

    def test_no_logs(self, app: App, mognet: Mognet) -> None:
        (id,) = submit(app, cook())
        said = mognet("tasks", "logs", str(id))
        assert (said.code, said.out) == (0, "")
        assert "no logs are kept" in said.err
        assert mognet("tasks", "logs", str(id), "--json").json == []

    def test_tree(self, app: App, mognet: Mognet) -> None:
        (id,) = submit(app, Request(name="kitchen.menu", kwargs={"dishes": ["a", "b", "c"]}))
        work(app)
        tree = mognet("tasks", "tree", str(id), "--json").json
        assert (tree["id"], tree["name"], tree["state"]) == (str(id), "kitchen.menu", "SUCCESS")
        assert [child["name"] for child in tree["children"]] == ["kitchen.cook"] * 3
        assert all(child["children"] == [] and child["parent_id"] == str(id) for child in tree["children"])
        text = mognet("tasks", "tree", str(id)).out.rstrip().split("\n")
        assert text[0].startswith(f"kitchen.menu {str(id)[:8]} SUCCESS")
        assert [line[:4] for line in text[1:]] == ["├── ", "├── ", "└── "]
        assert mognet("tasks", "tree", str(id), "--max-width", "2").out.rstrip().endswith("└── … 1 more (--max-width)")
        assert mognet("tasks", "tree", str(id), "--max-depth", "1").out.rstrip().endswith("└── … 3 more (--max-depth)")
        assert mognet("tasks", "tree", str(id), "--text-label-format", "<{name!r}>").out.count("<kitchen.cook>") == 3
        said = mognet("tasks", "tree", str(id), "--text-label-format", "{id.__class__.__mro__}")
        assert said.code == 2
        assert "there is no field" in said.err

    def test_revoke(self, app: App, mognet: Mognet) -> None:
        waiting, done = submit(app, cook(delay=timedelta(hours=1)), cook())
        work(app)
        said = mognet("tasks", "revoke", str(waiting)[:12])
        assert said.code == 0
        assert f"kitchen.cook {waiting} is REVOKED" in said.out
        assert mognet("tasks", "revoke", str(waiting)).code == 0
        said = mognet("tasks", "revoke", str(done))
        assert said.code == 5
        assert "has ended already (SUCCESS)" in said.err
        assert mognet("tasks", "revoke", str(done), "--force", "--json").json["state"] == "SUCCESS"
        said = mognet("tasks", "revoke", str(done), "--force").out
        assert said == f"kitchen.cook {done} is SUCCESS as before, and all that was unfinished below it is REVOKED\n"

    def test_revoke_an_unknown_id(self, app: App, mognet: Mognet) -> None:
        id = uuid4()
        said = mognet("tasks", "revoke", str(id))
        assert said.code == 3
        assert "--force marks this id" in said.err
        assert mognet("tasks", "revoke", str(id), "--force").code == 0
        submit(app, cook(id=id))
        assert mognet("tasks", "get", str(id), "--json").json["state"] == "REVOKED"


class TestQueuesAndNodes:
    def test_queues(self, app: App, mognet: Mognet) -> None:
        submit(app, cook(), cook(), cook(delay=timedelta(hours=1)), cook(queue_name="other"))
        rows = {row["queue"]: row for row in mognet("queues", "list", "--json").json}
        assert set(rows) == {"fire", "other", "tasks"}
        assert rows["tasks"] == {"queue": "tasks", "ready": 2, "scheduled": 1, "running": 0, "suspended": 0, "workers": 0}
        header, _, other, tasks = mognet("queues", "list").out.rstrip("\n").split("\n")
        assert header.split() == ["QUEUE", "READY", "SCHEDULED", "RUNNING", "SUSPENDED", "WORKERS", "NOTE"]
        assert tasks.split()[:6] == ["tasks", "2", "1", "0", "0", "0"]
        assert other.endswith("no worker listens")

    def test_purge_asks_to_be_forced(self, app: App, mognet: Mognet) -> None:
        submit(app, cook(), cook(queue_name="other"))
        said = mognet("queues", "purge")
        assert said.code == 5
        assert "--force deletes 1 waiting job in fire, tasks, for good" in said.err
        assert len(mognet("tasks", "list", "--json").json) == 2
        assert mognet("queues", "purge", "--json").json == {"would_delete": {"fire": 0, "tasks": 1}}
        assert mognet("queues", "purge", "--force", "--json").json == {"deleted": {"fire": 0, "tasks": 1}}
        assert [job["queue"] for job in mognet("tasks", "list", "--json").json] == ["other"]
        assert mognet("queues", "purge").code == 0

    def test_nodes(self, app: App, mognet: Mognet) -> None:
        assert mognet("nodes", "status", "--timeout", "0.1", "--json").json == {"node_status": []}
        said = mognet("nodes", "status", "--timeout", "0.1")
        assert said.out == "no worker has answered within 0.1 s — start one with: mognet kitchen_of_cli_tests run\n"
        said = call_while_working(app, mognet, "nodes", "status", "--timeout", "0.3", "--json")
        assert said.json == {"node_status": [{"node_id": "n1", "queues": ["fire", "tasks"], "slots": 100, "running_requests": []}]}
        assert mognet("nodes", "status", "--text-label-format", "{odd}").code == 2


class TestDoctor:
    def test_findings(self, app: App, mognet: Mognet) -> None:
        submit(app, cook())
        said = mognet("doctor")
        assert said.code == 0
        marks = {line.split()[1]: line[0] for line in said.out.split("\n") if line[:1] in "✓!✗" and line}
        assert marks == {"versions": "✓", "app": "✓", "engine": "!", "round": "✓", "workers": "!"}
        assert "→ mognet kitchen_of_cli_tests run" in said.out
        assert mognet("tasks", "list", "--queue", "mognet.doctor", "--json").json == []

    def test_what_must_be_mended_makes_it_fail(self, app: App, mognet: Mognet) -> None:
        app.config.imports = ["no_such_module_of_mine", "json"]
        said = mognet("doctor", "--json")
        assert (said.code, said.json["ok"]) == (1, False)
        errors = [finding for finding in said.json["findings"] if finding["grade"] == "error"]
        assert [finding["subject"] for finding in errors] == ["imports"]

    def test_no_app(self, mognet: Mognet) -> None:
        said = mognet("!", "nothing_of_mine", "doctor")
        assert said.code == 1
        assert "✗ app  there is no module" in said.out

    def test_engine_out_of_reach(self, app: App, mognet: Mognet, monkeypatch: pytest.MonkeyPatch) -> None:
        async def refuse() -> None:
            raise ConnectionError("nobody answers")

        monkeypatch.setattr(app, "connect", refuse)
        said = mognet("doctor")
        assert said.code == 4
        assert "✗ engine" in said.out


class TestUsage:
    def test_the_app_may_be_named_in_many_ways(self, app: App, mognet: Mognet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert mognet("!", "tasks", "list").code == 2
        assert mognet("!", "tasks", "list", "--app", "kitchen_of_cli_tests:app").code == 0
        monkeypatch.setenv("MOGNET_APP", "kitchen_of_cli_tests")
        assert mognet("!", "tasks", "list").code == 0
        monkeypatch.delenv("MOGNET_APP")
        (tmp_path / "pyproject.toml").write_text('[tool.mognet]\napp = "kitchen_of_cli_tests"\n')
        assert mognet("!", "tasks", "list").code == 0
        said = mognet("!", "one", "--app", "two", "run")
        assert said.code == 2
        assert "--app names the app already" in said.err

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("frobnicate",), "No such command 'frobnicate'"),
            (("run", "--frob"), "No such option: --frob"),
            (("tasks", "list", "--format", "xml"), "Invalid value for '--format': 'xml' is not one of"),
            (("run", "-q", "a", "-x", "b"), "not both"),
            (("run", "--grace", "soon"), "--grace 'soon' is no time"),
            (("run", "-x", "tasks,fire"), "no queue is left"),
            (("--url", "", "tasks", "list"), "--url is empty"),
            (("--url", "nope://u:secret@h", "tasks", "list"), "no engine understands the URL 'nope://u:***@h'"),
            (("--log-level", "LOUD", "tasks", "list"), "log level 'LOUD' is none of"),
            (("--log-format", "%(nope)s", "tasks", "list"), "log format '%(nope)s'"),
            (("--log-format", "{message.__class__}", "tasks", "list"), "log format"),
            (("tasks", "get"), "Missing argument 'ID'"),
            (("tasks", "call", "cook"), "No such command 'call' in 'tasks': it goes right behind the app, mognet "),
            (("tasks", "nope"), "No such command 'nope' (see: mognet tasks --help)"),
        ],
    )
    def test_one_line_and_code_2(self, mognet: Mognet, words: tuple[str, ...], says: str) -> None:
        said = mognet(*words)
        assert said.code == 2, said.err
        assert says in said.err
        assert said.err.count("\n") == 1
        assert said.err.startswith("error: ")

    def test_a_store_of_a_newer_mognet_is_refused(self, mognet: Mognet, tmp_path: Path) -> None:
        file = tmp_path / "newer.db"
        assert mognet("--url", f"sqlite:///{file}", "store", "migrate").code == 0
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA user_version = 99")
        for words in (("tasks", "list"), ("run",), ("submit", "cook", "dish=x")):
            said = mognet("--url", f"sqlite:///{file}", *words)
            assert said.code == 5
            assert "was written by a newer mognet: it has version 99" in said.err
            assert said.err.count("\n") == 1

    def test_tracebacks_only_for_debuggers(self, app: App, mognet: Mognet, monkeypatch: pytest.MonkeyPatch) -> None:
        async def explode() -> None:
            raise RuntimeError(f"boom {NASTY}")

        monkeypatch.setattr(app, "connect", explode)
        said = mognet("tasks", "list")
        assert said.code == 1
        assert said.err == "error: unexpected RuntimeError: boom evil]52;c;aGk= [red]x (--log-level DEBUG shows where)\n"
        said = mognet("tasks", "list", "--log-level", "DEBUG")
        assert "Traceback (most recent call last):" in said.err
        assert "\x1b" not in said.err

    def test_an_engine_out_of_reach(self, app: App, mognet: Mognet, monkeypatch: pytest.MonkeyPatch) -> None:
        async def refuse() -> None:
            raise ConnectionError("nobody answers at redis://h")

        monkeypatch.setattr(app, "connect", refuse)
        for words in (("tasks", "list"), ("queues", "list"), ("nodes", "status"), ("submit", "cook", "dish=x")):
            assert mognet(*words) == (4, "", "error: the engine cannot be reached: nobody answers at redis://h\n")

    def test_an_engine_out_of_reach_is_said_to_be_so_once(self, app: App, mognet: Mognet, monkeypatch: pytest.MonkeyPatch) -> None:
        async def refuse() -> None:
            raise ConnectionError("redis://h cannot be reached: nobody answers")

        monkeypatch.setattr(app, "connect", refuse)
        assert mognet("tasks", "list") == (4, "", "error: redis://h cannot be reached: nobody answers\n")

    @pytest.mark.parametrize(
        "command",
        [
            "",
            "run",
            "call",
            "submit",
            "tasks",
            "tasks list",
            "tasks get",
            "tasks tree",
            "tasks revoke",
            "tasks retry",
            "tasks count",
            "store",
        ],
    )
    @pytest.mark.parametrize("option", ["-h", "--help"])
    def test_help(self, mognet: Mognet, command: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        said = mognet("!", *command.split(), option)
        assert said.code == 0
        assert said.out.startswith("Usage: mognet")
        assert all(len(line) <= 80 for line in said.out.split("\n"))

    def test_demo_needs_no_app(self, mognet: Mognet, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[tuple[Any, ...]] = []
        module = types.ModuleType("mognet.cli.demo")
        module.demo = lambda *args: calls.append(args)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "mognet.cli.demo", module)
        assert mognet("!", "demo", "src", "--workers", "3", "--no-kill", "--keep").code == 0
        assert calls == [(Path("src"), 3, True, True)]

    def test_values_from_a_pipe(self, app: App, mognet: Mognet, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("soup"))
        assert mognet("submit", "cook", "dish=@-").code == 0


def test_worker_flags_go_over_the_settings(app: App) -> None:
    from mognet.cli.run import Wishes, apply

    app.config.task_queues.exclude = {"fire"}
    app.config.maximum_concurrency = 200
    apply(app, Wishes(["a,b", "c"], [], 300, "500ms"))
    assert app.get_task_queue_names() == {"a", "b", "c"}
    assert (app.config.minimum_concurrency, app.config.maximum_concurrency) == (300, 300)
    assert app.config.shutdown_grace == timedelta(seconds=0.5)
    apply(app, Wishes([], ["tasks"]))
    assert app.get_task_queue_names() == {"fire"}


def test_no_state_is_without_a_colour() -> None:
    from mognet.cli.display import STATE_STYLES

    assert set(STATE_STYLES) == set(ResultState)
