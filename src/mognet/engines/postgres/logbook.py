"""What jobs log: the last lines of each."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from mognet.engines.postgres.connecting import Connection
from mognet.engines.postgres.rows import token_text
from mognet.engines.postgres.statements import NOW
from mognet.engines.postgres.tables import Tables
from mognet.records import LogLine, Token

# The holder's row is locked, so that lines are numbered one after the other; whoever was faster takes the numbers, and this is repeated.
_ADD = """
WITH holder AS MATERIALIZED (
    SELECT seq FROM mognet.job WHERE app = %(app)s AND id = %(id)s AND token = %(token)s::text FOR NO KEY UPDATE),
last AS MATERIALIZED (
    SELECT seq, coalesce((SELECT max(number) FROM mognet.log WHERE log.seq = holder.seq), 0) AS number FROM holder),
gone AS (
    DELETE FROM mognet.log WHERE seq = (SELECT seq FROM last)
        AND number <= (SELECT number FROM last) + cardinality(%(lines)s::bytea[]) - %(keep)s::int8),
added AS (
    INSERT INTO mognet.log (seq, number, line) SELECT seq, last.number + n, line
    FROM last CROSS JOIN unnest(%(lines)s::bytea[]) WITH ORDINALITY AS each(line, n)
    WHERE n > cardinality(%(lines)s::bytea[]) - %(keep)s::int8)
SELECT seq FROM holder"""

_LINES = f"""
SELECT log.number, log.line FROM mognet.job CROSS JOIN LATERAL (
    SELECT number, line FROM mognet.log WHERE seq = job.seq AND number > %(after)s::int8 ORDER BY number OFFSET 0) AS log
WHERE app = %(app)s AND id = %(id)s AND (expires IS NULL OR expires > {NOW}) ORDER BY number"""  # noqa: S608 - of constants


async def add(tables: Tables, connection: Connection, token: Token, lines: Sequence[bytes], keep: int) -> bool:
    """Add lines to the log of the job that a token holds."""
    return bool(await tables.all(connection, _ADD, id=token.id, token=token_text(token), lines=list(lines), keep=keep))


async def read(tables: Tables, connection: Connection, id: UUID, after: int) -> list[LogLine]:
    """The lines that are kept."""
    return [LogLine(number, line) for number, line in await tables.all(connection, _LINES, id=id, after=after)]
