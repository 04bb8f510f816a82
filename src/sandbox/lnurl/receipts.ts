/** Publishes the receipt of every paid zap exactly once: stored as signed before it is sent, sent again after a crash. */
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { NostrEvent } from '../nostr-event.ts'
import type { Addresses } from './addresses.ts'
import { deliver, relaysNamed } from './deliver.ts'
import { makeZapReceipt } from './zaps.ts'

interface ReceiptDeps {
  readonly addresses: Addresses
  readonly secretKey: Uint8Array
  /** Resolves when the relay has committed the event (or had it already). */
  readonly publish: (event: NostrEvent) => Promise<unknown>
  readonly clock: Clock
  readonly logger: Logger
  /** The relay that `publish` goes to. */
  readonly ownRelay: string
  /** To another relay; over a socket by default. */
  readonly deliver?: typeof deliver
}

export class ReceiptPublisher {
  readonly #deps: ReceiptDeps
  readonly #sending = new Set<Promise<void>>()
  #running: Promise<void> | undefined
  #again = false

  constructor(deps: ReceiptDeps) {
    this.#deps = deps
  }

  /** Publishes what is due; one run at a time, and once more when something came due meanwhile. */
  publishDue(): void {
    this.#again = true
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined
    })
  }

  /** Resolves when nothing is in flight. */
  async idle(): Promise<void> {
    await this.#running
    await Promise.all(this.#sending)
  }

  async #run(): Promise<void> {
    const { addresses, secretKey, publish, clock, logger } = this.#deps
    while (this.#again) {
      this.#again = false
      try {
        for (const due of addresses.dueReceipts()) {
          const receipt = due.receipt === null ? makeZapReceipt(due, secretKey) : (JSON.parse(due.receipt) as NostrEvent)
          if (due.receipt === null) addresses.storeReceipt(due.quoteId, JSON.stringify(receipt))
          await publish(receipt)
          addresses.markPublished(due.quoteId, unixSeconds(clock))
          this.#tellOthers(receipt, JSON.parse(due.zapRequest) as NostrEvent)
        }
      } catch (error) {
        logger.error({ err: messageOf(error) }, 'zap receipt not published, tried again at the next payment or start')
      }
    }
  }

  /** The relays that the zap request names, each on its own: one that is down holds up none. */
  #tellOthers(receipt: NostrEvent, request: NostrEvent): void {
    const { clock, logger, ownRelay, deliver: send = deliver } = this.#deps
    for (const url of relaysNamed(request, ownRelay)) {
      const sending = send(url, receipt, clock)
        .catch((error: unknown) => logger.info({ url, err: messageOf(error) }, 'a relay of a zap request did not take the receipt'))
        .finally(() => this.#sending.delete(sending))
      this.#sending.add(sending)
    }
  }
}
