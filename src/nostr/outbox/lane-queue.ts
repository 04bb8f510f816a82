/** What one lane has still to do, in order: what is due, and what waits for a later try. */
import type { Delivery } from './delivery.ts'

/** A next try further ahead than this was set by a clock that has been set back since. */
const MAX_AHEAD_MS = 600_000

/** Whether that time is still to come, as far as our clock can be believed. */
export const isAhead = (at: number, now: number): boolean => at > now && at - now <= MAX_AHEAD_MS

export class LaneQueue {
  readonly #due: Delivery[] = []
  #head = 0
  #later: Delivery[] = []

  get due(): number {
    return this.#due.length - this.#head
  }

  get size(): number {
    return this.due + this.#later.length
  }

  add(delivery: Delivery, now: number): void {
    if (isAhead(delivery.at, now)) this.#later.push(delivery)
    else this.#due.push(delivery)
  }

  /** The first that is due, which stays. */
  peek(): Delivery | undefined {
    return this.#due[this.#head]
  }

  /** Takes the first away. */
  shift(): void {
    this.#head++
    if (this.#head > 1000 && this.#head * 2 > this.#due.length) this.#compact()
  }

  /** Among those that are due, before all that came after it. */
  putBack(delivery: Delivery): void {
    let index = this.#head
    while (index < this.#due.length && (this.#due[index]?.message.id ?? 0) < delivery.message.id) index++
    this.#due.splice(index, 0, delivery)
  }

  /** Before all others. */
  putFirst(deliveries: readonly Delivery[]): void {
    this.#compact()
    this.#due.unshift(...deliveries)
  }

  putLast(delivery: Delivery): void {
    this.#due.push(delivery)
  }

  wait(delivery: Delivery): void {
    this.#later.push(delivery)
  }

  /** Makes due what has waited long enough; leaves out what `isOver`. */
  wake(now: number, isOver: (delivery: Delivery) => boolean): void {
    for (const delivery of this.#later.splice(0)) if (!isOver(delivery)) this.add(delivery, now)
  }

  /** Leaves out what `isOver` of that which is due. */
  prune(isOver: (delivery: Delivery) => boolean): void {
    this.#compact()
    for (const delivery of this.#due.splice(0)) if (!isOver(delivery)) this.#due.push(delivery)
  }

  /** All of it; nothing stays. */
  drain(): Delivery[] {
    this.#compact()
    return [...this.#due.splice(0), ...this.#later.splice(0)]
  }

  #compact(): void {
    this.#due.splice(0, this.#head)
    this.#head = 0
  }
}
