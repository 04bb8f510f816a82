/** A process that dies at its nth step: before or after a commit, before a request leaves, or before its answer is heard. */
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
    beforeCommit: (labels) => this.#step(`before the commit of ${labels.join(', ')}`),
    afterCommit: (labels) => this.#step(`after the commit of ${labels.join(', ')}`),
  }

  readonly dialer = (real: Dialer): Dialer => ({
    ...real,
    fetch: async (url, options) => {
      this.#step(`before ${options?.method ?? 'GET'} ${new URL(url).pathname}`)
      const response = await real.fetch(url, options)
      this.#step(`after ${options?.method ?? 'GET'} ${new URL(url).pathname}`)
      return response
    },
    connectWebSocket: (url, options) => {
      if (Number.isFinite(this.#stepsLeft)) throw new Error('no websockets once armed: every step is counted')
      return real.connectWebSocket(url, options)
    },
  })

  #step(what: string): void {
    if (this.diedAt === undefined) {
      this.#stepsLeft--
      if (this.#stepsLeft > 0) return
      this.diedAt = what
    }
    throw new Error(`dead since ${this.diedAt}`)
  }
}
