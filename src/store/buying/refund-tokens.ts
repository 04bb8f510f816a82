/** Refunds that came for what this home bought or rented: each is kept until it is in the wallet or surely no money. */
import type { Sats } from '../../base/amounts.ts'
import { defineCommand } from '../commands.ts'
import { int, textsOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

const tokens = table('refund_tokens', {
  /** As the ledger names the cause: a purchase, or `rental:<id>`. */
  causeId: column.text(),
  token: column.text(),
  sender: column.orNull(column.text('sender_pubkey')),
  state: column.text<'waiting' | 'redeemed' | 'refused'>(),
  reason: column.orNull(column.text()),
  amountSats: column.orNull(column.amount<Sats>()),
  receivedAt: column.int(),
})
export type RefundTokenRow = RowOfTable<typeof tokens>

/** Tokens of one sender, and of all, that are kept for one purchase or rental: an honest one sends the same token again. */
const MAX_OF_SENDER = 20
const MAX_OF_CAUSE = 60

/** Keeps a refund: false when it is known already, or when too many came. */
export const keepRefundToken = defineCommand(
  'keep_refund_token',
  (sql, p: { causeId: string; token: string; sender: string; at: number }): boolean => {
    const kept = sql(
      'SELECT count(*) AS n, count(CASE WHEN sender_pubkey = ? THEN 1 END) AS of_sender FROM refund_tokens WHERE cause_id = ?',
    )
    const row = kept.get(p.sender, p.causeId)
    if (row !== undefined && (int(row, 'n') >= MAX_OF_CAUSE || int(row, 'of_sender') >= MAX_OF_SENDER)) return false
    const { at: receivedAt, ...token } = p
    return tokens.insert(sql, { ...token, state: 'waiting', receivedAt }, 'ON CONFLICT DO NOTHING')
  },
)

export const noteRefundToken = defineCommand(
  'note_refund_token',
  (sql, p: { causeId: string; token: string; state: RefundTokenRow['state']; reason: string | null; amountSats: Sats | null }) => {
    sql(
      `UPDATE refund_tokens SET state = ?, reason = ?, amount_sats = coalesce(?, amount_sats)
       WHERE cause_id = ? AND token = ? AND state <> 'redeemed'`,
    ).run(p.state, p.reason, p.amountSats, p.causeId, p.token)
  },
)

export const refundTokensOf = (store: Store, causeId: string): RefundTokenRow[] =>
  tokens.all(store.sql, 'WHERE cause_id = ? ORDER BY received_at, rowid', causeId)

/** What has a refund that is not in the wallet yet; rentals are named `rental:<id>`. */
export const causesWithRefund = (store: Store): string[] =>
  textsOf(store.sql, `SELECT DISTINCT cause_id FROM refund_tokens WHERE state = 'waiting'`)
