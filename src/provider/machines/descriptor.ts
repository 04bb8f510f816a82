/** A runtime record as its owner reads it; pure. */
import { rfc3339 } from '../../base/clock.ts'
import type { Json } from '../../base/json.ts'
import type { RuntimeDescriptor } from '../../nostr/control/descriptor.ts'
import type { LeaseRow } from '../../store/selling/leases.ts'
import type { RuntimeRow } from '../../store/selling/runtimes.ts'
import type { ManagedRuntimeBackupStatus } from './backups.ts'
import { managedStatusOf } from './managed-status.ts'
import { phaseOf } from './runtime-life.ts'

export interface Extras {
  readonly leases: readonly LeaseRow[]
  readonly backup?: ManagedRuntimeBackupStatus
  /** Of a refund that waits to be spent. */
  readonly refundToken?: string
}

export function describe(row: RuntimeRow, extras: Extras): RuntimeDescriptor {
  const lease = leaseFields(extras)
  const added = typeof row.metadata === 'object' && row.metadata !== null && !Array.isArray(row.metadata) ? row.metadata : {}
  return {
    runtime_id: row.id,
    provider: row.provider,
    lifecycle_phase: phaseOf(row.state),
    runtime_class: row.runtimeClass,
    ...(row.region === null || row.region === '' ? {} : { region: row.region }),
    protocol_compatibility: row.protocol === null ? [] : [...row.protocols],
    ...(row.botPubkey === null ? {} : { bot_pubkey: row.botPubkey }),
    metadata: {
      ...added,
      state: row.state,
      state_reason: row.stateReason,
      ...(row.state === 'gone' ? {} : { status: { ...managedStatusOf(row) } }),
      created_at: rfc3339(row.createdAt),
      updated_at: rfc3339(row.updatedAt),
      ...(row.protocol === null ? { one_shot: true } : { protocol: row.protocol }),
      ...(row.away === null ? {} : { outage: { cause: row.away.cause, since: rfc3339(row.away.since) } }),
      ...(row.expiresAt === null ? {} : { expires_at: rfc3339(row.expiresAt) }),
      ...(row.result === null ? {} : { result: row.result }),
      ...(lease === undefined ? {} : { lease }),
      ...(extras.backup === undefined ? {} : { backup: { ...extras.backup } }),
    },
  }
}

function leaseFields(extras: Extras): Json | undefined {
  const last = currentOf(extras.leases)
  if (last === undefined) return undefined
  const paid = extras.leases.filter((lease) => lease.state !== 'quoted' && lease.state !== 'expired')
  const endsAt = Math.max(0, ...paid.map((lease) => lease.time?.endsAt ?? 0))
  const sum = (of: (lease: LeaseRow) => bigint) => Number(extras.leases.reduce((total, lease) => total + of(lease), 0n))
  return {
    id: last.id,
    state: last.state,
    paid_msats: sum((lease) => lease.paidMsats),
    price_msats_per_hour: Number(last.priceMsatsPerHour),
    ...(endsAt === 0 ? {} : { ends_at: rfc3339(endsAt) }),
    ...(sum((lease) => lease.refundMsats) === 0 ? {} : { refund_msats: sum((lease) => lease.refundMsats) }),
    ...(extras.refundToken === undefined ? {} : { refund_token: extras.refundToken }),
  }
}

/** What matters most to the tenant: money on its way back, then the time that runs, then what was paid last. */
function currentOf(leases: readonly LeaseRow[]): LeaseRow | undefined {
  const isPaid = (lease: LeaseRow) => lease.state !== 'quoted' && lease.state !== 'expired'
  return (
    leases.findLast((lease) => lease.state === 'refunding') ??
    leases.findLast((lease) => lease.state === 'active') ??
    leases.findLast(isPaid) ??
    leases.at(-1)
  )
}
