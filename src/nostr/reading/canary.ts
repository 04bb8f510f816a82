/** Does a connected relay still deliver? A tiny ephemeral event of the node's key goes out and must come back. */
import { unixSeconds } from '../../base/clock.ts'
import { isPylonError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import { randomHex } from '../../base/random.ts'
import type { Scope } from '../../base/scope.ts'
import { matchesFilter, parseEvent } from '../nips/nip01.ts'
import { LiveReq } from '../relay/live-req.ts'
import type { Relay } from '../relay/relay.ts'
import type { Filter, Keyring, LocalSigner } from '../types.ts'

/** Ephemeral: relays pass it on and keep nothing. */
export const CANARY_KIND = 20_911
const FIRST_MS = 3000
const EVERY_MS = 120_000
const WAIT_MS = 20_000
/** Missed so often in a row: deaf. Once more: reconnect. */
const MISSED_IS_DEAF = 2

export interface CanaryDeps {
  /** Of this canary alone. */
  readonly scope: Scope
  readonly relay: Relay
  readonly logger: Logger
  readonly keyring: Keyring
  /** Called when the relay turned deaf: ask again for everything. */
  onDeaf(): void
}

export class Canary {
  readonly #deps: CanaryDeps
  #req: LiveReq | undefined
  #cancelTimer: () => void = () => {}
  #flying: { id: string; sentAt: number } | undefined
  #missed = 0
  #refused = false
  #everProven = false

  constructor(deps: CanaryDeps) {
    this.#deps = deps
  }

  start(): void {
    const { scope, relay } = this.#deps
    scope.atEnd('unlisten', relay.listen({ onUp: () => this.#begin(), onDown: () => this.#end() }))
    if (relay.connected) this.#begin()
  }

  #begin(): void {
    this.#missed = 0
    this.#refused = false
    this.#later(FIRST_MS)
  }

  #end(): void {
    this.#cancelTimer()
    this.#flying = undefined
  }

  #later(ms: number): void {
    this.#cancelTimer()
    this.#cancelTimer = this.#deps.scope.after('fly', ms, () => this.#fly())
  }

  #filter(): Filter {
    return { kinds: [CANARY_KIND], authors: [this.#signer().pubkey] }
  }

  /** The node's own, as relays may take from no other; one that a bunker holds is spared this. */
  #signer(): LocalSigner {
    const { keyring } = this.#deps
    try {
      return keyring.localSigner(keyring.node().pubkey)
    } catch (error) {
      if (!isPylonError(error, 'bunker_unable')) throw error
      return keyring.customer()
    }
  }

  #fly(): void {
    const { scope, relay, keyring } = this.#deps
    const { clock } = scope
    if (!relay.connected || this.#refused || keyring.locked) return
    this.#req ??= new LiveReq({
      scope: scope.child('request'),
      relay,
      filters: () => [this.#filter()],
      onEvent: (raw) => this.#onEvent(raw),
      onEose: () => {},
    })
    // Relays that close the subscription or refuse the event cannot be tested; they are no more deaf for it.
    if (!this.#req.live) {
      this.#later(FIRST_MS)
      return
    }
    const event = this.#signer().sign({
      kind: CANARY_KIND,
      created_at: unixSeconds(clock),
      tags: [],
      content: randomHex(scope.random, 8),
    })
    this.#flying = { id: event.id, sentAt: clock.now() }
    relay.sendEvent(JSON.stringify(['EVENT', event]), event.id, (ok) => {
      if (ok || this.#flying?.id !== event.id) return
      this.#refused = true
      this.#end()
    })
    this.#cancelTimer = scope.after('wait', WAIT_MS, () => this.#onMissed(event.id))
  }

  #onEvent(raw: unknown): void {
    const flying = this.#flying
    if (flying === undefined || (raw as { id?: unknown } | null)?.id !== flying.id) return
    // The id was ours alone to know, so that it came back is proof enough; its shape still has to be right.
    if (!matchesFilter(this.#filter(), parseEvent(raw))) return
    const { relay } = this.#deps
    this.#flying = undefined
    this.#missed = 0
    this.#everProven = true
    relay.deaf = false
    relay.provenAt = flying.sentAt
    relay.forgetOk(flying.id)
    this.#later(EVERY_MS)
  }

  #onMissed(id: string): void {
    const { relay, logger } = this.#deps
    if (this.#flying?.id !== id) return
    this.#flying = undefined
    relay.forgetOk(id)
    this.#missed++
    if (this.#missed < MISSED_IS_DEAF) {
      this.#fly()
      return
    }
    if (!this.#everProven) {
      // It never passed one on: it may not serve ephemeral events, which says nothing about the others.
      this.#refused = true
      return
    }
    if (this.#missed > MISSED_IS_DEAF) {
      relay.reconnect('deaf')
      return
    }
    logger.warn({ relay: relay.url }, 'the relay is connected and delivers nothing: asking for everything again')
    relay.deaf = true
    this.#req?.reopen()
    this.#deps.onDeaf()
    this.#later(FIRST_MS)
  }
}
