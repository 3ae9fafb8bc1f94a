-- Apps that share this file; their number is the first part of every key.
CREATE TABLE app (
    app INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    turn INTEGER NOT NULL DEFAULT 0  -- the last number given to a job that went behind the others (a pause, a retry); new jobs are numbered above it
);

-- One row per job. Times are seconds since 1970; states are numbered as in states.py. What is written for a plain new job is few pages:
-- its row, at the end of the table, and its entries in job_id and job_line; the other indexes are for those whom they concern.
CREATE TABLE job (
    seq INTEGER PRIMARY KEY,  -- 2^40 times the app, and a number that grows with the time of creation
    app INTEGER NOT NULL,
    id BLOB NOT NULL,
    state INTEGER NOT NULL,
    lined INTEGER NOT NULL,   -- 1: in line; 2: not, because a broker carries it
    priority INTEGER NOT NULL,
    queue TEXT NOT NULL,
    due REAL NOT NULL,
    arrival INTEGER NOT NULL, -- the place among those due at the same moment
    created REAL NOT NULL,    -- never less than that of a lower seq
    started REAL,
    finished REAL,
    starts INTEGER NOT NULL DEFAULT 0,
    stops INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 1,
    token_start INTEGER,
    holder TEXT,              -- with token_start: the token that holds the job
    touched INTEGER NOT NULL DEFAULT 0, -- 1: the record has changed since it was claimed
    lease_end REAL,
    expires REAL,
    value_expires REAL,
    notes_expire REAL,
    cleanup REAL,             -- when the sweep next has something of this job to delete
    ttl REAL,
    latest REAL,              -- the moment after which it is not to be run any more
    late_ttl REAL,            -- how long it is kept if that comes to pass
    node TEXT,
    parent BLOB,
    root BLOB,                -- NULL: the job itself
    name TEXT,
    label TEXT,
    metadata BLOB NOT NULL,
    body BLOB,                -- NULL: in content, or not needed any more, because the job succeeded
    result BLOB               -- NULL: in content, or there is none
);

CREATE UNIQUE INDEX job_id ON job (app, id);

CREATE INDEX job_line ON job (app, queue, priority DESC, due, arrival) WHERE lined = 1;

CREATE INDEX job_carried ON job (app, due) WHERE lined = 2;

CREATE INDEX job_latest ON job (app, latest) WHERE latest IS NOT NULL AND lined > 0;

CREATE INDEX job_lease ON job (app, lease_end) WHERE lease_end IS NOT NULL;

CREATE INDEX job_cleanup ON job (app, cleanup) WHERE cleanup IS NOT NULL;

CREATE INDEX job_parent ON job (app, parent) WHERE parent IS NOT NULL;

CREATE INDEX job_root ON job (app, root) WHERE root IS NOT NULL;

-- What is too large for a row that is rewritten at each step of a job's life: bodies (2 seq) and values (2 seq + 1).
CREATE TABLE content (
    key INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);

-- The notes of unfinished jobs.
CREATE TABLE note (
    seq INTEGER NOT NULL,
    name TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (seq, name)
) WITHOUT ROWID;
