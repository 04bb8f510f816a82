/** What outlives a node in these tests: a relay and a mint in memory, behind the interfaces of nostr and wallet; signatures and database are real. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Sats, sats } from '../../../src/base/amounts.ts'
import { ManualClock } from '../../../src/base/clock.ts'
import { type Config, DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { PylonError } from '../../../src/base/errors.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { matchesAny, tagValue } from '../../../src/nostr/nips/nip01.ts'
import { parseFeedback } from '../../../src/nostr/nips/nip90-answers.ts'
import { createSigner } from '../../../src/nostr/signer.ts'
import type { Filter, Keyring, Nostr, NostrEvent, Signer, SubscriptionSpec } from '../../../src/nostr/types.ts'
import type { Backend } from '../../../src/provider/backends/backend.ts'
import { createProvider, type Provider } from '../../../src/provider/provider.ts'
import { getJob, type JobRow, transitionsOf } from '../../../src/store/jobs.ts'
import { postEntry } from '../../../src/store/ledger.ts'
import { pendingAfter } from '../../../src/store/outbox.ts'
import { type CommitHook, Store } from '../../../src/store/store.ts'
import type { Invoice, SentToken, Wallet, WalletEvent, Wallets } from '../../../src/wallet/types.ts'

export const MINT = 'https://mint.test'
export const key = (n: number): Signer => createSigner(new Uint8Array(32).fill(n))

export const node = key(1)
export const customer = key(2)
export const stranger = key(3)

interface FakeToken {
  readonly sats: bigint
  readonly lock: string | undefined
  readonly mint: string
  spentBy: string | undefined
}

type Handler = (event: WalletEvent) => Promise<void>

/** The outside: what was published, which invoices are paid, which tokens are spent. */
export class World {
  readonly clock = new ManualClock()
  readonly dir = mkdtempSync(join(tmpdir(), 'pylon-provider-'))
  readonly published: NostrEvent[] = []
  readonly tokens = new Map<string, FakeToken>()
  readonly invoices = new Map<string, Invoice>()
  readonly sent = new Map<string, SentToken>()
  readonly received = new Map<string, bigint>()
  readonly #sentIds = new Set<string>()
  relayUp = true
  mintUp = true
  mints = [MINT]
  /** Makes the next receive leave its outcome open. */
  receiveUnknown = false
  #tokenCount = 0

  nowS(): number {
    return Math.floor(this.clock.now() / 1000)
  }

  token(amount: bigint, options: { lock?: string; mint?: string } = {}): string {
    const name = `cashuB${++this.#tokenCount}`
    this.tokens.set(name, { sats: amount, lock: options.lock, mint: options.mint ?? MINT, spentBy: undefined })
    return name
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
  readonly wallets: FakeWallets
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
  const store = Store.open(join(world.dir, 'pylon.db'), { hook })
  const config: Config = { ...DEFAULT_CONFIG, provider: { ...DEFAULT_CONFIG.provider, probe: false, ...options.config } }
  const isDead = () => dead
  const { nostr, deliver } = fakeNostr(world, store, isDead)
  const wallets = new FakeWallets(world, store, isDead)
  const { backends } = options
  const provider = createProvider({
    store,
    clock: world.clock,
    logger: silentLogger,
    config: () => config,
    nostr,
    wallets,
    // An exception of the owner, which is none for who orders a job.
    dialer: {
      fetch: async (_url, options) => {
        if (options?.namedByStranger === true) throw new PylonError('address_refused', 'The address is not public.')
        return { status: 200, headers: {}, text: 'of the owner' }
      },
    },
    ...(backends === undefined ? {} : { backends: () => backends }),
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
      await provider.close(0)
      dead = true
      store.close()
    },
  }
}

function fakeNostr(world: World, store: Store, isDead: () => boolean): { nostr: Nostr; deliver(event: NostrEvent): Promise<void> } {
  const specs = new Set<SubscriptionSpec>()
  const listeners = new Set<{ filters: readonly Filter[]; onEvent(event: NostrEvent, relay: string): void }>()
  const handlers: { prefix: string; handler: (key: string, eventId: string) => Promise<void> }[] = []
  const relays = ['wss://relay.test']
  let flushed = 0

  const keyring: Keyring = {
    locked: false,
    node: () => node,
    customer: () => key(9),
    signer: () => node,
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
    close: () => Promise.resolve(),
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
    relaysToReach: (_pubkey, hints = []) => Promise.resolve([...relays, ...hints]),
    dmRelaysOf: () => Promise.resolve(undefined),
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

/** The wallet's contract over the world's mint: idempotent by key, ledger posted with the value, events at least once. */
export class FakeWallets implements Wallets {
  readonly world: World
  readonly store: Store
  readonly isDead: () => boolean
  readonly #handlers: Handler[] = []

  constructor(world: World, store: Store, isDead: () => boolean) {
    this.world = world
    this.store = store
    this.isDead = isDead
  }

  of(): Wallet {
    const { world } = this
    return {
      owner: { kind: 'node', pubkey: node.pubkey },
      lockPubkey: `02${node.pubkey}`,
      balance: () => ({ balanceSats: sats(0), owedSats: sats(0), atRiskSats: sats(0), mints: [] }),
      createInvoice: async (request) => {
        this.#assertUp()
        const known = world.invoices.get(request.idempotencyKey)
        if (known !== undefined) return known
        const invoice: Invoice = {
          id: request.idempotencyKey,
          request: `lnbcrt${request.amountSats}-${request.idempotencyKey}`,
          quoteId: request.idempotencyKey,
          paymentHash: '00'.repeat(32),
          amountSats: request.amountSats,
          mintUrl: MINT,
          expiresAt: world.clock.now() + 3_600_000,
          state: 'unpaid',
        }
        world.invoices.set(request.idempotencyKey, invoice)
        return invoice
      },
      invoice: (idempotencyKey) => world.invoices.get(idempotencyKey),
      inspectToken: async (token) => {
        const found = this.#token(token)
        const lock = found.lock === undefined ? 'none' : found.lock === `02${node.pubkey}` ? 'ours' : 'other'
        return { mintUrl: found.mint, unit: 'sat', faceSats: sats(found.sats), netSats: sats(found.sats), lock }
      },
      receiveToken: async (request) => {
        this.#assertUp()
        const found = this.#token(request.token)
        if (found.spentBy !== undefined && found.spentBy !== request.idempotencyKey)
          throw new PylonError('token_spent', 'The token was spent.')
        if (world.receiveUnknown) throw new PylonError('payment_unknown', 'The mint did not answer.')
        found.spentBy = request.idempotencyKey
        world.received.set(request.idempotencyKey, found.sats)
        await this.#credit(request.idempotencyKey, request.cause.id, found.sats)
        return { amountSats: sats(found.sats), mintUrl: found.mint }
      },
      sendToken: async (request) => {
        this.#assertUp()
        const known = world.sent.get(request.idempotencyKey)
        if (known !== undefined) return known
        const token = world.token(request.amountSats, request.lockTo === undefined ? {} : { lock: request.lockTo })
        const sent: SentToken = {
          operationId: request.idempotencyKey,
          token,
          amountSats: request.amountSats,
          mintUrl: MINT,
          state: 'pending',
        }
        const msats = request.amountSats * 1000n
        await this.store.write(
          postEntry({
            id: `send:${request.idempotencyKey}`,
            cause: { type: 'job', id: request.cause.id },
            at: world.clock.now(),
            postings: [
              { account: `node/wallet/${MINT}`, amountMsats: -msats },
              { account: request.debitAccount, amountMsats: msats },
            ],
          }),
        )
        world.sent.set(request.idempotencyKey, sent)
        return sent
      },
      sentToken: (idempotencyKey) => world.sent.get(idempotencyKey),
      reclaim: () => Promise.reject(new PylonError('conflict', 'not here')),
      pay: () => Promise.reject(new PylonError('payment_failed', 'not here')),
      payment: () => undefined,
    }
  }

  mints() {
    return this.world.mints.map((url) => ({ url, capSats: sats(100_000), addedAt: 0 }))
  }

  addMint = () => Promise.reject(new PylonError('mint_unreachable', 'not here'))
  removeMint = () => Promise.resolve()
  transfer = () => Promise.resolve()
  restore = () => Promise.reject(new PylonError('mint_unreachable', 'not here'))
  start = () => Promise.resolve()
  close = () => Promise.resolve()

  onEvent(_type: string, handler: Handler): void {
    this.#handlers.push(handler)
  }

  /** Somebody pays the invoice of a job. */
  async payInvoice(jobId: string): Promise<void> {
    const invoiceKey = `job:${jobId}:invoice`
    const invoice = this.world.invoices.get(invoiceKey)
    if (invoice === undefined) throw new Error(`no invoice of ${jobId}`)
    this.world.invoices.set(invoiceKey, { ...invoice, state: 'settled' })
    await this.#credit(invoiceKey, jobId, invoice.amountSats)
    await this.emit({ type: 'invoice_settled', ...this.#about(jobId), amountSats: invoice.amountSats, idempotencyKey: invoiceKey })
  }

  /** The customer spends its refund. */
  async claimRefund(jobId: string): Promise<void> {
    const refundKey = `job:${jobId}:refund`
    const sent = this.world.sent.get(refundKey)
    if (sent === undefined) throw new Error(`no refund of ${jobId}`)
    this.world.sent.set(refundKey, { ...sent, state: 'claimed' })
    await this.emit({ type: 'sent_claimed', ...this.#about(jobId), idempotencyKey: refundKey })
  }

  /** What the wallet says again after a restart: everything that settled. */
  async announceSettled(): Promise<void> {
    for (const [invoiceKey, invoice] of this.world.invoices) {
      const jobId = invoiceKey.split(':')[1] ?? ''
      if (invoice.state === 'settled') {
        await this.#credit(invoiceKey, jobId, invoice.amountSats)
        await this.emit({ type: 'invoice_settled', ...this.#about(jobId), amountSats: invoice.amountSats, idempotencyKey: invoiceKey })
      }
    }
    for (const [tokenKey, amount] of this.world.received) {
      await this.#credit(tokenKey, tokenKey.split(':')[1] ?? '', amount)
      await this.emit({
        type: 'token_received',
        ...this.#about(tokenKey.split(':')[1] ?? ''),
        amountSats: sats(amount),
        idempotencyKey: tokenKey,
      })
    }
  }

  async emit(event: WalletEvent): Promise<void> {
    for (const handler of this.#handlers) {
      try {
        await handler(event)
      } catch (error) {
        if (!this.isDead()) throw error
      }
    }
  }

  #about(jobId: string): { cause: { type: 'job'; id: string }; owner: { kind: 'node'; pubkey: string } } {
    return { cause: { type: 'job', id: jobId }, owner: { kind: 'node', pubkey: node.pubkey } }
  }

  #token(token: string): FakeToken {
    const found = this.world.tokens.get(token)
    if (found === undefined) throw new PylonError('token_invalid', 'The token cannot be read.')
    if (!this.world.mints.includes(found.mint)) throw new PylonError('mint_not_allowed', 'The mint is not on the list.')
    return found
  }

  async #credit(id: string, jobId: string, amount: bigint | Sats): Promise<void> {
    await this.store.write(
      postEntry({
        id: `receive:${id}`,
        cause: { type: 'job', id: jobId },
        at: this.world.clock.now(),
        postings: [
          { account: `node/wallet/${MINT}`, amountMsats: amount * 1000n },
          { account: `node/deposit/job:${jobId}`, amountMsats: -amount * 1000n },
        ],
      }),
    )
  }

  #assertUp(): void {
    if (!this.world.mintUp) throw new PylonError('mint_unreachable', 'The mint does not answer.')
  }
}

/** A request as a customer signs it. */
export function request(
  world: World,
  options: { kind?: number; tags?: string[][]; content?: string; ageS?: number; by?: Signer; to?: string | null; input?: string } = {},
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
