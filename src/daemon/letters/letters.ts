/**
 * The letters of the node: private messages (NIP-17) to and from its own key. Each that comes is opened, claimed by the id of its rumor
 * and given to the first handler that takes it; what nobody takes is not kept.
 */
import { doublingMs } from '../../base/backoff.ts'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import { isKeyAway } from '../../nostr/keys/away.ts'
import { isExpired } from '../../nostr/nips/nip40.ts'
import { unwrap, WRAP_KIND } from '../../nostr/nips/nip59.ts'
import { createVerifier } from '../../nostr/reading/verify.ts'
import { dmRelaysToSay } from '../../nostr/self/dm-relays.ts'
import type { IdentifiedEvent, Letter, LetterHandler, Nostr, NostrEvent, Signer } from '../../nostr/types.ts'
import { letterRelaysMessage } from '../../store/keys.ts'
import {
  countLettersWaiting,
  giveLetterUp,
  keepLetter,
  type LetterInRow,
  lettersToTake,
  postLetter,
  takeLetter,
  wasLetterHeard,
  wasLetterTaken,
} from '../../store/nostr/letters.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import type { Store } from '../../store/store.ts'
import { Post } from './post.ts'

const DAY_MS = 86_400_000
/** Gift wraps are dated up to two days back. */
const WRAP_OVERLAP_S = 3 * 86_400
/** A letter may bring ecash, and nobody sends it twice. */
const REREAD_MS = 600_000
/** How long a letter of ours is tried. */
export const LETTER_TTL_MS = 3 * DAY_MS
/** What is older when it comes is left: its claim may be forgotten. */
const MAX_AGE_MS = 14 * DAY_MS
const RETRY = { minMs: 5000, maxMs: 10 * 60_000 }
const RETRY_CHECK_MS = 5000
/** One that cannot be taken for so long is given up, and the log says so. */
const GIVE_UP_MS = 7 * DAY_MS
const AT_ONCE = 20
const INTRODUCE_AGAIN = { minMs: 5000, maxMs: 10 * 60_000 }

export interface LettersDeps {
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly nostr: Pick<Nostr, 'subscribe' | 'dmRelaysOf' | 'newestOf' | 'nudgeOutbox' | 'onPublished' | 'onGivenUp' | 'relays'>
  /** The node's key. */
  readonly signer: Signer
  /** Whether another part publishes the DM relays (10050) of this key. */
  readonly isIntroduced: boolean
}

export class Letters {
  readonly #deps: LettersDeps
  readonly #post: Post
  readonly #verifier = createVerifier()
  readonly #handlers: { readonly name: string; readonly take: LetterHandler }[] = []
  #ignored = 0

  constructor(deps: LettersDeps) {
    this.#deps = deps
    this.#post = new Post({ ...deps, scope: deps.scope.child('post') })
  }

  /** Before the start: asked in the order of these calls. @param name as the claim has it */
  handle(name: string, take: LetterHandler): void {
    this.#handlers.push({ name, take })
  }

  start(): void {
    const { nostr, scope, signer, isIntroduced } = this.#deps
    nostr.subscribe({
      name: 'node-letters',
      filters: [{ kinds: [WRAP_KIND], '#p': [signer.pubkey] }],
      overlapS: WRAP_OVERLAP_S,
      backfillS: WRAP_OVERLAP_S,
      rereadMs: REREAD_MS,
      onEvent: (event) => this.receive(event),
    })
    this.#post.start()
    scope.every('take again', RETRY_CHECK_MS, () => this.#takeAgain())
    if (!isIntroduced) scope.spawn('say where letters are read', () => this.#introduce())
  }

  /** Says something once for each key; resolves when that is stored. @param to 64 hex digits @throws request_too_large, overloaded */
  async send(
    to: string,
    text: string,
    key: string,
    { hints = [], replyTo }: { hints?: readonly string[]; replyTo?: string } = {},
  ): Promise<void> {
    const { store, clock } = this.#deps
    const at = clock.now()
    await store.write(postLetter({ key, recipient: to, text, hints, replyTo, notAfter: at + LETTER_TTL_MS, at }))
    this.#post.nudge()
  }

  /** Call after a commit that has `postLetter`. */
  nudge(): void {
    this.#post.nudge()
  }

  status(): { readonly ignored: number; readonly waiting: number } {
    return { ignored: this.#ignored, waiting: countLettersWaiting(this.#deps.store) }
  }

  /** Rejects only when the wrap should come again. */
  async receive(wrap: NostrEvent): Promise<void> {
    const { signer, store, clock } = this.#deps
    const rumor = await this.#open(wrap)
    if (rumor === undefined || rumor.pubkey === signer.pubkey || isExpired(rumor, unixSeconds(clock))) return
    const createdAtMs = rumor.created_at * 1000
    if (createdAtMs < clock.now() - MAX_AGE_MS || wasLetterHeard(store, rumor.id)) return
    const { id: rumorId, pubkey: from, kind, content, tags } = rumor
    const letter: Letter = { to: signer.pubkey, rumorId, from, kind, content, tags, createdAtMs }
    // The same in two wraps at once is taken once.
    await this.#deps.scope.once(`letter ${rumorId}`, () => this.#take(letter, 0))
  }

  async #take(letter: Letter, tries: number): Promise<void> {
    const { store, clock, logger } = this.#deps
    const { rumorId, from: sender, kind, content, tags, createdAtMs } = letter
    if (wasLetterTaken(store, rumorId)) return
    const createdAt = createdAtMs / 1000
    const at = clock.now()
    try {
      for (const { name, take } of this.#handlers) {
        if (!(await take(letter))) continue
        await store.write(takeLetter({ rumorId, sender, kind, createdAt, takenBy: name, at }))
        return
      }
    } catch (error) {
      const reason = messageOf(error)
      const again = { reason, tries: tries + 1, nextAt: at + doublingMs(RETRY, tries + 1), at }
      logger.warn({ letter: rumorId, reason }, 'a letter could not be taken yet; it is tried again')
      if (!(await store.write(keepLetter({ rumorId, sender, kind, content, tags, createdAt, ...again })))) throw error
      return
    }
    this.#ignored++
    if (tries > 0) await store.write(giveLetterUp({ rumorId, reason: 'it is for nobody here any more' }))
  }

  async #takeAgain(): Promise<void> {
    const { store, scope, clock, signer } = this.#deps
    for (const row of lettersToTake(store, clock.now(), AT_ONCE)) {
      if (clock.now() - row.heardAt > GIVE_UP_MS) await this.#giveUp(row)
      else await scope.once(`letter ${row.rumorId}`, () => this.#take(letterOf(row, signer.pubkey), row.tries))
    }
  }

  async #giveUp({ rumorId, sender, reason }: LetterInRow): Promise<void> {
    this.#deps.logger.error({ letter: rumorId, from: sender, reason }, 'a letter could not be taken for days and is given up')
    await this.#deps.store.write(giveLetterUp({ rumorId, reason: reason ?? 'it could not be taken' }))
  }

  /** What a stranger sent wrongly is dropped; what cannot be opened now (locked) comes again. */
  async #open(wrap: NostrEvent): Promise<IdentifiedEvent | undefined> {
    const { signer, logger } = this.#deps
    try {
      return await unwrap(signer, wrap, this.#verifier)
    } catch (error) {
      if (isKeyAway(error)) throw error
      this.#ignored++
      logger.debug({ wrap: wrap.id, reason: messageOf(error) }, 'a letter could not be opened')
      return undefined
    }
  }

  async #introduce(): Promise<void> {
    const { scope, clock, store, nostr, signer } = this.#deps
    const again = scope.backoff(INTRODUCE_AGAIN)
    for (;;) {
      const event = await dmRelaysToSay(nostr, signer.pubkey, unixSeconds(clock))
      if (event === 'said') return
      if (event !== 'unsure') {
        const at = clock.now()
        const key = letterRelaysMessage.of(signer.pubkey)
        await store.write(enqueueEvent({ key, event, relays: nostr.relays, notAfter: at + LETTER_TTL_MS, at }))
        nostr.nudgeOutbox()
        return
      }
      await again.wait()
    }
  }
}

function letterOf({ rumorId, sender: from, kind, content, tags, createdAt }: LetterInRow, to: string): Letter {
  return { to, rumorId, from, kind, content, tags, createdAtMs: createdAt * 1000 }
}
