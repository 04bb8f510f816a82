-- What is said to an agent in an encrypted session is heard as a direct message is, by a scheme of its own.
CREATE TABLE heard_new (
  agent_pubkey TEXT NOT NULL REFERENCES agents (pubkey),
  id TEXT NOT NULL,
  type TEXT NOT NULL CHECK (type IN ('mention', 'dm', 'zap')),
  sender TEXT NOT NULL,
  content TEXT NOT NULL,
  scheme TEXT CHECK (scheme IS NULL OR scheme IN ('nip17', 'nip04', 'mls')),
  amount_msats INTEGER CHECK (amount_msats IS NULL OR amount_msats >= 0),
  event_json TEXT CHECK (event_json IS NULL OR json_valid(event_json)),
  wakes INTEGER NOT NULL CHECK (wakes IN (0, 1)),   -- whether it may cause a tick by itself
  created_at INTEGER NOT NULL,                      -- unix seconds, as the sender says
  heard_at INTEGER NOT NULL,
  tick_id TEXT REFERENCES ticks (id),
  tries INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),  -- ticks that failed over it
  passed INTEGER NOT NULL DEFAULT 0 CHECK (passed >= 0),  -- ticks that looked at it and left it for a later one
  PRIMARY KEY (agent_pubkey, id)
) STRICT;
INSERT INTO heard_new (agent_pubkey, id, type, sender, content, scheme, amount_msats, event_json, wakes, created_at, heard_at, tick_id, tries, passed)
  SELECT agent_pubkey, id, type, sender, content, scheme, amount_msats, event_json, wakes, created_at, heard_at, tick_id, tries, passed FROM heard
  ORDER BY rowid;
DROP TABLE heard;
ALTER TABLE heard_new RENAME TO heard;
CREATE INDEX heard_waiting ON heard (agent_pubkey, heard_at) WHERE tick_id IS NULL;
CREATE INDEX heard_tick ON heard (tick_id);
CREATE INDEX heard_sender ON heard (agent_pubkey, sender, scheme);
CREATE INDEX heard_waiting_of ON heard (agent_pubkey, type, sender) WHERE tick_id IS NULL;
