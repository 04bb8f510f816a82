/** From a verified event to the engine: looks at the envelope, decodes, finds the relays for the answer. */
import type { Config } from '../../base/config.ts'
import { isPylonError, messageOf, toPylonError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { cancelledIds } from '../../nostr/nips/nip90.ts'
import type { Nostr, NostrEvent, Signer } from '../../nostr/types.ts'
import { judgeEnvelope } from './admission.ts'
import type { Engine } from './engine.ts'
import { blankOrder, decodeRequest, envelopeOf, knockOf } from './nip90.ts'
import type { Order } from './order.ts'
import type { Knock } from './strangers.ts'

/** How long the customer's relay list is waited for; then the answer goes to our own relays and those it named. */
const ROUTE_WAIT_MS = 2000
const ROUTE_KEPT_MS = 600_000
const MAX_ROUTES = 5000

export interface Intake {
  /** Kind 5xxx. Resolves once the request is claimed or was passed over. */
  onRequest(event: NostrEvent): Promise<void>
  /** Charges an event to its key, before its signature is computed. */
  isWorthIt(event: NostrEvent, relay: string): boolean
  /** Kind 5. */
  onDeletion(event: NostrEvent): Promise<void>
}

interface IntakeDeps {
  readonly engine: Engine
  readonly nostr: Pick<Nostr, 'relays' | 'relaysToReach'>
  readonly signer: () => Signer
  readonly scope: Scope
  readonly logger: Logger
  readonly config: () => Config
  readonly isServed: (kind: number) => boolean
}

export function createIntake(deps: IntakeDeps): Intake {
  const { engine, logger } = deps
  const { clock } = deps.scope
  const router = new Router(deps)

  async function open(event: NostrEvent): Promise<void> {
    const signer = deps.signer()
    const { max_age_s, max_skew_s, max_input_bytes } = deps.config().provider
    const verdict = judgeEnvelope(envelopeOf(event), {
      me: signer.pubkey,
      nowS: Math.floor(clock.now() / 1000),
      maxAgeS: max_age_s,
      maxSkewS: max_skew_s,
      maxInputBytes: max_input_bytes,
      isServed: deps.isServed,
    })
    if (verdict.type === 'ignore') {
      logger.debug({ job_id: event.id, kind: event.kind, reason: verdict.reason }, 'a request was passed over')
      return
    }
    const blank = blankOrder(event, signer.pubkey)
    if (verdict.type === 'refuse') {
      await engine.refuse(blank, verdict, () => router.route(event.pubkey, []))
      return
    }
    // Before anything is spent on it: the customer's relays, the key that decrypts, the mint.
    const knock = knockOf(event)
    const full = engine.strangers.enter(knock)
    if (full !== undefined) {
      await engine.turnAway({ ...blank, answerRelays: deps.nostr.relays }, full)
      return
    }
    try {
      await admit(event, knock, blank)
    } finally {
      engine.settleDoor(event.id)
    }
  }

  async function admit(event: NostrEvent, knock: Knock, blank: Order): Promise<void> {
    const signer = deps.signer()
    const { max_age_s } = deps.config().provider
    let decoded: ReturnType<typeof decodeRequest>
    try {
      decoded = decodeRequest(event, signer, max_age_s)
    } catch (error) {
      // What we cannot read was not meant for us.
      if (isPylonError(error, 'decrypt_failed')) return
      const { code, message } = toPylonError(error)
      await engine.refuse(blank, { code, message }, () => router.route(event.pubkey, []))
      return
    }
    const full = engine.strangers.read(knock, decoded.order.token === undefined ? 'invoice' : 'token')
    if (full !== undefined) {
      await engine.turnAway({ ...blank, answerRelays: deps.nostr.relays }, full)
      return
    }
    await engine.admit({ ...decoded.order, answerRelays: await router.route(event.pubkey, decoded.hints) })
  }

  return {
    isWorthIt: (event, relay) => engine.strangers.charge({ pubkey: event.pubkey, bytes: envelopeOf(event).bytes }, relay),
    onRequest: (event) => engine.once(event.id, () => open(event)),
    async onDeletion(event) {
      const ids = cancelledIds(event)
      if (ids.length > 0) await engine.cancel(ids, event.pubkey, event.id)
    },
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
