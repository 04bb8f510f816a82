/**
 * Asks the same job again of one key alone, addressed and encrypted, when the only invoice that could be paid is named by
 * several: the answer's invoice is that key's, since nobody else is asked.
 */

import { isPylonError, messageOf } from '../base/errors.ts'
import { npubOf } from '../nostr/nips/nip19.ts'
import type { IdentifiedEvent } from '../nostr/types.ts'
import { insertRepeatedRequest, repeatedRequests } from '../store/buying/purchase-claims.ts'
import { notePurchase, type OfferRow, type PurchaseRow } from '../store/buying/purchases.ts'
import { all } from '../store/commands.ts'
import { purchaseRequestMessage } from '../store/keys.ts'
import { enqueueEvent } from '../store/nostr/outbox.ts'
import type { CustomerDeps } from './deps.ts'
import { orderOf, type PurchaseLog } from './purchase-log.ts'
import { buildRequest } from './request.ts'

/** Keys that are asked one after the other; copies come by the dozen. */
const MAX_ASKED = 3
const MAX_WAIT_MS = 10_000
const MIN_WAIT_MS = 1_000

export class AskAgain {
  readonly #deps: CustomerDeps
  readonly #log: PurchaseLog

  constructor(deps: CustomerDeps, log: PurchaseLog) {
    this.#deps = deps
    this.#log = log
  }

  /**
   * Asks the next of the keys that name the invoice, first heard first, or leaves the one before it its time.
   * @returns until when (ms) an answer is waited for; undefined when each had its turn
   */
  async ask(row: PurchaseRow, contested: readonly OfferRow[]): Promise<number | undefined> {
    const now = this.#deps.clock.now()
    const asked = repeatedRequests(this.#deps.store, row.id)
    const waiting = asked.find((request) => !request.refused && request.untilAt > now)
    if (waiting !== undefined) return waiting.untilAt
    if (asked.length >= MAX_ASKED) return undefined
    const keys = [...contested].sort((a, b) => a.receivedAt - b.receivedAt).map((offer) => offer.provider)
    const next = keys.find((key) => !asked.some((request) => request.provider === key))
    if (next === undefined) return undefined
    // A share of the time that is left for each way: the other keys, and the invoice itself at last.
    const shareMs = (row.deadlineAt - now) / (MAX_ASKED + 1 - asked.length)
    const untilAt = now + Math.min(MAX_WAIT_MS, Math.max(MIN_WAIT_MS, Math.floor(shareMs)))
    return (await this.#request(row, next, untilAt)) ? untilAt : undefined
  }

  async #request(row: PurchaseRow, provider: string, untilAt: number): Promise<boolean> {
    const { nostr, store, clock, logger } = this.#deps
    const event = this.#build(row, provider)
    if (event === undefined) return false
    const relays = await nostr.relaysToReach(provider).catch((error: unknown) => {
      logger.debug({ err: messageOf(error) }, 'the relays of a provider could not be looked up')
      return nostr.relays
    })
    const at = clock.now()
    const reason = `several keys name one invoice, so the job was asked again of ${npubOf(provider).slice(0, 16)} alone`
    await store.write(
      all(
        insertRepeatedRequest({ eventId: event.id, purchaseId: row.id, provider, createdAt: at, untilAt }),
        notePurchase({ id: row.id, reason, at }),
        enqueueEvent({ key: `${purchaseRequestMessage.of(row.id)}:${provider}`, event, relays, notAfter: row.deadlineAt, at }),
      ),
    )
    nostr.nudgeOutbox()
    this.#log.wake(row.id)
    return true
  }

  #build(row: PurchaseRow, provider: string): IdentifiedEvent | undefined {
    try {
      return buildRequest(this.#deps, row, { ...orderOf(row), encrypt: true }, { provider })
    } catch (error) {
      // Too long to be encrypted: that way is closed.
      if (isPylonError(error, 'locked')) throw error
      this.#deps.logger.warn({ purchase: row.id, err: messageOf(error) }, 'a job could not be asked again of one key')
      return undefined
    }
  }
}
