/** Mint quotes (NUT-04): the invoices of this home, watched until they are paid and minted. */
import type { Account } from '../../base/accounts.ts'
import { PylonError } from '../../base/errors.ts'
import { defineCommand } from '../commands.ts'
import { mintKey } from '../keys.ts'
import { countOf, intOrNull, sumOf, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOf, Table } from '../table.ts'
import { causeOfRow, walletOwner } from './fields.ts'

/** `expired`: nobody should pay any more, a late payment is still claimed. `closed`: not asked about any more. */
export type QuoteState = 'unpaid' | 'paid' | 'settled' | 'expired' | 'closed'

const COLUMNS = {
  id: column.text(),
  idempotencyKey: column.text(),
  requestDigest: column.text(),
  owner: walletOwner,
  mintUrl: column.text(),
  quoteId: column.text(),
  /** The key of NUT-20 that alone may mint it. */
  quotePubkey: column.text(),
  request: column.text(),
  paymentHash: column.text(),
  amountSats: column.amount(),
  creditAccount: column.text<Account>(),
  cause: causeOfRow,
  state: column.text<QuoteState>(),
  reason: column.orNull(column.text()),
  expiresAt: column.int(),
  attempts: column.int(),
  nextCheckAt: column.orNull(column.int()),
  createdAt: column.int(),
  updatedAt: column.int(),
  /** Made for somebody who has not paid here before. */
  ofStranger: column.flag(),
}
type Columns = RowOf<typeof COLUMNS>

/** What may still be paid is asked about, what is over is not; of one that is paid its operation may see to that. */
export type QuoteRow = Columns &
  (
    | { readonly state: 'unpaid' | 'expired'; readonly nextCheckAt: number }
    | { readonly state: 'paid' }
    | { readonly state: 'settled' | 'closed'; readonly nextCheckAt: null }
  )

const isQuote = (row: Columns): row is QuoteRow =>
  row.state === 'paid' || (row.nextCheckAt === null) === (row.state === 'settled' || row.state === 'closed')

const quotes = new Table('mint_quotes', COLUMNS, isQuote)

/** False when the key or the quote is there already. */
export const insertQuote = defineCommand(
  'insert_quote',
  (sql, quote: Omit<Columns, 'reason' | 'attempts' | 'updatedAt' | 'ofStranger'> & Partial<Pick<Columns, 'ofStranger'>>): boolean =>
    quotes.insert(sql, { ...quote, updatedAt: quote.createdAt }, 'ON CONFLICT DO NOTHING'),
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
    const row = quotes.get(sql, { id: p.id })
    if (row === undefined || !p.from.includes(row.state))
      throw new PylonError('conflict', `The invoice is not ${p.from.join(' or ')} any more.`)
    const { to: state, reason = null, attempts, nextCheckAt, at: updatedAt } = p
    quotes.patch(sql, { id: p.id }, { state, reason, attempts, nextCheckAt, updatedAt })
  },
  (p) => `move_quote:${p.to}`,
)

export const quoteByKey = (store: Store, idempotencyKey: string): QuoteRow | undefined => quotes.get(store.sql, { idempotencyKey })

export const getQuote = (store: Store, id: string): QuoteRow | undefined => quotes.get(store.sql, { id })

export const quoteAtMint = (store: Store, mintUrl: string, quoteId: string): QuoteRow | undefined =>
  quotes.get(store.sql, { mintUrl, quoteId })

export const dueQuotes = (store: Store, now: number): QuoteRow[] =>
  quotes.all(store.sql, `WHERE state IN ('unpaid', 'paid', 'expired') AND next_check_at <= ? ORDER BY next_check_at LIMIT 500`, BigInt(now))

/** A quote with what its minting says, where that was tried. */
export type ListedQuote = QuoteRow & {
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
export const listQuotes = (store: Store, { ownerPubkey, states, limit }: QuoteFilter): ListedQuote[] =>
  store
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
    .map((row) => ({ ...quotes.decode(row), mintingError: textOrNull(row, 'minting_error'), nextTryAt: intOrNull(row, 'minting_next') }))

/** Sats that were paid for quotes which their mints have not issued: of one wallet, or of all. */
export const paidUnissuedSats = (store: Store, ownerPubkey?: string): bigint =>
  sumOf(
    store.sql,
    `SELECT coalesce(sum(amount_sats), 0) AS total FROM mint_quotes WHERE state = 'paid' AND (@owner IS NULL OR owner_pubkey = @owner)`,
    { owner: ownerPubkey ?? null },
  )

/** How many invoices of strangers are in that state. */
export const countStrangersQuotes = (store: Store, state: 'unpaid' | 'expired'): number =>
  countOf(store.sql, "SELECT count(*) AS n FROM mint_quotes WHERE of_stranger = 1 AND state IN ('unpaid', 'expired') AND state = ?", state)

/** Quotes that somebody may still pay in time, those of strangers last. */
export const watchedQuotes = (store: Store): QuoteRow[] =>
  quotes.all(store.sql, `WHERE state = 'unpaid' ORDER BY of_stranger, created_at DESC LIMIT 900`)
