-- Customer: work bought from others, what they offered, and what was heard of it.
CREATE TABLE purchases (
  id TEXT PRIMARY KEY,                       -- ours, random: exists before the request has an event id
  event_id TEXT UNIQUE,                      -- the job: id of the request event, once it is fixed
  status TEXT NOT NULL CHECK (status IN ('preparing', 'requested', 'offered', 'paying', 'paid', 'processing', 'completed', 'failed', 'timeout', 'cancelled', 'refunded')),
  reason TEXT,
  kind INTEGER NOT NULL CHECK (kind BETWEEN 5000 AND 5999),
  order_json TEXT NOT NULL CHECK (json_valid(order_json)),
  request_json TEXT CHECK (request_json IS NULL OR json_valid(request_json)),
  provider_pubkey TEXT,                      -- asked for, or paid: answers of others are not ours from then on
  paid_msats INTEGER NOT NULL DEFAULT 0 CHECK (paid_msats >= 0),
  result TEXT,
  error_code TEXT,
  error_message TEXT,
  deadline_at INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX purchases_status ON purchases (status);
CREATE INDEX purchases_created ON purchases (created_at);

CREATE TABLE purchase_transitions (
  purchase_id TEXT NOT NULL REFERENCES purchases (id),
  from_status TEXT NOT NULL,
  to_status TEXT NOT NULL,
  reason TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX purchase_transitions_purchase ON purchase_transitions (purchase_id);

CREATE TABLE purchase_events (
  event_id TEXT PRIMARY KEY,
  purchase_id TEXT NOT NULL REFERENCES purchases (id),
  kind INTEGER NOT NULL,
  pubkey TEXT NOT NULL,
  summary TEXT NOT NULL,
  received_at INTEGER NOT NULL
) STRICT;
CREATE INDEX purchase_events_purchase ON purchase_events (purchase_id);

CREATE TABLE purchase_offers (
  event_id TEXT PRIMARY KEY REFERENCES purchase_events (event_id),
  purchase_id TEXT NOT NULL REFERENCES purchases (id),
  provider_pubkey TEXT NOT NULL,
  amount_msats INTEGER NOT NULL CHECK (amount_msats >= 0),
  bolt11 TEXT,
  state TEXT NOT NULL CHECK (state IN ('open', 'unusable', 'paying', 'paid', 'failed')),
  reason TEXT,
  received_at INTEGER NOT NULL
) STRICT;
CREATE INDEX purchase_offers_purchase ON purchase_offers (purchase_id);
