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
  #serial = 0
  readonly #timers = new Map<number, Timer>()

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
    await settle()
    while (!isDone()) {
      const next = this.#next()
      if (next === undefined || next[1].atMs > untilMs) {
        this.#nowMs = untilMs
        return isDone()
      }
      this.#timers.delete(next[0])
      this.#nowMs = next[1].atMs
      next[1].fn()
      await settle()
    }
    return true
  }

  #next(): [number, Timer] | undefined {
    let next: [number, Timer] | undefined
    for (const timer of this.#timers) if (next === undefined || timer[1].atMs < next[1].atMs) next = timer
    return next
  }
}

/** Until nothing is ready to run: no promise, no turn that somebody waits for. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < MAX_TURNS; turn++) {
    await new Promise((resolve) => setImmediate(resolve))
    if (!process.getActiveResourcesInfo().includes('Immediate')) return
  }
  throw new Error('work that never rests')
}
