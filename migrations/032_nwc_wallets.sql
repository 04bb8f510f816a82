-- NIP-47, as the client: the owner's own Lightning wallets elsewhere, what is received there, and what is paid from there.
CREATE TABLE nwc_wallets (
  id TEXT PRIMARY KEY,
  wallet_pubkey TEXT NOT NULL CHECK (length(wallet_pubkey) = 64),
  -- Our key there; its secret is among the wrapped keys.
  client_pubkey TEXT NOT NULL UNIQUE CHECK (length(client_pubkey) = 64),
  relays_json TEXT NOT NULL CHECK (json_valid(relays_json)),
  lud16 TEXT,
  -- What it says that it does.
  info_json TEXT NOT NULL CHECK (json_valid(info_json)),
  -- As it said last.
  balance_msats INTEGER,
  balance_at INTEGER,
  state TEXT NOT NULL DEFAULT 'ok' CHECK (state IN ('ok', 'down')),
  reason TEXT,
  created_at INTEGER NOT NULL,
  disconnected_at INTEGER
) STRICT;
CREATE UNIQUE INDEX nwc_wallets_connected ON nwc_wallets ((1)) WHERE disconnected_at IS NULL;

CREATE TABLE nwc_invoices (
  id TEXT PRIMARY KEY,
  wallet_id TEXT NOT NULL REFERENCES nwc_wallets (id),
  idempotency_key TEXT NOT NULL UNIQUE,
  request_digest TEXT NOT NULL,
  owner_kind TEXT NOT NULL CHECK (owner_kind IN ('node', 'customer', 'agent')),
  owner_pubkey TEXT NOT NULL CHECK (length(owner_pubkey) = 64),
  request TEXT NOT NULL,
  payment_hash TEXT NOT NULL UNIQUE,
  amount_sats INTEGER NOT NULL CHECK (amount_sats > 0),
  credit_account TEXT NOT NULL,
  cause_type TEXT NOT NULL,
  cause_id TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('unpaid', 'settled', 'expired', 'closed')),
  of_stranger INTEGER NOT NULL CHECK (of_stranger IN (0, 1)),
  expires_at INTEGER NOT NULL,
  next_check_at INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX nwc_invoices_open ON nwc_invoices (next_check_at) WHERE state IN ('unpaid', 'expired');
CREATE INDEX nwc_invoices_closed ON nwc_invoices (updated_at) WHERE state = 'closed';

-- The request is stored with the payment and leaves by the outbox of the same commit; from then on only the wallet knows.
CREATE TABLE nwc_payments (
  id TEXT PRIMARY KEY,
  wallet_id TEXT NOT NULL REFERENCES nwc_wallets (id),
  idempotency_key TEXT NOT NULL UNIQUE,
  request_digest TEXT NOT NULL,
  owner_kind TEXT NOT NULL CHECK (owner_kind IN ('node', 'customer', 'agent')),
  owner_pubkey TEXT NOT NULL CHECK (length(owner_pubkey) = 64),
  request TEXT NOT NULL,
  payment_hash TEXT NOT NULL,
  amount_msats INTEGER NOT NULL CHECK (amount_msats > 0),
  debit_account TEXT NOT NULL,
  cause_type TEXT NOT NULL,
  cause_id TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('unknown', 'completed', 'failed')),
  -- The id of the request, which the wallet must not act on after its end (unix seconds).
  event_id TEXT NOT NULL UNIQUE,
  expires_at_s INTEGER NOT NULL,
  preimage TEXT,
  fee_msats INTEGER CHECK (fee_msats >= 0),
  reason TEXT,
  tries INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),
  next_check_at INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  CHECK ((state = 'unknown') = (next_check_at IS NOT NULL))
) STRICT;
CREATE INDEX nwc_payments_open ON nwc_payments (next_check_at) WHERE state = 'unknown';
-- One payment hash is paid once, also across mints: the operations are asked in the same commit.
CREATE UNIQUE INDEX nwc_payments_hash ON nwc_payments (payment_hash) WHERE state <> 'failed';
