-- Actions that wait for their owner, and the log of what was done with money, each row bound to the one before it by a hash.
CREATE TABLE actions_waiting (
  id TEXT PRIMARY KEY,
  tick_id TEXT NOT NULL REFERENCES ticks (id),
  agent_pubkey TEXT NOT NULL REFERENCES agents (pubkey),
  idx INTEGER NOT NULL CHECK (idx >= 0),
  type TEXT NOT NULL,
  params_json TEXT NOT NULL CHECK (json_valid(params_json)),
  counterparty TEXT,                         -- whom it concerns, once known
  state TEXT NOT NULL CHECK (state IN ('planned', 'waiting', 'approved', 'claimed', 'published', 'done', 'refused', 'failed', 'unknown')),
  event_id TEXT,
  cost_msats INTEGER NOT NULL DEFAULT 0 CHECK (cost_msats >= 0),
  reason TEXT,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  said_id TEXT,
  UNIQUE (tick_id, idx)
) STRICT;
INSERT INTO actions_waiting SELECT id, tick_id, agent_pubkey, idx, type, params_json, counterparty, state, event_id, cost_msats, reason,
  created_at, updated_at, said_id FROM actions;
DROP TABLE actions;
ALTER TABLE actions_waiting RENAME TO actions;
CREATE INDEX actions_counterparty ON actions (agent_pubkey, counterparty, updated_at);
CREATE INDEX actions_open ON actions (state) WHERE state IN ('planned', 'waiting', 'approved', 'claimed', 'unknown');
CREATE INDEX actions_said ON actions (said_id) WHERE said_id IS NOT NULL;

-- A number is given once, for ever: who says `approve 7` means this one.
CREATE TABLE approvals (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  action_id TEXT NOT NULL UNIQUE,
  agent_pubkey TEXT NOT NULL REFERENCES agents (pubkey),
  type TEXT NOT NULL,
  params_json TEXT NOT NULL CHECK (json_valid(params_json)),
  amount_sats INTEGER NOT NULL CHECK (amount_sats >= 0),
  counterparty TEXT,
  why TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'denied', 'expired')),
  decided_by TEXT,
  reason TEXT,
  asked_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  decided_at INTEGER,
  observed_in TEXT,                          -- the tick that was told how it ended
  CHECK ((state = 'pending') = (decided_at IS NULL))
) STRICT;
CREATE INDEX approvals_pending ON approvals (expires_at) WHERE state = 'pending';
CREATE INDEX approvals_agent ON approvals (agent_pubkey, state);
CREATE INDEX approvals_news ON approvals (agent_pubkey) WHERE observed_in IS NULL;

CREATE TABLE audit_log (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  kind TEXT NOT NULL,
  data_json TEXT NOT NULL CHECK (json_valid(data_json)),
  previous TEXT NOT NULL,
  hash TEXT NOT NULL
) STRICT;
