/** Mint quotes (NUT-04): the invoices of this home, watched until they are paid and minted. */
import type { Account, WalletOwner } from '../../base/accounts.ts'
import { PylonError } from '../../base/errors.ts'
import { defineCommand, type Row } from '../commands.ts'
import { mintKey } from '../keys.ts'
import { amount, int, intOrNull, text, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'
import type { Cause } from './ledger.ts'

/** `expired`: nobody should pay any more, a late payment is still claimed. `closed`: not asked about any more. */
export type QuoteState = 'unpaid' | 'paid' | 'settled' | 'expired' | 'closed'

export interface QuoteRow {
  readonly id: string
  readonly idempotencyKey: string
  readonly requestDigest: string
  readonly owner: WalletOwner
  readonly mintUrl: string
  readonly quoteId: string
  /** The key of NUT-20 that alone may mint it. */
  readonly quotePubkey: string
  readonly request: string
  readonly paymentHash: string
  readonly amountSats: bigint
  readonly creditAccount: Account
  readonly cause: Cause
  readonly state: QuoteState
  readonly reason: string | null
  readonly expiresAt: number
  readonly attempts: number
  readonly nextCheckAt: number | null
  readonly createdAt: number
  /** Made for somebody who has not paid here before. */
  readonly ofStranger: boolean
}

/** False when the key or the quote is there already. */
export const insertQuote = defineCommand(
  'insert_quote',
  (sql, p: Omit<QuoteRow, 'reason' | 'attempts' | 'ofStranger'> & Partial<Pick<QuoteRow, 'ofStranger'>>): boolean =>
    sql(
      `INSERT INTO mint_quotes (id, idempotency_key, request_digest, owner_kind, owner_pubkey, mint_url, quote_id, quote_pubkey, request,
         payment_hash, amount_sats, credit_account, cause_type, cause_id, state, expires_at, next_check_at, created_at, updated_at, of_stranger)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
    ).run(
      p.id,
      p.idempotencyKey,
      p.requestDigest,
      p.owner.kind,
      p.owner.pubkey,
      p.mintUrl,
      p.quoteId,
      p.quotePubkey,
      p.request,
      p.paymentHash,
      p.amountSats,
      p.creditAccount,
      p.cause.type,
      p.cause.id,
      p.state,
      BigInt(p.expiresAt),
      p.nextCheckAt === null ? null : BigInt(p.nextCheckAt),
      BigInt(p.createdAt),
      BigInt(p.createdAt),
      p.ofStranger === true ? 1n : 0n,
    ).changes > 0,
)

/** @throws conflict when its state is not one of `from`. */
export const moveQuote = defineCommand(
  'move_quote',
  (
    sql,
    p: {
      id: string
      from: readonly QuoteState[]
      to: QuoteState
      reason?: string
      attempts?: number
      nextCheckAt: number | null
      at: number
    },
  ) => {
    const row = sql('SELECT state FROM mint_quotes WHERE id = ?').get(p.id)
    if (row === undefined || !p.from.includes(text(row, 'state') as QuoteState)) {
      throw new PylonError('conflict', `The invoice is not ${p.from.join(' or ')} any more.`)
    }
    sql(
      'UPDATE mint_quotes SET state = ?, reason = ?, attempts = coalesce(?, attempts), next_check_at = ?, updated_at = ? WHERE id = ?',
    ).run(
      p.to,
      p.reason ?? null,
      p.attempts === undefined ? null : BigInt(p.attempts),
      p.nextCheckAt === null ? null : BigInt(p.nextCheckAt),
      BigInt(p.at),
      p.id,
    )
  },
  (p) => `move_quote:${p.to}`,
)

export function quoteByKey(store: Store, idempotencyKey: string): QuoteRow | undefined {
  const row = store.sql('SELECT * FROM mint_quotes WHERE idempotency_key = ?').get(idempotencyKey)
  return row === undefined ? undefined : decode(row)
}

export function getQuote(store: Store, id: string): QuoteRow | undefined {
  const row = store.sql('SELECT * FROM mint_quotes WHERE id = ?').get(id)
  return row === undefined ? undefined : decode(row)
}

export function quoteAtMint(store: Store, mintUrl: string, quoteId: string): QuoteRow | undefined {
  const row = store.sql('SELECT * FROM mint_quotes WHERE mint_url = ? AND quote_id = ?').get(mintUrl, quoteId)
  return row === undefined ? undefined : decode(row)
}

export function dueQuotes(store: Store, now: number): QuoteRow[] {
  return store
    .sql(`SELECT * FROM mint_quotes WHERE state IN ('unpaid', 'paid', 'expired') AND next_check_at <= ? ORDER BY next_check_at LIMIT 500`)
    .all(BigInt(now))
    .map(decode)
}

/** A quote with what its minting says, where that was tried. */
export interface ListedQuote extends QuoteRow {
  /** Of the operation that mints it. */
  readonly mintingError: string | null
  readonly nextTryAt: number | null
}

export interface QuoteFilter {
  readonly ownerPubkey?: string
  readonly states?: readonly QuoteState[]
  readonly limit: number
}

/** The newest first. */
export function listQuotes(store: Store, { ownerPubkey, states, limit }: QuoteFilter): ListedQuote[] {
  return store
    .sql(
      `SELECT q.*, o.error_message AS minting_error, o.next_try_at AS minting_next FROM mint_quotes q
       LEFT JOIN operations o ON o.idempotency_key = ${mintKey.sql('q.id')}
       WHERE (@owner IS NULL OR q.owner_pubkey = @owner) AND (@states IS NULL OR q.state IN (SELECT value FROM json_each(@states)))
       ORDER BY q.created_at DESC, q.rowid DESC LIMIT @limit`,
    )
    .all({
      owner: ownerPubkey ?? null,
      states: states === undefined ? null : JSON.stringify(states),
      limit: BigInt(limit),
    })
    .map((row) => ({ ...decode(row), mintingError: textOrNull(row, 'minting_error'), nextTryAt: intOrNull(row, 'minting_next') }))
}

/** Sats that were paid for quotes which their mints have not issued: of one wallet, or of all. */
export function paidUnissuedSats(store: Store, ownerPubkey?: string): bigint {
  const row = store
    .sql(
      `SELECT coalesce(sum(amount_sats), 0) AS total FROM mint_quotes WHERE state = 'paid' AND (@owner IS NULL OR owner_pubkey = @owner)`,
    )
    .get({ owner: ownerPubkey ?? null })
  return row === undefined ? 0n : amount(row, 'total')
}

/** How many invoices of strangers are in that state. */
export function countStrangersQuotes(store: Store, state: 'unpaid' | 'expired'): number {
  const row = store.sql('SELECT count(*) AS n FROM mint_quotes WHERE of_stranger = 1 AND state = ?').get(state)
  return row === undefined ? 0 : int(row, 'n')
}

/** Quotes that somebody may still pay in time, those of strangers last. */
export function watchedQuotes(store: Store): QuoteRow[] {
  return store.sql(`SELECT * FROM mint_quotes WHERE state = 'unpaid' ORDER BY of_stranger, created_at DESC LIMIT 900`).all().map(decode)
}

function decode(row: Row): QuoteRow {
  return {
    id: text(row, 'id'),
    idempotencyKey: text(row, 'idempotency_key'),
    requestDigest: text(row, 'request_digest'),
    owner: { kind: text(row, 'owner_kind') as WalletOwner['kind'], pubkey: text(row, 'owner_pubkey') },
    mintUrl: text(row, 'mint_url'),
    quoteId: text(row, 'quote_id'),
    quotePubkey: text(row, 'quote_pubkey'),
    request: text(row, 'request'),
    paymentHash: text(row, 'payment_hash'),
    amountSats: amount(row, 'amount_sats'),
    creditAccount: text(row, 'credit_account') as Account,
    cause: { type: text(row, 'cause_type') as Cause['type'], id: text(row, 'cause_id') },
    state: text(row, 'state') as QuoteState,
    reason: textOrNull(row, 'reason'),
    expiresAt: int(row, 'expires_at'),
    attempts: int(row, 'attempts'),
    nextCheckAt: intOrNull(row, 'next_check_at'),
    createdAt: int(row, 'created_at'),
    ofStranger: int(row, 'of_stranger') === 1,
  }
}
