-- A runtime that is not well: who counts as having failed it, and since when (ms). Null while it is well. What is paid back
-- of its lease goes by these, whoever ends it.
ALTER TABLE runtimes ADD COLUMN away_cause TEXT CHECK (away_cause IN ('guest', 'host', 'network'));
ALTER TABLE runtimes ADD COLUMN away_since INTEGER;
