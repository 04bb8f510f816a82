/** Runtimes as Fly Machines: a volume and a machine each, both gone after teardown, and no volume without its machine. */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type { ProvisionInput, Readiness, RuntimeHandle } from '../adapter.ts'
import { PROTOCOLS } from '../contract/prompt.ts'
import { guestEnv } from '../remote/agent-request.ts'
import { DONE, Remote } from '../remote/remote.ts'
import { type Made, RemoteAdapter, type RemoteDeps } from '../remote/remote-adapter.ts'

export interface FlySettings {
  /** `https://api.machines.dev`. */
  readonly apiBaseUrl: string
  readonly appName: string
  readonly region: string
  readonly image: string
  /** Holds the API token. */
  readonly tokenFile: string
  /** Names this node on what it makes, so that two nodes of one app leave each other's alone. */
  readonly nodeId: string
  /** Machines at most. */
  readonly maxInstances: number
}

const DEFAULTS = { vcpus: 1, memoryMib: 256, diskGib: 1 }
const STATE_DIR = '/app/state'
const NODE_LABEL = 'pylon_node'
const RUNTIME_LABEL = 'pylon_runtime_id'
/** The wait endpoint holds the answer back so long at most. */
const WAIT_SECS = 10
const MAX_LIST_BYTES = 16 * 1024 * 1024
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

const paramsShape = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'must be a machine name')
    .optional(),
})
type FlyParams = z.output<typeof paramsShape>

// Whatever else Fly says of them is not ours to depend on.
const volumeShape = z.looseObject({ id: z.string(), name: z.string().optional(), state: z.string().optional() })
const machineShape = z.looseObject({
  id: z.string(),
  state: z.string().optional(),
  config: z
    .looseObject({
      metadata: z.record(z.string(), z.string()).default({}),
      env: z.record(z.string(), z.string()).default({}),
      mounts: z.array(z.looseObject({ volume: z.string().optional() })).default([]),
    })
    .prefault({}),
  checks: z.array(z.looseObject({ name: z.string().optional(), status: z.string() })).optional(),
})
type Machine = z.output<typeof machineShape>

export class FlyAdapter extends RemoteAdapter<FlyHandle, FlyParams, Machine> {
  readonly #settings: FlySettings
  readonly #api: Remote

  /** @throws config_invalid for settings that no machine can be made with */
  constructor(settings: FlySettings, deps: RemoteDeps) {
    const { apiBaseUrl, appName, image, tokenFile, maxInstances } = settings
    for (const [key, value] of Object.entries({ image, token_file: tokenFile })) {
      if (value.trim() === '')
        throw new PylonError('config_invalid', `runtimes.fly.${key} is empty: set it, or empty runtimes.fly.app_name.`)
    }
    super(
      {
        provider: 'fly',
        handle: handleShape,
        params: paramsShape,
        size: { ...DEFAULTS, instances: maxInstances },
        nextStep: 'Write a token of `fly tokens create deploy` to runtimes.fly.token_file and check runtimes.fly.app_name.',
        noWelcome: 'fly runtime does not require explicit welcome hook',
      },
      deps,
    )
    this.#settings = settings
    this.#api = new Remote({
      dialer: deps.dialer,
      baseUrl: `${apiBaseUrl.replace(/\/+$/, '')}/v1/apps/${encodeURIComponent(appName)}`,
      name: 'Fly Machines API',
      nextStep: `Check runtimes.fly.api_base_url and the network: curl -i ${apiBaseUrl}`,
      token: { file: tokenFile, of: 'Fly (runtimes.fly.token_file)' },
      signal: this.scope.signal,
    })
  }

  async recover(raw: RuntimeHandle, signal: AbortSignal): Promise<void> {
    const handle = this.handleOf(raw)
    const verb = this.present(handle, await this.#machine(handle, signal)).state === 'started' ? 'restart' : 'start'
    await this.#api.ask(`${verb} machine`, DONE, `POST ${pathOf(handle)}/${verb}`, { signal })
  }

  /** Machines of this node, and volumes whose provision was cut short: a crash in between leaves one that only the journal tells from a kept one. */
  override async listOwned(): Promise<readonly { runtimeId: string; handle: RuntimeHandle }[]> {
    const owned = new Map((await this.#machines()).map((machine) => [machine.config.metadata[RUNTIME_LABEL] ?? '', this.#handle(machine)]))
    const cutShort = this.journal.entries().filter(({ runtimeId }) => !owned.has(runtimeId))
    const volumes = cutShort.length === 0 ? [] : await this.#volumes()
    for (const { runtimeId } of cutShort) {
      const volume = volumes.find(({ name }) => name === this.#volumeName(runtimeId))
      const rest = { runtime_id: runtimeId, machine_id: '', app_name: this.#settings.appName, protocol: null }
      if (volume !== undefined) owned.set(runtimeId, { ...rest, volume_id: volume.id })
    }
    return [...owned].map(([runtimeId, handle]) => ({ runtimeId, handle }))
  }

  protected async look() {
    await this.#machines()
    return {}
  }

  protected override async used(): Promise<number> {
    return (await this.#machines()).length
  }

  protected async make(input: ProvisionInput, { name }: FlyParams, signal: AbortSignal): Promise<Made<FlyHandle>> {
    const { machine: found, volumeId: former } = await this.#find(input.runtimeId, signal)
    if (found !== undefined) return this.#made(found)
    if (former === undefined) this.journal.put(input.runtimeId, { protocol: input.protocol })
    try {
      const body = this.#volumeBody(input)
      const volumeId = former ?? (await this.#api.ask('create volume', volumeShape, 'POST /volumes', { body, signal })).id
      const machine = this.#machineBody(input, volumeId, name)
      const { id } = await this.#api.ask('create machine', machineShape, 'POST /machines', { body: machine, signal })
      this.journal.delete(input.runtimeId)
      return this.#made({ id, config: { ...machine.config, mounts: [{ volume: volumeId }] } })
    } catch (error) {
      await this.#undo(input.runtimeId, former, error)
      throw error
    }
  }

  /** Fly holds the answer back until the machine runs, for a while: no polling of ours. */
  protected async see(handle: FlyHandle, signal: AbortSignal): Promise<Machine | undefined> {
    const machine = await this.#machine(handle, signal)
    if (machine?.state !== 'created' && machine?.state !== 'starting') return machine
    const timeoutMs = (WAIT_SECS + 10) * 1000
    await this.#api.send(`GET ${pathOf(handle)}/wait?state=started&timeout=${WAIT_SECS}`, { timeoutMs, signal })
    return await this.#machine(handle, signal)
  }

  protected judge({ state, checks }: Machine): Readiness {
    switch (state) {
      case 'started': {
        const failing = checks?.find(({ status }) => status !== 'passing')
        if (failing !== undefined) return { state: 'starting', message: `the check ${failing.name ?? ''} is ${failing.status}` }
        return { state: 'ready', message: 'the machine is started' }
      }
      case 'stopping':
      case 'stopped':
      case 'suspended':
        return { state: 'stopped', message: `the machine is ${state}` }
      case 'failed':
        return { state: 'failed', message: 'Fly says that the machine failed' }
      default:
        return { state: 'starting', message: `the machine is ${state ?? 'in no known state'}` }
    }
  }

  protected where({ machine_id, volume_id, app_name }: FlyHandle) {
    return { machine_id, volume_id, app_name }
  }

  protected async remove(handle: FlyHandle, keepVolume: boolean) {
    if (handle.machine_id !== '') await this.#removeMachine(handle)
    if (keepVolume) return { kept_volume: handle.volume_id }
    if (handle.volume_id !== '') await this.#removeVolume(handle.volume_id)
    return {}
  }

  /** Removes what a failed provision made, also where the answer about it was lost; a volume that was there before stays. */
  async #undo(runtimeId: string, former: string | undefined, cause: unknown): Promise<void> {
    try {
      const { machine, volumeId } = await this.#find(runtimeId)
      if (machine !== undefined) await this.#removeMachine(this.#handle(machine))
      if (volumeId !== undefined && volumeId !== former) await this.#removeVolume(volumeId)
      this.journal.delete(runtimeId)
    } catch (error) {
      const look = `fly machine list, fly volumes list -a ${this.#settings.appName}`
      const words = `${messageOf(cause)} And what was made could not be removed (${messageOf(error)}): ${look}`
      throw new PylonError('runtime_failed', words, { cause })
    }
  }

  /** Stopped first, so that its guest can end; force takes whatever is left. */
  async #removeMachine(handle: FlyHandle): Promise<void> {
    await this.#api.send(`POST ${pathOf(handle)}/stop`)
    await this.#api.find('delete machine', DONE, `DELETE ${pathOf(handle)}?force=true`)
  }

  async #removeVolume(id: string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#api.find('delete volume', DONE, `DELETE /volumes/${encodeURIComponent(id)}`)
        return
      } catch (error) {
        if (attempt === VOLUME_ATTEMPTS || !isPylonError(error, 'runtime_failed')) throw error
        await this.scope.sleep(VOLUME_PAUSE_MS)
      }
    }
  }

  async #machine(handle: FlyHandle, signal: AbortSignal): Promise<Machine | undefined> {
    const machine = await this.#api.find('get machine', machineShape, `GET ${pathOf(handle)}`, { signal })
    return machine !== undefined && exists(machine) ? machine : undefined
  }

  /** Of this node. */
  async #machines(signal?: AbortSignal): Promise<Machine[]> {
    const machines = await this.#api.ask('list machines', z.array(machineShape), 'GET /machines', { signal, maxBytes: MAX_LIST_BYTES })
    return machines.filter((machine) => machine.config.metadata[NODE_LABEL] === this.#settings.nodeId && exists(machine))
  }

  async #volumes(signal?: AbortSignal) {
    const volumes = await this.#api.ask('list volumes', z.array(volumeShape), 'GET /volumes', { signal, maxBytes: MAX_LIST_BYTES })
    return volumes.filter(exists)
  }

  async #find(runtimeId: string, signal?: AbortSignal): Promise<{ machine: Machine | undefined; volumeId: string | undefined }> {
    const machine = (await this.#machines(signal)).find(({ config }) => config.metadata[RUNTIME_LABEL] === runtimeId)
    const volume = (await this.#volumes(signal)).find(({ name }) => name === this.#volumeName(runtimeId))
    return { machine, volumeId: volume?.id }
  }

  #made(machine: Pick<Machine, 'id' | 'config'>): Made<FlyHandle> {
    const { region } = this.#settings
    return { handle: this.#handle(machine), region, metadata: { region } }
  }

  #handle({ id, config: { metadata, env, mounts } }: Pick<Machine, 'id' | 'config'>): FlyHandle {
    return {
      runtime_id: metadata[RUNTIME_LABEL] ?? '',
      machine_id: id,
      volume_id: mounts[0]?.volume ?? '',
      app_name: this.#settings.appName,
      protocol: PROTOCOLS.find((one) => one === env['PYLON_PROTOCOL']) ?? null,
    }
  }

  #volumeBody({ runtimeId, spec }: ProvisionInput): Json {
    const size_gb = spec.resources.root_disk_gib ?? DEFAULTS.diskGib
    return { name: this.#volumeName(runtimeId), region: this.#settings.region, size_gb }
  }

  #machineBody(input: ProvisionInput, volume: string, name: string | undefined) {
    const { runtimeId, ownerPubkey, spec } = input
    const { image, region, nodeId } = this.#settings
    const { resources, policies } = spec
    return {
      name: name ?? `agent-${suffixOf(runtimeId)}`,
      region,
      config: {
        image,
        env: { ...guestEnv(input), STATE_DIR, PYLON_OWNER_PUBKEY: ownerPubkey },
        guest: {
          cpu_kind: 'shared',
          cpus: resources.vcpu_count ?? DEFAULTS.vcpus,
          memory_mb: resources.memory_mib ?? DEFAULTS.memoryMib,
        },
        mounts: [{ volume, path: STATE_DIR }],
        metadata: { [NODE_LABEL]: nodeId, [RUNTIME_LABEL]: runtimeId },
        restart: { policy: { never: 'no', on_failure: 'on-failure', always: 'always' }[policies.restart_policy] },
      },
    }
  }

  /** Fly's volumes have no labels: the name says whose. At most 30 of a-z 0-9 _ */
  #volumeName(runtimeId: string): string {
    const node = createHash('sha256').update(this.#settings.nodeId).digest('hex').slice(0, 7)
    return `agent_${suffixOf(runtimeId)}_${node}`
  }
}

/** Whether Fly still counts it as one that is there. */
function exists({ state }: { readonly state?: string | undefined }): boolean {
  return !GONE_STATES.has(state ?? '')
}

const pathOf = ({ machine_id }: FlyHandle) => `/machines/${encodeURIComponent(machine_id)}` as const

function suffixOf(runtimeId: string): string {
  return /[0-9a-f]{16}$/.exec(runtimeId)?.[0] ?? createHash('sha256').update(runtimeId).digest('hex').slice(0, 16)
}
