-- Standing payouts: what a wallet holds above a limit leaves by itself, to one target; and each payout that was begun.
CREATE TABLE payout_rules (
  owner_pubkey TEXT PRIMARY KEY,
  owner_kind TEXT NOT NULL CHECK (owner_kind IN ('node', 'customer', 'agent')),
  target_type TEXT NOT NULL CHECK (target_type IN ('address', 'token')),
  target TEXT NOT NULL,                      -- the address as it was given, or the key that tokens are locked to
  url TEXT,                                  -- of an address: where LNURL-pay begins
  pin_json TEXT CHECK (pin_json IS NULL OR json_valid(pin_json)), -- of an address: what it answered when it was set
  lock_to TEXT,
  above_sats INTEGER NOT NULL CHECK (above_sats > keep_sats),
  keep_sats INTEGER NOT NULL CHECK (keep_sats >= 0),
  state TEXT NOT NULL CHECK (state IN ('on', 'stopped')),
  sweeping INTEGER NOT NULL DEFAULT 0 CHECK (sweeping IN (0, 1)), -- more is to follow of a sweep that has begun
  failures INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),
  error_code TEXT,
  error_message TEXT,
  failed_at INTEGER,
  next_try_at INTEGER,
  set_at INTEGER NOT NULL,
  CHECK ((target_type = 'address') = (url IS NOT NULL)),
  CHECK ((target_type = 'address') = (pin_json IS NOT NULL)),
  CHECK ((target_type = 'token') = (lock_to IS NOT NULL)),
  CHECK ((error_code IS NULL) = (error_message IS NULL))
) STRICT;

CREATE TABLE payouts (
  id TEXT PRIMARY KEY,
  owner_pubkey TEXT NOT NULL,
  owner_kind TEXT NOT NULL CHECK (owner_kind IN ('node', 'customer', 'agent')),
  idempotency_key TEXT NOT NULL UNIQUE,
  rule_set_at INTEGER NOT NULL,              -- which rule it is of
  target_type TEXT NOT NULL CHECK (target_type IN ('address', 'token')),
  target TEXT NOT NULL,
  amount_sats INTEGER NOT NULL CHECK (amount_sats > 0),
  limit_sats INTEGER NOT NULL CHECK (limit_sats >= amount_sats), -- the most that may leave
  fee_sats INTEGER CHECK (fee_sats >= 0),
  state TEXT NOT NULL CHECK (state IN ('begun', 'unknown', 'paid', 'failed')),
  file TEXT,                                 -- of a token: where it was written
  error_code TEXT,
  error_message TEXT,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  CHECK ((error_code IS NULL) = (error_message IS NULL))
) STRICT;
-- Never two of one wallet at once.
CREATE UNIQUE INDEX payouts_open ON payouts (owner_pubkey) WHERE state IN ('begun', 'unknown');
CREATE INDEX payouts_of_owner ON payouts (owner_pubkey, created_at);
