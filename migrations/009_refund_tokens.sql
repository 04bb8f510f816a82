-- A refund that came for a purchase, from when it was heard until it is in the wallet.
ALTER TABLE purchases ADD COLUMN refund_token TEXT;
