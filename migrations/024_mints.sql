-- What was learnt of mints: items of their lists that can't be used, how much they take at once, addresses that they left.

-- [{"id", "reason"}] of keysets that are listed and can't be used.
ALTER TABLE mints ADD COLUMN set_aside_json TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(set_aside_json));
-- Inputs of one request, learnt from a refusal; null: never refused.
ALTER TABLE mints ADD COLUMN max_inputs INTEGER CHECK (max_inputs > 0);

-- Where a mint of the list was before: what still names the old address means the new one.
CREATE TABLE mint_former_urls (
  url TEXT PRIMARY KEY,
  mint_url TEXT NOT NULL
) STRICT;

-- Outputs of operations that are over, whose signatures could not be used: asked for again, and by a restore.
CREATE TABLE owed_signatures (
  operation_id TEXT PRIMARY KEY,
  owner_kind TEXT NOT NULL CHECK (owner_kind IN ('node', 'customer', 'agent')),
  owner_pubkey TEXT NOT NULL CHECK (length(owner_pubkey) = 64),
  mint_url TEXT NOT NULL,
  -- What the mint claims that they are worth.
  owed_sats INTEGER NOT NULL CHECK (owed_sats >= 0),
  -- With their blinding data.
  outputs_json TEXT NOT NULL CHECK (json_valid(outputs_json)),
  reason TEXT NOT NULL,
  tries INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),
  -- Null: only when it is asked for.
  next_try_at INTEGER,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX owed_signatures_due ON owed_signatures (next_try_at) WHERE next_try_at IS NOT NULL;
