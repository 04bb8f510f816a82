/** Hands what others said to who deals with it: in order, one at a time for each group, again after a failure and after a restart. */
import { messageOf } from '../base/errors.ts'
import { type MessageRow, markHandled, nextNew } from '../store/sessions/messages.ts'
import type { SessionsDeps } from './types.ts'

const RETRY = { minMs: 1000, maxMs: 60_000 }

export class Handing {
  readonly #deps: SessionsDeps
  readonly #owner: string
  readonly #running = new Set<string>()
  #handler: ((message: MessageRow) => Promise<void>) | undefined

  constructor(deps: SessionsDeps) {
    this.#deps = deps
    this.#owner = deps.signer.pubkey
  }

  set handler(handler: (message: MessageRow) => Promise<void>) {
    this.#handler = handler
  }

  /** There may be something new in a group. */
  look(groupId: string): void {
    if (this.#handler === undefined || this.#running.has(groupId)) return
    this.#running.add(groupId)
    this.#deps.scope.spawn(`hand out ${groupId.slice(0, 12)}`, () => this.#handOut(groupId))
  }

  async #handOut(groupId: string): Promise<void> {
    const { scope, store, logger } = this.#deps
    const backoff = scope.backoff(RETRY)
    try {
      for (;;) {
        const message = scope.isClosing ? undefined : nextNew(store, this.#owner, groupId)
        if (message === undefined || this.#handler === undefined) return
        try {
          await this.#handler(message)
          await store.write(markHandled({ owner: this.#owner, groupId, id: message.id }))
          backoff.reset()
        } catch (error) {
          logger.warn({ message: message.id, error: messageOf(error) }, 'a message of a session was not dealt with; it is tried again')
          await backoff.wait()
        }
      }
    } finally {
      this.#running.delete(groupId)
    }
  }
}
