-- What a Lightning address answered, fixed before it is paid: a repeat under the same key pays this or nothing.
CREATE TABLE address_invoices (
  idempotency_key TEXT PRIMARY KEY,
  request_digest TEXT NOT NULL,
  invoice TEXT NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
