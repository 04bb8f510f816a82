/** The provider: sells the kinds that its backends serve, and says what it sells and what is missing. */

import { msats } from '../base/amounts.ts'
import { type Config, DEFAULT_CONFIG } from '../base/config.ts'
import type { Dialer } from '../base/dialer.ts'
import { messageOf } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Scope, ScopePorts } from '../base/scope.ts'
import { SelfPublisher } from '../nostr/self/self.ts'
import type { OwnWords } from '../nostr/self/self-merge.ts'
import type { Nostr, Signer } from '../nostr/types.ts'
import { countJobs, openJobs } from '../store/selling/jobs.ts'
import { getSetting } from '../store/settings.ts'
import type { Store } from '../store/store.ts'
import { nutzapsOf } from '../wallet/nutzaps/offer.ts'
import type { Wallet, Wallets } from '../wallet/types.ts'
import { Announcer, HEARTBEAT_S } from './announce.ts'
import type { Backend } from './backends/backend.ts'
import { createExecBackend } from './backends/exec.ts'
import { withHoldOff } from './backends/hold-off.ts'
import { createOpenAiBackend } from './backends/openai.ts'
import { createSummaryBackend } from './backends/summary.ts'
import { Engine } from './jobs/engine.ts'
import { resolveInputs } from './jobs/inputs.ts'
import { Intake } from './jobs/intake.ts'
import { createNip90Transport } from './jobs/nip90.ts'
import { RESULT_KEY_PREFIX } from './jobs/order.ts'
import { priceOf } from './pricing.ts'

/** Kinds of NIP-90 that somebody may direct at us; those that we don't serve are refused aloud. */
const KNOWN_KINDS: readonly number[] = [
  5000, 5001, 5002, 5003, 5004, 5005, 5050, 5100, 5200, 5201, 5202, 5250, 5300, 5301, 5302, 5303, 5400, 5500, 5900, 5901, 5905, 5930, 5970,
]
const PROBE_EVERY_MS = 60_000
/** How soon a change is noticed: a backend or mint that came or went. */
const REFRESH_EVERY_MS = 500
/** What is asked of strangers under load is announced, and not changed more often than this. */
const LOAD_TOLD_MS = 30_000
/** What is announced is compared with what was said last this often, even when nothing changed. */
const REPEAT_EVERY_MS = 3_600_000
const DAY_MS = 86_400_000
/** Waiting jobs whose cancel requests are listened for by id; the others are found by their k or p tag. */
const MAX_WATCHED = 200
/** How long after its time a request that names us is still heard, to be told so. */
const LATE_S = 86_400
/** Several that begin to wait are listened for together. */
const WATCH_DELAY_MS = 300

export interface ProviderDeps {
  readonly store: Store
  readonly scope: Scope
  readonly logger: Logger
  readonly config: () => Config
  readonly nostr: Nostr
  readonly wallets: Wallets
  readonly dialer: Pick<Dialer, 'fetch'>
  /** Whether a mint was named at the start, which comes on the list when it answers. */
  readonly expectsMint?: () => boolean
  /** Beside those that config names. */
  readonly moreBackends?: readonly Backend[]
  /** Instead of all others; tests use it. */
  readonly backends?: (config: Config) => Backend[]
}

export class Provider {
  readonly #deps: ProviderDeps
  readonly #engine: Engine
  readonly #intake: Intake
  readonly #announcer: Announcer
  readonly #self: SelfPublisher
  #backends: readonly Backend[]
  #isOn = false
  #jobs: { close(): void; readonly key: string } | undefined
  #watched: { close(): void; readonly key: string } | undefined
  #nextProbeAt = 0
  #nextHeartbeatAt = 0
  #announced = { key: '', until: 0 }
  #load: { workBits: number | undefined; until: number } = { workBits: undefined, until: 0 }

  constructor(deps: ProviderDeps) {
    this.#deps = deps
    const { store, scope, logger, config, nostr, wallets } = deps
    const { clock } = scope
    const signer = () => this.#signer()
    const nudge = () => nostr.nudgeOutbox()
    this.#backends = this.#makeBackends()
    this.#engine = new Engine({
      ...{ store, logger, config, nudge },
      scope: scope.child('jobs'),
      wallet: () => this.#wallet(),
      hasMint: () => this.#hasMint(),
      expectsMint: () => deps.expectsMint?.() === true && !this.#hasMint(),
      backendFor: (kind) => this.#backendFor(kind),
      transport: createNip90Transport({
        signer,
        clock,
        maxAgeS: () => config().provider.max_age_s,
        maxResultBytes: () => config().provider.max_result_bytes,
      }),
      owns: (pubkey) => nostr.keyring.owns(pubkey),
      resolve: (order, signal) =>
        resolveInputs(order, { scope, store, nostr, dialer: deps.dialer, maxInputBytes: () => config().provider.max_input_bytes }, signal),
      onWaiting: () => scope.gather('watch', WATCH_DELAY_MS, () => this.#watch()),
    })
    this.#intake = new Intake({ engine: this.#engine, nostr, signer, scope, logger, config, isServed: (kind) => this.#isServed(kind) })
    this.#announcer = new Announcer({ store, clock, pubkey: () => signer().pubkey, relays: () => nostr.relays, nudge })
    this.#self = new SelfPublisher({ store, clock, nostr })
    wallets.onEvent('job', this.#engine.onWalletEvent)
    nostr.onPublished(RESULT_KEY_PREFIX, this.#engine.onPublished)
    nostr.onGivenUp(RESULT_KEY_PREFIX, this.#engine.onGivenUp)
  }

  /** Goes on with stored jobs, then takes new ones. @throws locked */
  async start(): Promise<void> {
    const { scope } = this.#deps
    this.#signer()
    this.#isOn = true
    await this.#probe()
    await this.#engine.start()
    this.#watch()
    scope.spawn('introduce', () => this.#introduce())
    await this.#refresh()
    // Not one after the other: a relay that does not answer holds up nothing that sells.
    scope.every('introduce', REFRESH_EVERY_MS, () => this.#introduce())
    scope.every('refresh', REFRESH_EVERY_MS, () => this.#refresh())
  }

  /** Takes nothing new, lets running jobs finish until the time is over, parks the rest. */
  async close(drainMs: number): Promise<void> {
    this.#isOn = false
    this.#jobs?.close()
    this.#watched?.close()
    this.#engine.dropInputs()
    await this.#deps.scope.close(drainMs)
  }

  status() {
    const health = this.#backends.map((backend) => ({ name: backend.name, ...backend.health() }))
    const common = { kinds: this.#isOn ? this.#servedKinds() : [], backends: health, jobs: countJobs(this.#deps.store) }
    if (!this.#isOn) return { state: 'off' as const, reason: this.#deps.scope.isClosing ? 'shutting down' : 'not started', ...common }
    const reason = this.#whyDegraded()
    return reason === undefined ? { state: 'ok' as const, ...common } : { state: 'degraded' as const, reason, ...common }
  }

  /** Takes the configuration as it is now: kinds, prices, backends. */
  async reload(): Promise<void> {
    this.#backends = this.#makeBackends()
    this.#nextProbeAt = 0
    this.#announced = { key: '', until: 0 }
    if (this.#isOn) await this.#refresh()
  }

  #signer(): Signer {
    return this.#deps.nostr.keyring.node()
  }

  #wallet(): Wallet {
    return this.#deps.wallets.of({ kind: 'node', pubkey: this.#signer().pubkey })
  }

  #hasMint(): boolean {
    return this.#deps.wallets.mints().length > 0
  }

  #now(): number {
    return this.#deps.scope.clock.now()
  }

  #makeBackends(): readonly Backend[] {
    const { config, scope, backends, moreBackends = [] } = this.#deps
    return backends?.(config()) ?? [...backendsOf(config(), scope), ...moreBackends]
  }

  #backendFor(kind: number): Backend | undefined {
    return this.#backends.find((backend) => backend.kinds().includes(kind))
  }

  #isServed(kind: number, hasMint = () => this.#hasMint()): boolean {
    const isFree = priceOf(this.#deps.config(), kind).amount_msats === 0
    return this.#backendFor(kind)?.health().state === 'ok' && (isFree || hasMint())
  }

  #configuredKinds(): number[] {
    return [...new Set(this.#backends.flatMap((backend) => backend.kinds()))].sort((a, b) => a - b)
  }

  #servedKinds(): number[] {
    const hasMint = this.#hasMint()
    return this.#configuredKinds().filter((kind) => this.#isServed(kind, () => hasMint))
  }

  /** One subscription for requests and one for their cancellation, asked again when the kinds change. */
  #subscribe(): void {
    const { nostr, config } = this.#deps
    const me = this.#signer().pubkey
    const served = this.#servedKinds()
    const configured = this.#configuredKinds()
    const directed = [...new Set([...KNOWN_KINDS, ...configured])]
    const key = JSON.stringify([served, directed])
    if (this.#jobs?.key === key) return
    this.#jobs?.close()
    const { isWorthIt, onRequest, onDeletion } = this.#intake
    const maxAgeS = config().provider.max_age_s
    const onTime = { backfillS: maxAgeS, overlapS: maxAgeS }
    const requests = nostr.subscribe({
      name: 'provider-jobs',
      filters: [{ kinds: directed, '#p': [me] }, ...(served.length === 0 ? [] : [{ kinds: served }])],
      ...onTime,
      latenessS: maxAgeS + LATE_S,
      isWorthIt,
      onEvent: onRequest,
    })
    // NIP-09 asks for a k tag; those who leave it out are found by p here, or by the id of a waiting job in `watch`.
    const cancels = nostr.subscribe({
      name: 'provider-cancels',
      filters: [
        { kinds: [5], '#k': configured.map(String) },
        { kinds: [5], '#p': [me] },
      ],
      ...onTime,
      isWorthIt,
      onEvent: onDeletion,
    })
    const close = () => {
      requests.close()
      cancels.close()
    }
    this.#jobs = { key, close }
  }

  /** Listens for cancel requests that carry nothing but the id of a waiting job. */
  #watch(): void {
    if (!this.#isOn) return
    const { store, nostr, config } = this.#deps
    const ids = openJobs(store, ['quoted', 'paid', 'queued'])
      .slice(0, MAX_WATCHED)
      .map((job) => job.id)
    const key = ids.join(' ')
    if ((this.#watched?.key ?? '') === key) return
    this.#watched?.close()
    this.#watched = undefined
    if (ids.length === 0) return
    const subscription = nostr.subscribe({
      name: 'provider-cancels-by-id',
      filters: [{ kinds: [5], '#e': ids }],
      backfillS: config().provider.max_age_s,
      overlapS: config().provider.max_age_s,
      alone: true,
      onEvent: this.#intake.onDeletion,
    })
    this.#watched = { key, close: () => subscription.close() }
  }

  async #announce(): Promise<void> {
    const { config, wallets } = this.#deps
    const now = config()
    const kinds = this.#servedKinds()
    await this.#announcer.publish({
      kinds,
      name: now.node.name,
      about: now.node.about,
      mints: wallets.mints().map((mint) => ({ url: mint.url, unit: 'sat' })),
      lockPubkey: this.#hasMint() ? this.#wallet().lockPubkey : undefined,
      pricing: Object.fromEntries(
        kinds.map((kind) => {
          const price = priceOf(now, kind)
          return [kind, { amountMsats: msats(price.amount_msats), unit: price.unit }]
        }),
      ),
      models: this.#backends.flatMap((backend) => backend.health().models),
      workBits: this.#load.workBits,
    })
  }

  /** The node's profile and relay lists. */
  async #introduce(): Promise<void> {
    if (!this.#isOn) return
    const { store, config, nostr } = this.#deps
    const { pubkey } = this.#signer()
    await this.#self.publish({
      pubkey,
      keyPrefix: `announce:${pubkey}:`,
      ttlMs: DAY_MS,
      repeatMs: DAY_MS,
      ...ownWords(config()),
      relays: nostr.relays,
      nutzaps: nutzapsOf(this.#deps, pubkey),
      isOurs: getSetting(store, `announce:${pubkey}:0`) !== undefined,
    })
  }

  async #heartbeat(): Promise<void> {
    if (this.#now() < this.#nextHeartbeatAt || this.#servedKinds().length === 0) return
    this.#nextHeartbeatAt = this.#now() + HEARTBEAT_S * 1000
    await this.#announcer.heartbeat()
  }

  async #probe(): Promise<void> {
    this.#nextProbeAt = this.#now() + PROBE_EVERY_MS
    await Promise.all(this.#backends.map((backend) => backend.probe()))
  }

  /** Says what is sold now where that has changed. What fails is tried again by the next. */
  async #refresh(): Promise<void> {
    try {
      if (this.#now() >= this.#nextProbeAt) await this.#probe()
      if (!this.#isOn) return
      this.#subscribe()
      if (this.#now() >= this.#load.until) this.#load = { workBits: this.#engine.strangers.asked(), until: this.#now() + LOAD_TOLD_MS }
      const now = JSON.stringify([
        this.#load.workBits,
        this.#servedKinds(),
        this.#deps.wallets.mints().map((mint) => mint.url),
        this.#backends.map((backend) => backend.health()),
      ])
      if (now !== this.#announced.key || this.#now() >= this.#announced.until) {
        await this.#announce()
        this.#announced = { key: now, until: this.#now() + REPEAT_EVERY_MS }
      }
      await this.#heartbeat()
    } catch (error) {
      if (this.#isOn) this.#deps.logger.warn({ error: messageOf(error) }, 'the provider could not refresh what it sells; it tries again')
    }
  }

  #whyDegraded(): string | undefined {
    const { config } = this.#deps
    if (!this.#hasMint() && this.#configuredKinds().some((kind) => priceOf(config(), kind).amount_msats > 0)) return 'no_mint'
    if (this.#servedKinds().length === 0) return this.#backends[0]?.health().reason ?? 'no_backend'
    // A found model server is a gift; one that the owner named, or a command, is missed.
    const missed = this.#backends.find(
      (backend) => backend.health().state !== 'ok' && (backend.name !== 'openai' || config().provider.openai_base_url !== ''),
    )
    return missed?.health().reason
  }
}

/** What the owner set of the profile, apart from what stands there until the key has one. */
function ownWords({ node }: Config): Pick<OwnWords, 'set' | 'defaults' | 'lud06'> {
  const { name, about, picture, nip05, lud16 } = node
  const standard = DEFAULT_CONFIG.node
  const isSet = ([key, value]: [string, string]) => value !== standard[key as 'name']
  const set = Object.fromEntries(Object.entries({ name, about, picture, nip05, lud16 }).filter(isSet))
  return { set, defaults: { name, about, bot: true }, lud06: undefined }
}

/** A kind goes to the first that has it: the owner's command, then a model, then the built-in. */
function backendsOf(config: Config, ports: ScopePorts): Backend[] {
  const { provider } = config
  return [
    ...provider.exec.map((entry) => withHoldOff(createExecBackend(entry, ports.clock), ports)),
    ...(provider.probe || provider.openai_base_url !== '' ? [withHoldOff(createOpenAiBackend(provider), ports)] : []),
    createSummaryBackend(),
  ]
}
