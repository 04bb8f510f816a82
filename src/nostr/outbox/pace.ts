/** How fast one relay is sent to: a window that grows by what it takes, and one by one where it says that this is too fast. Pure. */

/** Events sent and not yet answered, at most. */
const MAX_WINDOW = 256
/** So few at first that a relay with a limit refuses few. */
const FIRST_WINDOW = 4
/** By how much an accepted event widens the window. */
const GROWTH = 0.5
const FIRST_GAP_MS = 500
const MAX_GAP_MS = 60_000
/** A gap below this is none. */
const MIN_GAP_MS = 20
/** How an accepted event shortens the gap: slowly, since each try beyond the limit is a refusal. */
const SHORTENING = 0.9
/** Failures in a row, none of them about the event itself, that are taken for the relay's trouble. */
const FAILURES_OF_TROUBLE = 3

export class Pace {
  #window = FIRST_WINDOW
  /** Between two events that go one by one; 0: as many as the window holds. */
  #gapMs = 0
  #nextAt = 0
  #slowedAt = 0
  #failures = 0

  /** Whether one more may go now. */
  mayGo(underWay: number, now: number): boolean {
    if (this.#gapMs === 0) return underWay < Math.floor(this.#window)
    return underWay === 0 && this.waitMs(now) === 0
  }

  /** How long nothing may go. */
  waitMs(now: number): number {
    const waitMs = this.#nextAt - now
    // A longer time than was ever set comes of a clock that was set back.
    return waitMs > 0 && waitMs <= MAX_GAP_MS ? waitMs : 0
  }

  sent(now: number): void {
    if (this.#gapMs > 0) this.#nextAt = now + this.#gapMs
  }

  accepted(): void {
    this.#failures = 0
    if (this.#gapMs === 0) this.#window = Math.min(MAX_WINDOW, this.#window + GROWTH)
    else {
      this.#gapMs *= SHORTENING
      if (this.#gapMs < MIN_GAP_MS) this.#gapMs = 0
    }
  }

  /** The relay judged the event itself: it works. */
  refused(): void {
    this.#failures = 0
  }

  /** The relay says that this is too fast. What was sent before it said so first tells nothing new. */
  limited(sentAt: number, now: number): void {
    if (this.#gapMs > 0 && sentAt < this.#slowedAt) return
    this.#gapMs = this.#gapMs === 0 ? FIRST_GAP_MS : Math.min(MAX_GAP_MS, this.#gapMs * 2)
    this.#window = FIRST_WINDOW
    this.#slowedAt = now
    this.#nextAt = now + this.#gapMs
  }

  /** The relay could not do it, for a reason that may be over later. */
  failed(sentAt: number, now: number): void {
    this.#failures++
    if (this.#failures >= FAILURES_OF_TROUBLE) this.limited(sentAt, now)
  }
}
