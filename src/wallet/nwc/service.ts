/**
 * NIP-47, as the wallet: connections by which programs elsewhere use one wallet of this home, within a budget of their own.
 *
 *   event -> claimed (once, by its id) -> done by methods.ts -> answered, in one commit with what it spent and its outbox row
 *
 * A request whose payment nobody can tell of yet stays unanswered until the wallet knows; after a restart what was claimed goes on.
 */
import { hash } from 'node:crypto'
import type { WalletOwner } from '../../base/accounts.ts'
import type { Sats } from '../../base/amounts.ts'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import type { Dialer } from '../../base/dialer.ts'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { createSigner } from '../../nostr/keys/signer.ts'
import {
  buildInfo,
  buildNotifications,
  buildNwcResponse,
  encryptionOf,
  formatNwcUri,
  NWC_REQUEST_KIND,
  type NwcAnswer,
  type NwcEncryption,
  type NwcError,
  type NwcMethod,
  type NwcNotificationType,
  type NwcRequest,
  openNwcRequest,
} from '../../nostr/nips/nip47.ts'
import type { LocalSigner, Nostr, NostrEvent, Subscription } from '../../nostr/types.ts'
import { findAgent } from '../../store/agents/agents.ts'
import { all, type Command } from '../../store/commands.ts'
import { nwcAnswerMessage, nwcCause, nwcInfoMessage, nwcNoticeMessage } from '../../store/keys.ts'
import {
  answerNwcRequest,
  type BudgetPeriod,
  claimNwcRequest,
  getNwcConnection,
  getNwcRequest,
  insertNwcConnection,
  listNwcConnections,
  type NewNwcRequest,
  type NwcConnection,
  type NwcRequestRow,
  nwcConnectionsOf,
  nwcSpentSats,
  openNwcRequests,
  refuseNwcRequest,
  resendNwcAnswer,
  revokeNwcConnection,
  sweepNwcRequests,
} from '../../store/money/nwc-service.ts'
import { transactionOfHash } from '../../store/money/transactions.ts'
import { enqueueEvent, outboxEvent } from '../../store/nostr/outbox.ts'
import { persistIfUnmoved } from '../../store/persist.ts'
import type { Store } from '../../store/store.ts'
import { decodeInvoice } from '../lightning/bolt11.ts'
import type { WalletEvent, Wallets } from '../types.ts'
import { type MethodOutcome, NwcMethods, transactionView } from './methods.ts'
import { periodStart } from './periods.ts'
import { refusalOf, refused, STALE_S } from './refusals.ts'

export interface NwcServiceDeps {
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly config: () => Config
  readonly dialer: Pick<Dialer, 'allow'>
  readonly nostr: Pick<Nostr, 'subscribe' | 'nudgeOutbox' | 'relays'>
  readonly keyring: { derivedSecret(purpose: string): Uint8Array }
  readonly wallets: Pick<Wallets, 'of' | 'onEvent'>
  readonly network: 'sandbox' | 'live'
}

export interface ConnectionOrder {
  /** The same key is the same connection, for ever. */
  readonly key: string
  readonly owner: WalletOwner
  readonly name: string
  readonly budget: { readonly sats: Sats; readonly per: BudgetPeriod } | null
  readonly methods: readonly NwcMethod[]
  /** Those of the node when left out. */
  readonly relays?: readonly string[]
  /** Milliseconds since the epoch. */
  readonly expiresAt: number | null
}

/** Of one connection in a minute; more are refused as RATE_LIMITED, and after twice as many not heard. */
const REQUESTS_A_MINUTE = 120
/** Who has not the key of a connection is told so this often in a minute, over all of them. */
const STRANGERS_A_MINUTE = 6
const MINUTE_MS = 60_000
/** An answer is sent again to who asks again, so long after the last time and so often. */
const RESEND_AFTER_MS = 5000
const MAX_SENDS = 10
/** How long an answer or a notice is tried to be sent. */
const ANSWER_MS = 600_000
const INFO_MS = 7 * 86_400_000
/** A connection that was revoked is heard so long after that, to be told so. */
const REVOKED_HEARD_MS = 7 * 86_400_000
const REQUESTS_KEPT_MS = 30 * 86_400_000
const SWEEP_ROWS = 500
const MAX_CONNECTIONS = 200

export class NwcService {
  readonly #deps: NwcServiceDeps
  readonly #methods: NwcMethods
  readonly #heard = new Map<string, { readonly subscription: Subscription; readonly signer: LocalSigner }>()
  /** One payment hash is judged by one request at a time. */
  readonly #hashes = new KeyedQueue()
  readonly #rates = new Map<string, { minute: number; count: number }>()

  constructor(deps: NwcServiceDeps) {
    this.#deps = deps
    this.#methods = new NwcMethods(deps)
    deps.wallets.onEvent('owner', (event) => this.#onWalletEvent(event))
  }

  /** Hears all connections, and goes on with what was claimed. */
  start(): void {
    const { scope, store, clock } = this.#deps
    for (const connection of listNwcConnections(store, clock.now() - REVOKED_HEARD_MS)) this.#hear(connection)
    for (const request of openNwcRequests(store)) this.#goOn(request.eventId)
    scope.spawn('sweep', () => this.#sweep())
    scope.every('sweep', 86_400_000, () => this.#sweep())
  }

  /** @returns the connection with its string, which holds its secret and is kept nowhere @throws conflict, relay_invalid */
  async create(order: ConnectionOrder): Promise<{ connection: NwcConnection; url: string }> {
    const { store, clock, nostr } = this.#deps
    const id = hash('sha256', `nwc ${order.key}`).slice(0, 12)
    const { service, client, secret } = this.#keysOf(id)
    const relays = order.relays ?? nostr.relays
    if (relays.length === 0) throw new PylonError('relay_invalid', 'There is no relay to be reached by: name one with --relay.')
    if (getNwcConnection(store, id) === undefined && listNwcConnections(store, clock.now()).length >= MAX_CONNECTIONS)
      throw new PylonError('conflict', `There are ${MAX_CONNECTIONS} connections: revoke one first.`)
    const { key: _key, ...asked } = order
    const keys = { servicePubkey: service.pubkey, clientPubkey: client.pubkey }
    await store.write(insertNwcConnection({ ...asked, ...keys, id, relays, createdAt: clock.now() }))
    const connection = this.get(id)
    if (!isSameOrder(connection, order))
      throw new PylonError('idempotency_conflict', 'This idempotency key was used for another connection: use a new one.')
    this.#hear(connection)
    return { connection, url: formatNwcUri({ walletPubkey: service.pubkey, relays: connection.relays, secret }) }
  }

  /** The newest first. */
  list(): NwcConnection[] {
    return listNwcConnections(this.#deps.store)
  }

  /** @throws not_found */
  get(id: string): NwcConnection {
    const found = getNwcConnection(this.#deps.store, id)
    if (found === undefined) throw new PylonError('not_found', `There is no connection ${id}: pylon wallet nwc list.`)
    return found
  }

  /** What it holds or has spent: in the period of its budget now, and in all. */
  spentSats(connection: NwcConnection): { inPeriod: Sats; inAll: Sats } {
    const { store, clock } = this.#deps
    const since = connection.budget === null ? 0 : periodStart(connection.budget.per, clock.now())
    return { inPeriod: nwcSpentSats(store, connection, since), inAll: nwcSpentSats(store, connection, 0) }
  }

  /** Nothing more is done for it; what is under way is answered. @throws not_found */
  async revoke(id: string): Promise<NwcConnection> {
    await this.#deps.store.write(revokeNwcConnection({ id, at: this.#deps.clock.now() }))
    return this.get(id)
  }

  #keysOf(id: string): { service: LocalSigner; client: LocalSigner; secret: string } {
    const { keyring } = this.#deps
    const secret = keyring.derivedSecret(`nwc client ${id}`)
    const service = createSigner(keyring.derivedSecret(`nwc service ${id}`), this.#deps.scope.random)
    return { service, client: createSigner(secret), secret: Buffer.from(secret).toString('hex') }
  }

  #hear(connection: NwcConnection): void {
    const { id, servicePubkey, relays } = connection
    if (this.#heard.has(id)) return
    const { nostr, dialer, scope } = this.#deps
    // The owner chose them.
    for (const relay of relays) dialer.allow(relay, true)
    const subscription = nostr.subscribe({
      name: `nwc:${id}`,
      filters: [{ kinds: [NWC_REQUEST_KIND], '#p': [servicePubkey] }],
      relays,
      backfillS: STALE_S,
      overlapS: STALE_S,
      repeats: true,
      isWorthIt: (event) => this.#isWorthIt(connection, event),
      onEvent: (event) => this.#onEvent(id, event),
    })
    this.#heard.set(id, { subscription, signer: this.#keysOf(id).service })
    if (connection.revokedAt === null) scope.spawn('info', () => this.#tellInfo(connection))
  }

  async #tellInfo({ id, methods, createdAt, relays }: NwcConnection): Promise<void> {
    const { store, clock, nostr } = this.#deps
    const info = buildInfo({ methods: methods as readonly NwcMethod[], createdAtS: Math.floor(createdAt / 1000) })
    const at = clock.now()
    const event = this.#signerOf(id).sign(info)
    await store.write(enqueueEvent({ key: nwcInfoMessage.of(id), event, relays, notAfter: at + INFO_MS, at }))
    nostr.nudgeOutbox()
  }

  #signerOf(id: string): LocalSigner {
    return this.#heard.get(id)?.signer ?? this.#keysOf(id).service
  }

  /** Whose signature is not worth computing: strangers beyond what they are told, and floods. */
  #isWorthIt({ id, clientPubkey }: NwcConnection, event: NostrEvent): boolean {
    if (event.pubkey !== clientPubkey) return this.#rate('strangers') <= STRANGERS_A_MINUTE
    return this.#rate(`heard ${id}`) <= 2 * REQUESTS_A_MINUTE
  }

  /** Counts one of a kind. @returns how many there were in this minute */
  #rate(name: string): number {
    const minute = Math.floor(this.#deps.clock.now() / MINUTE_MS)
    const known = this.#rates.get(name)
    const count = known?.minute === minute ? known.count + 1 : 1
    this.#rates.set(name, { minute, count })
    return count
  }

  async #onEvent(id: string, event: NostrEvent): Promise<void> {
    const { store, clock, logger } = this.#deps
    const known = getNwcRequest(store, event.id)
    if (known !== undefined) return await this.#answerAgain(known)
    const encryption = encryptionOf(event)
    let asked: NwcRequest
    try {
      asked = openNwcRequest(this.#signerOf(id), event, encryption ?? 'nip44_v2')
    } catch (error) {
      if (encryption !== undefined) {
        logger.debug({ connection: id, event_id: event.id, error: messageOf(error) }, 'a request to a wallet cannot be read')
        return
      }
      asked = { method: '', params: {} }
    }
    const { method, params } = asked
    const sender = { eventId: event.id, connectionId: id, clientPubkey: event.pubkey, encryption: encryption ?? ('nip44_v2' as const) }
    const claim = { ...sender, method, params, createdAt: clock.now() }
    const refusal = this.#refusal(id, event, method, encryption)
    if (refusal !== undefined) await this.#refuse(claim, refusal)
    else if (await store.write(claimNwcRequest(claim))) this.#goOn(event.id)
  }

  /** Claimed and answered in one commit: nobody can go on with it in between. */
  async #refuse(claim: NewNwcRequest, error: NwcError): Promise<void> {
    const connection = this.get(claim.connectionId)
    const answer = this.#signed(connection, claim, { error })
    const refused = refuseNwcRequest({ ...claim, answer, refusal: wordsOf(error) })
    if (await persistIfUnmoved(this.#deps, refused, this.#sending(connection, claim.eventId, answer, 1))) this.#deps.nostr.nudgeOutbox()
  }

  /** @param nth of the sendings of this answer */
  #sending({ relays }: NwcConnection, eventId: string, event: NostrEvent, nth: number): Command<unknown> {
    const at = this.#deps.clock.now()
    return enqueueEvent({ key: nwcAnswerMessage(eventId, nth), event, relays, notAfter: at + ANSWER_MS, at })
  }

  #refusal(id: string, event: NostrEvent, method: string, encryption: NwcEncryption | undefined): NwcError | undefined {
    const asked = { pubkey: event.pubkey, createdAtS: event.created_at, method }
    const connection = this.get(id)
    if (connection.owner.kind === 'agent' && findAgent(this.#deps.store, connection.owner.pubkey) === undefined)
      return refused('UNAUTHORIZED', 'The agent whose wallet this was is no more.')
    const refusal = refusalOf(connection, asked, this.#deps.clock.now())
    if (refusal?.code === 'UNAUTHORIZED') return refusal
    if (encryption === undefined) return refused('UNSUPPORTED_ENCRYPTION', 'This wallet knows nip44_v2 and nip04.')
    if (refusal === undefined && this.#rate(`asked ${id}`) > REQUESTS_A_MINUTE)
      return refused('RATE_LIMITED', `More than ${REQUESTS_A_MINUTE} requests in a minute: try again in the next one.`)
    return refusal
  }

  /** Does what a claimed request asks, now or where it was left. */
  #goOn(eventId: string): void {
    this.#deps.scope.spawnOnce(`request ${eventId}`, () => this.#work(eventId))
  }

  async #work(eventId: string): Promise<void> {
    const request = getNwcRequest(this.#deps.store, eventId)
    if (request === undefined || request.answer !== null) return
    const connection = this.get(request.connectionId)
    if (request.clientPubkey !== connection.clientPubkey || !connection.methods.includes(request.method))
      throw new PylonError('internal', `The request ${eventId} was claimed though connection ${connection.id} may not ask it.`)
    try {
      const work = () => this.#methods.do(connection, request)
      const outcome = await (request.method === 'pay_invoice' ? this.#hashes.run(hashOf(request), work) : work())
      if (outcome !== undefined) await this.#answer(eventId, outcome)
    } catch (error) {
      if (!isPylonError(error, 'shutting_down')) throw error
    }
  }

  /** Stores and sends the answer, once. */
  async #answer(eventId: string, { answer, spentSats, paymentHash }: MethodOutcome): Promise<void> {
    const { store, clock, nostr } = this.#deps
    const request = getNwcRequest(store, eventId)
    if (request === undefined || request.answer !== null) return
    const at = clock.now()
    const connection = this.get(request.connectionId)
    const event = this.#signed(connection, request, answer)
    const refusal = 'error' in answer ? wordsOf(answer.error) : null
    const stored = answerNwcRequest({ eventId, answer: event, refusal, at, ...(spentSats === undefined ? {} : { spentSats }) })
    const sent = this.#sending(connection, eventId, event, 1)
    const notices = paymentHash === undefined ? [] : this.#notices(connection.owner, 'payment_sent', paymentHash)
    if (await persistIfUnmoved(this.#deps, stored, sent, ...notices)) nostr.nudgeOutbox()
  }

  #signed(connection: NwcConnection, request: NewNwcRequest, answer: NwcAnswer): NostrEvent {
    const { eventId: requestId, clientPubkey, encryption, method } = request
    const signer = this.#signerOf(connection.id)
    return signer.sign(buildNwcResponse(signer, { clientPubkey, requestId, encryption }, method, answer, unixSeconds(this.#deps.clock)))
  }

  /** Who sends a request again has lost its answer: the same goes out once more, unless that was just done. */
  async #answerAgain(request: NwcRequestRow): Promise<void> {
    const { store, clock, nostr } = this.#deps
    const { eventId, answer, connectionId } = request
    if (answer === null) return this.#goOn(eventId)
    const at = clock.now()
    const nth = await store.write(resendNwcAnswer({ eventId, sentBefore: at - RESEND_AFTER_MS, most: MAX_SENDS, at }))
    if (nth === undefined) return
    await store.write(this.#sending(this.get(connectionId), eventId, answer, nth))
    nostr.nudgeOutbox()
  }

  /** The wallet's later word of a payment, or that an invoice was paid; it comes at least once. */
  async #onWalletEvent(event: WalletEvent): Promise<void> {
    const eventId = nwcCause.idIn(event.cause.id)
    if (eventId === undefined) return
    if (event.type === 'payment_settled' || event.type === 'payment_failed') return this.#goOn(eventId)
    if (event.type !== 'invoice_settled') return
    const invoice = this.#deps.wallets.of(event.owner).invoice(event.idempotencyKey)
    if (invoice === undefined) return
    await this.#deps.store.write(all(...this.#notices(event.owner, 'payment_received', invoice.paymentHash)))
    this.#deps.nostr.nudgeOutbox()
  }

  /** To all connections of the wallet, once each. */
  #notices(owner: WalletOwner, type: NwcNotificationType, paymentHash: string): Command<unknown>[] {
    const { store, clock } = this.#deps
    const found = transactionOfHash(store, owner.pubkey, paymentHash)
    if (found === undefined) return []
    const at = clock.now()
    const live = nwcConnectionsOf(store, owner.pubkey).filter(({ expiresAt }) => expiresAt === null || expiresAt > at)
    return live.flatMap(({ id, clientPubkey, relays }) => {
      const signer = this.#signerOf(id)
      const templates = buildNotifications(signer, clientPubkey, type, transactionView(found), unixSeconds(clock))
      const keyed = templates.map((template) => ({ template, key: nwcNoticeMessage(id, `${type}:${paymentHash}`, template.kind) }))
      return keyed
        .filter(({ key }) => outboxEvent(store, key) === undefined)
        .map(({ template, key }) => enqueueEvent({ key, event: signer.sign(template), relays, notAfter: at + ANSWER_MS, at }))
    })
  }

  async #sweep(): Promise<void> {
    const { scope, store, clock } = this.#deps
    const sweep = () => store.write(sweepNwcRequests({ before: clock.now() - REQUESTS_KEPT_MS, limit: SWEEP_ROWS }))
    while ((await sweep()) === SWEEP_ROWS && !scope.isClosing);
  }
}

const wordsOf = ({ code, message }: NwcError): string => `${code}: ${message}`.slice(0, 500)

/** When it expires is reckoned anew by each call. */
const isSameOrder = ({ owner, budget, methods }: NwcConnection, order: ConnectionOrder): boolean =>
  owner.pubkey === order.owner.pubkey &&
  budget?.sats === order.budget?.sats &&
  budget?.per === order.budget?.per &&
  methods.join() === order.methods.join()

/** What its invoice is paid under; of one that cannot be read the request itself. */
function hashOf({ eventId, params }: NwcRequestRow): string {
  const { invoice } = params
  try {
    return typeof invoice === 'string' ? decodeInvoice(invoice).paymentHash : eventId
  } catch {
    // The method refuses it in words.
    return eventId
  }
}
