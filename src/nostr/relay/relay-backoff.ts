/** How long a relay that could not be reached, or was lost, is left alone. Pure but for chance. */
import { randomInt } from 'node:crypto'

const MIN_WAIT_MS = 1000
const MAX_WAIT_MS = 60_000
/** A connection that held so long is good, and sooner when it answered a request: the next wait is the shortest again. */
const STABLE_MS = 30_000
const STABLE_ANSWERED_MS = 5000
/** Tries after which a relay that answers and then hangs up at once is no longer waited for longer. */
const ANSWERED_FAILURES = 3

export class RelayBackoff {
  #failures = 0
  #openedAt: number | undefined
  #answered = false

  /** Connections in a row that could not be made, or did not hold. */
  get failures(): number {
    return this.#failures
  }

  opened(now: number): void {
    this.#openedAt = now
  }

  /** A request came to its EOSE. */
  answered(): void {
    this.#answered = true
  }

  /** @returns ms until the next try. @param hopeless the address is refused: only the owner can change that */
  failed(now: number, hopeless: boolean): number {
    const lastedMs = this.#openedAt === undefined ? 0 : now - this.#openedAt
    if (lastedMs >= (this.#answered ? STABLE_ANSWERED_MS : STABLE_MS)) this.#failures = 1
    else this.#failures = this.#answered ? Math.min(this.#failures + 1, ANSWERED_FAILURES) : this.#failures + 1
    this.#openedAt = undefined
    this.#answered = false
    const ceiling = Math.min(MAX_WAIT_MS, MIN_WAIT_MS * 2 ** Math.min(this.#failures - 1, 10))
    return hopeless ? MAX_WAIT_MS : Math.round(ceiling * (0.7 + randomInt(600) / 1000))
  }
}
