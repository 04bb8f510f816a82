/**
 * Approvals by letter: the owner is told once what waits, and what he answers is done once. A letter counts only from the key in
 * `owner.npub`, within an hour, and when it was written after the question; whatever dies between, it is answered once.
 */
import type { Clock } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import type { Scope } from '../../base/scope.ts'
import { type Approvals, readApproval, readApprovals } from '../../host/approvals.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import { CHAT_KIND } from '../../nostr/nips/nip59.ts'
import type { Letter } from '../../nostr/types.ts'
import { all } from '../../store/commands.ts'
import { answerLetter, askedLetter } from '../../store/keys.ts'
import { getApproval } from '../../store/money/approvals.ts'
import { postLetter } from '../../store/nostr/letters.ts'
import { getSetting, putSetting } from '../../store/settings.ts'
import type { Store } from '../../store/store.ts'
import { RESTORED_AT_KEY } from '../../wallet/operations/restores.ts'
import { LETTER_TTL_MS, type Letters } from '../letters/letters.ts'
import type { Owner } from './owner.ts'
import { askOwner, HELP, type Order, readOrder, tellDecided, utcOf } from './words.ts'

const HOUR_MS = 3_600_000
/** A letter that is dated further ahead is not acted on: it could be played again when its claim is forgotten. */
const MAX_AHEAD_MS = 10 * 60_000
const CHECK_MS = 30_000
/** What comes up within this of the last question goes in one letter. */
const GATHER_MS = 30_000
const FIRST_GATHER_MS = 1000
/** Answers to letters that decide nothing, in an hour: two programs that answer each other would go on for ever. */
const MAX_TALK = 20
/** Of what waits: a letter names fewer and counts the rest. */
const MAX_READ = 500

export interface ApprovalsByLetterDeps {
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly letters: Pick<Letters, 'handle' | 'nudge'>
  owner(): Owner
  /** Undefined where there is no host. */
  approvals(): Pick<Approvals, 'decide'> | undefined
}

export class ApprovalsByLetter {
  readonly #deps: ApprovalsByLetterDeps
  #askedAt = 0
  /** When letters that decide nothing were answered in the last hour. */
  #talkedAt: number[] = []

  constructor(deps: ApprovalsByLetterDeps) {
    this.#deps = deps
    deps.letters.handle('approvals', (letter) => this.#take(letter))
  }

  start(): void {
    this.onAsked()
    this.#deps.scope.every('ask', CHECK_MS, () => this.#ask())
  }

  /** Something began to wait, or the owner may be another. */
  onAsked(): void {
    const { scope, clock } = this.#deps
    const waitMs = Math.max(FIRST_GATHER_MS, this.#askedAt + GATHER_MS - clock.now())
    scope.gather('ask', waitMs, () => this.#ask())
  }

  /** Tells what nobody was told of, in one letter. */
  async #ask(): Promise<void> {
    const { store, clock, letters } = this.#deps
    const { pubkey } = this.#deps.owner()
    if (pubkey === undefined) return
    const told = getSetting<number>(store, toldKey(pubkey)) ?? 0
    const fresh = readApprovals(store, { after: told, limit: MAX_READ })
    const last = fresh.at(-1)?.id
    if (last === undefined) return
    const at = clock.now()
    const text = askOwner(fresh)
    const letter = postLetter({ key: askedLetter(pubkey, last), recipient: pubkey, text, notAfter: at + LETTER_TTL_MS, at })
    await store.write(all(letter, putSetting({ key: toldKey(pubkey), value: last, at })))
    this.#askedAt = at
    letters.nudge()
  }

  async #take(letter: Letter): Promise<boolean> {
    const { store, clock, letters } = this.#deps
    // An object is for programs: a payment, not a word.
    if (letter.from !== this.#deps.owner().pubkey || letter.kind !== CHAT_KIND || letter.content.trimStart().startsWith('{')) return false
    const text = await this.#answer(letter)
    // It is claimed all the same.
    if (text === undefined) return true
    const at = clock.now()
    const { rumorId: replyTo, from: recipient } = letter
    await store.write(postLetter({ key: answerLetter.of(replyTo), recipient, text, replyTo, notAfter: at + LETTER_TTL_MS, at }))
    letters.nudge()
    return true
  }

  /** Undefined where nothing is to be said. */
  async #answer({ content, createdAtMs, from }: Letter): Promise<string | undefined> {
    const { store } = this.#deps
    const order = readOrder(content)
    if (order?.do === 'decide' && getApproval(store, order.id) !== undefined) return await this.#judge(order, createdAtMs, npubOf(from))
    return this.#mayTalk() ? await this.#judge(order, createdAtMs, npubOf(from)) : undefined
  }

  #mayTalk(): boolean {
    const now = this.#deps.clock.now()
    this.#talkedAt = this.#talkedAt.filter((at) => at > now - HOUR_MS)
    if (this.#talkedAt.length >= MAX_TALK) return false
    this.#talkedAt.push(now)
    return true
  }

  async #judge(order: Order | undefined, createdAtMs: number, by: string): Promise<string | undefined> {
    const { store, clock } = this.#deps
    const ageMs = clock.now() - createdAtMs
    const isLate = ageMs > HOUR_MS
    // Relays have it still: what it brought about may be what the backup does not know of.
    if (createdAtMs <= (getSetting<number>(store, RESTORED_AT_KEY) ?? Number.NEGATIVE_INFINITY))
      return isLate
        ? undefined
        : 'The database of this node was put back from a backup after you wrote: nothing was done now. Write it again.'
    if (isLate || ageMs < -MAX_AHEAD_MS)
      return `Your letter is dated ${utcOf(createdAtMs)}, ${isLate ? 'over an hour ago' : 'which is still to come'}: nothing was done. Write it again.`
    if (order === undefined) return HELP
    if (order.do === 'help') return HELP
    if (order.do === 'list') return askOwner(readApprovals(store, { limit: MAX_READ }))
    return await this.#decide(order, createdAtMs, by)
  }

  async #decide({ id, to, reason }: Order & { do: 'decide' }, createdAtMs: number, by: string): Promise<string> {
    const { store } = this.#deps
    const row = getApproval(store, id)
    if (row === undefined) return `There is no action ${id} that waits; list shows those that do.`
    // A letter has whole seconds.
    if (createdAtMs + 999 < row.askedAt) return `Your letter was written before ${id} was asked: nothing was done. Write it again.`
    const approvals = this.#deps.approvals()
    if (approvals === undefined) return `No agents run in this node now: ${id} was not decided.`
    try {
      await approvals.decide({ id, to, by, reason })
    } catch (error) {
      if (error instanceof PylonError && error.code === 'approval_decided') return error.message
      throw error
    }
    return tellDecided(readApproval(store, id))
  }
}

/** The highest approval that the owner of this key was told of. */
const toldKey = (pubkey: string): string => `approvals_told:${pubkey}`
