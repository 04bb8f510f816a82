/** Reads and moves stored purchases, and wakes who waits for a change. */
import type { Clock } from '../base/clock.ts'
import { PylonError } from '../base/errors.ts'
import { getPurchase, movePurchase, notePurchase, type PurchaseRow } from '../store/buying/purchases.ts'
import type { Store } from '../store/store.ts'
import type { Order } from './order.ts'
import { type PurchaseStatus, statesBefore } from './states.ts'

export interface MovePatch {
  readonly result?: string
  readonly provider?: string
  readonly error?: { readonly code: string; readonly message: string }
}

export class PurchaseLog {
  readonly #store: Store
  readonly #clock: Clock
  readonly #waiters = new Map<string, Set<() => void>>()

  constructor(store: Store, clock: Clock) {
    this.#store = store
    this.#clock = clock
  }

  /** By job id or purchase id. @throws job_not_found */
  row(id: string): PurchaseRow {
    const row = getPurchase(this.#store, id)
    if (row === undefined) throw new PylonError('job_not_found', `There is no job ${id}; pylon job list shows all.`)
    return row
  }

  /** Moves on where the diagram allows it; where it does not (an answer that comes late or twice) nothing changes. */
  async move(id: string, to: PurchaseStatus, reason: string, patch: MovePatch = {}): Promise<void> {
    const from = statesBefore(to)
    if (!from.includes(statusOf(this.row(id)))) return
    await this.#store.write(movePurchase({ id, from, to, reason, at: this.#clock.now(), ...patch }))
    this.wake(id)
  }

  /** Says how it is with a purchase whose status stays. */
  async note(id: string, reason: string): Promise<void> {
    if (this.row(id).reason === reason) return
    await this.#store.write(notePurchase({ id, reason, at: this.#clock.now() }))
    this.wake(id)
  }

  async fail(id: string, error: PylonError): Promise<void> {
    await this.move(id, 'failed', error.message, { error: { code: error.code, message: error.message } })
  }

  wake(id: string): void {
    for (const wake of this.#waiters.get(id) ?? []) wake()
  }

  /** The end: nobody is to wait any longer. */
  wakeAll(): void {
    for (const id of [...this.#waiters.keys()]) this.wake(id)
  }

  /** Resolves at the next change, after `withinMs`, or by the signal. */
  changed(id: string, withinMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const waiters = this.#waiters.get(id) ?? new Set()
      this.#waiters.set(id, waiters)
      const done = () => {
        cancel()
        signal?.removeEventListener('abort', done)
        waiters.delete(done)
        if (waiters.size === 0) this.#waiters.delete(id)
        resolve()
      }
      const cancel = this.#clock.after(withinMs, done)
      waiters.add(done)
      signal?.addEventListener('abort', done, { once: true })
    })
  }
}

export function statusOf(row: PurchaseRow): PurchaseStatus {
  return row.status as PurchaseStatus
}

export function orderOf(row: PurchaseRow): Order {
  return row.order as Order
}
