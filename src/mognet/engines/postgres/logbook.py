"""What jobs log: the last lines of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from mognet.engines.postgres.connecting import Connection
from mognet.engines.postgres.rows import token_text
from mognet.engines.postgres.statements import NOW
from mognet.engines.postgres.tables import Tables
from mognet.records import LogLine, Token

# The holders' rows are locked, so that lines are numbered one after the other; whoever was faster takes the numbers, and this is repeated.
_ADD = """
WITH holder AS MATERIALIZED (
    SELECT job.seq, each.place, each.new FROM
        unnest(%(ids)s::uuid[], %(tokens)s::text[], %(new)s::int8[]) WITH ORDINALITY AS each(id, token, new, place)
        JOIN mognet.job ON job.app = %(app)s AND job.id = each.id AND job.token = each.token
    ORDER BY job.seq FOR NO KEY UPDATE OF job),
last AS MATERIALIZED (
    SELECT seq, place, new, coalesce((SELECT max(number) FROM mognet.log WHERE log.seq = holder.seq), 0) AS number FROM holder),
gone AS (
    DELETE FROM mognet.log USING last WHERE log.seq = last.seq AND log.number <= last.number + last.new - %(keep)s::int8),
added AS (
    INSERT INTO mognet.log (seq, number, line) SELECT last.seq, last.number + each.n, each.line
    FROM unnest(%(places)s::int8[], %(numbers)s::int8[], %(lines)s::bytea[]) AS each(place, n, line) JOIN last USING (place))
SELECT place FROM holder"""

_LINES = f"""
SELECT log.number, log.line FROM mognet.job CROSS JOIN LATERAL (
    SELECT number, line FROM mognet.log WHERE seq = job.seq AND number > %(after)s::int8 ORDER BY number OFFSET 0) AS log
WHERE app = %(app)s AND id = %(id)s AND (expires IS NULL OR expires > {NOW}) ORDER BY number"""  # noqa: S608 - of constants


async def add(tables: Tables, connection: Connection, lines: Mapping[Token, Sequence[bytes]], keep: int) -> set[Token]:
    """Add lines to the logs of the jobs that tokens hold."""
    tokens = list(lines)
    kept = [
        (place, number, line)
        for place, new in enumerate(lines.values(), 1)
        for number, line in enumerate(new, 1)
        if number > len(new) - keep
    ]
    rows = await tables.all(
        connection,
        _ADD,
        ids=[token.id for token in tokens],
        tokens=[token_text(token) for token in tokens],
        new=[len(new) for new in lines.values()],
        places=[place for place, _, _ in kept],
        numbers=[number for _, number, _ in kept],
        lines=[line for _, _, line in kept],
        keep=keep,
    )
    return {tokens[place - 1] for (place,) in rows}


async def read(tables: Tables, connection: Connection, id: UUID, after: int) -> list[LogLine]:
    """The lines that are kept."""
    return [LogLine(number, line) for number, line in await tables.all(connection, _LINES, id=id, after=after)]
