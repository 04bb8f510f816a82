/** Runtimes as MicroVMs of a vm-spawner, over its HTTP API in both versions; requests pick only among the spawners of the owner. */
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import type { BackupState, Capacity, ProvisionInput, Readiness, RuntimeHandle, Snapshot } from '../adapter.ts'
import { PROTOCOLS } from '../contract/prompt.ts'
import { guestEnv } from '../remote/agent-request.ts'
import { type Made, RemoteAdapter, type RemoteDeps } from '../remote/remote-adapter.ts'
import { privateSpawnerUrl } from './address.ts'
import { Spawner, type Vm } from './spawner.ts'

export interface MicrovmSettings {
  /** Each a private address; requests that name none get the first that answers. */
  readonly spawnerUrls: readonly string[]
  /** VMs at most where the spawner does not say. */
  readonly maxInstances: number
}

/** What version 1 is asked for where the request does not say. */
const DEFAULTS = {
  flake_ref: 'github:sledtools/pika',
  dev_shell: 'default',
  spawn_variant: 'prebuilt-cow',
  // The longest that spawners take: a lease is ended by its node, and this only what the node lost sight of.
  ttl_seconds: 86_400,
} as const
const SIZE = { vcpus: 1, memoryMib: 1024 }
/** The agent that the image of the spawner brings. */
const GUEST_COMMAND = 'bash /workspace/pika-agent/start-agent.sh'
/** Where the files of the autostart are put, below the guest's root. */
const GUEST_DIR = 'workspace/pylon'
/** In the home of the VM, which a spawner keeps when it boots one again; where the status is (/run) is memory. */
const SESSION_DIR = '/root/pylon-session'

const handleShape = z.strictObject({
  runtime_id: z.string(),
  vm_id: z.string(),
  spawner_url: z.string(),
  protocol: z.enum(PROTOCOLS).nullable(),
})
type MicrovmHandle = z.output<typeof handleShape>

/** Left blank it is what is set: what it runs is the owner's to say. */
const fixed = (value: string) =>
  z
    .string()
    .refine((asked) => ['', value].includes(asked.trim()), 'is set by the owner of the node')
    .optional()

const paramsShape = z.strictObject({
  spawner_url: z.string().max(2048).default(''),
  spawn_variant: z.enum(['prebuilt', 'prebuilt-cow', 'legacy']).optional(),
  flake_ref: fixed(DEFAULTS.flake_ref),
  dev_shell: fixed(DEFAULTS.dev_shell),
  cpu: z.int().min(1).max(16).optional(),
  memory_mb: z.int().min(512).max(65_536).optional(),
  ttl_seconds: z.int().min(60).max(86_400).optional(),
})
type MicrovmParams = z.output<typeof paramsShape>

export class MicrovmAdapter extends RemoteAdapter<MicrovmHandle, MicrovmParams, Vm> {
  readonly #spawners: ReadonlyMap<string, Spawner>

  /** @throws address_refused for a spawner that is not on a private network */
  constructor({ spawnerUrls, maxInstances }: MicrovmSettings, deps: RemoteDeps) {
    super(
      {
        provider: 'microvm',
        handle: handleShape,
        params: paramsShape,
        size: { ...SIZE, instances: maxInstances },
        nextStep: nextStepFor(spawnerUrls),
        noWelcome: 'microvm runtime receives welcome through relay flow',
      },
      deps,
    )
    const urls = spawnerUrls.map(privateSpawnerUrl)
    this.#spawners = new Map(urls.map((url) => [url, new Spawner(url, deps.dialer, this.scope.signal)]))
    if (urls.length === 0) throw new PylonError('config_invalid', 'runtimes.microvm.spawner_urls lists no spawner: name one.')
  }

  /** One that does not answer has nothing to give, and takes nothing from the others. */
  override async capacity(): Promise<Capacity> {
    const asked = await Promise.allSettled([...this.#spawners.values()].map((spawner) => spawner.capacity()))
    const told = asked.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
    if (told.length === 0) throw asked.find((one) => one.status === 'rejected')?.reason
    const unknown = await super.capacity()
    return told.map((one) => one ?? unknown).reduce((a, b) => ({ ...sum(a, b), free: sum(a.free, b.free) }))
  }

  override async assertPossible(input: ProvisionInput): Promise<void> {
    await this.#living(this.decode(input))
  }

  async recover(raw: RuntimeHandle, signal: AbortSignal): Promise<void> {
    const handle = this.handleOf(raw)
    this.present(handle, await this.#at(handle).act('recover', handle.vm_id, signal))
  }

  async restore(raw: RuntimeHandle, name: string | undefined, signal: AbortSignal): Promise<Snapshot> {
    const handle = this.handleOf(raw)
    const [latest] = await this.listSnapshots(handle)
    if (latest === undefined) throw new PylonError('runtime_failed', `The spawner has no recovery point of ${handle.vm_id}.`)
    if (name !== undefined && name !== latest.name) {
      throw new PylonError('runtime_unsupported', `A vm-spawner restores only the latest recovery point, which is ${latest.name}.`)
    }
    this.present(handle, await this.#at(handle).act('restore', handle.vm_id, signal))
    return latest
  }

  async listSnapshots(raw: RuntimeHandle): Promise<readonly Snapshot[]> {
    return (await this.backupStatus(raw)).snapshots ?? []
  }

  async backupStatus(raw: RuntimeHandle): Promise<BackupState> {
    const handle = this.handleOf(raw)
    return this.present(handle, await this.#at(handle).backup(handle.vm_id))
  }

  protected async look() {
    const spawners = [...this.#spawners.values()]
    const all = await Promise.all(spawners.map(async (spawner) => ({ url: spawner.url, problem: await spawner.health() })))
    const dead = all.filter(({ problem }) => problem !== undefined)
    const reason = dead.map(({ problem }) => problem).join(' ')
    if (dead.length === all.length) throw new PylonError('runtime_unreachable', reason)
    return dead.length === 0 ? {} : { reason, nextStep: nextStepFor(dead.map(({ url }) => url)) }
  }

  /** @throws as RemoteAdapter does; address_refused */
  protected override decode(input: ProvisionInput): MicrovmParams {
    const params = super.decode(input)
    const { vcpu_count, memory_mib } = input.spec.resources
    atMost('cpu', params.cpu, vcpu_count)
    atMost('memory_mb', params.memory_mb, memory_mib)
    if (params.spawner_url.trim() !== '') this.#choose(params.spawner_url)
    return params
  }

  /** Spawners know no name of ours: which VM is which runtime's is remembered. */
  protected async make(input: ProvisionInput, params: MicrovmParams, signal: AbortSignal): Promise<Made<MicrovmHandle>> {
    const known = handleShape.safeParse(this.journal.get(input.runtimeId)).data
    const found = known === undefined ? undefined : await this.see(known, signal)
    if (known !== undefined && found !== undefined) return madeOf(known, found)
    const spawner = await this.#living(params)
    const vm = await spawner.create(requestOf(input, params, await spawner.isFirstVersion()), signal)
    const handle = { runtime_id: input.runtimeId, vm_id: vm.id, spawner_url: spawner.url, protocol: input.protocol }
    this.journal.put(input.runtimeId, handle)
    return madeOf(handle, vm)
  }

  protected async see(handle: MicrovmHandle, signal: AbortSignal): Promise<Vm | undefined> {
    return await this.#at(handle).find(handle.vm_id, signal)
  }

  protected judge({ status, guest_ready, startup_probe_satisfied, guest_service_ready }: Vm): Readiness {
    if (status === 'failed') return { state: 'failed', message: 'the spawner says that the VM failed' }
    // Version 1 says nothing of the guest.
    const isReady = status === 'running' && (guest_ready ?? true)
    if (isReady) return { state: 'ready', message: guest_ready === undefined ? 'the VM runs' : 'the guest is ready' }
    const probed = startup_probe_satisfied ?? guest_service_ready ?? false
    return { state: 'starting', message: probed ? 'the service answers, the guest is not ready yet' : 'the VM starts' }
  }

  protected where({ vm_id, spawner_url }: MicrovmHandle) {
    return { vm_id, spawner_url }
  }

  /** A spawner deletes the home with its VM: what is to be kept can only be left alone. */
  protected async remove(handle: MicrovmHandle, keepVolume: boolean) {
    const spawner = this.#at(handle)
    if (keepVolume && (await spawner.find(handle.vm_id)) !== undefined) return { teardown: 'skipped', reason: '--keep policy' }
    await spawner.remove(handle.vm_id)
    return {}
  }

  #at({ spawner_url }: MicrovmHandle): Spawner {
    return this.#choose(spawner_url)
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

  /** The one that is named, or the first that answers. @throws runtime_unreachable naming each */
  async #living({ spawner_url }: MicrovmParams): Promise<Spawner> {
    const problems: string[] = []
    for (const spawner of spawner_url.trim() === '' ? this.#spawners.values() : [this.#choose(spawner_url)]) {
      const problem = await spawner.health()
      if (problem === undefined) return spawner
      problems.push(problem)
    }
    throw new PylonError('runtime_unreachable', problems.join(' '))
  }
}

/** Version 2 takes the autostart alone: what a VM gets is the host's policy there. */
function requestOf(input: ProvisionInput, params: MicrovmParams, isFirstVersion: boolean): Json {
  const { spec } = input
  const autostart = {
    command: GUEST_COMMAND,
    env: {
      ...guestEnv(input),
      PIKA_OWNER_PUBKEY: input.ownerPubkey,
      ...(input.session === undefined ? {} : { PYLON_SESSION_DIR: SESSION_DIR }),
    },
    files: { [`${GUEST_DIR}/spec.json`]: JSON.stringify(spec) },
  }
  if (!isFirstVersion) {
    const { status_path, events_path, result_path, guest_log_path, state_dir } = spec.paths
    const artifacts = { status_path, events_path, result_path, log_path: guest_log_path }
    return { guest_autostart: { ...autostart, startup_plan: { daemon_state_dir: state_dir, artifacts } } }
  }
  return {
    ...DEFAULTS,
    ...(params.ttl_seconds === undefined ? {} : { ttl_seconds: params.ttl_seconds }),
    ...(params.spawn_variant === undefined ? {} : { spawn_variant: params.spawn_variant }),
    cpu: params.cpu ?? spec.resources.vcpu_count ?? SIZE.vcpus,
    memory_mb: params.memory_mb ?? spec.resources.memory_mib ?? SIZE.memoryMib,
    guest_autostart: autostart,
  }
}

const madeOf = (handle: MicrovmHandle, { ip }: Vm): Made<MicrovmHandle> => ({ handle, metadata: ip === undefined ? {} : { vm_ip: ip } })

const nextStepFor = (urls: readonly string[]): string =>
  `Start the vm-spawner, or take it out of runtimes.microvm.spawner_urls: ${urls.map((url) => `curl ${url}/healthz`).join('; ')}`

/** What the spec gives is what was rented: a parameter asks for that or less. @throws invalid_request */
function atMost(field: string, asked: number | undefined, given: number | undefined): void {
  if (asked === undefined || given === undefined || asked <= given) return
  throw new PylonError('invalid_request', `The microvm parameter ${field} is ${asked}: this class gives at most ${given}.`, {
    details: { field },
  })
}

function sum(a: Capacity['free'], b: Capacity['free']) {
  return { instances: a.instances + b.instances, vcpus: a.vcpus + b.vcpus, memoryMib: a.memoryMib + b.memoryMib }
}
