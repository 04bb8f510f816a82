/** The database of mint and LNURL server: one file, so that a payment and what follows from it are one transaction. */
import Database from 'better-sqlite3'
import { type Random, randomHex } from '../base/random.ts'

const SCHEMA = `
CREATE TABLE IF NOT EXISTS meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS keysets (
  position INTEGER PRIMARY KEY,
  active INTEGER NOT NULL CHECK (active IN (0, 1))
) STRICT;
CREATE TABLE IF NOT EXISTS keyset_fees (
  position INTEGER PRIMARY KEY,
  input_fee_ppk INTEGER NOT NULL CHECK (input_fee_ppk >= 0)
) STRICT;
CREATE TABLE IF NOT EXISTS held_melts (
  quote_id TEXT PRIMARY KEY,
  body TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS melt_parts (
  quote_id TEXT PRIMARY KEY,
  amount_msats INTEGER NOT NULL CHECK (amount_msats > 0)
) STRICT;
CREATE TABLE IF NOT EXISTS pending_proofs (
  y TEXT PRIMARY KEY,
  quote_id TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS proofs (
  y TEXT PRIMARY KEY,
  amount INTEGER NOT NULL CHECK (amount > 0),
  keyset_id TEXT NOT NULL,
  secret TEXT NOT NULL,
  c TEXT NOT NULL,
  witness TEXT,
  spent_at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS signatures (
  b TEXT PRIMARY KEY,
  amount INTEGER NOT NULL CHECK (amount > 0),
  keyset_id TEXT NOT NULL,
  c TEXT NOT NULL,
  e TEXT NOT NULL,
  s TEXT NOT NULL,
  signed_at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS mint_quotes (
  id TEXT PRIMARY KEY,
  amount INTEGER NOT NULL CHECK (amount > 0),
  request TEXT NOT NULL UNIQUE,
  payment_hash TEXT NOT NULL UNIQUE,
  preimage TEXT NOT NULL,
  pubkey TEXT,
  state TEXT NOT NULL CHECK (state IN ('UNPAID', 'PAID', 'ISSUED')),
  expiry INTEGER NOT NULL,
  paid_at INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS melt_quotes (
  id TEXT PRIMARY KEY,
  amount INTEGER NOT NULL CHECK (amount > 0),
  fee_reserve INTEGER NOT NULL CHECK (fee_reserve >= 0),
  request TEXT NOT NULL,
  payment_hash TEXT NOT NULL,
  preimage TEXT,
  change TEXT,
  state TEXT NOT NULL CHECK (state IN ('UNPAID', 'PAID')),
  expiry INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS responses (
  key TEXT PRIMARY KEY,
  body TEXT NOT NULL,
  stored_at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS addresses (
  name TEXT PRIMARY KEY,
  pubkey TEXT NOT NULL UNIQUE,
  quote_pubkey TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS address_payments (
  quote_id TEXT PRIMARY KEY REFERENCES mint_quotes (id),
  pubkey TEXT NOT NULL,
  zap_request TEXT,
  comment TEXT NOT NULL,
  receipt TEXT,
  published_at INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS address_payments_pubkey ON address_payments (pubkey);
CREATE INDEX IF NOT EXISTS address_payments_unpublished ON address_payments (quote_id) WHERE published_at IS NULL AND zap_request IS NOT NULL;
CREATE TABLE IF NOT EXISTS seen_authorizations (
  id TEXT PRIMARY KEY,
  expires_at INTEGER NOT NULL
) STRICT;
`

/** A secret of 32 bytes that is made at first use and stays. */
type SecretName = 'mint_seed' | 'node_key' | 'lnurl_nostr_key'

export class SandboxDatabase {
  readonly random: Random
  readonly #db: Database.Database
  readonly #statements = new Map<string, Database.Statement>()

  /** Opens or creates the file; every commit is on the disk when it returns. */
  constructor(path: string, random: Random) {
    this.random = random
    this.#db = new Database(path)
    this.#db.pragma('journal_mode = WAL')
    this.#db.pragma('synchronous = FULL')
    this.#db.pragma('foreign_keys = ON')
    this.#db.exec(SCHEMA)
  }

  close(): void {
    this.#db.close()
  }

  /** Runs `fn` in a transaction, or in a savepoint of the one that is open; a throw undoes it. */
  transaction<T>(fn: () => T): T {
    return this.#db.transaction(fn).immediate()
  }

  /** The prepared statement of a fixed SQL text. */
  sql(text: string): Database.Statement {
    let statement = this.#statements.get(text)
    if (statement === undefined) {
      statement = this.#db.prepare(text)
      this.#statements.set(text, statement)
    }
    return statement
  }

  secret(name: SecretName): Buffer {
    this.sql('INSERT OR IGNORE INTO meta (key, value) VALUES (?, ?)').run(name, randomHex(this.random, 32))
    return Buffer.from(this.sql('SELECT value FROM meta WHERE key = ?').pluck().get(name) as string, 'hex')
  }
}
