/** From a verified event to the engine: looks at the envelope, decodes, finds the relays for the answer. */
import { unixSeconds } from '../../base/clock.ts'
import type { Config } from '../../base/config.ts'
import { isPylonError, messageOf, toPylonError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { isKeyAway } from '../../nostr/keys/away.ts'
import { cancelledIds } from '../../nostr/nips/nip90.ts'
import type { Nostr, NostrEvent, Signer } from '../../nostr/types.ts'
import { judgeEnvelope, type Refusal } from './admission.ts'
import type { Engine } from './engine.ts'
import { blankOrder, decodeRequest, envelopeOf, knockOf } from './nip90.ts'
import type { Order } from './order.ts'
import type { Knock } from './strangers.ts'

/** How long the customer's relay list is waited for; then the answer goes to our own relays and those it named. */
const ROUTE_WAIT_MS = 2000
const ROUTE_KEPT_MS = 600_000
const MAX_ROUTES = 5000

interface IntakeDeps {
  readonly engine: Engine
  readonly nostr: Pick<Nostr, 'relays' | 'relaysToReach'>
  readonly signer: () => Signer
  readonly scope: Scope
  readonly logger: Logger
  readonly config: () => Config
  readonly isServed: (kind: number) => boolean
}

export class Intake {
  readonly #deps: IntakeDeps
  readonly #router: Router

  constructor(deps: IntakeDeps) {
    this.#deps = deps
    this.#router = new Router(deps)
  }

  /** Charges an event to its key, before its signature is computed. */
  isWorthIt = (event: NostrEvent, relay: string): boolean =>
    this.#deps.engine.strangers.charge({ pubkey: event.pubkey, bytes: envelopeOf(event).bytes }, relay)

  /** Kind 5xxx. Resolves once the request is claimed or was passed over. */
  onRequest = (event: NostrEvent): Promise<void> => this.#deps.engine.once(event.id, () => this.#open(event))

  /** Kind 5. */
  onDeletion = async (event: NostrEvent): Promise<void> => {
    const ids = cancelledIds(event)
    if (ids.length > 0) await this.#deps.engine.cancel(ids, event.pubkey, event.id)
  }

  async #open(event: NostrEvent): Promise<void> {
    const { engine, logger, config, scope } = this.#deps
    const me = this.#deps.signer().pubkey
    const { max_age_s, max_skew_s, max_input_bytes } = config().provider
    const verdict = judgeEnvelope(envelopeOf(event), {
      me,
      nowS: unixSeconds(scope.clock),
      maxAgeS: max_age_s,
      maxSkewS: max_skew_s,
      maxInputBytes: max_input_bytes,
      isServed: this.#deps.isServed,
    })
    if (verdict.type === 'ignore') {
      logger.debug({ job_id: event.id, kind: event.kind, reason: verdict.reason }, 'a request was passed over')
      return
    }
    const blank = blankOrder(event, me)
    if (verdict.type === 'refuse') return await engine.refuse(blank, verdict, () => this.#router.route(event.pubkey, []))
    // Before anything is spent on it: the customer's relays, the key that decrypts, the mint.
    const knock = knockOf(event)
    const full = engine.strangers.enter(knock)
    if (full !== undefined) return await this.#turnAway(blank, full)
    try {
      await this.#admit(event, knock, blank)
    } finally {
      engine.settleDoor(event.id)
    }
  }

  async #admit(event: NostrEvent, knock: Knock, blank: Order): Promise<void> {
    const { engine, config } = this.#deps
    let decoded: Awaited<ReturnType<typeof decodeRequest>>
    try {
      decoded = await decodeRequest(event, this.#deps.signer(), config().provider.max_age_s)
    } catch (error) {
      if (isKeyAway(error)) throw error
      // What we cannot read was not meant for us.
      if (isPylonError(error, 'decrypt_failed')) return
      const { code, message } = toPylonError(error)
      return await engine.refuse(blank, { code, message }, () => this.#router.route(event.pubkey, []))
    }
    const full = engine.strangers.read(knock, decoded.order.token === undefined ? 'invoice' : 'token')
    if (full !== undefined) return await this.#turnAway(blank, full)
    await engine.admit({ ...decoded.order, answerRelays: await this.#router.route(event.pubkey, decoded.hints) })
  }

  /** On our own relays alone: nothing is looked up for it. */
  async #turnAway(blank: Order, refusal: Refusal): Promise<void> {
    await this.#deps.engine.turnAway({ ...blank, answerRelays: this.#deps.nostr.relays }, refusal)
  }
}

/** Relays to answer on: kept for a while by customer and hints, and never waited for long. */
class Router {
  readonly #deps: Pick<IntakeDeps, 'nostr' | 'scope' | 'logger'>
  readonly #routes = new Map<string, { relays: Promise<readonly string[]>; until: number }>()

  constructor(deps: Pick<IntakeDeps, 'nostr' | 'scope' | 'logger'>) {
    this.#deps = deps
  }

  route(pubkey: string, hints: readonly string[]): Promise<readonly string[]> {
    const now = this.#deps.scope.clock.now()
    const key = [pubkey, ...hints].join(' ')
    const kept = this.#routes.get(key)
    if (kept !== undefined && kept.until > now) return kept.relays
    if (this.#routes.size >= MAX_ROUTES) this.#routes.clear()
    const relays = this.#lookUp(pubkey, hints)
    this.#routes.set(key, { relays, until: now + ROUTE_KEPT_MS })
    return relays
  }

  async #lookUp(pubkey: string, hints: readonly string[]): Promise<readonly string[]> {
    const { nostr, scope, logger } = this.#deps
    try {
      const relays = await scope.within('relays of a customer', ROUTE_WAIT_MS, () => nostr.relaysToReach(pubkey, hints))
      return relays.length > 0 ? relays : [...nostr.relays]
    } catch (error) {
      logger.debug({ error: messageOf(error) }, 'the relays of a customer could not be found')
      return [...nostr.relays]
    }
  }
}
