-- NIP-46, as the bunker: who elsewhere may sign with a key of this home, and each request of theirs, once.
CREATE TABLE bunker_grants (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  -- Whose key signs, and the key that speaks for it.
  user_pubkey TEXT NOT NULL,
  signer_pubkey TEXT NOT NULL UNIQUE,
  -- Which side made the string: bunker:// or nostrconnect://.
  origin TEXT NOT NULL CHECK (origin IN ('bunker', 'client')),
  methods_json TEXT NOT NULL,
  -- Null: all kinds but those that are granted by name only.
  kinds_json TEXT,
  relays_json TEXT NOT NULL,
  client_pubkey TEXT,
  client_name TEXT,
  created_at INTEGER NOT NULL,
  connected_at INTEGER,
  last_used_at INTEGER,
  expires_at INTEGER,
  revoked_at INTEGER,
  CHECK ((client_pubkey IS NULL) = (connected_at IS NULL))
) STRICT;

CREATE TABLE bunker_requests (
  event_id TEXT PRIMARY KEY,
  grant_id TEXT NOT NULL REFERENCES bunker_grants (id),
  method TEXT NOT NULL,
  -- Of what was to be signed.
  kind INTEGER,
  refusal TEXT,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX bunker_requests_grant ON bunker_requests (grant_id, created_at);
CREATE INDEX bunker_requests_created ON bunker_requests (created_at);
