INSERT OR IGNORE INTO label (path, label, seq)
SELECT path.path, metadata_label(job.metadata, path.name), job.seq
FROM app CROSS JOIN path ON path.app = app.app AND NOT path.dropped
    CROSS JOIN job ON job.seq > app.indexed AND job.seq > app.app << 40 AND job.seq < (app.app + 1) << 40
WHERE metadata_label(job.metadata, path.name) IS NOT NULL;

ALTER TABLE app DROP COLUMN indexed;
