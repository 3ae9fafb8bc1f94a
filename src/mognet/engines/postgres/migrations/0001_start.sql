-- Apps that share this schema; their number is the first part of every key.
CREATE TABLE mognet.app (
    app integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);

-- Numbers in the order of arrival, for jobs and for those that go behind the others (a pause, a retry).
CREATE SEQUENCE mognet.turn AS bigint;

-- One row per job, without what is large: it is rewritten at each step of a job's life. Times are seconds since 1970; states are
-- numbered as in states.py (0 PENDING, 1 RUNNING, 2 SUSPENDED, 3 SUCCESS, 4 FAILURE, 5 REVOKED, 6 INVALID).
CREATE TABLE mognet.job (
    id uuid NOT NULL,
    parent uuid,
    root uuid,                 -- NULL: the job itself
    seq bigint NOT NULL,       -- the key of what belongs to the job in other tables
    arrival bigint NOT NULL,   -- the place among those due at the same moment
    due float8 NOT NULL,
    created float8 NOT NULL,
    started float8,
    finished float8,
    lease_end float8,          -- with token: leased
    ttl float8,                -- a lifetime set by hand
    expires float8,
    value_expires float8,
    notes_expire float8,
    latest float8,             -- from when on it is not to be run any more
    late_ttl float8,           -- how long its record lives if it ends by that
    cleanup float8,            -- when the sweep next has something of this job to delete
    app integer NOT NULL,
    starts integer NOT NULL DEFAULT 0,
    stops integer NOT NULL DEFAULT 0,
    attempt integer NOT NULL DEFAULT 1,
    state smallint NOT NULL,
    lined smallint NOT NULL,   -- 1: in line; 2: a broker carries it
    priority smallint NOT NULL,
    was smallint,              -- what the last claim changed, to undo it: state, + 4 if a broker carried it, + 8 if it was the first start
    noted boolean NOT NULL DEFAULT false, -- it may have notes
    queue text COLLATE "C" NOT NULL,
    name text COLLATE "C",
    node text COLLATE "C",
    was_node text COLLATE "C",
    token text COLLATE "C",    -- the start and the holder that own the job
    bulky boolean NOT NULL DEFAULT false, -- its body is worth deleting when the job ends; others stay as long as the record
    value bytea                -- what the job left, once it has ended; the server keeps large ones elsewhere by itself
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- For each question there is one index only that the planner could take, however small the tables are when it plans: the first has
-- no app in front, and the others are for those who name their condition.
CREATE UNIQUE INDEX job_id ON mognet.job (id, app);

CREATE INDEX job_line ON mognet.job (app, queue, priority, due, arrival) WHERE lined = 1;

CREATE INDEX job_carried ON mognet.job (app, due) WHERE lined = 2;

CREATE INDEX job_latest ON mognet.job (app, latest) WHERE latest IS NOT NULL AND state < 3;

CREATE INDEX job_lease ON mognet.job (app, lease_end) WHERE lease_end IS NOT NULL;

CREATE INDEX job_cleanup ON mognet.job (app, cleanup) WHERE cleanup IS NOT NULL;

CREATE INDEX job_created ON mognet.job (app, created, seq) WHERE created > 0;

CREATE INDEX job_parent ON mognet.job (app, parent, created) WHERE parent IS NOT NULL;

CREATE INDEX job_root ON mognet.job (app, root, created) WHERE root IS NOT NULL;

-- What is large and hardly changes. Bytes, so that any text is kept as it is.
CREATE TABLE mognet.content (
    seq bigint PRIMARY KEY,
    label text COLLATE "C",
    metadata bytea NOT NULL,
    body bytea
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0);

-- The notes of unfinished jobs.
CREATE TABLE mognet.note (
    seq bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (seq, name)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
