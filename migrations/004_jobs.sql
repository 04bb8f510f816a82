-- Provider: jobs, each step of their lives, and cancel requests that may come before the job they mean.
-- Times are milliseconds since the epoch; requested_at_s alone is the created_at of the request event.
CREATE TABLE jobs (
  id TEXT PRIMARY KEY CHECK (length(id) = 64),
  transport TEXT NOT NULL CHECK (transport IN ('nip90')),
  kind INTEGER NOT NULL CHECK (kind BETWEEN 5000 AND 5999),
  customer_pubkey TEXT NOT NULL CHECK (length(customer_pubkey) = 64),
  status TEXT NOT NULL CHECK (status IN ('received', 'refused', 'queued', 'quoted', 'expired', 'paid', 'running', 'ready',
    'delivered', 'settled', 'failed', 'refunding', 'refunded', 'cancelled')),
  directed INTEGER NOT NULL CHECK (directed IN (0, 1)),
  encryption TEXT NOT NULL CHECK (encryption IN ('none', 'nip44', 'nip04')),
  -- The request as it came (JSON); null once refused, so that refusals cost little.
  request TEXT CHECK (request IS NULL OR json_valid(request)),
  answer_relays TEXT NOT NULL CHECK (json_valid(answer_relays)),
  requested_at_s INTEGER NOT NULL,
  -- After this nobody wants the result: the request's expiration, or its age limit.
  deadline INTEGER NOT NULL,
  price_msats INTEGER NOT NULL CHECK (price_msats >= 0),
  bid_msats INTEGER CHECK (bid_msats >= 0),
  payment_method TEXT NOT NULL CHECK (payment_method IN ('none', 'invoice', 'token')),
  payment_request TEXT,
  payment_expires_at INTEGER,
  mint_url TEXT,
  paid_msats INTEGER NOT NULL DEFAULT 0 CHECK (paid_msats >= 0),
  attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  result TEXT,
  -- The unsigned result event (JSON): a restart publishes the same id again, never a second result.
  result_event TEXT CHECK (result_event IS NULL OR json_valid(result_event)),
  error_code TEXT,
  error TEXT,
  refund_sends INTEGER NOT NULL DEFAULT 0 CHECK (refund_sends >= 0),
  refund_next_at INTEGER,
  created_at INTEGER NOT NULL,
  started_at INTEGER,
  completed_at INTEGER,
  updated_at INTEGER NOT NULL,
  CHECK (status NOT IN ('paid', 'refunding', 'refunded') OR paid_msats > 0),
  CHECK (status NOT IN ('ready', 'delivered', 'settled') OR result_event IS NOT NULL),
  CHECK (status NOT IN ('running', 'ready', 'delivered', 'settled') OR paid_msats >= price_msats)
) STRICT;
CREATE INDEX jobs_status ON jobs (status, updated_at);
CREATE INDEX jobs_created ON jobs (created_at);
CREATE INDEX jobs_customer ON jobs (customer_pubkey, created_at);

CREATE TABLE job_transitions (
  id INTEGER PRIMARY KEY,
  job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  from_state TEXT,
  to_state TEXT NOT NULL,
  reason TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX job_transitions_job ON job_transitions (job_id, id);

CREATE TABLE job_cancellations (
  job_id TEXT NOT NULL CHECK (length(job_id) = 64),
  pubkey TEXT NOT NULL CHECK (length(pubkey) = 64),
  event_id TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (job_id, pubkey)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_cancellations_at ON job_cancellations (at);
