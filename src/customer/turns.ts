/** Who is at work on which purchase: one purchase does one thing at a time, and some things are done later. */
import type { Clock } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import { KeyedQueue } from '../base/keyed-queue.ts'
import type { Logger } from '../base/logger.ts'

export class Turns {
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #queue = new KeyedQueue()
  readonly #timers = new Set<() => void>()
  #closed = false

  constructor(clock: Clock, logger: Logger) {
    this.#clock = clock
    this.#logger = logger
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Runs a step after those of the same purchase that were asked for before. */
  run<T>(id: string, step: () => Promise<T>): Promise<T> {
    return this.#queue.run(id, step)
  }

  /** A step that nobody waits for: what goes wrong is logged, and tried again by the next sweep or start. */
  background(id: string, step: () => Promise<void>): void {
    if (this.#closed) return
    this.run(id, step).catch((error: unknown) => this.#logger.warn({ purchase: id, err: messageOf(error) }, 'purchase step failed'))
  }

  later(ms: number, step: () => void): void {
    const cancel = this.#clock.after(ms, () => {
      this.#timers.delete(cancel)
      if (!this.#closed) step()
    })
    this.#timers.add(cancel)
  }

  /** Stops what is not begun; nothing new begins. */
  close(): void {
    this.#closed = true
    for (const cancel of this.#timers) cancel()
  }

  /** Resolves when what runs has ended. */
  async settled(): Promise<void> {
    await this.#queue.idle()
  }
}
