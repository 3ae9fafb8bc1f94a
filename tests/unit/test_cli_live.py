"""What shows jobs while they run: ``tasks watch``, ``tasks tree --watch``, ``top``, and the line of ``call``."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from rich.console import Console

from mognet import App, AppConfig, Context, Result
from mognet.cli import desk as desk_module
from mognet.cli import watch as watch_module
from mognet.cli.desk import Desk
from mognet.cli.display import Column
from mognet.cli.failures import FAILED, OK, single
from mognet.cli.follow import _Live
from mognet.cli.joblogs import show_logs
from mognet.cli.listing import _COLUMNS, _USUAL, list_sheet
from mognet.cli.options import Options
from mognet.cli.picture import Picture
from mognet.cli.top import Controls, show_top, where
from mognet.cli.tree import show_tree
from mognet.cli.watch import Board, watch_tasks
from mognet.codec import describe_error
from mognet.control import NodeStatus, Status
from mognet.entries import pack
from mognet.exceptions import ConnectionError
from mognet.records import Record
from mognet.states import ResultState

NASTY = "evil\x1b]52;c;aGk=\x07\r[red]x\u202e"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "PLAIN_EVERY", 0.0)


def kitchen() -> App:
    app = App("kitchen", AppConfig(node_id="n1"), url=f"memory://{uuid4().hex}")

    @app.task(name="cook")
    async def cook(context: Context, seconds: float = 0.05) -> None:
        await context.progress(1, 4, "stirring")
        await asyncio.sleep(seconds)

    @app.task(name="burn")
    async def burn() -> None:
        raise ValueError(NASTY)

    @app.task(name="menu")
    async def menu(context: Context) -> None:
        await context.gather(*[await context.submit(cook) for _ in range(2)])

    app.by_name = {"cook": cook, "burn": burn, "menu": menu}  # type: ignore[attr-defined]
    return app


def test_the_title_of_top_holds_no_password() -> None:
    shown = where(App("kitchen", url="postgresql://ada:secret@db/jobs"))
    assert "secret" not in shown
    assert "db/jobs" in shown


async def served(app: App, *names: str, work: bool = True) -> list[Result[Any]]:
    """Submit, and work in the background until the app is closed."""
    await app.connect()
    results = [await app.submit(app.by_name[name]) for name in names]  # type: ignore[attr-defined]
    if work:
        app.working = asyncio.create_task(app.start())  # type: ignore[attr-defined]
    return results


async def closed(app: App) -> None:
    await app.close()
    if (working := getattr(app, "working", None)) is not None:
        await working


class TestWatch:
    async def test_lines_until_the_end(self, capsys: pytest.CaptureFixture[str]) -> None:
        app = kitchen()
        [good, bad] = await served(app, "cook", "burn")
        assert await watch_tasks(Desk(app, Options()), [str(good.id), str(bad.id)[:12]]) == FAILED
        lines = capsys.readouterr().out.splitlines()
        assert any(re.fullmatch(rf"cook {str(good.id)[:8]} SUCCESS 1/4 .* ms", line) for line in lines)
        [failure] = [line for line in lines if "FAILURE" in line]
        assert failure.endswith("ValueError: evil]52;c;aGk= [red]x")
        assert "\x1b" not in failure
        assert await watch_tasks(Desk(app, Options()), [str(good.id)]) == OK
        await closed(app)

    async def test_json_is_one_event_per_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        app = kitchen()
        [good, bad] = await served(app, "cook", "burn")
        assert await watch_tasks(Desk(app, Options(), json=True), [str(good.id)]) == OK
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert {event["id"] for event in events} == {str(good.id)}
        assert (events[-1]["state"], events[-1]["error"]) == ("SUCCESS", None)
        assert events[-1]["progress"]["message"] == "stirring"
        assert await watch_tasks(Desk(app, Options(), json=True), [str(bad.id)]) == FAILED
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (last["state"], last["error"]) == ("FAILURE", {"type": "ValueError", "message": NASTY})
        await closed(app)

    async def test_a_pipe_that_breaks_for_several_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object, **__: object) -> None:
            raise BrokenPipeError

        app = kitchen()
        jobs = await served(app, "cook", "cook", "cook")
        await asyncio.gather(*(job.wait() for job in jobs))
        monkeypatch.setattr(watch_module, "print", broken, raising=False)
        with pytest.raises(BaseExceptionGroup) as raised:
            await watch_tasks(Desk(app, Options(), json=True), [str(job.id) for job in jobs])
        assert len(raised.value.exceptions) > 1
        assert type(single(raised.value)) is BrokenPipeError
        await closed(app)

    async def test_all_that_runs(self, capsys: pytest.CaptureFixture[str]) -> None:
        app = kitchen()
        await app.connect()
        assert await watch_tasks(Desk(app, Options()), []) == OK
        assert capsys.readouterr().err == "nothing runs\n"
        results = [await app.submit(app.by_name["cook"], 0.3) for _ in range(3)]  # type: ignore[attr-defined]
        app.working = asyncio.create_task(app.start())  # type: ignore[attr-defined]
        while (await results[-1].refresh()) or results[-1].state != "RUNNING":  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert await watch_tasks(Desk(app, Options()), []) == OK
        assert capsys.readouterr().out.count("SUCCESS") == 3
        await closed(app)

    async def test_a_job_that_goes_away(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mognet.watching.MISSING_EVERY", 0.02)
        app = kitchen()
        [waiting] = await served(app, "cook", work=False)
        watching = asyncio.create_task(watch_tasks(Desk(app, Options()), [str(waiting.id)]))
        while "PENDING" not in capsys.readouterr().out:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await waiting.delete()
        assert await watching == FAILED
        assert "is gone" in capsys.readouterr().err
        await closed(app)


class TestOutage:
    """What has been shown once goes on when the engine is back."""

    @pytest.fixture
    def fails(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        """Lets a method of the engine fail, from its second call on, three times."""
        monkeypatch.setattr(desk_module, "AGAIN", 0.0)
        left = {}

        def spoil(app: App, method: str, after: int) -> None:
            works, left[method] = getattr(app.engine, method), after + 3

            async def spoilt(*args: Any, **kwargs: Any) -> Any:
                left[method] -= 1
                if 0 <= left[method] < 3:
                    raise ConnectionError("gone")
                return await works(*args, **kwargs)

            monkeypatch.setattr(app.engine, method, spoilt)

        yield spoil
        assert left
        assert all(number < 0 for number in left.values())

    async def test_logs(self, capsys: pytest.CaptureFixture[str], fails: Any) -> None:
        app = kitchen()
        [good] = await served(app, "cook")
        fails(app, "logs", 1)
        assert await show_logs(Desk(app, Options()), str(good.id), follow=True, most=None) == OK
        await closed(app)

    async def test_a_tree(self, capsys: pytest.CaptureFixture[str], fails: Any) -> None:
        app = kitchen()
        [menu] = await served(app, "menu")
        fails(app, "get", 3)
        assert await show_tree(Desk(app, Options()), str(menu.id), None, None, None, watch=True) == OK
        assert capsys.readouterr().out.count("cook") >= 2
        await closed(app)

    async def test_why_a_job_failed(self, capsys: pytest.CaptureFixture[str], fails: Any) -> None:
        app = kitchen()
        [bad] = await served(app, "burn")
        await bad.wait()
        fails(app, "value", 0)
        assert await watch_tasks(Desk(app, Options()), [str(bad.id)]) == FAILED
        assert "ValueError" in capsys.readouterr().out
        await closed(app)


@pytest.mark.parametrize(("most", "told"), [(None, ["one", "two"]), (1, ["two"]), (0, [])])
async def test_logs_that_are_followed_begin_where_it_was_asked(
    capsys: pytest.CaptureFixture[str], most: int | None, told: list[str]
) -> None:
    app = kitchen()
    [job] = await served(app, "cook", work=False)
    [claim] = await app.engine.claim("n", ["tasks"], 1, lease=60)
    await app.engine.log({claim.token: [pack(1.0, "INFO", "x", text) for text in ("one", "two")]}, keep=9)
    await app.revoke(job.id)
    assert await show_logs(Desk(app, Options(), json=True), str(job.id), follow=True, most=most) == OK
    assert [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()] == told
    await closed(app)


class TestTree:
    async def test_until_all_has_ended(self, capsys: pytest.CaptureFixture[str]) -> None:
        app = kitchen()
        [menu] = await served(app, "menu")
        assert await show_tree(Desk(app, Options(), json=True), str(menu.id), None, None, None, watch=True) == OK
        trees = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert trees[-1]["state"] == "SUCCESS"
        assert [child["state"] for child in trees[-1]["children"]] == ["SUCCESS", "SUCCESS"]
        child = trees[-1]["children"][0]["id"]
        assert await show_tree(Desk(app, Options()), child, None, None, None, watch=True) == OK
        assert f"cook {child[:8]} SUCCESS" in capsys.readouterr().out
        await closed(app)

    async def test_of_a_part(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It ends with the part, though the whole goes on."""
        app = kitchen()
        [menu] = await served(app, "menu")
        while not await menu.children.count():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        [child, *_] = [child async for child in menu.children.iter_ids()]
        assert await show_tree(Desk(app, Options()), str(child), None, None, None, watch=True) == OK
        assert "SUCCESS" in capsys.readouterr().out
        await closed(app)


class TestTop:
    async def test_as_json_and_in_a_pipe(self, capsys: pytest.CaptureFixture[str]) -> None:
        app = kitchen()
        [bad] = await served(app, "burn")
        await bad.wait()
        running = await app.submit(app.by_name["cook"], 60.0)  # type: ignore[attr-defined]
        while (await running.refresh()) or running.progress is None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert await show_top(Desk(app, Options(), json=True)) == OK
        found = json.loads(capsys.readouterr().out)
        assert [row["queue"] for row in found["queues"]] == ["tasks"]
        assert (found["queues"][0]["running"], found["queues"][0]["workers"]) == (1, 1)
        assert found["nodes"] == [{"node_id": "n1", "queues": ["tasks"], "slots": 100, "running": 1}]
        assert [job["id"] for job in found["running"]] == [str(running.id)]
        assert [(job["id"], job["error"]["type"]) for job in found["failures"]] == [(str(bad.id), "ValueError")]
        assert await show_top(Desk(app, Options())) == OK
        said = capsys.readouterr().out
        assert "1/4 25%" in said
        assert "ValueError: evil]52;c;aGk= [red]x" in said
        assert "\x1b" not in said
        await closed(app)


# --- how it fits a window


def record(state: ResultState, number: int, **fields: Any) -> Record:
    now = time.time()
    given: dict[str, Any] = {"started": now - number, "node": f"node-{number}", "progress": b'[3,10,"%s",0]' % (b"x" * 100)} | fields
    return Record(uuid4(), f"kitchen.with.a.long.name.{number}", "queue", state, 5, now, now, place=number, **given)


def many() -> Iterator[Result[Any]]:
    for number in range(60):
        state = (ResultState.RUNNING, ResultState.SUCCESS, ResultState.FAILURE)[number % 3]
        yield Result(record(state, number, finished=None if number % 3 == 0 else time.time() - number), None)  # type: ignore[arg-type]


def drawn(view: Any, width: int, height: int) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, color_system=None)
    console.print(view.fit(height).rich(width))
    return out.getvalue().rstrip("\n").split("\n")


def full(results: dict[UUID, Result[Any]], failed: dict[UUID, Result[Any]]) -> Picture:
    error = describe_error(ValueError(NASTY))
    nodes = [NodeStatus(node_id=f"n{n}", payload=Status(running_request_ids=[], queues=["a", "b"], slots=9)) for n in range(9)]
    numbers = ("ready", "scheduled", "running", "suspended", "workers")
    queues = [{"queue": f"q{n}"} | dict.fromkeys(numbers, 1_000_000) for n in range(9)]
    running = {id: result for id, result in results.items() if result.state == "RUNNING"}
    return Picture(
        "mognet kitchen", queues, nodes, running, failed, dict.fromkeys(failed, error), place="sqlite:///" + "x" * 100, looked=True
    )


@pytest.mark.parametrize(("width", "height"), [(80, 24), (50, 12), (40, 10), (30, 6), (200, 70)])
def test_pictures_fit_the_window(width: int, height: int) -> None:
    results = {result.id: result for result in many()}
    failed = {id: result for id, result in results.items() if result.failed}
    board = Board(results, dict.fromkeys(failed, describe_error(ValueError(NASTY))))
    picture = replace(full(results, failed), last="q quits")
    for view in (board, picture):
        lines = drawn(view, width, height)
        assert len(lines) <= height
        assert all(len(line) <= width for line in lines)
        assert "\x1b]" not in "".join(lines)
    assert "20 RUNNING" in drawn(board, width, height)[-1] or width <= 50
    assert re.match(r"\S*\.0 +\w{8} RUNNING", drawn(board, width, height)[0]) or width < 40
    assert drawn(picture, width, height)[-1] == "q quits"
    assert "9,000,000 ready, 9,000,000 running" in drawn(picture, width, height)[0] or width <= 50


def picture_of_many() -> Picture:
    results = {result.id: result for result in many()}
    return full(results, {id: result for id, result in results.items() if result.failed})


def test_a_small_window_loses_rows_and_columns_before_tables() -> None:
    picture = picture_of_many()
    heads = [line.split() for line in drawn(picture, 50, 12) if line.isupper() or " TASK" in line]
    assert heads == [
        ["QUEUE", "+8", "READY", "RUNNING", "WORKERS", "NOTE"],
        ["NODE", "+8", "RUNS", "SLOTS", "QUEUES"],
        ["ID", "+18", "TASK", "TOOK", "DONE"],
        ["ID", "+18", "TASK", "STATE", "AGO", "NOTE"],
    ]
    assert sum(bool(re.search(r"\w{8}  \S*name\.\d+ ", line)) for line in drawn(picture, 50, 12)) == 4
    text = "\n".join(drawn(picture, 80, 24))
    assert all(title in text for title in ("QUEUE", "NODE", "STATE", "SCHEDULED", "… and "))
    whole = "\n".join(drawn(picture, 250, 100))
    assert all(title in whole for title in ("SUSPENDED", "MESSAGE", "SLOTS"))
    assert "more" not in whole
    tables = [line for line in drawn(picture, 50, 8) if " TASK" in line or "READY" in line]
    assert len(tables) == 3, "what runs, what failed, and the queues"


@pytest.mark.parametrize(
    ("width", "titles"), [(90, "ID TASK QUEUE STATE AGE TOOK TRY NOTE"), (50, "ID TASK STATE NOTE"), (26, "ID TASK STATE")]
)
def test_a_narrow_list_does_without_columns_and_says_so(width: int, titles: str) -> None:
    rows = [
        ["0123abcd", "shop.orders.parcels.pack_with_care", "a-rather-long-queue", "SUSPENDED", "59 min", "9.9 s", "1", "50% " + "x" * 99]
    ]
    lines = drawn(list_sheet([_COLUMNS[name][0] for name in _USUAL], rows), width, 24)
    assert lines[0].split() == titles.split()
    assert lines[1].startswith("0123abcd  …")
    assert "SUSPENDED" in lines[1]
    assert "shop.orders.parcels.pack_with_care".endswith(lines[1].split()[1].removeprefix("…"))
    assert all(len(line) <= width for line in lines)
    missing = [title for title in ("QUEUE", "TRY", "TOOK", "AGE", "NOTE") if title not in titles]
    said = "".join(lines[2:]).removesuffix("…")
    assert f"… a wider window shows {', '.join(missing)}, too".startswith(said)
    assert bool(said) == bool(missing)


@pytest.mark.parametrize("width", [36, 50, 80])
def test_a_narrow_line_of_a_call_keeps_id_and_state(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    line = _Live(console)
    result = next(result for result in many() if result.state == "RUNNING")
    line(Result(result.record._replace(name="module.of.a.package." * 5 + "pack"), None))  # type: ignore[arg-type]
    console.print(line.render())
    [said] = out.getvalue().splitlines()
    assert re.search(rf"…\S*k {str(result.id)[:8]} RUNNING", said)
    assert len(said) <= width


def test_a_narrow_list_of_chosen_columns_keeps_the_first() -> None:
    columns = [
        Column("CREATED"),
        Column("tenant_id", shrink=True),
        Column("STATE"),
        Column("METADATA", shrink=True),
        Column("NODE", shrink=True),
    ]
    rows = [["2026-11-26 20:53:38", "acme" * 9, "RUNNING", "{" * 50, "x" * 30]]
    lines = drawn(list_sheet(columns, rows), 50, 24)
    assert lines[0].split() == ["CREATED", "tenant_id", "STATE"]
    assert lines[1].startswith("2026-11-26 20:53:38  acme")
    assert lines[2] == "… a wider window shows NODE, METADATA, too"


def test_what_is_typed_at_top() -> None:
    controls = Controls()

    def type_(keys: str) -> tuple[str, bool, bool]:
        for key in keys:
            controls.hear(key)
        return controls.name, controls.paused, controls.over

    assert type_("p") == ("", True, False)
    assert "p goes on" in controls.line()
    assert type_("x/Qp") == ("Qp", True, False)
    assert controls.line().startswith("/Qp_")
    assert type_("\x7f\x7f\x7fa\x01ß\n") == ("aß", True, False)
    assert "'aß'" in controls.line()
    assert type_("P/z\x1b") == ("", False, False)
    assert type_("/n\n\x1b") == ("", False, False)
    assert type_("/" + "x" * 1000 + "\n")[0] == "x" * 100
    assert type_("q")[2]


def test_a_picture_of_some_names_and_one_that_stands_still() -> None:
    picture = picture_of_many()
    some = drawn(replace(picture, name="NAME.3"), 200, 70)
    names = {match[0] for line in some if (match := re.search(r"kitchen\S+", line))}
    assert names == {f"kitchen.with.a.long.name.{number}" for number in (3, 30, 32, 33, 35, 36, 38, 39)}
    assert "no failures whose name has 'name.30'" in "\n".join(drawn(replace(picture, name="name.30"), 200, 70))
    still = picture.still()
    before = drawn(still, 200, 70)
    for result in list(picture.running.values()):
        picture.tell(Result(result.record._replace(state=ResultState.SUCCESS), None))  # type: ignore[arg-type]
    assert still.now is not None
    assert drawn(still, 200, 70) == before
    assert "nothing runs" in "\n".join(drawn(picture, 200, 70))


# --- in a real terminal

SOURCE = """
import asyncio, sys
from mognet import App, Context
from mognet.cli.shell import execute

app = App("kitchen", url="memory://live")

@app.task(name="cook")
async def cook(context: Context) -> None:
    async for _ in context.track(range(10)):
        await asyncio.sleep(0.1)

connect = app.connect

async def connect_and_work() -> None:
    await connect()
    if not hasattr(app, "working"):
        app.working = asyncio.create_task(app.start())
        app.result = await app.submit(cook)
        await asyncio.sleep(0.1)

app.connect = connect_and_work
if __name__ == "__main__":
    import termios
    sys.modules["live"] = sys.modules["__main__"]
    before = termios.tcgetattr(0)
    code = execute(["live", *sys.argv[1:]])
    assert termios.tcgetattr(0) == before, "the terminal is left as it was"
    print("code", code)
"""


@pytest.fixture
def terminal(tmp_path: Path) -> Any:
    """Runs a command line in a terminal of 80 by 24; what it wrote."""
    pytest.importorskip("pty", reason="terminals as Unix has them")
    (tmp_path / "live.py").write_text(SOURCE)

    def run(
        *words: str, types: bytes | signal.Signals = b"", when: str = "", then: bytes = b"", after: str = "", **environment: str
    ) -> str:
        process, leader = _started(tmp_path, "live.py", *words, **environment)
        said = b""
        try:
            while True:
                try:
                    piece = os.read(leader, 65536)
                except OSError:  # the other side is closed
                    break
                if not piece:
                    break
                said += piece
                if types and when.encode() in said:
                    process.send_signal(types) if isinstance(types, signal.Signals) else os.write(leader, types)
                    types, when, then = then, after, b""
            process.wait(20)
        finally:
            process.kill()
            process.wait()
            os.close(leader)
        return said.decode()

    return run


def _started(folder: Path, *words: str, **environment: str) -> tuple[subprocess.Popen[bytes], int]:
    """Python in a terminal of its own, and the other end of that."""
    import pty

    leader, follower = pty.openpty()
    env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "CI")}
    env |= {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"} | environment
    process = subprocess.Popen([sys.executable, *words], cwd=folder, stdin=follower, stdout=follower, stderr=follower, env=env, start_new_session=True, preexec_fn=_controlling)  # fmt: skip  # noqa: E501
    os.close(follower)
    return process, leader


def _controlling() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have it ignored (nohup), and so would the command


class TestTerminal:
    def test_bars(self, terminal: Any) -> None:
        said = terminal("tasks", "watch")
        assert "━" in said
        assert "10/10" in said
        assert "SUCCESS" in said
        assert said.rstrip().endswith("code 0")

    def test_without_colour(self, terminal: Any) -> None:
        for words, environment in ((("--no-color",), {}), ((), {"NO_COLOR": "1"})):
            said = terminal("tasks", "watch", *words, **environment)
            assert "SUCCESS" in said
            assert not re.search(r"\x1b\[[\d;]*3[0-9][\d;]*m", said)

    def test_top_ends_with_q(self, terminal: Any) -> None:
        said = terminal("top", types=b"q", when="cook")
        assert "q quits" in said
        assert said.rstrip().endswith("code 0")
        assert "\x1b[?1049l" in said  # the other screen is left

    def test_top_pauses_and_shows_some_names(self, terminal: Any) -> None:
        said = terminal("top", types=b"\x1b[Ap/zz\npq", when="cook")
        assert said.rstrip().endswith("code 0")
        said = terminal("top", types=b"/c\xc3\xb6\n", when="cook", then=b"q", after="only names with 'cö'")
        assert "nothing runs whose name has 'cö'" in said
        assert said.rstrip().endswith("code 0")

    def test_ctrl_c_ends_all_cleanly(self, terminal: Any) -> None:
        for words in (("top",), ("tasks", "watch"), ("call", "cook")):
            said = terminal(*words, types=b"\x03", when="cook")
            assert said.rstrip().endswith("code 130")
            assert "Traceback" not in said
            assert "\x1b[?25h" in said  # the cursor is shown again

    def test_what_is_typed_does_not_tear_the_picture(self, terminal: Any) -> None:
        said = terminal("tasks", "watch", types=b"\nxyz\n", when="cook")
        assert "xyz" not in said
        assert said.rstrip().endswith("code 0")

    @pytest.mark.usefixtures("terminal")
    def test_a_window_made_narrower_shows_nothing_of_the_last_picture(self, tmp_path: Path) -> None:
        import fcntl
        import termios

        process, leader = _started(tmp_path, "live.py", "tasks", "watch", COLUMNS="", LINES="")
        try:
            said = b""
            while b"RUNNING" not in said:
                said += os.read(leader, 65536)
            assert b"\x1b[2J" not in said
            fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
            with suppress(OSError):  # the other side is closed
                while piece := os.read(leader, 65536):
                    said += piece
            assert said.count(b"\x1b[2J") == 1
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
            os.close(leader)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_other_signals_leave_the_terminal_as_it_was(self, terminal: Any, number: signal.Signals) -> None:
        for words in (("top",), ("tasks", "watch")):
            said = terminal(*words, types=number, when="cook")
            assert said.rstrip().endswith(f"code {128 + number}")
            assert "Traceback" not in said
            assert "\x1b[?25h" in said
            assert said.count("\x1b[?1049h") == said.count("\x1b[?1049l")

    @pytest.mark.parametrize("words", [["top"], ["tasks", "watch"]])
    @pytest.mark.usefixtures("terminal")
    def test_a_terminal_that_goes_away(self, tmp_path: Path, words: list[str]) -> None:
        process, leader = _started(tmp_path, "-c", f"import sys; from live import execute; sys.exit(execute(['live', *{words}]))")
        try:
            said = b""
            while b"cook" not in said:
                said += os.read(leader, 65536)
            os.close(leader)
            assert process.wait(20) == 128 + signal.SIGHUP
        finally:
            process.kill()
            process.wait()

    def test_a_terminal_that_cannot_be_drawn_on(self, terminal: Any) -> None:
        said = terminal("tasks", "watch", TERM="dumb")
        assert "RUNNING" in said
        assert "SUCCESS 10/10" in said
        assert "\x1b" not in said
        said = terminal("top", TERM="dumb")
        assert "no failures" in said
        assert said.rstrip().endswith("code 0")
        said = terminal("call", "cook", TERM="dumb")
        assert "RUNNING on" in said
        assert "\x1b" not in said

    def test_top_says_nothing_before_it_has_looked(self, terminal: Any) -> None:
        said = terminal("top", types=b"q", when="cook")
        assert "looking …" in said.partition("RUNNING")[0]
        assert "no worker answers" not in said

    def test_the_line_of_a_call(self, terminal: Any) -> None:
        said = terminal("call", "cook")
        assert re.search(r"[3-9]/10", said)
        assert "✓ succeeded" in said
