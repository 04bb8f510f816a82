-- Sats on their way from one mint to another of the same wallet: an invoice of the one, paid by the other, both under the id as their key.
CREATE TABLE purse_moves (
  id TEXT PRIMARY KEY,
  -- The key of the spend that needs it, or of who asked for the move itself; several may be for one.
  for_key TEXT NOT NULL,
  -- spend: its caller asks again; owner: asked for by itself; foreign: a token of a mint that is not on the list comes home.
  purpose TEXT NOT NULL CHECK (purpose IN ('spend', 'owner', 'foreign')),
  owner_kind TEXT NOT NULL CHECK (owner_kind IN ('node', 'customer', 'agent')),
  owner_pubkey TEXT NOT NULL CHECK (length(owner_pubkey) = 64),
  from_url TEXT NOT NULL,
  to_url TEXT NOT NULL,
  amount_sats INTEGER NOT NULL CHECK (amount_sats > 0),
  max_fee_sats INTEGER NOT NULL CHECK (max_fee_sats >= 0),
  owed_too INTEGER NOT NULL CHECK (owed_too IN (0, 1)),
  cause_type TEXT NOT NULL,
  cause_id TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('receiving', 'planned', 'paid', 'arrived', 'failed', 'lost')),
  reason TEXT,
  tries INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),
  next_try_at INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  CHECK ((state IN ('receiving', 'planned', 'paid')) = (next_try_at IS NOT NULL)),
  CHECK (from_url <> to_url)
) STRICT;
CREATE INDEX purse_moves_for ON purse_moves (for_key);
CREATE INDEX purse_moves_open ON purse_moves (next_try_at) WHERE state IN ('receiving', 'planned', 'paid');

CREATE TABLE purse_move_transitions (
  id INTEGER PRIMARY KEY,
  move_id TEXT NOT NULL REFERENCES purse_moves (id),
  from_state TEXT,
  to_state TEXT NOT NULL,
  reason TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX purse_move_transitions_move ON purse_move_transitions (move_id);
