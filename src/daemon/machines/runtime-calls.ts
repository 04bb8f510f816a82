/** Statuses of commands to machines while they run, for those who follow them over the socket; forgotten with the process. */
import { News } from '../../base/news.ts'
import type { Scope } from '../../base/scope.ts'
import type { ControlStatus } from '../../nostr/control/envelopes.ts'

/** Commands whose statuses are kept. */
const MAX_CALLS = 256
const MAX_STATUSES = 256

interface Followed {
  readonly statuses: ControlStatus[]
  isDone: boolean
}

export class RuntimeCalls {
  readonly #news: News
  readonly #calls = new Map<string, Followed>()

  /** @param scope owns who waits */
  constructor(scope: Scope) {
    this.#news = new News(scope)
  }

  /** Runs the work and keeps the statuses that it emits. */
  async follow<T>(key: string, work: (emit: (status: ControlStatus) => void) => Promise<T>): Promise<T> {
    const call = this.#of(key)
    call.isDone = false
    try {
      return await work((status) => {
        if (call.statuses.length < MAX_STATUSES) call.statuses.push(status)
        this.#news.tell(key)
      })
    } finally {
      call.isDone = true
      this.#news.tell(key)
    }
  }

  /** Those after the first `after`; waits for one more, or for the end, at most `waitMs`. */
  async after(key: string, after: number, waitMs: number, signal: AbortSignal): Promise<{ statuses: ControlStatus[]; done: boolean }> {
    const call = this.#of(key)
    if (waitMs > 0 && call.statuses.length <= after && !call.isDone) await this.#news.next(key, waitMs, signal)
    return { statuses: call.statuses.slice(after), done: call.isDone }
  }

  #of(key: string): Followed {
    const known = this.#calls.get(key)
    if (known !== undefined) return known
    for (const [old, { isDone, statuses }] of this.#calls) {
      if (this.#calls.size < MAX_CALLS) break
      if (isDone || statuses.length === 0) this.#calls.delete(old)
    }
    const call: Followed = { statuses: [], isDone: false }
    this.#calls.set(key, call)
    return call
  }
}
