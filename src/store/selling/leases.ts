/** Leases: the time that somebody paid for a runtime, every step with its reason. */
import type { Msats } from '../../base/amounts.ts'
import { LEASE_STEPS, type LeaseState } from '../../base/states.ts'
import { type Command, defineCommand } from '../commands.ts'
import { countOf, int } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOf, type StepOf, Steps, Table } from '../table.ts'

/** Times are milliseconds since the epoch. */
const COLUMNS = {
  id: column.text(),
  runtimeId: column.text(),
  tenantPubkey: column.text(),
  state: column.text<LeaseState>(),
  priceMsatsPerHour: column.amount<Msats>(),
  seconds: column.int(),
  priceMsats: column.amount<Msats>(),
  paidMsats: column.amount<Msats>(),
  /** The lease that this one prolongs. */
  extendsId: column.orNull(column.text()),
  /** The invoice over its price. */
  bill: column.orNull(column.group({ request: column.text('payment_request'), expiresAt: column.int('payment_expires_at') })),
  mintUrl: column.orNull(column.text()),
  /** A token came for it: it is not billed. */
  byToken: column.flag(),
  time: column.orNull(column.group({ startsAt: column.int(), endsAt: column.int() })),
  noticeSent: column.flag(),
  refundMsats: column.amount<Msats>(),
  refundSends: column.int(),
  refundNextAt: column.orNull(column.int()),
  reason: column.text(),
  createdAt: column.int(),
  updatedAt: column.int(),
}
type Columns = RowOf<typeof COLUMNS>

export type ActiveLease = Columns & { readonly state: 'active'; readonly time: NonNullable<Columns['time']> }
/** Once it is active its time runs. */
export type LeaseRow = ActiveLease | (Columns & { readonly state: Exclude<LeaseState, 'active'> })

const isLease = (row: Columns): row is LeaseRow => row.state !== 'active' || row.time !== null

const leases = new Table('leases', COLUMNS, isLease)

const steps = new Steps('lease_transitions', 'lease_id', LEASE_STEPS)

export interface NewLease
  extends Pick<LeaseRow, 'id' | 'runtimeId' | 'tenantPubkey' | 'priceMsatsPerHour' | 'seconds' | 'priceMsats' | 'extendsId' | 'byToken'> {
  readonly at: number
}

/** Columns that a step may set besides the state. */
export type LeasePatch = Partial<
  Pick<LeaseRow, 'paidMsats' | 'bill' | 'mintUrl' | 'byToken' | 'time' | 'noticeSent'> &
    Pick<LeaseRow, 'refundMsats' | 'refundSends' | 'refundNextAt'>
>

type LeaseStep = StepOf<LeaseState, LeasePatch>

/** Records a lease in `quoted`. */
export const insertLease = defineCommand(
  'insert_lease',
  (sql, { at, ...lease }: NewLease) => {
    const reason = lease.extendsId === null ? 'asked for' : 'an extension was asked for'
    leases.insert(sql, { ...lease, state: 'quoted', reason, createdAt: at, updatedAt: at })
    steps.begin(sql, lease.id, { to: 'quoted', reason, at })
  },
  () => 'move_lease:quoted',
)

/** Takes a lease from one state to another. @throws conflict when it is not in `from`, internal for a step that there is not; then nothing changed */
export const moveLease: (p: LeaseStep) => Command<void> = defineCommand(
  'move_lease',
  (sql, p: LeaseStep) => {
    const change = { ...p.patch, state: p.to, reason: p.reason, updatedAt: p.at }
    steps.take(sql, p.id, p, () => leases.patch(sql, { id: p.id, state: p.from }, change))
  },
  (p) => `move_lease:${p.to}`,
)

/** What is known now of a lease whose state stays. */
export const patchLease = defineCommand('patch_lease', (sql, { id, patch, at }: { id: string; patch: LeasePatch; at: number }) => {
  leases.patch(sql, { id }, { ...patch, updatedAt: at })
})

export const getLease = (store: Store, id: string): LeaseRow | undefined => leases.get(store.sql, { id })

/** Oldest first. */
export const leasesOf = (store: Store, runtimeId: string): LeaseRow[] =>
  leases.all(store.sql, 'WHERE runtime_id = ? ORDER BY created_at, rowid', runtimeId)

export const leasesIn = (store: Store, states: readonly LeaseState[]): LeaseRow[] =>
  leases.all(store.sql, 'WHERE state IN (SELECT value FROM json_each(?)) ORDER BY created_at, rowid', JSON.stringify(states))

export const isActive = (lease: LeaseRow): lease is ActiveLease => lease.state === 'active'

/** Leases that were asked for since a time (ms) and not paid: of one tenant, and of all. */
export function countUnpaid(store: Store, p: { tenant: string; since: number }): { theirs: number; all: number } {
  const statement = `SELECT count(*) AS everyone, coalesce(sum(tenant_pubkey = ?), 0) AS theirs FROM leases
    WHERE state IN ('quoted', 'expired') AND created_at > ?`
  const row = store.sql(statement).get(p.tenant, BigInt(p.since)) ?? {}
  return { theirs: int(row, 'theirs'), all: int(row, 'everyone') }
}

/** Leases of a tenant since a time that were paid and given back for another reason than this. */
export const countRefundsCaused = (store: Store, p: { tenant: string; since: number; except: string }): number =>
  countOf(
    store.sql,
    `SELECT count(DISTINCT l.id) AS n FROM leases l CROSS JOIN lease_transitions t ON t.lease_id = l.id
       WHERE l.tenant_pubkey = ? AND l.created_at > ? AND t.to_state = 'refunding' AND t.reason <> ?`,
    p.tenant,
    BigInt(p.since),
    p.except,
  )

/** How often a lease has begun to be refunded. */
export const countRefunds = (store: Store, id: string): number => steps.count(store.sql, id, 'refunding')
