"""The SQL of the PostgreSQL engine. Each statement handles any number of jobs at once, in one round trip.

Rows that others may change meanwhile are locked in the order of their ids, or skipped. What a statement has locked it changes by
the id, not by the place (ctid), where the row may have moved while it waited; only where it skipped locked rows does it go by the
place. ``OFFSET 0`` keeps a lookup a lookup, whatever the planner believes of the number of rows.
"""

# ruff: noqa: S608 - the texts are put together from constants only
from __future__ import annotations

from functools import lru_cache

NOW = "date_part('epoch', statement_timestamp())"
"""The time of the statement. (``extract`` reckons in decimals, which takes several times as long.)"""

LEVELS = "generate_series(10, 0, -1)"
"""The priorities, best first: a range of the index for each."""

JOB = "id, name, queue, state, priority, created, due, started, finished, starts, stops, attempt, parent, root, node, ttl, expires"
"""The columns of a record that stand in the table of jobs, in the order of :func:`mognet.engines.postgres.rows.make_record`."""

_JOB = ", ".join(f"job.{column}" for column in JOB.split(", "))
_CONTENT = "CROSS JOIN LATERAL (SELECT label, metadata, progress, body FROM mognet.content WHERE seq = job.seq OFFSET 0) AS content"

# Others may be run again.
_BODIES = "body AS (UPDATE mognet.content SET body = NULL WHERE seq = ANY(ARRAY(SELECT seq FROM job WHERE bulky AND state = 3)))"

RECORD = f"{JOB}, label, metadata, progress, seq"
_RECORD = f"{_JOB}, content.label, content.metadata, content.progress, job.seq"

_GATE = "(SELECT 0 FROM mognet.app WHERE false FOR KEY SHARE)"
"""Shares a lock on the table "app", which is taken before the statement's snapshot, and touches no row. Whoever changes there what writers
have to know locks it alone: then nobody writes any more who does not know yet."""

CLOCK = f"""clock AS MATERIALIZED (
    SELECT {NOW} AS now, noted_until > {NOW} AS noting, CASE WHEN version < 0 THEN {_GATE} ELSE version END AS version
    FROM mognet.app WHERE app = %(app)s)"""
"""The time, and what whoever writes jobs has to know."""

TOLD = "CASE WHEN changed IS NULL THEN 0 WHEN pg_try_advisory_xact_lock(%(watchers)s::int8) THEN 1 ELSE 2 END"
"""0: no change was noted. 1: one was, and nobody listens, by the lock that listeners share. 2: somebody may. (Without a lock to ask: 2.)

Asked for each row, since a part of its own would have to be made ready also where nothing is noted.
"""

_HEARD = "NOT coalesce((SELECT pg_try_advisory_xact_lock(%({ear})s::int8)), false)"
"""Whether somebody listens for what this statement does, by the lock that listeners share. Held until the commit, so that who begins to
listen meanwhile sees what was done. (Without a lock to ask: true.)"""

_NOTE = "changed = CASE WHEN (SELECT noting FROM clock) THEN pg_current_xact_id() END"
"""For those who read what has changed."""

_NOTE_ALONE = f"""changed = CASE WHEN (
        SELECT CASE WHEN version < 0 THEN {_GATE} = 0 ELSE noted_until > {NOW} END FROM mognet.app WHERE app = %(app)s)
    THEN pg_current_xact_id() END"""
"""The same without a clock."""


@lru_cache(maxsize=512)
def qualified(statement: str, schema: str) -> bytes:
    """The text for another schema than ``mognet``."""
    return (statement if schema == "mognet" else statement.replace("mognet.", f'"{schema}".')).encode()


# --- submit

_PARENTS = """
parent AS MATERIALIZED (
    SELECT id, state, token FROM mognet.job, clock
    WHERE app = %(app)s AND id = ANY(%(parents)s::uuid[]) AND (expires IS NULL OR expires > clock.now) ORDER BY id FOR KEY SHARE OF job),"""

_GIVEN = """    SELECT nextval('mognet.turn') AS seq, id, coalesce(name, %(name)s::text) AS name, coalesce(queue, %(queue)s::text) AS queue,
        coalesce(priority, %(priority)s::int8) AS priority, coalesce(delay, %(delay)s::float8) AS delay, parent, root, token,
        coalesce(ttl, %(ttl)s::float8) AS ttl, coalesce(latest, %(latest)s::float8) AS latest, coalesce(label, %(label)s::text) AS label,
        coalesce(metadata, %(metadata)s::bytea) AS metadata, coalesce(body, %(body)s::bytea) AS body
    FROM unnest(%(ids)s::uuid[], %(names)s::text[], %(queues)s::text[],
        %(priorities)s::int8[], %(delays)s::float8[], %(ids_parent)s::uuid[], %(roots)s::uuid[], %(tokens)s::text[], %(ttls)s::float8[],
        %(latests)s::float8[], %(labels)s::text[], %(metadatas)s::bytea[], %(bodies)s::bytea[])
    AS each(id, name, queue, priority, delay, parent, root, token, ttl, latest, label, metadata, body)"""

_SUBMIT = f"""
WITH {CLOCK},{{before}}
fated AS MATERIALIZED (
    SELECT given.*, clock.now, clock.noting, {{revoked}} AS revoked FROM {{given}} CROSS JOIN clock
    WHERE clock.version = %(version)s::int8{{where}}),
job AS (
    INSERT INTO mognet.job (id, app, seq, arrival, state, lined, priority, queue, name, due, created, parent, root,
        finished, expires, value_expires, cleanup, bulky, latest, late_ttl, changed)
    SELECT id, %(app)s, seq, seq, CASE WHEN revoked THEN 5 ELSE 0 END,
        CASE WHEN revoked THEN 0 WHEN %(enqueue)s OR delay > 0 THEN 1 ELSE 2 END, priority, queue, name, now + delay, now, parent,
        nullif(root, id), CASE WHEN revoked THEN now END, CASE WHEN revoked THEN now + ttl END, CASE WHEN revoked THEN now + ttl END,
        CASE WHEN revoked THEN now + ttl END, octet_length(body) > 2000, latest, ttl,
        CASE WHEN noting THEN pg_current_xact_id() END
    FROM fated
    ON CONFLICT (id, app) DO UPDATE
        SET was = CASE WHEN %(strict)s THEN ('the record of ' || job.id || ' has expired')::smallint ELSE -1 END
        WHERE job.expires <= excluded.created
    RETURNING id, seq, created, state, was, changed),
content AS (
    INSERT INTO mognet.content (seq, label, metadata, body)
    SELECT seq, fated.label, fated.metadata, fated.body FROM job JOIN fated USING (seq)){{labels}}
SELECT id, coalesce(was, state), {TOLD}, {_HEARD.format(ear="workers")} FROM job
UNION ALL SELECT NULL, NULL, NULL, NULL FROM clock WHERE version <> %(version)s::int8"""

# (Not as a part of its own: that would be written down once more.)
_ALONE = {"before": "", "revoked": "false", "given": f"({_GIVEN}) AS given", "where": ""}
_BELOW = {
    "before": f"{_PARENTS}\ngiven AS MATERIALIZED ({_GIVEN}),",
    "revoked": "(parent.state IS NOT NULL AND parent.state = 5)",
    "given": "given LEFT JOIN parent ON parent.id = given.parent",
    "where": " AND (given.token IS NULL OR parent.state = 5 OR parent.token = given.token)",
}

_LABELS = """,
label AS (
    INSERT INTO mognet.label (path, value, created, seq)
    SELECT (%(paths)s::int8[])[(n - 1) / cardinality(%(ids)s::uuid[]) + 1], convert_to(each.value, 'UTF8'), job.created, job.seq
    FROM unnest(string_to_array(convert_from(%(values)s::bytea, 'UTF8'), chr(10))) WITH ORDINALITY AS each(value, n)
    JOIN job ON job.id = (%(ids)s::uuid[])[mod(n - 1, cardinality(%(ids)s::uuid[])) + 1] AND job.was IS NULL
    WHERE each.value <> '')"""

# New jobs. What they have in common is given once, and its list left empty: unnest fills it up with NULL. Answers those that were added,
# and those that were born REVOKED; a row of NULLs if nothing was done since the version of what has to be known is another one. Where a
# record has expired, what belongs to it has to go first: with "strict" nothing is done, by an error, else -1 says which it is.
SUBMIT = _SUBMIT.format(**_ALONE, labels="")

# The same for children: parents are locked, so that a revoke of theirs sees these children, or they see the revoke.
SUBMIT_CHILDREN = _SUBMIT.format(**_BELOW, labels="")

# The same with labels, which come as lines: for each path one of each job (empty: none). A list would cost more than the index does.
SUBMIT_LABELLED = _SUBMIT.format(**_ALONE, labels=_LABELS)
SUBMIT_LABELLED_CHILDREN = _SUBMIT.format(**_BELOW, labels=_LABELS)

# In somebody else's transaction, before its first submit. The lock on the gate, which comes with the clock, keeps the version as it is.
HOLD = f"WITH {CLOCK} SELECT version, current_setting('transaction_isolation') FROM clock"

# Who sees the database as it was when his transaction began gets an error if that has changed since.
HOLD_ROW = "SELECT version FROM mognet.app WHERE app = %(app)s FOR SHARE"

RING = "SELECT pg_notify(channel, text) FROM unnest(%(channels)s::text[], %(texts)s::text[]) AS each(channel, text)"

# --- claim

_TAKE = f"""
pick AS MATERIALIZED (
    SELECT ctid AS row FROM mognet.job
    WHERE ctid = ANY(ARRAY(SELECT row FROM near)) AND lined > 0 AND due <= {NOW}
    ORDER BY priority DESC, due, arrival LIMIT %(limit)s::int8 FOR NO KEY UPDATE SKIP LOCKED),
job AS (
    UPDATE mognet.job SET {_NOTE_ALONE}, state = 1, lined = 0, starts = starts + 1,
        token = (starts + 1) || '-' || %(holder)s::text || '.' || seq,
        was = state + CASE WHEN lined = 2 THEN 4 ELSE 0 END + CASE WHEN started IS NULL THEN 8 ELSE 0 END, was_node = node,
        node = %(node)s::text, started = coalesce(started, {NOW}), lease_end = {NOW} + %(lease)s::float8
    WHERE ctid = ANY(ARRAY(SELECT row FROM pick))
    RETURNING {JOB}, seq, arrival, changed)
SELECT {_RECORD}, content.body, job.seq, {TOLD} FROM job {_CONTENT}
ORDER BY job.priority DESC, job.due, job.arrival"""

# The first jobs of each queue and priority, and of those the best that nobody else is just taking.
CLAIM = f"""
WITH near AS MATERIALIZED (
    SELECT head.row FROM unnest(%(queues)s::text[]) AS line(queue) CROSS JOIN {LEVELS} AS level(priority)
    CROSS JOIN LATERAL (
        SELECT ctid AS row, job.priority, due, arrival FROM mognet.job
        WHERE app = %(app)s AND job.queue = line.queue AND job.priority = level.priority AND lined = 1 AND due <= {NOW}
        ORDER BY due, arrival LIMIT %(near)s::int8) AS head
    ORDER BY head.priority DESC, head.due, head.arrival LIMIT %(near)s::int8),
{_TAKE}"""

CLAIM_IDS = f"""
WITH near AS MATERIALIZED (
    SELECT ctid AS row FROM mognet.job WHERE app = %(app)s AND id = ANY(%(ids)s::uuid[]) AND queue = ANY(%(queues)s::text[]) AND lined > 0),
{_TAKE}"""

# In how many seconds the next job of these queues is due.
NEXT_DUE = f"""
SELECT min(head.due) - {NOW} FROM unnest(%(queues)s::text[]) AS line(queue) CROSS JOIN {LEVELS} AS level(priority)
CROSS JOIN LATERAL (
    SELECT due FROM mognet.job WHERE app = %(app)s AND job.queue = line.queue AND job.priority = level.priority AND lined = 1
    ORDER BY due LIMIT 1) AS head"""

NEXT_DUE_IDS = f"""
SELECT min(due) - {NOW} FROM mognet.job
WHERE app = %(app)s AND id = ANY(%(ids)s::uuid[]) AND queue = ANY(%(queues)s::text[]) AND lined > 0"""

# Undo a claim that nobody received, as if it had never been. (Its jobs' tokens differ in what follows the dot.)
UNCLAIM = f"""
UPDATE mognet.job SET {_NOTE_ALONE}, state = was & 3, lined = CASE WHEN was & 4 > 0 THEN 2 ELSE 1 END, starts = starts - 1, token = NULL,
    lease_end = NULL, node = was_node, started = CASE WHEN was & 8 = 0 THEN started END
WHERE app = %(app)s AND lease_end IS NOT NULL AND state = 1
    AND split_part(split_part(token, '-', 2), '.', 1) = %(holder)s::text RETURNING queue"""

# --- holding

_HELD = """
held AS MATERIALIZED (
    SELECT given.*, job.seq, job.noted FROM unnest(%(ids)s::uuid[], %(tokens)s::text[]{types}) AS given(id, token, n{names})
    CROSS JOIN LATERAL (
        SELECT seq, noted FROM mognet.job WHERE app = %(app)s AND id = given.id AND token = given.token FOR NO KEY UPDATE) AS job)"""

# Which of the given ids, all of them different, a row has. A join would compare all with all: a generic plan takes any list for short.
_AT = "array_position(%(ids)s::uuid[], job.id)"

EXTEND = f"""
UPDATE mognet.job SET lease_end = {NOW} + %(lease)s::float8
WHERE app = %(app)s AND job.id = ANY(%(ids)s::uuid[]) AND job.token = (%(tokens)s::text[])[{_AT}] RETURNING id"""

# Final ends of attempts that are to live equally long. Notes are left for DROP_NOTES, or the sweep.
FINISH = f"""
WITH job AS (
    UPDATE mognet.job SET {_NOTE_ALONE}, stops = stops + (job.state = 1)::int, token = NULL,
        state = CASE WHEN %(state)s::int8 IS NULL THEN (%(states)s::int8[])[{_AT}] ELSE %(state)s::int8 END,
        lease_end = NULL, lined = 0, finished = {NOW}, notes_expire = NULL, expires = {NOW} + coalesce(ttl, %(ttl)s::float8),
        value_expires = {NOW} + coalesce(ttl, least(%(value_ttl)s::float8, %(ttl)s::float8)),
        value = CASE WHEN cardinality(%(values)s::bytea[]) > 0 THEN (%(values)s::bytea[])[{_AT}] ELSE %(value)s::bytea END,
        cleanup = {NOW} + CASE WHEN job.noted THEN 0 ELSE coalesce(ttl, least(%(value_ttl)s::float8, %(ttl)s::float8)) END
    WHERE app = %(app)s AND job.id = ANY(%(ids)s::uuid[]) AND job.token = (%(tokens)s::text[])[{_AT}]
    RETURNING {_JOB}, job.seq, job.noted, job.bulky, job.changed),
{_BODIES}
SELECT {_RECORD}, job.seq, job.noted, {TOLD}, {_HEARD.format(ear="waiters")} FROM job {_CONTENT}"""

_SETTLE_TYPES = """, %(numbers)s::int8[], %(states)s::int8[], %(agains)s::int8[], %(delays)s::float8[], %(ttls)s::float8[],
        %(value_ttls)s::float8[], %(values)s::bytea[]"""

# Ends of attempts of any kind (again: 0 final, 1 retry, 2 pause, 3 release).
SETTLE = f"""
WITH {CLOCK},
{_HELD.format(types=_SETTLE_TYPES, names=", state, again, delay, ttl, value_ttl, value")},
fate AS MATERIALIZED (
    SELECT each.*, clock.now, CASE WHEN again IN (1, 2) THEN nextval('mognet.turn') END AS turn
    FROM (SELECT * FROM held ORDER BY n) AS each CROSS JOIN clock),
job AS (
    UPDATE mognet.job SET {_NOTE}, state = fate.state, stops = stops + (job.state = 1)::int, token = NULL, lease_end = NULL,
        lined = (fate.again > 0)::int, attempt = attempt + (fate.again = 1)::int, arrival = coalesce(fate.turn, arrival),
        due = CASE WHEN fate.again IN (1, 2) THEN fate.now + fate.delay ELSE due END,
        finished = CASE WHEN fate.again = 0 THEN fate.now END, value = CASE WHEN fate.again = 0 THEN fate.value END,
        expires = CASE WHEN fate.again = 0 THEN fate.now + coalesce(job.ttl, fate.ttl) END,
        value_expires = CASE WHEN fate.again = 0 THEN fate.now + coalesce(job.ttl, least(fate.value_ttl, fate.ttl)) END,
        notes_expire = CASE WHEN fate.again > 0 THEN notes_expire END,
        cleanup = CASE WHEN fate.again > 0 THEN cleanup WHEN job.noted THEN fate.now
            ELSE fate.now + coalesce(job.ttl, least(fate.value_ttl, fate.ttl)) END
    FROM fate WHERE job.app = %(app)s AND job.id = ANY(ARRAY(SELECT id FROM held)) AND job.id = fate.id
    RETURNING {_JOB}, job.seq, fate.n, job.noted AND fate.again = 0 AS noted, job.bulky, job.changed),
{_BODIES}
SELECT {_RECORD}, job.n, job.seq, job.noted, {TOLD}, {_HEARD.format(ear="waiters")} FROM job {_CONTENT}"""

# --- the records

IDENTITY = "SELECT identity FROM mognet.app WHERE app = %(app)s"

GET = f"""
SELECT {_RECORD} FROM unnest(%(ids)s::uuid[]) AS given(id)
CROSS JOIN LATERAL (SELECT * FROM mognet.job WHERE app = %(app)s AND id = given.id OFFSET 0) AS job {_CONTENT}
WHERE job.expires IS NULL OR job.expires > {NOW}"""

# One job that is locked, also if it has just expired.
REREAD = f"""
SELECT {_RECORD} FROM mognet.job {_CONTENT} WHERE app = %(app)s AND id = %(id)s"""

VALUE = f"""
SELECT value FROM mognet.job
WHERE app = %(app)s AND id = %(id)s AND state >= 3 AND (expires IS NULL OR expires > {NOW})
    AND (value_expires IS NULL OR value_expires > {NOW})"""

BODY = f"""
SELECT content.body FROM mognet.job JOIN mognet.content USING (seq)
WHERE app = %(app)s AND id = %(id)s AND state <> 3 AND name IS NOT NULL AND (expires IS NULL OR expires > {NOW})"""

# One job, locked, with what an update has to know; its content too, so that metadata is the newest.
FIND = f"""
SELECT {_RECORD}, job.token, job.noted, coalesce(job.expires <= {NOW}, false)
FROM mognet.job JOIN mognet.content USING (seq) WHERE job.app = %(app)s AND job.id = %(id)s FOR UPDATE"""

# What is in the content of a job that is locked. Answers whether that was done (the version was the right one), and noted.
WRITE = f"""
WITH {CLOCK},
told AS (UPDATE mognet.job SET {_NOTE} WHERE app = %(app)s AND id = %(id)s AND (SELECT noting AND version = %(version)s::int8 FROM clock)
    RETURNING changed),
content AS (UPDATE mognet.content SET metadata = coalesce(%(metadata)s::bytea, metadata), progress = coalesce(%(progress)s::bytea, progress)
    WHERE seq = %(seq)s AND (SELECT version FROM clock) = %(version)s::int8 RETURNING 1)
SELECT EXISTS (SELECT FROM content), {TOLD} FROM clock LEFT JOIN told ON true"""

_CHANGE = f"""
UPDATE mognet.job SET {_NOTE_ALONE}, {{}} WHERE app = %(app)s AND id = %(id)s RETURNING {TOLD}"""

SUSPEND = _CHANGE.format("state = 2, stops = stops + 1")
RESUME = _CHANGE.format("state = 1, starts = starts + 1")

# A lifetime by hand: from the end, or from now if that has come. A value that has expired stays so.
SET_TTL = _CHANGE.format(f"""ttl = %(ttl)s::float8, expires = CASE WHEN state >= 3 THEN {NOW} + %(ttl)s::float8 END,
    value_expires = CASE WHEN state >= 3 AND coalesce(value_expires > {NOW}, true) THEN {NOW} + %(ttl)s::float8 ELSE value_expires END,
    cleanup = CASE WHEN state >= 3 THEN {NOW} + %(ttl)s::float8 ELSE cleanup END""")

# A new series of attempts of a job that has ended, with a new body.
RERUN = f"""
WITH {CLOCK},
content AS (UPDATE mognet.content SET metadata = %(metadata)s::bytea, body = %(body)s::bytea, progress = NULL WHERE seq = %(seq)s)
UPDATE mognet.job SET {_NOTE}, state = 0, lined = 1, arrival = nextval('mognet.turn'), due = (SELECT now FROM clock) + %(delay)s::float8,
    stops = starts, attempt = 1, started = NULL, finished = NULL, node = NULL, ttl = NULL, expires = NULL, value = NULL,
    value_expires = NULL, notes_expire = NULL, noted = false, cleanup = NULL, latest = NULL,
    bulky = octet_length(%(body)s::bytea) > 2000
WHERE app = %(app)s AND id = %(id)s AND (SELECT version FROM clock) = %(version)s::int8 RETURNING {TOLD}"""

# A job and its descendants, as far as they have not ended, locked. What has expired leads no further.
TREE = f"""
WITH RECURSIVE tree(id) AS (
    SELECT %(id)s::uuid
    UNION
    SELECT job.id FROM tree CROSS JOIN LATERAL (
        SELECT id FROM mognet.job WHERE app = %(app)s AND parent = tree.id AND (expires IS NULL OR expires > {NOW}) OFFSET 0) AS job)
SELECT id FROM mognet.job WHERE app = %(app)s AND id = ANY(ARRAY(SELECT id FROM tree)) AND state < 3 ORDER BY id FOR UPDATE"""

# The end of jobs that are locked; they leave nothing.
END = f"""
WITH job AS (
    UPDATE mognet.job SET {_NOTE_ALONE}, state = %(state)s, finished = {NOW}, stops = stops + (state = 1)::int, lined = 0, token = NULL,
        lease_end = NULL, notes_expire = NULL, noted = false, expires = {NOW} + coalesce(ttl, %(ttl)s::float8),
        value_expires = {NOW} + coalesce(ttl, %(ttl)s::float8), cleanup = {NOW} + coalesce(ttl, %(ttl)s::float8)
    WHERE app = %(app)s AND id = ANY(%(ids)s::uuid[]) RETURNING {JOB}, seq, changed)
SELECT {_RECORD}, {TOLD} FROM job {_CONTENT}"""

# A tombstone.
BURY = f"""
WITH {CLOCK},
job AS (
    INSERT INTO mognet.job (id, app, seq, arrival, state, lined, priority, queue, due, created, finished, expires, value_expires, cleanup,
        changed)
    SELECT %(id)s::uuid, %(app)s, nextval('mognet.turn'), 0, %(state)s, 0, 5, '', now, now, now, now + ttl, now + ttl, now + ttl,
        CASE WHEN noting THEN pg_current_xact_id() END
    FROM (SELECT now, noting, %(ttl)s::float8 AS ttl FROM clock) AS clock
    RETURNING {JOB}, seq, changed),
content AS (INSERT INTO mognet.content (seq, metadata) SELECT seq, '{{}}'::bytea FROM job)
SELECT {JOB}, NULL::text, '{{}}'::bytea, NULL::bytea, seq, {TOLD} FROM job"""

LOCK_JOBS = "SELECT id, state FROM mognet.job WHERE app = %(app)s AND id = ANY(%(ids)s::uuid[]) ORDER BY id FOR UPDATE"

# Jobs that are locked. Their metadata says where their labels are.
DELETE = f"""
WITH {CLOCK},
job AS (
    DELETE FROM mognet.job WHERE app = %(app)s AND id = ANY(%(ids)s::uuid[])
    RETURNING seq, created, expires IS NULL OR expires > {NOW} AS seen),
content AS (DELETE FROM mognet.content WHERE seq = ANY(ARRAY(SELECT seq FROM job))
    RETURNING seq, CASE WHEN %(labelled)s THEN metadata END AS metadata)
SELECT job.seq, seen, version, created, metadata FROM job JOIN content USING (seq) CROSS JOIN clock"""

# --- notes

# The job that a token holds, locked.
HOLDER = f"""
SELECT seq, noted, coalesce(notes_expire <= {NOW}, false), notes_expire IS NOT NULL FROM mognet.job
WHERE app = %(app)s AND id = %(id)s AND token = %(token)s::text FOR NO KEY UPDATE"""

NOTES = f"""
SELECT note.name, note.data FROM mognet.job JOIN mognet.note USING (seq)
WHERE app = %(app)s AND id = %(id)s AND token = %(token)s::text AND (notes_expire IS NULL OR notes_expire > {NOW})"""

TAKE_NOTES = "DELETE FROM mognet.note WHERE seq = %(seq)s AND name = ANY(%(names)s::text[]) RETURNING name, data"
PUT_NOTES = """
INSERT INTO mognet.note (seq, name, data)
SELECT %(seq)s, name, data FROM unnest(%(names)s::text[], %(values)s::bytea[]) AS each(name, data)"""
MARK_NOTED = f"""
UPDATE mognet.job SET noted = true, notes_expire = {NOW} + %(ttl)s::float8, cleanup = {NOW} + %(ttl)s::float8
WHERE app = %(app)s AND id = %(id)s"""

DROP_NOTES = "DELETE FROM mognet.note WHERE seq = ANY(%(seqs)s::int8[])"
DROP_LOGS = "DELETE FROM mognet.log WHERE seq = ANY(%(seqs)s::int8[])"

# Their notes are gone: only record and value are still to expire.
UNMARK_NOTED = """
UPDATE mognet.job SET noted = false, notes_expire = NULL, cleanup = CASE WHEN state >= 3 THEN least(value_expires, expires) END
WHERE app = %(app)s AND id = ANY(%(ids)s::uuid[])"""

# --- upkeep

# Whether a sweep would find anything. Most of them do not.
ANYTHING = f"""
SELECT EXISTS (SELECT FROM mognet.job WHERE app = %(app)s AND lease_end <= {NOW})
    OR EXISTS (SELECT FROM mognet.job WHERE app = %(app)s AND lined = 2 AND due <= {NOW} - %(grace)s::float8)
    OR EXISTS (SELECT FROM mognet.job WHERE app = %(app)s AND latest <= {NOW} AND state < 3 AND lease_end IS NULL)
    OR EXISTS (SELECT FROM mognet.job WHERE app = %(app)s AND cleanup <= {NOW})"""

RECOVER = f"""
WITH lost AS MATERIALIZED (
    SELECT ctid AS row FROM mognet.job WHERE app = %(app)s AND lease_end <= {NOW} ORDER BY lease_end LIMIT %(limit)s::int8
    FOR NO KEY UPDATE SKIP LOCKED)
UPDATE mognet.job SET {_NOTE_ALONE}, state = 0, stops = stops - (state = 2)::int, lined = 1, token = NULL, lease_end = NULL
WHERE ctid = ANY(ARRAY(SELECT row FROM lost)) RETURNING queue, {TOLD}"""

# What a broker should have brought.
LINE_UP = f"""
WITH late AS MATERIALIZED (
    SELECT ctid AS row FROM mognet.job WHERE app = %(app)s AND lined = 2 AND due <= {NOW} - %(grace)s::float8 ORDER BY due
    LIMIT %(limit)s::int8 FOR NO KEY UPDATE SKIP LOCKED)
UPDATE mognet.job SET lined = 1 WHERE ctid = ANY(ARRAY(SELECT row FROM late)) RETURNING queue"""

# Jobs that nobody holds and that are not to be run any more.
LATE = f"""
SELECT id, late_ttl FROM mognet.job WHERE app = %(app)s AND latest <= {NOW} AND state < 3 AND lease_end IS NULL
ORDER BY latest LIMIT %(limit)s::int8"""
STILL_LATE = (
    f"SELECT 1 FROM mognet.job WHERE app = %(app)s AND id = %(id)s AND latest <= {NOW} AND state < 3 AND lease_end IS NULL FOR UPDATE"
)

EXPIRED = f"""
SELECT id, seq, state, noted, coalesce(expires <= {NOW}, false), coalesce(value_expires <= {NOW}, false) FROM mognet.job
WHERE app = %(app)s AND cleanup <= {NOW} ORDER BY cleanup LIMIT %(limit)s::int8 FOR UPDATE SKIP LOCKED"""

# (Those that had none are not counted.)
DROP_VALUES = """
WITH content AS (SELECT count(value) AS number FROM mognet.job WHERE app = %(app)s AND id = ANY(%(ids)s::uuid[])),
job AS (UPDATE mognet.job SET value = NULL, cleanup = expires WHERE app = %(app)s AND id = ANY(%(ids)s::uuid[]))
SELECT number FROM content"""
