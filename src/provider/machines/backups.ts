/** Backups of managed runtimes as their owners see them, and when the next snapshot is due; pure. */
import { rfc3339 } from '../../base/clock.ts'
import type { Json } from '../../base/json.ts'
import type { BackupState, Snapshot } from '../../runtime/adapter.ts'

export type BackupFreshness = 'healthy' | 'stale' | 'missing' | 'unavailable'

/** ManagedRuntimeBackupStatus, in wire names. */
export interface ManagedRuntimeBackupStatus {
  readonly vm_id: string
  readonly backup_unit_kind: BackupState['backupUnitKind']
  readonly backup_target: string
  readonly recovery_point_kind: BackupState['recoveryPointKind']
  readonly freshness: BackupFreshness
  readonly latest_recovery_point_name?: string
  readonly latest_successful_backup_at?: string
  readonly observed_at?: string
}

/** @param state as the substrate says it; @param staleAfterMs age at which the newest snapshot is no longer healthy */
export function backupStatusOf(runtimeId: string, state: BackupState, nowMs: number, staleAfterMs: number): ManagedRuntimeBackupStatus {
  const newest = state.snapshots?.[0]
  return {
    vm_id: runtimeId,
    backup_unit_kind: state.backupUnitKind,
    backup_target: state.backupTarget,
    recovery_point_kind: state.recoveryPointKind,
    freshness: freshnessOf(state.snapshots, nowMs, staleAfterMs),
    ...(newest === undefined ? {} : { latest_recovery_point_name: newest.name, latest_successful_backup_at: rfc3339(newest.createdAt) }),
    observed_at: rfc3339(nowMs),
  }
}

/** @param snapshots newest first; undefined: they could not be asked for */
export function freshnessOf(snapshots: readonly Snapshot[] | undefined, nowMs: number, staleAfterMs: number): BackupFreshness {
  if (snapshots === undefined) return 'unavailable'
  const [newest] = snapshots
  if (newest === undefined) return 'missing'
  return nowMs - newest.createdAt <= staleAfterMs ? 'healthy' : 'stale'
}

/** VmBackupStatusRecord: what a `snapshot` command gives back, in wire names. */
export function backupRecord(runtimeId: string, host: string, snapshot: Snapshot, nowMs: number): Record<string, Json> {
  return {
    schema_version: 'vm.backup_status.v1',
    vm_id: runtimeId,
    backup_host: host,
    latest_successful_backup_at: rfc3339(snapshot.createdAt),
    observed_at: rfc3339(nowMs),
  }
}

const SCHEDULED_PREFIX = 'pylon-auto-'

export function scheduledName(nowMs: number): string {
  return `${SCHEDULED_PREFIX}${rfc3339(nowMs).slice(0, 19).replaceAll(/[-:T]/g, '')}`
}

export const isScheduled = (name: string): boolean => name.startsWith(SCHEDULED_PREFIX)

/** Scheduled snapshots beyond those to keep; what a requester made by name is theirs to keep. @param snapshots newest first */
export function surplusSnapshots(snapshots: readonly Snapshot[], keep: number): string[] {
  return snapshots
    .filter((snapshot) => isScheduled(snapshot.name))
    .slice(keep)
    .map((snapshot) => snapshot.name)
}
