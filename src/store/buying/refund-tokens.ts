/** Refunds that came for what this home bought or rented: each is kept until it is in the wallet or surely no money. */
import { type Sats, sats } from '../../base/amounts.ts'
import { defineCommand, type Row } from '../commands.ts'
import { int, text, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'

export interface RefundTokenRow {
  /** As the ledger names the cause: a purchase, or `rental:<id>`. */
  readonly causeId: string
  readonly token: string
  readonly sender: string | null
  readonly state: 'waiting' | 'redeemed' | 'refused'
  readonly reason: string | null
  readonly amountSats: Sats | null
  readonly receivedAt: number
}

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
    return (
      sql(
        `INSERT INTO refund_tokens (cause_id, token, sender_pubkey, state, received_at) VALUES (?, ?, ?, 'waiting', ?) ON CONFLICT DO NOTHING`,
      ).run(p.causeId, p.token, p.sender, BigInt(p.at)).changes > 0
    )
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

export function refundTokensOf(store: Store, causeId: string): RefundTokenRow[] {
  return store.sql('SELECT * FROM refund_tokens WHERE cause_id = ? ORDER BY received_at, rowid').all(causeId).map(decode)
}

/** What has a refund that is not in the wallet yet; rentals are named `rental:<id>`. */
export function causesWithRefund(store: Store): string[] {
  return store
    .sql(`SELECT DISTINCT cause_id FROM refund_tokens WHERE state = 'waiting'`)
    .all()
    .map((row) => text(row, 'cause_id'))
}

function decode(row: Row): RefundTokenRow {
  const worth = row['amount_sats']
  return {
    causeId: text(row, 'cause_id'),
    token: text(row, 'token'),
    sender: textOrNull(row, 'sender_pubkey'),
    state: text(row, 'state') as RefundTokenRow['state'],
    reason: textOrNull(row, 'reason'),
    amountSats: typeof worth === 'bigint' ? sats(worth) : null,
    receivedAt: int(row, 'received_at'),
  }
}
