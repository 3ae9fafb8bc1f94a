-- Apps that share this file; their number is the first part of every key.
CREATE TABLE app (
    app INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- The last number given to a job that went behind the others (a pause, a retry); new jobs are numbered above it.
CREATE TABLE turn (
    last INTEGER NOT NULL
);

INSERT INTO turn VALUES (0);

-- One row per job, without what is large. Times are seconds since 1970; states are numbered as in states.py.
CREATE TABLE job (
    seq INTEGER PRIMARY KEY,
    app INTEGER NOT NULL,
    id BLOB NOT NULL,
    state INTEGER NOT NULL,
    lined INTEGER NOT NULL,   -- 1: in line; 2: not, because a broker carries it
    priority INTEGER NOT NULL,
    queue TEXT NOT NULL,
    due REAL NOT NULL,
    arrival INTEGER NOT NULL, -- the place among those due at the same moment
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    starts INTEGER NOT NULL DEFAULT 0,
    stops INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 1,
    token_start INTEGER,
    holder TEXT,              -- with token_start: the token that holds the job
    lease_end REAL,
    expires REAL,
    value_expires REAL,
    notes_expire REAL,
    cleanup REAL,             -- when the sweep next has something of this job to delete
    ttl REAL,
    node TEXT,
    parent BLOB,
    root BLOB,                -- NULL: the job itself
    name TEXT,
    label TEXT,
    metadata BLOB NOT NULL
);

CREATE UNIQUE INDEX job_id ON job (app, id);

CREATE INDEX job_line ON job (app, queue, priority DESC, due, arrival) WHERE lined = 1;

CREATE INDEX job_carried ON job (app, due) WHERE lined = 2;

CREATE INDEX job_lease ON job (app, lease_end) WHERE lease_end IS NOT NULL;

CREATE INDEX job_cleanup ON job (app, cleanup) WHERE cleanup IS NOT NULL;

CREATE INDEX job_created ON job (app, created);

CREATE INDEX job_open ON job (app, created) WHERE state < 3;

CREATE INDEX job_parent ON job (app, parent, created) WHERE parent IS NOT NULL;

CREATE INDEX job_root ON job (app, root, created) WHERE root IS NOT NULL;

-- What is large: a job's body until it ends, then its value. Beside the job, which is rewritten at each step of its life.
CREATE TABLE content (
    seq INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);

-- The notes of unfinished jobs.
CREATE TABLE note (
    seq INTEGER NOT NULL,
    name TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (seq, name)
) WITHOUT ROWID;
