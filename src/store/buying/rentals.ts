/** Rentals: what this home asked of the machines of a node, by idempotency key, with what it paid. */
import type { Account } from '../../base/accounts.ts'
import type { Msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { RENTAL_STEPS, type RentalState, statesBefore } from '../../base/states.ts'
import { defineCommand } from '../commands.ts'
import { rentalKey } from '../keys.ts'
import type { Store } from '../store.ts'
import { column, type RowOf, Table } from '../table.ts'

const COLUMNS = {
  /** The idempotency key of the command. */
  id: column.text(),
  server: column.text('server_pubkey'),
  command: column.text(),
  digest: column.text(),
  requestId: column.text(),
  state: column.text<RentalState>(),
  reason: column.orNull(column.text()),
  runtimeId: column.orNull(column.text()),
  amountMsats: column.amount<Msats>(),
  invoice: column.orNull(column.text()),
  paymentKey: column.orNull(column.text()),
  paidMsats: column.amount<Msats>(),
  refundedMsats: column.amount<Msats>(),
  /** Milliseconds since the epoch, as all times below. */
  leaseEndsAt: column.orNull(column.int()),
  /** A refund may still come. */
  watched: column.flag(),
  createdAt: column.int(),
  updatedAt: column.int(),
}
type Columns = RowOf<typeof COLUMNS>

/** Once it is being paid, the key of its payment is fixed. */
export type RentalRow = Columns &
  ({ readonly state: 'paying' | 'paid'; readonly paymentKey: string } | { readonly state: 'asked' | 'answered' | 'refused' })

const isRental = (row: Columns): row is RentalRow => row.paymentKey !== null || (row.state !== 'paying' && row.state !== 'paid')

const rentals = new Table('rentals', COLUMNS, isRental)

/** Records a command before it is sent, and gives the record that holds from then on. @throws idempotency_conflict for another command under the key */
export const claimRental = defineCommand(
  'claim_rental',
  (sql, p: { id: string; server: string; command: string; digest: string; requestId: string; at: number }): RentalRow => {
    const { at, ...rental } = p
    rentals.insert(sql, { ...rental, state: 'asked', createdAt: at, updatedAt: at }, 'ON CONFLICT (id) DO NOTHING')
    const row = rentals.get(sql, { id: p.id })
    if (row === undefined || row.digest !== p.digest || row.server !== p.server)
      throw new PylonError('idempotency_conflict', 'This idempotency key was used for another command or another node: use a new one.')
    return row
  },
)

/** Fixes which payment pays for a rental, before it is begun. @throws conflict when one is under way or was made */
export const beginRentalPayment = defineCommand(
  'begin_rental_payment',
  (
    sql,
    p: {
      id: string
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
    ).run(
      p.paymentKey,
      p.amountMsats,
      p.invoice,
      p.runtimeId,
      BigInt(p.at),
      p.id,
      JSON.stringify(statesBefore(RENTAL_STEPS, 'paying')),
      p.former,
    )
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
    const { state, reason, runtimeId, at: updatedAt } = p
    rentals.patch(sql, { id: p.id }, { state, reason, runtimeId: runtimeId ?? undefined, updatedAt })
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
  rentals.patch(sql, { id: p.id }, { watched: false })
})

/** Forgets what was last touched before a time, except what may still bring a refund. */
export const sweepRentals = defineCommand('sweep_rentals', (sql, p: { before: number }) => {
  const old = `SELECT id FROM rentals WHERE updated_at < ? AND watched = 0 AND state IN ('answered', 'refused')
    AND ${rentalKey.sql('id')} NOT IN (SELECT cause_id FROM refund_tokens WHERE state = 'waiting')`
  sql(`DELETE FROM refund_tokens WHERE cause_id IN (SELECT ${rentalKey.sql('id')} FROM rentals WHERE id IN (${old}))`).run(BigInt(p.before))
  sql(`DELETE FROM rentals WHERE id IN (${old})`).run(BigInt(p.before))
})

export const getRental = (store: Store, id: string): RentalRow | undefined => rentals.get(store.sql, { id })

/** Newest first. */
export const listRentals = (store: Store, options: { limit: number }): RentalRow[] =>
  rentals.all(store.sql, 'ORDER BY created_at DESC, rowid DESC LIMIT ?', BigInt(options.limit))

/** Those that were sent and have no answer yet, from after a time. */
export const openRentals = (store: Store, since: number): RentalRow[] =>
  rentals.all(store.sql, `WHERE state IN ('asked', 'paying', 'paid') AND created_at > ? ORDER BY created_at`, BigInt(since))

/** Those that were paid and may bring a refund. */
export const watchedRentals = (store: Store): RentalRow[] => rentals.all(store.sql, 'WHERE watched = 1 ORDER BY created_at')

/** Those that were paid to one node and are still recorded: a refund may come for any. Newest first. */
export const paidRentals = (store: Store, server: string): RentalRow[] =>
  rentals.all(store.sql, 'WHERE server_pubkey = ? AND paid_msats > 0 ORDER BY created_at DESC LIMIT 1000', server)

/** Those whose payment was begun after a time (ms) and is not known to have been made. */
export const rentalsInPayment = (store: Store, since: number): RentalRow[] =>
  rentals.all(store.sql, 'WHERE payment_key IS NOT NULL AND paid_msats = 0 AND created_at > ? ORDER BY created_at', BigInt(since))

/** Those paid by a token that nobody has taken, and that may be taken back by now. */
export const rentalsToTakeBack = (store: Store, now: number): RentalRow[] =>
  rentals.all(
    store.sql,
    `WHERE payment_key IN (SELECT idempotency_key FROM operations WHERE kind = 'send' AND state = 'completed' AND token_state = 'pending'
       AND plan_json ->> 'refundAfter' <= ?) ORDER BY +created_at`,
    BigInt(now),
  )

/** The commands that one runtime was asked for or steered with. */
export const rentalsOf = (store: Store, server: string, runtimeId: string): RentalRow[] =>
  rentals.all(store.sql, 'WHERE runtime_id = ? AND server_pubkey = ? ORDER BY created_at', runtimeId, server)
