"""How jobs end, and how what they leave goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from mognet.engines.sql import changes, labels
from mognet.engines.sql import statements as sql
from mognet.engines.sql.session import INLINE, NUMBERS, Row, Session, dump, make_record
from mognet.outcomes import Outcome
from mognet.states import ResultState


def body_key(seq: int) -> int:
    """Where a job's body stands, if it is large."""
    return 2 * seq


def value_key(seq: int) -> int:
    """Where a job's value stands, if it is large."""
    return 2 * seq + 1


def end(session: Session, state: ResultState, seqs: Sequence[int], ttl: float | None) -> None:
    """Bring jobs to a final state without a value; their bodies stay, so that they can be submitted again."""
    rows = dump(seqs)
    session.run(sql.END, session.app, NUMBERS[state], session.now, ttl, None, None, rows)
    session.run(sql.DROP_NOTES, rows)


def end_trees(session: Session, tops: Sequence[tuple[int, float | None]]) -> Callable[[], None]:
    """Revoke jobs (row, how long to keep them) and all unfinished ones below; answer what tells of it after the commit."""
    ended: set[int] = set()
    for seq, ttl in tops:
        tree = session.json(sql.UNFINISHED_TREE, session.app, seq, session.now)
        end(session, ResultState.REVOKED, tree, ttl)
        ended.update(tree)
    changes.note(session, sorted(ended))
    if not ended or not session.ears.expected():
        return lambda: None
    cursor = session.open(sql.RECORDS, session.app, dump(ended))
    return lambda: session.ears.tell_done([(make_record(row[1:]), None) for row in cursor.fetchall()])


def settle(session: Session, fates: Sequence[tuple[int, Outcome]], large_bodies: Sequence[int]) -> None:
    """Bring jobs to the ends of their attempts. ``large_bodies`` are the rows of those whose body is in content, if it is anywhere."""
    alike: defaultdict[tuple[ResultState, float | None, float | None], list[tuple[int, bytes | None]]] = defaultdict(list)
    for seq, outcome in fates:
        value_ttl = outcome.ttl if outcome.value is None else outcome.value_ttl
        alike[outcome.state, outcome.ttl, value_ttl].append((seq, outcome.value))
    for (state, ttl, value_ttl), values in alike.items():
        _end_with(session, values, (session.app, NUMBERS[state], session.now, ttl, value_ttl))
    large = [(value_key(seq), outcome.value) for seq, outcome in fates if outcome.value is not None and len(outcome.value) > INLINE]
    if large:
        session.blocks(sql.put_contents, large)
    if large_bodies:
        done = {seq for seq, outcome in fates if outcome.state is ResultState.SUCCESS}
        session.run(sql.DROP_CONTENTS, dump([body_key(seq) for seq in large_bodies if seq in done]))
    session.run(sql.DROP_NOTES, dump([seq for seq, _ in fates]))


def _end_with(session: Session, values: Sequence[tuple[int, bytes | None]], how: Row) -> None:
    rows = [(seq, value if value is None or len(value) <= INLINE else None) for seq, value in values]
    if len({value for _, value in rows}) == 1:
        session.run(sql.END, *how, rows[0][1], dump([seq for seq, _ in rows]))
    else:
        session.blocks(sql.end_with, rows, before=how)


def remove(session: Session, seqs: Sequence[int]) -> None:
    """Delete jobs with all that belongs to them."""
    rows = dump(seqs)
    labels.remove(session, seqs)
    session.run(sql.DROP_CONTENTS, dump([key(seq) for seq in seqs for key in (body_key, value_key)]))
    session.run(sql.DROP_NOTES, rows)
    session.run(sql.DROP_LOGS, rows)
    session.run(sql.DROP_JOBS, session.app, rows)
