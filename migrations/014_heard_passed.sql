-- How many ticks looked at something heard and left it for a later one.
ALTER TABLE heard ADD COLUMN passed INTEGER NOT NULL DEFAULT 0 CHECK (passed >= 0);
