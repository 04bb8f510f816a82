/** How much goes through a door: buckets that fill by the clock, each door its own, and one for all doors together. */
import type { Clock } from '../../base/clock.ts'

export interface Rate {
  /** At most at once. */
  readonly burst: number
  readonly perMinute: number
}

export interface DoorRates {
  readonly frames: Rate
  readonly events: Rate
  readonly requests: Rate
  /** In both directions. */
  readonly bytes: Rate
}
export type Metered = keyof DoorRates

export const DOOR_RATES: DoorRates = {
  frames: { burst: 200, perMinute: 600 },
  events: { burst: 60, perMinute: 300 },
  requests: { burst: 40, perMinute: 60 },
  bytes: { burst: 16 * 1024 ** 2, perMinute: 2 * 1024 ** 2 },
}

/** Whatever the number of doors: what all guests may make this node and its relays do. */
export const ALL_DOORS_RATES: DoorRates = {
  frames: { burst: 4000, perMinute: 12_000 },
  events: { burst: 600, perMinute: 3000 },
  requests: { burst: 400, perMinute: 1200 },
  bytes: { burst: 256 * 1024 ** 2, perMinute: 32 * 1024 ** 2 },
}

export class DoorMeter {
  readonly #clock: Clock
  readonly #rates: DoorRates
  readonly #all: DoorMeter | undefined
  readonly #left: Record<Metered, number>
  #filledAtMs: number

  /** @param all the meter of all doors, which is charged too */
  constructor(clock: Clock, rates: DoorRates, all?: DoorMeter) {
    this.#clock = clock
    this.#rates = rates
    this.#all = all
    this.#left = { frames: rates.frames.burst, events: rates.events.burst, requests: rates.requests.burst, bytes: rates.bytes.burst }
    this.#filledAtMs = clock.elapsedMs()
  }

  /** Takes so much where it is there. Bytes may be owed: what has come has come. @returns whether it was */
  take(what: Metered, amount = 1): boolean {
    this.#fill()
    const isThere = what === 'bytes' ? this.#left.bytes > 0 : this.#left[what] >= amount
    if (!isThere || this.#all?.take(what, amount) === false) return false
    this.#left[what] -= amount
    return true
  }

  #fill(): void {
    const now = this.#clock.elapsedMs()
    const minutes = (now - this.#filledAtMs) / 60_000
    this.#filledAtMs = now
    for (const what of ['frames', 'events', 'requests', 'bytes'] as const) {
      const { burst, perMinute } = this.#rates[what]
      this.#left[what] = Math.min(burst, this.#left[what] + minutes * perMinute)
    }
  }
}
