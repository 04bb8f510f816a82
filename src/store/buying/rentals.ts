/** Rentals: what this home asked of the machines of a node, by idempotency key, with what it paid. */
import type { Account } from '../../base/accounts.ts'
import type { Msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { defineCommand, type Row } from '../commands.ts'
import { rentalKey } from '../keys.ts'
import { amount, int, intOrNull, text, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'

/** Which step leads where stands in customer/states.ts. */
export type RentalState = 'asked' | 'paying' | 'paid' | 'answered' | 'refused'

export interface RentalRow {
  /** The idempotency key of the command. */
  readonly id: string
  readonly server: string
  readonly command: string
  readonly requestId: string
  readonly state: RentalState
  readonly reason: string | null
  readonly runtimeId: string | null
  readonly amountMsats: Msats
  readonly invoice: string | null
  readonly paymentKey: string | null
  readonly paidMsats: Msats
  readonly refundedMsats: Msats
  /** Milliseconds since the epoch, as all times below. */
  readonly leaseEndsAt: number | null
  readonly createdAt: number
  readonly updatedAt: number
}

/** Records a command before it is sent, and gives the record that holds from then on. @throws idempotency_conflict for another command under the key */
export const claimRental = defineCommand(
  'claim_rental',
  (sql, p: { id: string; server: string; command: string; digest: string; requestId: string; at: number }): RentalRow => {
    sql(
      `INSERT INTO rentals (id, server_pubkey, command, digest, request_id, state, created_at, updated_at)
       VALUES (?, ?, ?, ?, ?, 'asked', ?, ?) ON CONFLICT (id) DO NOTHING`,
    ).run(p.id, p.server, p.command, p.digest, p.requestId, BigInt(p.at), BigInt(p.at))
    const row = sql('SELECT * FROM rentals WHERE id = ?').get(p.id) as Row
    if (text(row, 'digest') !== p.digest || text(row, 'server_pubkey') !== p.server) {
      throw new PylonError('idempotency_conflict', 'This idempotency key was used for another command or another node: use a new one.')
    }
    return decode(row)
  },
)

/** Fixes which payment pays for a rental, before it is begun. @throws conflict when one is under way or was made */
export const beginRentalPayment = defineCommand(
  'begin_rental_payment',
  (
    sql,
    p: {
      id: string
      from: readonly RentalState[]
      former: string | null
      paymentKey: string
      amountMsats: Msats
      invoice: string | null
      /** What the node calls it: where a refund is asked for, should it fail. */
      runtimeId: string | null
      at: number
    },
  ) => {
    const changed = sql(
      `UPDATE rentals SET state = 'paying', payment_key = ?, amount_msats = ?, invoice = ?, runtime_id = coalesce(?, runtime_id),
         updated_at = ? WHERE id = ? AND state IN (SELECT value FROM json_each(?)) AND payment_key IS ?`,
    ).run(p.paymentKey, p.amountMsats, p.invoice, p.runtimeId, BigInt(p.at), p.id, JSON.stringify(p.from), p.former)
    if (changed.changes === 0) throw new PylonError('conflict', 'This rental is being paid already.')
  },
)

export const markRentalPaid = defineCommand('mark_rental_paid', (sql, p: { id: string; paidMsats: Msats; at: number }) => {
  sql(
    `UPDATE rentals SET state = CASE state WHEN 'paying' THEN 'paid' ELSE state END, paid_msats = ?, watched = 1, updated_at = ? WHERE id = ?`,
  ).run(...[p.paidMsats, BigInt(p.at), p.id])
})

/** What the node answered; a payment whose outcome the wallet does not know yet stays with the record. */
export const answerRental = defineCommand(
  'answer_rental',
  (sql, p: { id: string; state: 'answered' | 'refused'; reason: string | null; runtimeId: string | null; at: number }) => {
    sql('UPDATE rentals SET state = ?, reason = ?, runtime_id = coalesce(?, runtime_id), updated_at = ? WHERE id = ?').run(
      ...[p.state, p.reason, p.runtimeId, BigInt(p.at), p.id],
    )
  },
)

/** What a descriptor of the node says about the lease. */
export const noteLease = defineCommand(
  'note_lease',
  (sql, p: { server: string; runtimeId: string; leaseEndsAt: number | null; isOver: boolean; at: number }) => {
    sql(
      `UPDATE rentals SET lease_ends_at = coalesce(?, lease_ends_at), watched = CASE WHEN ? THEN 0 ELSE watched END, updated_at = ?
       WHERE runtime_id = ? AND server_pubkey = ?`,
    ).run(p.leaseEndsAt === null ? null : BigInt(p.leaseEndsAt), p.isOver ? 1n : 0n, BigInt(p.at), p.runtimeId, p.server)
  },
)

/** After something came back: what the ledger says came back in all. There may be more to come. */
export const noteRentalRefund = defineCommand('note_rental_refund', (sql, p: { id: string; account: Account; at: number }) => {
  sql(
    `UPDATE rentals SET updated_at = ?, refunded_msats = (
       SELECT coalesce(-sum(p.amount_msats), 0) FROM ledger_entries e JOIN postings p ON p.entry_id = e.id
       WHERE e.cause_type = 'purchase' AND e.cause_id = ${rentalKey.sql('rentals.id')} AND p.account = ? AND p.amount_msats < 0)
     WHERE id = ?`,
  ).run(BigInt(p.at), p.account, p.id)
})

/** Stops looking for a refund. */
export const unwatchRental = defineCommand('unwatch_rental', (sql, p: { id: string }) => {
  sql('UPDATE rentals SET watched = 0 WHERE id = ?').run(p.id)
})

/** Forgets what was last touched before a time, except what may still bring a refund. */
export const sweepRentals = defineCommand('sweep_rentals', (sql, p: { before: number }) => {
  const old = `SELECT id FROM rentals WHERE updated_at < ? AND watched = 0 AND state IN ('answered', 'refused')
    AND ${rentalKey.sql('id')} NOT IN (SELECT cause_id FROM refund_tokens WHERE state = 'waiting')`
  sql(`DELETE FROM refund_tokens WHERE cause_id IN (SELECT ${rentalKey.sql('id')} FROM rentals WHERE id IN (${old}))`).run(BigInt(p.before))
  sql(`DELETE FROM rentals WHERE id IN (${old})`).run(BigInt(p.before))
})

export function getRental(store: Store, id: string): RentalRow | undefined {
  const row = store.sql('SELECT * FROM rentals WHERE id = ?').get(id)
  return row === undefined ? undefined : decode(row)
}

/** Newest first. */
export function listRentals(store: Store, options: { limit: number }): RentalRow[] {
  return store.sql('SELECT * FROM rentals ORDER BY created_at DESC, rowid DESC LIMIT ?').all(BigInt(options.limit)).map(decode)
}

/** Those that were sent and have no answer yet, from after a time. */
export function openRentals(store: Store, since: number): RentalRow[] {
  return store
    .sql(`SELECT * FROM rentals WHERE state IN ('asked', 'paying', 'paid') AND created_at > ? ORDER BY created_at`)
    .all(BigInt(since))
    .map(decode)
}

/** Those that were paid and may bring a refund. */
export function watchedRentals(store: Store): RentalRow[] {
  return store.sql('SELECT * FROM rentals WHERE watched = 1 ORDER BY created_at').all().map(decode)
}

/** Those that were paid to one node and are still recorded: a refund may come for any. Newest first. */
export function paidRentals(store: Store, server: string): RentalRow[] {
  return store
    .sql('SELECT * FROM rentals WHERE server_pubkey = ? AND paid_msats > 0 ORDER BY created_at DESC LIMIT 1000')
    .all(server)
    .map(decode)
}

/** Those whose payment was begun after a time (ms) and is not known to have been made. */
export function rentalsInPayment(store: Store, since: number): RentalRow[] {
  return store
    .sql('SELECT * FROM rentals WHERE payment_key IS NOT NULL AND paid_msats = 0 AND created_at > ? ORDER BY created_at')
    .all(BigInt(since))
    .map(decode)
}

/** The commands that one runtime was asked for or steered with. */
export function rentalsOf(store: Store, server: string, runtimeId: string): RentalRow[] {
  return store
    .sql('SELECT * FROM rentals WHERE runtime_id = ? AND server_pubkey = ? ORDER BY created_at')
    .all(runtimeId, server)
    .map(decode)
}

function decode(row: Row): RentalRow {
  return {
    id: text(row, 'id'),
    server: text(row, 'server_pubkey'),
    command: text(row, 'command'),
    requestId: text(row, 'request_id'),
    state: text(row, 'state') as RentalState,
    reason: textOrNull(row, 'reason'),
    runtimeId: textOrNull(row, 'runtime_id'),
    amountMsats: amount(row, 'amount_msats'),
    invoice: textOrNull(row, 'invoice'),
    paymentKey: textOrNull(row, 'payment_key'),
    paidMsats: amount(row, 'paid_msats'),
    refundedMsats: amount(row, 'refunded_msats'),
    leaseEndsAt: intOrNull(row, 'lease_ends_at'),
    createdAt: int(row, 'created_at'),
    updatedAt: int(row, 'updated_at'),
  }
}
