/** What outlives a node in these tests: a relay and a mint in memory, behind the interfaces of nostr and wallet; signatures and database are real. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ManualClock } from '../../../src/base/clock.ts'
import { type Config, DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { PylonError } from '../../../src/base/errors.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { seededRandom } from '../../../src/base/random.ts'
import { Scope } from '../../../src/base/scope.ts'
import type { JobState } from '../../../src/base/states.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import { matchesAny, tagValue } from '../../../src/nostr/nips/nip01.ts'
import { parseFeedback } from '../../../src/nostr/nips/nip90-answers.ts'
import type { Filter, Keyring, LocalSigner, Nostr, NostrEvent, SubscriptionSpec } from '../../../src/nostr/types.ts'
import type { Backend } from '../../../src/provider/backends/backend.ts'
import { Provider } from '../../../src/provider/provider.ts'
import { pendingAfter } from '../../../src/store/nostr/outbox.ts'
import { transitionsOf } from '../../../src/store/selling/job-steps.ts'
import { getJob, type JobRow } from '../../../src/store/selling/jobs.ts'
import type { CommitHook, Store } from '../../../src/store/store.ts'
import { MemoryMint, MemoryWallets } from '../../support/memory-mint.ts'
import { newestAmong } from '../../support/newest.ts'
import { openStore } from '../../support/store.ts'

/** States of a job in which nothing more happens, unless money arrives late or is held. */
export const RESTING_STATES: readonly JobState[] = ['refused', 'expired', 'settled', 'failed', 'refunded', 'cancelled']

export const key = (n: number): LocalSigner => createSigner(new Uint8Array(32).fill(n))

export const node = key(1)
export const customer = key(2)
export const stranger = key(3)

/** The outside: what was published, which invoices are paid, which tokens are spent. */
export class World extends MemoryMint {
  readonly clock = new ManualClock()
  readonly dir = mkdtempSync(join(tmpdir(), 'pylon-provider-'))
  readonly published: NostrEvent[] = []
  readonly #sentIds = new Set<string>()
  relayUp = true
  /** The words in which the relay refuses an event for good. */
  refuses: (event: NostrEvent) => string | undefined = () => undefined

  nowS(): number {
    return Math.floor(this.clock.now() / 1000)
  }

  /** Takes an event as a relay does; false when it had it. */
  accept(event: NostrEvent): boolean {
    if (this.#sentIds.has(event.id)) return false
    this.#sentIds.add(event.id)
    this.published.push(event)
    return true
  }

  answers(jobId: string, kind: number): NostrEvent[] {
    return this.published.filter((event) => event.kind === kind && tagValue(event, 'e') === jobId)
  }

  /** Feedback of a job as the customer reads it. */
  feedback(
    jobId: string,
  ): { status: string; extra: string | undefined; refundToken: string | undefined; bolt11: string | undefined; content: string }[] {
    return this.answers(jobId, 7000).map((event) => parseFeedback(event, customer))
  }

  close(): void {
    rmSync(this.dir, { recursive: true, force: true })
  }
}

export interface TestNode {
  readonly store: Store
  readonly provider: Provider
  readonly nostr: Nostr
  readonly wallets: MemoryWallets
  /** Hands an event to the subscriptions that match it, as a relay would. */
  deliver(event: NostrEvent): Promise<void>
  job(id: string): JobRow
  path(id: string): string[]
  isDead(): boolean
  /** Ends the process without any goodbye. */
  crash(): void
  stop(): Promise<void>
}

export interface NodeOptions {
  readonly config?: Partial<Config['provider']>
  readonly backends?: Backend[]
  readonly expectsMint?: boolean
  /** Dies right after the commit that holds this label. */
  readonly dieAt?: string
  /** Dies before that commit instead. */
  readonly before?: boolean
}

export async function startNode(world: World, options: NodeOptions = {}): Promise<TestNode> {
  let dead = false
  const hook: CommitHook = {
    beforeCommit(labels) {
      if (options.dieAt !== undefined && options.before === true && labels.includes(options.dieAt)) dead = true
      if (dead) throw new PylonError('shutting_down', 'The process is dead.')
    },
    afterCommit(labels) {
      if (options.dieAt !== undefined && labels.includes(options.dieAt)) dead = true
    },
  }
  const store = openStore(join(world.dir, 'pylon.db'), { hook })
  const config: Config = { ...DEFAULT_CONFIG, provider: { ...DEFAULT_CONFIG.provider, probe: false, ...options.config } }
  const isDead = () => dead
  const { nostr, deliver } = fakeNostr(world, store, isDead)
  const wallets = new MemoryWallets({ mint: world, store, clock: world.clock, pubkey: node.pubkey, cause: 'job', isDead })
  const { backends } = options
  const scope = Scope.root('provider', { clock: world.clock, random: seededRandom(1) }, ({ path, error }) => {
    if (!dead) throw new Error(`${path} failed`, { cause: error })
  })
  const provider = new Provider({
    store,
    scope,
    logger: silentLogger,
    config: () => config,
    nostr,
    wallets,
    // An exception of the owner, which is none for who orders a job.
    dialer: {
      fetch: async (_url, options) => {
        if (options?.namedByStranger !== undefined)
          throw new PylonError('address_refused', 'https://intranet.example is refused: it resolves to 10.1.2.3.')
        return { status: 200, headers: {}, text: 'of the owner' }
      },
    },
    ...(backends === undefined ? {} : { backends: () => backends }),
    expectsMint: () => options.expectsMint === true,
  })
  await provider.start().catch((error: unknown) => {
    if (!dead) throw error
  })
  await wallets.announceSettled().catch((error: unknown) => {
    if (!dead) throw error
  })
  return {
    store,
    provider,
    nostr,
    wallets,
    deliver,
    job(id) {
      const job = getJob(store, id)
      if (job === undefined) throw new Error(`no job ${id}`)
      return job
    },
    path: (id) => transitionsOf(store, id).map((transition) => transition.to),
    isDead,
    crash() {
      dead = true
    },
    async stop() {
      let isClosed = false
      const closed = provider.close(0).then(() => {
        isClosed = true
      })
      // What heeds no signal is waited for as long as a scope does.
      for (let waitMs = 0; !isClosed; waitMs = 500) await world.clock.advance(waitMs)
      await closed
      dead = true
      store.close()
    },
  }
}

function fakeNostr(world: World, store: Store, isDead: () => boolean): { nostr: Nostr; deliver(event: NostrEvent): Promise<void> } {
  const specs = new Set<SubscriptionSpec>()
  const listeners = new Set<{ filters: readonly Filter[]; onEvent(event: NostrEvent, relay: string): void }>()
  const handlers: { prefix: string; handler: (key: string, eventId: string) => Promise<void> }[] = []
  const givenUp: { prefix: string; handler: (key: string, why: string) => Promise<void> }[] = []
  const relays = ['wss://relay.test']
  let flushed = 0

  const keyring: Keyring = {
    locked: false,
    node: () => node,
    customer: () => key(9),
    signer: () => node,
    localSigner: () => node,
    account: () => node,
    owns: (pubkey) => pubkey === node.pubkey || pubkey === key(9).pubkey,
    walletSeed: () => new Uint8Array(64),
    walletSigner: () => node,
  }

  async function flush(): Promise<void> {
    if (!world.relayUp || isDead()) return
    for (const message of pendingAfter(store, flushed, 10_000)) {
      flushed = message.id
      const { sig: _sig, ...event } = message.event
      const signed = node.sign(event)
      if (signed.id !== event.id) throw new Error('the id changed when it was signed')
      const refusal = world.refuses(signed)
      if (refusal !== undefined) {
        for (const { prefix, handler } of givenUp)
          if (message.key.startsWith(prefix)) await handler(message.key, `${relays[0]}: ${refusal}`)
        continue
      }
      if (world.accept(signed))
        for (const listener of listeners) if (matchesAny(listener.filters, signed)) listener.onEvent(signed, relays[0] ?? '')
      for (const { prefix, handler } of handlers) if (message.key.startsWith(prefix)) await handler(message.key, event.id)
    }
  }

  const nostr: Nostr = {
    keyring,
    relays,
    verifier: 'test',
    start: () => undefined,
    health: () => [],
    subscribe(spec) {
      specs.add(spec)
      return { close: () => specs.delete(spec) }
    },
    query: (filters) => Promise.resolve({ events: world.published.filter((event) => matchesAny(filters, event)), complete: true }),
    listen(spec) {
      listeners.add(spec)
      for (const event of world.published) if (matchesAny(spec.filters, event)) spec.onEvent(event, relays[0] ?? '')
      return Promise.resolve({ close: () => listeners.delete(spec) })
    },
    nudgeOutbox() {
      setImmediate(() => {
        flush().catch((error: unknown) => {
          if (!isDead()) throw error
        })
      })
    },
    onPublished: (prefix, handler) => void handlers.push({ prefix, handler }),
    onGivenUp: (prefix, handler) => void givenUp.push({ prefix, handler }),
    relaysToReach: (_pubkey, hints = []) => Promise.resolve([...relays, ...hints]),
    dmRelaysOf: () => Promise.resolve(undefined),
    newestOf: (pubkey, kinds) => Promise.resolve(newestAmong(world.published, pubkey, kinds, relays)),
    profileOf: () => Promise.resolve(undefined),
  }
  return {
    nostr,
    async deliver(event) {
      world.accept(event)
      for (const spec of [...specs]) if (matchesAny(spec.filters, event)) await spec.onEvent(event, relays[0] ?? '')
    },
  }
}

/** A request as a customer signs it. */
export function request(
  world: World,
  options: { kind?: number; tags?: string[][]; content?: string; ageS?: number; by?: LocalSigner; to?: string | null; input?: string } = {},
): NostrEvent {
  const to = options.to === undefined ? node.pubkey : options.to
  return (options.by ?? customer).sign({
    kind: options.kind ?? 5001,
    created_at: world.nowS() - (options.ageS ?? 0),
    tags: [
      ...(options.input === undefined
        ? [['i', 'The first sentence is here. The second one follows it. A third ends the text.', 'text']]
        : []),
      ...(options.input === undefined || options.input === '' ? [] : [['i', options.input, 'text']]),
      ...(to === null ? [] : [['p', to]]),
      ...(options.tags ?? []),
    ],
    content: options.content ?? '',
  })
}

/** A backend that answers as it is told. */
export function scriptedBackend(run: Backend['run'], options: { kind?: number; inline?: boolean } = {}): Backend & { runs: number } {
  const backend = {
    name: 'scripted',
    inline: options.inline ?? false,
    runs: 0,
    kinds: () => [options.kind ?? 5001],
    check: () => undefined,
    run: ((work, signal) => {
      backend.runs++
      return run(work, signal)
    }) as Backend['run'],
    health: () => ({ state: 'ok' as const, models: [] }),
    probe: () => Promise.resolve(),
  }
  return backend
}
