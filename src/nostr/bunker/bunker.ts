/**
 * NIP-46, as the bunker: programs elsewhere sign with a key of this home, which stays here.
 *
 *   event -> judged and done, which is reckoning only -> claimed by its id, in one commit with the answer and its outbox row
 *
 * So a request is done once or not at all, whatever ends the node; one that was lost is asked again by its client. A string is good
 * for the first client that brings its secret, and for that one alone.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import type { Dialer } from '../../base/dialer.ts'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { findAgent } from '../../store/agents/agents.ts'
import { all, type Command } from '../../store/commands.ts'
import { bunkerAnswerMessage } from '../../store/keys.ts'
import {
  type BunkerGrant,
  bindBunkerClient,
  claimBunkerRequest,
  getBunkerGrant,
  heardBunkerGrants,
  insertBunkerGrant,
  isBunkerRequestClaimed,
  listBunkerGrants,
  revokeBunkerGrant,
  sweepBunkerRequests,
} from '../../store/nostr/bunker.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import type { Store } from '../../store/store.ts'
import type { EncryptionScheme } from '../keys/encryption.ts'
import { createSigner } from '../keys/signer.ts'
import {
  BUNKER_KIND,
  type BunkerAnswer,
  type BunkerAsker,
  type BunkerMethod,
  type BunkerRequest,
  buildBunkerAnswer,
  clientNameIn,
  formatBunkerUri,
  type NostrConnectUri,
  openBunkerRequest,
  parseTemplate,
} from '../nips/nip46.ts'
import type { Keyring, LocalSigner, Nostr, NostrEvent } from '../types.ts'
import { mayBeSigned, refusalOf, STALE_S, stateOf } from './grant-rules.ts'

export interface BunkerDeps {
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly dialer: Pick<Dialer, 'allow'>
  readonly nostr: Pick<Nostr, 'subscribe' | 'nudgeOutbox' | 'relays'>
  readonly keyring: Pick<Keyring, 'node' | 'localSigner'> & { derivedSecret(purpose: string): Uint8Array }
  /** Of one client; a test has no time for ours. */
  readonly requestsADay?: number
}

export interface GrantOrder {
  /** The same key is the same connection, for ever. */
  readonly key: string
  /** Whose key is to sign: the node's or an agent's. */
  readonly userPubkey: string
  readonly name: string
  readonly methods: readonly BunkerMethod[]
  /** Null: all but those that are granted by name only. */
  readonly kinds: readonly number[] | null
  /** Those of the node when left out. */
  readonly relays?: readonly string[] | undefined
  /** Milliseconds since the epoch. */
  readonly expiresAt: number | null
}

/** Of one client; more are refused, and after twice as many in a minute not heard. What is answered is kept for a while, so a day has its bound too. */
const REQUESTS_A_MINUTE = 300
const REQUESTS_A_DAY = 20_000
const CHARS_A_DAY = 20_000_000
/** Of those who try to connect by a string that waits, and how long such a request is at most: opening one costs by its length. */
const ATTEMPTS_A_MINUTE = 30
const MAX_ATTEMPT_CHARS = 8192
const MINUTE_MS = 60_000
const DAY_MS = 86_400_000
/** How far ahead what is signed may be dated: a profile of next year could not be replaced. */
const MAX_AHEAD_S = 900
const ANSWER_MS = 120_000
/** A connection that was revoked is heard so long after that, to be told so. */
const REVOKED_HEARD_MS = DAY_MS
const REQUESTS_KEPT_MS = 30 * DAY_MS
const SWEEP_ROWS = 500
const MAX_GRANTS = 200

interface Outcome {
  readonly answer: BunkerAnswer
  /** Of what was to be signed. */
  readonly kind?: number
  /** Besides, in the same commit. */
  readonly changes?: readonly Command<unknown>[]
}

export class Bunker {
  readonly #deps: BunkerDeps
  readonly #heard = new Set<string>()
  readonly #rates = new Map<string, { period: number; count: number }>()

  constructor(deps: BunkerDeps) {
    this.#deps = deps
  }

  /** Hears all clients. */
  start(): void {
    const { scope, store, clock } = this.#deps
    for (const grant of heardBunkerGrants(store, clock.now() - REVOKED_HEARD_MS)) this.#hear(grant)
    scope.spawn('sweep', () => this.#sweep())
    scope.every('sweep', DAY_MS, () => this.#sweep())
  }

  /** @returns the connection, and the string for the client, which holds a secret that is good once @throws conflict, relay_invalid */
  async create(order: GrantOrder): Promise<{ grant: BunkerGrant; url: string }> {
    const id = idOf('bunker', order.key)
    const grant = await this.#insert(id, order, { origin: 'bunker', relays: order.relays ?? this.#deps.nostr.relays })
    return { grant, url: formatBunkerUri({ signerPubkey: grant.signerPubkey, relays: grant.relays, secret: this.#secretOf(id) }) }
  }

  /** Answers a client that made the string: what it may do is the owner's order, not its wish. @throws conflict */
  async connect(uri: NostrConnectUri, order: GrantOrder): Promise<BunkerGrant> {
    const id = idOf('client', order.key)
    const { clientPubkey, name = null } = uri
    return await this.#insert(id, order, { origin: 'client', relays: uri.relays, clientPubkey, clientName: name }, uri.secret)
  }

  async #insert(
    id: string,
    order: GrantOrder,
    client: { origin: BunkerGrant['origin']; relays: readonly string[]; clientPubkey?: string; clientName?: string | null },
    secret?: string,
  ): Promise<BunkerGrant> {
    const { store, clock, nostr } = this.#deps
    if (client.relays.length === 0) throw new PylonError('relay_invalid', 'There is no relay to be reached by: name one with --relay.')
    const open = heardBunkerGrants(store, clock.now()).length
    if (getBunkerGrant(store, id) === undefined && open >= MAX_GRANTS)
      throw new PylonError('conflict', `There are ${MAX_GRANTS} connections: revoke one first.`)
    const at = clock.now()
    const signer = this.#signerOf(id)
    const { key: _key, relays: _relays, ...asked } = order
    const bound = { clientPubkey: client.clientPubkey ?? null, clientName: client.clientName ?? null }
    const connectedAt = bound.clientPubkey === null ? null : at
    const grant = {
      ...asked,
      ...bound,
      id,
      signerPubkey: signer.pubkey,
      origin: client.origin,
      relays: client.relays,
      createdAt: at,
      connectedAt,
    }
    const greeting = this.#greeting(grant, signer, secret)
    if (getBunkerGrant(store, id) === undefined) await store.write(all(insertBunkerGrant(grant), ...greeting))
    const stored = this.get(id)
    if (stored.userPubkey !== order.userPubkey || stored.clientPubkey !== (client.clientPubkey ?? stored.clientPubkey))
      throw new PylonError('idempotency_conflict', 'This idempotency key was used for another connection: use a new one.')
    this.#hear(stored)
    if (greeting.length > 0) nostr.nudgeOutbox()
    return stored
  }

  /** What a client that made the string waits for: it knows us by its own secret. */
  #greeting(
    grant: Pick<BunkerGrant, 'id' | 'clientPubkey' | 'relays'>,
    signer: LocalSigner,
    secret: string | undefined,
  ): Command<unknown>[] {
    const { id, clientPubkey, relays } = grant
    if (secret === undefined || clientPubkey === null) return []
    const at = this.#deps.clock.now()
    const to = { clientPubkey, requestId: id, scheme: 'nip44' as const }
    const event = signer.sign(buildBunkerAnswer(signer, to, { result: secret }, unixSeconds(this.#deps.clock)))
    return [enqueueEvent({ key: bunkerAnswerMessage.of(`connect-${id}`), event, relays, notAfter: at + ANSWER_MS, at })]
  }

  /** The newest first. */
  list(): BunkerGrant[] {
    return listBunkerGrants(this.#deps.store)
  }

  /** @throws not_found */
  get(id: string): BunkerGrant {
    const found = getBunkerGrant(this.#deps.store, id)
    if (found === undefined) throw new PylonError('not_found', `There is no connection ${id}: pylon bunker list.`)
    return found
  }

  /** Nothing more is signed for it. @throws not_found */
  async revoke(id: string): Promise<BunkerGrant> {
    await this.#deps.store.write(revokeBunkerGrant({ id, at: this.#deps.clock.now() }))
    return this.get(id)
  }

  #signerOf(id: string): LocalSigner {
    return createSigner(this.#deps.keyring.derivedSecret(`bunker signer ${id}`), this.#deps.scope.random)
  }

  #secretOf(id: string): string {
    return Buffer.from(this.#deps.keyring.derivedSecret(`bunker secret ${id}`))
      .toString('hex')
      .slice(0, 32)
  }

  #hear({ id, signerPubkey, relays, origin }: BunkerGrant): void {
    if (this.#heard.has(id)) return
    const { nostr, dialer } = this.#deps
    // The owner chose them; those of a client are a stranger's.
    if (origin === 'bunker') for (const relay of relays) dialer.allow(relay, true)
    const signer = this.#signerOf(id)
    nostr.subscribe({
      name: `bunker:${id}`,
      filters: [{ kinds: [BUNKER_KIND], '#p': [signerPubkey] }],
      relays,
      backfillS: STALE_S,
      overlapS: STALE_S,
      isWorthIt: (event) => this.#isWorthIt(this.get(id), event),
      onEvent: (event) => this.#onEvent(this.get(id), signer, event),
    })
    this.#heard.add(id)
  }

  /** Whose signature is not worth computing: anybody but the client once there is one, and floods. */
  #isWorthIt(grant: BunkerGrant, event: NostrEvent): boolean {
    const { id, clientPubkey } = grant
    if (clientPubkey === null)
      return (
        stateOf(grant, this.#deps.clock.now()) === 'waiting' &&
        event.content.length <= MAX_ATTEMPT_CHARS &&
        this.#rate(`attempts ${id}`) <= ATTEMPTS_A_MINUTE
      )
    return event.pubkey === clientPubkey && this.#rate(`heard ${id}`) <= 2 * REQUESTS_A_MINUTE
  }

  /** Adds to what there was of a kind in this period of time. @returns how much that is now */
  #rate(name: string, periodMs = MINUTE_MS, more = 1): number {
    const period = Math.floor(this.#deps.clock.now() / periodMs)
    const known = this.#rates.get(name)
    const count = (known?.period === period ? known.count : 0) + more
    this.#rates.set(name, { period, count })
    return count
  }

  async #onEvent(grant: BunkerGrant, signer: LocalSigner, event: NostrEvent): Promise<void> {
    const { store, clock, logger, nostr } = this.#deps
    if (isBunkerRequestClaimed(store, event.id)) return
    let opened: { request: BunkerRequest; scheme: EncryptionScheme }
    try {
      opened = openBunkerRequest(signer, event)
    } catch (error) {
      logger.debug({ connection: grant.id, event_id: event.id, error: messageOf(error) }, 'a request to the bunker cannot be read')
      return
    }
    const { request, scheme } = opened
    const outcome = this.#outcomeOf(grant, event, request)
    // To a stranger nothing is said.
    if (outcome === undefined) return
    const { answer, kind = null, changes = [] } = outcome
    const at = clock.now()
    const to = { clientPubkey: event.pubkey, requestId: request.id, scheme }
    const { event: sent, refusal } = this.#signed(signer, to, answer)
    const isNew = await persistIfUnmoved(
      this.#deps,
      claimBunkerRequest({ eventId: event.id, grantId: grant.id, method: request.method, kind, refusal, createdAt: at }),
      ...changes,
      enqueueEvent({ key: bunkerAnswerMessage.of(event.id), event: sent, relays: grant.relays, notAfter: at + ANSWER_MS, at }),
    )
    if (isNew) nostr.nudgeOutbox()
  }

  #signed(signer: LocalSigner, to: BunkerAsker, answer: BunkerAnswer): { event: NostrEvent; refusal: string | null } {
    const sign = (said: BunkerAnswer) => signer.sign(buildBunkerAnswer(signer, to, said, unixSeconds(this.#deps.clock)))
    try {
      return { event: sign(answer), refusal: 'error' in answer ? answer.error : null }
    } catch (error) {
      if (!isPylonError(error, 'event_invalid')) throw error
      const refusal = 'invalid: the answer is too long to be sent'
      return { event: sign({ error: refusal }), refusal }
    }
  }

  /** Undefined for somebody who has no connection and does not bring the secret of one. */
  #outcomeOf(grant: BunkerGrant, event: NostrEvent, request: BunkerRequest): Outcome | undefined {
    if (grant.clientPubkey === null) return this.#outcomeOfConnect(grant, event, request)
    if (event.pubkey !== grant.clientPubkey) return undefined
    const { method } = request
    const refusal = refusalOf(grant, { method, createdAtS: event.created_at }, this.#deps.clock.now()) ?? this.#flood(grant, event)
    if (refusal !== undefined) return { answer: { error: refusal } }
    try {
      return this.#do(grant, request)
    } catch (error) {
      if (!isPylonError(error)) throw error
      return { answer: { error: `invalid: ${error.message}` } }
    }
  }

  #outcomeOfConnect(grant: BunkerGrant, event: NostrEvent, { method, params }: BunkerRequest): Outcome | undefined {
    const at = this.#deps.clock.now()
    const isFresh = Math.abs(event.created_at - at / 1000) <= STALE_S
    if (method !== 'connect' || stateOf(grant, at) !== 'waiting' || !isFresh || !isSame(params[1] ?? '', this.#secretOf(grant.id)))
      return undefined
    const bound = { id: grant.id, clientPubkey: event.pubkey, clientName: clientNameIn(params[3]) ?? null, at }
    return { answer: { result: 'ack' }, changes: [bindBunkerClient(bound)] }
  }

  #flood({ id }: BunkerGrant, event: NostrEvent): string | undefined {
    if (this.#rate(`asked ${id}`) > REQUESTS_A_MINUTE) return 'rate-limited: too many requests in a minute, try again in the next one'
    const isMuch =
      this.#rate(`day ${id}`, DAY_MS) > (this.#deps.requestsADay ?? REQUESTS_A_DAY) ||
      this.#rate(`chars ${id}`, DAY_MS, event.content.length) > CHARS_A_DAY
    return isMuch ? 'rate-limited: this connection has asked too much today' : undefined
  }

  #do(grant: BunkerGrant, { method, params }: BunkerRequest): Outcome {
    const [first = '', second = ''] = params
    const text = (result: string): Outcome => ({ answer: { result } })
    switch (method) {
      case 'connect':
        return text('ack')
      case 'ping':
        return text('pong')
      case 'get_public_key':
        return text(grant.userPubkey)
      case 'switch_relays':
        return text('null')
      case 'logout':
        return { ...text('ack'), changes: [revokeBunkerGrant({ id: grant.id, at: this.#deps.clock.now() })] }
      case 'sign_event':
        return this.#sign(grant, first)
      case 'nip44_encrypt':
        return text(this.#user(grant).nip44Encrypt(first, second))
      case 'nip44_decrypt':
        return text(this.#user(grant).nip44Decrypt(first, second))
      case 'nip04_encrypt':
        return text(this.#user(grant).nip04Encrypt(first, second))
      case 'nip04_decrypt':
        return text(this.#user(grant).nip04Decrypt(first, second))
      default:
        throw new PylonError('internal', `The method ${method} was taken and is not done.`)
    }
  }

  #sign(grant: BunkerGrant, template: string): Outcome {
    const { pubkey, ...asked } = parseTemplate(template)
    const { kind } = asked
    if (pubkey !== undefined && pubkey !== grant.userPubkey)
      return { kind, answer: { error: 'invalid: the event names another author than this connection signs for' } }
    if (!mayBeSigned(kind, grant.kinds)) return { kind, answer: { error: `forbidden: this connection may not sign kind ${kind}` } }
    if (asked.created_at > unixSeconds(this.#deps.clock) + MAX_AHEAD_S)
      return { kind, answer: { error: 'invalid: the event is dated in the future' } }
    return { kind, answer: { result: JSON.stringify(this.#user(grant).sign(asked)) } }
  }

  /** @throws not_found when the agent is no more; bunker_unable when its own key is at a bunker */
  #user({ userPubkey }: BunkerGrant): LocalSigner {
    const { keyring, store } = this.#deps
    if (userPubkey !== keyring.node().pubkey && findAgent(store, userPubkey) === undefined)
      throw new PylonError('not_found', 'the agent that this connection signs for is no more')
    return keyring.localSigner(userPubkey)
  }

  async #sweep(): Promise<void> {
    const { scope, store, clock } = this.#deps
    const sweep = () => store.write(sweepBunkerRequests({ before: clock.now() - REQUESTS_KEPT_MS, limit: SWEEP_ROWS }))
    while ((await sweep()) === SWEEP_ROWS && !scope.isClosing);
  }
}

const idOf = (side: string, key: string): string => createHash('sha256').update(`bunker ${side} ${key}`).digest('hex').slice(0, 12)

function isSame(one: string, other: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(one), digest(other))
}
