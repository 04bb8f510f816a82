/** Virtual time: it stands still while anything is ready to run, then jumps to the next timer. */
import type { Clock } from '../../src/base/clock.ts'

interface Timer {
  readonly atMs: number
  readonly fn: () => void
}

/** Turns of the event loop after which work that never rests counts as a fault. */
const MAX_TURNS = 100_000

export class VirtualClock implements Clock {
  #nowMs: number
  readonly #pending: () => Promise<unknown> | undefined
  #serial = 0
  readonly #timers = new Map<number, Timer>()

  /** @param pending what other threads do that time waits for; undefined where nothing is */
  constructor(nowMs = Date.UTC(2026, 0, 1), pending: () => Promise<unknown> | undefined = () => undefined) {
    this.#nowMs = nowMs
    this.#pending = pending
  }

  now(): number {
    return this.#nowMs
  }

  elapsedMs(): number {
    return this.#nowMs
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason)
      const onAbort = () => {
        cancel()
        reject(signal?.reason)
      }
      const cancel = this.after(ms, () => {
        signal?.removeEventListener('abort', onAbort)
        resolve()
      })
      signal?.addEventListener('abort', onAbort, { once: true })
    })
  }

  after(ms: number, fn: () => void): () => void {
    const id = ++this.#serial
    this.#timers.set(id, { atMs: this.#nowMs + Math.max(0, Math.ceil(ms)), fn })
    return () => this.#timers.delete(id)
  }

  /** Lets time pass until it is done, `forMs` at most. @returns whether it is done */
  async run(forMs: number, isDone: () => boolean = () => false): Promise<boolean> {
    const untilMs = this.#nowMs + forMs
    await settle(this.#pending)
    while (!isDone()) {
      const next = this.#next()
      if (next === undefined || next[1].atMs > untilMs) {
        this.#nowMs = untilMs
        return isDone()
      }
      this.#timers.delete(next[0])
      this.#nowMs = Math.max(this.#nowMs, next[1].atMs)
      next[1].fn()
      await settle(this.#pending)
    }
    return true
  }

  /** All machines sleep: what was due meanwhile comes late, in its order. */
  suspend(forMs: number): void {
    this.#nowMs += forMs
  }

  #next(): [number, Timer] | undefined {
    let next: [number, Timer] | undefined
    for (const timer of this.#timers) if (next === undefined || timer[1].atMs < next[1].atMs) next = timer
    return next
  }
}

/** Until nothing is ready to run: no promise, no turn that somebody waits for. */
async function settle(pending: () => Promise<unknown> | undefined): Promise<void> {
  for (let turn = 0; turn < MAX_TURNS; turn++) {
    await pending()
    await new Promise((resolve) => setImmediate(resolve))
    if (pending() !== undefined) continue
    if (!process.getActiveResourcesInfo().includes('Immediate')) return
  }
  throw new Error('work that never rests')
}
