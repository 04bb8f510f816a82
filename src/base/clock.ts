/** Time behind one interface, so that a test can turn the clock. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number
  /** Milliseconds since some moment, never set back: for how long something took. */
  elapsedMs(): number
  /** Resolves after `ms`; rejects with the signal's reason when aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
  /** Calls `fn` after `ms`; the returned function cancels. */
  after(ms: number, fn: () => void): () => void
}

const MAX_TIMEOUT_MS = 2 ** 31 - 1

export const systemClock: Clock = {
  now: () => Date.now(),
  elapsedMs: () => performance.now(),
  sleep: (ms, signal) => sleepWith(systemClock, ms, signal),
  after(ms, fn) {
    const timer = setTimeout(fn, Math.min(Math.max(0, ms), MAX_TIMEOUT_MS))
    return () => clearTimeout(timer)
  },
}

function sleepWith(clock: Clock, ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason)
    const onAbort = () => {
      cancel()
      reject(signal?.reason)
    }
    const cancel = clock.after(ms, () => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    })
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

/** A clock that stands still until told to move: fires what is due, in order, letting promises settle in between. */
export class ManualClock implements Clock {
  #nowMs: number
  #seq = 0
  readonly #timers = new Map<number, { at: number; fn: () => void }>()

  constructor(nowMs = Date.UTC(2026, 0, 1)) {
    this.#nowMs = nowMs
  }

  now(): number {
    return this.#nowMs
  }

  elapsedMs(): number {
    return this.#nowMs
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleepWith(this, ms, signal)
  }

  after(ms: number, fn: () => void): () => void {
    const id = ++this.#seq
    this.#timers.set(id, { at: this.#nowMs + Math.max(0, ms), fn })
    return () => this.#timers.delete(id)
  }

  async advance(ms: number): Promise<void> {
    const until = this.#nowMs + ms
    for (;;) {
      let next: [number, { at: number; fn: () => void }] | undefined
      for (const timer of this.#timers) {
        if (timer[1].at <= until && (next === undefined || timer[1].at < next[1].at)) next = timer
      }
      if (next === undefined) break
      this.#timers.delete(next[0])
      this.#nowMs = Math.max(this.#nowMs, next[1].at)
      next[1].fn()
      await settle()
    }
    this.#nowMs = until
    await settle()
  }
}

/** Lets everything that is ready (promises, immediates, queued writes) run. */
async function settle(): Promise<void> {
  for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve))
}

/** Unix seconds, for the Nostr wire. */
export const unixSeconds = (clock: Clock): number => Math.floor(clock.now() / 1000)
/** RFC 3339, for the control API. */
export const rfc3339 = (ms: number): string => new Date(ms).toISOString()
