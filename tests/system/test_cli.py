"""The command line as a user has it: processes, signals, pipes, an SQLite file."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as Unix has them")

SOURCE = """
import asyncio
import time

from mognet import App, AppConfig, Context

app = App("kitchen", AppConfig(lease=2, sweep_interval=0.5))


@app.task
async def cook(context: Context, dish: str, seconds: float = 0.0) -> str:
    await context.progress(1, 2, "stirring")
    print("cooking", flush=True)
    await asyncio.sleep(seconds)
    return f"{dish} is served"


@app.task
def grind(seconds: float) -> None:
    print("grinding", flush=True)
    time.sleep(seconds)


@app.task
async def block() -> None:
    print("blocking", flush=True)
    time.sleep(60)


@app.task
async def stubborn() -> None:
    print("sulking", flush=True)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass


@app.task
async def shout(context: Context) -> None:
    import logging

    logging.getLogger("kitchen").warning("hot\\x1b[2J\\rcold")


@app.task
async def talk(context: Context) -> None:
    async for _ in context.track(range(300)):
        print("…", flush=True)
        await asyncio.sleep(0.1)
"""

Mognet = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "meals.py").write_text(SOURCE)
    (tmp_path / "mognet.toml").write_text("")  # the project's root: nothing above it plays a part
    own = {key: value for key, value in os.environ.items() if not key.startswith("MOGNET_") and key not in ("NO_COLOR", "COLUMNS")}
    return own | {"PYTHONUNBUFFERED": "1"}


@pytest.fixture
def mognet(tmp_path: Path, environment: dict[str, str]) -> Mognet:
    def run(*words: str, timeout: float = 30, app: str = "meals") -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "mognet", *([app] if app else []), *words]
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=timeout, check=False)

    return run


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "mognet", "meals", *words]
        process = subprocess.Popen(line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def until(process: subprocess.Popen[str], text: str) -> list[str]:
    """Read the process's output until a line holds the text."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if text in line:
            return lines
    raise AssertionError(f"it ended without saying {text!r}: {lines}")


def job(mognet: Mognet, id: str) -> Any:
    return json.loads(mognet("tasks", "get", id, "--json").stdout)


class TestRun:
    def test_the_first_lines(self, start: Start, tmp_path: Path) -> None:
        worker = start("run", "-c", "7")
        first, second, third = until(worker, "ready in")
        assert re.fullmatch(r"mognet \S+ · sqlite:///\S+/\.mognet/kitchen\.db · node \d+@\S+ · 7 slots", first)
        assert str(tmp_path / ".mognet" / "kitchen.db") in first
        assert second == "6 tasks · 1 queue: tasks"
        assert re.fullmatch(r"ready in \d+\.\d\d s — Ctrl-C stops it gently", third)
        worker.send_signal(signal.SIGINT)
        assert until(worker, "stopped")[0] == "SIGINT: stopping"
        assert worker.wait(10) == 0

    def test_burst(self, mognet: Mognet) -> None:
        ids = [mognet("submit", "cook", f"dish={n}").stdout.strip() for n in range(2)]
        done = mognet("run", "--burst")
        assert done.returncode == 0
        assert [job(mognet, id)["state"] for id in ids] == ["SUCCESS", "SUCCESS"]

    def test_one_signal_lets_jobs_end(self, start: Start, mognet: Mognet) -> None:
        worker = start("run")
        until(worker, "ready in")
        id = mognet("submit", "cook", "dish=soup", "seconds=1.5").stdout.strip()
        until(worker, "cooking")
        worker.send_signal(signal.SIGTERM)
        until(worker, "SIGTERM: stopping, 1 running job may go on for 25 s")
        assert worker.wait(15) == 0
        assert job(mognet, id)["state"] == "SUCCESS"

    @pytest.mark.parametrize(("words", "says"), [(("cook", "dish=soup", "seconds=60"), "cooking"), (("grind", "seconds=60"), "grinding")])
    @pytest.mark.parametrize("signals", [1, 2])
    def test_then_they_are_handed_back(self, start: Start, mognet: Mognet, words: tuple[str, ...], says: str, signals: int) -> None:
        worker = start("run", *(("--grace", "0.5") if signals == 1 else ()))
        until(worker, "ready in")
        id = mognet("submit", *words).stdout.strip()
        until(worker, says)
        began = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        until(worker, "SIGTERM: stopping")
        if signals == 2:
            worker.send_signal(signal.SIGTERM)
            until(worker, "handing back 1 running job now")
        assert worker.wait(15) == 0
        assert time.monotonic() - began < 8
        record = job(mognet, id)
        assert (record["state"], record["unexpected_retry_count"]) == ("SUSPENDED", 0)

    @pytest.mark.parametrize(("task", "says"), [("stubborn", "sulking"), ("block", "blocking")])
    def test_the_third_signal_leaves_at_once(self, start: Start, mognet: Mognet, task: str, says: str) -> None:
        worker = start("run")
        until(worker, "ready in")
        mognet("submit", task)
        until(worker, says)
        for _ in range(3):
            worker.send_signal(signal.SIGTERM)
            time.sleep(0.2)  # or the kernel makes one signal of them
        assert worker.wait(5) == 130

    def test_an_engine_that_is_not_there_yet(self, start: Start, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_text("")
        worker = start("run", "--url", f"sqlite:///{file}/jobs.db")
        until(worker, "cannot connect, trying again")
        file.unlink()
        until(worker, "ready in")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0

    def test_a_signal_while_it_tries_to_connect(self, start: Start, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        worker = start("run", "--url", f"sqlite:///{tmp_path}/file/jobs.db")
        until(worker, "cannot connect, trying again")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 4

    def test_logs_as_json(self, mognet: Mognet) -> None:
        mognet("submit", "shout")
        done = mognet("run", "--burst", "--log-format", "json")
        assert done.stdout == ""
        assert "\x1b" not in done.stderr
        records = [json.loads(line) for line in done.stderr.splitlines()]
        shout = next(record for record in records if record["logger"] == "kitchen")
        assert (shout["level"], shout["message"], shout["task"]) == ("WARNING", "hot\x1b[2J\rcold", "meals.shout")
        assert records[0]["message"].startswith("mognet ")

    def test_logs_by_a_format(self, mognet: Mognet) -> None:
        mognet("submit", "shout")
        done = mognet("run", "--burst", "--log-format", "%(task)s|%(message)s", "--log-level", "warning")
        assert done.stderr == "meals.shout|hot[2J cold\n"


class TestCall:
    def test_value_and_the_rest_on_their_own_streams(self, start: Start, mognet: Mognet) -> None:
        until(start("run"), "ready in")
        done = mognet("call", "cook", "dish=pea soup", "seconds=0.6")
        assert (done.returncode, done.stdout) == (0, '"pea soup is served"\n')
        lines = done.stderr.splitlines()
        assert re.fullmatch(r"✓ succeeded in \d+(\.\d)? m?s, waited \d+(\.\d)? m?s", lines[-1])
        assert any(re.fullmatch(r"meals\.cook [0-9a-f]{8} RUNNING on \d+@\S+", line) for line in lines)

    def test_interrupted_it_leaves_the_job_alone(self, start: Start, mognet: Mognet) -> None:
        until(start("run"), "ready in")
        caller = start("call", "cook", "dish=soup", "seconds=2")
        until(caller, "RUNNING")
        caller.send_signal(signal.SIGINT)
        said = until(caller, "interrupted; the job goes on")[-1]
        assert caller.wait(10) == 130
        assert caller.stdout is not None
        assert "Traceback" not in caller.stdout.read()
        id = re.search(r"tasks get ([0-9a-f-]{36})", said)
        assert id is not None
        deadline = time.monotonic() + 15
        while job(mognet, id[1])["state"] != "SUCCESS":
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def test_timeout(self, mognet: Mognet) -> None:
        done = mognet("call", "cook", "dish=soup", "--timeout", "300ms")
        assert (done.returncode, done.stdout) == (124, "")


def test_poll_shows_one_document_per_line(start: Start, mognet: Mognet) -> None:
    id = mognet("submit", "cook", "dish=soup").stdout.strip()
    looking = start("tasks", "tree", id, "--poll", "0.1", "--json")
    assert looking.stdout is not None
    assert [json.loads(looking.stdout.readline())["state"] for _ in range(2)] == ["PENDING", "PENDING"]
    assert mognet("run", "--burst").returncode == 0
    until(looking, '"SUCCESS"')
    looking.send_signal(signal.SIGINT)
    looking.communicate(timeout=10)
    assert looking.returncode == 130


@pytest.mark.parametrize("words", ["tasks list --poll 0.05 --json", "tasks watch ID --json", "tasks watch ID", "tasks logs ID -f"])
def test_a_closed_pipe_ends_quietly(start: Start, mognet: Mognet, environment: dict[str, str], tmp_path: Path, words: str) -> None:
    environment |= {"MOGNET_KEEP_LOGS": "10", "MOGNET_KEEP_PRINTS": "true"}
    id = mognet("submit", "talk").stdout.strip()
    start("run")
    line = f"'{sys.executable}' -m mognet meals {words.replace('ID', id)} | head -n 1"
    done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_an_unreachable_engine(mognet: Mognet) -> None:
    done = mognet("submit", "cook", "dish=soup", "--url", "sqlite:////proc/nowhere/jobs.db")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("error: the engine cannot be reached: /proc/nowhere/jobs.db cannot be made")
    assert done.stderr.count("\n") == 1


def test_doctor_on_a_file(mognet: Mognet, tmp_path: Path) -> None:
    done = mognet("doctor", "--json")
    assert done.returncode == 0
    found = {finding["subject"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["journal"]["text"] == "WAL"
    assert found["file mode"]["grade"] == "ok"
    (tmp_path / ".mognet" / "kitchen.db").chmod(0o644)
    found = {finding["subject"]: finding for finding in json.loads(mognet("doctor", "--json").stdout)["findings"]}
    assert found["file mode"]["grade"] == "warning"


def test_version(mognet: Mognet) -> None:
    for words in (("--version",), ("--no-color", "--version")):
        done = mognet(*words, app="")
        assert (done.returncode, done.stdout.split()[0]) == (0, "mognet")


def test_completion_goes_on_behind_the_app(tmp_path: Path, environment: dict[str, str]) -> None:
    def complete(line: str) -> str:
        words = line.split(" ")
        shell = {"_MOGNET_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        command = [sys.executable, "-c", "import sys; sys.argv[0] = 'mognet'; from mognet.cli import main; main()"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment | shell, capture_output=True, text=True, timeout=30, check=False
        ).stdout

    assert complete("mognet ta").split() == ["tasks"]
    assert complete("mognet meals:app ta").split() == ["tasks"]
    assert "revoke" in complete("mognet meals tasks ").split()
    assert "run" in complete("mognet meals ").split()
