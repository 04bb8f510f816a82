/** Recording what became of deliveries, many in one commit, and then telling who wants to know. */
import { messageOf } from '../../base/errors.ts'
import { type DeliveryOutcome, type Ended, type GivenUp, recordDeliveries } from '../../store/nostr/outbox.ts'
import type { OutboxMessage } from './message.ts'
import type { OutboxMessages } from './messages.ts'
import type { OutboxNotices } from './notices.ts'
import type { OutboxDeps } from './outbox.ts'

/** How long outcomes gather before one commit records them: each would cost an fsync, and nothing waits for them. */
const GATHER_MS = 50
const RETRY_MS = 1000

interface OutcomesDeps extends Pick<OutboxDeps, 'scope' | 'store' | 'logger'> {
  readonly messages: OutboxMessages
  readonly notices: OutboxNotices
}

export class Outcomes {
  readonly #deps: OutcomesDeps
  #gathered: { message: OutboxMessage; outcome: DeliveryOutcome }[] = []

  constructor(deps: OutcomesDeps) {
    this.#deps = deps
    deps.scope.atEnd('record', () => this.#record())
  }

  add(message: OutboxMessage, outcome: DeliveryOutcome): void {
    this.#gathered.push({ message, outcome })
    this.#recordSoon()
  }

  logGivenUp(givenUp: readonly GivenUp[]): void {
    const { logger, messages } = this.#deps
    for (const { id, why } of givenUp) logger.warn({ key: messages.keyOf(id), id, why }, 'a message was given up: no relay takes it')
  }

  #recordSoon(): void {
    this.#deps.scope.gather('record', GATHER_MS, () => this.#record())
  }

  async #record(): Promise<void> {
    const batch = this.#gathered
    if (batch.length === 0) return
    this.#gathered = []
    const { scope, store, logger, messages, notices } = this.#deps
    try {
      const outcomes = batch.map(({ outcome }) => outcome)
      const { accepted, givenUp } = await store.write(recordDeliveries({ outcomes, at: scope.clock.now() }))
      const recorded = new Map(batch.map(({ message }) => [message.id, message]))
      const ended = (id: number, why: string | null): Ended[] => {
        const message = recorded.get(id)
        return message === undefined ? [] : [{ id, key: message.key, eventId: message.event.id, why }]
      }
      this.logGivenUp(givenUp)
      for (const { message } of batch) messages.forgetIfDone(message)
      notices.tell(
        'accepted',
        accepted.flatMap((id) => ended(id, null)),
      )
      notices.tell(
        'given_up',
        givenUp.flatMap(({ id, why }) => ended(id, why)),
      )
    } catch (error) {
      // The rows still say pending: what was accepted is sent again after a restart, and answered as a duplicate.
      logger.error({ error: messageOf(error), deliveries: batch.length }, 'deliveries could not be recorded')
      scope.after('record again', RETRY_MS, () => {
        this.#gathered.unshift(...batch)
        this.#recordSoon()
      })
    }
  }
}
