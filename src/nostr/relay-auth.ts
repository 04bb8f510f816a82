/** NIP-42 on one connection: the challenge, and which of our keys were proven to it. */
import { type Clock, unixSeconds } from '../base/clock.ts'
import type { Logger } from '../base/logger.ts'
import { authTemplate } from './nips/nip42.ts'
import type { Signer } from './types.ts'

const TIMEOUT_MS = 10_000

export interface RelayAuthDeps {
  readonly url: string
  readonly clock: Clock
  readonly logger: Logger
  send(frame: string, eventId: string, onOk: (ok: boolean, message: string) => void): boolean
  forget(eventId: string): void
  onProven(pubkey: string): void
}

export class RelayAuth {
  readonly #deps: RelayAuthDeps
  readonly #proven = new Set<string>()
  readonly #running = new Map<string, Promise<boolean>>()
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
    const { url, clock, logger, send, forget, onProven } = this.#deps
    const event = signer.sign(authTemplate(url, challenge, unixSeconds(clock)))
    return new Promise((resolve) => {
      const cancel = clock.after(TIMEOUT_MS, () => settle(false, 'no answer'))
      const settle = (ok: boolean, message: string) => {
        cancel()
        forget(event.id)
        const holds = ok && this.#challenge === challenge
        if (holds) {
          this.#proven.add(signer.pubkey)
          onProven(signer.pubkey)
        } else {
          logger.warn({ relay: url, message }, 'the relay refused our AUTH')
        }
        resolve(holds)
      }
      if (!send(JSON.stringify(['AUTH', event]), event.id, settle)) settle(false, 'not connected')
    })
  }
}
