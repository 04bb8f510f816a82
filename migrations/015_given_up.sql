-- What was given up: every relay refused it, or its time was over. The seal of a gift wrap, so that it can be wrapped again under another date.
ALTER TABLE outbox_messages ADD COLUMN seal TEXT;
ALTER TABLE outbox_messages ADD COLUMN given_up_at INTEGER;
ALTER TABLE outbox_messages ADD COLUMN given_up_why TEXT;
-- What was refused everywhere before anybody was told of it.
UPDATE outbox_messages SET given_up_at = created_at, given_up_why = coalesce(
    (SELECT substr(group_concat(relay || ': ' || coalesce(last_error, 'not taken in time'), '; '), 1, 500)
       FROM outbox_deliveries d WHERE d.message_id = outbox_messages.id),
    'there is no relay to send it to')
  WHERE accepted_at IS NULL AND NOT EXISTS (
    SELECT 1 FROM outbox_deliveries d WHERE d.message_id = outbox_messages.id AND d.state IN ('pending', 'accepted', 'superseded'));
CREATE INDEX outbox_given_up_at ON outbox_messages (given_up_at) WHERE given_up_at IS NOT NULL;
CREATE INDEX outbox_given_up ON outbox_messages (key) WHERE notified = 0 AND given_up_at IS NOT NULL;

-- How many events each relay refused, and why. reason is one of a few words, so that there is a row for each and no more.
CREATE TABLE outbox_refusals (
  relay TEXT NOT NULL,
  reason TEXT NOT NULL,
  events INTEGER NOT NULL CHECK (events > 0),
  first_at INTEGER NOT NULL,
  last_at INTEGER NOT NULL,
  words TEXT NOT NULL,
  PRIMARY KEY (relay, reason)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_refusals_last ON outbox_refusals (last_at);
