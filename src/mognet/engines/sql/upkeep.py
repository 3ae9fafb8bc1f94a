"""Putting back in line what was lost, and deleting what has expired."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from mognet.engines.sql import changes, labels
from mognet.engines.sql import statements as sql
from mognet.engines.sql.ending import end_trees, remove, value_key
from mognet.engines.sql.session import NUMBERS, Finish, Operation, Session, dump, load
from mognet.states import ResultState


class Upkeep(NamedTuple):
    """What a sweep did."""

    recovered: int
    late: int
    carried: int
    expired: int
    more: bool


def sweep(grace: float, limit: int) -> Operation[Upkeep]:
    """Put lost jobs back in line, and those that a broker has carried for too long; end what waits too late; delete what has expired.

    And write the labels of jobs that others have left without.
    """
    asked = time.monotonic()

    def work(session: Session) -> Finish[Upkeep]:
        # Who waited for the file together with this could renew no lease, and comes now. (Only once: the file may always be busy.)
        session.passed_over = asked < session.held_up and not session.passed_over
        lost, queues = (not session.passed_over and session.one(sql.LOST, session.app, session.now, limit)) or ("[]", "[]")
        recovered = session.run(sql.RECOVER, session.app, lost) if lost != "[]" else 0
        changes.note(session, load(lost))
        late = session.json(sql.LATE, session.app, session.now, limit)
        tell = end_trees(session, late)
        carried, others = session.one(sql.CARRIED, session.app, session.now - grace, limit) or ("[]", "[]")
        lined_up = session.run(sql.LINE_UP, session.app, carried) if carried != "[]" else 0
        expiring = session.json(sql.EXPIRED, session.app, session.now, limit)
        count = _clean(session, expiring)
        labels.catch_up(1, limit)(session)

        def finish() -> Upkeep:
            tell()
            if recovered or lined_up:
                session.ears.ring({*load(queues), *load(others)})
            return Upkeep(recovered, len(late), lined_up, count, limit in (recovered, len(late), lined_up, len(expiring)))

        return finish

    return work


def _clean(session: Session, rows: Sequence[tuple[int, int, int, int]]) -> int:
    gone = [seq for seq, _, is_gone, _ in rows if is_gone]
    values = [(seq, has_value) for seq, state, is_gone, has_value in rows if not is_gone and state >= NUMBERS[ResultState.SUCCESS]]
    notes = [seq for seq, state, is_gone, _ in rows if not is_gone and state < NUMBERS[ResultState.SUCCESS]]
    count = len(gone)
    if gone:
        remove(session, gone)
    if values:
        count += sum(has_value for _, has_value in values)
        count += session.run(sql.DROP_CONTENTS, dump([value_key(seq) for seq, _ in values]))
        session.run(sql.CLEANED, session.app, dump([seq for seq, _ in values]))
    if notes:
        count += session.run(sql.DROP_NOTES, dump(notes))
        session.run(sql.CLEANED, session.app, dump(notes))
    return count
