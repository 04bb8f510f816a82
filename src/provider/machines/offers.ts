/** Publishes what can be rented now, repeats it before it runs out, and takes it back when it is over. */
import { createHash } from 'node:crypto'
import { unixSeconds } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { buildOffer, buildWithdrawnOffer, OFFER_LIFETIME_S, type RuntimeOffer } from '../../nostr/control/offers.ts'
import { identify } from '../../nostr/nips/nip01.ts'
import type { Nostr } from '../../nostr/types.ts'
import { all, type Command } from '../../store/commands.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import { getSetting, putSetting } from '../../store/settings.ts'
import type { Store } from '../../store/store.ts'
import type { Market } from './market.ts'
import type { Substrates } from './substrates.ts'

/** Well before it expires. */
const REPEAT_MS = (OFFER_LIFETIME_S * 1000) / 2
/** How often capacity is looked at and offers are compared with what was said; and how soon after a change. */
const REFRESH_MS = 5000
const CHANGED_MS = 100
const SETTING = 'runtime_offers'

/** By class: what was said last. */
type Said = Record<string, { digest: string; createdAtS: number }>

export interface OffersDeps {
  readonly store: Store
  readonly logger: Logger
  readonly nostr: Pick<Nostr, 'relays' | 'keyring' | 'nudgeOutbox'>
  readonly substrates: Substrates
  readonly market: Market
}

export class Offers {
  readonly #scope: Scope
  readonly #deps: OffersDeps
  /** One announcement follows from the one before. */
  readonly #turns = new KeyedQueue()
  #isOpen = false
  #cancelRefresh: () => void = () => undefined

  constructor(scope: Scope, deps: OffersDeps) {
    this.#scope = scope
    this.#deps = deps
  }

  /** What is announced is what can be rented now, from here on until `close`. */
  async open(): Promise<void> {
    this.#isOpen = true
    await this.refresh()
  }

  /** Capacity or runtimes changed. */
  changed(): void {
    if (this.#isOpen) this.#refreshIn(CHANGED_MS)
  }

  /** Looks at the substrates and announces what there is. */
  async refresh(): Promise<void> {
    if (!this.#isOpen) return
    this.#cancelRefresh()
    const { substrates, market, logger } = this.#deps
    try {
      await this.#inTurn('refresh', async () => {
        await substrates.look()
        if (this.#isOpen) await this.#publish(market.offers())
      })
    } catch (error) {
      if (this.#isOpen) logger.warn({ error: messageOf(error) }, 'offers of machines could not be refreshed; they are tried again')
    }
    if (this.#isOpen) this.#refreshIn(REFRESH_MS)
  }

  /** Takes them back from the relays; the next refresh says them again. */
  async withdraw(): Promise<void> {
    await this.#inTurn('withdrawal', () => this.#publish([]))
  }

  /** Takes them back for good. */
  async close(): Promise<void> {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.#cancelRefresh()
    await this.withdraw()
  }

  #inTurn(name: string, work: () => Promise<void>): Promise<void> {
    return this.#turns.run('', () => this.#scope.run(name, work))
  }

  #refreshIn(ms: number): void {
    this.#cancelRefresh()
    this.#cancelRefresh = this.#scope.after('refresh', ms, () => this.refresh())
  }

  /** Says what differs from what was said; classes that are not in the list any more are withdrawn. */
  async #publish(offers: readonly RuntimeOffer[]): Promise<void> {
    const { store, nostr } = this.#deps
    const { clock } = this.#scope
    const pubkey = nostr.keyring.node().pubkey
    const said: Said = { ...getSetting<Said>(store, SETTING) }
    const at = clock.now()
    const commands: Command<unknown>[] = []
    const send = (runtimeClass: string, template: Parameters<typeof identify>[1]) =>
      commands.push(
        enqueueEvent({
          key: `runtime-offer:${pubkey}:${runtimeClass}:${template.kind}`,
          event: identify(pubkey, template),
          relays: nostr.relays,
          notAfter: at + OFFER_LIFETIME_S * 1000,
          at,
        }),
      )
    for (const offer of offers) {
      const last = said[offer.runtimeClass]
      const { tags, content } = buildOffer(offer, 0)
      const digest = createHash('sha256')
        .update(JSON.stringify([tags, content, nostr.relays]))
        .digest('hex')
      if (last?.digest === digest && last.createdAtS * 1000 + REPEAT_MS > at) continue
      // A replaceable event must be newer than the one it replaces, and than the deletion before it.
      const createdAtS = Math.max(unixSeconds(clock), (last?.createdAtS ?? 0) + 1)
      said[offer.runtimeClass] = { digest, createdAtS }
      send(offer.runtimeClass, buildOffer(offer, createdAtS))
    }
    for (const [runtimeClass, last] of Object.entries(said)) {
      if (last.digest === '' || offers.some((offer) => offer.runtimeClass === runtimeClass)) continue
      const createdAtS = Math.max(unixSeconds(clock), last.createdAtS + 1)
      said[runtimeClass] = { digest: '', createdAtS }
      send(runtimeClass, buildWithdrawnOffer({ runtimeClass }, pubkey, createdAtS))
    }
    if (commands.length === 0) return
    await store.write(all(...commands, putSetting({ key: SETTING, value: said, at })))
    nostr.nudgeOutbox()
  }
}
