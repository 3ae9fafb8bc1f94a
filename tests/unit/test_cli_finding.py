"""The commands that find jobs, and change what they find."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import select
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from mognet import App, Context, Request
from mognet.cli.failures import CommandError
from mognet.cli.filters import parse_where
from mognet.engines.memory import MemoryEngine
from mognet.exceptions import NotRetryable
from mognet.records import Reindexed

from . import test_cli_commands as commands
from .test_cli_commands import Mognet, submit, work

app, mognet = commands.app, commands.mognet


def cook(**metadata: Any) -> Request[Any]:
    return Request(name="kitchen.cook", kwargs={"dish": "soup"}, metadata=metadata)


def burn(**metadata: Any) -> Request[Any]:
    return Request(name="kitchen.burn", metadata=metadata)


def listed(mognet: Mognet, *words: str) -> list[str]:
    return [job["id"] for job in mognet("tasks", "list", "--json", *words).json]


@pytest.fixture
def jobs(app: App) -> list[str]:
    """Two of acme's, one of which fails, and one of another tenant, that waits."""
    later = Request(name="kitchen.cook", kwargs={"dish": "pie"}, metadata={"tenant_id": "zoo", "n": 3}, delay=timedelta(hours=1))
    ids = submit(app, cook(tenant_id="acme", n=1, user={"id": "dkl"}), burn(tenant_id="acme", n="1"), later)
    work(app)
    return [str(id) for id in ids]


class TestWhere:
    def test_conditions(self, jobs: list[str], mognet: Mognet) -> None:
        good, bad, waiting = jobs
        assert listed(mognet, "--where", "tenant_id=acme") == [bad, good]
        assert listed(mognet, "--where", "tenant_id=acme", "--where", "tenant_id=zoo") == [waiting, bad, good], "any of one key's values"
        assert listed(mognet, "--where", "tenant_id=acme", "--where", "n:=1") == [good], "all keys"
        assert listed(mognet, "--where", 'tenant_id:=["zoo","nobody"]') == [waiting]
        assert listed(mognet, "--where", "n=1") == [bad]
        assert listed(mognet, "--where", "user.id=dkl") == [good]
        assert listed(mognet, "--where", 'user:={"id":"dkl"}') == [good]
        assert listed(mognet, "--where", "tenant_id=acme", "--state", "failure,pending") == [bad]
        assert listed(mognet, "--where", "tenant_id=a=b") == []

    @pytest.mark.parametrize("word", ["", "tenant_id", "=acme", ":=1", "n:=nope", "n:=" + "[" * 100_000])
    def test_what_is_no_condition(self, word: str) -> None:
        with pytest.raises(CommandError) as caught:
            parse_where([word])
        assert caught.value.code == 2

    def test_words(self) -> None:
        assert parse_where(["a=b=c", "a:=1", "x-y=", "d:e=f", 'l:=[[1],"a"]']) == {
            "a": ["b=c", 1],
            "x-y": [""],
            "d:e": ["f"],
            "l": [[1], "a"],
        }

    def test_errors_name_the_key(self, jobs: list[str], mognet: Mognet) -> None:
        for words, says in (
            (["--where", "a..b=1"], "'a..b'"),
            (["--where", "n:=NaN"], "'n'"),
            (["--where", "n:=[]"], "'n'"),
            (["--where", "n"], "--where 'n'"),
            (["--after", "nonsense"], "'nonsense' is no cursor"),
            (["--since", "soon"], "--since 'soon' is no moment: write 2026-03-01T12:30, or how long ago"),
            (["--until", "2026-13-01"], "--until '2026-13-01'"),
            (["--root", "zz"], "'zz'"),
            (["--state", "odd"], "'odd'"),
        ):
            said = mognet("tasks", "list", *words)
            assert said.code == 2, words
            assert says in said.err
            assert said.err.count("\n") == 1
        assert mognet("tasks", "list", "--parent", "abcdef").code == 3

    def test_text_that_looks_like_json(self, jobs: list[str], mognet: Mognet) -> None:
        for command in ("list", "count", "revoke", "delete"):
            said = mognet("tasks", command, "--where", "n=3")
            assert said.code == 0
            assert f"tasks {command} --where n=3 looks for text; for the JSON value, write n:=3" in said.err
        assert "looks for text" not in mognet("tasks", "list", "--where", "n=1").err


class TestList:
    def test_trees_and_times(self, app: App, mognet: Mognet) -> None:
        (id,) = submit(app, Request(name="kitchen.menu", kwargs={"dishes": ["a", "b"]}))
        work(app)
        assert len(listed(mognet, "--root", str(id)[:8])) == 3
        assert len(listed(mognet, "--parent", str(id))) == 2
        now = datetime.now(UTC)
        assert len(listed(mognet, "--since", "1h", "--until", "0")) == 3
        assert listed(mognet, "--until", "1h") == listed(mognet, "--since", (now + timedelta(minutes=5)).isoformat()) == []
        assert len(listed(mognet, "--since", (now.astimezone() - timedelta(minutes=5)).replace(tzinfo=None).isoformat())) == 3

    def test_from_page_to_page(self, jobs: list[str], mognet: Mognet) -> None:
        first = mognet("tasks", "list", "--json", "--limit", "2").json
        assert [job["id"] for job in first] == [jobs[2], jobs[1]]
        assert listed(mognet, "--after", first[-1]["cursor"]) == [jobs[0]]
        said = mognet("tasks", "list", "--limit", "2")
        assert said.err == f"there are more; for the next ones, add: --after {first[-1]['cursor']}\n"
        assert mognet("tasks", "list", "--limit", "3").err == ""

    def test_metadata_as_columns(self, jobs: list[str], mognet: Mognet) -> None:
        said = mognet("tasks", "list", "--columns", "ID,metadata:tenant_id,metadata:user.id,metadata:n")
        header, *rows = said.out.rstrip("\n").split("\n")
        assert header.split() == ["ID", "tenant_id", "user.id", "n"]
        assert [row.split()[1:] for row in rows] == [["zoo", "3"], ["acme", "1"], ["acme", "dkl", "1"]]
        assert "metadata:KEY" in mognet("tasks", "list", "--columns", "odd").err

    def test_columns_by_their_names_in_the_json(self, jobs: list[str], mognet: Mognet) -> None:
        header, *_ = mognet("tasks", "list", "--columns", "node_id,parent_id,request_kwargs_repr,name").out.split("\n")
        assert header.split() == ["NODE", "PARENT", "ARGUMENTS", "TASK"]

    def test_how_far_as_a_column(self, app: App, mognet: Mognet) -> None:
        @app.task(name="kitchen.weigh")
        async def weigh(context: Context, total: int | None = None) -> None:
            await context.progress(3, total)

        submit(app, *(Request(name="kitchen.weigh", kwargs=kwargs) for kwargs in ({}, {"total": 4})), burn())
        work(app)
        said = mognet("tasks", "list", "--columns", "progress,task")
        assert [line.split() for line in said.out.splitlines()] == [
            ["PROGRESS", "TASK"],
            ["kitchen.burn"],
            ["75%", "kitchen.weigh"],
            ["3", "kitchen.weigh"],
        ]


class TestCount:
    def test_by_what(self, jobs: list[str], mognet: Mognet) -> None:
        assert mognet("tasks", "count", "--json").json == {"FAILURE": 1, "PENDING": 1, "SUCCESS": 1}
        assert mognet("tasks", "count", "--by", "metadata:tenant_id", "--json").json == {"acme": 2, "zoo": 1}
        assert mognet("tasks", "count", "--by", "metadata:n", "--json").json == {'"1"': 1, "1": 1, "3": 1}
        assert mognet("tasks", "count", "--by", "name", "--where", "tenant_id=acme", "--json").json == {
            "kitchen.burn": 1,
            "kitchen.cook": 1,
        }
        lines = mognet("tasks", "count", "--by", "metadata:user.id").out.rstrip("\n").split("\n")
        assert [line.split() for line in lines] == [["user.id", "JOBS"], ["(none)", "2"], ["dkl", "1"], ["in", "all", "3"]]
        assert mognet("tasks", "count", "--where", "tenant_id=none").out == "no jobs found\n"
        assert mognet("tasks", "count", "--by", "tenant_id").code == 2


class TestChanging:
    def test_which(self, jobs: list[str], mognet: Mognet) -> None:
        for command in ("revoke", "retry", "delete"):
            said = mognet("tasks", command, "--yes")
            assert said.code == 2
            assert "Give ids, or filters" in said.err
            assert mognet("tasks", command, jobs[0], "--state", "failure", "--yes").code == 2
        assert mognet("tasks", "revoke", "--where", "n:=1", "--force", "--yes").code == 2
        assert mognet("tasks", "retry", "--state", "success", "--yes").code == 2
        assert len(listed(mognet)) == 3

    def test_nobody_to_ask(self, jobs: list[str], mognet: Mognet, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
        said = mognet("tasks", "delete", "--where", "tenant_id=acme")
        assert (said.code, said.out) == (5, "")
        assert "nothing was done: --yes would delete 2 jobs (1 FAILURE, 1 SUCCESS)" in said.err
        assert mognet("tasks", "revoke", "--where", "tenant_id=zoo").code == 5
        assert mognet("tasks", "retry", "--where", "tenant_id=acme").code == 5
        assert mognet("tasks", "delete", jobs[0]).code == 5
        assert mognet("tasks", "count", "--json").json == {"FAILURE": 1, "PENDING": 1, "SUCCESS": 1}

    def test_revoke(self, jobs: list[str], mognet: Mognet) -> None:
        said = mognet("tasks", "revoke", "--where", "tenant_id=zoo", "--where", "tenant_id=acme", "--yes")
        assert (said.code, said.out) == (0, "1 job revoked\n")
        assert mognet("tasks", "revoke", "--where", "tenant_id=zoo", "--yes", "--json").json == {"revoked": 0}
        assert mognet("tasks", "count", "--json").json == {"FAILURE": 1, "REVOKED": 1, "SUCCESS": 1}

    def test_revoke_several(self, app: App, jobs: list[str], mognet: Mognet) -> None:
        more = [str(id) for id in submit(app, cook(), cook())]
        said = mognet("tasks", "revoke", *more, jobs[0])
        assert said.code == 5, "one has ended: none is revoked"
        assert mognet("tasks", "list", "--state", "pending", "--json").json[0]["id"] == more[1]
        data = mognet("tasks", "revoke", *more, "--json").json
        assert [(job["id"], job["state"]) for job in data] == [(id, "REVOKED") for id in more]

    def test_retry(self, app: App, jobs: list[str], mognet: Mognet) -> None:
        said = mognet("tasks", "retry", jobs[1], jobs[0])
        assert said.code == 5, "one has succeeded: none runs again"
        assert "cannot be run again: it is SUCCESS" in said.err
        said = mognet("tasks", "retry", jobs[1][:10])
        assert (said.code, said.out) == (0, f"kitchen.burn {jobs[1]} runs again\n")
        assert mognet("tasks", "retry", str(uuid4())).code == 3
        work(app)
        assert mognet("tasks", "retry", "--where", "tenant_id=acme", "--yes", "--delay", "1h").out == "1 job will run again\n"
        assert mognet("tasks", "get", jobs[1], "--json").json["state"] == "PENDING"
        assert mognet("tasks", "retry", "--where", "tenant_id=acme", "--yes", "--json").json == {"retried": 0}
        mognet("tasks", "revoke", jobs[1])
        said = mognet("tasks", "retry", "--where", "tenant_id=acme", "--yes", "--json")
        assert said.json == {"retried": 0}
        assert said.err == "left alone, unless their state is named: 1 REVOKED (--state revoked)\n"
        said = mognet("tasks", "retry", "--where", "tenant_id=acme", "--state", "revoked", "--as-new", "--yes", "--json")
        assert said.json == {"retried": 1}
        copy = mognet("tasks", "retry", jobs[1], "--as-new", "--json").json
        assert copy["id"] != jobs[1]
        assert (copy["name"], copy["state"]) == ("kitchen.burn", "PENDING")
        said = mognet("tasks", "retry", jobs[1], "--as-new")
        assert said.out.startswith(f"kitchen.burn {jobs[1]} runs again, as ")
        assert mognet("tasks", "retry", jobs[1], "--delay", "soon").code == 2

    def test_delete(self, app: App, jobs: list[str], mognet: Mognet) -> None:
        (menu,) = submit(app, Request(name="kitchen.menu", kwargs={"dishes": ["a", "b"]}))
        work(app)
        said = mognet("tasks", "delete", str(menu), "--yes")
        assert (said.code, said.out) == (0, "3 jobs deleted\n")
        assert mognet("tasks", "delete", "--state", "success,failure", "--yes", "--json").json == {"deleted": 2}
        assert listed(mognet) == [jobs[2]]
        assert mognet("tasks", "delete", str(menu), "--yes").code == 3

    def test_interrupted(self, jobs: list[str], app: App, mognet: Mognet, monkeypatch: pytest.MonkeyPatch) -> None:
        async def interrupt(**filters: Any) -> int:
            raise asyncio.CancelledError

        monkeypatch.setattr(app, "revoke_many", interrupt)
        with pytest.raises(asyncio.CancelledError):
            mognet("tasks", "revoke", "--where", "tenant_id=zoo", "--yes")


class Slow(MemoryEngine):
    """Has 2,500 jobs to index, and is told to stop at times."""

    left = 2500
    stop_at = -1
    declared: tuple[set[str], bool] | None = None

    async def declare(self, keys: Any, *, only: bool = False) -> frozenset[str]:
        self.declared = (set(keys), only)
        return frozenset()

    async def reindex(self, *, limit: int = 1000) -> Reindexed:
        if self.left == self.stop_at:
            self.stop_at = -1
            raise asyncio.CancelledError
        done = min(limit, self.left)
        self.left -= done
        return Reindexed(done, self.left)


class TestReindex:
    @pytest.fixture
    def slow(self, app: App, monkeypatch: pytest.MonkeyPatch) -> Slow:
        engine = Slow()
        monkeypatch.setattr(app, "_open_engine", lambda: engine)
        app.config.searchable_metadata = {"tenant_id", "user.id"}
        return engine

    def test_to_its_end(self, slow: Slow, mognet: Mognet) -> None:
        said = mognet("store", "reindex")
        assert (said.code, said.out) == (0, "indexed: tenant_id, user.id; 2,500 jobs looked at\n")
        assert said.err == "indexing: 1,000 of about 2,500 jobs\nindexing: 2,000 of about 2,500 jobs\n"
        assert slow.declared == ({"tenant_id", "user.id"}, True)
        assert mognet("store", "reindex", "--json").json == {"keys": ["tenant_id", "user.id"], "jobs": 0}

    def test_stopped_and_begun_again(self, slow: Slow, mognet: Mognet, capsys: pytest.CaptureFixture[str]) -> None:
        slow.stop_at = 1500
        with pytest.raises(asyncio.CancelledError):
            mognet("store", "reindex")
        assert "interrupted after 1,000 jobs, about 1,500 are left; the next `store reindex` goes on from here" in capsys.readouterr().err
        assert mognet("store", "reindex", "--json").json["jobs"] == 1500

    def test_without_keys(self, slow: Slow, app: App, mognet: Mognet) -> None:
        app.config.searchable_metadata = set()
        slow.left = 0
        assert "no key is in searchable_metadata" in mognet("store", "reindex").out
        assert slow.declared == (set(), True)


LOOK = """
import fcntl, signal, sys, termios
from mognet import App, Request
from mognet.cli import main

fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # its terminal's Ctrl-C is for it
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where whoever began the tests ignores it
app = App("kitchen", url="memory://")
connect = app.connect

async def connect_and_fill():
    fresh = app._engine is None
    await connect()
    if fresh:
        await app.submit_many([Request(name="kitchen.cook", metadata={"tenant_id": "acme"}) for _ in range(3)])

app.connect = connect_and_fill
sys.modules["kitchen"] = sys.modules["__main__"]
main(["kitchen", "tasks", "delete", "--name", "kitchen.cook"])
"""


@pytest.mark.parametrize(("typed", "code", "said"), [("y\n", 0, "3 jobs deleted"), ("\n", 5, "nothing was done"), ("\x03", 130, "[y/N]")])
def test_the_question(typed: str, code: int, said: str, tmp_path: Path) -> None:
    """At a terminal it asks, and Ctrl-C ends it at once."""
    ours, theirs = pty.openpty()
    script = tmp_path / "look.py"
    script.write_text(LOOK)
    command, environ = [sys.executable, str(script)], {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, cwd=tmp_path, env=environ)
    os.close(theirs)
    try:
        screen = read_until(ours, "[y/N]")
        assert "delete 3 jobs (3 PENDING)? [y/N]" in screen
        os.write(ours, typed.encode())
        screen += read_until(ours, None)
        assert process.wait(30) == code
        assert said in screen
        assert "Traceback" not in screen
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, text: str | None) -> str:
    """What is written until a text comes, or until nobody writes any more."""
    screen, end = "", time.monotonic() + 60
    while text is None or text not in screen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"it writes no more: {screen!r}"
        try:
            screen += os.read(terminal, 4096).decode()
        except OSError:  # it has left
            assert text is None, screen
            break
    return screen


def test_ids_are_looked_up_before_anything_is_done(jobs: list[str], mognet: Mognet) -> None:
    assert mognet("tasks", "retry", jobs[1], str(uuid4())).code == 3
    assert mognet("tasks", "delete", jobs[1], "abc", "--yes").code in (2, 3)
    assert mognet("tasks", "get", jobs[1], "--json").json["state"] == "FAILURE"


class TestSeveral:
    """Jobs that are named, of which one cannot be dealt with: what was done is told, and that nothing was."""

    def test_one_is_refused_at_once(self, jobs: list[str], mognet: Mognet) -> None:
        good, bad, waiting = jobs
        for words in (["retry", bad, good], ["revoke", waiting, good], ["retry", bad, str(uuid4())]):
            said = mognet("tasks", *words, "--json")
            assert (said.code, said.json) == (3 if words[2] != good else 5, [])
            assert said.err.count("\n") == 1
            assert mognet("tasks", *words).out == ""
        assert mognet("tasks", "retry", good, "--json").out == "", "one id has no list"

    def test_a_tombstone_among_them(self, jobs: list[str], mognet: Mognet) -> None:
        unborn = str(uuid4())
        assert mognet("tasks", "revoke", unborn, "--force").code == 0
        said = mognet("tasks", "retry", jobs[1], unborn, "--json")
        assert (said.code, said.json) == (5, [])
        assert "it was revoked before it was submitted" in said.err
        assert mognet("tasks", "get", jobs[1], "--json").json["state"] == "FAILURE", "none runs again"

    def test_one_is_refused_on_the_way(self, app: App, jobs: list[str], mognet: Mognet, monkeypatch: pytest.MonkeyPatch) -> None:
        retry = app.retry

        async def lost(id: UUID, **wish: Any) -> Any:
            if str(id) == second:
                raise NotRetryable(id, "what it was called with is not kept any more")
            return await retry(id, **wish)

        (second,) = map(str, submit(app, burn()))
        work(app)
        monkeypatch.setattr(app, "retry", lost)
        said = mognet("tasks", "retry", jobs[1], second, "--json")
        assert (said.code, [job["id"] for job in said.json]) == (5, [jobs[1]])
        assert "is not kept any more" in said.err
        assert mognet("tasks", "get", jobs[1], "--json").json["state"] == "PENDING"


def test_no_state_is_not_any_state(jobs: list[str], mognet: Mognet) -> None:
    """An empty variable of a shell must not make a command be about all jobs."""
    for command in ("retry", "revoke", "delete", "list"):
        for words in (["--state", ""], ["--state", " , ", "--where", "tenant_id=acme"]):
            said = mognet("tasks", command, *words, *(["--yes"] if command != "list" else []))
            assert said.code == 2
            assert "--state names no state" in said.err
    assert [job["state"] for job in mognet("tasks", "list", "--json").json] == ["PENDING", "FAILURE", "SUCCESS"]


def test_a_store_that_is_not_there_is_not_made(mognet: Mognet, tmp_path: Path) -> None:
    file = tmp_path / "mistyped.db"
    for words in (
        *(["tasks", each] for each in ("list", "count", "watch")),
        ["tasks", "get", "abc"],
        ["tasks", "delete", "--state", "failure", "--yes"],
        ["queues", "list"],
        ["nodes", "status"],
        ["store", "reindex"],
        ["top"],
    ):
        said = mognet("--url", f"sqlite:///{file}", *words)
        assert said.code == 4
        assert said.err.startswith(f"error: the engine cannot be reached: there is no store at {file}: the first `run`,")
        assert not file.exists()
    assert mognet("--url", f"sqlite:///{file}", "store", "info").code == 0, "which says that there is none yet"
    assert not file.exists()
    assert mognet("--url", f"sqlite:///{file}", "submit", "cook", "dish=soup").code == 0
    assert mognet("--url", f"sqlite:///{file}", "tasks", "count", "--json").json == {"PENDING": 1}


def test_any_key_can_be_a_label(mognet: Mognet) -> None:
    """And what is labelled with these words is found by the same words."""
    words = ["--metadata", "user-id=ada", "--metadata", "a.b:=1", "--metadata", "d:e=f"]
    id = mognet("submit", "cook", "dish=soup", *words).out.strip()
    assert mognet("tasks", "get", id, "--json").json["metadata"] == {"user-id": "ada", "a": {"b": 1}, "d:e": "f"}
    assert listed(mognet, *("--where" if word == "--metadata" else word for word in words)) == [id]
    said = mognet("submit", "cook", "dish=soup", "--metadata", "=ada")
    assert (said.code, said.err) == (2, "error: --metadata '=ada' is no label: write key=text, key:=JSON, or key=@FILE\n")


def test_a_column_of_no_key(jobs: list[str], mognet: Mognet) -> None:
    assert "there is no column 'metadata:';" in mognet("tasks", "list", "--columns", "id,metadata:").err
