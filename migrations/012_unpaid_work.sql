-- Invoices for customers who have not paid here before: asked about more seldom the more there are, and heard of last.
ALTER TABLE mint_quotes ADD COLUMN of_stranger INTEGER NOT NULL DEFAULT 0 CHECK (of_stranger IN (0, 1));
CREATE INDEX mint_quotes_strangers ON mint_quotes (state) WHERE of_stranger = 1 AND state IN ('unpaid', 'expired');
