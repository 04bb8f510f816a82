/** The messages that lanes hold, each once for all of its relays: which are superseded, and wraps that are made again. */
import { unixSeconds } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import { type PendingMessage, remakeMessage } from '../../store/nostr/outbox.ts'
import { isAddressable, isReplaceable, parseEvent, tagValue } from '../nips/nip01.ts'
import { wrapSeal } from '../nips/nip59.ts'
import { OutboxMessage } from './message.ts'
import type { OutboxDeps } from './outbox.ts'
import { mayBeAboutDate } from './verdict.ts'

/** A wrap that is older than this and refused for its date is made again. */
const FRESH_S = 60

type MessagesDeps = Pick<OutboxDeps, 'scope' | 'store' | 'logger' | 'keyring'>

export class OutboxMessages {
  readonly #deps: MessagesDeps
  readonly #held = new Map<number, OutboxMessage>()
  /** The newest message of a key, where newer ones replace older ones. */
  readonly #newestOfKey = new Map<string, OutboxMessage>()

  constructor(deps: MessagesDeps) {
    this.#deps = deps
  }

  take(pending: PendingMessage): OutboxMessage {
    const known = this.#held.get(pending.id)
    if (known !== undefined) return known
    const { keyring, scope } = this.#deps
    const message = new OutboxMessage(pending, keyring, scope.clock.now())
    this.#held.set(message.id, message)
    if (isReplaceable(message.event.kind) || isAddressable(message.event.kind)) this.#supersede(message)
    return message
  }

  keyOf(id: number): string | undefined {
    return this.#held.get(id)?.key
  }

  /** To be called when a lane has let go of it. */
  forgetIfDone(message: OutboxMessage): void {
    if (message.lanes > 0) return
    this.#held.delete(message.id)
    if (this.#newestOfKey.get(message.key) === message) this.#newestOfKey.delete(message.key)
  }

  /**
   * A wrap that a relay refuses for its back-dated time is made again, dated now, for all that have not taken it yet; stored before it
   * is sent. Undefined where the words are not about that; else what does it: resolves when the message has the new one, or has not
   * and goes as it was.
   */
  remake(message: OutboxMessage, words: string): (() => Promise<void>) | undefined {
    const { scope } = this.#deps
    const { seal, event } = message
    if (seal === null || !mayBeAboutDate(words) || event.created_at > unixSeconds(scope.clock) - FRESH_S) return undefined
    const make = async () => {
      const { store, logger } = this.#deps
      const newer = wrapSeal(parseEvent(seal), tagValue(event, 'p') ?? '', unixSeconds(scope.clock), scope.random, 'now')
      try {
        await store.write(remakeMessage({ messageId: message.id, event: newer }))
        message.replace(newer)
      } catch (error) {
        logger.warn({ key: message.key, error: messageOf(error) }, 'a wrap could not be made again; it is tried again')
      }
    }
    return () => scope.once(`make ${message.id} again`, make)
  }

  #supersede(message: OutboxMessage): void {
    const other = this.#newestOfKey.get(message.key)
    if (other !== undefined && other.id > message.id) {
      message.isSuperseded = true
      return
    }
    if (other !== undefined) other.isSuperseded = true
    this.#newestOfKey.set(message.key, message)
  }
}
