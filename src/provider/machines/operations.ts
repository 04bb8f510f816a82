/** The commands on one runtime that is there: exec, prompt, logs, collect, snapshots, welcome. */
import { rfc3339 } from '../../base/clock.ts'
import type { Json } from '../../base/json.ts'
import type { CommandOf } from '../../nostr/control/commands.ts'
import type { BackupState, RuntimeAdapter, RuntimeHandle } from '../../runtime/adapter.ts'
import { leasesOf } from '../../store/selling/leases.ts'
import { listOutputs, noteSnapshot, type RuntimeRow, readOutput } from '../../store/selling/runtimes.ts'
import { backupRecord, backupStatusOf, isScheduled, type ManagedRuntimeBackupStatus } from './backups.ts'
import { fail, toControlError } from './failures.ts'
import { type Emit, type KeeperDeps, mustGet } from './keeper.ts'

/** What goes into one answer at most, as UTF-8; the envelope has room for 64 KiB of JSON. */
export const INLINE_BYTES = 32 * 1024
/** By name, of a runtime that somebody rents: each takes room on the disk of the node. */
const MAX_LEASED_SNAPSHOTS = 16
/** Of what is quoted inside JSON: an answer never outgrows NIP-44, whatever it is made of. */
const MAX_QUOTED_BYTES = 48 * 1024

interface Open {
  readonly adapter: RuntimeAdapter
  readonly handle: RuntimeHandle
}

/** The substrate of a runtime that can be worked with. @throws ControlError runtime_not_ready, runtime_unreachable */
function open(deps: KeeperDeps, row: RuntimeRow, states: readonly RuntimeRow['state'][] = ['ready', 'unreachable', 'ended']): Open {
  if (!states.includes(row.state) || row.handle === null) throw fail('runtime_not_ready', `the runtime is ${row.state}: ${row.stateReason}`)
  return { adapter: deps.substrates().get(row.provider), handle: row.handle }
}

function cannot(row: RuntimeRow, what: string): never {
  throw fail('unsupported_operation', `${row.provider} cannot ${what}`)
}

/** A text cut so that its JSON form stays below a size. */
function cutToFit(text: string, maxBytes: number): { text: string; truncated: boolean } {
  let cut = text
  while (Buffer.byteLength(JSON.stringify(cut)) > maxBytes) cut = cut.slice(0, Math.floor(cut.length * 0.8))
  return { text: cut, truncated: cut.length < text.length }
}

export async function exec(deps: KeeperDeps, row: RuntimeRow, command: CommandOf<'exec'>): Promise<Json> {
  const { adapter, handle } = open(deps, row)
  if (adapter.exec === undefined) return cannot(row, 'execute commands')
  const call = {
    command: command.shell,
    timeoutMs: command.timeout_s * 1000,
    ...(command.user === undefined ? {} : { user: command.user }),
  }
  const ran = await adapter.exec(handle, call).catch((error: unknown) => {
    throw toControlError(error, 'operation_failed')
  })
  const stdout = cutToFit(ran.stdout, MAX_QUOTED_BYTES / 2)
  const stderr = cutToFit(ran.stderr, MAX_QUOTED_BYTES / 2)
  const truncated = ran.truncated || stdout.truncated || stderr.truncated
  return { operation: 'exec', exit_code: ran.exitCode, stdout: stdout.text, stderr: stderr.text, truncated }
}

export async function prompt(
  deps: KeeperDeps,
  row: RuntimeRow,
  command: CommandOf<'prompt'>,
  idempotencyKey: string,
  signal: AbortSignal,
): Promise<Json> {
  const { adapter, handle } = open(deps, row)
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
  const answer = await adapter.prompt(handle, call, signal).catch((error: unknown) => {
    throw toControlError(error, 'operation_failed')
  })
  const reply = cutToFit(answer.reply, MAX_QUOTED_BYTES)
  return {
    operation: 'prompt',
    session_id: answer.session_id,
    reply: reply.text,
    stop_reason: answer.stop_reason,
    truncated: reply.truncated,
  }
}

export async function logs(deps: KeeperDeps, row: RuntimeRow, command: CommandOf<'logs'>): Promise<Json> {
  if (row.state === 'gone' || row.state === 'ended') {
    const kept = readOutput(deps.store, { runtimeId: row.id, name: 'log', offset: 0, limit: 1024 * 1024 })
    if (kept !== undefined) return logAnswer(kept.data.toString('utf8'), command.tail_bytes)
  }
  const { adapter, handle } = open(deps, row, ['provisioning', 'ready', 'unreachable', 'ended', 'failed'])
  if (adapter.logs === undefined) return cannot(row, 'give logs')
  const text = await adapter.logs(handle, { tailBytes: command.tail_bytes }).catch((error: unknown) => {
    throw toControlError(error, 'operation_failed')
  })
  return logAnswer(text, command.tail_bytes)
}

function logAnswer(text: string, tailBytes: number): Json {
  const tail = Buffer.from(text).subarray(-tailBytes).toString('utf8')
  let log = tail
  while (Buffer.byteLength(JSON.stringify(log)) > MAX_QUOTED_BYTES) log = log.slice(Math.ceil(log.length * 0.2))
  return { operation: 'logs', log, truncated: log.length < text.length }
}

/** What was collected, or a page of one of it. */
export function collect(deps: KeeperDeps, row: RuntimeRow, command: CommandOf<'collect'>): Json {
  if (command.output === undefined) return { operation: 'collect', outputs: outputList(deps, row.id) }
  const page = readOutput(deps.store, { runtimeId: row.id, name: command.output, offset: command.offset, limit: INLINE_BYTES })
  if (page === undefined)
    throw fail('operation_failed', `the runtime left no output ${command.output}`, 'collect without output lists them')
  const next = command.offset + page.data.length
  return {
    operation: 'collect',
    output: command.output,
    offset: command.offset,
    total_bytes: page.totalBytes,
    data_base64: page.data.toString('base64'),
    ...(next < page.totalBytes ? { next_offset: next } : {}),
  }
}

const MAX_LISTED = 256
const MAX_LISTED_BYTES = 16 * 1024

/** As many as fit beside the rest of an answer. */
function outputList(deps: KeeperDeps, runtimeId: string): Json[] {
  const listed: Json[] = []
  let total = 0
  for (const { name, bytes } of listOutputs(deps.store, runtimeId).slice(0, MAX_LISTED)) {
    total += Buffer.byteLength(JSON.stringify({ name, bytes }))
    if (total > MAX_LISTED_BYTES) break
    listed.push({ name, bytes })
  }
  return listed
}

/** The answer to a finished one-shot run: small outputs inside, of larger ones how to collect them. */
export function runAnswer(deps: KeeperDeps, row: RuntimeRow): Json {
  const result = row.result as { exit_code?: number; message?: string; status?: string } | null
  const read = (name: string) => readOutput(deps.store, { runtimeId: row.id, name, offset: 0, limit: INLINE_BYTES + 1 })
  const [stdout, stderr] = [read('stdout'), read('stderr')]
  const outputs = listOutputs(deps.store, row.id)
  const common = {
    operation: 'run',
    exit_code: result?.exit_code ?? null,
    status: result?.status ?? 'failed',
    message: result?.message ?? row.stateReason,
    outputs: outputList(deps, row.id),
  }
  const texts = { stdout: stdout?.data.toString('utf8') ?? '', stderr: stderr?.data.toString('utf8') ?? '' }
  const artifacts: Record<string, string> = {}
  let total = Buffer.byteLength(JSON.stringify(texts))
  for (const { name, bytes } of outputs.filter((output) => output.name.startsWith('artifact:'))) {
    total += Math.ceil(bytes / 3) * 4 + name.length + 8
    if (total > INLINE_BYTES) break
    artifacts[name.slice('artifact:'.length)] = read(name)?.data.toString('base64') ?? ''
  }
  if (total <= INLINE_BYTES) return { ...common, ...texts, artifacts_base64: artifacts }
  return {
    ...common,
    outputs: common.outputs.slice(0, 128),
    error: 'output_too_large',
    hint: `the outputs are over ${INLINE_BYTES} bytes: send collect with runtime_id ${row.id} and each output name`,
  }
}

export async function welcome(deps: KeeperDeps, row: RuntimeRow, command: CommandOf<'process_welcome'>): Promise<Json> {
  const { adapter, handle } = open(deps, row)
  const { group_id: groupId, wrapper_event_id_hex: wrapperEventIdHex, welcome_event_json: welcomeEventJson } = command
  return await adapter
    .processWelcome(handle, {
      groupId,
      ...(wrapperEventIdHex === undefined ? {} : { wrapperEventIdHex }),
      ...(welcomeEventJson === undefined ? {} : { welcomeEventJson }),
    })
    .catch((error: unknown) => {
      throw toControlError(error, 'process_welcome_failed')
    })
}

/** Undefined where the substrate keeps no backups of it. */
export async function backupOf(deps: KeeperDeps, row: RuntimeRow): Promise<ManagedRuntimeBackupStatus | undefined> {
  if (row.handle === null || row.protocol === null || (row.state !== 'ready' && row.state !== 'unreachable')) return undefined
  const adapter = deps.substrates().get(row.provider)
  if (adapter.backupStatus === undefined) return undefined
  const unknown: BackupState = {
    backupUnitKind: 'persistent_state_volume',
    backupTarget: row.id,
    recoveryPointKind: 'volume_snapshot',
    snapshots: undefined,
  }
  const state = await adapter.backupStatus(row.handle).catch((error: unknown) => {
    if ((error as { code?: unknown }).code === 'runtime_unsupported') return undefined
    return unknown
  })
  return state === undefined ? undefined : backupStatusOf(row.id, state, deps.clock.now(), deps.config().snapshot_stale_s * 1000)
}

export async function snapshot(deps: KeeperDeps, row: RuntimeRow, name: string | undefined): Promise<Json> {
  const { adapter, handle } = open(deps, row)
  if (adapter.snapshot === undefined) return cannot(row, 'snapshot')
  if (name !== undefined && isScheduled(name)) throw fail('invalid_command', 'snapshot: names of this form are for scheduled ones')
  const withinQuota = leasesOf(deps.store, row.id).length > 0
  if (withinQuota) {
    const kept = ((await adapter.listSnapshots?.(handle).catch(() => [])) ?? []).filter(({ name: of }) => !isScheduled(of))
    if (kept.length >= MAX_LEASED_SNAPSHOTS)
      throw fail('capacity_exhausted', `a leased runtime keeps ${MAX_LEASED_SNAPSHOTS} snapshots`, 'restore one of them, or do without')
  }
  const made = await adapter.snapshot(handle, name, { withinQuota }).catch((error: unknown) => {
    throw toControlError(error, 'operation_failed')
  })
  await deps.store.write(noteSnapshot({ id: row.id, at: deps.clock.now() }))
  const backup = backupRecord(row.id, row.provider, made, deps.clock.now())
  return { operation: 'snapshot', snapshot: made.name, created_at: rfc3339(made.createdAt), backup }
}

export async function listSnapshots(deps: KeeperDeps, row: RuntimeRow): Promise<Json> {
  const { adapter, handle } = open(deps, row)
  if (adapter.listSnapshots === undefined) return cannot(row, 'snapshot')
  const snapshots = await adapter.listSnapshots(handle).catch((error: unknown) => {
    throw toControlError(error, 'operation_failed')
  })
  const listed = snapshots.slice(0, MAX_LISTED).map(({ name, createdAt }) => ({ name, created_at: rfc3339(createdAt) }))
  return { operation: 'list_snapshots', snapshots: listed }
}

export async function restore(deps: KeeperDeps, row: RuntimeRow, name: string | undefined, emit: Emit, signal: AbortSignal): Promise<Json> {
  const { adapter, handle } = open(deps, row, ['ready', 'unreachable'])
  if (adapter.restore === undefined) return cannot(row, 'restore')
  emit({ phase: 'provisioning', runtime_id: row.id, provider: row.provider, message: 'restoring' })
  const restored = await adapter.restore(handle, name, signal).catch((error: unknown) => {
    throw toControlError(error, 'operation_failed')
  })
  mustGet(deps.store, row.id)
  return { operation: 'restore', snapshot: restored.name, created_at: rfc3339(restored.createdAt) }
}

/** A collected output as text, all of it that was kept. */
export function outputText(deps: KeeperDeps, runtimeId: string, name: string): string {
  return readOutput(deps.store, { runtimeId, name, offset: 0, limit: 4 * 1024 * 1024 })?.data.toString('utf8') ?? ''
}
