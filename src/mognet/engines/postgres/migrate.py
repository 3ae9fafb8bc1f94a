"""The schema: its numbered migrations, brought in under a lock, and refused if it is newer than this mognet."""

from __future__ import annotations

from mognet.engines.migrations import steps
from mognet.engines.postgres.connecting import Connection
from mognet.engines.postgres.statements import qualified

PACKAGE = "mognet.engines.postgres"

LOCK = 0x6D6F676E6574
"""The advisory lock under which a schema is changed; by transaction, so that it works behind a pooler."""

# By a table of its own, not by to_regclass: that may still believe what was so before the lock was waited for.
_EXISTS = """
SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE relname = 'version' AND nspname = %s::text"""
_CREATE = 'CREATE SCHEMA IF NOT EXISTS "mognet"'
_VERSIONS = "CREATE TABLE IF NOT EXISTS mognet.version (version integer PRIMARY KEY, since timestamptz NOT NULL DEFAULT now())"
_READ = "SELECT max(version) FROM mognet.version"
_WRITE = "INSERT INTO mognet.version (version) VALUES (%s)"
_FORGET = "DELETE FROM mognet.version WHERE version > %s"


async def schema_version(connection: Connection, schema: str) -> int:
    """Which migration a schema has come to; 0: there is none yet."""
    cursor = await connection.execute(_EXISTS, (schema,))
    row = await cursor.fetchone()
    if row is None:
        return 0
    row = await (await connection.execute(qualified(_READ, schema))).fetchone()
    return int(row[0] or 0) if row is not None else 0


async def migrate(connection: Connection, schema: str, wanted: int | None = None) -> None:
    """Bring a schema to a version, the newest by default; one that has it needs no right to change anything."""
    what = f"the schema {schema!r}"
    while steps(PACKAGE, what, await schema_version(connection, schema), wanted):
        async with connection.transaction():
            if await _is_first(connection):
                await _migrate(connection, schema, what, wanted)
                return
        # Until that one is done. Shared, so that of a crowd nobody waits for all the others.
        await connection.execute("SELECT pg_advisory_xact_lock_shared(%s::int8)", (LOCK,))


async def _is_first(connection: Connection) -> bool:
    row = await (await connection.execute("SELECT pg_try_advisory_xact_lock(%s::int8)", (LOCK,))).fetchone()
    return row == (True,)


async def _migrate(connection: Connection, schema: str, what: str, wanted: int | None) -> None:
    version = await schema_version(connection, schema)
    if version == 0:
        if not await _has_schema(connection, schema):
            await connection.execute(_CREATE.replace("mognet", schema))
        await connection.execute(qualified(_VERSIONS, schema))
    for step in steps(PACKAGE, what, version, wanted):
        await connection.execute(qualified(step.script, schema), prepare=False)
        if step.version > version:
            await connection.execute(qualified(_WRITE, schema), (step.version,))
        else:
            await connection.execute(qualified(_FORGET, schema), (step.version,))


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
