-- Which jobs are held is known without a look at their rows, which are spread over all that have finished.
DROP INDEX mognet.job_lease;

CREATE INDEX job_lease ON mognet.job (app, lease_end) INCLUDE (created, seq) WHERE lease_end IS NOT NULL;
