-- What the owner's key and a peer without a key package say to each other by NIP-17.
CREATE TABLE direct_messages (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  peer TEXT NOT NULL,
  -- Of the rumor.
  id TEXT NOT NULL CHECK (length(id) = 64),
  is_own INTEGER NOT NULL CHECK (is_own IN (0, 1)),
  content TEXT NOT NULL,
  -- Unix seconds, as the sender says.
  created_at INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('handled', 'sending', 'sent', 'refused')),
  reason TEXT,
  -- Of what we say: once for each key.
  key TEXT UNIQUE,
  at INTEGER NOT NULL,
  UNIQUE (peer, id)
) STRICT;
CREATE INDEX direct_messages_page ON direct_messages (peer, seq);
CREATE INDEX direct_messages_at ON direct_messages (at);
