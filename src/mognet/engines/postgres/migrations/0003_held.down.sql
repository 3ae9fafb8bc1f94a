DROP INDEX mognet.job_lease;

CREATE INDEX job_lease ON mognet.job (app, lease_end) WHERE lease_end IS NOT NULL;
