/** One message of the outbox while lanes hold it. */
import type { PendingMessage, StoredEvent } from '../../store/nostr/outbox.ts'
import { isEphemeral } from '../nips/nip01.ts'
import { BUNKER_KIND } from '../nips/nip46.ts'
import { isNwcKind } from '../nips/nip47.ts'
import type { Awaitable, Keyring, NostrEvent } from '../types.ts'

/** Ephemeral events are worth sending for so long. What is said to a wallet and by one, or by a signer, is not to be lost: it is sent as others are. */
const EPHEMERAL_MS = 10_000

export class OutboxMessage {
  readonly id: number
  readonly key: string
  /** Whose key stands for it: of a wrap the one that sealed it. */
  readonly author: string
  readonly isEphemeral: boolean
  readonly notAfter: number
  readonly seal: StoredEvent | null
  /** A newer revision has taken its place. */
  isSuperseded = false
  /** Lanes that still hold it. */
  lanes = 0
  readonly #keyring: Keyring
  #event: StoredEvent
  #frame: string | undefined
  #signing: Promise<string> | undefined

  constructor({ id, key, event, seal, notAfter }: PendingMessage, keyring: Keyring, now: number) {
    this.id = id
    this.key = key
    this.author = seal?.pubkey ?? event.pubkey
    this.isEphemeral = isEphemeral(event.kind) && !isNwcKind(event.kind) && event.kind !== BUNKER_KIND
    this.notAfter = this.isEphemeral ? Math.min(notAfter, now + EPHEMERAL_MS) : notAfter
    this.seal = seal
    this.#event = event
    this.#keyring = keyring
  }

  /** Another one when a wrap was made again. */
  get event(): StoredEvent {
    return this.#event
  }

  replace(newer: StoredEvent): void {
    this.#event = newer
    this.#frame = undefined
  }

  /** The EVENT frame, signed once for all lanes; to be waited for where the key is elsewhere. @throws locked, not_found when the key is gone */
  frame(): Awaitable<string> {
    if (this.#frame !== undefined) return this.#frame
    if (this.#signing !== undefined) return this.#signing
    const event = this.#event
    const signed = event.sig === undefined ? this.#keyring.signer(event.pubkey).sign(event) : event
    if (signed instanceof Promise) {
      this.#signing = this.#frameOnceSigned(event, signed)
      return this.#signing
    }
    this.#frame = frameOf(signed)
    return this.#frame
  }

  async #frameOnceSigned(event: StoredEvent, signed: Promise<NostrEvent>): Promise<string> {
    try {
      const frame = frameOf(await signed)
      if (this.#event === event) this.#frame = frame
      return frame
    } finally {
      this.#signing = undefined
    }
  }
}

const frameOf = (event: StoredEvent): string => JSON.stringify(['EVENT', event])
