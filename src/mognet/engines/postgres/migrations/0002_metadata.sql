ALTER TABLE mognet.app
    ADD COLUMN identity text NOT NULL DEFAULT gen_random_uuid()::text,
    ADD COLUMN version bigint NOT NULL DEFAULT 1, -- grows with each change of what writers have to know: "path" and "logged"
    ADD COLUMN logged boolean NOT NULL DEFAULT false, -- there may be lines in "log"
    ADD COLUMN noted_until float8 NOT NULL DEFAULT 0, -- until when changes are noted
    ADD COLUMN noted_from xid8 NOT NULL DEFAULT '0', -- the transaction that said so last
    ADD COLUMN epoch bigint NOT NULL DEFAULT 0; -- how often that began anew

-- The transaction of the last change that was noted.
ALTER TABLE mognet.job ADD COLUMN changed xid8;

CREATE INDEX job_changed ON mognet.job (app, changed, seq) WHERE changed IS NOT NULL;

ALTER TABLE mognet.content ADD COLUMN progress bytea;

-- The paths in metadata whose values are in "label".
CREATE TABLE mognet.path (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app integer NOT NULL,
    name text COLLATE "C" NOT NULL,
    dropped boolean NOT NULL DEFAULT false, -- given up: its labels are yet to be deleted
    whole boolean NOT NULL,                 -- all jobs are in it
    walked_created float8 NOT NULL DEFAULT 0, -- up to which job they are, if not
    walked_seq bigint NOT NULL DEFAULT 0,
    remaining bigint,                       -- about so many are not (NULL: not counted yet)
    UNIQUE (app, name)
);

-- A value, as a label, at a path of a job's metadata. One index serves to find, to page by creation, and to delete.
CREATE TABLE mognet.label (
    path integer NOT NULL,
    value bytea NOT NULL,
    created float8 NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (path, value, created, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0);

-- The last lines that jobs logged.
CREATE TABLE mognet.log (
    seq bigint NOT NULL,
    number bigint NOT NULL,
    line bytea NOT NULL,
    PRIMARY KEY (seq, number)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
