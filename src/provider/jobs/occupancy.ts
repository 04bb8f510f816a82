/** How many open jobs each customer has: counted from the moment of admission, so that a burst cannot outrun the limit. */

export class Occupancy {
  readonly #customers = new Map<string, string>()
  readonly #counts = new Map<string, number>()

  add(jobId: string, customerPubkey: string): void {
    if (this.#customers.has(jobId)) return
    this.#customers.set(jobId, customerPubkey)
    this.#counts.set(customerPubkey, this.of(customerPubkey) + 1)
  }

  remove(jobId: string): void {
    const customer = this.#customers.get(jobId)
    if (customer === undefined) return
    this.#customers.delete(jobId)
    const left = this.of(customer) - 1
    if (left > 0) this.#counts.set(customer, left)
    else this.#counts.delete(customer)
  }

  of(customerPubkey: string): number {
    return this.#counts.get(customerPubkey) ?? 0
  }

  has(jobId: string): boolean {
    return this.#customers.has(jobId)
  }
}

const MAX_KEYS = 10_000

/** At most `limit` per key and window; forgets everything when the window ends or too many keys came. */
export class Budget {
  readonly #limit: number
  readonly #windowMs: number
  readonly #used = new Map<string, number>()
  #startedAt = 0

  constructor(limit: number, windowMs: number) {
    this.#limit = limit
    this.#windowMs = windowMs
  }

  /** Whether one more is allowed in this window; counts it. */
  take(key: string, nowMs: number): boolean {
    if (nowMs - this.#startedAt >= this.#windowMs || this.#used.size >= MAX_KEYS) {
      this.#startedAt = nowMs
      this.#used.clear()
    }
    const count = (this.#used.get(key) ?? 0) + 1
    this.#used.set(key, count)
    return count <= this.#limit
  }
}
