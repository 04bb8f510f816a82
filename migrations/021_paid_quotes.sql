-- Paid, and not yet issued by the mint: what is at risk there.
CREATE INDEX mint_quotes_paid ON mint_quotes (owner_pubkey) WHERE state = 'paid';
CREATE INDEX mint_quotes_created ON mint_quotes (created_at);
