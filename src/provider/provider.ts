/** The provider: sells the kinds that its backends serve, and says what it sells and what is missing. */
import { msats } from '../base/amounts.ts'
import type { Clock } from '../base/clock.ts'
import { type Config, DEFAULT_CONFIG } from '../base/config.ts'
import type { Dialer } from '../base/dialer.ts'
import { messageOf } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { SelfPublisher } from '../nostr/self/self.ts'
import type { OwnWords } from '../nostr/self/self-merge.ts'
import type { Nostr, Subscription } from '../nostr/types.ts'
import { countJobs, type JobState, openJobs } from '../store/selling/jobs.ts'
import { getSetting } from '../store/settings.ts'
import type { Store } from '../store/store.ts'
import type { Wallet, Wallets } from '../wallet/types.ts'
import { createAnnouncer, HEARTBEAT_S } from './announce.ts'
import type { Backend } from './backends/backend.ts'
import { createExecBackend } from './backends/exec.ts'
import { withHoldOff } from './backends/hold-off.ts'
import { createOpenAiBackend } from './backends/openai.ts'
import { createSummaryBackend } from './backends/summary.ts'
import { createEngine } from './jobs/engine.ts'
import { resolveInputs } from './jobs/inputs.ts'
import { createIntake } from './jobs/intake.ts'
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
  readonly clock: Clock
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

export interface ProviderStatus {
  readonly state: 'ok' | 'degraded' | 'off'
  readonly reason?: string
  readonly kinds: readonly number[]
  readonly backends: readonly {
    readonly name: string
    readonly state: 'ok' | 'degraded'
    readonly models: readonly string[]
    readonly reason?: string
  }[]
  readonly jobs: Partial<Record<JobState, number>>
}

export interface Provider {
  /** Goes on with stored jobs, then takes new ones. @throws locked */
  start(): Promise<void>
  /** Takes nothing new, lets running jobs finish until the time is over, parks the rest. */
  close(drainTimeoutMs: number): Promise<void>
  status(): ProviderStatus
  /** Takes the configuration as it is now: kinds, prices, backends. */
  reload(): Promise<void>
  /** Takes the announcement back from the relays. */
  withdraw(): Promise<void>
}

export function createProvider(deps: ProviderDeps): Provider {
  const { store, clock, logger, config, nostr, wallets } = deps
  const signer = () => nostr.keyring.node()
  const wallet = (): Wallet => wallets.of({ kind: 'node', pubkey: signer().pubkey })
  const hasMint = () => wallets.mints().length > 0
  const expectsMint = () => deps.expectsMint?.() === true && !hasMint()
  const makeBackends = deps.backends ?? ((now: Config) => [...backendsOf(now, clock), ...(deps.moreBackends ?? [])])
  let backends = makeBackends(config())
  let state: 'off' | 'on' | 'closing' = 'off'
  let jobs: { subscription: Subscription; key: string } | undefined
  let watched: { subscription: Subscription; key: string } | undefined
  let nextProbeAt = 0
  let nextHeartbeatAt = 0
  let announced = { key: '', until: 0 }
  let load: { workBits: number | undefined; until: number } = { workBits: undefined, until: 0 }
  let cancelRefresh: (() => void) | undefined
  let cancelWatch: (() => void) | undefined

  const backendFor = (kind: number) => backends.find((backend) => backend.kinds().includes(kind))
  const isServed = (kind: number) => backendFor(kind)?.health().state === 'ok' && (priceOf(config(), kind).amount_msats === 0 || hasMint())
  const configuredKinds = () => [...new Set(backends.flatMap((backend) => backend.kinds()))].sort((a, b) => a - b)
  const servedKinds = () => configuredKinds().filter(isServed)

  const engine = createEngine({
    store,
    clock,
    logger,
    config,
    wallet,
    hasMint,
    expectsMint,
    backendFor,
    transport: createNip90Transport({
      signer,
      clock,
      maxAgeS: () => config().provider.max_age_s,
      maxResultBytes: () => config().provider.max_result_bytes,
    }),
    owns: (pubkey) => nostr.keyring.owns(pubkey),
    resolve: (order, signal) =>
      resolveInputs(order, { store, nostr, dialer: deps.dialer, maxInputBytes: () => config().provider.max_input_bytes }, signal),
    nudge: () => nostr.nudgeOutbox(),
    onWaiting: watchSoon,
  })
  const intake = createIntake({ engine, nostr, signer, clock, logger, config, isServed })
  const announcer = createAnnouncer({
    store,
    clock,
    pubkey: () => signer().pubkey,
    relays: () => nostr.relays,
    nudge: () => nostr.nudgeOutbox(),
  })
  const self = new SelfPublisher({ store, clock, nostr })
  let introducing = false
  wallets.onEvent('job', engine.onWalletEvent)
  nostr.onPublished(RESULT_KEY_PREFIX, engine.onPublished)
  nostr.onGivenUp(RESULT_KEY_PREFIX, engine.onGivenUp)

  /** One subscription for requests and one for their cancellation, asked again when the kinds change. */
  function subscribe(): void {
    const me = signer().pubkey
    const served = servedKinds()
    const directed = [...new Set([...KNOWN_KINDS, ...configuredKinds()])]
    const key = JSON.stringify([served, directed])
    if (jobs?.key === key) return
    jobs?.subscription.close()
    const maxAgeS = config().provider.max_age_s
    const onTime = { backfillS: maxAgeS, overlapS: maxAgeS }
    const requests = nostr.subscribe({
      name: 'provider-jobs',
      filters: [{ kinds: directed, '#p': [me] }, ...(served.length === 0 ? [] : [{ kinds: served }])],
      ...onTime,
      latenessS: maxAgeS + LATE_S,
      isWorthIt: intake.isWorthIt,
      onEvent: intake.onRequest,
    })
    // NIP-09 asks for a k tag; those who leave it out are found by p here, or by the id of a waiting job in `watch`.
    const cancels = nostr.subscribe({
      name: 'provider-cancels',
      filters: [
        { kinds: [5], '#k': configuredKinds().map(String) },
        { kinds: [5], '#p': [me] },
      ],
      ...onTime,
      isWorthIt: intake.isWorthIt,
      onEvent: intake.onDeletion,
    })
    jobs = {
      key,
      subscription: {
        close() {
          requests.close()
          cancels.close()
        },
      },
    }
  }

  /** Listens for cancel requests that carry nothing but the id of a waiting job. */
  function watch(): void {
    const ids = openJobs(store, ['quoted', 'paid', 'queued'])
      .slice(0, MAX_WATCHED)
      .map((job) => job.id)
    const key = ids.join(' ')
    if ((watched?.key ?? '') === key) return
    watched?.subscription.close()
    watched = undefined
    if (ids.length === 0) return
    const subscription = nostr.subscribe({
      name: 'provider-cancels-by-id',
      filters: [{ kinds: [5], '#e': ids }],
      backfillS: config().provider.max_age_s,
      overlapS: config().provider.max_age_s,
      alone: true,
      onEvent: intake.onDeletion,
    })
    watched = { key, subscription }
  }

  function watchSoon(): void {
    cancelWatch ??= clock.after(WATCH_DELAY_MS, () => {
      cancelWatch = undefined
      if (state === 'on') watch()
    })
  }

  async function announce(): Promise<void> {
    const now = config()
    const kinds = servedKinds()
    await announcer.publish({
      kinds,
      name: now.node.name,
      about: now.node.about,
      mints: wallets.mints().map((mint) => ({ url: mint.url, unit: 'sat' })),
      lockPubkey: hasMint() ? wallet().lockPubkey : undefined,
      pricing: Object.fromEntries(
        kinds.map((kind) => {
          const price = priceOf(now, kind)
          return [kind, { amountMsats: msats(price.amount_msats), unit: price.unit }]
        }),
      ),
      models: backends.flatMap((backend) => backend.health().models),
      workBits: load.workBits,
    })
  }

  /** The node's profile and relay lists. Not waited for: a relay that does not answer holds up nothing that sells. */
  function introduce(): void {
    if (introducing) return
    introducing = true
    const { pubkey } = signer()
    const said = self.publish({
      pubkey,
      keyPrefix: `announce:${pubkey}:`,
      ttlMs: DAY_MS,
      repeatMs: DAY_MS,
      ...ownWords(config()),
      relays: nostr.relays,
      isOurs: getSetting(store, `announce:${pubkey}:0`) !== undefined,
    })
    said
      .catch((error: unknown) => {
        if (state === 'on') logger.warn({ error: messageOf(error) }, 'the profile of the node could not be published; it is tried again')
      })
      .finally(() => {
        introducing = false
      })
  }

  async function heartbeat(): Promise<void> {
    if (clock.now() < nextHeartbeatAt || servedKinds().length === 0) return
    nextHeartbeatAt = clock.now() + HEARTBEAT_S * 1000
    await announcer.heartbeat()
  }

  async function probe(): Promise<void> {
    nextProbeAt = clock.now() + PROBE_EVERY_MS
    await Promise.all(backends.map((backend) => backend.probe()))
  }

  async function refresh(): Promise<void> {
    try {
      if (clock.now() >= nextProbeAt) await probe()
      if (state !== 'on') return
      subscribe()
      if (clock.now() >= load.until) load = { workBits: engine.strangers.asked(), until: clock.now() + LOAD_TOLD_MS }
      const now = JSON.stringify([
        load.workBits,
        servedKinds(),
        wallets.mints().map((mint) => mint.url),
        backends.map((backend) => backend.health()),
      ])
      if (now !== announced.key || clock.now() >= announced.until) {
        await announce()
        announced = { key: now, until: clock.now() + REPEAT_EVERY_MS }
      }
      introduce()
      await heartbeat()
    } catch (error) {
      if (state === 'on') logger.warn({ error: messageOf(error) }, 'the provider could not refresh what it sells; it tries again')
    } finally {
      if (state === 'on') cancelRefresh = clock.after(REFRESH_EVERY_MS, () => void refresh())
    }
  }

  function status(): ProviderStatus {
    const health = backends.map((backend) => ({ name: backend.name, ...backend.health() }))
    const common = { kinds: state === 'on' ? servedKinds() : [], backends: health, jobs: countJobs(store) }
    if (state !== 'on') return { state: 'off', reason: state === 'closing' ? 'shutting down' : 'not started', ...common }
    const reason = whyDegraded()
    return reason === undefined ? { state: 'ok', ...common } : { state: 'degraded', reason, ...common }
  }

  function whyDegraded(): string | undefined {
    if (!hasMint() && configuredKinds().some((kind) => priceOf(config(), kind).amount_msats > 0)) return 'no_mint'
    if (servedKinds().length === 0) return backends[0]?.health().reason ?? 'no_backend'
    // A found model server is a gift; one that the owner named, or a command, is missed.
    const missed = backends.find(
      (backend) => backend.health().state !== 'ok' && (backend.name !== 'openai' || config().provider.openai_base_url !== ''),
    )
    return missed?.health().reason
  }

  return {
    async start() {
      signer()
      state = 'on'
      await probe()
      await engine.start()
      watch()
      await refresh()
    },

    async close(drainTimeoutMs) {
      state = 'closing'
      cancelRefresh?.()
      cancelWatch?.()
      jobs?.subscription.close()
      watched?.subscription.close()
      await engine.close(drainTimeoutMs)
    },

    status,

    async reload() {
      backends = makeBackends(config())
      nextProbeAt = 0
      announced = { key: '', until: 0 }
      cancelRefresh?.()
      if (state === 'on') await refresh()
    },

    withdraw: () => announcer.withdraw(),
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
function backendsOf(config: Config, clock: Clock): Backend[] {
  const { provider } = config
  return [
    ...provider.exec.map((entry) => withHoldOff(createExecBackend(entry, clock), clock)),
    ...(provider.probe || provider.openai_base_url !== '' ? [withHoldOff(createOpenAiBackend(provider), clock)] : []),
    createSummaryBackend(),
  ]
}
