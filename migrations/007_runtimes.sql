-- Machines: runtimes and each step of their lives, what came out of them, leases, and the commands that steer them.
-- Times are milliseconds since the epoch.
CREATE TABLE runtimes (
  id TEXT PRIMARY KEY,
  provider TEXT NOT NULL CHECK (provider IN ('incus', 'local', 'microvm', 'fly', 'workers')),
  owner_pubkey TEXT NOT NULL CHECK (length(owner_pubkey) = 64),
  runtime_class TEXT NOT NULL,
  -- Null: a one-shot run.
  protocol TEXT CHECK (protocol IN ('pi', 'acp')),
  state TEXT NOT NULL CHECK (state IN ('requested', 'provisioning', 'ready', 'unreachable', 'ended', 'failed', 'teardown', 'gone')),
  state_reason TEXT NOT NULL,
  spec TEXT NOT NULL CHECK (json_valid(spec)),
  -- What provision needs beyond the spec (timeout, target, provider parameters, environment); null once the runtime is ready,
  -- since the environment may hold secrets.
  input TEXT CHECK (input IS NULL OR json_valid(input)),
  -- The adapter's; null while there is no instance.
  handle TEXT CHECK (handle IS NULL OR json_valid(handle)),
  region TEXT,
  protocols TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(protocols)),
  bot_pubkey TEXT,
  metadata TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(metadata)),
  -- Whether a teardown leaves the volume.
  keep_volume INTEGER NOT NULL DEFAULT 0 CHECK (keep_volume IN (0, 1)),
  -- A one-shot run: when the host ends it, and its result (JSON of result.json).
  deadline INTEGER,
  result TEXT CHECK (result IS NULL OR json_valid(result)),
  -- After this it is torn down, lease or not.
  expires_at INTEGER,
  last_snapshot_at INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  CHECK (state NOT IN ('ready', 'unreachable', 'ended') OR handle IS NOT NULL)
) STRICT;
CREATE INDEX runtimes_owner ON runtimes (owner_pubkey, id);
CREATE INDEX runtimes_state ON runtimes (state, updated_at);

CREATE TABLE runtime_transitions (
  id INTEGER PRIMARY KEY,
  runtime_id TEXT NOT NULL REFERENCES runtimes (id) ON DELETE CASCADE,
  from_state TEXT,
  to_state TEXT NOT NULL,
  reason TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX runtime_transitions_runtime ON runtime_transitions (runtime_id, id);

-- Collected before the instance went: stdout, stderr, log, events, status, result, artifact:<path>.
CREATE TABLE runtime_outputs (
  runtime_id TEXT NOT NULL REFERENCES runtimes (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (runtime_id, name)
) STRICT;

CREATE TABLE leases (
  id TEXT PRIMARY KEY,
  runtime_id TEXT NOT NULL REFERENCES runtimes (id) ON DELETE CASCADE,
  tenant_pubkey TEXT NOT NULL CHECK (length(tenant_pubkey) = 64),
  state TEXT NOT NULL CHECK (state IN ('quoted', 'expired', 'paid', 'active', 'ended', 'refunding', 'refunded')),
  price_msats_per_hour INTEGER NOT NULL CHECK (price_msats_per_hour >= 0),
  seconds INTEGER NOT NULL CHECK (seconds > 0),
  price_msats INTEGER NOT NULL CHECK (price_msats >= 0),
  paid_msats INTEGER NOT NULL DEFAULT 0 CHECK (paid_msats >= 0),
  -- An extension begins where the lease before it ends.
  extends_id TEXT REFERENCES leases (id),
  payment_request TEXT,
  payment_expires_at INTEGER,
  mint_url TEXT,
  starts_at INTEGER,
  ends_at INTEGER,
  notice_sent INTEGER NOT NULL DEFAULT 0 CHECK (notice_sent IN (0, 1)),
  refund_msats INTEGER NOT NULL DEFAULT 0 CHECK (refund_msats >= 0),
  refund_sends INTEGER NOT NULL DEFAULT 0 CHECK (refund_sends >= 0),
  refund_next_at INTEGER,
  reason TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  CHECK (state NOT IN ('paid', 'active', 'refunding', 'refunded') OR paid_msats > 0),
  CHECK (state <> 'active' OR ends_at IS NOT NULL)
) STRICT;
CREATE INDEX leases_runtime ON leases (runtime_id);
CREATE INDEX leases_open ON leases (state, ends_at) WHERE state NOT IN ('ended', 'refunded');

CREATE TABLE lease_transitions (
  id INTEGER PRIMARY KEY,
  lease_id TEXT NOT NULL REFERENCES leases (id) ON DELETE CASCADE,
  from_state TEXT,
  to_state TEXT NOT NULL,
  reason TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX lease_transitions_lease ON lease_transitions (lease_id, id);

CREATE TABLE control_requests (
  requester TEXT NOT NULL CHECK (length(requester) = 64),
  idempotency_key TEXT NOT NULL,
  command TEXT NOT NULL,
  digest TEXT NOT NULL CHECK (length(digest) = 64),
  -- Of the first that brought it.
  request_id TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('running', 'succeeded', 'failed')),
  runtime_id TEXT,
  -- In order, as they were sent, without request id (JSON array).
  statuses TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(statuses)),
  -- { runtime, payload } or { code, hint, detail }.
  terminal TEXT CHECK (terminal IS NULL OR json_valid(terminal)),
  attempts INTEGER NOT NULL DEFAULT 1,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (requester, idempotency_key),
  CHECK ((state = 'running') = (terminal IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX control_requests_updated ON control_requests (updated_at) WHERE state <> 'running';
CREATE INDEX control_requests_runtime ON control_requests (runtime_id) WHERE runtime_id IS NOT NULL;
CREATE INDEX control_requests_running ON control_requests (created_at) WHERE state = 'running';
