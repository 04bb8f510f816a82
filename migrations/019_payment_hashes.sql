-- One payment hash is at most one outgoing payment of this home that did not fail, whoever asks and at whichever mint.
ALTER TABLE operations ADD COLUMN payment_hash TEXT;
UPDATE operations SET payment_hash = plan_json ->> '$.paymentHash' WHERE kind = 'melt';
-- Where an earlier version paid twice, the first keeps the hash.
UPDATE operations SET payment_hash = NULL WHERE payment_hash IS NOT NULL AND state <> 'failed' AND rowid > (
  SELECT min(o.rowid) FROM operations o WHERE o.kind = 'melt' AND o.state <> 'failed' AND o.plan_json ->> '$.paymentHash' = operations.payment_hash);
CREATE UNIQUE INDEX operations_payment ON operations (payment_hash) WHERE payment_hash IS NOT NULL AND state <> 'failed';
