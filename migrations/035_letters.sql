-- Private messages (NIP-17) of the node's own key. Once for each key of a caller: said when relays of the recipient are known.
CREATE TABLE letters_out (
  key TEXT PRIMARY KEY,
  recipient TEXT NOT NULL CHECK (length(recipient) = 64),
  text TEXT NOT NULL,
  -- Relays that the recipient named, where none can be looked up: a JSON list.
  hints TEXT NOT NULL,
  -- The rumor that this answers.
  reply_to TEXT,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'sending', 'sent', 'refused')),
  reason TEXT,
  tries INTEGER NOT NULL DEFAULT 0,
  next_at INTEGER NOT NULL DEFAULT 0,
  not_after INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX letters_out_waiting ON letters_out (next_at) WHERE state = 'waiting';
CREATE INDEX letters_out_created ON letters_out (created_at);

-- What was said to it: claimed by the id of the rumor, whatever wrap it came in. Kept whole only while whoever takes it could not.
CREATE TABLE letters_in (
  rumor_id TEXT PRIMARY KEY CHECK (length(rumor_id) = 64),
  sender TEXT NOT NULL,
  kind INTEGER NOT NULL,
  content TEXT NOT NULL,
  tags TEXT NOT NULL,
  -- Unix seconds, as the sender says.
  created_at INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'taken', 'given_up')),
  -- Who took it; of one that waits, or was given up, why.
  taken_by TEXT,
  reason TEXT,
  tries INTEGER NOT NULL DEFAULT 0,
  next_at INTEGER NOT NULL DEFAULT 0,
  heard_at INTEGER NOT NULL
) STRICT;
CREATE INDEX letters_in_waiting ON letters_in (next_at) WHERE state = 'waiting';
CREATE INDEX letters_in_heard ON letters_in (heard_at);
