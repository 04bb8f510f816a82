-- Customer: commands to the machines of nodes (other ones and our own), what was paid for them and what they answered.
CREATE TABLE rentals (
  id TEXT PRIMARY KEY,                       -- the idempotency key of the command
  server_pubkey TEXT NOT NULL,
  command TEXT NOT NULL,
  digest TEXT NOT NULL,
  request_id TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('asked', 'paying', 'paid', 'answered', 'refused')),
  reason TEXT,
  runtime_id TEXT,
  amount_msats INTEGER NOT NULL DEFAULT 0 CHECK (amount_msats >= 0),
  invoice TEXT,
  payment_key TEXT,                          -- of the wallet operation that pays, fixed before it is begun
  paid_msats INTEGER NOT NULL DEFAULT 0 CHECK (paid_msats >= 0),
  refunded_msats INTEGER NOT NULL DEFAULT 0 CHECK (refunded_msats >= 0),
  lease_ends_at INTEGER,
  watched INTEGER NOT NULL DEFAULT 0 CHECK (watched IN (0, 1)),  -- a refund may still come
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX rentals_created ON rentals (created_at);
CREATE INDEX rentals_runtime ON rentals (runtime_id) WHERE runtime_id IS NOT NULL;
CREATE INDEX rentals_watched ON rentals (watched) WHERE watched = 1;
