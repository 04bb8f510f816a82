/** Runtimes as MicroVMs of a vm-spawner, over its HTTP API in both versions; requests pick only among the spawners of the owner. */
import { isIP } from 'node:net'
import { z } from 'zod'
import { isPublicAddress } from '../base/addresses.ts'
import type { Dialer } from '../base/dialer.ts'
import { messageOf, PylonError } from '../base/errors.ts'
import type { Json } from '../base/json.ts'
import type {
  AdapterProbe,
  BackupState,
  Capacity,
  Provisioned,
  ProvisionInput,
  Readiness,
  RuntimeAdapter,
  RuntimeHandle,
  Snapshot,
} from './adapter.ts'
import { PROTOCOLS } from './contract/prompt.ts'
import { shapeError } from './contract/spec.ts'
import type { Journal } from './journal.ts'
import { createRemote, Once, type Remote, type RemoteAnswer } from './remote-http.ts'

export interface MicrovmSettings {
  /** Each a private address; the first is the one for requests that name none. */
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
  ttlSecs: 7200,
  createTimeoutMs: 60_000,
  guestCommand: 'bash /workspace/pika-agent/start-agent.sh',
  maxInstances: 4,
} as const
const MIN_CREATE_MS = 10_000
const DELETE_MS = 30_000
const RECOVER_MS = 60_000
const GET_MS = 10_000
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

// Version 1 also returns an SSH key in clear: it is neither read nor kept.
const vmShape = z
  .looseObject({
    id: z.string().regex(/^[A-Za-z0-9._-]{1,128}$/),
    ip: z.string().max(64).optional(),
    status: z.enum(['running', 'starting', 'failed']).default('running'),
    startup_probe_satisfied: z.boolean().optional(),
    guest_service_ready: z.boolean().optional(),
    guest_ready: z.boolean().optional(),
  })
  .refine(({ id }) => !id.includes('..') && id !== '.', 'id is no name')

const capacityShape = z.looseObject({
  total_cpus: z.number(),
  used_cpus: z.number(),
  total_memory_mb: z.number(),
  used_memory_mb: z.number(),
  max_vms: z.int(),
  available_vms: z.int(),
})

const backupShape = z.looseObject({
  backup_unit_kind: z.enum(['durable_home', 'persistent_state_volume']),
  backup_target: z.string(),
  recovery_point_kind: z.enum(['metadata_record', 'volume_snapshot']),
  freshness: z.enum(['healthy', 'stale', 'missing', 'unavailable']),
  latest_recovery_point_name: z.string().nullish(),
  latest_successful_backup_at: z.string().nullish(),
})

/**
 * Whether a host is one that a spawner may be at: loopback, RFC 1918, link-local, CGNAT, ULA, or a name that only a
 * private network resolves.
 */
export function isPrivateSpawnerHost(host: string): boolean {
  const name = host.replace(/^\[|\]$/g, '').toLowerCase()
  if (isIP(name) !== 0) return !isPublicAddress(name) && !isNowhere(name)
  return name === 'localhost' || ['.internal', '.tailnet', '.tailnet.ts.net'].some((suffix) => name.endsWith(suffix))
}

/** Addresses that are neither public nor anybody's network: unspecified, multicast, reserved. */
function isNowhere(address: string): boolean {
  if (address.includes(':')) return !/^(::1$|f[cd]|fe[89ab]|::ffff:)/.test(address)
  const [first = 0, second = 0] = address.split('.').map(Number)
  const isPrivate =
    first === 10 ||
    first === 127 ||
    (first === 172 && second >= 16 && second < 32) ||
    (first === 192 && second === 168) ||
    (first === 169 && second === 254) ||
    (first === 100 && second >= 64 && second < 128)
  return !isPrivate
}

/** The spawner's URL without trailing slashes. @throws address_refused for one that is not on a private network */
export function privateSpawnerUrl(url: string): string {
  const trimmed = url.trim().replace(/\/+$/, '')
  let parsed: URL
  try {
    parsed = new URL(trimmed)
  } catch {
    throw new PylonError('address_refused', `${JSON.stringify(url).slice(0, 200)} is no URL of a vm-spawner: use http://HOST:PORT.`)
  }
  const isHttp = parsed.protocol === 'http:' || parsed.protocol === 'https:'
  if (!isHttp || parsed.username !== '' || parsed.password !== '' || !isPrivateSpawnerHost(parsed.hostname)) {
    throw new PylonError(
      'address_refused',
      `${trimmed} is refused as a vm-spawner: only private addresses (loopback, RFC 1918, link-local, 100.64/10, ULA, .internal, .tailnet) without credentials are used; list the spawner in runtimes.microvm.spawner_urls by such an address.`,
      { details: { url: trimmed } },
    )
  }
  return trimmed
}

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
  const first = [...spawners.values()][0]
  if (first === undefined) throw new PylonError('config_invalid', 'runtimes.microvm.spawner_urls lists no spawner: name one.')
  const microvm = new Microvm({ ...DEFAULTS, ...settings }, spawners, first, deps.journal)
  const provisioning = new Once<Provisioned>()
  const at = (raw: RuntimeHandle) => microvm.at(raw)

  return {
    provider: 'microvm',
    probe: () => microvm.probe(),
    capacity: () => microvm.capacity(),
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
  readonly #first: Spawner
  /** Spawners know no name of ours: which VM is which runtime's is remembered here. */
  readonly #journal: Journal

  constructor(settings: Required<MicrovmSettings>, spawners: ReadonlyMap<string, Spawner>, first: Spawner, journal: Journal) {
    this.#settings = settings
    this.#spawners = spawners
    this.#first = first
    this.#journal = journal
  }

  at(raw: RuntimeHandle): { spawner: Spawner; handle: MicrovmHandle } {
    const parsed = handleShape.safeParse(raw)
    if (!parsed.success) throw new PylonError('internal', 'This is no handle of a MicroVM.')
    return { spawner: this.#choose(parsed.data.spawner_url), handle: parsed.data }
  }

  #choose(url: string | undefined): Spawner {
    if (url === undefined || url.trim() === '') return this.#first
    const found = this.#spawners.get(url.trim().replace(/\/+$/, ''))
    if (found !== undefined) return found
    throw new PylonError(
      'address_refused',
      `${url.slice(0, 200)} is refused: a request picks only among the spawners of this node (${[...this.#spawners.keys()].join(', ')}); its owner adds one to runtimes.microvm.spawner_urls.`,
      { details: { field: 'spawner_url' } },
    )
  }

  async probe(): Promise<AdapterProbe> {
    const seen = await Promise.all([...this.#spawners.values()].map((spawner) => spawner.health()))
    const problem = seen.find((one) => one !== undefined)
    if (seen.some((one) => one === undefined)) return { usable: true, isolated: true }
    return { usable: false, isolated: true, reason: problem ?? '', nextStep: `Start the vm-spawner: curl ${this.#first.url}/healthz` }
  }

  async capacity(): Promise<Capacity> {
    const all = await Promise.all([...this.#spawners.values()].map((spawner) => spawner.capacity()))
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

  async provision(input: ProvisionInput, signal: AbortSignal): Promise<Provisioned> {
    const parsed = paramsShape.safeParse(input.params ?? {})
    if (!parsed.success) throw shapeError('The microvm parameters', 'invalid_request', parsed.error)
    const params = parsed.data
    for (const [field, asked, configured] of [
      ['flake_ref', params.flake_ref, this.#settings.flakeRef],
      ['dev_shell', params.dev_shell, this.#settings.devShell],
    ] as const) {
      if (asked !== undefined && asked.trim() !== '' && asked.trim() !== configured) {
        throw new PylonError('invalid_request', `The microvm parameter ${field} is set by the owner of the node.`, { details: { field } })
      }
    }
    const known = handleShape.safeParse(this.#journal.get(input.runtimeId))
    if (known.success) {
      const spawner = this.#choose(known.data.spawner_url)
      const vm = await spawner.find(known.data.vm_id, signal)
      if (vm !== undefined) return this.#provisioned(known.data, vm.ip)
    }
    const spawner = this.#choose(params.spawner_url)
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
  #request(input: ProvisionInput, params: z.output<typeof paramsShape>, isFirstVersion: boolean): Json {
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

type Vm = z.output<typeof vmShape>

/** One vm-spawner. */
class Spawner {
  readonly url: string
  readonly #http: Remote
  #first: boolean | undefined

  constructor(url: string, dialer: Dialer) {
    this.url = url
    const nextStep = `Ensure vm-spawner is reachable: curl ${url}/healthz`
    this.#http = createRemote({ dialer, baseUrl: url, name: `vm-spawner at ${url}`, nextStep })
  }

  /** Only version 1 answers /capacity. */
  async isFirstVersion(): Promise<boolean> {
    this.#first ??= (await this.#http.send({ method: 'GET', path: '/capacity', timeoutMs: GET_MS })).status === 200
    return this.#first
  }

  /** What is wrong, or undefined. */
  async health(): Promise<string | undefined> {
    try {
      await this.#http.ask('answer', { method: 'GET', path: '/healthz', timeoutMs: GET_MS })
      return undefined
    } catch (error) {
      return messageOf(error)
    }
  }

  /** Undefined where the spawner does not tell. */
  async capacity(): Promise<Capacity | undefined> {
    const answer = await this.#http.send({ method: 'GET', path: '/capacity', timeoutMs: GET_MS })
    const parsed = capacityShape.safeParse(answer.json)
    if (answer.status !== 200 || !parsed.success) return undefined
    const { total_cpus, used_cpus, total_memory_mb, used_memory_mb, max_vms, available_vms } = parsed.data
    return {
      instances: max_vms,
      vcpus: total_cpus,
      memoryMib: total_memory_mb,
      free: {
        instances: available_vms,
        vcpus: Math.max(0, total_cpus - used_cpus),
        memoryMib: Math.max(0, total_memory_mb - used_memory_mb),
      },
    }
  }

  async create(body: Json, timeoutMs: number, signal: AbortSignal): Promise<Vm> {
    const call = { method: 'POST', path: '/vms', body, timeoutMs, signal } as const
    let answer: RemoteAnswer
    try {
      answer = await this.#http.ask('create microvm', call)
    } catch (error) {
      if (!(error instanceof PylonError) || error.details['timeout'] !== true) throw error
      const what = `failed to create microvm via vm-spawner at ${this.url}: ${error.message} A VM may have been made all the same: its own ttl ends it; look at ${this.url}/vms.`
      throw new PylonError(error.code, what, { details: error.details, cause: error })
    }
    return this.#vm(answer)
  }

  /** Undefined where there is no such VM. */
  async find(id: string, signal?: AbortSignal): Promise<Vm | undefined> {
    const call = { method: 'GET', path: `/vms/${encodeURIComponent(id)}`, timeoutMs: GET_MS } as const
    const answer = await this.#http.send(signal === undefined ? call : { ...call, signal })
    if (isNoVm(answer)) return undefined
    if (answer.status !== 200) throw this.#http.refusal('get microvm', call, answer)
    return this.#vm(answer)
  }

  async readiness(id: string, signal: AbortSignal): Promise<Readiness> {
    let vm: Vm | undefined
    try {
      vm = await this.find(id, signal)
    } catch (error) {
      if (error instanceof PylonError && error.code === 'runtime_unreachable') return { state: 'unreachable', message: error.message }
      throw error
    }
    if (vm === undefined) throw gone(id, this.url)
    if (vm.status === 'failed') return { state: 'failed', message: 'the spawner says that the VM failed' }
    // Version 1 says nothing of the guest.
    const isReady = vm.status === 'running' && (vm.guest_ready ?? true)
    if (isReady) return { state: 'ready', message: vm.guest_ready === undefined ? 'the VM runs' : 'the guest is ready' }
    const probed = vm.startup_probe_satisfied ?? vm.guest_service_ready ?? false
    return { state: 'starting', message: probed ? 'the service answers, the guest is not ready yet' : 'the VM starts' }
  }

  async act(verb: 'recover' | 'restore', id: string, signal: AbortSignal): Promise<void> {
    const call = { method: 'POST', path: `/vms/${encodeURIComponent(id)}/${verb}`, timeoutMs: RECOVER_MS, signal } as const
    const answer = await this.#http.send(call)
    if (isNoVm(answer)) throw gone(id, this.url)
    if (answer.status !== 200) throw this.#http.refusal(`${verb} microvm`, call, answer)
  }

  async backup(id: string): Promise<BackupState> {
    const call = { method: 'GET', path: `/vms/${encodeURIComponent(id)}/backup-status`, timeoutMs: GET_MS } as const
    if (await this.isFirstVersion())
      throw new PylonError('runtime_unsupported', `The vm-spawner at ${this.url} is of a version without backups.`)
    const answer = await this.#http.send(call)
    if (isNoVm(answer)) throw gone(id, this.url)
    const parsed = backupShape.safeParse(answer.json)
    if (answer.status !== 200 || !parsed.success) throw this.#http.refusal('tell the backup status', call, answer)
    const { data } = parsed
    const at = Date.parse(data.latest_successful_backup_at ?? '')
    const latest: Snapshot[] = Number.isNaN(at) ? [] : [{ name: data.latest_recovery_point_name ?? 'latest', createdAt: at }]
    return {
      backupUnitKind: data.backup_unit_kind,
      backupTarget: data.backup_target,
      recoveryPointKind: data.recovery_point_kind,
      snapshots: data.freshness === 'unavailable' ? undefined : latest,
    }
  }

  async remove(id: string): Promise<void> {
    const call = { method: 'DELETE', path: `/vms/${encodeURIComponent(id)}`, timeoutMs: DELETE_MS } as const
    const answer = await this.#http.send(call)
    if (answer.status >= 200 && answer.status < 300) return
    if (!isNoVm(answer)) throw this.#http.refusal('delete microvm', call, answer)
  }

  #vm(answer: RemoteAnswer): Vm {
    const parsed = vmShape.safeParse(answer.json)
    if (parsed.success) return parsed.data
    throw new PylonError('runtime_failed', `The vm-spawner at ${this.url} answered with no VM: ${parsed.error.issues[0]?.message ?? ''}.`)
  }
}

/** Version 1 says it with 500 where it deletes or recovers. */
function isNoVm({ status, text }: RemoteAnswer): boolean {
  return status === 404 || (status === 500 && text.includes('vm not found'))
}

function gone(id: string, url: string): PylonError {
  return new PylonError('runtime_gone', `The VM ${id} of ${url} is no more: provision a new one.`)
}

function add(a: Capacity, b: Capacity): Capacity {
  const sum = (x: Capacity['free'], y: Capacity['free']) => ({
    instances: x.instances + y.instances,
    vcpus: x.vcpus + y.vcpus,
    memoryMib: x.memoryMib + y.memoryMib,
  })
  return { ...sum(a, b), free: sum(a.free, b.free) }
}
