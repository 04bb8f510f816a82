/** What one lane has still to do, in order: what is due, and what waits for a later try. */
import type { OutboxItem } from './lane.ts'

/** One event on its way to one relay. */
export interface Job {
  readonly item: OutboxItem
  attempts: number
  /** When to try again, or when it was sent (ms). */
  at: number
  /** The event that was sent. */
  sentId: string
  /** What was recorded of it last. */
  lastError: string | undefined
  /** Refusals without a reason that we know. */
  unexplained: number
  triedAuth: boolean
  /** Connections that were lost while it was under way. */
  losses: number
}

/** A next try further ahead than this was set by a clock that has been set back since. */
const MAX_AHEAD_MS = 600_000

/** Whether that time is still to come, as far as our clock can be believed. */
export const isAhead = (at: number, now: number): boolean => at > now && at - now <= MAX_AHEAD_MS

export class LaneQueue {
  readonly #due: Job[] = []
  #head = 0
  #later: Job[] = []

  get due(): number {
    return this.#due.length - this.#head
  }

  get size(): number {
    return this.due + this.#later.length
  }

  add(job: Job, now: number): void {
    if (isAhead(job.at, now)) this.#later.push(job)
    else this.#due.push(job)
  }

  /** The first that is due, which stays. */
  peek(): Job | undefined {
    return this.#due[this.#head]
  }

  /** Takes the first away. */
  shift(): void {
    this.#head++
    if (this.#head > 1000 && this.#head * 2 > this.#due.length) this.#compact()
  }

  /** Among those that are due, before all that came after it. */
  putBack(job: Job): void {
    let index = this.#head
    while (index < this.#due.length && (this.#due[index]?.item.id ?? 0) < job.item.id) index++
    this.#due.splice(index, 0, job)
  }

  /** Before all others. */
  putFirst(jobs: readonly Job[]): void {
    this.#compact()
    this.#due.unshift(...jobs)
  }

  putLast(job: Job): void {
    this.#due.push(job)
  }

  wait(job: Job): void {
    this.#later.push(job)
  }

  /** Makes due what has waited long enough; leaves out what `isOver`. */
  wake(now: number, isOver: (job: Job) => boolean): void {
    for (const job of this.#later.splice(0)) if (!isOver(job)) this.add(job, now)
  }

  /** Leaves out what `isOver` of that which is due. */
  prune(isOver: (job: Job) => boolean): void {
    this.#compact()
    for (const job of this.#due.splice(0)) if (!isOver(job)) this.#due.push(job)
  }

  /** All of it; nothing stays. */
  drain(): Job[] {
    this.#compact()
    return [...this.#due.splice(0), ...this.#later.splice(0)]
  }

  #compact(): void {
    this.#due.splice(0, this.#head)
    this.#head = 0
  }
}
