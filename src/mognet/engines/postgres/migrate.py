"""The schema: its numbered migrations, brought in under a lock, and refused if it is newer than this mognet."""

from __future__ import annotations

from importlib import resources

from mognet.engines.postgres.connecting import Connection
from mognet.engines.postgres.statements import qualified
from mognet.exceptions import ImproperlyConfigured

LOCK = 0x6D6F676E6574
"""The advisory lock under which a schema is changed; by transaction, so that it works behind a pooler."""

# By a table of its own, not by to_regclass: that may still believe what was so before the lock was waited for.
_EXISTS = """
SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE relname = 'version' AND nspname = %s::text"""
_CREATE = 'CREATE SCHEMA IF NOT EXISTS "mognet"'
_VERSIONS = "CREATE TABLE IF NOT EXISTS mognet.version (version integer PRIMARY KEY, since timestamptz NOT NULL DEFAULT now())"
_READ = "SELECT max(version) FROM mognet.version"
_WRITE = "INSERT INTO mognet.version (version) VALUES (%s)"
_FORGET = "DELETE FROM mognet.version WHERE version = %s"


def migrations(*, down: bool = False) -> dict[int, str]:
    """The texts of all steps by the version that they lead to; ``down``: from which."""
    folder = resources.files("mognet.engines.postgres").joinpath("migrations")
    files = [each for each in folder.iterdir() if each.name.endswith(".sql") and each.name.endswith(".down.sql") == down]
    return {int(each.name[:4]): each.read_text("utf-8") for each in files}


async def schema_version(connection: Connection, schema: str) -> int:
    """Which migration a schema has come to; 0: there is none yet."""
    cursor = await connection.execute(_EXISTS, (schema,))
    row = await cursor.fetchone()
    if row is None:
        return 0
    row = await (await connection.execute(qualified(_READ, schema))).fetchone()
    return int(row[0] or 0) if row is not None else 0


async def migrate(connection: Connection, schema: str, target: int | None = None) -> None:
    """Bring a schema up to date, or to an earlier version; one that is there needs no right to change it."""
    ups, downs = migrations(), migrations(down=True)
    target = len(ups) if target is None else target
    version = await schema_version(connection, schema)
    if version == target:
        return
    _check(version, len(ups), schema)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s::int8)", (LOCK,))
        version = await schema_version(connection, schema)
        _check(version, len(ups), schema)
        if version == 0:
            if not await _has_schema(connection, schema):
                await connection.execute(_CREATE.replace("mognet", schema))
            await connection.execute(qualified(_VERSIONS, schema))
        for number in range(version + 1, target + 1):
            await connection.execute(qualified(ups[number], schema), prepare=False)
            await connection.execute(qualified(_WRITE, schema), (number,))
        for number in range(version, target, -1):
            await connection.execute(qualified(downs[number], schema), prepare=False)
            await connection.execute(qualified(_FORGET, schema), (number,))


def _check(version: int, known: int, schema: str) -> None:
    if version > known:
        raise ImproperlyConfigured(
            f"the schema {schema!r} has version {version}, and this mognet knows none later than {known}: "
            "it was used by a newer mognet. Upgrade here, or name another one with ?schema="
        )


async def _has_schema(connection: Connection, schema: str) -> bool:
    cursor = await connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s::text", (schema,))
    return await cursor.fetchone() is not None


async def app_number(connection: Connection, schema: str, name: str) -> int:
    """The number of an app, which gets one if it has none."""
    find, add = (
        qualified("SELECT app FROM mognet.app WHERE name = %s::text", schema),
        qualified("INSERT INTO mognet.app (name) VALUES (%s::text) ON CONFLICT (name) DO NOTHING", schema),
    )
    while True:
        row = await (await connection.execute(find, (name,))).fetchone()
        if row is not None:
            return int(row[0])
        await connection.execute(add, (name,))
