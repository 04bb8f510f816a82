-- The command of the lease brought a token: no bill is due, whatever became of it.
ALTER TABLE leases ADD COLUMN by_token INTEGER NOT NULL DEFAULT 0 CHECK (by_token IN (0, 1));
