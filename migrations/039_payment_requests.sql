-- Payment requests (NUT-18, 26): those that we made with what was paid on them, and those of others that we pay.
CREATE TABLE payment_requests (
  id TEXT PRIMARY KEY,
  owner_kind TEXT NOT NULL CHECK (owner_kind IN ('node', 'customer', 'agent')),
  owner_pubkey TEXT NOT NULL CHECK (length(owner_pubkey) = 64),
  idempotency_key TEXT NOT NULL UNIQUE,
  request_digest TEXT NOT NULL,
  -- NULL: whoever pays says how much.
  amount_sats INTEGER CHECK (amount_sats > 0),
  mints_json TEXT NOT NULL CHECK (json_valid(mints_json)),
  description TEXT,
  single_use INTEGER NOT NULL CHECK (single_use IN (0, 1)),
  transport TEXT NOT NULL CHECK (transport IN ('nostr', 'none')),
  request TEXT NOT NULL,
  request_bech32 TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('open', 'paid', 'cancelled')),
  expires_at INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX payment_requests_newest ON payment_requests (created_at);

-- What came in on one: claimed by its proofs before anything is asked of a mint.
CREATE TABLE request_payments (
  id TEXT PRIMARY KEY,
  request_id TEXT NOT NULL REFERENCES payment_requests (id),
  letter_id TEXT,
  sender TEXT,
  mint_url TEXT NOT NULL,
  face_sats INTEGER NOT NULL CHECK (face_sats > 0),
  token TEXT NOT NULL,
  memo TEXT,
  state TEXT NOT NULL CHECK (state IN ('claimed', 'received', 'refused')),
  amount_sats INTEGER CHECK (amount_sats >= 0),
  -- What the owner should know of it: short, over, late, cancelled, again.
  notes TEXT NOT NULL DEFAULT '',
  reason TEXT,
  tries INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),
  next_try_at INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  CHECK ((state = 'claimed') = (next_try_at IS NOT NULL)),
  CHECK ((state = 'received') = (amount_sats IS NOT NULL))
) STRICT;
CREATE INDEX request_payments_of ON request_payments (request_id, created_at);
CREATE INDEX request_payments_open ON request_payments (next_try_at) WHERE state = 'claimed';

-- What we pay on requests of others: claimed, then one token, then that token on its way as often as it takes.
CREATE TABLE request_sends (
  id TEXT PRIMARY KEY,
  owner_kind TEXT NOT NULL CHECK (owner_kind IN ('node', 'customer', 'agent')),
  owner_pubkey TEXT NOT NULL CHECK (length(owner_pubkey) = 64),
  idempotency_key TEXT NOT NULL UNIQUE,
  request_digest TEXT NOT NULL,
  request TEXT NOT NULL,
  amount_sats INTEGER NOT NULL CHECK (amount_sats > 0),
  mint_url TEXT,
  transport TEXT NOT NULL CHECK (transport IN ('nostr', 'post', 'none')),
  target TEXT,
  state TEXT NOT NULL CHECK (state IN ('claimed', 'sending', 'delivered', 'undelivered')),
  payload TEXT,
  reason TEXT,
  tries INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),
  next_try_at INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX request_sends_newest ON request_sends (created_at);
CREATE INDEX request_sends_open ON request_sends (next_try_at) WHERE state IN ('claimed', 'sending');
