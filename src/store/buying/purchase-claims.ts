/** What several keys claim about one purchase: the requests that were made of single keys, and all results that came. */
import { defineCommand } from '../commands.ts'
import { int } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

/** The same job asked again, of one key alone. */
const requests = table('purchase_requests', {
  eventId: column.text(),
  purchaseId: column.text(),
  provider: column.text('provider_pubkey'),
  /** Milliseconds since the epoch, as below. */
  createdAt: column.int(),
  /** So long its answer is waited for before another way is taken. */
  untilAt: column.int(),
  refused: column.flag(),
})
export type RepeatedRequest = RowOfTable<typeof requests>

const results = table('purchase_results', {
  eventId: column.text(),
  purchaseId: column.text(),
  provider: column.text('provider_pubkey'),
  content: column.text(),
  receivedAt: column.int(),
})
export type PurchaseResultRow = RowOfTable<typeof results>

export const insertRepeatedRequest = defineCommand('insert_repeated_request', (sql, request: Omit<RepeatedRequest, 'refused'>) => {
  requests.insert(sql, request)
})

/** The key that was asked says no: the next way may be taken. */
export const refuseRepeatedRequest = defineCommand('refuse_repeated_request', (sql, p: { eventId: string }) => {
  requests.patch(sql, { eventId: p.eventId }, { refused: true })
})

export const getRepeatedRequest = (store: Store, eventId: string): RepeatedRequest | undefined => requests.get(store.sql, { eventId })

/** In the order they were made. */
export const repeatedRequests = (store: Store, purchaseId: string): RepeatedRequest[] =>
  requests.all(store.sql, 'WHERE purchase_id = ? ORDER BY rowid', purchaseId)

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
    const { isPaid: _, at: receivedAt, ...result } = p
    return results.insert(sql, { ...result, receivedAt }, 'ON CONFLICT DO NOTHING')
  },
)

/** In the order they came. */
export const listResults = (store: Store, purchaseId: string): PurchaseResultRow[] =>
  results.all(store.sql, 'WHERE purchase_id = ? ORDER BY received_at, rowid', purchaseId)
