"""``mognet demo``: nothing is lost, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FIGURES = re.compile(r"^tasks (\S+)   workers (\d+)   kills (\d+)   retried (\d+)   lost (\d+)$", re.MULTILINE)

# Large enough that two workers have to work for a few seconds, so that there is a middle to kill one in.
FUNCTION = """
def function_{0}(a, b):
    if a:
        return [each + {0} for each in b if each or a]
    return (a, b, a + b * {0})
"""
LARGE = "\n".join(FUNCTION.format(number) for number in range(700))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where the demo makes its folder; nothing may be left there."""
    place = tmp_path / "temporary"
    place.mkdir()
    yield place
    assert list(place.iterdir()) == []
    assert processes_in(place) == []


def processes_in(place: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*") if Path("/proc/self").exists() else ():
        try:
            if os.readlink(process / "cwd").startswith(str(place)):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "mognet", "demo", *map(str, arguments)]


def environment(place: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(place), "COLUMNS": "80", "MOGNET_URL": "redis://nowhere", "MOGNET_LEASE": "1h", **more}


def run_demo(place: Path, *arguments: str | Path) -> tuple[str, dict[str, int]]:
    done = subprocess.run(
        command(*arguments), cwd=place.parent, env=environment(place), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    figures = FIGURES.search(done.stdout)
    assert figures is not None, done.stdout
    names = ("tasks", "workers", "kills", "retried", "lost")
    return done.stdout, dict(zip(names, (int(figure.replace(",", "")) for figure in figures.groups()), strict=True))


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def test_a_worker_is_killed_and_nothing_is_lost(tmp_path: Path, place: Path) -> None:
    folder = write(tmp_path / "source", {f"package_{number % 4}/file_{number}.py": LARGE for number in range(60)})
    shown, figures = run_demo(place, folder)
    assert figures | {"retried": 0} == {"tasks": 65, "workers": 3, "kills": 1, "retried": 0, "lost": 0}
    assert figures["retried"] > 0
    assert re.search(r"^worker-[12] killed: it ran \d+ task", shown, re.MULTILINE)
    assert re.search(r"^worker-3 started in place of worker-[12]$", shown, re.MULTILINE)
    assert "60 of 60 files; 65 tasks: 65 done" in shown
    assert "package_0" in shown


def test_files_that_cannot_be_parsed_are_findings(tmp_path: Path, place: Path) -> None:
    files: dict[str, str | bytes] = {
        "good.py": "def f(): pass\n",
        "old/two.py": "print 'two'\n",
        "old/nul.py": b"x = 1\0\n",
        "old/coding.py": "# coding: nonsense\n",
        "old/bytes.py": b"x = '\xff'\n",
        "deep/minus.py": "x = " + "-" * 5000 + "1\n",
        "deep/brackets.py": "(" * 1000 + ")" * 1000,
        "deep/dots.py": "x" + ".y" * 20000,
        "deep/sum.py": "x = " + "+".join(["1"] * 20000),
        "odd/\x1b[31m.py": "x =\n",
        "odd/warned.py": "'\\d'\n",
        "empty/__init__.py": "",
    }
    shown, figures = run_demo(place, write(tmp_path / "source", files), "--no-kill", "--workers", "1")
    assert figures == {"tasks": 1 + 5 + len(files), "workers": 1, "kills": 0, "retried": 0, "lost": 0}
    assert "could not be parsed" in shown
    assert "\x1b" not in shown
    assert all(len(line) <= 80 for line in shown.splitlines()[1:])


def test_it_can_be_kept_and_looked_into(tmp_path: Path, place: Path) -> None:
    folder = write(tmp_path / "source", {"a.py": "", "b/c.py": "x = 1\n"})
    shown, _ = run_demo(place, folder, "--no-kill", "--keep")
    (kept,) = place.iterdir()
    assert f"kept in {kept}" in shown
    commands = shown.partition("to look into it:\n")[2].replace("mognet ", f"{sys.executable} -m mognet ")
    looked = subprocess.run(
        ["sh", "-ec", commands], env=environment(place, NO_COLOR="1"), capture_output=True, text=True, timeout=60, check=False
    )
    assert looked.returncode == 0, looked.stderr
    assert looked.stdout.count("SUCCESS") >= 5
    for path in kept.iterdir():
        path.unlink()
    kept.rmdir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_can_be_interrupted(tmp_path: Path, place: Path, number: signal.Signals) -> None:
    folder = write(tmp_path / "source", {f"package/file_{number}.py": LARGE for number in range(60)})
    with subprocess.Popen(
        command(folder), env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    ) as demo:
        assert demo.stdout is not None
        assert any(line == "worker-2 started\n" for line in demo.stdout)
        demo.send_signal(number)
        _, errors = demo.communicate(timeout=30)
    assert demo.returncode == 130
    assert errors == "interrupted: the workers are being ended\n"


@pytest.mark.parametrize(
    ("name", "options", "said"), [("missing", [], "is no folder"), (".", [], "no Python files"), (".", ["--workers", "0"], "--workers")]
)
def test_what_cannot_be_surveyed_is_refused(place: Path, name: str, options: list[str], said: str) -> None:
    done = subprocess.run(command(place / name, *options), env=environment(place), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
