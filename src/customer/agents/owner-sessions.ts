/** The sessions of the customer key: it listens and publishes key packages from when it first needs one, so that who talks to no agent says nothing of it. */
import { Sessions } from '../../session/sessions.ts'
import type { SessionsDeps } from '../../session/types.ts'
import { hasAnyDirect } from '../../store/buying/direct-messages.ts'
import { listManagedAgents } from '../../store/buying/managed-agents.ts'

export class OwnerSessions {
  readonly sessions: Sessions
  readonly #deps: SessionsDeps
  #isListening = false

  constructor(deps: SessionsDeps) {
    this.#deps = deps
    this.sessions = new Sessions(deps)
  }

  start(): void {
    const { store } = this.#deps
    if (this.sessions.groups().length > 0 || listManagedAgents(store).length > 0 || hasAnyDirect(store)) this.listen()
  }

  /** Before anything is said, or expected, for the first time. */
  listen(): void {
    if (this.#isListening) return
    this.#isListening = true
    this.sessions.start()
  }
}
