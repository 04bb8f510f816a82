/** A map that forgets what was used longest ago. */
export class LruMap<K, V> {
  readonly #limit: number
  readonly #map = new Map<K, V>()

  constructor(limit: number) {
    this.#limit = limit
  }

  get size(): number {
    return this.#map.size
  }

  get(key: K): V | undefined {
    const value = this.#map.get(key)
    if (value === undefined) return undefined
    this.#map.delete(key)
    this.#map.set(key, value)
    return value
  }

  /** Looks without counting as use. */
  has(key: K): boolean {
    return this.#map.has(key)
  }

  set(key: K, value: V): void {
    this.#map.delete(key)
    this.#map.set(key, value)
    if (this.#map.size <= this.#limit) return
    const oldest = this.#map.keys().next()
    if (oldest.done !== true) this.#map.delete(oldest.value)
  }

  delete(key: K): void {
    this.#map.delete(key)
  }
}
