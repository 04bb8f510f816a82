/** What several keys claim about one purchase: the requests that were made of single keys, and all results that came. */
import { defineCommand } from '../commands.ts'
import { int, text } from '../row.ts'
import type { Store } from '../store.ts'

/** The same job asked again, of one key alone. */
export interface RepeatedRequest {
  readonly eventId: string
  readonly purchaseId: string
  readonly provider: string
  /** Milliseconds since the epoch, as below. */
  readonly createdAt: number
  /** So long its answer is waited for before another way is taken. */
  readonly untilAt: number
  readonly refused: boolean
}

export interface PurchaseResultRow {
  readonly eventId: string
  readonly provider: string
  readonly content: string
  readonly receivedAt: number
}

export const insertRepeatedRequest = defineCommand('insert_repeated_request', (sql, p: Omit<RepeatedRequest, 'refused'>) => {
  sql('INSERT INTO purchase_requests (event_id, purchase_id, provider_pubkey, created_at, until_at) VALUES (?, ?, ?, ?, ?)').run(
    ...[p.eventId, p.purchaseId, p.provider, BigInt(p.createdAt), BigInt(p.untilAt)],
  )
})

/** The key that was asked says no: the next way may be taken. */
export const refuseRepeatedRequest = defineCommand('refuse_repeated_request', (sql, p: { eventId: string }) => {
  sql('UPDATE purchase_requests SET refused = 1 WHERE event_id = ?').run(p.eventId)
})

export function getRepeatedRequest(store: Store, eventId: string): RepeatedRequest | undefined {
  const row = store.sql('SELECT * FROM purchase_requests WHERE event_id = ?').get(eventId)
  return row === undefined ? undefined : decodeRequest(row)
}

/** In the order they were made. */
export function repeatedRequests(store: Store, purchaseId: string): RepeatedRequest[] {
  return store.sql('SELECT * FROM purchase_requests WHERE purchase_id = ? ORDER BY rowid').all(purchaseId).map(decodeRequest)
}

function decodeRequest(row: Record<string, unknown>): RepeatedRequest {
  return {
    eventId: text(row, 'event_id'),
    purchaseId: text(row, 'purchase_id'),
    provider: text(row, 'provider_pubkey'),
    createdAt: int(row, 'created_at'),
    untilAt: int(row, 'until_at'),
    refused: int(row, 'refused') === 1,
  }
}

/** Different results of one key, and of all keys together, that are kept of one purchase; and their size in characters. */
const MAX_RESULTS_OF_KEY = 5
const MAX_RESULTS = 100
const MAX_RESULT_CHARS = 8_000_000

/** Keeps a result: false when it is known, or when there is no room for more. @param isPaid the key whose offer was paid has room of its own */
export const keepResult = defineCommand(
  'keep_result',
  (sql, p: { eventId: string; purchaseId: string; provider: string; content: string; isPaid: boolean; at: number }): boolean => {
    const row = sql(
      `SELECT count(*) AS n, coalesce(sum(length(content)), 0) AS chars, count(CASE WHEN provider_pubkey = ? THEN 1 END) AS of_key
       FROM purchase_results WHERE purchase_id = ?`,
    ).get(p.provider, p.purchaseId)
    if (row === undefined || int(row, 'of_key') >= MAX_RESULTS_OF_KEY) return false
    const isFull = int(row, 'n') >= MAX_RESULTS || int(row, 'chars') + p.content.length > MAX_RESULT_CHARS
    if (isFull && !p.isPaid) return false
    return (
      sql(
        `INSERT INTO purchase_results (event_id, purchase_id, provider_pubkey, content, received_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
      ).run(p.eventId, p.purchaseId, p.provider, p.content, BigInt(p.at)).changes > 0
    )
  },
)

/** In the order they came. */
export function listResults(store: Store, purchaseId: string): PurchaseResultRow[] {
  return store
    .sql('SELECT * FROM purchase_results WHERE purchase_id = ? ORDER BY received_at, rowid')
    .all(purchaseId)
    .map((row) => ({
      eventId: text(row, 'event_id'),
      provider: text(row, 'provider_pubkey'),
      content: text(row, 'content'),
      receivedAt: int(row, 'received_at'),
    }))
}
