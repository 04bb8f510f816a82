/** What the node says by NIP-17: each letter goes to the DM relays of its recipient, once, whatever ends the node in between. */
import { doublingMs } from '../../base/backoff.ts'
import { unixSeconds } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Scope } from '../../base/scope.ts'
import { buildDm17 } from '../../nostr/nips/nip59.ts'
import { relayUrls } from '../../nostr/relay/relay-url.ts'
import type { Nostr, Signer } from '../../nostr/types.ts'
import { letterMessage } from '../../store/keys.ts'
import { delayLetter, endLetter, type LetterOutRow, lettersDue, sendLetter } from '../../store/nostr/letters.ts'
import type { Store } from '../../store/store.ts'

const CHECK_MS = 15_000
/** Letters under way at once: each may ask relays for some seconds. */
const AT_ONCE = 16
const RETRY = { minMs: 15_000, maxMs: 15 * 60_000 }
const NOBODY_KNOWS = 'no relay that was asked has the DM relays (kind 10050) of the recipient'

export interface PostDeps {
  readonly scope: Scope
  readonly store: Store
  readonly nostr: Pick<Nostr, 'dmRelaysOf' | 'nudgeOutbox' | 'onPublished' | 'onGivenUp'>
  readonly signer: Signer
}

export class Post {
  readonly #deps: PostDeps

  constructor(deps: PostDeps) {
    this.#deps = deps
  }

  start(): void {
    const { nostr, scope } = this.#deps
    nostr.onPublished(letterMessage.of(''), (key) => this.#end(key, 'sent', null))
    nostr.onGivenUp(letterMessage.of(''), (key, why) => this.#end(key, 'refused', why))
    this.nudge()
    scope.every('send', CHECK_MS, () => this.#sendDue())
  }

  /** Call after a commit that posted one. */
  nudge(): void {
    this.#deps.scope.gather('send now', 0, () => this.#sendDue())
  }

  #sendDue(): void {
    const { store, scope } = this.#deps
    for (const letter of lettersDue(store, scope.clock.now(), AT_ONCE)) scope.spawnOnce(`letter ${letter.key}`, () => this.#send(letter))
  }

  async #send(letter: LetterOutRow): Promise<void> {
    const { store, nostr, scope, signer } = this.#deps
    const { key, recipient, text, replyTo, notAfter } = letter
    const at = scope.clock.now()
    if (at > notAfter) {
      await store.write(endLetter({ key, to: 'refused', reason: letter.reason ?? 'its time was over' }))
      return
    }
    const found = await this.#relaysFor(letter)
    if (typeof found === 'string') {
      const tries = letter.tries + 1
      await store.write(delayLetter({ key, reason: found, tries, nextAt: at + doublingMs(RETRY, tries) }))
      return
    }
    const { wraps } = await buildDm17(signer, [recipient], text, unixSeconds(scope.clock), replyTo === null ? {} : { replyTo })
    const wrap = wraps.find((one) => one.recipient === recipient)
    if (wrap === undefined) return
    await store.write(sendLetter({ key, message: { event: wrap.event, seal: wrap.seal, relays: found, notAfter, at } }))
    nostr.nudgeOutbox()
  }

  /** @returns why there are none yet, else the relays: its own, or those that it named where it says none */
  async #relaysFor({ recipient, hints }: LetterOutRow): Promise<string | readonly string[]> {
    const named = relayUrls([...hints])
    try {
      const relays = (await this.#deps.nostr.dmRelaysOf(recipient, named)) ?? named
      return relays.length === 0 ? NOBODY_KNOWS : relays
    } catch (error) {
      return named.length > 0 ? named : messageOf(error)
    }
  }

  async #end(message: string, to: 'sent' | 'refused', reason: string | null): Promise<void> {
    const key = letterMessage.idIn(message)
    if (key !== undefined) await this.#deps.store.write(endLetter({ key, to, reason }))
  }
}
