/** Statuses of commands to machines while they run, for those who follow them over the socket; forgotten with the process. */
import type { Clock } from '../../base/clock.ts'
import type { ControlStatus } from '../../nostr/control/envelopes.ts'

/** Commands whose statuses are kept. */
const MAX_CALLS = 256
const MAX_STATUSES = 256

interface Followed {
  readonly statuses: ControlStatus[]
  readonly waiters: Set<() => void>
  isDone: boolean
}

export class RuntimeCalls {
  readonly #clock: Clock
  readonly #calls = new Map<string, Followed>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Runs the work and keeps the statuses that it emits. */
  async follow<T>(key: string, work: (emit: (status: ControlStatus) => void) => Promise<T>): Promise<T> {
    const call = this.#of(key)
    call.isDone = false
    try {
      return await work((status) => {
        if (call.statuses.length < MAX_STATUSES) call.statuses.push(status)
        wake(call)
      })
    } finally {
      call.isDone = true
      wake(call)
    }
  }

  /** Those after the first `after`; waits for one more, or for the end, at most `waitMs`. */
  async after(key: string, after: number, waitMs: number, signal: AbortSignal): Promise<{ statuses: ControlStatus[]; done: boolean }> {
    const call = this.#of(key)
    if (waitMs > 0 && call.statuses.length <= after && !call.isDone) {
      await new Promise<void>((resolve) => {
        const done = () => {
          cancel()
          call.waiters.delete(done)
          signal.removeEventListener('abort', done)
          resolve()
        }
        const cancel = this.#clock.after(waitMs, done)
        call.waiters.add(done)
        signal.addEventListener('abort', done, { once: true })
      })
    }
    return { statuses: call.statuses.slice(after), done: call.isDone }
  }

  #of(key: string): Followed {
    const known = this.#calls.get(key)
    if (known !== undefined) return known
    for (const [old, { isDone, waiters }] of this.#calls) {
      if (this.#calls.size < MAX_CALLS) break
      if (isDone || waiters.size === 0) this.#calls.delete(old)
    }
    const call: Followed = { statuses: [], waiters: new Set(), isDone: false }
    this.#calls.set(key, call)
    return call
  }
}

function wake({ waiters }: Followed): void {
  for (const waiter of [...waiters]) waiter()
}
