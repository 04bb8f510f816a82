/** Wakes who waits for news of something, by its key; what is new stands where it was stored. */
import { EventEmitter } from 'node:events'
import { isPylonError } from './errors.ts'
import type { Scope } from './scope.ts'

export class News {
  readonly #scope: Scope
  readonly #emitter = new EventEmitter().setMaxListeners(0)

  constructor(scope: Scope) {
    this.#scope = scope
  }

  tell(key: string): void {
    this.#emitter.emit(`of ${key}`)
  }

  /** Resolves at the next news, after `ms`, by the signal, or when the scope closes: whoever waits looks at what there is then. */
  async next(key: string, ms: number, signal?: AbortSignal): Promise<void> {
    try {
      await this.#scope.hear<true>(ms, (tell) => {
        const wake = () => tell(true)
        this.#emitter.once(`of ${key}`, wake)
        signal?.addEventListener('abort', wake, { once: true })
        if (signal?.aborted === true) wake()
        return () => {
          this.#emitter.off(`of ${key}`, wake)
          signal?.removeEventListener('abort', wake)
        }
      })
    } catch (error) {
      if (!isPylonError(error, 'shutting_down')) throw error
    }
  }
}
