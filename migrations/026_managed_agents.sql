-- Agents that run in a runtime and are talked to in a session: what was asked for, how far it is, what exists of it.
CREATE TABLE managed_agents (
  id TEXT PRIMARY KEY,                       -- the idempotency key of the call that made it
  name TEXT NOT NULL,
  digest TEXT NOT NULL,
  server_pubkey TEXT NOT NULL,
  command TEXT NOT NULL CHECK (json_valid(command)),  -- the provision command, the token of its hello in it
  max_sats INTEGER CHECK (max_sats >= 0),
  pay_with TEXT CHECK (pay_with IN ('invoice', 'token')),
  keep INTEGER NOT NULL CHECK (keep IN (0, 1)),
  phase TEXT NOT NULL CHECK (phase IN ('requested', 'provisioning', 'booting', 'waiting_for_service_ready',
    'waiting_for_keypackage_publish', 'ready', 'failed', 'ending', 'ended')),
  reason TEXT,
  error_code TEXT,
  cleanup TEXT NOT NULL CHECK (cleanup IN ('none', 'due', 'kept', 'done', 'manual')),
  cleanup_reason TEXT,
  runtime_id TEXT,
  runtime TEXT CHECK (json_valid(runtime)),  -- the descriptor, once the node answered
  payload TEXT CHECK (json_valid(payload)),
  bot_pubkey TEXT,
  group_id TEXT,
  welcomes TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(welcomes)),  -- that the runtime is still to be handed
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX managed_agents_name ON managed_agents (name) WHERE phase NOT IN ('failed', 'ended');
CREATE INDEX managed_agents_open ON managed_agents (phase) WHERE phase NOT IN ('ended');
CREATE INDEX managed_agents_bot ON managed_agents (bot_pubkey) WHERE bot_pubkey IS NOT NULL;

CREATE TABLE managed_agent_steps (
  id INTEGER PRIMARY KEY,
  agent_id TEXT NOT NULL REFERENCES managed_agents (id) ON DELETE CASCADE,
  from_state TEXT,
  to_state TEXT NOT NULL,
  reason TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX managed_agent_steps_agent ON managed_agent_steps (agent_id, id);
