-- What was delivered since a time that is no whole hour is counted by this.
CREATE INDEX jobs_completed ON jobs (completed_at) WHERE status IN ('delivered', 'settled');
