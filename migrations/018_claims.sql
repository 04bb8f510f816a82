-- Customer: what several keys claim about one purchase, and every refund that came for what was bought or rented.

-- Requests after the first: the same job, addressed and encrypted to one key whose invoice another key named too.
CREATE TABLE purchase_requests (
  event_id TEXT PRIMARY KEY,
  purchase_id TEXT NOT NULL REFERENCES purchases (id),
  provider_pubkey TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  until_at INTEGER NOT NULL,                 -- so long its answer is waited for before another way is taken
  refused INTEGER NOT NULL DEFAULT 0 CHECK (refused IN (0, 1)),
  UNIQUE (purchase_id, provider_pubkey)
) STRICT;

-- Every result that came, whoever sent it.
CREATE TABLE purchase_results (
  event_id TEXT PRIMARY KEY,
  purchase_id TEXT NOT NULL REFERENCES purchases (id),
  provider_pubkey TEXT NOT NULL,
  content TEXT NOT NULL,
  received_at INTEGER NOT NULL
) STRICT;
CREATE INDEX purchase_results_purchase ON purchase_results (purchase_id);

ALTER TABLE purchase_offers ADD COLUMN request_id TEXT;     -- the request that it answers
ALTER TABLE purchase_offers ADD COLUMN payment_hash TEXT;   -- of its invoice, where that can be read
CREATE INDEX purchase_events_sender ON purchase_events (purchase_id, pubkey);

-- Refunds: each is kept and tried until it is in the wallet or surely no money.
CREATE TABLE refund_tokens (
  cause_id TEXT NOT NULL,                    -- as the ledger names it: the purchase, or rental:<id>
  token TEXT NOT NULL,
  sender_pubkey TEXT,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'redeemed', 'refused')),
  reason TEXT,
  amount_sats INTEGER CHECK (amount_sats IS NULL OR amount_sats >= 0),
  received_at INTEGER NOT NULL,
  PRIMARY KEY (cause_id, token)
) STRICT;
CREATE INDEX refund_tokens_waiting ON refund_tokens (cause_id) WHERE state = 'waiting';
INSERT INTO refund_tokens (cause_id, token, sender_pubkey, state, reason, received_at)
  SELECT id, refund_token, provider_pubkey, 'waiting', reason, updated_at FROM purchases
  WHERE refund_token IS NOT NULL AND status NOT IN ('completed', 'refunded');
ALTER TABLE purchases DROP COLUMN refund_token;
