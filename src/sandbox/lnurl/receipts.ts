/** Publishes the receipt of every paid zap exactly once: stored as signed before it is sent, sent again after a crash. */
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { NostrEvent } from '../nostr-event.ts'
import type { Addresses } from './addresses.ts'
import { deliver, relaysNamed } from './deliver.ts'
import { makeZapReceipt } from './zaps.ts'

export class ReceiptPublisher {
  readonly #addresses: Addresses
  readonly #secretKey: Uint8Array
  readonly #publish: (event: NostrEvent) => Promise<unknown>
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #ownRelay: string
  readonly #sending = new Set<Promise<void>>()
  #running: Promise<void> | undefined
  #again = false

  constructor(options: {
    addresses: Addresses
    secretKey: Uint8Array
    /** Resolves when the relay has committed the event (or had it already). */
    publish: (event: NostrEvent) => Promise<unknown>
    clock: Clock
    logger: Logger
    /** The relay that `publish` goes to. */
    ownRelay: string
  }) {
    this.#addresses = options.addresses
    this.#secretKey = options.secretKey
    this.#publish = options.publish
    this.#clock = options.clock
    this.#logger = options.logger
    this.#ownRelay = options.ownRelay
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
    while (this.#again) {
      this.#again = false
      try {
        for (const due of this.#addresses.dueReceipts()) {
          const receipt = due.receipt === null ? makeZapReceipt(due, this.#secretKey) : (JSON.parse(due.receipt) as NostrEvent)
          if (due.receipt === null) this.#addresses.storeReceipt(due.quoteId, JSON.stringify(receipt))
          await this.#publish(receipt)
          this.#addresses.markPublished(due.quoteId, unixSeconds(this.#clock))
          this.#tellOthers(receipt, JSON.parse(due.zapRequest) as NostrEvent)
        }
      } catch (error) {
        this.#logger.error({ err: messageOf(error) }, 'zap receipt not published, tried again at the next payment or start')
      }
    }
  }

  /** The relays that the zap request names, each on its own: one that is down holds up none. */
  #tellOthers(receipt: NostrEvent, request: NostrEvent): void {
    for (const url of relaysNamed(request, this.#ownRelay)) {
      const sending = deliver(url, receipt, this.#clock)
        .catch((error: unknown) => this.#logger.info({ url, err: messageOf(error) }, 'a relay of a zap request did not take the receipt'))
        .finally(() => this.#sending.delete(sending))
      this.#sending.add(sending)
    }
  }
}
