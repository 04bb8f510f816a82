-- Ids (their first 16 bytes) of jobs that were forgotten: what comes again is still no new job. Bounded in number.
CREATE TABLE forgotten_jobs (
  n INTEGER PRIMARY KEY,
  job BLOB NOT NULL UNIQUE CHECK (length(job) = 16)
) STRICT;

-- Work that nobody paid for and that has ended: the first to go.
CREATE INDEX jobs_unpaid ON jobs (updated_at, coalesce(octet_length(request), 0) + coalesce(octet_length(result), 0) + coalesce(octet_length(result_event), 0))
  WHERE paid_msats = 0 AND status IN ('refused', 'settled', 'expired', 'failed', 'cancelled');
CREATE INDEX jobs_paid_by ON jobs (customer_pubkey) WHERE paid_msats > 0;
CREATE INDEX leases_paid_by ON leases (tenant_pubkey) WHERE paid_msats > 0;
