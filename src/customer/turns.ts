/** Who is at work on which purchase: one purchase does one thing at a time, and some things are done later. */
import { messageOf } from '../base/errors.ts'
import { KeyedQueue } from '../base/keyed-queue.ts'
import type { Logger } from '../base/logger.ts'
import type { Scope } from '../base/scope.ts'

export class Turns {
  readonly #scope: Scope
  readonly #queue = new KeyedQueue()

  constructor(scope: Scope, logger: Logger) {
    this.#scope = scope.child('purchases', {
      onFailure: ({ path, error }) => logger.warn({ work: path, err: messageOf(error) }, 'a step of a purchase failed; it is tried again'),
    })
  }

  /** Runs a step after those of the same purchase that were asked for before. */
  run<T>(id: string, step: () => Promise<T>): Promise<T> {
    return this.#scope.run(id, () => this.#queue.run(id, step))
  }

  /** A step that nobody waits for: what goes wrong is logged, and tried again by the next sweep or start. */
  background(id: string, step: () => Promise<unknown>): void {
    this.#scope.spawn(id, () => this.#queue.run(id, step))
  }

  /** The same after a time. */
  later(id: string, ms: number, step: () => Promise<unknown>): void {
    this.#scope.after(id, ms, () => this.#queue.run(id, step))
  }
}
