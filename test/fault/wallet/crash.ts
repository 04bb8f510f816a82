/**
 * A process that dies at its nth step: after a commit, or before the answer to a request is heard. Between two of these nothing
 * that outlives it changes, so that to die before the next one would show the same.
 */
import type { Dialer } from '../../../src/base/dialer.ts'
import type { CommitHook } from '../../../src/store/store.ts'

/** Armed once; from the step on nothing is written and nothing is sent, as after kill -9. */
export class Crash {
  /** The step at which it died, in words. */
  diedAt: string | undefined
  #stepsLeft = Number.POSITIVE_INFINITY

  /** @param step the first is 1. */
  arm(step: number): void {
    this.#stepsLeft = step
  }

  readonly hook: CommitHook = {
    beforeCommit: () => this.#assertAlive(),
    afterCommit: (labels) => this.#step(`after the commit of ${labels.join(', ')}`),
  }

  readonly dialer = (real: Dialer): Dialer => ({
    ...real,
    fetch: async (url, options) => {
      this.#assertAlive()
      const response = await real.fetch(url, options)
      // To look changes nothing.
      if (options?.method === 'POST') this.#step(`after POST ${new URL(url).pathname}`)
      this.#assertAlive()
      return response
    },
    connectWebSocket: (url, options) => {
      if (Number.isFinite(this.#stepsLeft)) throw new Error('no websockets once armed: every step is counted')
      return real.connectWebSocket(url, options)
    },
  })

  #step(what: string): void {
    this.#assertAlive()
    this.#stepsLeft--
    if (this.#stepsLeft <= 0) this.diedAt = what
    this.#assertAlive()
  }

  #assertAlive(): void {
    if (this.diedAt !== undefined) throw new Error(`dead since ${this.diedAt}`)
  }
}
