-- Money: the ledger, proofs, quotes, operations and mints. Times are milliseconds since the epoch.

-- One balanced set of postings per entry; the id says what happened, so that it is posted once.
CREATE TABLE ledger_entries (
  id TEXT PRIMARY KEY,
  cause_type TEXT NOT NULL CHECK (cause_type IN ('job', 'purchase', 'tick', 'action', 'zap', 'lease', 'owner', 'transfer')),
  cause_id TEXT NOT NULL,
  memo TEXT,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX ledger_entries_cause ON ledger_entries (cause_type, cause_id);
CREATE INDEX ledger_entries_created ON ledger_entries (created_at);

-- Accounts are <owner>/<class>[/<detail>]: assets (wallet, held) are positive, what we owe (income, deposit, equity) negative.
CREATE TABLE postings (
  entry_id TEXT NOT NULL REFERENCES ledger_entries (id),
  account TEXT NOT NULL CHECK (account GLOB '?*/?*'),
  owner TEXT NOT NULL GENERATED ALWAYS AS (substr(account, 1, instr(account, '/') - 1)) STORED,
  unit TEXT NOT NULL DEFAULT 'msat' CHECK (unit = 'msat'),
  amount_msats INTEGER NOT NULL CHECK (amount_msats BETWEEN -9007199254740991 AND 9007199254740991),
  PRIMARY KEY (entry_id, account)
) STRICT, WITHOUT ROWID;
CREATE INDEX postings_owner ON postings (owner);
CREATE INDEX postings_income ON postings (account) WHERE account GLOB '*/income/*';

-- The running sums of postings, kept by the command that posts: reading a balance costs the same after years.
CREATE TABLE account_balances (
  account TEXT PRIMARY KEY,
  amount_msats INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What this home earned from others. Rounding counts as other; purchases by own keys (income/internal) are left out.
CREATE VIEW earnings AS
SELECT
  p.entry_id || '#' || substr(p.account, instr(p.account, '/income/') + 8) AS id,
  CASE e.cause_type WHEN 'job' THEN e.cause_id END AS job_id,
  -p.amount_msats AS amount_msats,
  CASE substr(p.account, instr(p.account, '/income/') + 8)
    WHEN 'job' THEN 'job' WHEN 'zap' THEN 'zap' WHEN 'lease' THEN 'lease' WHEN 'tip' THEN 'tip' ELSE 'other' END AS source,
  p.owner AS owner,
  e.cause_type AS cause_type,
  e.cause_id AS cause_id,
  e.created_at AS earned_at
FROM postings p JOIN ledger_entries e ON e.id = p.entry_id
WHERE p.account GLOB '*/income/*' AND p.account NOT GLOB '*/income/internal';

CREATE TABLE mints (
  url TEXT PRIMARY KEY,
  cap_sats INTEGER NOT NULL CHECK (cap_sats > 0),
  added_at INTEGER NOT NULL,
  info_json TEXT NOT NULL CHECK (json_valid(info_json)),
  state TEXT NOT NULL DEFAULT 'ok' CHECK (state IN ('ok', 'down')),
  reason TEXT
) STRICT;

CREATE TABLE mint_keysets (
  id TEXT PRIMARY KEY,
  mint_url TEXT NOT NULL,
  active INTEGER NOT NULL CHECK (active IN (0, 1)),
  input_fee_ppk INTEGER NOT NULL CHECK (input_fee_ppk >= 0),
  final_expiry INTEGER,
  keys_json TEXT NOT NULL CHECK (json_valid(keys_json)),
  fetched_at INTEGER NOT NULL
) STRICT;
CREATE INDEX mint_keysets_mint ON mint_keysets (mint_url);

-- Which ledger owner a wallet's key stands for; written when a wallet is first used.
CREATE TABLE wallet_owners (
  pubkey TEXT PRIMARY KEY CHECK (length(pubkey) = 64),
  kind TEXT NOT NULL CHECK (kind IN ('node', 'customer', 'agent')),
  account_owner TEXT NOT NULL UNIQUE
) STRICT;

-- NUT-13: the next unused counter. It moves before the outputs are shown to a mint, and never back.
CREATE TABLE wallet_counters (
  owner_pubkey TEXT NOT NULL,
  keyset_id TEXT NOT NULL,
  next INTEGER NOT NULL CHECK (next >= 0),
  PRIMARY KEY (owner_pubkey, keyset_id)
) STRICT, WITHOUT ROWID;

-- One money operation is one request to a mint, stored with its outputs before it is sent.
CREATE TABLE operations (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('mint', 'receive', 'send', 'melt', 'transfer', 'restore')),
  state TEXT NOT NULL CHECK (state IN ('prepared', 'submitted', 'unknown', 'completed', 'failed')),
  owner_kind TEXT NOT NULL CHECK (owner_kind IN ('node', 'customer', 'agent')),
  owner_pubkey TEXT NOT NULL CHECK (length(owner_pubkey) = 64),
  mint_url TEXT NOT NULL,
  idempotency_key TEXT NOT NULL UNIQUE,
  request_digest TEXT NOT NULL,
  cause_type TEXT NOT NULL,
  cause_id TEXT NOT NULL,
  amount_sats INTEGER NOT NULL CHECK (amount_sats >= 0),
  held_sats INTEGER NOT NULL CHECK (held_sats >= 0),
  -- The exact request, its blinded outputs with their blinding data, and what the kind needs to be finished.
  plan_json TEXT NOT NULL CHECK (json_valid(plan_json)),
  result_json TEXT CHECK (result_json IS NULL OR json_valid(result_json)),
  error_code TEXT,
  error_message TEXT,
  -- Of a completed send: what became of the token.
  token_state TEXT CHECK (token_state IN ('pending', 'claimed', 'reclaimed')),
  -- How often the request was submitted; how often its outcome was looked for since.
  attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  tries INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),
  next_try_at INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX operations_open ON operations (next_try_at) WHERE state IN ('prepared', 'submitted', 'unknown');
CREATE INDEX operations_tokens ON operations (token_state, next_try_at) WHERE token_state = 'pending';
CREATE INDEX operations_ended ON operations (updated_at) WHERE plan_json <> '{}';

CREATE TABLE operation_transitions (
  id INTEGER PRIMARY KEY,
  operation_id TEXT NOT NULL REFERENCES operations (id),
  from_state TEXT,
  to_state TEXT NOT NULL,
  reason TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX operation_transitions_operation ON operation_transitions (operation_id);

CREATE TABLE proofs (
  y TEXT PRIMARY KEY,
  secret TEXT NOT NULL UNIQUE,
  keyset_id TEXT NOT NULL,
  amount_sats INTEGER NOT NULL CHECK (amount_sats > 0),
  c TEXT NOT NULL,
  dleq_json TEXT,
  mint_url TEXT NOT NULL,
  owner_pubkey TEXT NOT NULL,
  -- sent: given away in a token, no longer ours in the ledger, kept to take back or to see it spent.
  state TEXT NOT NULL CHECK (state IN ('unspent', 'reserved', 'sent', 'spent')),
  operation_id TEXT,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX proofs_wallet ON proofs (owner_pubkey, mint_url, state);
CREATE INDEX proofs_operation ON proofs (operation_id);

-- NUT-04 quotes: invoices of ours, or adopted from an LNURL server.
CREATE TABLE mint_quotes (
  id TEXT PRIMARY KEY,
  idempotency_key TEXT NOT NULL UNIQUE,
  request_digest TEXT NOT NULL,
  owner_kind TEXT NOT NULL CHECK (owner_kind IN ('node', 'customer', 'agent')),
  owner_pubkey TEXT NOT NULL,
  mint_url TEXT NOT NULL,
  quote_id TEXT NOT NULL,
  quote_pubkey TEXT NOT NULL,
  request TEXT NOT NULL,
  payment_hash TEXT NOT NULL,
  amount_sats INTEGER NOT NULL CHECK (amount_sats > 0),
  credit_account TEXT NOT NULL,
  cause_type TEXT NOT NULL,
  cause_id TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('unpaid', 'paid', 'settled', 'expired', 'closed')),
  reason TEXT,
  expires_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  next_check_at INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  UNIQUE (mint_url, quote_id)
) STRICT;
CREATE INDEX mint_quotes_open ON mint_quotes (next_check_at) WHERE state IN ('unpaid', 'paid', 'expired');

-- Budgets: what an agent's spends hold or cost, by tick and UTC day.
CREATE TABLE spend_holds (
  operation_id TEXT PRIMARY KEY,
  owner_pubkey TEXT NOT NULL,
  tick_id TEXT NOT NULL,
  day TEXT NOT NULL,
  amount_sats INTEGER NOT NULL CHECK (amount_sats >= 0),
  state TEXT NOT NULL CHECK (state IN ('held', 'spent', 'released'))
) STRICT;
CREATE INDEX spend_holds_day ON spend_holds (owner_pubkey, day);
CREATE INDEX spend_holds_tick ON spend_holds (tick_id);

-- What the wallet has to tell the rest: written with the money, deleted once heard.
CREATE TABLE wallet_events (
  id INTEGER PRIMARY KEY,
  cause_type TEXT NOT NULL,
  event_json TEXT NOT NULL CHECK (json_valid(event_json)),
  attempts INTEGER NOT NULL DEFAULT 0,
  next_try_at INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;

-- NIP-57, sending: the signed request and the invoice it got, fixed before anything is paid.
CREATE TABLE zap_sends (
  idempotency_key TEXT PRIMARY KEY,
  request_digest TEXT NOT NULL,
  zap_request TEXT NOT NULL CHECK (json_valid(zap_request)),
  invoice TEXT,
  created_at INTEGER NOT NULL
) STRICT;

-- LNURL addresses of agents.
CREATE TABLE lnurl_addresses (
  owner_pubkey TEXT PRIMARY KEY,
  base_url TEXT NOT NULL,
  name TEXT NOT NULL,
  lnurl TEXT NOT NULL,
  callback TEXT NOT NULL,
  lud16 TEXT,
  mint_url TEXT NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
