-- Jobs up to this row have their labels in the table "label", for paths that have come as far. Those behind it have none there yet: their
-- metadata is looked at. No row up to it is given again to another job.
ALTER TABLE app ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0;

UPDATE app SET indexed = coalesce(
    (SELECT max(seq) FROM job WHERE seq > app.app << 40 AND seq < (app.app + 1) << 40),
    app.app << 40);
