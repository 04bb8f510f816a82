/** A home for hosts under test: real store, keys and codecs; one relay and wallets in memory, and a clock that is turned by hand. */
import { join } from 'node:path'
import type { WalletOwner } from '../../../src/base/accounts.ts'
import { type Sats, sats } from '../../../src/base/amounts.ts'
import { ManualClock } from '../../../src/base/clock.ts'
import { type Config, DEFAULT_CONFIG } from '../../../src/base/config.ts'
import { PylonError } from '../../../src/base/errors.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { Host } from '../../../src/host/host.ts'
import type { HostDeps } from '../../../src/host/parts.ts'
import { HomeKeyring } from '../../../src/nostr/keys/keyring.ts'
import { secretOfAccount, seedOfWords } from '../../../src/nostr/keys/mnemonic.ts'
import { createSigner } from '../../../src/nostr/keys/signer.ts'
import { isSigned, matchesAny } from '../../../src/nostr/nips/nip01.ts'
import type { EventTemplate, LocalSigner, Nostr, NostrEvent, SubscriptionSpec } from '../../../src/nostr/types.ts'
import { pendingAfter, recordDeliveries } from '../../../src/store/nostr/outbox.ts'
import type { CommitHook, Store } from '../../../src/store/store.ts'
import type { PayResult, Wallet, WalletEvent, Wallets } from '../../../src/wallet/types.ts'
import type { SendZap } from '../../../src/wallet/zaps/zaps.ts'
import { newestAmong } from '../../support/newest.ts'
import { testScope } from '../../support/scope.ts'
import { openStore } from '../../support/store.ts'

export const WORDS = 'abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about'
const RELAY = 'ws://relay.test'
export const START_MS = Date.UTC(2026, 0, 1)

/** A person out there: a key that is not of this home. */
export const stranger = (fill: number): LocalSigner => createSigner(new Uint8Array(32).fill(fill))

/** What outlives a crash besides the database: the relay's events, and the wallets' books. */
export class Outside {
  readonly events = new Map<string, NostrEvent>()
  readonly inboxes = new Map<string, string[]>()
  readonly balances = new Map<string, bigint>()
  readonly payments = new Map<string, PayResult | { state: 'failed'; reason: string }>()
  readonly transfers = new Map<string, bigint>()
  readonly zaps: Parameters<SendZap>[0][] = []
  zapOutcome: 'paid' | 'unknown' | 'failed' = 'paid'
  accepts = true
  /** Whether look-ups are answered. */
  answers = true
  /** The words in which the relay refuses an event for good. */
  refuses: (event: NostrEvent) => string | undefined = () => undefined

  ofKind(kind: number, author?: string): NostrEvent[] {
    return [...this.events.values()].filter((event) => event.kind === kind && (author === undefined || event.pubkey === author))
  }
}

export interface World {
  readonly host: Host
  readonly deps: HostDeps
  readonly store: Store
  readonly clock: ManualClock
  readonly outside: Outside
  readonly keyring: HomeKeyring
  /** As if somebody published it. */
  say(author: LocalSigner, template: Partial<EventTemplate>): Promise<NostrEvent>
  deliver(event: NostrEvent): Promise<void>
  fund(pubkey: string, amount: number, tell?: boolean): Promise<void>
  walletEvent(event: WalletEvent): Promise<void>
  /** Closes the store under the host's feet, as a crash would. */
  crash(): void
  close(): Promise<void>
}

class MemoryRelay {
  readonly #subscriptions = new Set<SubscriptionSpec>()
  readonly #published = new Map<string, (key: string, eventId: string) => Promise<void>>()
  readonly #givenUp = new Map<string, (key: string, why: string) => Promise<void>>()
  readonly #store: Store
  readonly #outside: Outside
  readonly #keyring: HomeKeyring
  readonly #clock: ManualClock
  #lastId = 0

  constructor(store: Store, outside: Outside, keyring: HomeKeyring, clock: ManualClock) {
    this.#store = store
    this.#outside = outside
    this.#keyring = keyring
    this.#clock = clock
  }

  nostr(): Nostr {
    return {
      keyring: this.#keyring,
      relays: [RELAY],
      verifier: 'test',
      start: () => undefined,
      health: () => [{ url: RELAY, state: 'connected', reason: undefined, lastEventAt: undefined, cursorLagS: 0, outboxDepth: 0 }],
      subscribe: (spec) => {
        this.#subscriptions.add(spec)
        return { close: () => this.#subscriptions.delete(spec) }
      },
      query: async (filters) => ({
        events: [...this.#outside.events.values()].filter((event) => matchesAny(filters, event)),
        complete: true,
      }),
      listen: async () => ({ close: () => undefined }),
      nudgeOutbox: () => void this.flush().catch(() => undefined),
      onPublished: (prefix, handler) => void this.#published.set(prefix, handler),
      onGivenUp: (prefix, handler) => void this.#givenUp.set(prefix, handler),
      relaysToReach: async () => [RELAY],
      dmRelaysOf: async (pubkey) => {
        if (!this.#outside.answers) throw new PylonError('relay_unreachable', 'No relay that could know answered.')
        return this.#outside.inboxes.get(pubkey)
      },
      newestOf: async (pubkey, kinds, relays = []) =>
        newestAmong(this.#outside.events.values(), pubkey, kinds, this.#outside.answers ? [RELAY, ...relays] : []),
      profileOf: async () => undefined,
    }
  }

  /** Sends what is due, as the outbox would; also what a crash left behind. */
  async flush(): Promise<void> {
    if (!this.#outside.accepts) return
    for (const message of pendingAfter(this.#store, this.#lastId, 100)) {
      this.#lastId = Math.max(this.#lastId, message.id)
      const event = isSigned(message.event) ? message.event : await this.#keyring.signer(message.event.pubkey).sign(message.event)
      const refusal = this.#outside.refuses(event)
      if (refusal === undefined) this.#outside.events.set(event.id, event)
      const outcomes = message.deliveries.map(({ relay }) => ({
        messageId: message.id,
        relay,
        state: refusal === undefined ? ('accepted' as const) : ('rejected' as const),
        attempts: 1,
        error: refusal ?? null,
        nextAt: 0,
      }))
      await this.#store.write(recordDeliveries({ outcomes, at: this.#clock.now() }))
      if (refusal !== undefined) {
        for (const [prefix, handler] of this.#givenUp)
          if (message.key.startsWith(prefix)) await handler(message.key, `${RELAY}: ${refusal}`)
        continue
      }
      for (const [prefix, handler] of this.#published) if (message.key.startsWith(prefix)) await handler(message.key, event.id)
      await this.deliver(event)
    }
  }

  async deliver(event: NostrEvent): Promise<void> {
    for (const spec of this.#subscriptions) if (matchesAny(spec.filters, event)) await spec.onEvent(event, RELAY)
  }
}

function memoryWallets(outside: Outside): { wallets: Wallets; tell: (event: WalletEvent) => Promise<void> } {
  const handlers = new Map<string, (event: WalletEvent) => Promise<void>>()
  const unsupported = (): never => {
    throw new PylonError('internal', 'not in this test')
  }
  const balanceOf = (owner: WalletOwner): Sats => sats(outside.balances.get(owner.pubkey) ?? 0n)
  const of = (owner: WalletOwner): Wallet => ({
    owner,
    lockPubkey: `02${owner.pubkey}`,
    balance: () => ({ balanceSats: balanceOf(owner), owedSats: sats(0), atRiskSats: sats(0), mints: [] }),
    createInvoice: async (request) => ({
      id: request.idempotencyKey,
      request: `lnbcrt${request.amountSats}n${request.idempotencyKey.replaceAll(/[^a-z0-9]/g, '')}`,
      quoteId: 'q',
      paymentHash: '00',
      amountSats: request.amountSats,
      mintUrl: 'http://mint.test',
      expiresAt: request.expiresAt ?? 0,
      state: 'unpaid',
    }),
    invoice: () => undefined,
    inspectToken: unsupported,
    receiveToken: unsupported,
    sendToken: unsupported,
    sentToken: () => undefined,
    reclaim: unsupported,
    pay: async (request) => {
      const known = outside.payments.get(request.idempotencyKey)
      if (known !== undefined && known.state !== 'failed') return known
      const result: PayResult = { state: 'paid', operationId: 'op', preimage: '00', feeSats: sats(1) }
      outside.payments.set(request.idempotencyKey, result)
      return result
    },
    payment: (key) => outside.payments.get(key),
  })
  const wallets: Wallets = {
    of,
    mints: () => [],
    addMint: unsupported,
    removeMint: unsupported,
    restore: unsupported,
    transfer: async (from, to, amount, key) => {
      if (outside.transfers.has(key)) return sats(0)
      if (balanceOf(from) < amount) throw new PylonError('insufficient_funds', 'The wallet does not hold enough.')
      outside.transfers.set(key, amount)
      outside.balances.set(from.pubkey, balanceOf(from) - amount)
      outside.balances.set(to.pubkey, balanceOf(to) + amount)
      return sats(0)
    },
    start: async () => undefined,
    onEvent: (cause, handler) => void handlers.set(cause, handler),
  }
  return { wallets, tell: async (event) => handlers.get(event.cause.type)?.(event) }
}

function zapSender(outside: Outside): SendZap {
  return async (order) => {
    const key = `zap:${order.actionId}`
    const known = outside.payments.get(key)
    if (known !== undefined && known.state !== 'failed') return known
    outside.zaps.push(order)
    if (outside.zapOutcome === 'failed') throw new PylonError('payment_failed', 'The payment was refused and nothing was spent.')
    const result: PayResult =
      outside.zapOutcome === 'paid'
        ? { state: 'paid', operationId: 'op', preimage: '00', feeSats: sats(1) }
        : { state: 'unknown', operationId: 'op' }
    outside.payments.set(key, result)
    return result
  }
}

/** @param options.path the same path again: a restart. */
export async function startWorld(options: {
  dir: string
  outside?: Outside
  clock?: ManualClock
  host?: Partial<Config['host']>
  hook?: CommitHook
  deps?: Partial<HostDeps>
}): Promise<World> {
  const clock = options.clock ?? new ManualClock(START_MS)
  const outside = options.outside ?? new Outside()
  const store = openStore(join(options.dir, 'pylon.db'), options.hook === undefined ? {} : { hook: options.hook })
  const nodePubkey = createSigner(secretOfAccount(seedOfWords(WORDS), 0)).pubkey
  const keyring = new HomeKeyring({ store, clock, logger: silentLogger, nodePubkey })
  keyring.unlock(WORDS)
  const relay = new MemoryRelay(store, outside, keyring, clock)
  const { wallets, tell } = memoryWallets(outside)
  const config: Config = { ...DEFAULT_CONFIG, host: { ...DEFAULT_CONFIG.host, debounce_s: 5, ...options.host } }
  let isCrashed = false
  const deps: HostDeps = {
    scope: testScope(clock, () => isCrashed),
    store,
    clock,
    logger: silentLogger,
    config: () => config,
    nostr: relay.nostr(),
    keyring,
    wallets,
    dialer: { allow: () => undefined },
    sendZap: zapSender(outside),
    ...options.deps,
  }
  const host = new Host(deps)
  await host.start()
  await relay.flush()
  return {
    host,
    deps,
    store,
    clock,
    outside,
    keyring,
    async say(author, template) {
      const event = author.sign({ kind: 1, created_at: Math.floor(clock.now() / 1000), tags: [], content: '', ...template })
      outside.events.set(event.id, event)
      await relay.deliver(event)
      return event
    },
    deliver: (event) => relay.deliver(event),
    async fund(pubkey, amount, tellHost = true) {
      outside.balances.set(pubkey, (outside.balances.get(pubkey) ?? 0n) + BigInt(amount))
      if (!tellHost) return
      const owner = { kind: 'agent', pubkey } as const
      const cause = { type: 'owner', id: 'funding' } as const
      await tell({ type: 'invoice_settled', cause, owner, amountSats: sats(amount), idempotencyKey: 'funding' })
    },
    walletEvent: tell,
    crash() {
      isCrashed = true
      store.close()
    },
    async close() {
      await host.close(1000)
      store.close()
    },
  }
}
