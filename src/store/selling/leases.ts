/** Leases: the time that somebody paid for a runtime, every step with its reason. */
import type { Msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { type Command, defineCommand, type Row, type Sql } from '../commands.ts'
import { amount, int, intOrNull, text, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'

/** The closed set of states; which step follows which is decided by provider/machines/lease-states.ts. */
export const LEASE_STATES = ['quoted', 'expired', 'paid', 'active', 'ended', 'refunding', 'refunded'] as const
export type LeaseState = (typeof LEASE_STATES)[number]

export interface LeaseRow {
  readonly id: string
  readonly runtimeId: string
  readonly tenantPubkey: string
  readonly state: LeaseState
  readonly priceMsatsPerHour: Msats
  readonly seconds: number
  readonly priceMsats: Msats
  readonly paidMsats: Msats
  /** The lease that this one prolongs. */
  readonly extendsId: string | null
  readonly paymentRequest: string | null
  /** Milliseconds since the epoch, as all times below. */
  readonly paymentExpiresAt: number | null
  readonly mintUrl: string | null
  /** A token came for it: it is not billed. */
  readonly byToken: boolean
  readonly startsAt: number | null
  readonly endsAt: number | null
  readonly noticeSent: boolean
  readonly refundMsats: Msats
  readonly refundSends: number
  readonly refundNextAt: number | null
  readonly reason: string
  readonly createdAt: number
  readonly updatedAt: number
}

export interface NewLease {
  readonly id: string
  readonly runtimeId: string
  readonly tenantPubkey: string
  readonly priceMsatsPerHour: Msats
  readonly seconds: number
  readonly priceMsats: Msats
  readonly extendsId: string | null
  readonly byToken: boolean
  readonly at: number
}

/** Columns that a step may set besides the state. */
export interface LeasePatch {
  readonly paidMsats?: Msats
  readonly paymentRequest?: string
  readonly paymentExpiresAt?: number
  readonly mintUrl?: string
  readonly byToken?: boolean
  readonly startsAt?: number
  readonly endsAt?: number
  readonly noticeSent?: boolean
  readonly refundMsats?: Msats
  readonly refundSends?: number
  readonly refundNextAt?: number | null
}

export interface LeaseStep {
  readonly id: string
  readonly from: LeaseState
  readonly to: LeaseState
  readonly reason: string
  readonly at: number
  readonly patch?: LeasePatch
}

const COLUMN_OF: Readonly<Record<keyof LeasePatch, string>> = {
  paidMsats: 'paid_msats',
  paymentRequest: 'payment_request',
  paymentExpiresAt: 'payment_expires_at',
  mintUrl: 'mint_url',
  byToken: 'by_token',
  startsAt: 'starts_at',
  endsAt: 'ends_at',
  noticeSent: 'notice_sent',
  refundMsats: 'refund_msats',
  refundSends: 'refund_sends',
  refundNextAt: 'refund_next_at',
}

function toSql(value: string | number | bigint | boolean | null | undefined): bigint | string | null {
  if (value === null || value === undefined) return null
  if (typeof value === 'boolean') return value ? 1n : 0n
  return typeof value === 'number' ? BigInt(Math.floor(value)) : value
}

/** Records a lease in `quoted`. */
export const insertLease = defineCommand(
  'insert_lease',
  (sql, p: NewLease) => {
    const reason = p.extendsId === null ? 'asked for' : 'an extension was asked for'
    sql(
      `INSERT INTO leases (id, runtime_id, tenant_pubkey, state, price_msats_per_hour, seconds, price_msats, extends_id, by_token, reason, created_at, updated_at)
       VALUES (?, ?, ?, 'quoted', ?, ?, ?, ?, ?, ?, ?, ?)`,
    ).run(
      ...[p.id, p.runtimeId, p.tenantPubkey, p.priceMsatsPerHour, BigInt(p.seconds), p.priceMsats, p.extendsId, toSql(p.byToken), reason],
      ...[BigInt(p.at), BigInt(p.at)],
    )
    noteStep(sql, { id: p.id, from: null, to: 'quoted', reason, at: p.at })
  },
  () => 'move_lease:quoted',
)

/** Takes a lease from one state to another. @throws conflict when it is not in `from`; then nothing changed */
export const moveLease: (p: LeaseStep) => Command<void> = defineCommand(
  'move_lease',
  (sql, p: LeaseStep) => {
    const patch = Object.entries(p.patch ?? {}) as [keyof LeasePatch, LeasePatch[keyof LeasePatch]][]
    const sets = patch.map(([key]) => `, ${COLUMN_OF[key]} = ?`).join('')
    const changed = sql(`UPDATE leases SET state = ?, reason = ?, updated_at = ?${sets} WHERE id = ? AND state = ?`).run(
      ...[p.to, p.reason, BigInt(p.at)],
      ...patch.map(([, value]) => toSql(value)),
      ...[p.id, p.from],
    )
    if (changed.changes === 0) throw new PylonError('conflict', `The lease ${p.id} is not ${p.from} any more.`)
    noteStep(sql, p)
  },
  (p) => `move_lease:${p.to}`,
)

function noteStep(sql: Sql, p: { id: string; from: LeaseState | null; to: LeaseState; reason: string; at: number }): void {
  sql('INSERT INTO lease_transitions (lease_id, from_state, to_state, reason, at) VALUES (?, ?, ?, ?, ?)').run(
    ...[p.id, p.from, p.to, p.reason, BigInt(p.at)],
  )
}

/** What is known now of a lease whose state stays. */
export const patchLease = defineCommand('patch_lease', (sql, p: { id: string; patch: LeasePatch; at: number }) => {
  for (const [key, value] of Object.entries(p.patch) as [keyof LeasePatch, LeasePatch[keyof LeasePatch]][]) {
    sql(`UPDATE leases SET ${COLUMN_OF[key]} = ?, updated_at = ? WHERE id = ?`).run(toSql(value), BigInt(p.at), p.id)
  }
})

export function getLease(store: Store, id: string): LeaseRow | undefined {
  const row = store.sql('SELECT * FROM leases WHERE id = ?').get(id)
  return row === undefined ? undefined : decodeLease(row)
}

/** Oldest first. */
export function leasesOf(store: Store, runtimeId: string): LeaseRow[] {
  return store.sql('SELECT * FROM leases WHERE runtime_id = ? ORDER BY created_at, rowid').all(runtimeId).map(decodeLease)
}

export function leasesIn(store: Store, states: readonly LeaseState[]): LeaseRow[] {
  return store
    .sql('SELECT * FROM leases WHERE state IN (SELECT value FROM json_each(?)) ORDER BY created_at, rowid')
    .all(JSON.stringify(states))
    .map(decodeLease)
}

/** Leases that were asked for since a time (ms) and not paid: of one tenant, and of all. */
export function countUnpaid(store: Store, p: { tenant: string; since: number }): { theirs: number; all: number } {
  const row = store
    .sql(
      `SELECT count(*) AS everyone, coalesce(sum(tenant_pubkey = ?), 0) AS theirs FROM leases
       WHERE state IN ('quoted', 'expired') AND created_at > ?`,
    )
    .get(p.tenant, BigInt(p.since))
  return row === undefined ? { theirs: 0, all: 0 } : { theirs: int(row, 'theirs'), all: int(row, 'everyone') }
}

/** Leases of a tenant since a time that were paid and given back for another reason than this. */
export function countRefundsCaused(store: Store, p: { tenant: string; since: number; except: string }): number {
  const row = store
    .sql(
      `SELECT count(DISTINCT l.id) AS n FROM leases l JOIN lease_transitions t ON t.lease_id = l.id
       WHERE l.tenant_pubkey = ? AND l.created_at > ? AND t.to_state = 'refunding' AND t.reason <> ?`,
    )
    .get(p.tenant, BigInt(p.since), p.except)
  return row === undefined ? 0 : int(row, 'n')
}

/** How often a lease has begun to be refunded. */
export function countRefunds(store: Store, id: string): number {
  const row = store.sql(`SELECT count(*) AS total FROM lease_transitions WHERE lease_id = ? AND to_state = 'refunding'`).get(id)
  return row === undefined ? 0 : int(row, 'total')
}

function decodeLease(row: Row): LeaseRow {
  return {
    id: text(row, 'id'),
    runtimeId: text(row, 'runtime_id'),
    tenantPubkey: text(row, 'tenant_pubkey'),
    state: text(row, 'state') as LeaseState,
    priceMsatsPerHour: amount(row, 'price_msats_per_hour'),
    seconds: int(row, 'seconds'),
    priceMsats: amount(row, 'price_msats'),
    paidMsats: amount(row, 'paid_msats'),
    extendsId: textOrNull(row, 'extends_id'),
    paymentRequest: textOrNull(row, 'payment_request'),
    paymentExpiresAt: intOrNull(row, 'payment_expires_at'),
    mintUrl: textOrNull(row, 'mint_url'),
    byToken: int(row, 'by_token') === 1,
    startsAt: intOrNull(row, 'starts_at'),
    endsAt: intOrNull(row, 'ends_at'),
    noticeSent: int(row, 'notice_sent') === 1,
    refundMsats: amount(row, 'refund_msats'),
    refundSends: int(row, 'refund_sends'),
    refundNextAt: intOrNull(row, 'refund_next_at'),
    reason: text(row, 'reason'),
    createdAt: int(row, 'created_at'),
    updatedAt: int(row, 'updated_at'),
  }
}
