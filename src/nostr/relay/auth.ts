/** NIP-42 on one connection: the challenge, and which of our keys were proven to it. */
import { unixSeconds } from '../../base/clock.ts'
import { isPylonError, messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { authTemplate } from '../nips/nip42.ts'
import type { Signer } from '../types.ts'

/** Some relays take an AUTH without a word and answer only one that they refuse. */
const SILENCE_MS = 3000
/** What a notice says of an AUTH that was refused. */
const ABOUT_AUTH = /auth|challenge|domain|relay url|restricted|invalid/i

export interface RelayAuthDeps {
  readonly url: string
  /** Of the connection. */
  readonly scope: Scope
  readonly logger: Logger
  send(frame: string, eventId: string, onOk: (ok: boolean, message: string) => void): boolean
  onProven(pubkey: string): void
}

export class RelayAuth {
  readonly #deps: RelayAuthDeps
  readonly #proven = new Set<string>()
  readonly #unanswered = new Set<(ok: boolean, message: string) => void>()
  #challenge: string | undefined
  /** How many challenges there were. */
  #round = 0

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
  challenge(challenge: string): void {
    if (challenge === this.#challenge) return
    this.#challenge = challenge
    this.#round++
    this.#proven.clear()
    this.#unanswered.clear()
  }

  /** The relay complains of something: of the AUTH that is under way, if it says so. */
  notice(message: string): void {
    const [oldest] = this.#unanswered
    if (ABOUT_AUTH.test(message)) oldest?.(false, message)
  }

  /** Proves a key; false where the relay has not asked, refuses, or is gone; undefined where who holds the key has not signed. */
  async prove(signer: Signer): Promise<boolean | undefined> {
    const { pubkey } = signer
    if (this.#proven.has(pubkey)) return true
    const challenge = this.#challenge
    if (challenge === undefined) return false
    try {
      return await this.#deps.scope.once(`auth ${this.#round} ${pubkey}`, () => this.#attempt(signer, challenge))
    } catch (error) {
      if (isPylonError(error, 'shutting_down')) return false
      this.#deps.logger.warn({ relay: this.#deps.url, pubkey, error: messageOf(error) }, 'a key could not be proven to a relay now')
      return undefined
    }
  }

  async #attempt(signer: Signer, challenge: string): Promise<boolean> {
    const { url, scope, send } = this.#deps
    const event = await signer.sign(authTemplate(url, challenge, unixSeconds(scope.clock)))
    const heard = await scope.hear<true>(SILENCE_MS, (tell) => {
      const onOk = (ok: boolean, message: string) => {
        this.#judge(signer.pubkey, challenge, ok, message)
        tell(true)
      }
      this.#unanswered.add(onOk)
      if (!send(JSON.stringify(['AUTH', event]), event.id, onOk)) onOk(false, 'not connected')
      return () => this.#unanswered.delete(onOk)
    })
    if (heard === undefined) this.#judge(signer.pubkey, challenge, true, '')
    return this.#proven.has(signer.pubkey)
  }

  /** Also when it was believed already, as the relay was silent for a while. */
  #judge(pubkey: string, challenge: string, ok: boolean, message: string): void {
    const { url, logger, onProven } = this.#deps
    if (this.#challenge !== challenge) return
    if (!ok) {
      this.#proven.delete(pubkey)
      logger.warn({ relay: url, message }, 'the relay refused our AUTH')
    } else if (!this.#proven.has(pubkey)) {
      this.#proven.add(pubkey)
      onProven(pubkey)
    }
  }
}
