-- What belongs to no single part: small settings, and the answers that repeat for a repeated Idempotency-Key.
CREATE TABLE settings (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL CHECK (json_valid(value)),
  updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE idempotency (
  key TEXT PRIMARY KEY,
  route TEXT NOT NULL,
  request_digest TEXT NOT NULL,
  status INTEGER,
  response TEXT,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX idempotency_created ON idempotency (created_at);

-- Calls that take long: 202 now, the outcome here.
CREATE TABLE tasks (
  id TEXT PRIMARY KEY,
  route TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('running', 'done', 'failed')),
  outcome TEXT CHECK (outcome IS NULL OR json_valid(outcome)),
  created_at INTEGER NOT NULL,
  finished_at INTEGER
) STRICT;
CREATE INDEX tasks_created ON tasks (created_at);
