/** Runtimes as Fly Machines: a volume and a machine each, both gone after teardown, and no volume without its machine. */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { type Clock, systemClock } from '../base/clock.ts'
import type { Dialer } from '../base/dialer.ts'
import { messageOf, PylonError } from '../base/errors.ts'
import type { Json } from '../base/json.ts'
import type { AdapterProbe, Capacity, Provisioned, ProvisionInput, Readiness, RuntimeAdapter, RuntimeHandle } from './adapter.ts'
import { PROTOCOLS } from './contract/prompt.ts'
import { shapeError } from './contract/spec.ts'
import type { Journal } from './journal.ts'
import { createRemote, Once, type Remote, type RemoteAnswer, tokenFromFile } from './remote-http.ts'

export interface FlySettings {
  /** Default https://api.machines.dev */
  readonly apiBaseUrl?: string
  readonly appName: string
  readonly region: string
  readonly image: string
  /** Holds the API token. */
  readonly tokenFile: string
  /** Names this node on what it makes, so that two nodes of one app leave each other's alone. */
  readonly nodeId: string
  /** Given to every machine beside the request's own: model keys. */
  readonly env?: Readonly<Record<string, string>>
  /** Machines at most; default 10. */
  readonly maxInstances?: number
  readonly defaults?: { readonly vcpus: number; readonly memoryMib: number; readonly diskGib: number }
}

const DEFAULT_API = 'https://api.machines.dev'
const DEFAULTS = { vcpus: 1, memoryMib: 256, diskGib: 1 }
const DEFAULT_MAX_INSTANCES = 10
const STATE_DIR = '/app/state'
const NODE_LABEL = 'pylon_node'
const RUNTIME_LABEL = 'pylon_runtime_id'
const CALL_MS = 30_000
/** The wait endpoint holds the answer back so long at most. */
const WAIT_SECS = 10
/** A volume is let go of some time after its machine. */
const VOLUME_ATTEMPTS = 8
const VOLUME_PAUSE_MS = 1000
const GONE_STATES = new Set(['destroyed', 'destroying', 'pending_destroy', 'replaced'])

const handleShape = z.strictObject({
  runtime_id: z.string(),
  machine_id: z.string(),
  volume_id: z.string(),
  app_name: z.string(),
  protocol: z.enum(PROTOCOLS).nullable(),
})
type FlyHandle = z.output<typeof handleShape>

// Whatever else Fly says of them is not ours to depend on.
const volumeShape = z.looseObject({ id: z.string(), name: z.string().optional(), state: z.string().optional() })
const machineShape = z.looseObject({
  id: z.string(),
  name: z.string().optional(),
  state: z.string().optional(),
  config: z
    .looseObject({
      metadata: z.record(z.string(), z.string()).optional(),
      env: z.record(z.string(), z.string()).optional(),
      mounts: z.array(z.looseObject({ volume: z.string().optional() })).optional(),
    })
    .optional(),
  checks: z.array(z.looseObject({ name: z.string().optional(), status: z.string() })).optional(),
})
type Machine = z.output<typeof machineShape>

const paramsShape = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'must be a machine name')
    .optional(),
})

export function createFlyAdapter(
  settings: FlySettings,
  deps: { readonly dialer: Dialer; readonly journal: Journal; readonly clock?: Clock },
): RuntimeAdapter {
  const clock = deps.clock ?? systemClock
  const apiBaseUrl = settings.apiBaseUrl ?? DEFAULT_API
  // The owner configured it.
  deps.dialer.allow(apiBaseUrl)
  const api = createRemote({
    dialer: deps.dialer,
    baseUrl: `${apiBaseUrl.replace(/\/+$/, '')}/v1/apps/${encodeURIComponent(settings.appName)}`,
    name: 'Fly Machines API',
    nextStep: `Check runtimes.fly.api_base_url and the network: curl -i ${apiBaseUrl.replace(/\/+$/, '')}/`,
    token: () => tokenFromFile(settings.tokenFile, 'Fly (runtimes.fly.token_file)'),
  })
  const fly = new Fly(api, settings, deps.journal, clock)
  const provisioning = new Once<Provisioned>()

  return {
    provider: 'fly',
    probe: () => fly.probe(),
    capacity: () => fly.capacity(),
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

class Fly {
  readonly #api: Remote
  readonly #settings: FlySettings
  /** Provisions that are under way: a crash between volume and machine leaves a volume that only this tells from a kept one. */
  readonly #journal: Journal
  readonly #clock: Clock

  constructor(api: Remote, settings: FlySettings, journal: Journal, clock: Clock) {
    this.#api = api
    this.#settings = settings
    this.#journal = journal
    this.#clock = clock
  }

  async probe(): Promise<AdapterProbe> {
    try {
      await this.#machines()
      return { usable: true, isolated: true }
    } catch (error) {
      const nextStep = 'Write a token of `fly tokens create deploy` to runtimes.fly.token_file and check runtimes.fly.app_name.'
      return { usable: false, isolated: true, reason: messageOf(error), nextStep }
    }
  }

  async capacity(): Promise<Capacity> {
    const used = (await this.#machines()).filter((machine) => this.#isOurs(machine)).length
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
    const params = paramsShape.safeParse(input.params ?? {})
    if (!params.success) throw shapeError('The fly parameters', 'invalid_request', params.error)
    const existing = await this.#find(input.runtimeId, signal)
    if (existing.machine !== undefined) {
      const volumeId = existing.machine.config?.mounts?.[0]?.volume ?? existing.volumeId
      return this.#provisioned(input, existing.machine.id, volumeId ?? '')
    }
    if (existing.volumeId === undefined) this.#journal.put(input.runtimeId, { protocol: input.protocol })
    let volumeId = existing.volumeId
    try {
      volumeId ??= await this.#createVolume(input, signal)
      const machine = await this.#createMachine(input, volumeId, params.data.name, signal)
      this.#journal.delete(input.runtimeId)
      return this.#provisioned(input, machine.id, volumeId)
    } catch (error) {
      await this.#undo(input.runtimeId, existing.volumeId, error)
      throw error
    }
  }

  async readiness(handle: FlyHandle, signal: AbortSignal): Promise<Readiness> {
    try {
      let machine = await this.#machine(handle, signal)
      if (machine.state === 'created' || machine.state === 'starting') {
        // Held back by Fly until it runs, at most so long: no polling of ours.
        await this.#api.send({
          method: 'GET',
          path: `/machines/${handle.machine_id}/wait?state=started&timeout=${WAIT_SECS}`,
          timeoutMs: (WAIT_SECS + 10) * 1000,
          signal,
        })
        machine = await this.#machine(handle, signal)
      }
      return judge(machine)
    } catch (error) {
      if (error instanceof PylonError && error.code === 'runtime_unreachable') return { state: 'unreachable', message: error.message }
      throw error
    }
  }

  async recover(handle: FlyHandle, signal: AbortSignal): Promise<void> {
    const machine = await this.#machine(handle, signal)
    const verb = machine.state === 'started' ? 'restart' : 'start'
    const call = { method: 'POST', path: `/machines/${handle.machine_id}/${verb}`, timeoutMs: CALL_MS, signal } as const
    await this.#api.ask(`${verb} machine`, call)
  }

  async teardown(handle: FlyHandle, keepVolume: boolean): Promise<Json> {
    if (handle.machine_id !== '') await this.#removeMachine(handle.machine_id)
    if (!keepVolume && handle.volume_id !== '') await this.#removeVolume(handle.volume_id)
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
    const machines = (await this.#machines()).filter((machine) => this.#isOurs(machine))
    const owned = new Map(
      machines.map((machine) => {
        const runtimeId = machine.config?.metadata?.[RUNTIME_LABEL] ?? ''
        const protocol = PROTOCOLS.find((one) => one === machine.config?.env?.['PYLON_PROTOCOL']) ?? null
        return [runtimeId, this.#handle(runtimeId, machine.id, machine.config?.mounts?.[0]?.volume ?? '', protocol)]
      }),
    )
    const cutShort = this.#journal.entries().filter(({ runtimeId }) => !owned.has(runtimeId))
    const volumes = cutShort.length === 0 ? [] : await this.#volumes()
    for (const { runtimeId } of cutShort) {
      const volume = volumes.find((one) => one.name === this.#volumeName(runtimeId) && !GONE_STATES.has(one.state ?? ''))
      if (volume !== undefined) owned.set(runtimeId, this.#handle(runtimeId, '', volume.id, null))
    }
    return [...owned].map(([runtimeId, handle]) => ({ runtimeId, handle }))
  }

  /** Removes what a failed provision made, also where the answer about it was lost; a volume that was there before stays. */
  async #undo(runtimeId: string, formerVolume: string | undefined, cause: unknown): Promise<void> {
    try {
      const { machine, volumeId } = await this.#find(runtimeId)
      if (machine !== undefined) await this.#removeMachine(machine.id)
      if (volumeId !== undefined && volumeId !== formerVolume) await this.#removeVolume(volumeId)
      this.#journal.delete(runtimeId)
    } catch (error) {
      throw new PylonError(
        'runtime_failed',
        `${messageOf(cause)} And what was made could not be removed (${messageOf(error)}): fly machine list, fly volumes list -a ${this.#settings.appName}`,
        { cause },
      )
    }
  }

  async #createVolume(input: ProvisionInput, signal: AbortSignal): Promise<string> {
    const answer = await this.#api.ask('create volume', {
      method: 'POST',
      path: '/volumes',
      body: {
        name: this.#volumeName(input.runtimeId),
        region: this.#settings.region,
        size_gb: input.spec.resources.root_disk_gib ?? this.#settings.defaults?.diskGib ?? DEFAULTS.diskGib,
      },
      timeoutMs: CALL_MS,
      signal,
    })
    return read(volumeShape, answer, 'a volume').id
  }

  async #createMachine(input: ProvisionInput, volumeId: string, name: string | undefined, signal: AbortSignal): Promise<Machine> {
    const { resources, entry_command } = input.spec
    const answer = await this.#api.ask('create machine', {
      method: 'POST',
      path: '/machines',
      body: {
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
      },
      timeoutMs: CALL_MS,
      signal,
    })
    return read(machineShape, answer, 'a machine')
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
    const machine = (await this.#machines(signal)).find(
      (one) => this.#isOurs(one) && one.config?.metadata?.[RUNTIME_LABEL] === runtimeId && !GONE_STATES.has(one.state ?? ''),
    )
    const name = this.#volumeName(runtimeId)
    const volume = (await this.#volumes(signal)).find((one) => one.name === name && !GONE_STATES.has(one.state ?? ''))
    return { ...(machine === undefined ? {} : { machine }), ...(volume === undefined ? {} : { volumeId: volume.id }) }
  }

  async #machines(signal?: AbortSignal): Promise<Machine[]> {
    const call = { method: 'GET', path: '/machines', timeoutMs: CALL_MS, maxBytes: 16 * 1024 * 1024, ...optional(signal) } as const
    return read(z.array(machineShape), await this.#api.ask('list machines', call), 'a list of machines')
  }

  async #volumes(signal?: AbortSignal) {
    const call = { method: 'GET', path: '/volumes', timeoutMs: CALL_MS, maxBytes: 16 * 1024 * 1024, ...optional(signal) } as const
    return read(z.array(volumeShape), await this.#api.ask('list volumes', call), 'a list of volumes')
  }

  /** @throws runtime_gone */
  async #machine(handle: FlyHandle, signal: AbortSignal): Promise<Machine> {
    const call = { method: 'GET', path: `/machines/${handle.machine_id}`, timeoutMs: CALL_MS, signal } as const
    const answer = await this.#api.send(call)
    if (answer.status === 404) throw gone(handle)
    if (answer.status < 200 || answer.status > 299) throw this.#api.refusal('get machine', call, answer)
    const machine = read(machineShape, answer, 'a machine')
    if (GONE_STATES.has(machine.state ?? '')) throw gone(handle)
    return machine
  }

  /** Stopped first, so that its guest can end; force takes whatever is left. */
  async #removeMachine(id: string): Promise<void> {
    await this.#api.send({ method: 'POST', path: `/machines/${id}/stop`, timeoutMs: CALL_MS })
    const call = { method: 'DELETE', path: `/machines/${id}?force=true`, timeoutMs: CALL_MS } as const
    const answer = await this.#api.send(call)
    if (answer.status !== 404 && (answer.status < 200 || answer.status > 299)) throw this.#api.refusal('delete machine', call, answer)
  }

  async #removeVolume(id: string): Promise<void> {
    const call = { method: 'DELETE', path: `/volumes/${id}`, timeoutMs: CALL_MS } as const
    for (let attempt = 1; ; attempt++) {
      const answer = await this.#api.send(call)
      if (answer.status === 404 || (answer.status >= 200 && answer.status < 300)) return
      if (attempt === VOLUME_ATTEMPTS) throw this.#api.refusal('delete volume', call, answer)
      await this.#clock.sleep(VOLUME_PAUSE_MS)
    }
  }

  #isOurs(machine: Machine): boolean {
    return machine.config?.metadata?.[NODE_LABEL] === this.#settings.nodeId && !GONE_STATES.has(machine.state ?? '')
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

function gone({ machine_id, app_name }: FlyHandle): PylonError {
  return new PylonError('runtime_gone', `The machine ${machine_id} of ${app_name} is no more: provision a new one.`)
}

function optional(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal }
}

function read<T extends z.ZodType>(shape: T, answer: RemoteAnswer, what: string): z.output<T> {
  const parsed = shape.safeParse(answer.json)
  if (parsed.success) return parsed.data
  throw new PylonError('runtime_failed', `The Fly Machines API did not answer with ${what}: ${parsed.error.issues[0]?.message ?? ''}.`)
}
