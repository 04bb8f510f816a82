/** Runtimes as Fly Machines: a volume and a machine each, both gone after teardown, and no volume without its machine. */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import type { Clock } from '../../base/clock.ts'
import type { Dialer } from '../../base/dialer.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type { AdapterProbe, Capacity, Provisioned, ProvisionInput, Readiness, RuntimeAdapter, RuntimeHandle } from '../adapter.ts'
import { assertAgentRequest } from '../agent-request.ts'
import { PROTOCOLS } from '../contract/prompt.ts'
import { shapeError } from '../contract/spec.ts'
import type { Journal } from '../journal.ts'
import { Once } from '../remote-http.ts'
import { exists, type FlyApp, type Machine, MachinesApi } from './machines-api.ts'

export interface FlySettings extends FlyApp {
  readonly region: string
  readonly image: string
  /** Names this node on what it makes, so that two nodes of one app leave each other's alone. */
  readonly nodeId: string
  /** Given to every machine beside the request's own: model keys. */
  readonly env?: Readonly<Record<string, string>>
  /** Machines at most; default 10. */
  readonly maxInstances?: number
  readonly defaults?: { readonly vcpus: number; readonly memoryMib: number; readonly diskGib: number }
}

const DEFAULTS = { vcpus: 1, memoryMib: 256, diskGib: 1 }
const DEFAULT_MAX_INSTANCES = 10
const STATE_DIR = '/app/state'
const NODE_LABEL = 'pylon_node'
const RUNTIME_LABEL = 'pylon_runtime_id'

const handleShape = z.strictObject({
  runtime_id: z.string(),
  machine_id: z.string(),
  volume_id: z.string(),
  app_name: z.string(),
  protocol: z.enum(PROTOCOLS).nullable(),
})
type FlyHandle = z.output<typeof handleShape>

const paramsShape = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'must be a machine name')
    .optional(),
})

/** @throws config_invalid for settings that no machine can be made with */
export function createFlyAdapter(
  settings: FlySettings,
  deps: { readonly dialer: Dialer; readonly journal: Journal; readonly clock?: Clock },
): RuntimeAdapter {
  for (const [key, value] of [
    ['image', settings.image],
    ['token_file', settings.tokenFile],
  ] as const) {
    if (value.trim() === '') throw new PylonError('config_invalid', `runtimes.fly.${key} is empty: set it, or empty runtimes.fly.app_name.`)
  }
  const fly = new Fly(new MachinesApi(settings, deps.dialer, deps.clock), settings, deps.journal)
  const provisioning = new Once<Provisioned>()

  return {
    provider: 'fly',
    probe: () => fly.probe(),
    capacity: () => fly.capacity(),
    assertPossible: async (input) => void decodeRequest(input),
    provision: (input, signal) => provisioning.do(input.runtimeId, () => fly.provision(input, signal)),
    readiness: (raw, signal) => fly.readiness(decodeHandle(raw), signal),
    processWelcome: async () => ({ processed: false, reason: 'fly runtime does not require explicit welcome hook' }),
    teardown: (raw, { keepVolume }) => fly.teardown(decodeHandle(raw), keepVolume),
    recover: (raw, signal) => fly.recover(decodeHandle(raw), signal),
    listOwned: () => fly.listOwned(),
  }
}

function decodeHandle(raw: RuntimeHandle): FlyHandle {
  const parsed = handleShape.safeParse(raw)
  if (parsed.success) return parsed.data
  throw new PylonError('internal', 'This is no handle of a Fly runtime.')
}

/** @throws runtime_unsupported, spec_mount_refused, invalid_request */
function decodeRequest(input: ProvisionInput): z.output<typeof paramsShape> {
  assertAgentRequest('fly', input)
  const params = paramsShape.safeParse(input.params ?? {})
  if (!params.success) throw shapeError('The fly parameters', 'invalid_request', params.error)
  return params.data
}

class Fly {
  readonly #api: MachinesApi
  readonly #settings: FlySettings
  /** Provisions that are under way: a crash between volume and machine leaves a volume that only this tells from a kept one. */
  readonly #journal: Journal

  constructor(api: MachinesApi, settings: FlySettings, journal: Journal) {
    this.#api = api
    this.#settings = settings
    this.#journal = journal
  }

  async probe(): Promise<AdapterProbe> {
    try {
      await this.#api.machines()
      return { usable: true, isolated: true }
    } catch (error) {
      const nextStep = 'Write a token of `fly tokens create deploy` to runtimes.fly.token_file and check runtimes.fly.app_name.'
      return { usable: false, isolated: true, reason: messageOf(error), nextStep }
    }
  }

  async capacity(): Promise<Capacity> {
    const used = (await this.#api.machines()).filter((machine) => this.#isOurs(machine)).length
    const { vcpus, memoryMib } = { ...DEFAULTS, ...this.#settings.defaults }
    const instances = this.#settings.maxInstances ?? DEFAULT_MAX_INSTANCES
    const left = Math.max(0, instances - used)
    return {
      instances,
      vcpus: instances * vcpus,
      memoryMib: instances * memoryMib,
      free: { instances: left, vcpus: left * vcpus, memoryMib: left * memoryMib },
    }
  }

  async provision(input: ProvisionInput, signal: AbortSignal): Promise<Provisioned> {
    const { name } = decodeRequest(input)
    const existing = await this.#find(input.runtimeId, signal)
    if (existing.machine !== undefined) {
      const volumeId = existing.machine.config?.mounts?.[0]?.volume ?? existing.volumeId
      return this.#provisioned(input, existing.machine.id, volumeId ?? '')
    }
    if (existing.volumeId === undefined) this.#journal.put(input.runtimeId, { protocol: input.protocol })
    let volumeId = existing.volumeId
    try {
      volumeId ??= (await this.#api.createVolume(this.#volumeBody(input), signal)).id
      const machine = await this.#api.createMachine(this.#machineBody(input, volumeId, name), signal)
      this.#journal.delete(input.runtimeId)
      return this.#provisioned(input, machine.id, volumeId)
    } catch (error) {
      await this.#undo(input.runtimeId, existing.volumeId, error)
      throw error
    }
  }

  async readiness(handle: FlyHandle, signal: AbortSignal): Promise<Readiness> {
    try {
      let machine = await this.#api.machine(handle.machine_id, signal)
      if (machine.state === 'created' || machine.state === 'starting') {
        await this.#api.waitStarted(handle.machine_id, signal)
        machine = await this.#api.machine(handle.machine_id, signal)
      }
      return judge(machine)
    } catch (error) {
      if (error instanceof PylonError && error.code === 'runtime_unreachable') return { state: 'unreachable', message: error.message }
      throw error
    }
  }

  async recover(handle: FlyHandle, signal: AbortSignal): Promise<void> {
    const machine = await this.#api.machine(handle.machine_id, signal)
    await this.#api.begin(machine.state === 'started' ? 'restart' : 'start', handle.machine_id, signal)
  }

  async teardown(handle: FlyHandle, keepVolume: boolean): Promise<Json> {
    if (handle.machine_id !== '') await this.#api.removeMachine(handle.machine_id)
    if (!keepVolume && handle.volume_id !== '') await this.#api.removeVolume(handle.volume_id)
    this.#journal.delete(handle.runtime_id)
    return {
      teardown: 'deleted',
      machine_id: handle.machine_id,
      volume_id: handle.volume_id,
      app_name: handle.app_name,
      ...(keepVolume ? { kept_volume: handle.volume_id } : {}),
    }
  }

  /** Machines of this node, and volumes whose provision was cut short. */
  async listOwned(): Promise<readonly { runtimeId: string; handle: RuntimeHandle }[]> {
    const machines = (await this.#api.machines()).filter((machine) => this.#isOurs(machine))
    const owned = new Map(
      machines.map((machine) => {
        const runtimeId = machine.config?.metadata?.[RUNTIME_LABEL] ?? ''
        const protocol = PROTOCOLS.find((one) => one === machine.config?.env?.['PYLON_PROTOCOL']) ?? null
        return [runtimeId, this.#handle(runtimeId, machine.id, machine.config?.mounts?.[0]?.volume ?? '', protocol)]
      }),
    )
    const cutShort = this.#journal.entries().filter(({ runtimeId }) => !owned.has(runtimeId))
    const volumes = cutShort.length === 0 ? [] : await this.#api.volumes()
    for (const { runtimeId } of cutShort) {
      const volume = volumes.find((one) => one.name === this.#volumeName(runtimeId) && exists(one))
      if (volume !== undefined) owned.set(runtimeId, this.#handle(runtimeId, '', volume.id, null))
    }
    return [...owned].map(([runtimeId, handle]) => ({ runtimeId, handle }))
  }

  /** Removes what a failed provision made, also where the answer about it was lost; a volume that was there before stays. */
  async #undo(runtimeId: string, formerVolume: string | undefined, cause: unknown): Promise<void> {
    try {
      const { machine, volumeId } = await this.#find(runtimeId)
      if (machine !== undefined) await this.#api.removeMachine(machine.id)
      if (volumeId !== undefined && volumeId !== formerVolume) await this.#api.removeVolume(volumeId)
      this.#journal.delete(runtimeId)
    } catch (error) {
      throw new PylonError(
        'runtime_failed',
        `${messageOf(cause)} And what was made could not be removed (${messageOf(error)}): fly machine list, fly volumes list -a ${this.#settings.appName}`,
        { cause },
      )
    }
  }

  #volumeBody(input: ProvisionInput): Json {
    return {
      name: this.#volumeName(input.runtimeId),
      region: this.#settings.region,
      size_gb: input.spec.resources.root_disk_gib ?? this.#settings.defaults?.diskGib ?? DEFAULTS.diskGib,
    }
  }

  #machineBody(input: ProvisionInput, volumeId: string, name: string | undefined): Json {
    const { resources, entry_command } = input.spec
    return {
      name: name ?? `agent-${suffixOf(input.runtimeId)}`,
      region: this.#settings.region,
      config: {
        image: this.#settings.image,
        env: {
          ...this.#settings.env,
          ...input.env,
          STATE_DIR,
          PYLON_RUNTIME_ID: input.runtimeId,
          PYLON_OWNER_PUBKEY: input.ownerPubkey,
          ...(input.protocol === null ? {} : { PYLON_PROTOCOL: input.protocol }),
          ...(entry_command === undefined ? {} : { PYLON_ENTRY_COMMAND: entry_command }),
        },
        guest: {
          cpu_kind: 'shared',
          cpus: resources.vcpu_count ?? this.#settings.defaults?.vcpus ?? DEFAULTS.vcpus,
          memory_mb: resources.memory_mib ?? this.#settings.defaults?.memoryMib ?? DEFAULTS.memoryMib,
        },
        mounts: [{ volume: volumeId, path: STATE_DIR }],
        metadata: { [NODE_LABEL]: this.#settings.nodeId, [RUNTIME_LABEL]: input.runtimeId },
        restart: { policy: { never: 'no', on_failure: 'on-failure', always: 'always' }[input.spec.policies.restart_policy] },
      },
    }
  }

  #provisioned(input: ProvisionInput, machineId: string, volumeId: string): Provisioned {
    const { appName, region } = this.#settings
    return {
      handle: this.#handle(input.runtimeId, machineId, volumeId, input.protocol),
      region,
      protocols: input.protocol === null ? [] : [...PROTOCOLS],
      metadata: { machine_id: machineId, volume_id: volumeId, app_name: appName, region },
    }
  }

  #handle(runtimeId: string, machineId: string, volumeId: string, protocol: FlyHandle['protocol']): FlyHandle {
    return { runtime_id: runtimeId, machine_id: machineId, volume_id: volumeId, app_name: this.#settings.appName, protocol }
  }

  async #find(runtimeId: string, signal?: AbortSignal): Promise<{ machine?: Machine; volumeId?: string }> {
    const machine = (await this.#api.machines(signal)).find(
      (one) => this.#isOurs(one) && one.config?.metadata?.[RUNTIME_LABEL] === runtimeId && exists(one),
    )
    const name = this.#volumeName(runtimeId)
    const volume = (await this.#api.volumes(signal)).find((one) => one.name === name && exists(one))
    return { ...(machine === undefined ? {} : { machine }), ...(volume === undefined ? {} : { volumeId: volume.id }) }
  }

  #isOurs(machine: Machine): boolean {
    return machine.config?.metadata?.[NODE_LABEL] === this.#settings.nodeId && exists(machine)
  }

  /** Fly's volumes have no labels: the name says whose. At most 30 of a-z 0-9 _ */
  #volumeName(runtimeId: string): string {
    const node = createHash('sha256').update(this.#settings.nodeId).digest('hex').slice(0, 7)
    return `agent_${suffixOf(runtimeId)}_${node}`
  }
}

function judge(machine: Machine): Readiness {
  switch (machine.state) {
    case 'started': {
      const failing = machine.checks?.find(({ status }) => status !== 'passing')
      if (failing !== undefined) return { state: 'starting', message: `the check ${failing.name ?? ''} is ${failing.status}` }
      return { state: 'ready', message: 'the machine is started' }
    }
    case 'stopping':
    case 'stopped':
    case 'suspended':
      return { state: 'stopped', message: `the machine is ${machine.state}` }
    case 'failed':
      return { state: 'failed', message: 'Fly says that the machine failed' }
    default:
      return { state: 'starting', message: `the machine is ${machine.state ?? 'in no known state'}` }
  }
}

function suffixOf(runtimeId: string): string {
  return /[0-9a-f]{16}$/.exec(runtimeId)?.[0] ?? createHash('sha256').update(runtimeId).digest('hex').slice(0, 16)
}
