/** Runtimes as child processes of this machine: the embedded default, shut in by bubblewrap where there is any. */
import { closeSync, existsSync, rmSync } from 'node:fs'
import { availableParallelism, totalmem } from 'node:os'
import { dirname, join } from 'node:path'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import { ensurePrivateDir, writeFileAtomic } from '../../base/files.ts'
import type { Json } from '../../base/json.ts'
import { runProgram } from '../../base/processes.ts'
import type { Scope } from '../../base/scope.ts'
import type {
  AdapterProbe,
  BackupState,
  Capacity,
  CollectedOutputs,
  Execution,
  PersistentVolume,
  PromptCall,
  Provisioned,
  ProvisionInput,
  Readiness,
  RuntimeAdapter,
  RuntimeHandle,
  Snapshot,
  Welcome,
} from '../adapter.ts'
import { diskUsage, readContainedText } from '../contained-files.ts'
import { LAUNCH_FILE, PROMPT_SOCKET, WELCOMES_DIR, WELCOMES_DONE } from '../contract/paths.ts'
import { PROTOCOLS, type PromptResult } from '../contract/prompt.ts'
import type { RuntimeSpec } from '../contract/spec.ts'
import { issueTicket } from '../contract/ticket.ts'
import { OUTPUT_LIMITS, relativeToState } from '../outputs.ts'
import { promptOverSocket } from '../prompt-client.ts'
import { keepsVolume } from '../retention.ts'
import { MAX_DONE_BYTES, welcomeAnswer, welcomeFile } from '../welcomes.ts'
import { admit, type NetworkPolicy } from './admission.ts'
import { type Bubblewrap, findBubblewrap } from './bubblewrap.ts'
import { findGroupHome, type GroupHome, quellGroup, removeGroup, withoutGroups } from './cgroups.ts'
import { DEFAULT_RESOURCES, type GuestProgram, memoryMibOf, sizeOf } from './enclosure.ts'
import { LocalLauncher } from './launcher.ts'
import { LocalInstances } from './local-instances.ts'
import { LocalVolumes, removeTree } from './local-volumes.ts'
import { endMarked } from './marked-processes.ts'
import { volumesOf } from './mounts.ts'
import { collectLocal, DiskWatch, judgeLocal } from './observation.ts'
import { openSocket } from './prompt-socket.ts'
import {
  handleOf,
  isSameRequest,
  type LocalHandle,
  type LocalLayout,
  type LocalRecord,
  layoutOf,
  readRecord,
  writeRecord,
} from './record.ts'

const MAX_EXEC_OUTPUT = 1024 * 1024

export interface LocalOptions {
  /** Holds `<runtime id>/` and `volumes/`. */
  readonly dir: string
  /** Of this adapter alone: owns what it has under way; runtimes go on without it. */
  readonly scope: Scope
  /** This program in its guest role. */
  readonly guest: GuestProgram
  /** The program to enclose with: looked for on PATH where undefined, not used where null. */
  readonly bubblewrap?: string | null
  readonly maxInstances?: number
  readonly network?: NetworkPolicy
  /** Host folders below which a read_only_snapshot may lie. */
  readonly snapshotRoots?: readonly string[]
  readonly maxSnapshotBytes?: number
}

export class LocalAdapter implements RuntimeAdapter {
  readonly provider = 'local' as const
  readonly carriesDoor = true
  readonly #options: LocalOptions
  readonly #volumes: LocalVolumes
  readonly #instances: LocalInstances
  readonly #disk: DiskWatch
  readonly #launcher: LocalLauncher
  readonly #starting = new Map<string, RuntimeSpec>()
  readonly #groupHome: GroupHome | undefined
  #bubblewrap: Promise<Bubblewrap> | undefined

  constructor(options: LocalOptions) {
    this.#options = options
    this.#instances = new LocalInstances(options.dir, options.scope)
    this.#volumes = new LocalVolumes(join(options.dir, 'volumes'), options.maxSnapshotBytes ?? 4 * 1024 ** 3)
    this.#disk = new DiskWatch(options.scope, this.#volumes)
    this.#groupHome = findGroupHome()
    this.#launcher = new LocalLauncher({
      groupHome: this.#groupHome,
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
    if (found.path === null) return { usable: true, isolated: false, network: 'host', reason: found.reason, nextStep: found.nextStep }
    const network = this.#options.network?.byDefault ?? 'none'
    return { usable: true, isolated: true, network, ...(this.#groupHome === undefined ? withoutGroups() : {}) }
  }

  async capacity(): Promise<Capacity> {
    return this.#capacity()
  }

  #capacity(): Capacity {
    const vcpus = availableParallelism()
    const memoryMib = Math.floor(totalmem() / 1024 ** 2)
    const instances = this.#options.maxInstances ?? 8
    const living = this.#instances.living().filter((record) => !this.#starting.has(record.runtime_id))
    const specs = [...living.map(({ spec }) => spec), ...this.#starting.values()]
    const sum = (of: (spec: RuntimeSpec) => number) => specs.reduce((total, spec) => total + of(spec), 0)
    return {
      instances,
      vcpus,
      memoryMib,
      free: {
        instances: Math.max(0, instances - specs.length),
        vcpus: Math.max(0, vcpus - sum((spec) => spec.resources.vcpu_count ?? DEFAULT_RESOURCES.vcpus)),
        memoryMib: Math.max(0, memoryMib - sum(memoryMibOf)),
      },
    }
  }

  async assertPossible(input: ProvisionInput): Promise<void> {
    this.#admit(input, (await this.#findBubblewrap()).path !== null)
  }

  #admit(input: ProvisionInput, isolated: boolean): LocalRecord {
    return admit(input, { isolated, network: this.#options.network, free: this.#capacity().free })
  }

  async provision(input: ProvisionInput, signal: AbortSignal): Promise<Provisioned> {
    return await this.#instances.inOrder('provision', input.runtimeId, async () => {
      const layout = layoutOf(this.#options.dir, input.runtimeId)
      const known = readRecord(layout)
      if (known !== undefined) {
        if (!isSameRequest(known, input))
          throw new PylonError('conflict', `${input.runtimeId} exists and is another runtime; choose another id.`)
        if (
          !this.#instances.isAlive(known) &&
          !existsSync(join(layout.state, relativeToState(known.spec.paths, known.spec.paths.result_path)))
        ) {
          await this.#launcher.start(layout, known)
        }
        return provisioned(known)
      }
      // What a crash left half made has never run.
      await removeTree(layout.dir)
      const isolated = (await this.#findBubblewrap()).path !== null
      // From this look to the place that is taken nothing else runs.
      const record = this.#admit(input, isolated)
      // What a failure may take away again: never a volume that was there before.
      const fresh = volumesOf(record.spec).filter((name) => !this.#volumes.exists(name))
      // Its place is taken from here on, before it has a process to be counted by.
      this.#starting.set(input.runtimeId, record.spec)
      try {
        signal.throwIfAborted()
        for (const dir of [this.#options.dir, layout.dir, layout.state, layout.work]) ensurePrivateDir(dir)
        writeRecord(layout, record)
        await this.#launcher.start(layout, record)
        const user = { runtimeId: input.runtimeId, name: record.spec.identity.instance_name }
        for (const volume of volumesOf(record.spec)) this.#volumes.noteUser(volume, user)
      } catch (error) {
        await this.#remove(layout, record, fresh)
        throw error
      } finally {
        this.#starting.delete(input.runtimeId)
      }
      return provisioned(record)
    })
  }

  async readiness(handle: RuntimeHandle, signal: AbortSignal): Promise<Readiness> {
    signal.throwIfAborted()
    const { layout, record } = this.#instances.open(handle)
    if (record.ended !== null) return { state: 'failed', message: record.ended, byGuest: true }
    const alive = this.#instances.isAlive(record)
    if (alive && (await this.#disk.isOver(layout, record))) return await this.#endForDisk(layout, record)
    const readiness = judgeLocal(layout, record, alive)
    if (readiness.status !== undefined) this.#forgetSecrets(layout, record)
    return readiness
  }

  /** What a guest that speaks has read: its launch file, and of a run, which never starts again, the environment too. */
  #forgetSecrets(layout: LocalLayout, record: LocalRecord): void {
    rmSync(join(layout.boot, LAUNCH_FILE), { force: true })
    if (record.protocol !== null || Object.keys(record.env).length === 0) return
    record.env = {}
    writeRecord(layout, record)
  }

  async processWelcome(handle: RuntimeHandle, welcome: Welcome): Promise<Json> {
    const { layout, record } = this.#instances.open(handle)
    const socket = record.session?.door_socket ?? undefined
    if (socket === undefined) return { processed: false, reason: 'local runtime receives welcome through relay flow' }
    const { name, text } = welcomeFile(welcome)
    // The guest only reads there.
    const dir = join(dirname(socket), WELCOMES_DIR)
    ensurePrivateDir(dir)
    writeFileAtomic(join(dir, name), text)
    const readDone = () => readContainedText(layout.state, WELCOMES_DONE, MAX_DONE_BYTES)?.text
    return await welcomeAnswer(this.#options.scope, welcome, name, readDone)
  }

  async teardown(handle: RuntimeHandle, options: { readonly keepVolume: boolean }): Promise<Json> {
    const { runtime_id, volumes } = handleOf(handle)
    return await this.#instances.inOrder('teardown', runtime_id, async () => {
      const layout = layoutOf(this.#options.dir, runtime_id)
      const record = readRecord(layout)
      const keep = record === undefined ? options.keepVolume : keepsVolume(record.spec.policies, options.keepVolume)
      await this.#remove(layout, record, keep ? [] : volumes)
      return { teardown: 'deleted', runtime_id, volumes: keep ? 'kept' : 'deleted' }
    })
  }

  async exec(handle: RuntimeHandle, call: { command: string; timeoutMs: number; user?: string }): Promise<Execution> {
    const { layout, record } = this.#instances.open(handle)
    if (call.user !== undefined) throw new PylonError('runtime_unsupported', 'A local runtime has one user; leave the user out.')
    if (record.ended !== null) throw new PylonError('runtime_failed', record.ended)
    const run = { ...(await this.#launcher.beside(layout, record, call.command)), timeoutMs: call.timeoutMs, maxBytes: MAX_EXEC_OUTPUT }
    try {
      return await runProgram(run, this.#options.scope.clock)
    } catch (error) {
      if (isPylonError(error)) throw error
      throw new PylonError('runtime_failed', `The command does not start: ${messageOf(error)}.`, { cause: error })
    }
  }

  async prompt(handle: RuntimeHandle, call: PromptCall, signal: AbortSignal): Promise<PromptResult> {
    const { layout, record } = this.#instances.open(handle)
    if (record.protocol === null) throw new PylonError('runtime_unsupported', 'A one-shot run takes no prompts.')
    if (!this.#instances.isAlive(record))
      throw new PylonError('runtime_unreachable', 'The runtime does not run; try: pylon runtime recover.')
    const socket = openSocket(join(layout.state, PROMPT_SOCKET))
    if (socket === undefined) throw new PylonError('runtime_unreachable', 'The runtime serves no prompts yet; wait until it is ready.')
    try {
      const ticket = issueTicket(record.ticket_key, record.runtime_id, this.#options.scope.clock.now())
      return await promptOverSocket(`/proc/self/fd/${socket}`, ticket, call, signal)
    } finally {
      closeSync(socket)
    }
  }

  async logs(handle: RuntimeHandle, options: { readonly tailBytes: number }): Promise<string> {
    const { layout, record } = this.#instances.open(handle)
    const path = relativeToState(record.spec.paths, record.spec.paths.guest_log_path)
    return readContainedText(layout.state, path, Math.min(options.tailBytes, OUTPUT_LIMITS.logBytes), 'end')?.text ?? ''
  }

  async collect(handle: RuntimeHandle, spec: RuntimeSpec): Promise<CollectedOutputs> {
    const { layout } = this.#instances.open(handle)
    return await collectLocal(layout, spec)
  }

  async recover(handle: RuntimeHandle, signal: AbortSignal): Promise<void> {
    const { runtime_id } = handleOf(handle)
    await this.#instances.inOrder('recover', runtime_id, async () => {
      const { layout, record } = this.#instances.open(handle)
      signal.throwIfAborted()
      await this.#stop(record)
      await this.#launcher.start(layout, record)
    })
  }

  async snapshot(handle: RuntimeHandle, name?: string, { withinQuota = false } = {}): Promise<Snapshot> {
    const { runtime_id } = handleOf(handle)
    const volume = this.#volumeOf(handle)
    return await this.#instances.inOrder('snapshot', runtime_id, async () => {
      if (withinQuota) await this.#assertRoomForCopy(handle, volume)
      return await this.#volumes.snapshot(volume, name ?? this.#snapshotName())
    })
  }

  /** A snapshot is a copy, and counts like all else that the runtime keeps. @throws overloaded */
  async #assertRoomForCopy(handle: RuntimeHandle, volume: string): Promise<void> {
    const { layout, record } = this.#instances.open(handle)
    const cap = sizeOf(record.spec)
    const copy = await diskUsage(this.#volumes.ensure(volume, record.owner_pubkey), cap)
    if ((await this.#disk.usage(layout, record, cap)) + copy <= cap) return
    throw new PylonError('overloaded', 'No room for another snapshot: with it the runtime would take more disk than its root_disk_gib.')
  }

  async listVolumes(): Promise<readonly PersistentVolume[]> {
    const inUse = new Set(this.#instances.records().flatMap(({ spec }) => volumesOf(spec)))
    return this.#volumes.list().map(({ id, owner, user: { runtimeId, name } }) => {
      return { id, ownerPubkey: owner, name: name === runtimeId ? undefined : name, runtimeId, inUse: inUse.has(id) }
    })
  }

  async deleteVolume(id: string): Promise<void> {
    if (this.#instances.records().some(({ spec }) => volumesOf(spec).includes(id)))
      throw new PylonError('runtime_failed', `A runtime has the volume ${id}: tear it down first.`)
    await this.#volumes.remove(id)
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
    return await this.#instances.inOrder('restore', runtime_id, async () => {
      const snapshots = this.#volumes.snapshots(volume)
      const chosen = name === undefined ? snapshots[0] : snapshots.find((snapshot) => snapshot.name === name)
      if (chosen === undefined) throw new PylonError('runtime_failed', 'There is no such snapshot; make one with: pylon runtime snapshot.')
      const { layout, record } = this.#instances.open(handle)
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
    return this.#instances.ids().map((runtimeId) => {
      const record = this.#instances.recordOf(runtimeId)
      return { runtimeId, handle: toHandle({ runtime_id: runtimeId, volumes: record === undefined ? [] : volumesOf(record.spec) }) }
    })
  }

  async #stop(record: LocalRecord): Promise<void> {
    // An agent is asked to end first; a run that is ended has had its time.
    const graceMs = record.protocol === null ? 0 : undefined
    if (!(await endMarked(record.mark, this.#options.scope.clock, graceMs, () => quellGroup(record.group_dirs)))) {
      throw new PylonError('runtime_failed', `Processes of ${record.runtime_id} do not end; look for them with ps and try again.`)
    }
  }

  async #remove(layout: LocalLayout, record: LocalRecord | undefined, volumes: readonly string[]): Promise<void> {
    if (record !== undefined) await this.#stop(record)
    await removeGroup(record?.group_dirs ?? [], this.#options.scope.clock)
    await removeTree(layout.dir)
    this.#disk.forget(layout)
    const inUse = new Set(this.#instances.records().flatMap((other) => volumesOf(other.spec)))
    for (const name of volumes) if (!inUse.has(name)) await this.#volumes.remove(name)
  }

  async #endForDisk(layout: LocalLayout, record: LocalRecord): Promise<Readiness> {
    await this.#stop(record)
    record.ended = 'the runtime took more disk than its root_disk_gib and was stopped'
    writeRecord(layout, record)
    return { state: 'failed', message: record.ended, byGuest: true }
  }

  #volumeOf(handle: RuntimeHandle): string {
    const [volume] = handleOf(handle).volumes
    if (volume === undefined) throw new PylonError('runtime_unsupported', 'The runtime has no persistent volume to snapshot.')
    return volume
  }

  #snapshotName(): string {
    return `auto-${new Date(this.#options.scope.clock.now()).toISOString().toLowerCase().replace(/[:.]/g, '-')}`
  }

  #findBubblewrap(): Promise<Bubblewrap> {
    this.#bubblewrap ??= findBubblewrap(this.#options.bubblewrap)
    return this.#bubblewrap
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
