/** Tells the other parts what was committed: at least once, in order for each of them, again after a restart, until a handler has taken it. */
import { sats } from '../base/amounts.ts'
import { messageOf } from '../base/errors.ts'
import type { Cause } from '../store/money/ledger.ts'
import {
  causesOfDueEvents,
  deferWalletEvent,
  deleteWalletEvent,
  dueWalletEvents,
  type WalletEventRow,
} from '../store/money/wallet-events.ts'
import type { WalletContext } from './context.ts'
import { nextTryMs } from './operations/machine.ts'
import type { WalletEvent } from './types.ts'

/** How often an event that nobody listens for is kept. */
const UNHEARD_RETRY_MS = 60_000
const UNHEARD_TRIES = 10

export class WalletEvents {
  readonly #context: WalletContext
  readonly #handlers = new Map<Cause['type'], (event: WalletEvent) => Promise<void>>()

  constructor(context: WalletContext) {
    this.#context = context
  }

  on(causeType: Cause['type'], handler: (event: WalletEvent) => Promise<void>): void {
    this.#handlers.set(causeType, handler)
  }

  /** The causes that have something due: each is delivered on its own, so that a handler that takes long holds up its own events only. */
  dueCauses(): string[] {
    return causesOfDueEvents(this.#context.store, this.#context.clock.now())
  }

  /** Tells what is due of one cause, one after the other; the caller has one cause told once at a time. */
  async deliver(causeType: string): Promise<void> {
    const { store, clock } = this.#context
    for (const row of dueWalletEvents(store, causeType, clock.now())) await this.#deliverOne(row)
  }

  async #deliverOne(row: WalletEventRow): Promise<void> {
    const { store, clock, random, logger } = this.#context
    const handler = this.#handlers.get(row.causeType as Cause['type'])
    const attempts = row.attempts + 1
    if (handler === undefined) {
      const retry = deferWalletEvent({ id: row.id, attempts, nextTryAt: clock.now() + UNHEARD_RETRY_MS })
      return store.write(attempts > UNHEARD_TRIES ? deleteWalletEvent({ id: row.id }) : retry)
    }
    try {
      await handler(decodeEvent(row.event))
      await store.write(deleteWalletEvent({ id: row.id }))
    } catch (error) {
      logger.warn({ err: messageOf(error), cause: row.causeType }, 'a wallet event was not taken, it comes again')
      await store.write(deferWalletEvent({ id: row.id, attempts, nextTryAt: clock.now() + nextTryMs(attempts, random) }))
    }
  }
}

/** Stored amounts are JSON integers. */
function decodeEvent(stored: unknown): WalletEvent {
  const event = stored as WalletEvent
  if ('amountSats' in event) return { ...event, amountSats: sats(event.amountSats) }
  if ('feeSats' in event) return { ...event, feeSats: sats(event.feeSats) }
  return event
}
