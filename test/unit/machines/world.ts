/** Machines over a real database, with a substrate, a mint and a relay in memory that outlive a node; the node can die at any commit. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Clock, systemClock } from '../../../src/base/clock.ts'
import { type Config, DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { type RuntimesConfig, runtimesConfig } from '../../../src/base/config-runtimes.ts'
import { PylonError } from '../../../src/base/errors.ts'
import type { Json } from '../../../src/base/json.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import type { ControlCommandInput } from '../../../src/nostr/control/commands.ts'
import { type ControlResult, type ControlStatus, decodeCommand, encodeCommand } from '../../../src/nostr/control/envelopes.ts'
import type { ControlProvider } from '../../../src/nostr/control/vocabulary.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import type { Keyring, NostrEvent } from '../../../src/nostr/types.ts'
import { MachineService } from '../../../src/provider/machines/service.ts'
import type {
  AdapterProbe,
  Capacity,
  CollectedOutputs,
  PersistentVolume,
  PromptCall,
  Provisioned,
  ProvisionInput,
  Readiness,
  RuntimeAdapter,
  RuntimeHandle,
  Snapshot,
} from '../../../src/runtime/adapter.ts'
import type { RuntimeStatusSnapshot } from '../../../src/runtime/contract/lifecycle.ts'
import { pendingAfter } from '../../../src/store/nostr/outbox.ts'
import type { CommitHook, Store } from '../../../src/store/store.ts'
import { MemoryMint, MemoryWallets } from '../../support/memory-mint.ts'
import { testScope } from '../../support/scope.ts'
import { openStore } from '../../support/store.ts'

export const key = (n: number) => createSigner(new Uint8Array(32).fill(n))
export const node = key(1)
export const owner = key(2)
export const stranger = key(3)
export const friend = key(4)

/** A substrate that keeps its instances in memory and does as it is told. */
export class Machinery implements RuntimeAdapter {
  readonly provider: ControlProvider
  readonly instances = new Map<
    string,
    { handle: RuntimeHandle; input: ProvisionInput; state: Readiness['state']; byGuest?: true; snapshots: Snapshot[] }
  >()
  /** Volumes that outlive instances. */
  readonly volumes = new Set<string>()
  readonly volumeOwners = new Map<string, { ownerPubkey: string; name: string; runtimeId: string }>()
  failVolumes: PylonError | undefined
  failCapacity: PylonError | undefined
  failSnapshot: PylonError | undefined
  calls: string[] = []
  probed: AdapterProbe = { usable: true, isolated: true }
  protocols: Provisioned['protocols'] = ['pi', 'acp']
  runtimeClass: string | undefined
  failProvision: PylonError | undefined
  /** What it refuses to begin with. */
  impossible: PylonError | undefined
  failTeardown: PylonError | undefined
  /** What a new managed instance says of itself, and a one-shot one. */
  firstState: Readiness['state'] = 'ready'
  runState: Readiness['state'] = 'completed'
  outputs: Partial<CollectedOutputs> = { stdout: 'out\n', stderr: '' }
  exitCode = 0
  places = 10
  /** Holds provisions up until it is resolved. */
  gate: Promise<void> = Promise.resolve()
  /** Holds commands inside instances up until it is resolved. */
  execGate: Promise<void> = Promise.resolve()
  /** What guests say of themselves. */
  guest: RuntimeStatusSnapshot | undefined
  isDead: () => boolean = () => false

  constructor(provider: ControlProvider = 'incus') {
    this.provider = provider
  }

  async probe(): Promise<AdapterProbe> {
    return this.probed
  }

  async capacity(): Promise<Capacity> {
    if (this.failCapacity !== undefined) throw this.failCapacity
    const free = Math.max(0, this.places - this.instances.size)
    return { instances: this.places, vcpus: 64, memoryMib: 65_536, free: { instances: free, vcpus: 64, memoryMib: 65_536 } }
  }

  async assertPossible(): Promise<void> {
    if (this.impossible !== undefined) throw this.impossible
  }

  async provision(input: ProvisionInput, signal: AbortSignal): Promise<Provisioned> {
    this.calls.push(`provision ${input.runtimeId}`)
    await Promise.race([
      this.gate,
      new Promise<never>((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true })),
    ])
    signal.throwIfAborted()
    if (this.failProvision !== undefined) throw this.failProvision
    if (this.isDead()) throw new Error('a dead process provisions nothing')
    const handle = { instance: `i-${input.runtimeId}` }
    const state = input.protocol === null ? this.runState : this.firstState
    if (!this.instances.has(input.runtimeId)) this.instances.set(input.runtimeId, { handle, input, state, snapshots: [] })
    for (const mount of input.spec.mounts) {
      this.volumes.add(mount.source)
      const { runtimeId, ownerPubkey } = input
      this.volumeOwners.set(mount.source, { runtimeId, ownerPubkey, name: input.spec.identity.instance_name })
    }
    const runtimeClass = this.runtimeClass === undefined ? {} : { runtimeClass: this.runtimeClass }
    return { handle, region: 'lab', ...runtimeClass, protocols: this.protocols, metadata: { made: true } }
  }

  #of(handle: RuntimeHandle) {
    const found = [...this.instances.entries()].find(([, entry]) => JSON.stringify(entry.handle) === JSON.stringify(handle))
    if (found === undefined) throw new PylonError('runtime_gone', 'The instance is no more.')
    return { id: found[0], entry: found[1] }
  }

  async readiness(handle: RuntimeHandle): Promise<Readiness> {
    const { entry } = this.#of(handle)
    if (this.guest !== undefined) return { state: entry.state, message: this.guest.message, status: this.guest }
    return { state: entry.state, message: `it is ${entry.state}`, ...(entry.byGuest === undefined ? {} : { byGuest: true }) }
  }

  async processWelcome(): Promise<Json> {
    return { processed: false, reason: 'by relay' }
  }

  async teardown(handle: RuntimeHandle, options: { keepVolume: boolean }): Promise<Json> {
    this.calls.push(`teardown ${JSON.stringify(handle)}`)
    if (this.failTeardown !== undefined) throw this.failTeardown
    for (const [id, entry] of this.instances) {
      if (JSON.stringify(entry.handle) !== JSON.stringify(handle)) continue
      this.instances.delete(id)
      if (!options.keepVolume) for (const mount of entry.input.spec.mounts) this.volumes.delete(mount.source)
    }
    return { teardown: 'deleted' }
  }

  async exec(handle: RuntimeHandle, call: { command: string }) {
    this.#of(handle)
    await this.execGate
    return { exitCode: 0, stdout: `ran ${call.command}`, stderr: '', truncated: false }
  }

  async prompt(handle: RuntimeHandle, call: PromptCall) {
    this.#of(handle)
    return { schema_version: 1 as const, session_id: call.sessionId, reply: `you said ${call.message}`, stop_reason: 'end_turn' as const }
  }

  async logs(): Promise<string> {
    return 'a log'
  }

  async collect(handle: RuntimeHandle): Promise<CollectedOutputs> {
    const { entry } = this.#of(handle)
    const ended = entry.state === 'completed' || entry.state === 'failed'
    const result = {
      schema_version: 1 as const,
      status: entry.state === 'completed' ? ('completed' as const) : ('failed' as const),
      finished_at: '2026-01-01T00:00:00Z',
      message: `ended with ${this.exitCode}`,
      exit_code: this.exitCode,
    }
    return {
      events: [],
      stdout: '',
      stderr: '',
      log: '',
      artifacts: [],
      truncated: false,
      problems: [],
      ...(ended ? { result } : {}),
      ...this.outputs,
    }
  }

  async recover(handle: RuntimeHandle): Promise<void> {
    this.#of(handle).entry.state = 'ready'
  }

  async snapshot(handle: RuntimeHandle, name = 'unnamed', options: { withinQuota?: boolean } = {}): Promise<Snapshot> {
    if (options.withinQuota === true && this.failSnapshot !== undefined) throw this.failSnapshot
    const made = { name, createdAt: Date.now() }
    this.#of(handle).entry.snapshots.unshift(made)
    return made
  }

  async listSnapshots(handle: RuntimeHandle): Promise<readonly Snapshot[]> {
    return this.#of(handle).entry.snapshots
  }

  async deleteSnapshot(handle: RuntimeHandle, name: string): Promise<void> {
    const { entry } = this.#of(handle)
    entry.snapshots = entry.snapshots.filter((snapshot) => snapshot.name !== name)
  }

  async restore(handle: RuntimeHandle, name: string | undefined): Promise<Snapshot> {
    const found = this.#of(handle).entry.snapshots.find((snapshot) => name === undefined || snapshot.name === name)
    if (found === undefined) throw new PylonError('runtime_failed', 'There is no snapshot.')
    return found
  }

  async backupStatus(handle: RuntimeHandle) {
    const { id, entry } = this.#of(handle)
    return {
      backupUnitKind: 'persistent_state_volume' as const,
      backupTarget: `pool/${id}`,
      recoveryPointKind: 'volume_snapshot' as const,
      snapshots: entry.snapshots,
    }
  }

  /** Sizes that it is told to lose hold of. */
  loose: { reason: string; nextStep: string } | undefined

  async proveSizes() {
    return this.loose
  }

  async listVolumes(): Promise<readonly PersistentVolume[]> {
    if (this.failVolumes !== undefined) throw this.failVolumes
    return [...this.volumes].map((id) => {
      const inUse = [...this.instances.values()].find(({ input }) => input.spec.mounts.some(({ source }) => source === id))
      const owner = this.volumeOwners.get(id)
      return { id, ownerPubkey: owner?.ownerPubkey, name: owner?.name, runtimeId: owner?.runtimeId, inUse: inUse !== undefined }
    })
  }

  async deleteVolume(id: string): Promise<void> {
    this.volumes.delete(id)
  }

  async listOwned() {
    return [...this.instances].map(([runtimeId, { handle }]) => ({ runtimeId, handle }))
  }
}

/** What outlives a node. */
export class World extends MemoryMint {
  readonly dir = mkdtempSync(join(tmpdir(), 'pylon-machines-'))
  readonly incus = new Machinery('incus')
  readonly local = new Machinery('local')
  /** Of nodes that start from now on. */
  clock: Clock = systemClock
  readonly #nodes: TestNode[] = []
  #serial = 0

  name(): string {
    return `k-${++this.#serial}`
  }

  async start(options: NodeOptions = {}): Promise<TestNode> {
    const started = await startNode(this, options)
    this.#nodes.push(started)
    return started
  }

  async close(): Promise<void> {
    for (const entry of this.#nodes) await entry.stop()
    rmSync(this.dir, { recursive: true, force: true })
  }
}

export interface NodeOptions {
  readonly runtimes?: Record<string, unknown>
  readonly network?: 'sandbox' | 'live'
  readonly healthEveryMs?: number
  /** Dies right after the commit that holds this label, or before it. */
  readonly dieAt?: string
  readonly before?: boolean
  /** Commits with this label fail so many times. */
  readonly failing?: { readonly label: string; times: number }
  /** Called before the start, with what sends commands. */
  readonly early?: (send: TestNode['send']) => void
}

export interface Sent {
  readonly statuses: ControlStatus[]
  readonly result: Promise<ControlResult>
}

export interface TestNode {
  readonly store: Store
  readonly machines: MachineService
  readonly config: { runtimes: RuntimesConfig }
  readonly notices: { tenant: string; requestId: string; status: ControlStatus }[]
  send(requester: string, command: ControlCommandInput, idempotencyKey?: string): Sent
  call(requester: string, command: ControlCommandInput, idempotencyKey?: string): Promise<ControlResult>
  published(): NostrEvent[]
  pay(leaseId: string): Promise<void>
  /** @param nth of those of the same lease */
  claimRefund(leaseId: string, nth?: number): Promise<void>
  isDead(): boolean
  crash(): Promise<void>
  stop(): Promise<void>
}

/** Rents by the hour, 3600 sats an hour: a sat a second. */
export const PAID_CLASS = {
  name: 'small',
  provider: 'incus',
  region: 'lab',
  protocols: ['pi', 'acp'],
  price_msats_per_hour: 3_600_000,
  acp_command: 'agent --acp',
  capacity: 3,
}

async function startNode(world: World, options: NodeOptions): Promise<TestNode> {
  let dead = false
  const hook: CommitHook = {
    beforeCommit(labels) {
      if (options.dieAt !== undefined && options.before === true && labels.includes(options.dieAt)) dead = true
      if (dead) throw new PylonError('shutting_down', 'The process is dead.')
      const { failing } = options
      if (failing !== undefined && failing.times > 0 && labels.includes(failing.label)) {
        failing.times--
        throw new Error('the disk has a fault')
      }
    },
    afterCommit(labels) {
      if (options.dieAt !== undefined && labels.includes(options.dieAt)) dead = true
    },
  }
  const store = openStore(join(world.dir, 'pylon.db'), { hook })
  const config: { runtimes: RuntimesConfig } & Config = {
    ...DEFAULT_CONFIG,
    runtimes: runtimesConfig.parse({ allowlist: [friend.pubkey], classes: [PAID_CLASS], ...options.runtimes }),
  }
  const isDead = () => dead
  for (const machinery of [world.incus, world.local]) machinery.isDead = isDead
  const keyring: Keyring = {
    locked: false,
    node: () => node,
    customer: () => owner,
    signer: () => node,
    localSigner: () => node,
    account: () => node,
    owns: (pubkey) => pubkey === node.pubkey || pubkey === owner.pubkey,
    walletSeed: () => new Uint8Array(64),
    walletSigner: () => node,
  }
  const wallets = new MemoryWallets({ mint: world, store, clock: world.clock, pubkey: node.pubkey, cause: 'lease', isDead })
  const notices: TestNode['notices'] = []
  const machines = new MachineService({
    scope: testScope(world.clock),
    store,
    logger: silentLogger,
    config: () => config,
    network: options.network ?? 'live',
    healthEveryMs: options.healthEveryMs ?? 300,
    nostr: { keyring, relays: ['wss://relay.test'], nudgeOutbox: () => undefined },
    wallets,
    adapters: () => [world.incus, world.local],
    transport: {
      listen: () => undefined,
      close: () => undefined,
      async notify(tenant, requestId, status) {
        notices.push({ tenant, requestId, status })
        return []
      },
    },
  })
  let stopped = false
  const stop = async () => {
    if (stopped) return
    stopped = true
    await machines.close()
    store.close()
  }
  const send: TestNode['send'] = (requester, command, idempotencyKey = world.name()) => {
    const statuses: ControlStatus[] = []
    const envelope = decodeCommand(encodeCommand({ requestId: world.name(), idempotencyKey, command }))
    const result = machines.handle(requester, envelope, (status) => statuses.push(status))
    result.catch(() => undefined)
    return { statuses, result }
  }
  options.early?.(send)
  await machines.start().catch((error: unknown) => {
    if (!dead) throw error
  })
  await wallets.announceSettled().catch((error: unknown) => {
    if (!dead) throw error
  })
  return {
    store,
    machines,
    config,
    notices,
    send,
    call: (requester, command, idempotencyKey) => send(requester, command, idempotencyKey).result,
    published: () => pendingAfter(store, 0, 1000).map((message) => node.sign(message.event)),
    pay: (leaseId) => wallets.payInvoice(leaseId),
    claimRefund: (leaseId, nth) => wallets.claimRefund(leaseId, nth),
    isDead,
    async crash() {
      dead = true
      await stop()
    },
    stop,
  }
}
