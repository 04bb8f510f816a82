/** Work on one key, one after the other in the order of its coming; on different keys at once. */
export class KeyedQueue {
  /** The last work on each key. */
  readonly #tails = new Map<string, Promise<unknown>>()

  /** Resolves or rejects as the work does; what failed before does not stop it. */
  run<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve()
    const mine = before.then(work, work)
    this.#tails.set(key, mine)
    const clean = () => {
      if (this.#tails.get(key) === mine) this.#tails.delete(key)
    }
    mine.then(clean, clean)
    return mine
  }

  /** Resolves when what has been asked for by now has ended. */
  async idle(): Promise<void> {
    await Promise.allSettled(this.#tails.values())
  }
}
