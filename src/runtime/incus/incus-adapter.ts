/** Runtimes as Incus instances: the supported substrate, behind the interface that all adapters share. */
import { z } from 'zod'
import { rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import { asJson, type Json, parseJson } from '../../base/json.ts'
import { randomHex } from '../../base/random.ts'
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
import { PROMPT_SOCKET, WELCOMES_DIR, WELCOMES_DONE } from '../contract/paths.ts'
import { decodePromptError, MAX_ANSWER_BYTES, PROTOCOLS, type PromptResult } from '../contract/prompt.ts'
import type { RuntimeSpec } from '../contract/spec.ts'
import { issueTicket } from '../contract/ticket.ts'
import { promptBody, readPromptAnswer } from '../prompt-client.ts'
import { MAX_DONE_BYTES, welcomeAnswer, welcomeFile } from '../welcomes.ts'
import { IncusClient } from './client.ts'
import { execInGuest } from './guest-exec.ts'
import { GuestFiles, type ReadFile } from './guest-files.ts'
import { collectOutputs } from './guest-outputs.ts'
import {
  deleteVolume,
  deleteVolumeSnapshot,
  labelVolume,
  listVolumeSnapshots,
  listVolumes,
  restoreVolume,
  snapshotVolume,
  snapshotWithinQuota,
  type Volume,
  type VolumeState,
  volumeOf,
} from './incus-volumes.ts'
import { getInstance, type Instance, instanceStatus, listInstances, parse, setDevice, setInstanceState } from './instances.ts'
import { LAUNCH_PATH, PROGRAM_PATH, programFiles } from './launch-files.ts'
import {
  decodeHandle,
  handleFromLabel,
  type IncusHandle,
  LABEL_HANDLE,
  LABEL_KEPT,
  LABEL_NAME,
  LABEL_NODE,
  LABEL_OWNER,
  LABEL_RUNTIME,
  LABEL_SOURCE,
  newHandle,
  runtimeIdOf,
} from './names.ts'
import { observe } from './observe.ts'
import { Placement } from './placement.ts'
import { probeIncus } from './probe.ts'
import { proveSizes } from './proof.ts'
import { assertPossible, provisionInstance } from './provision.ts'
import { removeRuntime } from './removal.ts'
import { inRuntimeTerms } from './runtime-errors.ts'
import type { IncusSettings } from './settings.ts'

const MAX_EXEC_BYTES = 256 * 1024
const MAX_LOG_BYTES = 16 * 1024 * 1024
/** What the client inside gets beyond the turn's own time. */
const PROMPT_GRACE_MS = 15_000

const resourcesShape = z.looseObject({
  cpu: z.looseObject({ total: z.int() }),
  memory: z.looseObject({ total: z.number() }),
})

export class IncusAdapter implements RuntimeAdapter {
  readonly provider = 'incus'
  /** An Incus elsewhere has no way to a socket of this host. */
  readonly carriesDoor: boolean
  readonly #settings: IncusSettings
  readonly #scope: Scope
  readonly #incus: IncusClient
  readonly #placement: Placement

  /** @param scope of this adapter alone: its connections end with it, runtimes go on */
  constructor(settings: IncusSettings, scope: Scope) {
    this.#settings = settings
    this.carriesDoor = 'socketPath' in settings.endpoint
    this.#scope = scope
    this.#incus = new IncusClient({ endpoint: settings.endpoint, project: settings.project, scope })
    this.#placement = new Placement(this.#incus, settings)
  }

  probe(): Promise<AdapterProbe> {
    return probeIncus(this.#incus, this.#settings)
  }

  capacity(): Promise<Capacity> {
    return inRuntimeTerms(async () => {
      const { limits, defaults } = this.#settings
      const [resources, instances] = await Promise.all([this.#incus.call('GET', '/1.0/resources'), listInstances(this.#incus)])
      const machine = parse(resourcesShape, resources.metadata, '/1.0/resources')
      const ours = instances.filter(({ config }) => this.#isOurs(config))
      const vcpus = limits?.vcpus ?? machine.cpu.total
      const memoryMib = limits?.memoryMib ?? Math.floor(machine.memory.total / 2 ** 20)
      const count = limits?.instances ?? Math.max(1, Math.floor(memoryMib / defaults.memoryMib))
      const free = {
        instances: Math.max(0, count - ours.length),
        vcpus: Math.max(0, vcpus - sum(ours, 'limits.cpu')),
        memoryMib: Math.max(0, memoryMib - sum(ours, 'limits.memory')),
      }
      return { instances: count, vcpus, memoryMib, free }
    })
  }

  assertPossible(input: ProvisionInput): Promise<void> {
    return inRuntimeTerms(() => assertPossible(this.#context, input))
  }

  async provision(input: ProvisionInput, signal: AbortSignal): Promise<Provisioned> {
    // The same one asked for again waits for the first.
    const provisioning = () => this.#scope.once(`provision ${input.runtimeId}`, () => provisionInstance(this.#context, input, signal))
    const handle = await inRuntimeTerms(provisioning)
    const { instance, type, target, address, ports } = handle
    return {
      handle: asJson(handle),
      ...(target === undefined ? {} : { region: target }),
      protocols: handle.guest === 'full' ? PROTOCOLS : [],
      metadata: asJson({ instance, type, project: this.#settings.project, target, address, ...(ports.length === 0 ? {} : { ports }) }),
    }
  }

  readiness(raw: RuntimeHandle): Promise<Readiness> {
    const handle = decodeHandle(raw)
    return inRuntimeTerms(async () => present(handle, await observe(this.#incus, handle)))
  }

  processWelcome(raw: RuntimeHandle, welcome: Welcome): Promise<Json> {
    const { instance, has_session: hasSession, state_dir: stateDir } = decodeHandle(raw)
    return inRuntimeTerms(async () => {
      if (!hasSession) return { processed: false, reason: 'incus runtime does not require explicit welcome hook' }
      const { name, text } = welcomeFile(welcome)
      const files = new GuestFiles(this.#incus, instance)
      const dir = `${stateDir}/${WELCOMES_DIR}`
      await files.write({ path: dir, type: 'directory', mode: 0o700 })
      await files.write({ path: `${dir}/${name}`, mode: 0o600, data: text })
      const readDone = async () => (await files.read(`${stateDir}/${WELCOMES_DONE}`, MAX_DONE_BYTES))?.data.toString('utf8')
      return await welcomeAnswer(this.#scope, welcome, name, readDone)
    })
  }

  teardown(raw: RuntimeHandle, { keepVolume }: { readonly keepVolume: boolean }): Promise<Json> {
    const handle = decodeHandle(raw)
    const keep = keepVolume ? handle.volumes.filter(({ persistent }) => persistent).map(({ name }) => name) : []
    return inRuntimeTerms(async () => {
      for (const name of keep) await labelVolume(this.#incus, volumeOf(handle, name), { [LABEL_KEPT]: 'true' })
      const volumes = await removeRuntime(this.#incus, handle, keep)
      return { teardown: 'deleted', instance: handle.instance, volumes, kept_volumes: keep }
    })
  }

  exec(
    raw: RuntimeHandle,
    { command, timeoutMs, user = 'root' }: { command: string; timeoutMs: number; user?: string },
  ): Promise<Execution> {
    const { instance } = decodeHandle(raw)
    return inRuntimeTerms(async () => {
      if (!/^\d+$/.test(user) && user !== 'root')
        throw new PylonError('runtime_unsupported', 'Here the user of a command is root or a number.')
      const uid = user === 'root' ? 0 : Number(user)
      return await execInGuest(this.#incus, instance, {
        command: ['sh', '-c', command],
        uid,
        env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: uid === 0 ? '/root' : '/tmp' },
        timeoutMs,
        maxBytes: MAX_EXEC_BYTES,
      })
    })
  }

  prompt(raw: RuntimeHandle, call: PromptCall, signal: AbortSignal): Promise<PromptResult> {
    const handle = decodeHandle(raw)
    return inRuntimeTerms(async () => {
      if (handle.protocol === null) throw new PylonError('runtime_unsupported', 'A one-shot run takes no prompts.')
      const launch = (await this.#read(handle, LAUNCH_PATH, 1024 * 1024))?.data.toString('utf8') ?? ''
      const key = (parseJson(launch) as { prompt?: { ticket_key?: unknown } } | undefined)?.prompt?.ticket_key
      if (typeof key !== 'string')
        throw new PylonError('runtime_failed', 'The runtime has lost its launch file: recover it by a new provision.')
      const ran = await execInGuest(this.#incus, handle.instance, {
        command: ['sh', PROGRAM_PATH, '--prompt', `${handle.state_dir}/${PROMPT_SOCKET}`],
        stdin: JSON.stringify(promptBody(call)),
        // Short-lived, for this runtime alone, and seen only inside of it.
        env: { PYLON_TICKET: issueTicket(key, handle.runtime_id, this.#scope.clock.now()) },
        timeoutMs: call.timeoutMs + PROMPT_GRACE_MS,
        maxBytes: MAX_ANSWER_BYTES,
        signal,
      })
      return readAnswer(ran, handle)
    })
  }

  logs(raw: RuntimeHandle, { tailBytes }: { readonly tailBytes: number }): Promise<string> {
    const handle = decodeHandle(raw)
    return inRuntimeTerms(async () => {
      const file = await this.#read(handle, handle.guest_log_path, MAX_LOG_BYTES)
      return file?.data.subarray(Math.max(0, file.data.length - tailBytes)).toString('utf8') ?? ''
    })
  }

  collect(raw: RuntimeHandle, spec: RuntimeSpec): Promise<CollectedOutputs> {
    const handle = decodeHandle(raw)
    return inRuntimeTerms(async () => {
      present(handle, await instanceStatus(this.#incus, handle.instance))
      return await collectOutputs(this.#incus, handle.instance, spec)
    })
  }

  /** On the executable of the node's own version. */
  recover(raw: RuntimeHandle, signal: AbortSignal): Promise<void> {
    const handle = decodeHandle(raw)
    const { hostDir } = this.#settings.guest
    return inRuntimeTerms(async () => {
      const { devices } = present(handle, await getInstance(this.#incus, handle.instance))
      if (handle.guest === 'full' && devices['pylon']?.['source'] !== hostDir) {
        // An older version may be gone from the host, and its device would then keep the instance from starting.
        const device = { ...devices['pylon'], type: 'disk', source: hostDir, path: hostDir, readonly: 'true' }
        await setDevice(this.#incus, handle.instance, { pylon: device })
        const files = new GuestFiles(this.#incus, handle.instance)
        for (const file of programFiles(this.#settings.guest)) await files.write(file)
      }
      const status = await instanceStatus(this.#incus, handle.instance)
      await setInstanceState(this.#incus, handle.instance, status === 'Running' ? 'restart' : 'start', { force: true, signal })
    })
  }

  async snapshot(raw: RuntimeHandle, name?: string, { withinQuota = false } = {}): Promise<Snapshot> {
    const volume = persistentVolume(decodeHandle(raw))
    const createdAt = this.#scope.clock.now()
    const stamp = rfc3339(createdAt)
      .replace(/[-:]|\.\d+/g, '')
      .toLowerCase()
    const chosen = checkedName(name ?? `snap-${stamp}-${randomHex(this.#scope.random, 2)}`)
    await inRuntimeTerms(() => (withinQuota ? snapshotWithinQuota : snapshotVolume)(this.#incus, volume, chosen))
    return { name: chosen, createdAt }
  }

  async listSnapshots(raw: RuntimeHandle): Promise<readonly Snapshot[]> {
    return await inRuntimeTerms(() => listVolumeSnapshots(this.#incus, persistentVolume(decodeHandle(raw))))
  }

  async deleteSnapshot(raw: RuntimeHandle, name: string): Promise<void> {
    await inRuntimeTerms(() => deleteVolumeSnapshot(this.#incus, persistentVolume(decodeHandle(raw)), checkedName(name)))
  }

  restore(raw: RuntimeHandle, name: string | undefined, signal: AbortSignal): Promise<Snapshot> {
    const { instance, ...handle } = decodeHandle(raw)
    return inRuntimeTerms(async () => {
      const volume = persistentVolume({ instance, ...handle })
      const snapshots = await listVolumeSnapshots(this.#incus, volume)
      const chosen = name === undefined ? snapshots[0] : snapshots.find((snapshot) => snapshot.name === name)
      if (chosen === undefined) {
        const what = name === undefined ? 'no snapshot' : `no snapshot ${name}`
        throw new PylonError('runtime_failed', `The volume ${volume.name} has ${what}: nothing was restored.`)
      }
      const status = await instanceStatus(this.#incus, instance)
      // A volume in use is not restored.
      if (status !== undefined && status !== 'Stopped') await setInstanceState(this.#incus, instance, 'stop', { force: true, signal })
      await restoreVolume(this.#incus, volume, chosen.name)
      if (status !== undefined) await setInstanceState(this.#incus, instance, 'start', { signal })
      return chosen
    })
  }

  async backupStatus(raw: RuntimeHandle): Promise<BackupState> {
    const volume = persistentVolume(decodeHandle(raw))
    return {
      backupUnitKind: 'persistent_state_volume',
      backupTarget: `${volume.pool}/${volume.name}`,
      recoveryPointKind: 'volume_snapshot',
      // Undefined says that they could not be asked for.
      snapshots: await listVolumeSnapshots(this.#incus, volume).catch(() => undefined),
    }
  }

  /** Those that are no runtime's working space. */
  listVolumes(): Promise<readonly PersistentVolume[]> {
    return inRuntimeTerms(async () => {
      return (await this.#persistentVolumes()).map(({ name: id, config, used_by }) => {
        const [runtimeId, name] = [config[LABEL_RUNTIME], config[LABEL_NAME]]
        const named = name === runtimeId ? undefined : name
        return { id, ownerPubkey: config[LABEL_OWNER], name: named, runtimeId, inUse: used_by.length > 0 }
      })
    })
  }

  deleteVolume(id: string): Promise<void> {
    return inRuntimeTerms(async () => {
      const found = (await this.#persistentVolumes()).find(({ name }) => name === id)
      if (found !== undefined) await deleteVolume(this.#incus, { pool: this.#settings.pool, name: id, target: memberOf(found) })
    })
  }

  proveSizes(): Promise<{ readonly reason: string; readonly nextStep: string } | undefined> {
    return inRuntimeTerms(() => proveSizes(this.#context))
  }

  listOwned(): Promise<readonly { runtimeId: string; handle: RuntimeHandle }[]> {
    return inRuntimeTerms(async () => {
      const [instances, volumes] = await Promise.all([listInstances(this.#incus), listVolumes(this.#incus, this.#settings.pool)])
      const owned = new Map<string, IncusHandle | null>()
      for (const { config, name, status } of instances) {
        const handle = this.#isOurs(config) ? handleFromLabel(config[LABEL_HANDLE]) : undefined
        if (handle !== undefined) owned.set(handle.runtime_id, handle)
        // Its member is down: there, and whose it is cannot be read.
        else if (status === 'Error' && config[LABEL_NODE] === undefined) owned.set(runtimeIdOf(name), null)
      }
      // A volume without its instance: a provision that was cut short. One that somebody keeps is not an orphan.
      for (const volume of volumes) {
        const runtime_id = volume.config[LABEL_RUNTIME]
        if (!this.#isOurs(volume.config) || volume.config[LABEL_KEPT] === 'true' || runtime_id === undefined || owned.has(runtime_id))
          continue
        const volumeOnly = { pool: this.#settings.pool, target: memberOf(volume), volumes: [{ name: volume.name, persistent: false }] }
        owned.set(runtime_id, newHandle({ runtime_id, ...volumeOnly }))
      }
      return [...owned].map(([runtimeId, handle]) => ({ runtimeId, handle: asJson(handle) }))
    })
  }

  get #context() {
    return { incus: this.#incus, settings: this.#settings, placement: this.#placement }
  }

  #isOurs(config: Readonly<Record<string, string>>): boolean {
    return config[LABEL_NODE] === this.#settings.nodeId
  }

  async #persistentVolumes(): Promise<VolumeState[]> {
    const isPersistent = ({ config }: VolumeState) => config[LABEL_SOURCE] !== undefined || config[LABEL_KEPT] === 'true'
    return (await listVolumes(this.#incus, this.#settings.pool)).filter((volume) => this.#isOurs(volume.config) && isPersistent(volume))
  }

  /** Undefined where there is no such file. @throws runtime_gone where there is no instance either */
  async #read(handle: IncusHandle, path: string, maxBytes: number): Promise<ReadFile | undefined> {
    const file = await new GuestFiles(this.#incus, handle.instance).read(path, maxBytes)
    if (file === undefined) present(handle, await instanceStatus(this.#incus, handle.instance))
    return file
  }
}

/** @throws runtime_gone, so that a missing volume or file is not taken for one */
function present<T>({ instance }: IncusHandle, found: T | undefined): T {
  if (found !== undefined) return found
  throw new PylonError('runtime_gone', `The instance ${instance} is no more: provision a new one.`)
}

/** The first: that is the unit of backup. @throws runtime_unsupported without one */
function persistentVolume(handle: IncusHandle): Volume {
  const found = handle.volumes.find(({ persistent }) => persistent)
  if (found !== undefined) return volumeOf(handle, found.name)
  throw new PylonError('runtime_unsupported', 'This runtime has no persistent volume, so there is nothing to snapshot or restore.')
}

const memberOf = ({ location }: VolumeState) => (location === 'none' || location === '' ? undefined : location)

function checkedName(name: string): string {
  if (/^[a-z0-9][a-z0-9._-]{0,62}$/i.test(name) && !name.includes('..')) return name
  throw new PylonError('invalid_request', `${JSON.stringify(name)} cannot name a snapshot: use letters, digits, dot, dash and underscore.`)
}

/** The client inside prints the body of the answer, whatever its status. */
function readAnswer(ran: { exitCode: number; stdout: string; stderr: string }, handle: IncusHandle): PromptResult {
  if (ran.exitCode !== 0) {
    throw new PylonError('runtime_unreachable', `The prompt endpoint of ${handle.instance} does not answer: ${ran.stderr.slice(0, 500)}`)
  }
  const isError = decodePromptError(parseJson(ran.stdout)) !== undefined
  return readPromptAnswer(isError ? 500 : 200, ran.stdout, handle.instance)
}

/** Of a limit that is a number, or begins with one. */
function sum(instances: readonly Instance[], limit: string): number {
  return instances.reduce((total, { config }) => total + (Number.parseInt(config[limit] ?? '', 10) || 0), 0)
}
