/** Runtimes as MicroVMs of a vm-spawner, over its HTTP API in both versions; requests pick only among the spawners of the owner. */
import { z } from 'zod'
import type { Dialer } from '../../base/dialer.ts'
import { PylonError } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type { AdapterProbe, Capacity, Provisioned, ProvisionInput, RuntimeAdapter, RuntimeHandle } from '../adapter.ts'
import { assertAgentRequest } from '../agent-request.ts'
import { PROTOCOLS } from '../contract/prompt.ts'
import { shapeError } from '../contract/spec.ts'
import type { Journal } from '../journal.ts'
import { Once } from '../remote-http.ts'
import { privateSpawnerUrl } from './address.ts'
import { Spawner } from './spawner.ts'

export interface MicrovmSettings {
  /** Each a private address; requests that name none get the first that answers. */
  readonly spawnerUrls: readonly string[]
  readonly flakeRef?: string
  readonly devShell?: string
  readonly spawnVariant?: SpawnVariant
  readonly vcpus?: number
  readonly memoryMib?: number
  readonly ttlSecs?: number
  /** At least 10 s; default 60 s. */
  readonly createTimeoutMs?: number
  /** What runs in the guest; default: the agent that the image of the spawner brings. */
  readonly guestCommand?: string
  /** VMs at most where the spawner does not say; default 4. */
  readonly maxInstances?: number
}

const VARIANTS = ['prebuilt', 'prebuilt-cow', 'legacy'] as const
type SpawnVariant = (typeof VARIANTS)[number]

const DEFAULTS = {
  flakeRef: 'github:sledtools/pika',
  devShell: 'default',
  spawnVariant: 'prebuilt-cow',
  vcpus: 1,
  memoryMib: 1024,
  // The longest that spawners take: a lease is ended by its node, and this only what the node lost sight of.
  ttlSecs: 86_400,
  createTimeoutMs: 60_000,
  guestCommand: 'bash /workspace/pika-agent/start-agent.sh',
  maxInstances: 4,
} as const
const MIN_CREATE_MS = 10_000
/** Where the files of the autostart are put, below the guest's root. */
const GUEST_DIR = 'workspace/pylon'

const handleShape = z.strictObject({
  runtime_id: z.string(),
  vm_id: z.string(),
  spawner_url: z.string(),
  protocol: z.enum(PROTOCOLS).nullable(),
})
type MicrovmHandle = z.output<typeof handleShape>

const paramsShape = z.strictObject({
  spawner_url: z.string().max(2048).optional(),
  spawn_variant: z.enum(VARIANTS).optional(),
  flake_ref: z.string().max(1024).optional(),
  dev_shell: z.string().max(256).optional(),
  cpu: z.int().min(1).max(16).optional(),
  memory_mb: z.int().min(512).max(65_536).optional(),
  ttl_seconds: z.int().min(60).max(86_400).optional(),
})
type MicrovmParams = z.output<typeof paramsShape>

/** @throws address_refused for a spawner that is not on a private network */
export function createMicrovmAdapter(
  settings: MicrovmSettings,
  deps: { readonly dialer: Dialer; readonly journal: Journal },
): RuntimeAdapter {
  const spawners = new Map(
    settings.spawnerUrls.map(privateSpawnerUrl).map((url) => {
      deps.dialer.allow(url)
      return [url, new Spawner(url, deps.dialer)]
    }),
  )
  if (spawners.size === 0) throw new PylonError('config_invalid', 'runtimes.microvm.spawner_urls lists no spawner: name one.')
  const microvm = new Microvm({ ...DEFAULTS, ...settings }, spawners, deps.journal)
  const provisioning = new Once<Provisioned>()
  const at = (raw: RuntimeHandle) => microvm.at(raw)

  return {
    provider: 'microvm',
    probe: () => microvm.probe(),
    capacity: () => microvm.capacity(),
    assertPossible: async (input) => void (await microvm.living(microvm.decodeRequest(input).spawners)),
    provision: (input, signal) => provisioning.do(input.runtimeId, () => microvm.provision(input, signal)),
    async readiness(raw, signal) {
      const { spawner, handle } = at(raw)
      return spawner.readiness(handle.vm_id, signal)
    },
    processWelcome: async () => ({ processed: false, reason: 'microvm runtime receives welcome through relay flow' }),
    teardown: async (raw, { keepVolume }) => microvm.teardown(raw, keepVolume),
    async recover(raw, signal) {
      const { spawner, handle } = at(raw)
      await spawner.act('recover', handle.vm_id, signal)
    },
    async restore(raw, name, signal) {
      const { spawner, handle } = at(raw)
      const latest = (await spawner.backup(handle.vm_id)).snapshots?.[0]
      if (latest === undefined) throw new PylonError('runtime_failed', `The spawner has no recovery point of ${handle.vm_id}.`)
      if (name !== undefined && name !== latest.name) {
        throw new PylonError('runtime_unsupported', `A vm-spawner restores only the latest recovery point, which is ${latest.name}.`)
      }
      await spawner.act('restore', handle.vm_id, signal)
      return latest
    },
    async listSnapshots(raw) {
      const { spawner, handle } = at(raw)
      return (await spawner.backup(handle.vm_id)).snapshots ?? []
    },
    async backupStatus(raw) {
      const { spawner, handle } = at(raw)
      return spawner.backup(handle.vm_id)
    },
    listOwned: async () => microvm.listOwned(),
  }
}

class Microvm {
  readonly #settings: Required<MicrovmSettings>
  readonly #spawners: ReadonlyMap<string, Spawner>
  /** Spawners know no name of ours: which VM is which runtime's is remembered here. */
  readonly #journal: Journal

  constructor(settings: Required<MicrovmSettings>, spawners: ReadonlyMap<string, Spawner>, journal: Journal) {
    this.#settings = settings
    this.#spawners = spawners
    this.#journal = journal
  }

  at(raw: RuntimeHandle): { spawner: Spawner; handle: MicrovmHandle } {
    const parsed = handleShape.safeParse(raw)
    if (!parsed.success) throw new PylonError('internal', 'This is no handle of a MicroVM.')
    return { spawner: this.#choose(parsed.data.spawner_url), handle: parsed.data }
  }

  #choose(url: string): Spawner {
    const found = this.#spawners.get(url.trim().replace(/\/+$/, ''))
    if (found !== undefined) return found
    throw new PylonError(
      'address_refused',
      `${url.slice(0, 200)} is refused: a request picks only among the spawners of this node (${[...this.#spawners.keys()].join(', ')}); its owner adds one to runtimes.microvm.spawner_urls.`,
      { details: { field: 'spawner_url' } },
    )
  }

  /** The first of them that answers; where only one is meant or is left, that one. @throws runtime_unreachable naming each */
  async living(spawners: readonly Spawner[]): Promise<Spawner> {
    const problems: string[] = []
    for (const spawner of spawners) {
      const problem = await spawner.health()
      if (problem === undefined) return spawner
      problems.push(problem)
    }
    throw new PylonError('runtime_unreachable', problems.join(' '))
  }

  async probe(): Promise<AdapterProbe> {
    const spawners = [...this.#spawners.values()]
    const seen = await Promise.all(spawners.map(async (spawner) => ({ url: spawner.url, problem: await spawner.health() })))
    const dead = seen.filter(({ problem }) => problem !== undefined)
    if (dead.length === 0) return { usable: true, isolated: true }
    return {
      usable: dead.length < seen.length,
      isolated: true,
      reason: dead.map(({ problem }) => problem).join(' '),
      nextStep: `Start the vm-spawner, or take it out of runtimes.microvm.spawner_urls: ${dead.map(({ url }) => `curl ${url}/healthz`).join('; ')}`,
    }
  }

  async capacity(): Promise<Capacity> {
    // One that does not answer has nothing to give, and takes nothing from the others.
    const asked = await Promise.allSettled([...this.#spawners.values()].map((spawner) => spawner.capacity()))
    const all = asked.filter((one) => one.status === 'fulfilled').map(({ value }) => value)
    if (all.length === 0) throw asked.find((one) => one.status === 'rejected')?.reason
    const { maxInstances, vcpus, memoryMib } = this.#settings
    const left = Math.max(0, maxInstances - this.#journal.entries().length)
    const unknown: Capacity = {
      instances: maxInstances,
      vcpus: maxInstances * vcpus,
      memoryMib: maxInstances * memoryMib,
      free: { instances: left, vcpus: left * vcpus, memoryMib: left * memoryMib },
    }
    return all.map((one) => one ?? unknown).reduce(add)
  }

  /** @throws runtime_unsupported, spec_mount_refused, invalid_request, address_refused */
  decodeRequest(input: ProvisionInput): { params: MicrovmParams; spawners: readonly Spawner[] } {
    assertAgentRequest('microvm', input)
    const parsed = paramsShape.safeParse(input.params ?? {})
    if (!parsed.success) throw shapeError('The microvm parameters', 'invalid_request', parsed.error)
    const params = parsed.data
    for (const field of ['flake_ref', 'dev_shell'] as const) {
      const asked = params[field]?.trim() ?? ''
      if (asked !== '' && asked !== (field === 'flake_ref' ? this.#settings.flakeRef : this.#settings.devShell)) {
        throw new PylonError('invalid_request', `The microvm parameter ${field} is set by the owner of the node.`, { details: { field } })
      }
    }
    const { vcpu_count, memory_mib } = input.spec.resources
    atMost('cpu', params.cpu, vcpu_count)
    atMost('memory_mb', params.memory_mb, memory_mib)
    const named = params.spawner_url?.trim() ?? ''
    return { params, spawners: named === '' ? [...this.#spawners.values()] : [this.#choose(named)] }
  }

  async provision(input: ProvisionInput, signal: AbortSignal): Promise<Provisioned> {
    const { params, spawners } = this.decodeRequest(input)
    const known = handleShape.safeParse(this.#journal.get(input.runtimeId))
    if (known.success) {
      const vm = await this.#choose(known.data.spawner_url).find(known.data.vm_id, signal)
      if (vm !== undefined) return this.#provisioned(known.data, vm.ip)
    }
    const spawner = await this.living(spawners)
    const vm = await spawner.create(this.#request(input, params, await spawner.isFirstVersion()), this.#createTimeoutMs(), signal)
    const handle = { runtime_id: input.runtimeId, vm_id: vm.id, spawner_url: spawner.url, protocol: input.protocol }
    this.#journal.put(input.runtimeId, handle)
    return this.#provisioned(handle, vm.ip)
  }

  async teardown(raw: RuntimeHandle, keepVolume: boolean): Promise<Json> {
    const { spawner, handle } = this.at(raw)
    const where = { vm_id: handle.vm_id, spawner_url: handle.spawner_url }
    // A spawner deletes the home with its VM: what is to be kept can only be left alone.
    if (keepVolume && (await spawner.find(handle.vm_id)) !== undefined) return { teardown: 'skipped', ...where, reason: '--keep policy' }
    await spawner.remove(handle.vm_id)
    this.#journal.delete(handle.runtime_id)
    return { teardown: 'deleted', ...where }
  }

  listOwned(): { runtimeId: string; handle: RuntimeHandle }[] {
    return this.#journal.entries().map(({ runtimeId, note }) => ({ runtimeId, handle: note }))
  }

  #createTimeoutMs(): number {
    return Math.max(MIN_CREATE_MS, this.#settings.createTimeoutMs)
  }

  #provisioned(handle: MicrovmHandle, ip: string | undefined): Provisioned {
    return {
      handle,
      protocols: handle.protocol === null ? [] : [...PROTOCOLS],
      metadata: { vm_id: handle.vm_id, spawner_url: handle.spawner_url, ...(ip === undefined ? {} : { vm_ip: ip }) },
    }
  }

  /** Version 2 takes the autostart alone: what a VM gets is the host's policy there. */
  #request(input: ProvisionInput, params: MicrovmParams, isFirstVersion: boolean): Json {
    const { spec } = input
    const autostart = {
      command: this.#settings.guestCommand,
      env: {
        ...input.env,
        PIKA_OWNER_PUBKEY: input.ownerPubkey,
        PYLON_RUNTIME_ID: input.runtimeId,
        ...(input.protocol === null ? {} : { PYLON_PROTOCOL: input.protocol }),
        ...(spec.entry_command === undefined ? {} : { PYLON_ENTRY_COMMAND: spec.entry_command }),
      },
      files: { [`${GUEST_DIR}/spec.json`]: JSON.stringify(spec) },
    }
    if (!isFirstVersion) {
      const { status_path, events_path, result_path, guest_log_path, state_dir } = spec.paths
      const artifacts = { status_path, events_path, result_path, log_path: guest_log_path }
      return { guest_autostart: { ...autostart, startup_plan: { daemon_state_dir: state_dir, artifacts } } }
    }
    const { flakeRef, devShell, spawnVariant, vcpus, memoryMib, ttlSecs } = this.#settings
    return {
      flake_ref: flakeRef,
      dev_shell: devShell,
      cpu: params.cpu ?? spec.resources.vcpu_count ?? vcpus,
      memory_mb: params.memory_mb ?? spec.resources.memory_mib ?? memoryMib,
      ttl_seconds: params.ttl_seconds ?? ttlSecs,
      spawn_variant: params.spawn_variant ?? spawnVariant,
      guest_autostart: autostart,
    }
  }
}

/** What the spec gives is what was rented: a parameter asks for that or less. @throws invalid_request */
function atMost(field: string, asked: number | undefined, given: number | undefined): void {
  if (asked === undefined || given === undefined || asked <= given) return
  throw new PylonError('invalid_request', `The microvm parameter ${field} is ${asked}: this class gives at most ${given}.`, {
    details: { field },
  })
}

function add(a: Capacity, b: Capacity): Capacity {
  const sum = (x: Capacity['free'], y: Capacity['free']) => ({
    instances: x.instances + y.instances,
    vcpus: x.vcpus + y.vcpus,
    memoryMib: x.memoryMib + y.memoryMib,
  })
  return { ...sum(a, b), free: sum(a.free, b.free) }
}
