"""The SQL of the SQLite engine. Each statement handles any number of jobs at once.

Parameters: ``?1`` is always the app. Lists of row numbers (``seqs``), queues and holders travel as JSON, ids as one blob of 16
bytes each. What answers several rows while the write lock is held answers them as one JSON text, or sorts them: either way the
work is over after the first step, and the rest can be fetched after the commit.
"""

# ruff: noqa: S608 - the texts are put together from constants and numbers only
from __future__ import annotations

from functools import cache

RECORD = """id, name, queue, state, priority, created, due, metadata, started, finished,
    starts, stops, attempt, parent, root, node, label, ttl, expires, progress, seq"""
"""The columns of a record, in its order."""

_JOB_RECORD = ", ".join(f"job.{column.strip()}" for column in RECORD.split(","))

# One number for each of ?2 ids, and the id itself, from the blob ?3.
_IDS = """WITH RECURSIVE number(n) AS (SELECT 0 WHERE ?2 > 0 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < ?2)"""
_BY_ID = "number CROSS JOIN job ON job.app = ?1 AND job.id = substr(?3, n * 16 + 1, 16)"

# --- set-up

APP_BITS = 40
"""The rows of an app are numbered from ``app << APP_BITS`` on."""

# The number of an app, by its name.
FIND_APP = "SELECT app FROM app WHERE name = ?1"
ADD_APP = "INSERT INTO app (name) VALUES (?1) ON CONFLICT (name) DO NOTHING"

# --- the line

# The highest number given so far, to a job or to a turn, and when the last job was created. Up to the row that the index of metadata has
# reached, no number is given again.
LAST = f"""
SELECT max(app.turn, app.indexed, ?1 << {APP_BITS}, coalesce(job.seq, 0)), coalesce(job.created, 0.0)
FROM app LEFT JOIN job ON job.seq = (SELECT max(seq) FROM job WHERE seq > ?1 << {APP_BITS} AND seq < (?1 + 1) << {APP_BITS})
WHERE app.app = ?1"""
SET_LAST = "UPDATE app SET turn = ?2 WHERE app = ?1"

# Which of these ids are known: row, id, when it expires.
KNOWN = f"{_IDS} SELECT job.seq, job.id, job.expires FROM {_BY_ID}"

# What submit has to know of parents.
PARENTS = f"{_IDS} SELECT job.id, job.state, job.holder, job.token_start, job.expires FROM {_BY_ID}"

PLAIN = "seq, app, id, state, lined, priority, queue, due, arrival, created, name, label, metadata, body"
"""The columns of a new job without a family and a latest moment, as most are: to bind nothing takes three times as long as a number."""

ADDED = f"{PLAIN}, parent, root, latest, late_ttl"
"""The columns of any other."""

# The priorities that wait in each of the queues ?2, with the due time of their first job.
HEADS = """
WITH RECURSIVE head(queue, priority) AS (
    SELECT value, (SELECT max(priority) FROM job WHERE app = ?1 AND lined = 1 AND queue = value) FROM json_each(?2)
    UNION ALL
    SELECT queue, (SELECT max(priority) FROM job WHERE app = ?1 AND lined = 1 AND queue = head.queue AND priority < head.priority)
    FROM head WHERE priority IS NOT NULL)
SELECT queue, priority,
    (SELECT min(due) FROM job WHERE app = ?1 AND lined = 1 AND queue = head.queue AND priority = head.priority) AS due
FROM head WHERE priority IS NOT NULL ORDER BY priority DESC"""

_PICK_QUEUE = "SELECT seq, due, arrival FROM job WHERE app = ?1 AND lined = 1 AND queue = ?{} AND priority = ?2 AND due <= ?3"


@cache
def pick(queues: int) -> str:
    """The first ?4 jobs of priority ?2 that are due by ?3, of so many queues (?5 …): a merge of the ends of index ranges."""
    ranges = " UNION ALL ".join(_PICK_QUEUE.format(5 + number) for number in range(queues))
    return f"SELECT json_group_array(seq) FROM ({ranges} ORDER BY due, arrival LIMIT ?4)"


# Those of the ids that could be claimed from the queues ?5: the first ?6 that are due by ?4.
PICK_IDS = f"""{_IDS}
SELECT json_group_array(seq) FROM (
    SELECT job.seq FROM {_BY_ID}
    WHERE job.lined > 0 AND job.due <= ?4 AND job.queue IN (SELECT value FROM json_each(?5))
    ORDER BY job.priority DESC, job.due, job.arrival LIMIT ?6)"""

# When the first of them that is not due by ?4 will be.
NEXT_OF_IDS = f"""{_IDS}
SELECT min(job.due) FROM {_BY_ID} WHERE job.lined > 0 AND job.due > ?4 AND job.queue IN (SELECT value FROM json_each(?5))"""

# What a claim hands out: jobs as they are before it, with their bodies, best first.
CLAIMED = f"""
SELECT {_JOB_RECORD}, job.seq, job.lined, coalesce(job.body, (SELECT data FROM content WHERE key = job.seq * 2))
FROM json_each(?2) AS pick CROSS JOIN job ON job.seq = pick.value
WHERE job.app = ?1 ORDER BY job.priority DESC, job.due, job.arrival"""

# The holder of each is the random text ?2, and its row.
CLAIM = """
UPDATE job SET state = 1, lined = 0, starts = starts + 1, token_start = starts + 1, holder = ?2 || '-' || seq, touched = 0,
    node = ?3, started = coalesce(started, ?4), lease_end = ?5
WHERE +app = ?1 AND seq IN (SELECT value FROM json_each(?6))"""

# Undo claims that nobody received, as if they had never been: [row, holder, and before: state, whether started, node, lined].
UNCLAIM = """
UPDATE job SET state = json_extract(old.value, '$[2]'), lined = json_extract(old.value, '$[5]'), starts = starts - 1,
    token_start = NULL, holder = NULL, lease_end = NULL,
    started = CASE WHEN json_extract(old.value, '$[3]') THEN started END, node = json_extract(old.value, '$[4]')
FROM json_each(?2) AS old
WHERE +job.app = ?1 AND job.seq = json_extract(old.value, '$[0]') AND job.holder = json_extract(old.value, '$[1]')"""

# Which of these tokens hold their jobs: [number, row, start of the token, whether touched, whether its body is in content]. The holder
# names the row; to be the token's, the row has to name the holder and the id.
HELD = """
SELECT json_group_array(json_array(token.key, job.seq, job.token_start, job.touched, job.body IS NULL))
FROM json_each(?2) AS token CROSS JOIN job ON job.seq = CAST(substr(token.value, instr(token.value, '-') + 1) AS INTEGER)
WHERE job.app = ?1 AND job.holder = token.value AND job.id = substr(?3, token.key * 16 + 1, 16)"""

EXTEND = "UPDATE job SET lease_end = ?2 WHERE +app = ?1 AND seq IN (SELECT value FROM json_each(?3))"

# The end: state ?2 at ?3, by hand or else for ?4 and its value for ?5 seconds (NULL: for ever, or as long as the record).
_END = """
UPDATE job SET state = ?2, finished = ?3, stops = stops + (state = 1), lined = 0, token_start = NULL, holder = NULL, lease_end = NULL,
    notes_expire = NULL, expires = ?3 + coalesce(ttl, ?4), value_expires = ?3 + coalesce(ttl, min(?5, coalesce(?4, ?5)), ?4),
    cleanup = ?3 + coalesce(ttl, min(?5, coalesce(?4, ?5)), ?4), body = CASE WHEN ?2 <> 3 THEN body END"""
END = f"{_END}, result = ?6 WHERE +app = ?1 AND seq IN (SELECT value FROM json_each(?7))"


@cache
def end_with(jobs: int) -> str:
    """The same for each (row, value)."""
    rows = ", ".join(f"(?{6 + 2 * number}, ?{7 + 2 * number})" for number in range(jobs))
    return f"WITH fate(seq, result) AS (VALUES {rows}) {_END}, result = fate.result FROM fate WHERE +app = ?1 AND job.seq = fate.seq"


AGAIN_COLUMNS = 5


@cache
def again(jobs: int) -> str:
    """Back in line: for each (row, state, due or NULL, attempts more, arrival or NULL)."""
    return f"""
WITH fate(seq, state, due, attempts, arrival) AS ({_values(jobs, AGAIN_COLUMNS)})
UPDATE job SET state = fate.state, stops = stops + (job.state = 1), lined = 1, token_start = NULL, holder = NULL, lease_end = NULL,
    due = coalesce(fate.due, job.due), attempt = attempt + fate.attempts, arrival = coalesce(fate.arrival, job.arrival)
FROM fate WHERE job.seq = fate.seq"""


# Records by row.
RECORDS = f"SELECT seq, {RECORD} FROM job WHERE +app = ?1 AND seq IN (SELECT value FROM json_each(?2)) ORDER BY +starts"

# --- bodies, values, notes


@cache
def add_jobs(jobs: int, columns: str = ADDED) -> str:
    """New jobs, but those whose id is known."""
    return f"INSERT INTO job ({columns}) {_values(jobs, width(columns))} ON CONFLICT (app, id) DO NOTHING"


def width(columns: str) -> int:
    """How many columns these are."""
    return columns.count(",") + 1


@cache
def put_contents(rows: int) -> str:
    """Bodies and values that are large."""
    return f"INSERT OR REPLACE INTO content (key, data) {_values(rows, 2)}"


DROP_CONTENTS = "DELETE FROM content WHERE key IN (SELECT value FROM json_each(?1))"
DROP_NOTES = "DELETE FROM note WHERE seq IN (SELECT value FROM json_each(?1))"

# The job that a token (id ?2, start ?3, holder ?4) holds, and when its notes expire.
HOLDER = "SELECT seq, notes_expire FROM job WHERE app = ?1 AND id = ?2 AND token_start = ?3 AND holder = ?4"

NOTES = """
SELECT note.name, note.data FROM job CROSS JOIN note USING (seq)
WHERE job.app = ?1 AND job.id = ?2 AND job.token_start = ?3 AND job.holder = ?4 AND (job.notes_expire IS NULL OR job.notes_expire > ?5)"""
NOTE = "SELECT data FROM note WHERE seq = ?1 AND name = ?2"
PUT_NOTE = "INSERT OR REPLACE INTO note (seq, name, data) VALUES (?1, ?2, ?3)"
DROP_NOTE = "DELETE FROM note WHERE seq = ?1 AND name = ?2"
LIMIT_NOTES = "UPDATE job SET notes_expire = ?2, cleanup = ?2 WHERE seq = ?1"

# --- the records

# The records of these ids, with their number among them.
GET = f"{_IDS} SELECT n, {RECORD} FROM {_BY_ID}"

# One job, with what an update has to know.
JOB = f"SELECT {RECORD}, seq, token_start, holder FROM job WHERE app = ?1 AND id = ?2"

VALUE = """
SELECT coalesce(result, (SELECT data FROM content WHERE key = job.seq * 2 + 1)) FROM job
WHERE app = ?1 AND id = ?2 AND state >= 3 AND (expires IS NULL OR expires > ?3) AND (value_expires IS NULL OR value_expires > ?3)"""

# Whatever changes the record of a running job says so in `touched`.
MERGE = "UPDATE job SET metadata = ?2, touched = 1 WHERE seq = ?1"
PROGRESS = "UPDATE job SET progress = ?2, touched = 1 WHERE seq = ?1"
SUSPEND = "UPDATE job SET state = 2, stops = stops + 1, touched = 1 WHERE seq = ?1"
RESUME = "UPDATE job SET state = 1, starts = starts + 1, touched = 1 WHERE seq = ?1"

# A lifetime by hand: from the end, or from now (?3) if that has come.
SET_TTL = """
UPDATE job SET ttl = ?2, touched = 1, expires = iif(state >= 3, ?3 + ?2, NULL),
    value_expires = iif(state >= 3 AND coalesce(value_expires > ?3, 1), ?3 + ?2, value_expires),
    cleanup = iif(state >= 3, ?3 + ?2, cleanup)
WHERE seq = ?1"""

# A job (row ?2) and its descendants, as far as they have not ended; what has expired by ?3 leads no further.
UNFINISHED_TREE = """
WITH RECURSIVE tree(seq, id, state) AS (
    SELECT seq, id, state FROM job WHERE seq = ?2
    UNION
    SELECT job.seq, job.id, job.state FROM tree CROSS JOIN job ON job.app = ?1 AND job.parent = tree.id
    WHERE job.expires IS NULL OR job.expires > ?3)
SELECT json_group_array(seq) FROM tree WHERE state < 3"""

# Rows of these ids that are in one of these states (?5): [row, whether it can still be seen].
ROWS = f"""{_IDS} SELECT json_group_array(json_array(job.seq, job.expires IS NULL OR job.expires > ?4)) FROM {_BY_ID}
WHERE job.state IN (SELECT value FROM json_each(?5))"""
DROP_RANGE = "DELETE FROM job WHERE seq BETWEEN ?1 AND ?2"
DROP_JOBS = "DELETE FROM job WHERE +app = ?1 AND seq IN (SELECT value FROM json_each(?2))"

# --- what failed, once more

# A job (row ?2) that ended without a value: due at ?3, behind what is in line (?4), with a new body (NULL: in content).
RERUN = """
UPDATE job SET state = 0, lined = 1, due = ?3, arrival = ?4, body = ?5, stops = starts, attempt = 1, started = NULL, finished = NULL,
    node = NULL, ttl = NULL, expires = NULL, value_expires = NULL, cleanup = NULL, latest = NULL, late_ttl = NULL, progress = NULL,
    result = NULL
WHERE +app = ?1 AND seq = ?2"""

BODY = """
SELECT coalesce(body, (SELECT data FROM content WHERE key = job.seq * 2)) FROM job
WHERE app = ?1 AND id = ?2 AND state <> 3 AND name IS NOT NULL AND (expires IS NULL OR expires > ?3)"""

# --- the index of metadata

# The paths of an app, and whether each is indexed for all jobs.
PATHS = "SELECT name, path, walked IS NULL FROM path WHERE app = ?1 AND NOT dropped"
PATHS_CHANGED = "UPDATE app SET paths = paths + 1 WHERE app = ?1"
ADD_PATH = "INSERT INTO path (app, name, walked) VALUES (?1, ?2, ?3)"
DROP_PATHS = "UPDATE path SET dropped = 1 WHERE path IN (SELECT value FROM json_each(?1))"
DROPPED = "SELECT path FROM path WHERE app = ?1 AND dropped"
DELETE_PATH = "DELETE FROM path WHERE path = ?1"
DELETE_LABELS = """
DELETE FROM label WHERE (path, label, seq) IN (SELECT path, label, seq FROM label WHERE path = ?1 LIMIT ?2)"""


@cache
def put_labels(rows: int) -> str:
    """Labels, those that are there already excepted."""
    return f"INSERT OR IGNORE INTO label (path, label, seq) {_values(rows, 3)}"


DROP_LABEL = "DELETE FROM label WHERE path = ?1 AND label = ?2 AND seq = ?3"
METADATA = "SELECT seq, metadata FROM job WHERE +app = ?1 AND seq IN (SELECT value FROM json_each(?2))"

# Paths that are not indexed for all jobs yet; the jobs on the way, newest first; how far it has come.
BEHIND = "SELECT path, name, walked FROM path WHERE app = ?1 AND NOT dropped AND walked IS NOT NULL"
WALK = "SELECT seq, metadata FROM job WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq DESC LIMIT ?3"
WALKED = "UPDATE path SET walked = ?3 WHERE app = ?1 AND NOT dropped AND walked = ?2"
# The jobs behind row ?1, up to row ?2, whose labels are yet to be written; and that they are, up to a row.
TAIL = "SELECT seq, metadata FROM job WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3"
INDEXED = "UPDATE app SET indexed = ?2 WHERE app = ?1"
LAST_ROW = "SELECT seq FROM job WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq DESC LIMIT 1"

# --- changes

# What a transaction has to know: which paths are indexed, until when changes are noted, and up to which row labels are written.
FLAGS = "SELECT paths, noted_until, indexed FROM app WHERE app = ?1"

CHANGED = "SELECT changed FROM app WHERE app = ?1"
SET_CHANGED = "UPDATE app SET changed = ?2 WHERE app = ?1"
NOTE_CHANGES = "UPDATE job SET changed = ?1 + each.key FROM json_each(?2) AS each WHERE job.seq = each.value"
NOTES_TAKEN = "SELECT changed, noted_since, noted_until FROM app WHERE app = ?1"
TAKE_NOTES = "UPDATE app SET changed = ?2, noted_since = ?2, noted_until = ?3 WHERE app = ?1"
PROLONG_NOTES = "UPDATE app SET noted_until = ?2 WHERE app = ?1"
NTH_CHANGE = "SELECT changed FROM job INDEXED BY job_changed WHERE app = ?1 AND changed > ?2 ORDER BY changed LIMIT 1 OFFSET ?3"
IDENTITY = "SELECT identity FROM app WHERE app = ?1"
SET_IDENTITY = "UPDATE app SET identity = ?2 WHERE app = ?1"

# --- logs

LAST_LINE = "SELECT max(number) FROM log WHERE seq = ?1 HAVING max(number) IS NOT NULL"
PUT_LINE = "INSERT INTO log (seq, number, text) VALUES (?1, ?2, ?3)"
DROP_LINES = "DELETE FROM log WHERE seq = ?1 AND number <= ?2"
LINES = """
SELECT number, text FROM job CROSS JOIN log USING (seq)
WHERE job.app = ?1 AND job.id = ?2 AND (job.expires IS NULL OR job.expires > ?3) AND number > ?4 ORDER BY number"""
DROP_LOGS = "DELETE FROM log WHERE seq IN (SELECT value FROM json_each(?1))"

# --- upkeep

# At most ?3 jobs whose lease has ended by ?2, and their queues.
LOST = """
SELECT json_group_array(seq), json_group_array(DISTINCT queue)
FROM (SELECT seq, queue FROM job WHERE app = ?1 AND lease_end <= ?2 ORDER BY lease_end LIMIT ?3)"""
RECOVER = """
UPDATE job SET state = 0, stops = stops - (state = 2), lined = 1, token_start = NULL, holder = NULL, lease_end = NULL
WHERE +app = ?1 AND seq IN (SELECT value FROM json_each(?2))"""

# At most ?3 jobs that wait though their latest moment was before ?2: [row, how long to keep it].
LATE = """
SELECT json_group_array(json_array(seq, late_ttl)) FROM (
    SELECT seq, late_ttl FROM job WHERE app = ?1 AND latest <= ?2 AND lined > 0 ORDER BY latest LIMIT ?3)"""

# At most ?3 jobs that were due by ?2 and that no broker brought to a worker, and their queues.
CARRIED = """
SELECT json_group_array(seq), json_group_array(DISTINCT queue)
FROM (SELECT seq, queue FROM job WHERE app = ?1 AND lined = 2 AND due <= ?2 ORDER BY due LIMIT ?3)"""
LINE_UP = "UPDATE job SET lined = 1 WHERE +app = ?1 AND seq IN (SELECT value FROM json_each(?2))"

# At most ?3 jobs of which something has expired by ?2: [row, state, whether the record has expired, whether it has a value].
EXPIRED = """
SELECT json_group_array(json_array(seq, state, expires IS NOT NULL AND expires <= ?2, result IS NOT NULL))
FROM (SELECT seq, state, expires, result FROM job WHERE app = ?1 AND cleanup <= ?2 ORDER BY cleanup LIMIT ?3)"""
CLEANED = """
UPDATE job SET notes_expire = NULL, result = CASE WHEN state < 3 THEN result END, cleanup = expires
WHERE +app = ?1 AND seq IN (SELECT value FROM json_each(?2))"""

SIZES = (256, 64, 16, 4, 1)
"""How many rows a statement with VALUES takes; few different texts, so that each is prepared once."""


def _values(rows: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"VALUES {', '.join([row] * rows)}"
