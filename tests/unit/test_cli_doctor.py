"""What the doctor sees of an SQLite file, on file systems that are not there."""

from __future__ import annotations

import ast
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mognet.cli.display import Column, Lines, Sheet
from mognet.cli.doctor import waiting
from mognet.engines.findings import client_version, clock, server_version
from mognet.engines.sql.checkup import examine_sqlite, file_system, library

ROOT = Path(__file__).parents[2]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "a b" / "jobs.db"
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    path.chmod(0o600)
    return path


def mounts(folder: Path, *lines: str) -> Path:
    file = folder / "mounts"
    file.write_text("".join(f"{line} rw 0 0\n" for line in lines))
    return file


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuseblk", "fuse"])
def test_network_file_systems_are_refused(database: Path, tmp_path: Path, kind: str) -> None:
    table = mounts(tmp_path, "/dev/a / ext4", f"server:/x {str(database.parent).replace(' ', chr(92) + '040')} {kind}")
    found = {finding.subject: finding for finding in examine_sqlite(database, table)}
    assert found["file system"].grade == "error"
    assert kind in found["file system"].text


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs"])
def test_local_ones_are_not(database: Path, tmp_path: Path, kind: str) -> None:
    found = {
        finding.subject: finding for finding in examine_sqlite(database, mounts(tmp_path, f"/dev/a / {kind}", "server:/x /elsewhere nfs"))
    }
    assert (found["file system"].grade, found["file mode"].grade) == ("ok", "ok")
    assert found["journal"].grade == "warning"


def test_the_deepest_and_latest_mount_counts(tmp_path: Path) -> None:
    path = tmp_path / "x" / "jobs.db"
    table = mounts(tmp_path, "a / ext4", f"b {tmp_path} xfs", f"c {tmp_path} nfs", f"d {tmp_path}/xy cifs", "broken")
    assert file_system(path, table) == (str(tmp_path), "nfs")
    assert file_system(path, tmp_path / "none") is None


def test_a_file_that_others_may_read(database: Path) -> None:
    database.chmod(0o640)
    found = next(finding for finding in examine_sqlite(database) if finding.subject == "file mode")
    assert found.grade == "warning"
    assert found.remedy is not None
    assert found.remedy.startswith("chmod 600 ")


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    grades = [finding.grade for finding in examine_sqlite(tmp_path / "none.db") if finding.subject == "journal"]
    assert grades == ["error"]


def test_the_version_that_lost_the_bug() -> None:
    assert [library(version).grade for version in ((3, 40, 1), (3, 51, 2), (3, 51, 3), (3, 52, 0))] == ["warning", "warning", "ok", "ok"]


async def test_clocks() -> None:
    async def ahead() -> float:
        return time.time() + 30

    async def right() -> float:
        return time.time()

    found = await clock(ahead)
    assert (found.grade, "30.0 s ahead of" in found.text) == ("warning", True)
    assert (await clock(right)).grade == "ok"


def test_versions_below_those_tested() -> None:
    assert [server_version("server", "x", text, (3, 10)).grade for text in ("3.9.28", "3.10.0", "4.1.2-rc.1", "odd")] == [
        "warning",
        "ok",
        "ok",
        "warning",
    ]
    assert client_version("pytest", "redis", (999,)).grade == "warning"
    assert client_version("pytest", "redis", (1,)).grade == "ok"


def test_what_a_small_terminal_leaves_out() -> None:
    sheet = Sheet((Column("N"),), [[str(number)] for number in range(50)])
    assert (len(sheet.fit(10).rows), sheet.fit(10).more) == (8, 42)
    assert sheet.fit(51) is sheet
    shown = Lines([["a"], ["b"], ["c"]]).fit(2)
    assert shown.plain() == "a\n… and 2 more: a taller window shows them"


WITHOUT = """
import sys
sys.modules[{module!r}] = None
from mognet.engines import engine_factory
from mognet.engines.checkups import checkups
from mognet.exceptions import ImproperlyConfigured
for look in (checkups, engine_factory):
    try:
        look(app="kitchen", **{place!r})
    except ImproperlyConfigured as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("extra", "module", "place"),
    [
        ("postgres", "psycopg", {"url": "postgresql://localhost/jobs"}),
        ("redis", "redis", {"url": "redis://localhost"}),
        ("amqp", "aiormq", {"url": "memory://", "broker": ["amqp://localhost"]}),
    ],
)
def test_a_client_library_that_is_missing(extra: str, module: str, place: dict[str, object]) -> None:
    """In a process of its own, where nothing has been imported yet."""
    code = WITHOUT.format(module=module, place=place)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.count(f'pip install "mognet[{extra}]"') == 2
    needs = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith(f"{extra} = "))
    assert module in needs


def test_one_job_and_more() -> None:
    assert (waiting(1), waiting(2)) == ("1 job waits", "2 jobs wait")


def test_each_finding_comes_with_what_mends_it() -> None:
    """But for an app that cannot be loaded, where the reason says it."""
    files = [
        *(ROOT / "src/mognet/engines").rglob("checkup*.py"),
        *(ROOT / f"src/mognet/{name}.py" for name in ("engines/findings", "cli/doctor")),
    ]
    calls = [node for file in files for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    bad = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ("warning", "error")]
    assert len(bad) > 30
    assert [ast.unparse(call) for call in bad if len(call.args) < 3] == ["error('app', clean(problem))"]
