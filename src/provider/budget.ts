/** Bounds what each key may cost within a time. */

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
