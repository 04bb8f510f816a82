-- The parts of <owner>/<class>/<detail>, so that queries name them and cut no text.
ALTER TABLE postings ADD COLUMN class TEXT NOT NULL
  GENERATED ALWAYS AS (substr(account, length(owner) + 2, instr(substr(account, length(owner) + 2), '/') - 1)) VIRTUAL;
ALTER TABLE postings ADD COLUMN detail TEXT NOT NULL GENERATED ALWAYS AS (substr(account, length(owner) + length(class) + 3)) VIRTUAL;
ALTER TABLE account_balances ADD COLUMN owner TEXT NOT NULL
  GENERATED ALWAYS AS (substr(account, 1, instr(account, '/') - 1)) VIRTUAL;
ALTER TABLE account_balances ADD COLUMN class TEXT NOT NULL
  GENERATED ALWAYS AS (substr(account, length(owner) + 2, instr(substr(account, length(owner) + 2), '/') - 1)) VIRTUAL;
ALTER TABLE account_balances ADD COLUMN detail TEXT NOT NULL
  GENERATED ALWAYS AS (substr(account, length(owner) + length(class) + 3)) VIRTUAL;
CREATE INDEX account_balances_class ON account_balances (owner, class);
