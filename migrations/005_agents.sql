-- Host: agents, what they heard, their ticks and actions, goals and memories.
CREATE TABLE agents (
  pubkey TEXT PRIMARY KEY,
  npub TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  account_index INTEGER UNIQUE CHECK (account_index IS NULL OR account_index >= 10),  -- NIP-06; NULL: imported
  about TEXT NOT NULL,
  brain_json TEXT NOT NULL CHECK (json_valid(brain_json)),
  relays_json TEXT NOT NULL CHECK (json_valid(relays_json)),                          -- []: those of the node
  heartbeat_s INTEGER NOT NULL CHECK (heartbeat_s > 0),
  autonomy TEXT NOT NULL CHECK (autonomy IN ('bounded', 'autonomous', 'supervised')),
  dm_scheme TEXT NOT NULL CHECK (dm_scheme IN ('auto', 'nip17', 'nip04')),
  budget_json TEXT NOT NULL CHECK (json_valid(budget_json)),
  allow_json TEXT NOT NULL CHECK (json_valid(allow_json)),                            -- pubkeys that a bounded agent may deal with unasked
  tick_fee_sats INTEGER NOT NULL CHECK (tick_fee_sats >= 0),
  lifecycle_state TEXT NOT NULL CHECK (lifecycle_state IN ('spawning', 'active', 'low_balance', 'hibernating', 'dormant', 'paused')),
  paused_from TEXT CHECK (paused_from IS NULL OR paused_from IN ('active', 'low_balance', 'hibernating', 'dormant')),
  state_reason TEXT NOT NULL,
  lud06 TEXT,
  profile_digest TEXT,                                                                -- of what was last published
  failures INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),                          -- failed ticks in a row
  retry_at INTEGER,                                                                   -- no tick before this after a failure
  next_tick_at INTEGER,
  last_tick_at INTEGER,
  tick_count INTEGER NOT NULL DEFAULT 0 CHECK (tick_count >= 0),
  created_at INTEGER NOT NULL,
  deleted_at INTEGER,
  CHECK ((lifecycle_state = 'paused') = (paused_from IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX agents_name ON agents (name) WHERE deleted_at IS NULL;

CREATE TABLE agent_transitions (
  agent_pubkey TEXT NOT NULL REFERENCES agents (pubkey),
  from_state TEXT NOT NULL,
  to_state TEXT NOT NULL,
  reason TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX agent_transitions_agent ON agent_transitions (agent_pubkey, at);

CREATE TABLE ticks (
  id TEXT PRIMARY KEY,
  agent_pubkey TEXT NOT NULL REFERENCES agents (pubkey),
  number INTEGER NOT NULL CHECK (number > 0),
  slot TEXT NOT NULL,                        -- the occasion: `first`, `heartbeat:<due>`, `trigger:<id>`, `manual:<id>`
  trigger_type TEXT NOT NULL CHECK (trigger_type IN ('first', 'heartbeat', 'mention', 'dm', 'zap', 'funding', 'manual')),
  state TEXT NOT NULL CHECK (state IN ('claimed', 'thinking', 'acting', 'done', 'failed')),
  attempts INTEGER NOT NULL DEFAULT 0,       -- how often thinking was begun
  observation_json TEXT CHECK (observation_json IS NULL OR json_valid(observation_json)),
  thought TEXT,
  cost_msats INTEGER NOT NULL DEFAULT 0 CHECK (cost_msats >= 0),
  error TEXT,
  started_at INTEGER NOT NULL,
  finished_at INTEGER,
  UNIQUE (agent_pubkey, slot),
  UNIQUE (agent_pubkey, number)
) STRICT;
CREATE INDEX ticks_open ON ticks (state) WHERE state IN ('claimed', 'thinking', 'acting');
CREATE INDEX ticks_started ON ticks (started_at);

CREATE TABLE actions (
  id TEXT PRIMARY KEY,
  tick_id TEXT NOT NULL REFERENCES ticks (id),
  agent_pubkey TEXT NOT NULL REFERENCES agents (pubkey),
  idx INTEGER NOT NULL CHECK (idx >= 0),
  type TEXT NOT NULL,
  params_json TEXT NOT NULL CHECK (json_valid(params_json)),
  counterparty TEXT,                         -- whom it concerns, once known
  state TEXT NOT NULL CHECK (state IN ('planned', 'claimed', 'published', 'done', 'refused', 'failed', 'unknown')),
  event_id TEXT,
  cost_msats INTEGER NOT NULL DEFAULT 0 CHECK (cost_msats >= 0),
  reason TEXT,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  UNIQUE (tick_id, idx)
) STRICT;
CREATE INDEX actions_counterparty ON actions (agent_pubkey, counterparty, updated_at);
CREATE INDEX actions_open ON actions (state) WHERE state IN ('planned', 'claimed', 'unknown');

-- Digests of what an agent has said: the same words are not posted twice.
CREATE TABLE said (
  agent_pubkey TEXT NOT NULL REFERENCES agents (pubkey),
  digest TEXT NOT NULL,
  action_id TEXT NOT NULL,
  PRIMARY KEY (agent_pubkey, digest)
) STRICT, WITHOUT ROWID;

-- What was said to an agent: claimed once by (agent, id), observed by one tick. A rumor's id stands for all its wraps.
CREATE TABLE heard (
  agent_pubkey TEXT NOT NULL REFERENCES agents (pubkey),
  id TEXT NOT NULL,
  type TEXT NOT NULL CHECK (type IN ('mention', 'dm', 'zap')),
  sender TEXT NOT NULL,
  content TEXT NOT NULL,
  scheme TEXT CHECK (scheme IS NULL OR scheme IN ('nip17', 'nip04')),
  amount_msats INTEGER CHECK (amount_msats IS NULL OR amount_msats >= 0),
  event_json TEXT CHECK (event_json IS NULL OR json_valid(event_json)),
  wakes INTEGER NOT NULL CHECK (wakes IN (0, 1)),   -- whether it may cause a tick by itself
  created_at INTEGER NOT NULL,                      -- unix seconds, as the sender says
  heard_at INTEGER NOT NULL,
  tick_id TEXT REFERENCES ticks (id),
  tries INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),  -- ticks that failed over it
  PRIMARY KEY (agent_pubkey, id)
) STRICT;
CREATE INDEX heard_waiting ON heard (agent_pubkey, heard_at) WHERE tick_id IS NULL;
CREATE INDEX heard_tick ON heard (tick_id);

-- Wraps that were opened or could not be, so that none is decrypted twice.
CREATE TABLE opened_wraps (
  id TEXT NOT NULL,
  agent_pubkey TEXT NOT NULL REFERENCES agents (pubkey),
  at INTEGER NOT NULL,
  PRIMARY KEY (agent_pubkey, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE goals (
  id TEXT PRIMARY KEY,
  agent_pubkey TEXT NOT NULL REFERENCES agents (pubkey),
  description TEXT NOT NULL,
  priority INTEGER NOT NULL CHECK (priority BETWEEN 1 AND 5),
  status TEXT NOT NULL CHECK (status IN ('active', 'paused', 'completed', 'cancelled')),
  progress INTEGER NOT NULL CHECK (progress BETWEEN 0 AND 100),
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX goals_agent ON goals (agent_pubkey);

CREATE TABLE memories (
  id INTEGER PRIMARY KEY,
  agent_pubkey TEXT NOT NULL REFERENCES agents (pubkey),
  type TEXT NOT NULL CHECK (type IN ('remember', 'summary')),
  content TEXT NOT NULL,
  action_id TEXT UNIQUE,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX memories_agent ON memories (agent_pubkey, id);

-- What each agent is and holds, in the words of the contract. Times are milliseconds since the epoch.
CREATE VIEW agent_state AS
SELECT
  a.npub AS agent_npub,
  a.lifecycle_state,
  (SELECT coalesce(sum(p.amount_msats), 0) FROM postings p
   WHERE p.account >= 'agent:' || a.pubkey || '/wallet/' AND p.account < 'agent:' || a.pubkey || '/wallet0') / 1000 AS balance_sats,
  a.tick_count,
  a.last_tick_at
FROM agents a WHERE a.deleted_at IS NULL;
