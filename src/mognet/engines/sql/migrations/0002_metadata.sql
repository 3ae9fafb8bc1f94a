-- What the store is known by (NULL: nobody has asked yet).
ALTER TABLE app ADD COLUMN identity TEXT;

-- A number that grows with each change of the table "path".
ALTER TABLE app ADD COLUMN paths INTEGER NOT NULL DEFAULT 0;

-- The last number given to a change, and from which number on, and until when, changes are noted.
ALTER TABLE app ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE app ADD COLUMN noted_since INTEGER NOT NULL DEFAULT 0;
ALTER TABLE app ADD COLUMN noted_until REAL NOT NULL DEFAULT 0;

ALTER TABLE job ADD COLUMN progress BLOB;

-- The number of the last change that was noted.
ALTER TABLE job ADD COLUMN changed INTEGER;

CREATE INDEX job_changed ON job (app, changed) WHERE changed IS NOT NULL;

-- The paths in metadata that are indexed.
CREATE TABLE path (
    path INTEGER PRIMARY KEY,
    app INTEGER NOT NULL,
    name TEXT NOT NULL,
    walked INTEGER, -- jobs behind this row are indexed, those up to it are yet to be (NULL: all are)
    dropped INTEGER NOT NULL DEFAULT 0 -- 1: given up, and its labels are yet to be deleted
);

-- The values at these paths, as labels; a row stands for the jobs' order of creation.
CREATE TABLE label (
    path INTEGER NOT NULL,
    label BLOB NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (path, label, seq)
) WITHOUT ROWID;

-- The last lines that jobs logged.
CREATE TABLE log (
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    text BLOB NOT NULL,
    PRIMARY KEY (seq, number)
) WITHOUT ROWID;
