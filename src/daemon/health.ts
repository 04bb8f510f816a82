/** The health of one part of the node, and a holder that lets a part fail without the rest. */
import { PylonError, toPylonError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'

export type Health = { readonly state: 'ok' } | { readonly state: 'degraded' | 'off'; readonly reason: string; readonly nextStep?: string }

export const OK: Health = { state: 'ok' }

/** The wire form: `state`, `reason`, `next_step`. */
export function healthFields(health: Health): { state: 'ok' | 'degraded' | 'off'; reason?: string; next_step?: string } {
  if (health.state === 'ok') return { state: 'ok' }
  return { state: health.state, reason: health.reason, ...(health.nextStep === undefined ? {} : { next_step: health.nextStep }) }
}

/** A part that may be off, starting, failed or there. */
export class Part<T> {
  readonly #name: string
  #value: T | undefined
  #error: PylonError
  #health: Health

  constructor(name: string) {
    this.#name = name
    this.#error = new PylonError('locked', `The ${name} waits for the keys; run: pylon unlock`)
    this.#health = { state: 'off', reason: 'locked', nextStep: 'pylon unlock' }
  }

  /** Of the holder only: why there is no value, or why it could not start. */
  get health(): Health {
    return this.#health
  }

  /** The part, or undefined when it is not there. */
  peek(): T | undefined {
    return this.#value
  }

  /** @throws why it is not there */
  get(): T {
    if (this.#value === undefined) throw this.#error
    return this.#value
  }

  /** Off on purpose. */
  turnOff(reason: string, error: PylonError, nextStep?: string): void {
    this.#error = error
    this.#health = { state: 'off', reason, ...(nextStep === undefined ? {} : { nextStep }) }
  }

  /** Builds it; a failure is its health, not ours. */
  build(logger: Logger, make: () => T): void {
    try {
      this.#value = make()
      this.#health = OK
    } catch (error) {
      this.#fail(logger, error)
    }
  }

  /** Starts what was built. @returns when it runs or has failed. */
  async run(logger: Logger, start: (value: T) => void | Promise<void>): Promise<void> {
    if (this.#value === undefined) return
    try {
      await start(this.#value)
    } catch (error) {
      this.#fail(logger, error)
    }
  }

  #fail(logger: Logger, error: unknown): void {
    this.#error = toPylonError(error)
    this.#health = { state: 'degraded', reason: `${this.#error.code}: ${this.#error.message}`, nextStep: 'pylon doctor' }
    logger.error({ part: this.#name, err: this.#error }, 'a part failed to start; the rest goes on')
  }
}
