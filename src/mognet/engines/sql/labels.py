"""The index of metadata: which paths are in it, and how it comes and goes.

A new job has no labels yet. They are written for thousands of jobs together, in their order, by the thread of whoever finds that there are
so many (see writer.py), by sweeps, and by ``reindex``. The last row whose labels are written stands in the app's row (``app.indexed``);
jobs behind it are the tail, whose metadata a search looks at one by one. So what is found does not depend on when labels are written, and
of a job in the tail there is never a label: when it is changed or deleted, none has to go.

The paths are those of the file, per app, so that each process indexes what any of them has declared. A session knows them by the number
that grows with each change of them (``app.paths``), at which every transaction that writes metadata looks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence

from mognet.engines.sql import statements as sql
from mognet.engines.sql.connection import labels_of
from mognet.engines.sql.session import Finish, Operation, Session, dump, flat_blocks
from mognet.records import Reindexed

Label = tuple[int, bytes]
"""The number of a path, and the label of a value there."""

Entries = dict[Label, list[int]]
"""Rows by their labels."""

_WIDTH = 3
"""Columns of an entry in the file."""


def catch_up(least: int, most: int) -> Operation[None]:
    """Write labels of the tail, those of ``most`` jobs, if there may be ``least`` in it."""

    def work(session: Session) -> Finish[None]:
        if session.paths() and session.last().seq - session.indexed >= least:
            write(session, most)
        return lambda: None

    return work


def write(session: Session, most: int) -> int:
    """Write the labels of the oldest so many jobs in the tail; answer of how many there were any to be written."""
    paths, (_, high) = session.paths(), session.rows()
    rows = session.all(sql.TAIL, session.indexed, high, most)
    _put(session, _labels_of(paths, rows))
    _set_indexed(session, rows[-1][0] if len(rows) == most else session.last().seq)
    return len(rows)


def _set_indexed(session: Session, seq: int) -> None:
    if seq > session.indexed:
        session.run(sql.INDEXED, session.app, seq)
        session.indexed = seq


def change(session: Session, seq: int, old: bytes, new: bytes) -> None:
    """Index a job anew whose metadata has changed."""
    paths = session.paths()
    if paths and seq <= session.indexed:
        before, after = set(_labels(paths, old)), set(_labels(paths, new))
        _drop(session, {label: [seq] for label in before - after})
        _put(session, {label: [seq] for label in after - before})


def remove(session: Session, seqs: Sequence[int]) -> None:
    """Take jobs out that are about to be deleted; their metadata says where they stand."""
    paths = session.paths()
    indexed = [seq for seq in seqs if seq <= session.indexed]
    if paths and indexed:
        rows = session.all(sql.METADATA, session.app, dump(indexed))
        _drop(session, _labels_of(paths, rows))


def _labels_of(paths: dict[str, int], jobs: Iterable[tuple[int, bytes]]) -> Entries:
    """What the index has of jobs; metadata that many of them have are read once."""
    entries: Entries = defaultdict(list)
    alike: dict[bytes, list[Callable[[int], None]]] = {}
    for seq, metadata in jobs:
        places = alike.get(metadata)
        if places is None:
            places = alike[metadata] = [entries[label].append for label in _labels(paths, metadata)]
        for place in places:
            place(seq)
    return entries


def _labels(paths: dict[str, int], metadata: bytes) -> list[Label]:
    return [(paths[path], label) for path, label in labels_of(metadata, paths).items()]


def _put(session: Session, entries: Entries) -> None:
    values: list[object] = []
    for path, label in sorted(entries):
        seqs, first = entries[path, label], len(values)
        # No bytes: they take four times as long to bind, since sqlite3 looks for an adapter each time.
        values += [path, bytearray(label), None] * len(seqs)
        values[first + 2 :: _WIDTH] = sorted(seqs)
    for size, block in flat_blocks(values, _WIDTH):
        session.connection.execute(sql.put_labels(size), block)


def _drop(session: Session, entries: Entries) -> None:
    session.connection.executemany(sql.DROP_LABEL, [(*label, seq) for label, seqs in entries.items() for seq in seqs])


def declare(wanted: Collection[str], only: bool) -> Operation[frozenset[str]]:
    """Index these paths from now on; answer which of them are indexed for all jobs."""

    def work(session: Session) -> Finish[frozenset[str]]:
        known = session.paths()
        new = sorted(set(wanted) - known.keys())
        gone = [number for path, number in known.items() if only and path not in wanted]
        if new and not known:
            _set_indexed(session, session.last().seq)  # nobody has written labels so far, nor would until all jobs have been walked over
        if new:
            walked = session.one(sql.LAST_ROW, *session.rows())
            for path in new:
                session.run(sql.ADD_PATH, session.app, path, None if walked is None else walked[0])
        if gone:
            session.run(sql.DROP_PATHS, dump(gone))
        if new or gone:
            session.run(sql.PATHS_CHANGED, session.app)
        whole = session.whole()
        return lambda: frozenset(path for path in wanted if path in whole)

    return work


def reindex(limit: int) -> Operation[Reindexed]:
    """Index some more of the jobs that came before their paths were declared, and delete some of what was given up."""

    def work(session: Session) -> Finish[Reindexed]:
        deleted, dropped = _delete_dropped(session, limit)
        behind = session.all(sql.BEHIND, session.app)
        if not behind:
            return lambda: Reindexed(deleted, int(dropped))
        # From the newest job to the oldest, together for those paths that have come as far.
        walked = max(row[2] for row in behind)
        low, _ = session.rows()
        session.paths()
        # First what is in the tail: of a job there, no label is written, nor dropped when it changes. The job in row `walked` may be gone.
        if session.indexed < min(walked, session.last().seq):
            done = write(session, limit)
            return lambda: Reindexed(done + deleted, walked - low + int(dropped))
        rows = session.all(sql.WALK, low, walked, limit)
        paths = {name: path for path, name, at in behind if at == walked}
        _put(session, _labels_of(paths, rows))
        reached = rows[-1][0] - 1 if len(rows) == limit else None
        session.run(sql.WALKED, session.app, walked, reached)
        if reached is None:
            session.run(sql.PATHS_CHANGED, session.app)
        left = max([row[2] - low for row in behind if row[2] != walked] + ([] if reached is None else [max(1, reached - low)]), default=0)
        return lambda: Reindexed(len(rows) + deleted, left + int(dropped))

    return work


def _delete_dropped(session: Session, limit: int) -> tuple[int, bool]:
    """How many labels were deleted, and whether there may be more."""
    deleted = 0
    for (path,) in session.all(sql.DROPPED, session.app):
        deleted += session.run(sql.DELETE_LABELS, path, limit - deleted)
        if deleted >= limit:
            return deleted, True
        session.run(sql.DELETE_PATH, path)
    return deleted, False
