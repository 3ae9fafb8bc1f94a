"""The schema's versions: numbered steps up, and for each but the first one down."""

from __future__ import annotations

import sqlite3
from importlib import resources

from mognet.exceptions import ImproperlyConfigured

_UP, _DOWN = ".sql", ".down.sql"


def newest() -> int:
    """The version that this mognet works with."""
    return max(_texts(_UP))


def bring(connection: sqlite3.Connection, version: int, target: int) -> None:
    """Bring the schema of a database from one version to another, inside the transaction that is under way.

    Raises :class:`ImproperlyConfigured` where no step leads.
    """
    ups, downs = _texts(_UP), _texts(_DOWN)
    if target >= version:
        steps = [ups.get(number) for number in range(version + 1, target + 1)]
    else:
        steps = [downs.get(number) for number in range(version, target, -1)]
    if any(step is None for step in steps):
        raise ImproperlyConfigured(f"no way leads from schema {version} to schema {target}: this mognet knows 1 to {newest()}")
    for step in steps:
        for statement in (step or "").split(";\n"):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {target}")


def _texts(ending: str) -> dict[int, str]:
    files = resources.files("mognet.engines.sql").joinpath("migrations").iterdir()
    wanted = (file for file in files if file.name.endswith(ending) and (ending == _DOWN or not file.name.endswith(_DOWN)))
    return {int(file.name[:4]): file.read_text("utf-8") for file in wanted}
