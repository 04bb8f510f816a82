/** NIP-42 on one connection: the challenge, and which of our keys were proven to it. */
import { type Clock, unixSeconds } from '../../base/clock.ts'
import type { Logger } from '../../base/logger.ts'
import { authTemplate } from '../nips/nip42.ts'
import type { Signer } from '../types.ts'

/** Some relays take an AUTH without a word and answer only one that they refuse. */
const SILENCE_MS = 3000
/** What a notice says of an AUTH that was refused. */
const ABOUT_AUTH = /auth|challenge|domain|relay url|restricted|invalid/i

export interface RelayAuthDeps {
  readonly url: string
  readonly clock: Clock
  readonly logger: Logger
  send(frame: string, eventId: string, onOk: (ok: boolean, message: string) => void): boolean
  onProven(pubkey: string): void
}

export class RelayAuth {
  readonly #deps: RelayAuthDeps
  readonly #proven = new Set<string>()
  readonly #running = new Map<string, Promise<boolean>>()
  readonly #unanswered = new Set<(ok: boolean, message: string) => void>()
  #challenge: string | undefined

  constructor(deps: RelayAuthDeps) {
    this.#deps = deps
  }

  get challenged(): boolean {
    return this.#challenge !== undefined
  }

  isProven(pubkey: string): boolean {
    return this.#proven.has(pubkey)
  }

  /** A new challenge makes earlier proofs void; the same one said again does not. */
  challenge(challenge: string | undefined): void {
    if (challenge === this.#challenge) return
    this.#challenge = challenge
    this.#proven.clear()
    this.#running.clear()
    this.#unanswered.clear()
  }

  /** The relay complains of something: of the AUTH that is under way, if it says so. */
  notice(message: string): void {
    const [oldest] = this.#unanswered
    if (ABOUT_AUTH.test(message)) oldest?.(false, message)
  }

  /** Proves a key; false where the relay has not asked, or refuses. */
  prove(signer: Signer): Promise<boolean> {
    const { pubkey } = signer
    if (this.#proven.has(pubkey)) return Promise.resolve(true)
    const challenge = this.#challenge
    if (challenge === undefined) return Promise.resolve(false)
    const running = this.#running.get(pubkey)
    if (running !== undefined) return running
    const attempt = this.#attempt(signer, challenge).finally(() => {
      if (this.#running.get(pubkey) === attempt) this.#running.delete(pubkey)
    })
    this.#running.set(pubkey, attempt)
    return attempt
  }

  #attempt(signer: Signer, challenge: string): Promise<boolean> {
    const { url, clock, logger, send, onProven } = this.#deps
    const event = signer.sign(authTemplate(url, challenge, unixSeconds(clock)))
    return new Promise((resolve) => {
      const cancel = clock.after(SILENCE_MS, () => settle(true, ''))
      const settle = (ok: boolean, message: string) => {
        cancel()
        this.#unanswered.delete(settle)
        // It may have been believed already, when the relay was silent for a while.
        if (this.#challenge === challenge) {
          if (!ok) {
            this.#proven.delete(signer.pubkey)
            logger.warn({ relay: url, message }, 'the relay refused our AUTH')
          } else if (!this.#proven.has(signer.pubkey)) {
            this.#proven.add(signer.pubkey)
            onProven(signer.pubkey)
          }
        }
        resolve(this.#proven.has(signer.pubkey))
      }
      this.#unanswered.add(settle)
      if (!send(JSON.stringify(['AUTH', event]), event.id, settle)) settle(false, 'not connected')
    })
  }
}
