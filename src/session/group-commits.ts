/**
 * Commits of ours to one group:
 *
 *     made --> pending --first relay took it--> applied --> unheard --all other members were heard in its epoch--> done
 *                 |  '--no relay takes it--> dropped                '--sent again on a backoff
 *                 '--a commit of somebody else wins--> overtaken: made again where it still makes sense
 *
 * While one is pending, what is said goes out in the epoch that stands.
 */
import { unixSeconds } from '../base/clock.ts'
import { messageOf, PylonError } from '../base/errors.ts'
import { parseEvent } from '../nostr/nips/nip01.ts'
import { sealRumor, wrapSeal } from '../nostr/nips/nip59.ts'
import type { NostrEvent } from '../nostr/types.ts'
import type { Command } from '../store/commands.ts'
import { sessionMessages } from '../store/keys.ts'
import { enqueueEvent } from '../store/nostr/outbox.ts'
import type { GroupRow, PendingCommit } from '../store/sessions/groups.ts'
import { closed, DELIVERY_MS, type GroupLine } from './group-line.ts'
import { type CommitOrder, makeCommit } from './mls/commit.ts'
import { mlsContext } from './mls/context.ts'
import { decodeState, encodeState, membersOf, newSignatureKeys, withFormerEpoch } from './mls/group.ts'
import { encodeMessage } from './mls/messages.ts'
import { changed, type Standing, stepped } from './standing.ts'
import type { SentWelcome, SessionsDeps } from './types.ts'
import { withCommit } from './unheard.ts'
import { sealGroupEvent } from './wire/group-event.ts'
import { welcomeBytes, welcomeRumor } from './wire/welcome.ts'

const MAX_TRIES = 5
/** How long the outcome of one is waited for. */
const OUTCOME_MS = 600_000
/** How long relays are tried with a commit: later ones wait for it. */
const COMMIT_DELIVERY_MS = 300_000
const MAX_AGAIN = 12
const AGAIN = { minMs: 20_000, maxMs: 1_800_000 }

export interface Peer {
  readonly pubkey: string
  readonly keyPackageEventId: string
  readonly relays: readonly string[]
}

/** What is to be committed, of the group as it stands; undefined where there is nothing to do any more. */
export interface Change {
  readonly order: CommitOrder
  readonly added?: readonly Peer[]
  readonly isUpdate?: boolean
}

type Outcome = 'applied' | 'overtaken' | { readonly refused: string }

export class GroupCommits {
  readonly #line: GroupLine
  /** Who waits for the outcome of a commit, by its event. */
  readonly #waiting = new Map<string, (outcome: Outcome) => void>()
  readonly #onApplied: () => void
  #cancelAgain = () => {}

  /** @param onApplied called in the line's turn after a step, for what could not be read before */
  constructor(line: GroupLine, onApplied: () => void) {
    this.#line = line
    this.#onApplied = onApplied
  }

  /** @throws session_closed, session_refused */
  async make(build: (standing: Standing) => Promise<Change | undefined>): Promise<void> {
    for (let tries = 1; tries <= MAX_TRIES; tries++) {
      const outcome = await this.#try(build)
      if (outcome === 'applied') return
      if (outcome !== 'overtaken') throw new PylonError('session_refused', outcome.refused)
    }
    throw new PylonError('session_refused', 'Others change the group at the same time again and again; try later.')
  }

  async #try(build: (standing: Standing) => Promise<Change | undefined>): Promise<Outcome> {
    const { scope } = this.#line.deps
    const begun = await this.#line.run('commit', async (standing) => {
      const { row } = standing
      if (row.state !== 'active') throw closed(row)
      if (row.pending !== null) return { eventId: row.pending.eventId, isOwn: false }
      const change = await build(standing)
      if (change === undefined) return undefined
      return { eventId: await this.#begin(standing, change), isOwn: true }
    })
    if (begun === undefined) return 'applied'
    this.#line.deps.nostr.nudgeOutbox()
    const outcome = await scope.hear<Outcome>(OUTCOME_MS, (tell) => this.#await(begun.eventId, tell))
    if (begun.isOwn) return outcome ?? { refused: 'No relay has taken the change yet; it goes on by itself.' }
    return 'overtaken'
  }

  #await(eventId: string, tell: (outcome: Outcome) => void): () => void {
    const former = this.#waiting.get(eventId)
    this.#waiting.set(eventId, (outcome) => {
      former?.(outcome)
      tell(outcome)
    })
    return () => {}
  }

  #settle(eventId: string, outcome: Outcome): void {
    this.#waiting.get(eventId)?.(outcome)
    this.#waiting.delete(eventId)
  }

  async #begin(standing: Standing, { order, added = [], isUpdate = false }: Change): Promise<string> {
    const line = this.#line
    const { scope, signer } = line.deps
    const { row, keys } = standing
    const made = await makeCommit(await mlsContext(), standing.mls, order)
    const event = sealGroupEvent(row.id, keys[0]?.key ?? new Uint8Array(32), encodeMessage(made.message), line.nowS, scope.random)
    const { welcome } = made
    const welcomes =
      welcome === undefined
        ? []
        : added.map(({ pubkey, keyPackageEventId, relays }) => ({
            peer: pubkey,
            relays,
            rumor: welcomeRumor({
              author: signer.pubkey,
              welcome: welcomeBytes(welcome),
              relays: row.relays,
              keyPackageEventId,
              atS: line.nowS,
            }),
          }))
    const pending: PendingCommit = { eventId: event.id, createdAt: event.created_at, event, welcomes, isUpdate }
    const change = changed(standing, { pending, pendingState: encodeState(made.after) }, made.before)
    const [publish, seen] = line.publish(row, 'commit', event.id, event)
    await line.commit(change, { ...(publish as Command<unknown>) }, seen as Command<unknown>)
    return event.id
  }

  /** A relay took it. */
  accepted(eventId: string): Promise<void> {
    return this.#line.run('commit accepted', async (standing) => {
      const { row } = standing
      if (row.pending?.eventId !== eventId || row.pendingState === null) return
      const { pending } = row
      const event = parseEvent(pending.event)
      const sent = await Promise.all(pending.welcomes.map((one) => wrapWelcome(this.#line.deps, one as PendingWelcome)))
      const after = await withFormerEpoch(decodeState(row.pendingState), standing.mls)
      const next = await stepped(standing, {
        before: standing.mls,
        after,
        by: event,
        change: {
          pending: null,
          pendingState: null,
          unheard: withCommit(row, membersOf(after), event, row.epoch + 1),
          welcomes: [...row.welcomes, ...sent.map(({ welcome }) => welcome)],
          ...(pending.isUpdate ? { updateDue: false } : {}),
        },
      })
      await this.#line.commit(next, ...sent.map(({ command }) => command))
      this.#line.deps.nostr.nudgeOutbox()
      this.#settle(eventId, 'applied')
      this.sendAgainLater()
      this.#onApplied()
    })
  }

  /** No relay takes it. */
  givenUp(eventId: string, why: string): Promise<void> {
    return this.#line.run('commit given up', async (standing) => {
      if (standing.row.pending?.eventId !== eventId) return
      await this.#line.commit(changed(standing, { pending: null, pendingState: null }))
      this.#line.deps.logger.warn({ group: standing.row.name, why }, 'a change of a session was taken by no relay')
      this.#settle(eventId, { refused: `No relay took the change: ${why}.` })
      this.#onApplied()
    })
  }

  /** Somebody else's won; called after that was committed. */
  overtaken(eventId: string): void {
    this.#settle(eventId, 'overtaken')
  }

  /** New keys for our own leaf. */
  selfUpdate(): Promise<void> {
    return this.make(async () => ({ order: { proposals: [], newSignatureKeys: await newSignatureKeys() }, isUpdate: true }))
  }

  /** What nobody was heard to follow may be lost: a relay takes things and forgets them. */
  sendAgainLater(): void {
    const { scope } = this.#line.deps
    this.#cancelAgain()
    const { unheard } = this.#line.peek() ?? { unheard: null }
    if (unheard === null || unheard.tries >= MAX_AGAIN) return
    const waitMs = Math.min(AGAIN.maxMs, AGAIN.minMs * 2 ** unheard.tries)
    this.#cancelAgain = scope.after('commit again', waitMs, () => this.#sendAgain())
  }

  async #sendAgain(): Promise<void> {
    const line = this.#line
    const isSent = await line.run('commit again', async (standing) => {
      const { row } = standing
      if (row.unheard === null || row.state !== 'active') return false
      const unheard = { ...row.unheard, tries: row.unheard.tries + 1 }
      const again = unheard.commits.map(({ event }) =>
        enqueueEvent({
          key: sessionMessages('again', line.owner).of(`${line.id}:${(event as NostrEvent).id}:${unheard.tries}`),
          event: event as NostrEvent,
          relays: line.relaysOf(row),
          notAfter: line.now + COMMIT_DELIVERY_MS,
          at: line.now,
        }),
      )
      await line.commit(changed(standing, { unheard }), ...again)
      return true
    })
    if (!isSent) return
    line.deps.nostr.nudgeOutbox()
    this.sendAgainLater()
  }

  /** What is left to do of before a restart. */
  resume(row: GroupRow): void {
    if (row.updateDue) this.updateSoon()
    this.sendAgainLater()
  }

  /** Soon after we came (MIP-02), and again when that failed. */
  updateSoon(): void {
    const { scope, logger } = this.#line.deps
    scope.after('self-update', 1000 + scope.random.float() * 2000, async () => {
      try {
        await this.selfUpdate()
      } catch (error) {
        logger.info({ group: this.#line.id.slice(0, 12), error: messageOf(error) }, 'own keys of a session are renewed later')
      }
    })
  }
}

export interface PendingWelcome {
  readonly peer: string
  readonly relays: readonly string[]
  readonly rumor: SentWelcome['rumor']
}

/** Sealed and wrapped for the one who is brought in. */
export async function wrapWelcome(
  { signer, scope, via }: Pick<SessionsDeps, 'signer' | 'scope' | 'via'>,
  { peer, relays, rumor }: PendingWelcome,
): Promise<{ welcome: SentWelcome; command: Command<unknown> }> {
  const [at, nowS] = [scope.clock.now(), unixSeconds(scope.clock)]
  const seal = await sealRumor(signer, rumor, peer, nowS)
  const event = wrapSeal(seal, peer, nowS, scope.random)
  const key = sessionMessages('welcome', signer.pubkey).of(rumor.id)
  return {
    welcome: { peer, wrapperEventId: event.id, rumor },
    command: enqueueEvent({ key, event, seal, relays: via ?? relays, notAfter: at + DELIVERY_MS, at }),
  }
}
