/** Reads and moves stored purchases, and wakes who waits for a change. */

import { PylonError } from '../base/errors.ts'
import { News } from '../base/news.ts'
import type { Scope } from '../base/scope.ts'
import { PURCHASE_STEPS, type PurchaseStatus, statesBefore } from '../base/states.ts'
import { getPurchase, movePurchase, notePurchase, type PurchaseRow } from '../store/buying/purchases.ts'
import type { Store } from '../store/store.ts'
import type { Order } from './order.ts'

export interface MovePatch {
  readonly result?: string
  readonly provider?: string
  readonly error?: { readonly code: string; readonly message: string }
}

export class PurchaseLog {
  readonly #store: Store
  readonly #scope: Scope
  readonly #news: News

  constructor(store: Store, scope: Scope) {
    this.#store = store
    this.#scope = scope
    this.#news = new News(scope)
  }

  /** By job id or purchase id. @throws job_not_found */
  row(id: string): PurchaseRow {
    const row = getPurchase(this.#store, id)
    if (row === undefined) throw new PylonError('job_not_found', `There is no job ${id}; pylon job list shows all.`)
    return row
  }

  /** Moves on where the diagram allows it; where it does not (an answer that comes late or twice) nothing changes. */
  async move(id: string, to: PurchaseStatus, reason: string, patch: MovePatch = {}): Promise<void> {
    const from = statesBefore(PURCHASE_STEPS, to)
    if (!from.includes(this.row(id).status)) return
    await this.#store.write(movePurchase({ id, from, to, reason, at: this.#scope.clock.now(), ...patch }))
    this.wake(id)
  }

  /** Says how it is with a purchase whose status stays. */
  async note(id: string, reason: string): Promise<void> {
    if (this.row(id).reason === reason) return
    await this.#store.write(notePurchase({ id, reason, at: this.#scope.clock.now() }))
    this.wake(id)
  }

  async fail(id: string, error: PylonError): Promise<void> {
    await this.move(id, 'failed', error.message, { error: { code: error.code, message: error.message } })
  }

  wake(id: string): void {
    this.#news.tell(id)
  }

  /** Resolves at the next change, after `withinMs`, by the signal, or at the end of the node. */
  changed(id: string, withinMs: number, signal?: AbortSignal): Promise<void> {
    return this.#news.next(id, withinMs, signal)
  }
}

export function orderOf(row: PurchaseRow): Order {
  return row.order as Order
}
