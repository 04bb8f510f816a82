import { randomBytes } from 'node:crypto'
import { closeSync, constants, existsSync, lstatSync, openSync, readdirSync } from 'node:fs'
import { availableParallelism, totalmem } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import type { Clock } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import { ensurePrivateDir } from '../../base/files.ts'
import type { Json } from '../../base/json.ts'
import { bootId, isSameProcess } from '../../base/process-identity.ts'
import type {
  AdapterProbe,
  BackupState,
  Capacity,
  CollectedOutputs,
  Execution,
  PromptCall,
  Provisioned,
  ProvisionInput,
  Readiness,
  RuntimeAdapter,
  RuntimeHandle,
  Snapshot,
} from '../adapter.ts'
import { diskUsage, gatherFiles, readContainedText } from '../contained-files.ts'
import { PROMPT_SOCKET } from '../contract/paths.ts'
import { PROTOCOLS, type PromptResult } from '../contract/prompt.ts'
import type { RuntimeSpec } from '../contract/spec.ts'
import { issueTicket, newTicketKey } from '../contract/ticket.ts'
import { collectFromFolder, OUTPUT_LIMITS, relativeToState, wantsArtifact } from '../outputs.ts'
import { buildRuntimePlan } from '../plan.ts'
import { promptOverSocket } from '../prompt-client.ts'
import { judgeReadiness, MAX_RESULT_BYTES, MAX_STATUS_BYTES } from '../readiness.ts'
import { collects, keepsVolume } from '../retention.ts'
import { type Bubblewrap, findBubblewrap } from './bubblewrap.ts'
import { DEFAULT_RESOURCES, type GuestProgram, memoryMibOf, sizeOf } from './enclosure.ts'
import { runBounded } from './exec.ts'
import { LocalLauncher } from './launcher.ts'
import { endMarked, findMarked } from './marked-processes.ts'
import { outputsDir, volumesOf } from './mounts.ts'
import {
  handleOf,
  isSameRequest,
  type LocalHandle,
  type LocalLayout,
  type LocalRecord,
  layoutOf,
  RUNTIME_ID,
  readRecord,
  writeRecord,
} from './record.ts'
import { LocalVolumes, removeTree } from './volumes.ts'

/** The disk of a runtime is measured no more often. */
const DISK_CHECK_MS = 10_000
const MAX_EXEC_OUTPUT = 1024 * 1024

export interface LocalOptions {
  /** Holds `<runtime id>/` and `volumes/`. */
  readonly dir: string
  readonly clock: Clock
  /** This program in its guest role. */
  readonly guest: GuestProgram
  /** The program to enclose with: looked for on PATH where undefined, not used where null. */
  readonly bubblewrap?: string | null
  readonly maxInstances?: number
  /** What a runtime that names no network gets, and the most that any may have. */
  readonly network?: { readonly byDefault: 'none' | 'host'; readonly allowHost: boolean }
  /** Host folders below which a read_only_snapshot may lie. */
  readonly snapshotRoots?: readonly string[]
  readonly maxSnapshotBytes?: number
}

const paramsShape = z.strictObject({
  /** `host` shares the network of this machine, its loopback included. */
  network: z.enum(['none', 'host']).optional(),
  /** `required`: refuse where nothing isolates. */
  isolation: z.enum(['required', 'any']).default('any'),
})

export class LocalAdapter implements RuntimeAdapter {
  readonly provider = 'local' as const
  readonly #options: LocalOptions
  readonly #volumes: LocalVolumes
  /** Work on one runtime goes in order. */
  readonly #queues = new Map<string, Promise<unknown>>()
  readonly #diskCheckedAt = new Map<string, number>()
  readonly #launcher: LocalLauncher
  #bubblewrap: Promise<Bubblewrap> | undefined

  constructor(options: LocalOptions) {
    this.#options = options
    this.#volumes = new LocalVolumes(join(options.dir, 'volumes'), options.maxSnapshotBytes ?? 4 * 1024 ** 3)
    this.#launcher = new LocalLauncher({
      guest: options.guest,
      volumes: this.#volumes,
      snapshotRoots: options.snapshotRoots ?? [],
      bubblewrap: () => this.#findBubblewrap(),
    })
  }

  async probe(): Promise<AdapterProbe> {
    if (!existsSync('/proc/self/fd')) {
      return {
        usable: false,
        isolated: false,
        reason: 'this system has no /proc',
        nextStep: 'Run the node on Linux, or use Incus (docs/incus.md).',
      }
    }
    const found = await this.#findBubblewrap()
    return found.path === null
      ? { usable: true, isolated: false, reason: found.reason, nextStep: found.nextStep }
      : { usable: true, isolated: true }
  }

  async capacity(): Promise<Capacity> {
    const vcpus = availableParallelism()
    const memoryMib = Math.floor(totalmem() / 1024 ** 2)
    const instances = this.#options.maxInstances ?? 8
    const living = this.#records().filter(({ record }) => this.#isAlive(record))
    const sum = (of: (spec: RuntimeSpec) => number) => living.reduce((total, { record }) => total + of(record.spec), 0)
    return {
      instances,
      vcpus,
      memoryMib,
      free: {
        instances: Math.max(0, instances - living.length),
        vcpus: Math.max(0, vcpus - sum((spec) => spec.resources.vcpu_count ?? DEFAULT_RESOURCES.vcpus)),
        memoryMib: Math.max(0, memoryMib - sum(memoryMibOf)),
      },
    }
  }

  async provision(input: ProvisionInput, signal: AbortSignal): Promise<Provisioned> {
    return await this.#inOrder(input.runtimeId, async () => {
      const layout = layoutOf(this.#options.dir, input.runtimeId)
      const known = readRecord(layout)
      if (known !== undefined) {
        if (!isSameRequest(known, input))
          throw new PylonError('conflict', `${input.runtimeId} exists and is another runtime; choose another id.`)
        if (!this.#isAlive(known) && !existsSync(join(layout.state, relativeToState(known.spec.paths, known.spec.paths.result_path)))) {
          await this.#launcher.start(layout, known)
        }
        return provisioned(known)
      }
      // What a crash left half made has never run.
      await removeTree(layout.dir)
      const record = await this.#admit(input)
      // What a failure may take away again: never a volume that was there before.
      const fresh = volumesOf(record.spec).filter((name) => !this.#volumes.exists(name))
      signal.throwIfAborted()
      try {
        for (const dir of [this.#options.dir, layout.dir, layout.state, layout.work]) ensurePrivateDir(dir)
        writeRecord(layout, record)
        await this.#launcher.start(layout, record)
      } catch (error) {
        await this.#remove(layout, record, fresh)
        throw error
      }
      return provisioned(record)
    })
  }

  async #admit(input: ProvisionInput): Promise<LocalRecord> {
    const params = paramsShape.safeParse(input.params ?? {})
    if (!params.success)
      throw new PylonError(
        'invalid_request',
        'The parameters of the local substrate are network (none or host) and isolation (required or any).',
      )
    buildRuntimePlan(input.spec)
    if (input.spec.entry_command === undefined) {
      throw new PylonError('spec_empty_field', 'entry_command must not be empty.', { details: { field: 'entry_command' } })
    }
    const isolated = (await this.#findBubblewrap()).path !== null
    if (params.data.isolation === 'required' && !isolated) {
      throw new PylonError('runtime_unsupported', 'Nothing isolates runtimes here; install bubblewrap, or use Incus.')
    }
    const network = params.data.network ?? this.#options.network?.byDefault ?? 'none'
    if (network === 'host' && isolated && this.#options.network?.allowHost !== true) {
      throw new PylonError('runtime_unsupported', 'Runtimes may not use the network of this machine here.')
    }
    const { free } = await this.capacity()
    if (free.instances === 0)
      throw new PylonError('overloaded', 'All places for local runtimes are taken; tear one down, or raise the limit.')
    const memoryMib = memoryMibOf(input.spec)
    if (memoryMib > free.memoryMib)
      throw new PylonError('overloaded', `The runtime asks for ${memoryMib} MiB and ${free.memoryMib} MiB are free.`)
    return {
      version: 1,
      runtime_id: input.runtimeId,
      owner_pubkey: input.ownerPubkey,
      spec: input.spec,
      protocol: input.protocol,
      timeout_secs: input.timeoutSecs ?? null,
      network,
      isolated,
      env: { ...input.env },
      ticket_key: newTicketKey(),
      mark: randomBytes(16).toString('hex'),
      process: null,
      ended: null,
    }
  }

  async readiness(handle: RuntimeHandle, signal: AbortSignal): Promise<Readiness> {
    signal.throwIfAborted()
    const { layout, record } = this.#open(handle)
    if (record.ended !== null) return { state: 'failed', message: record.ended }
    const alive = this.#isAlive(record)
    if (alive && (await this.#isOverDisk(layout, record))) return await this.#endForDisk(layout, record)
    const read = (path: string, maxBytes: number) =>
      readContainedText(layout.state, relativeToState(record.spec.paths, path), maxBytes)?.text
    const resultText = read(record.spec.paths.result_path, MAX_RESULT_BYTES)
    const boot = bootId() ?? undefined
    if (!alive && resultText === undefined) {
      // The machine has been restarted, or it never began: not the guest's failure.
      if (record.process === null || record.process.boot_id !== boot)
        return { state: 'stopped', message: 'the runtime does not run; recover it' }
    }
    const statusText = read(record.spec.paths.status_path, MAX_STATUS_BYTES)
    const readiness = judgeReadiness({ alive, bootId: boot, statusText, resultText, protocol: record.protocol })
    if (alive || resultText !== undefined) return readiness
    const words = readContainedText(layout.dir, 'host.log', 500, 'end')?.text.trim() ?? ''
    return { ...readiness, message: words === '' ? readiness.message : `${readiness.message}: ${words}` }
  }

  async processWelcome(handle: RuntimeHandle): Promise<Json> {
    this.#open(handle)
    return { processed: false, reason: 'local runtime receives welcome through relay flow' }
  }

  async teardown(handle: RuntimeHandle, options: { readonly keepVolume: boolean }): Promise<Json> {
    const { runtime_id, volumes } = handleOf(handle)
    return await this.#inOrder(runtime_id, async () => {
      const layout = layoutOf(this.#options.dir, runtime_id)
      const record = readRecord(layout)
      const keep = record === undefined ? options.keepVolume : keepsVolume(record.spec.policies, options.keepVolume)
      await this.#remove(layout, record, keep ? [] : volumes)
      return { teardown: 'deleted', runtime_id, volumes: keep ? 'kept' : 'deleted' }
    })
  }

  async exec(handle: RuntimeHandle, call: { command: string; timeoutMs: number; user?: string }): Promise<Execution> {
    const { layout, record } = this.#open(handle)
    if (call.user !== undefined) throw new PylonError('runtime_unsupported', 'A local runtime has one user; leave the user out.')
    if (record.ended !== null) throw new PylonError('runtime_failed', record.ended)
    const run = { ...(await this.#launcher.beside(layout, record, call.command)), timeoutMs: call.timeoutMs, maxBytes: MAX_EXEC_OUTPUT }
    return await runBounded(run, this.#options.clock)
  }

  async prompt(handle: RuntimeHandle, call: PromptCall, signal: AbortSignal): Promise<PromptResult> {
    const { layout, record } = this.#open(handle)
    if (record.protocol === null) throw new PylonError('runtime_unsupported', 'A one-shot run takes no prompts.')
    if (!this.#isAlive(record)) throw new PylonError('runtime_unreachable', 'The runtime does not run; try: pylon runtime recover.')
    // By descriptor: the path of the folder may be longer than a socket address can be.
    const dir = openSync(layout.state, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
    try {
      const socket = `/proc/self/fd/${dir}/${PROMPT_SOCKET}`
      if (lstatSync(socket, { throwIfNoEntry: false })?.isSocket() !== true) {
        throw new PylonError('runtime_unreachable', 'The runtime serves no prompts yet; wait until it is ready.')
      }
      const ticket = issueTicket(record.ticket_key, record.runtime_id, this.#options.clock.now())
      return await promptOverSocket(socket, ticket, call, signal)
    } finally {
      closeSync(dir)
    }
  }

  async logs(handle: RuntimeHandle, options: { readonly tailBytes: number }): Promise<string> {
    const { layout, record } = this.#open(handle)
    const path = relativeToState(record.spec.paths, record.spec.paths.guest_log_path)
    return readContainedText(layout.state, path, Math.min(options.tailBytes, OUTPUT_LIMITS.logBytes), 'end')?.text ?? ''
  }

  async collect(handle: RuntimeHandle, spec: RuntimeSpec): Promise<CollectedOutputs> {
    const { layout } = this.#open(handle)
    const outputs = await collectFromFolder(layout.state, spec)
    if (!existsSync(outputsDir(layout)) || !collects(spec.policies, outputs.result?.status ?? 'gone')) return outputs
    const more = await gatherFiles(layout.dir, 'outputs', (path) => wantsArtifact(spec, path), OUTPUT_LIMITS.artifacts)
    return {
      ...outputs,
      artifacts: [...outputs.artifacts, ...more.files],
      truncated: outputs.truncated || more.truncated,
      problems: [...outputs.problems, ...more.problems],
    }
  }

  async recover(handle: RuntimeHandle, signal: AbortSignal): Promise<void> {
    const { runtime_id } = handleOf(handle)
    await this.#inOrder(runtime_id, async () => {
      const { layout, record } = this.#open(handle)
      signal.throwIfAborted()
      await this.#stop(record)
      await this.#launcher.start(layout, record)
    })
  }

  async snapshot(handle: RuntimeHandle, name?: string): Promise<Snapshot> {
    const { runtime_id } = handleOf(handle)
    const volume = this.#volumeOf(handle)
    return await this.#inOrder(runtime_id, () => this.#volumes.snapshot(volume, name ?? this.#snapshotName()))
  }

  async listSnapshots(handle: RuntimeHandle): Promise<readonly Snapshot[]> {
    return this.#volumes.snapshots(this.#volumeOf(handle))
  }

  async deleteSnapshot(handle: RuntimeHandle, name: string): Promise<void> {
    await this.#volumes.removeSnapshot(this.#volumeOf(handle), name)
  }

  async restore(handle: RuntimeHandle, name: string | undefined, signal: AbortSignal): Promise<Snapshot> {
    const { runtime_id } = handleOf(handle)
    const volume = this.#volumeOf(handle)
    return await this.#inOrder(runtime_id, async () => {
      const snapshots = this.#volumes.snapshots(volume)
      const chosen = name === undefined ? snapshots[0] : snapshots.find((snapshot) => snapshot.name === name)
      if (chosen === undefined) throw new PylonError('runtime_failed', 'There is no such snapshot; make one with: pylon runtime snapshot.')
      const { layout, record } = this.#open(handle)
      signal.throwIfAborted()
      await this.#stop(record)
      try {
        await this.#volumes.restore(volume, chosen.name)
      } finally {
        await this.#launcher.start(layout, record)
      }
      return chosen
    })
  }

  async backupStatus(handle: RuntimeHandle): Promise<BackupState> {
    const volume = this.#volumeOf(handle)
    return {
      backupUnitKind: 'persistent_state_volume',
      backupTarget: `local/${volume}`,
      recoveryPointKind: 'volume_snapshot',
      snapshots: this.#volumes.snapshots(volume),
    }
  }

  async listOwned(): Promise<readonly { runtimeId: string; handle: RuntimeHandle }[]> {
    return this.#folders().map((runtimeId) => {
      const record = attempt(() => readRecord(layoutOf(this.#options.dir, runtimeId)))
      return { runtimeId, handle: toHandle({ runtime_id: runtimeId, volumes: record === undefined ? [] : volumesOf(record.spec) }) }
    })
  }

  // -- one runtime

  /** Whether its outermost process runs; finds it by its mark where a crash forgot it. */
  #isAlive(record: LocalRecord): boolean {
    if (record.process !== null && isSameProcess(record.process)) return true
    const [oldest] = findMarked(record.mark).sort((a, b) => Number(a.start_time) - Number(b.start_time) || a.pid - b.pid)
    if (oldest === undefined) return false
    record.process = oldest
    writeRecord(layoutOf(this.#options.dir, record.runtime_id), record)
    return true
  }

  async #stop(record: LocalRecord): Promise<void> {
    if (!(await endMarked(record.mark, this.#options.clock))) {
      throw new PylonError('runtime_failed', `Processes of ${record.runtime_id} do not end; look for them with ps and try again.`)
    }
  }

  async #remove(layout: LocalLayout, record: LocalRecord | undefined, volumes: readonly string[]): Promise<void> {
    if (record !== undefined) await this.#stop(record)
    await removeTree(layout.dir)
    this.#diskCheckedAt.delete(layout.dir)
    const inUse = new Set(this.#records().flatMap((other) => volumesOf(other.record.spec)))
    for (const name of volumes) if (!inUse.has(name)) await this.#volumes.remove(name)
  }

  async #isOverDisk(layout: LocalLayout, record: LocalRecord): Promise<boolean> {
    const now = this.#options.clock.now()
    if (now - (this.#diskCheckedAt.get(layout.dir) ?? Number.NEGATIVE_INFINITY) < DISK_CHECK_MS) return false
    this.#diskCheckedAt.set(layout.dir, now)
    const cap = sizeOf(record.spec)
    let bytes = await diskUsage(layout.dir, cap)
    for (const name of volumesOf(record.spec))
      if (bytes <= cap) bytes += await diskUsage(this.#volumes.ensure(name, record.owner_pubkey), cap - bytes)
    return bytes > cap
  }

  async #endForDisk(layout: LocalLayout, record: LocalRecord): Promise<Readiness> {
    await this.#stop(record)
    record.ended = 'the runtime took more disk than its root_disk_gib and was stopped'
    writeRecord(layout, record)
    return { state: 'failed', message: record.ended }
  }

  #open(handle: RuntimeHandle): { layout: LocalLayout; record: LocalRecord } {
    const layout = layoutOf(this.#options.dir, handleOf(handle).runtime_id)
    const record = readRecord(layout)
    if (record === undefined) throw new PylonError('runtime_gone', 'The runtime is no more; provision a new one.')
    return { layout, record }
  }

  #volumeOf(handle: RuntimeHandle): string {
    const [volume] = handleOf(handle).volumes
    if (volume === undefined) throw new PylonError('runtime_unsupported', 'The runtime has no persistent volume to snapshot.')
    return volume
  }

  #snapshotName(): string {
    return `auto-${new Date(this.#options.clock.now()).toISOString().toLowerCase().replace(/[:.]/g, '-')}`
  }

  #folders(): string[] {
    return existsSync(this.#options.dir) ? readdirSync(this.#options.dir).filter((name) => RUNTIME_ID.test(name)) : []
  }

  #records(): { runtimeId: string; record: LocalRecord }[] {
    return this.#folders().flatMap((runtimeId) => {
      const record = attempt(() => readRecord(layoutOf(this.#options.dir, runtimeId)))
      return record === undefined ? [] : [{ runtimeId, record }]
    })
  }

  #findBubblewrap(): Promise<Bubblewrap> {
    this.#bubblewrap ??= findBubblewrap(this.#options.bubblewrap)
    return this.#bubblewrap
  }

  #inOrder<T>(runtimeId: string, work: () => Promise<T>): Promise<T> {
    const result = (this.#queues.get(runtimeId) ?? Promise.resolve()).then(work)
    const tail = result
      .catch(() => undefined)
      .then(() => {
        if (this.#queues.get(runtimeId) === tail) this.#queues.delete(runtimeId)
      })
    this.#queues.set(runtimeId, tail)
    return result
  }
}

function provisioned(record: LocalRecord): Provisioned {
  return {
    handle: toHandle({ runtime_id: record.runtime_id, volumes: volumesOf(record.spec) }),
    runtimeClass: 'local',
    protocols: [...PROTOCOLS],
    metadata: { isolated: record.isolated, network: record.network },
  }
}

function toHandle(handle: LocalHandle): RuntimeHandle {
  return { runtime_id: handle.runtime_id, volumes: [...handle.volumes] }
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}
