DROP TABLE mognet.log, mognet.label, mognet.path;

ALTER TABLE mognet.content DROP COLUMN progress;

ALTER TABLE mognet.job DROP COLUMN changed;

ALTER TABLE mognet.app DROP COLUMN identity, DROP COLUMN version, DROP COLUMN logged, DROP COLUMN noted_until,
    DROP COLUMN noted_from, DROP COLUMN epoch;
