-- Who gave the invoice of a Lightning address, for the lists of the policy: the profile that named it may name another by then.
ALTER TABLE address_invoices ADD COLUMN host TEXT;
