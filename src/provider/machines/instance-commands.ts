/** What an owner asks of one instance: exec, prompt, logs, snapshots, welcome; each to its substrate, the answer as its command gives it. */
import { rfc3339 } from '../../base/clock.ts'
import { isPylonError } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type { RuntimeState } from '../../base/states.ts'
import type { CommandOf } from '../../nostr/control/commands.ts'
import type { ControlErrorCode } from '../../nostr/control/vocabulary.ts'
import type { BackupState, RuntimeAdapter, RuntimeHandle, Snapshot } from '../../runtime/adapter.ts'
import { type RuntimeRow, readOutput } from '../../store/selling/runtimes.ts'
import type { Store } from '../../store/store.ts'
import { backupRecord, backupStatusOf, isScheduled, type ManagedRuntimeBackupStatus } from './backups.ts'
import { fail, toControlError } from './failures.ts'
import type { Substrates } from './substrates.ts'

/** By name, of a runtime that somebody rents: each takes room on the disk of the node. */
const MAX_LEASED_SNAPSHOTS = 16
const MAX_LISTED = 256
/** Of what is quoted inside JSON: an answer never outgrows NIP-44, whatever it is made of. */
const MAX_QUOTED_BYTES = 48 * 1024

/** A runtime that can be worked with, on its substrate. */
export interface Instance {
  readonly row: RuntimeRow
  readonly adapter: RuntimeAdapter
  readonly handle: RuntimeHandle
}

/** @throws ControlError runtime_not_ready; runtime_unreachable */
export function openInstance(
  substrates: Substrates,
  row: RuntimeRow,
  states: readonly RuntimeState[] = ['ready', 'unreachable', 'ended'],
): Instance {
  if (!states.includes(row.state) || row.handle === null) throw fail('runtime_not_ready', `the runtime is ${row.state}: ${row.stateReason}`)
  return { row, adapter: substrates.get(row.provider), handle: row.handle }
}

function cannot(row: RuntimeRow, what: string): never {
  throw fail('unsupported_operation', `${row.provider} cannot ${what}`)
}

/** What the substrate answers, its errors in the words of the control plane. */
async function asked<T>(answer: Promise<T>, fallback: ControlErrorCode = 'operation_failed'): Promise<T> {
  try {
    return await answer
  } catch (error) {
    throw toControlError(error, fallback)
  }
}

/** A text cut so that its JSON form stays below a size. */
function cutToFit(text: string, maxBytes: number): { text: string; truncated: boolean } {
  let cut = text
  while (Buffer.byteLength(JSON.stringify(cut)) > maxBytes) cut = cut.slice(0, Math.floor(cut.length * 0.8))
  return { text: cut, truncated: cut.length < text.length }
}

export async function exec({ row, adapter, handle }: Instance, command: CommandOf<'exec'>): Promise<Json> {
  if (adapter.exec === undefined) return cannot(row, 'execute commands')
  const user = command.user === undefined ? {} : { user: command.user }
  const ran = await asked(adapter.exec(handle, { command: command.shell, timeoutMs: command.timeout_s * 1000, ...user }))
  const stdout = cutToFit(ran.stdout, MAX_QUOTED_BYTES / 2)
  const stderr = cutToFit(ran.stderr, MAX_QUOTED_BYTES / 2)
  const truncated = ran.truncated || stdout.truncated || stderr.truncated
  return { operation: 'exec', exit_code: ran.exitCode, stdout: stdout.text, stderr: stderr.text, truncated }
}

export async function prompt(
  { row, adapter, handle }: Instance,
  command: CommandOf<'prompt'>,
  idempotencyKey: string,
  signal: AbortSignal,
): Promise<Json> {
  if (adapter.prompt === undefined) return cannot(row, 'take prompts')
  if (row.protocol === null) throw fail('unsupported_operation', 'a one-shot run takes no prompts')
  const protocol = command.protocol ?? row.protocol
  if (protocol !== row.protocol) throw fail('unsupported_protocol', `the runtime speaks ${row.protocol}`, 'leave the protocol out')
  const call = {
    protocol,
    message: command.message,
    sessionId: command.session_id,
    idempotencyKey: idempotencyKey.slice(0, 128),
    timeoutMs: command.timeout_s * 1000,
  }
  const answer = await asked(adapter.prompt(handle, call, signal))
  const reply = cutToFit(answer.reply, MAX_QUOTED_BYTES)
  return {
    operation: 'prompt',
    session_id: answer.session_id,
    reply: reply.text,
    stop_reason: answer.stop_reason,
    truncated: reply.truncated,
  }
}

/** Those that were kept, of one that is over. */
export async function logs(store: Store, substrates: Substrates, row: RuntimeRow, command: CommandOf<'logs'>): Promise<Json> {
  if (row.state === 'gone' || row.state === 'ended') {
    const kept = readOutput(store, { runtimeId: row.id, name: 'log', offset: 0, limit: 1024 * 1024 })
    if (kept !== undefined) return logAnswer(kept.data.toString('utf8'), command.tail_bytes)
  }
  const { adapter, handle } = openInstance(substrates, row, ['provisioning', 'ready', 'unreachable', 'ended', 'failed'])
  if (adapter.logs === undefined) return cannot(row, 'give logs')
  return logAnswer(await asked(adapter.logs(handle, { tailBytes: command.tail_bytes })), command.tail_bytes)
}

function logAnswer(text: string, tailBytes: number): Json {
  const tail = Buffer.from(text).subarray(-tailBytes).toString('utf8')
  let log = tail
  while (Buffer.byteLength(JSON.stringify(log)) > MAX_QUOTED_BYTES) log = log.slice(Math.ceil(log.length * 0.2))
  return { operation: 'logs', log, truncated: log.length < text.length }
}

export async function processWelcome({ adapter, handle }: Instance, command: CommandOf<'process_welcome'>): Promise<Json> {
  const { group_id: groupId, wrapper_event_id_hex: wrapperEventIdHex, welcome_event_json: welcomeEventJson } = command
  const welcome = {
    groupId,
    ...(wrapperEventIdHex === undefined ? {} : { wrapperEventIdHex }),
    ...(welcomeEventJson === undefined ? {} : { welcomeEventJson }),
  }
  return await asked(adapter.processWelcome(handle, welcome), 'process_welcome_failed')
}

/** @param withinQuota of one that somebody rents */
export async function snapshot({ row, adapter, handle }: Instance, name: string | undefined, withinQuota: boolean): Promise<Snapshot> {
  if (adapter.snapshot === undefined) return cannot(row, 'snapshot')
  if (name !== undefined && isScheduled(name)) throw fail('invalid_command', 'snapshot: names of this form are for scheduled ones')
  if (withinQuota) {
    // Those that can't be listed are counted by the quota all the same.
    const kept = ((await adapter.listSnapshots?.(handle).catch(() => [])) ?? []).filter(({ name: of }) => !isScheduled(of))
    if (kept.length >= MAX_LEASED_SNAPSHOTS)
      throw fail('capacity_exhausted', `a leased runtime keeps ${MAX_LEASED_SNAPSHOTS} snapshots`, 'restore one of them, or do without')
  }
  return await asked(adapter.snapshot(handle, name, { withinQuota }))
}

export function snapshotAnswer({ id, provider }: RuntimeRow, made: Snapshot, nowMs: number): Json {
  const backup = backupRecord(id, provider, made, nowMs)
  return { operation: 'snapshot', snapshot: made.name, created_at: rfc3339(made.createdAt), backup }
}

export async function listSnapshots({ row, adapter, handle }: Instance): Promise<Json> {
  if (adapter.listSnapshots === undefined) return cannot(row, 'snapshot')
  const snapshots = await asked(adapter.listSnapshots(handle))
  const listed = snapshots.slice(0, MAX_LISTED).map(({ name, createdAt }) => ({ name, created_at: rfc3339(createdAt) }))
  return { operation: 'list_snapshots', snapshots: listed }
}

export async function restore({ row, adapter, handle }: Instance, name: string | undefined, signal: AbortSignal): Promise<Json> {
  if (adapter.restore === undefined) return cannot(row, 'restore')
  const restored = await asked(adapter.restore(handle, name, signal))
  return { operation: 'restore', snapshot: restored.name, created_at: rfc3339(restored.createdAt) }
}

/** Undefined where the substrate keeps no backups of it. */
export async function backupOf(
  { row, adapter, handle }: Instance,
  nowMs: number,
  staleAfterMs: number,
): Promise<ManagedRuntimeBackupStatus | undefined> {
  if (adapter.backupStatus === undefined) return undefined
  const unknown: BackupState = {
    backupUnitKind: 'persistent_state_volume',
    backupTarget: row.id,
    recoveryPointKind: 'volume_snapshot',
    snapshots: undefined,
  }
  const state = await adapter
    .backupStatus(handle)
    .catch((error: unknown) => (isPylonError(error, 'runtime_unsupported') ? undefined : unknown))
  return state === undefined ? undefined : backupStatusOf(row.id, state, nowMs, staleAfterMs)
}
