"""What the doctor looks at when jobs are kept in an SQLite file."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

from mognet.cli.findings import Finding, error, ok, warning
from mognet.cli.text import clean

MENDED = (3, 51, 3)
"""The first SQLite without the bug that may damage a file when its write-ahead log starts anew."""

_NETWORK = re.compile(r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ncpfs|glusterfs|lustre|ceph|virtiofs|vboxsf|fuse(\..*)?|fuseblk")
"""File systems whose locks or shared memory WAL cannot rely on."""


def examine_sqlite(path: Path, mounts: Path = Path("/proc/mounts")) -> Iterator[Finding]:
    """Look at the library, the file system, the file's mode and its journal."""
    yield _library(sqlite3.sqlite_version_info)
    yield from _file_system(path, mounts)
    yield from _mode(path)
    yield from _journal(path)


def _library(version: tuple[int, ...]) -> Finding:
    text = f"SQLite {'.'.join(map(str, version))}"
    if version < MENDED:
        bug = f"a rare bug before {'.'.join(map(str, MENDED))} may damage a file when several processes checkpoint it at once"
        return warning("sqlite", f"{text}: {bug}", "keep copies; a newer Python or system library brings a newer SQLite")
    return ok("sqlite", text)


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> tuple[str, str] | None:
    """Mount point and type of the file system that a file is on; None if that cannot be told."""
    try:
        lines = mounts.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    real = path.resolve()
    found = None
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields[1])
        # Of two mounts at one place, the later one covers the earlier.
        if real.is_relative_to(point) and (found is None or len(point) >= len(found[0])):
            found = (point, fields[2])
    return found


def _file_system(path: Path, mounts: Path) -> Iterator[Finding]:
    found = file_system(path, mounts)
    if found is None:
        return
    point, kind = found
    if _NETWORK.fullmatch(kind):
        text = (
            f"{path} is on {clean(kind)} ({clean(point)}), where SQLite's locks cannot be relied on: jobs may be lost or the file damaged"
        )
        yield error("file system", text, "put the file on a local disk: --url sqlite:////var/lib/…/jobs.db")
    else:
        yield ok("file system", f"{clean(kind)} at {clean(point)}")


def _mode(path: Path) -> Iterator[Finding]:
    if os.name != "posix":
        return
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return
    if mode & 0o077:
        yield warning(
            "file mode", f"{path} may be read by others ({mode:04o}), with all arguments and values", f"chmod 600 {shlex.quote(str(path))}"
        )
    else:
        yield ok("file mode", f"{mode:04o}")


def _journal(path: Path) -> Iterator[Finding]:
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
    except sqlite3.Error as problem:
        yield error("journal", f"{path} cannot be opened: {clean(problem)}")
        return
    try:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    except sqlite3.Error as problem:
        yield error("journal", f"{path} cannot be read: {clean(problem)}")
        return
    finally:
        connection.close()
    if mode == "wal":
        yield ok("journal", "WAL")
    else:
        yield warning(
            "journal", f"{mode} instead of WAL: slower, and readers block writers", "stop all workers, then start one: it sets WAL"
        )
