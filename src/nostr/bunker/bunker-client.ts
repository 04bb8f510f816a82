/**
 * NIP-46, as the client: asks one bunker elsewhere on its own relays. Each request has an id of its own and takes the first answer to
 * it; what else comes is nothing. A bunker that is silent is asked again by and by, and whoever needs it meanwhile hears so at once.
 */
import { unixSeconds } from '../../base/clock.ts'
import type { Dialer } from '../../base/dialer.ts'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import { randomHex } from '../../base/random.ts'
import type { Backoff, Scope } from '../../base/scope.ts'
import { createTurnstile } from '../../base/turnstile.ts'
import { bunkerRequestMessage } from '../../store/keys.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import type { Store } from '../../store/store.ts'
import { npubOf } from '../nips/nip19.ts'
import { BUNKER_KIND, type BunkerMethod, type BunkerUri, buildBunkerRequest, openBunkerAnswer } from '../nips/nip46.ts'
import type { LocalSigner, Nostr, NostrEvent, Subscription } from '../types.ts'
import { pubkeyIn } from './signed-answer.ts'

export interface BunkerClientDeps {
  readonly scope: Scope
  readonly store: Store
  readonly logger: Logger
  readonly dialer: Pick<Dialer, 'allow'>
  readonly nostr: Pick<Nostr, 'subscribe' | 'nudgeOutbox'>
  /** The key by which the bunker knows us. */
  readonly client: LocalSigner
  readonly bunker: BunkerUri
  /** How long an answer is waited for (ms). */
  readonly answerMs?: number
  /** Told where the owner is to allow the connection; where it is left out a connection that needs that fails at once. */
  readonly onApproval?: (url: string) => void
}

export type BunkerHealth =
  | { readonly state: 'ok' }
  | {
      readonly state: 'degraded'
      readonly code: 'bunker_unreachable' | 'bunker_key_changed' | 'bunker_approval' | 'bunker_refused'
      readonly reason: string
      /** Since when it is no help (ms). */
      readonly since: number
    }

const ANSWER_MS = 20_000
/** Where the owner is to allow it in a browser first. */
const APPROVAL_MS = 120_000
/** Requests under way at once, and how many more may wait. */
const AT_ONCE = 16
const MAX_WAITING = 1000
const PROBE_MS = 300_000
const PROBE_AGAIN = { minMs: 2000, maxMs: 60_000 }
/** Answers are to what was asked just now. */
const BACKFILL_S = 60
const MAX_WORDS = 300
const MAX_URL_CHARS = 2000

interface Answer {
  readonly result: string
  readonly error: string
}

export class BunkerClient {
  readonly #deps: BunkerClientDeps
  readonly #waiting = new Map<string, (answer: Answer) => void>()
  readonly #fewAtOnce = createTurnstile(AT_ONCE)
  readonly #subscription: Subscription
  #under = 0
  #unreadable = 0
  #health: BunkerHealth = { state: 'ok' }
  /** Whether it has said, in this run, that it signs for the key that it is to sign for. */
  #isProven = false
  #probing: Promise<void> | undefined
  #watched: string | undefined
  #cancelProbe: () => void = () => {}
  readonly #again: Backoff

  constructor(deps: BunkerClientDeps) {
    this.#deps = deps
    this.#again = deps.scope.backoff(PROBE_AGAIN)
    const { nostr, client, bunker, dialer } = deps
    // The owner named them.
    for (const relay of bunker.relays) dialer.allow(relay, true)
    this.#subscription = nostr.subscribe({
      name: `bunker-of:${client.pubkey.slice(0, 16)}`,
      filters: [{ kinds: [BUNKER_KIND], authors: [bunker.signerPubkey], '#p': [client.pubkey] }],
      relays: bunker.relays,
      backfillS: BACKFILL_S,
      overlapS: BACKFILL_S,
      onEvent: async (event) => this.#hear(event),
    })
  }

  get health(): BunkerHealth {
    return this.#health
  }

  close(): void {
    this.#watched = undefined
    this.#cancelProbe()
    this.#subscription.close()
  }

  /** Looks from time to time whether it is there and still signs for this key. */
  watch(pubkey: string): void {
    this.#watched = pubkey
    this.#probeAfter(0)
  }

  #probeAfter(ms: number): void {
    const pubkey = this.#watched
    if (pubkey === undefined) return
    this.#cancelProbe()
    this.#cancelProbe = this.#deps.scope.after('probe', ms, async () => {
      // What it found is its health, noted where it was asked.
      await this.#probe(pubkey).catch(() => undefined)
      this.#probeAfter(this.#nextProbeMs())
    })
  }

  #nextProbeMs(): number {
    if (this.#health.state !== 'ok') return this.#again.nextMs()
    this.#again.reset()
    return PROBE_MS
  }

  /**
   * Brings the secret of the string; again under the same client key where that was done before.
   * @returns for whom it signs
   * @throws bunker_unreachable, bunker_refused, bunker_approval, bunker_answer_invalid
   */
  async connect(): Promise<string> {
    const { signerPubkey, secret } = this.#deps.bunker
    try {
      const result = await this.#ask('connect', [signerPubkey, secret, '', JSON.stringify({ name: 'Pylon' })])
      if (result !== 'ack' && (secret === '' || result !== secret))
        throw new PylonError('bunker_answer_invalid', 'The bunker answered the connection with something else than ack.')
    } catch (error) {
      // A secret is good once: who brought it before, and was cut off, is known there.
      if (!isPylonError(error, 'bunker_refused')) throw error
      return await this.#askPubkey().catch(() => {
        throw error
      })
    }
    return await this.#askPubkey()
  }

  /** What a key is needed for. @throws bunker_unreachable, bunker_refused, bunker_approval, bunker_key_changed */
  async request(pubkey: string, method: BunkerMethod, params: readonly string[]): Promise<string> {
    if (!this.#isProven && this.#health.state === 'ok') await this.#probe(pubkey)
    const { health } = this
    if (health.state !== 'ok' && health.code !== 'bunker_refused') throw new PylonError(health.code, health.reason)
    return await this.#ask(method, params)
  }

  /** One for all who ask. @throws as request */
  #probe(pubkey: string): Promise<void> {
    this.#probing ??= this.#look(pubkey).finally(() => {
      this.#probing = undefined
    })
    return this.#probing
  }

  async #look(pubkey: string): Promise<void> {
    const found = await this.#askPubkey()
    if (found !== pubkey) {
      this.#isProven = false
      const reason = `The bunker says that it signs for ${npubOf(found)}, and was connected for ${npubOf(pubkey)}: nothing is signed by it.`
      throw this.#failed('bunker_key_changed', reason)
    }
    this.#isProven = true
    this.#note({ state: 'ok' })
  }

  async #askPubkey(): Promise<string> {
    return pubkeyIn(await this.#ask('get_public_key', []))
  }

  async #ask(method: string, params: readonly string[]): Promise<string> {
    if (this.#under >= MAX_WAITING) throw new PylonError('bunker_unreachable', 'Too much waits for the bunker: it is asked again later.')
    this.#under++
    try {
      return await this.#fewAtOnce(() => this.#askNow(method, params))
    } finally {
      this.#under--
    }
  }

  async #askNow(method: string, params: readonly string[]): Promise<string> {
    const { scope, store, nostr, client, bunker, answerMs = ANSWER_MS } = this.#deps
    const id = randomHex(scope.random, 16)
    const at = scope.clock.now()
    const template = buildBunkerRequest(client, bunker.signerPubkey, { id, method, params }, unixSeconds(scope.clock))
    const event = client.sign(template)
    const heard = this.#answer(id, answerMs)
    // Awaited below; it may fail while the request is stored.
    heard.catch(() => undefined)
    await store.write(enqueueEvent({ key: bunkerRequestMessage.of(id), event, relays: bunker.relays, notAfter: at + answerMs, at }))
    nostr.nudgeOutbox()
    let answer = await heard
    // It answers the same request once its owner has allowed it.
    if (answer?.result === 'auth_url') {
      const url = webAddressIn(answer.error)
      const reason = `The bunker asks you to allow it at ${url}`
      const failure = this.#failed('bunker_approval', reason)
      if (method === 'connect' && this.#deps.onApproval === undefined) throw failure
      this.#deps.onApproval?.(url)
      answer = await this.#answer(id, APPROVAL_MS)
      if (answer === undefined) throw failure
      this.#note({ state: 'ok' })
    }
    if (answer === undefined) throw this.#failed('bunker_unreachable', this.#silence(answerMs))
    return this.#resultOf(method, answer)
  }

  /** The first answer to a request, or undefined after `ms`. */
  #answer(id: string, ms: number): Promise<Answer | undefined> {
    return this.#deps.scope.hear<Answer>(ms, (tell) => {
      this.#waiting.set(id, tell)
      return () => this.#waiting.delete(id)
    })
  }

  #silence(ms: number): string {
    const { signerPubkey, relays } = this.#deps.bunker
    const unreadable = this.#unreadable === 0 ? '' : `; ${this.#unreadable} things that it sent cannot be read`
    return `The bunker ${npubOf(signerPubkey).slice(0, 16)} gave no answer in ${Math.round(ms / 1000)} s on ${relays.join(', ')}${unreadable}.`
  }

  #resultOf(method: string, { result, error }: Answer): string {
    if (error === '') {
      // Whatever it answers, it is there; whether it is the right one is for the probe to say.
      if (this.#health.state === 'degraded' && this.#health.code !== 'bunker_key_changed') this.#note({ state: 'ok' })
      return result
    }
    const words = printable(error)
    if (/^rate-limited/i.test(words)) throw new PylonError('bunker_unreachable', `The bunker wants to be asked less: ${words}`)
    if (/_decrypt$/.test(method) && isAboutContent(words)) throw new PylonError('decrypt_failed', `The bunker could not open it: ${words}`)
    throw this.#failed('bunker_refused', `The bunker refused ${method}: ${words}`)
  }

  #failed(code: Extract<BunkerHealth, { state: 'degraded' }>['code'], reason: string): PylonError {
    const since = this.#health.state === 'ok' ? this.#deps.scope.clock.now() : this.#health.since
    this.#note({ state: 'degraded', code, reason, since })
    return new PylonError(code, reason)
  }

  #note(health: BunkerHealth): void {
    const { logger, bunker } = this.#deps
    const isNews = health.state !== this.#health.state
    this.#health = health
    if (health.state === 'ok') this.#unreadable = 0
    if (isNews) this.#probeAfter(this.#nextProbeMs())
    if (isNews && health.state === 'ok') logger.info({ bunker: bunker.signerPubkey }, 'the bunker answers again')
    else if (isNews && health.state !== 'ok')
      logger.warn({ bunker: bunker.signerPubkey, reason: health.reason }, 'the bunker is no help now')
  }

  #hear(event: NostrEvent): void {
    const { bunker, client, logger } = this.#deps
    if (event.pubkey !== bunker.signerPubkey) return
    try {
      const { id, ...answer } = openBunkerAnswer(client, event)
      const tell = this.#waiting.get(id)
      // A second answer, or one to nothing that was asked.
      if (tell === undefined) return
      this.#waiting.delete(id)
      tell(answer)
    } catch (error) {
      this.#unreadable++
      logger.debug({ event_id: event.id, error: messageOf(error) }, 'what a bunker sent cannot be read')
    }
  }
}

const printable = (words: string): string => words.replace(/[^\x20-\x7e]+/g, ' ').slice(0, MAX_WORDS)

/** Of a text that somebody else encrypted wrongly, and not of a bunker that may not or cannot now. */
const isAboutContent = (words: string): boolean =>
  /mac|decrypt|padding|payload|base64|version|encrypted|cipher|point/i.test(words) &&
  !/rate|permi|denied|forbid|unauthor|not allowed|locked|revoked|expired|timeout|approv|reject/i.test(words)

/** @throws bunker_answer_invalid */
function webAddressIn(text: string): string {
  try {
    const url = new URL(text)
    if (text.length <= MAX_URL_CHARS && (url.protocol === 'https:' || url.protocol === 'http:')) return url.href
  } catch {
    // Below.
  }
  throw new PylonError('bunker_answer_invalid', 'The bunker asks to be allowed at what is no web address.')
}
