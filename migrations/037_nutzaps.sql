-- Nutzaps (NIP-61). Times are milliseconds since the epoch, but created_at of an event.

-- That came for keys of this home: claimed by the id of the event, redeemed once, told once.
CREATE TABLE nutzaps (
  id TEXT PRIMARY KEY CHECK (length(id) = 64),
  owner_kind TEXT NOT NULL CHECK (owner_kind IN ('node', 'customer', 'agent')),
  owner_pubkey TEXT NOT NULL CHECK (length(owner_pubkey) = 64),
  sender TEXT NOT NULL CHECK (length(sender) = 64),
  comment TEXT NOT NULL,
  zapped TEXT CHECK (zapped IS NULL OR length(zapped) = 64),
  mint_url TEXT NOT NULL,
  proofs_json TEXT NOT NULL CHECK (json_valid(proofs_json)),  -- what is redeemed; empty once its end is known
  state TEXT NOT NULL CHECK (state IN ('claimed', 'redeemed', 'told', 'refused')),
  amount_sats INTEGER CHECK (amount_sats IS NULL OR amount_sats >= 0),
  reason TEXT,                                    -- why it was refused, or what it waits for
  tries INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),
  next_try_at INTEGER,
  created_at INTEGER NOT NULL,                    -- unix seconds, as the sender says
  heard_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  CHECK ((state IN ('redeemed', 'told')) = (amount_sats IS NOT NULL))
) STRICT;
CREATE INDEX nutzaps_due ON nutzaps (next_try_at) WHERE next_try_at IS NOT NULL;
CREATE INDEX nutzaps_sender ON nutzaps (owner_pubkey, sender, heard_at);
CREATE INDEX nutzaps_ended ON nutzaps (updated_at) WHERE next_try_at IS NULL;

-- What nutzaps have brought: the same proofs in another event are nothing new.
CREATE TABLE nutzap_proofs (
  secret_hash TEXT PRIMARY KEY CHECK (length(secret_hash) = 64),
  nutzap_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- That keys of this home send: fixed before the token is made, published once it is.
CREATE TABLE nutzap_sends (
  idempotency_key TEXT PRIMARY KEY,
  request_digest TEXT NOT NULL,
  owner_kind TEXT NOT NULL CHECK (owner_kind IN ('node', 'customer', 'agent')),
  owner_pubkey TEXT NOT NULL CHECK (length(owner_pubkey) = 64),
  recipient TEXT NOT NULL CHECK (length(recipient) = 64),
  cause_type TEXT NOT NULL,
  cause_id TEXT NOT NULL,
  amount_sats INTEGER NOT NULL CHECK (amount_sats > 0),
  mint_url TEXT NOT NULL,                         -- of our list
  mint_named TEXT NOT NULL,                       -- the same as the recipient writes it
  lock_to TEXT NOT NULL,
  relays_json TEXT NOT NULL CHECK (json_valid(relays_json)),
  comment TEXT NOT NULL,
  zapped TEXT CHECK (zapped IS NULL OR length(zapped) = 64),
  zapped_kind INTEGER,
  state TEXT NOT NULL CHECK (state IN ('fixed', 'sent', 'failed')),
  event_id TEXT,
  note TEXT,
  next_try_at INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  CHECK ((state = 'sent') = (event_id IS NOT NULL))
) STRICT;
CREATE INDEX nutzap_sends_due ON nutzap_sends (next_try_at) WHERE next_try_at IS NOT NULL;
