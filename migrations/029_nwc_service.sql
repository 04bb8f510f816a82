-- NIP-47, as the wallet: connections by which programs elsewhere use a wallet of this home. Both keys derive from the words and the id.
CREATE TABLE nwc_connections (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  owner_kind TEXT NOT NULL CHECK (owner_kind IN ('node', 'customer', 'agent')),
  owner_pubkey TEXT NOT NULL CHECK (length(owner_pubkey) = 64),
  service_pubkey TEXT NOT NULL UNIQUE CHECK (length(service_pubkey) = 64),
  client_pubkey TEXT NOT NULL CHECK (length(client_pubkey) = 64),
  relays_json TEXT NOT NULL CHECK (json_valid(relays_json)),
  methods_json TEXT NOT NULL CHECK (json_valid(methods_json)),
  -- Null: no limit of its own.
  budget_sats INTEGER CHECK (budget_sats > 0),
  budget_per TEXT CHECK (budget_per IN ('hour', 'day', 'week', 'month', 'total')),
  -- What requests that are forgotten by now have spent.
  forgotten_sats INTEGER NOT NULL DEFAULT 0 CHECK (forgotten_sats >= 0),
  expires_at INTEGER,
  created_at INTEGER NOT NULL,
  last_used_at INTEGER,
  revoked_at INTEGER,
  CHECK ((budget_sats IS NULL) = (budget_per IS NULL))
) STRICT;
CREATE INDEX nwc_connections_owner ON nwc_connections (owner_pubkey);

-- Each request once, by the id of its event: claimed before anything is done, answered once.
CREATE TABLE nwc_requests (
  event_id TEXT PRIMARY KEY CHECK (length(event_id) = 64),
  connection_id TEXT NOT NULL REFERENCES nwc_connections (id),
  -- Who asked, and is answered.
  client_pubkey TEXT NOT NULL CHECK (length(client_pubkey) = 64),
  method TEXT NOT NULL,
  encryption TEXT NOT NULL CHECK (encryption IN ('nip44_v2', 'nip04')),
  params_json TEXT NOT NULL CHECK (json_valid(params_json)),
  -- The signed event that answers.
  answer_json TEXT CHECK (answer_json IS NULL OR json_valid(answer_json)),
  -- In words, where it was refused.
  refusal TEXT,
  -- How often the answer was sent, and when last.
  sends INTEGER NOT NULL DEFAULT 0 CHECK (sends >= 0),
  sent_at INTEGER,
  -- Of a payment: what it holds of the budget, or has cost.
  payment_hash TEXT,
  spend_sats INTEGER CHECK (spend_sats >= 0),
  spend_state TEXT CHECK (spend_state IN ('held', 'spent', 'released')),
  created_at INTEGER NOT NULL,
  CHECK ((spend_sats IS NULL) = (spend_state IS NULL))
) STRICT;
CREATE INDEX nwc_requests_open ON nwc_requests (created_at) WHERE answer_json IS NULL;
CREATE INDEX nwc_requests_spends ON nwc_requests (connection_id, created_at) WHERE spend_state IN ('held', 'spent');
CREATE INDEX nwc_requests_ended ON nwc_requests (created_at) WHERE answer_json IS NOT NULL;

-- What a wallet tells of its transactions is read by these.
CREATE INDEX mint_quotes_hash ON mint_quotes (payment_hash);
CREATE INDEX mint_quotes_owner ON mint_quotes (owner_pubkey, created_at);
CREATE INDEX operations_paid ON operations (owner_pubkey, created_at) WHERE kind = 'melt';
