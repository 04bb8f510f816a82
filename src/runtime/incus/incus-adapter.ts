/** Runtimes as Incus instances: the supported substrate, behind the interface that all adapters share. */
import { z } from 'zod'
import { rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import { type Json, parseJson } from '../../base/json.ts'
import { randomHex, systemRandom } from '../../base/random.ts'
import type { Scope } from '../../base/scope.ts'
import type { AdapterProbe, Capacity, PersistentVolume, PromptCall, RuntimeAdapter, RuntimeHandle, Snapshot } from '../adapter.ts'
import { PROMPT_SOCKET } from '../contract/paths.ts'
import { decodePromptError, MAX_ANSWER_BYTES, PROTOCOLS, type PromptResult } from '../contract/prompt.ts'
import { issueTicket } from '../contract/ticket.ts'
import { promptBody, readPromptAnswer } from '../prompt-client.ts'
import { createIncusClient, type IncusClient } from './client.ts'
import { execInGuest } from './guest-exec.ts'
import { readGuestFile } from './guest-files.ts'
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
} from './incus-volumes.ts'
import { getInstance, type Instance, instanceStatus, listInstances, parse, setInstanceState } from './instances.ts'
import { LAUNCH_PATH, PROGRAM_PATH } from './launch-files.ts'
import {
  decodeHandle,
  handleFromLabel,
  type IncusHandle,
  instanceName,
  LABEL_HANDLE,
  LABEL_KEPT,
  LABEL_NAME,
  LABEL_NODE,
  LABEL_OWNER,
  LABEL_RUNTIME,
  LABEL_SOURCE,
  runtimeIdOf,
} from './names.ts'
import { observe } from './observe.ts'
import { createPlacement } from './placement.ts'
import { probeIncus } from './probe.ts'
import { proveSizes } from './proof.ts'
import { assertPossible, provisionInstance } from './provision.ts'
import { recoverInstance } from './recovery.ts'
import { removeRuntime } from './removal.ts'
import { inRuntimeTerms } from './runtime-errors.ts'
import type { IncusSettings } from './settings.ts'

const MAX_EXEC_BYTES = 256 * 1024
/** What the client inside gets beyond the turn's own time. */
const PROMPT_GRACE_MS = 15_000

const resourcesShape = z.looseObject({
  cpu: z.looseObject({ total: z.int() }),
  memory: z.looseObject({ total: z.number() }),
})

/** @param options.client for tests; default: one to settings.endpoint */
export function createIncusAdapter(settings: IncusSettings, options: { scope: Scope; client?: IncusClient }): RuntimeAdapter {
  const { scope } = options
  const { clock } = scope
  const incus = options.client ?? createIncusClient({ endpoint: settings.endpoint, project: settings.project, scope })
  const context = { incus, settings, placement: createPlacement(incus, settings) }

  /** @throws runtime_gone, so that a missing volume or file is not taken for one */
  async function present(handle: IncusHandle): Promise<string> {
    const status = await instanceStatus(incus, handle.instance)
    if (status === undefined) throw gone(handle)
    return status
  }

  async function restore(handle: IncusHandle, name: string | undefined, signal: AbortSignal): Promise<Snapshot> {
    const volume = persistentVolume(handle)
    const snapshots = await listVolumeSnapshots(incus, volume)
    const chosen = name === undefined ? snapshots[0] : snapshots.find((snapshot) => snapshot.name === name)
    if (chosen === undefined) {
      const what = name === undefined ? 'no snapshot' : `no snapshot ${name}`
      throw new PylonError('runtime_failed', `The volume ${volume.name} has ${what}: nothing was restored.`)
    }
    const status = await instanceStatus(incus, handle.instance)
    // A volume in use is not restored.
    if (status !== undefined && status !== 'Stopped') await setInstanceState(incus, handle.instance, 'stop', { force: true, signal })
    await restoreVolume(incus, volume, chosen.name)
    if (status !== undefined) await setInstanceState(incus, handle.instance, 'start', { signal })
    return chosen
  }

  async function prompt(handle: IncusHandle, call: PromptCall, signal: AbortSignal): Promise<PromptResult> {
    if (handle.protocol === null) throw new PylonError('runtime_unsupported', 'A one-shot run takes no prompts.')
    const launch = await readGuestFile(incus, handle.instance, LAUNCH_PATH, 1024 * 1024)
    const key = (parseJson(launch?.data.toString('utf8') ?? '') as { prompt?: { ticket_key?: unknown } } | undefined)?.prompt?.ticket_key
    if (typeof key !== 'string') {
      await present(handle)
      throw new PylonError('runtime_failed', 'The runtime has lost its launch file: recover it by a new provision.')
    }
    const ran = await execInGuest(incus, handle.instance, {
      command: ['sh', PROGRAM_PATH, '--prompt', `${handle.state_dir}/${PROMPT_SOCKET}`],
      stdin: JSON.stringify(promptBody(call)),
      // Short-lived, for this runtime alone, and seen only inside of it.
      env: { PYLON_TICKET: issueTicket(key, handle.runtime_id, clock.now()) },
      timeoutMs: call.timeoutMs + PROMPT_GRACE_MS,
      maxBytes: MAX_ANSWER_BYTES,
      signal,
    })
    return readAnswer(ran, handle)
  }

  async function listOwned(): Promise<readonly { runtimeId: string; handle: RuntimeHandle }[]> {
    const [instances, volumes] = await Promise.all([listInstances(incus), listVolumes(incus, settings.pool)])
    const owned = new Map<string, IncusHandle | null>()
    for (const { config, name, status } of instances) {
      const handle = config[LABEL_NODE] === settings.nodeId ? handleFromLabel(config[LABEL_HANDLE]) : undefined
      if (handle !== undefined) owned.set(handle.runtime_id, handle)
      // Its member is down: there, and whose it is cannot be read.
      else if (status === 'Error' && config[LABEL_NODE] === undefined) owned.set(runtimeIdOf(name), null)
    }
    // A volume without its instance: a provision that was cut short. One that somebody keeps is not an orphan.
    for (const { name, config, location } of volumes) {
      const runtimeId = config[LABEL_RUNTIME]
      if (config[LABEL_NODE] !== settings.nodeId || config[LABEL_KEPT] === 'true' || runtimeId === undefined || owned.has(runtimeId))
        continue
      owned.set(runtimeId, volumeOnly(runtimeId, settings.pool, name, location))
    }
    return [...owned].map(([runtimeId, handle]) => ({ runtimeId, handle: handle === null ? null : asJson(handle) }))
  }

  /** Those that carry this node's label and are no runtime's working space. */
  async function persistentVolumes(): Promise<readonly (PersistentVolume & { readonly location: string })[]> {
    const ours = (await listVolumes(incus, settings.pool)).filter(
      ({ config }) => config[LABEL_NODE] === settings.nodeId && (config[LABEL_SOURCE] !== undefined || config[LABEL_KEPT] === 'true'),
    )
    return ours.map(({ name: id, config, used_by, location }) => {
      const [runtimeId, name] = [config[LABEL_RUNTIME], config[LABEL_NAME]]
      return {
        id,
        ownerPubkey: config[LABEL_OWNER],
        name: name === runtimeId ? undefined : name,
        runtimeId,
        inUse: used_by.length > 0,
        location,
      }
    })
  }

  async function deletePersistent(id: string): Promise<void> {
    const found = (await persistentVolumes()).find((volume) => volume.id === id)
    if (found === undefined) return
    const target = found.location === 'none' || found.location === '' ? {} : { target: found.location }
    await deleteVolume(incus, { pool: settings.pool, name: id, ...target })
  }

  async function capacity(): Promise<Capacity> {
    const [resources, instances] = await Promise.all([incus.call('GET', '/1.0/resources'), listInstances(incus)])
    const machine = parse(resourcesShape, resources.metadata, '/1.0/resources')
    const ours = instances.filter(({ config }) => config[LABEL_NODE] === settings.nodeId)
    const used = {
      instances: ours.length,
      vcpus: sum(ours, (config) => Number(config['limits.cpu'])),
      memoryMib: sum(ours, (config) => Number.parseInt(config['limits.memory'] ?? '', 10)),
    }
    const vcpus = settings.limits?.vcpus ?? machine.cpu.total
    const memoryMib = settings.limits?.memoryMib ?? Math.floor(machine.memory.total / 2 ** 20)
    const total = {
      instances: settings.limits?.instances ?? Math.max(1, Math.floor(memoryMib / settings.defaults.memoryMib)),
      vcpus,
      memoryMib,
    }
    const left = (key: 'instances' | 'vcpus' | 'memoryMib') => Math.max(0, total[key] - used[key])
    return { ...total, free: { instances: left('instances'), vcpus: left('vcpus'), memoryMib: left('memoryMib') } }
  }

  return {
    provider: 'incus',
    probe: (): Promise<AdapterProbe> => probeIncus(incus, settings),
    capacity: () => inRuntimeTerms(capacity()),
    assertPossible: (input) => inRuntimeTerms(assertPossible(context, input)),
    async provision(input, signal) {
      // The same one asked for again waits for the first.
      const provisioning = scope.once(`provision ${input.runtimeId}`, () => provisionInstance(context, input, signal))
      const handle = await inRuntimeTerms(provisioning)
      return {
        handle: asJson(handle),
        ...(handle.target === undefined ? {} : { region: handle.target }),
        protocols: handle.guest === 'full' ? PROTOCOLS : [],
        metadata: {
          instance: handle.instance,
          type: handle.type,
          project: settings.project,
          ...(handle.target === undefined ? {} : { target: handle.target }),
          ...(handle.address === undefined ? {} : { address: handle.address }),
          ...(handle.ports.length === 0 ? {} : { ports: handle.ports }),
        },
      }
    },
    async readiness(raw) {
      const handle = decodeHandle(raw)
      const seen = await inRuntimeTerms(observe(incus, handle))
      if (seen === undefined) throw gone(handle)
      return seen
    },
    processWelcome: async () => ({ processed: false, reason: 'incus runtime does not require explicit welcome hook' }),
    async teardown(raw, { keepVolume }) {
      const handle = decodeHandle(raw)
      const keep = keepVolume ? handle.volumes.filter(({ persistent }) => persistent).map(({ name }) => name) : []
      return inRuntimeTerms(
        (async () => {
          for (const name of keep) await labelVolume(incus, volumeOf(handle, name), { [LABEL_KEPT]: 'true' })
          const removed = await removeRuntime(incus, handle, { keep })
          return { teardown: 'deleted', instance: handle.instance, volumes: [...removed.volumes], kept_volumes: [...removed.kept] }
        })(),
      )
    },
    exec: (raw, call) => inRuntimeTerms(run(incus, decodeHandle(raw), call)),
    prompt: (raw, call, signal) => inRuntimeTerms(prompt(decodeHandle(raw), call, signal)),
    logs: (raw, { tailBytes }) => inRuntimeTerms(tailOfLog(incus, decodeHandle(raw), tailBytes)),
    async collect(raw, spec) {
      const handle = decodeHandle(raw)
      await inRuntimeTerms(present(handle))
      return inRuntimeTerms(collectOutputs(incus, handle.instance, spec))
    },
    recover: (raw, signal) => inRuntimeTerms(recoverInstance(context, decodeHandle(raw), signal)),
    async snapshot(raw, name, { withinQuota = false } = {}) {
      const volume = persistentVolume(decodeHandle(raw))
      const createdAt = clock.now()
      const chosen = checkedName(
        name ??
          `snap-${rfc3339(createdAt)
            .replace(/[-:]|\.\d+/g, '')
            .toLowerCase()}-${randomHex(systemRandom, 2)}`,
      )
      await inRuntimeTerms((withinQuota ? snapshotWithinQuota : snapshotVolume)(incus, volume, chosen))
      return { name: chosen, createdAt }
    },
    listSnapshots: (raw) => inRuntimeTerms(listVolumeSnapshots(incus, persistentVolume(decodeHandle(raw)))),
    deleteSnapshot: (raw, name) => inRuntimeTerms(deleteVolumeSnapshot(incus, persistentVolume(decodeHandle(raw)), checkedName(name))),
    restore: (raw, name, signal) => inRuntimeTerms(restore(decodeHandle(raw), name, signal)),
    async backupStatus(raw) {
      const volume = persistentVolume(decodeHandle(raw))
      // Undefined says that they could not be asked for.
      const snapshots = await listVolumeSnapshots(incus, volume).catch(() => undefined)
      return {
        backupUnitKind: 'persistent_state_volume',
        backupTarget: `${volume.pool}/${volume.name}`,
        recoveryPointKind: 'volume_snapshot',
        snapshots,
      }
    },
    listVolumes: () => inRuntimeTerms(persistentVolumes()),
    deleteVolume: (id) => inRuntimeTerms(deletePersistent(id)),
    proveSizes: () => inRuntimeTerms(proveSizes(context)),
    listOwned: () => inRuntimeTerms(listOwned()),
    close: async () => incus.close(),
  }
}

function gone(handle: IncusHandle): PylonError {
  return new PylonError('runtime_gone', `The instance ${handle.instance} is no more: provision a new one.`)
}

/** A handle is JSON by its schema; absent fields are left out on the way. */
function asJson(handle: IncusHandle): Json {
  return JSON.parse(JSON.stringify(handle)) as Json
}

const volumeOf = (handle: IncusHandle, name: string): Volume => ({
  pool: handle.pool,
  name,
  ...(handle.target === undefined ? {} : { target: handle.target }),
})

/** The first: that is the unit of backup. @throws runtime_unsupported without one */
function persistentVolume(handle: IncusHandle): Volume {
  const found = handle.volumes.find(({ persistent }) => persistent)
  if (found !== undefined) return volumeOf(handle, found.name)
  throw new PylonError('runtime_unsupported', 'This runtime has no persistent volume, so there is nothing to snapshot or restore.')
}

function volumeOnly(runtimeId: string, pool: string, name: string, location: string): IncusHandle {
  return {
    v: 1,
    runtime_id: runtimeId,
    instance: instanceName(runtimeId),
    type: 'container',
    pool,
    ...(location === 'none' || location === '' ? {} : { target: location }),
    volumes: [{ name, persistent: false }],
    protocol: null,
    guest: 'shell',
    state_dir: '',
    status_path: '',
    result_path: '',
    guest_log_path: '',
    ports: [],
  }
}

function checkedName(name: string): string {
  if (/^[a-z0-9][a-z0-9._-]{0,62}$/i.test(name) && !name.includes('..')) return name
  throw new PylonError('invalid_request', `${JSON.stringify(name)} cannot name a snapshot: use letters, digits, dot, dash and underscore.`)
}

async function run(incus: IncusClient, handle: IncusHandle, call: { command: string; timeoutMs: number; user?: string }) {
  if (call.user !== undefined && !/^\d+$/.test(call.user) && call.user !== 'root') {
    throw new PylonError('runtime_unsupported', 'Here the user of a command is root or a number.')
  }
  const uid = call.user === undefined || call.user === 'root' ? 0 : Number(call.user)
  return execInGuest(incus, handle.instance, {
    command: ['sh', '-c', call.command],
    uid,
    gid: uid,
    env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: uid === 0 ? '/root' : '/tmp' },
    timeoutMs: call.timeoutMs,
    maxBytes: MAX_EXEC_BYTES,
  })
}

async function tailOfLog(incus: IncusClient, handle: IncusHandle, tailBytes: number): Promise<string> {
  const file = await readGuestFile(incus, handle.instance, handle.guest_log_path, 16 * 1024 * 1024)
  if (file === undefined && (await getInstance(incus, handle.instance)) === undefined) throw gone(handle)
  return file?.data.subarray(Math.max(0, file.data.length - tailBytes)).toString('utf8') ?? ''
}

/** The client inside prints the body of the answer, whatever its status. */
function readAnswer(ran: { exitCode: number; stdout: string; stderr: string }, handle: IncusHandle): PromptResult {
  if (ran.exitCode !== 0) {
    throw new PylonError('runtime_unreachable', `The prompt endpoint of ${handle.instance} does not answer: ${ran.stderr.slice(0, 500)}`)
  }
  const isError = decodePromptError(parseJson(ran.stdout)) !== undefined
  return readPromptAnswer(isError ? 500 : 200, ran.stdout, handle.instance)
}

function sum(instances: readonly Instance[], value: (config: Instance['config']) => number): number {
  return instances.reduce((total, { config }) => total + (value(config) || 0), 0)
}
