"""What jobs log: the last lines of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from mognet.engines.sql import statements as sql
from mognet.engines.sql.session import Finish, Operation, Session
from mognet.records import LogLine, Token


def log(lines: Mapping[Token, Sequence[bytes]], keep: int) -> Operation[set[Token]]:
    """Add lines to the logs of the jobs that tokens hold."""

    def work(session: Session) -> Finish[set[Token]]:
        held = set()
        for token, new in lines.items():
            row = session.one(sql.HOLDER, session.app, token.id.bytes, token.start, token.holder)
            if row is not None:
                _add(session, row[0], new, keep)
                held.add(token)
        return lambda: held

    return work


def _add(session: Session, seq: int, lines: Sequence[bytes], keep: int) -> None:
    (last,) = session.one(sql.LAST_LINE, seq) or (0,)
    first = last + len(lines) - min(keep, len(lines)) + 1
    kept = lines[first - last - 1 :]
    session.connection.executemany(sql.PUT_LINE, [(seq, first + number, line) for number, line in enumerate(kept)])
    session.run(sql.DROP_LINES, seq, last + len(lines) - keep)


def logs(id: UUID, after: int) -> Operation[list[LogLine]]:
    """The lines of a job that are kept."""

    def work(session: Session) -> Finish[list[LogLine]]:
        rows = session.all(sql.LINES, session.app, id.bytes, session.now, after)
        return lambda: [LogLine(*row) for row in rows]

    return work
