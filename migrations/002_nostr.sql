-- Nostr: what was seen, how far each relay was read, what is to be published, keys of this home, relay lists of others.

-- Claimed events: an id is acted on once.
CREATE TABLE seen_events (
  event_id TEXT PRIMARY KEY,
  subscription TEXT NOT NULL,
  seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX seen_events_seen ON seen_events (seen_at);

-- How far a relay was read for a subscription: our own time in milliseconds, never a created_at.
CREATE TABLE cursors (
  relay TEXT NOT NULL,
  name TEXT NOT NULL,
  reached_at INTEGER NOT NULL,
  PRIMARY KEY (relay, name)
) STRICT, WITHOUT ROWID;

-- Logical messages to publish. notified: the subsystem that wants to know of the first acceptance was told.
CREATE TABLE outbox_messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL,
  event_id TEXT NOT NULL,
  kind INTEGER NOT NULL,
  event TEXT NOT NULL,
  not_after INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  accepted_at INTEGER,
  notified INTEGER NOT NULL DEFAULT 0 CHECK (notified IN (0, 1)),
  UNIQUE (key, event_id)
) STRICT;
CREATE INDEX outbox_unnotified ON outbox_messages (key) WHERE notified = 0 AND accepted_at IS NOT NULL;
CREATE INDEX outbox_created ON outbox_messages (created_at);

CREATE TABLE outbox_deliveries (
  message_id INTEGER NOT NULL REFERENCES outbox_messages (id) ON DELETE CASCADE,
  relay TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'accepted', 'rejected', 'expired', 'superseded')),
  attempts INTEGER NOT NULL DEFAULT 0,
  last_error TEXT,
  next_at INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (message_id, relay)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_pending ON outbox_deliveries (relay, message_id) WHERE state = 'pending';

-- Keys of this home besides node and customer: accounts by number, imported secrets sealed under the master secret.
CREATE TABLE wrapped_keys (
  pubkey TEXT PRIMARY KEY,
  account INTEGER UNIQUE,
  nonce BLOB,
  ciphertext BLOB,
  created_at INTEGER NOT NULL,
  CHECK ((account IS NULL) <> (ciphertext IS NULL)),
  CHECK ((nonce IS NULL) = (ciphertext IS NULL))
) STRICT, WITHOUT ROWID;

-- Newest replaceable events of others that we look up: 0, 10002, 10050. event is null where nothing was found.
CREATE TABLE relay_lists (
  pubkey TEXT NOT NULL,
  kind INTEGER NOT NULL,
  event TEXT,
  fetched_at INTEGER NOT NULL,
  PRIMARY KEY (pubkey, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX relay_lists_fetched ON relay_lists (fetched_at);
