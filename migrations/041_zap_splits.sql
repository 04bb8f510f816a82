-- Zaps of events that name who is to share them (NIP-57, appendix G): who gets how much is fixed before anything is paid.
CREATE TABLE zap_splits (
  idempotency_key TEXT PRIMARY KEY,
  request_digest TEXT NOT NULL,
  parts_json TEXT NOT NULL CHECK (json_valid(parts_json)),
  created_at INTEGER NOT NULL
) STRICT;
