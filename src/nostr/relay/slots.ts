/** How many requests one connection may have open: what the relay states, what it has shown, and who waits for a place. */
import type { RelayLimits } from './relay-info.ts'

/** Where a relay states nothing: the usual bounds are 10 to 20. */
const UNSTATED_SUBSCRIPTIONS = 10
const MAX_ID_CHARS = 64

/** `live` stays open; `once` ends with its answer, and always finds a place after a while. */
export type SlotKind = 'live' | 'once'

interface Waiter {
  readonly kind: SlotKind
  readonly run: () => void
}

export class RelaySlots {
  readonly #limits: () => RelayLimits
  readonly #open: () => number
  #learned: number | undefined
  #waiters: Waiter[] = []

  /** @param open requests that are open now */
  constructor(limits: () => RelayLimits, open: () => number) {
    this.#limits = limits
    this.#open = open
  }

  /** Requests that are open now. */
  get open(): number {
    return this.#open()
  }

  /** Open requests at most. */
  get max(): number {
    const stated = this.#limits().maxSubscriptions ?? UNSTATED_SUBSCRIPTIONS
    return Math.min(stated, this.#learned ?? stated)
  }

  /** Live requests at most: one place is left for those that end. */
  get maxLive(): number {
    return Math.max(1, this.max - 1)
  }

  /** The relay has refused one more than so many. True when that is news. */
  learn(max: number): boolean {
    if (max < 1 || max >= this.max) return false
    this.#learned = max
    return true
  }

  forget(): void {
    this.#learned = undefined
  }

  /** Calls `run`, which opens a request, at once or as soon as there is room. The returned function cancels. */
  whenFree(kind: SlotKind, run: () => void): () => void {
    const waiter = { kind, run }
    this.#waiters.push(waiter)
    this.serve()
    return () => {
      this.#waiters = this.#waiters.filter((other) => other !== waiter)
    }
  }

  /** To be called when a request has ended. */
  serve(): void {
    for (;;) {
      const next = this.#waiters.find(({ kind }) => this.#open() < (kind === 'live' ? this.maxLive : Math.max(2, this.max)))
      if (next === undefined) return
      this.#waiters = this.#waiters.filter((other) => other !== next)
      next.run()
    }
  }
}

/** Whether a relay says that one connection has too many requests open; other things too may be too many. */
export function saysTooManyReqs(message: string): boolean {
  if (/filter|tag|kind|author|\bids?\b|event/i.test(message)) return false
  return /\b(?:sub(?:scription)?s?|reqs?|requests?)\b/i.test(message) && /too many|max|limit|at most|concurrent|exceed/i.test(message)
}

/** As much of the id as the relay takes; the end of it is what differs. */
export const subIdFor = (limits: RelayLimits, id: string): string =>
  id.slice(-Math.min(MAX_ID_CHARS, limits.maxSubidLength ?? MAX_ID_CHARS))
