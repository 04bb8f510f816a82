-- The id by which others know what an action said: its event's, or of a private message its rumor's. Agents of one home that
-- answer each other are known by it.
ALTER TABLE actions ADD COLUMN said_id TEXT;
CREATE INDEX actions_said ON actions (said_id) WHERE said_id IS NOT NULL;
