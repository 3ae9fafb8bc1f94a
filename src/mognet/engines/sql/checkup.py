"""What the doctor looks at when jobs are kept in an SQLite file."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sqlite3
import stat
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

from mognet.engines.findings import Finding, Schema, error, ok, warning
from mognet.engines.migrations import newest
from mognet.engines.sql.connection import APPLICATION_ID, PACKAGE, explained, open_file, parse_url, patiently
from mognet.exceptions import ImproperlyConfigured
from mognet.redaction import redact_url

MENDED = (3, 51, 3)
"""The first SQLite without the bug that may lose commits when its write-ahead log starts anew."""

_NETWORK = re.compile(r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ncpfs|glusterfs|lustre|ceph|virtiofs|vboxsf|fuse(\..*)?|fuseblk")
"""File systems whose locks or shared memory WAL cannot rely on."""


class SQLiteCheckup:
    """Looks at an SQLite file."""

    title = "SQLite"

    def __init__(self, url: str, app: str) -> None:
        self.shown = redact_url(url)
        self._location = parse_url(url)
        self._path = self._location.path.absolute()

    async def examine(self, queues: Collection[str]) -> list[Finding]:
        found = await asyncio.to_thread(lambda: list(examine_sqlite(self._path)))
        if self._location.synchronous == "normal":
            text = "synchronous=normal: the last moments before a power cut may be missing"
            return [*found, warning("durability", text, "leave synchronous=normal out of the URL")]
        return [*found, ok("durability", "each commit is synced to the disk before it is acknowledged")]

    async def schema(self) -> Schema:
        return await asyncio.to_thread(_schema, self._path)

    async def size(self) -> int:
        files = [self._path, self._path.with_name(f"{self._path.name}-wal")]
        return sum(file.stat().st_size for file in files if file.exists())

    async def migrate(self, version: int | None = None) -> None:
        await asyncio.to_thread(lambda: open_file(self._path, self._location.synchronous, version).close())


def _schema(path: Path) -> Schema:
    """Read without making, changing or recovering anything but what any reader would."""
    known = newest(PACKAGE)
    if not path.exists():
        return Schema(0, known)
    with explained(path), closing(_read_only(path)) as connection:
        owner, tables, version = patiently(
            lambda: connection.execute(
                "SELECT application_id, (SELECT count(*) FROM sqlite_master), user_version FROM pragma_application_id, pragma_user_version"
            ).fetchone()
        )
    if owner != APPLICATION_ID and (owner or tables or version):
        raise ImproperlyConfigured(f"{path} is the database of another program: name another file")
    return Schema(version, known)


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)


def examine_sqlite(path: Path, mounts: Path = Path("/proc/mounts")) -> Iterator[Finding]:
    """Look at the library, the file system, the file's mode and its journal."""
    yield library(sqlite3.sqlite_version_info)
    yield from _file_system(path, mounts)
    yield from _mode(path)
    yield from _journal(path)


def library(version: tuple[int, ...]) -> Finding:
    """The SQLite that Python uses."""
    text = f"SQLite {'.'.join(map(str, version))}"
    if version < MENDED:
        bug = (
            f"before {'.'.join(map(str, MENDED))}, commits may be lost when one process starts the write-ahead log anew while another "
            "checkpoints; mognet's own processes hold the write lock while they checkpoint and do not meet this, other tools might"
        )
        remedy = "leave checkpoints (PRAGMA wal_checkpoint) to mognet; a newer Python or system library brings a newer SQLite"
        return warning("sqlite", f"{text}: {bug}", remedy)
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
        text = f"{path} is on {kind} ({point}), where SQLite's locks cannot be relied on: jobs may be lost or the file damaged"
        yield error("file system", text, "put the file on a local disk: --url sqlite:////var/lib/…/jobs.db")
    else:
        yield ok("file system", f"{kind} at {point}")


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
        connection = _read_only(path)
    except sqlite3.Error as problem:
        yield error("journal", f"{path} cannot be opened: {problem}", f"ls -l {shlex.quote(str(path))}: it has to be the worker's own")
        return
    try:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    except sqlite3.Error as problem:
        remedy = f"sqlite3 {shlex.quote(str(path))} 'PRAGMA integrity_check' says whether it is damaged; then restore a copy"
        yield error("journal", f"{path} cannot be read: {problem}", remedy)
        return
    finally:
        connection.close()
    if mode == "wal":
        yield ok("journal", "WAL")
    else:
        yield warning(
            "journal", f"{mode} instead of WAL: slower, and readers block writers", "stop all workers, then start one: it sets WAL"
        )
