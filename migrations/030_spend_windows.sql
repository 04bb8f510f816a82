-- Spends are held for whoever they bind (an agent, a connection, the owner), by the time, rail and counterparty, in windows that roll.
CREATE TABLE spend_windows (
  operation_id TEXT NOT NULL,
  subject TEXT NOT NULL,                     -- whose limits: a pubkey, `nwc:<id>`, `owner`, `customer`, `payout`
  owner_pubkey TEXT NOT NULL,                -- of the wallet that pays
  tick_id TEXT,
  counterparty TEXT NOT NULL,                -- who is paid, '' where nobody can say
  rail TEXT NOT NULL,
  at INTEGER NOT NULL,
  amount_sats INTEGER NOT NULL CHECK (amount_sats >= 0),
  state TEXT NOT NULL CHECK (state IN ('held', 'spent', 'released')),
  PRIMARY KEY (operation_id, subject)
) STRICT;
INSERT INTO spend_windows
  SELECT operation_id, owner_pubkey, owner_pubkey, tick_id, '', 'mint', CAST(strftime('%s', day) AS INTEGER) * 1000, amount_sats, state FROM spend_holds;
DROP TABLE spend_holds;
ALTER TABLE spend_windows RENAME TO spend_holds;
CREATE INDEX spend_holds_at ON spend_holds (subject, at);
CREATE INDEX spend_holds_tick ON spend_holds (subject, tick_id) WHERE tick_id IS NOT NULL;
CREATE INDEX spend_holds_counterparty ON spend_holds (subject, counterparty, at);

-- How often one key has zapped an agent lately.
CREATE INDEX heard_zaps ON heard (agent_pubkey, sender, heard_at) WHERE type = 'zap';
