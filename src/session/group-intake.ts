/**
 * What comes for one group: each event is claimed in the commit that stores what it means. What nothing opens yet is kept and tried
 * again after each step; a better commit for an epoch that was left takes the group back to it (MIP-03).
 */
import { parseEvent } from '../nostr/nips/nip01.ts'
import type { IdentifiedEvent, NostrEvent } from '../nostr/types.ts'
import type { Command } from '../store/commands.ts'
import { sessionSeen } from '../store/keys.ts'
import { wasSeen } from '../store/nostr/seen-events.ts'
import { dropUnread, epochsOf, type GroupRow, isUnread, keepUnread, unreadOf } from '../store/sessions/groups.ts'
import {
  type HeldMessage,
  heldIn,
  holdMessage,
  insertMessage,
  isHeld,
  messageById,
  moveMessage,
  putSender,
  releaseMessage,
  type SenderRow,
  saidAfter,
  senderOf,
} from '../store/sessions/messages.ts'
import type { GroupCommits } from './group-commits.ts'
import type { GroupLine } from './group-line.ts'
import { decodeState, leaveReferences, type MlsState } from './mls/group.ts'
import { type Received, readBytes } from './mls/messages.ts'
import { handOut, numberOf } from './order.ts'
import { readRumor } from './rumors.ts'
import { type Changed, changed, type Standing, stepped } from './standing.ts'
import { upTo, withHeard } from './unheard.ts'
import { groupOf, hasPayload, openGroupEvent } from './wire/group-event.ts'

const MAX_UNREAD = 200
const MAX_UNREAD_CHARS = 4 * 1024 * 1024
/** How long a message waits for an earlier one: its sender may have to send that again, over a relay that comes back. */
const GAP_MS = 120_000
/** Relays are asked again for what is missing, so often at most in one epoch. */
const MAX_ASKED = 8
const ASK = { minMs: 2000, maxMs: 300_000 }
const ASK_BACK_S = 7 * 86_400
const MAX_ASKED_EVENTS = 500

type Better = Pick<NostrEvent, 'id' | 'created_at'>

/** MIP-03: the earlier date, then the smaller id. */
export const isBetter = (one: Better, other: Better): boolean =>
  one.created_at < other.created_at || (one.created_at === other.created_at && one.id < other.id)

export class GroupIntake {
  readonly #line: GroupLine
  readonly #commits: GroupCommits
  /** How many events were refused, and of which the last was told. */
  #refused = 0
  #asked = 0

  constructor(line: GroupLine, commits: GroupCommits) {
    this.#line = line
    this.#commits = commits
  }

  get refused(): number {
    return this.#refused
  }

  /** Resolves once what it means is stored. */
  receive(event: NostrEvent): Promise<void> {
    const { deps, owner, id } = this.#line
    if (groupOf(event) !== id || !hasPayload(event) || wasSeen(deps.store, sessionSeen(owner, event.id))) return Promise.resolve()
    return this.#line.run('receive', async (standing) => {
      const isKnown = wasSeen(deps.store, sessionSeen(owner, event.id)) || isUnread(deps.store, owner, id, event.id)
      if (!isKnown) await this.#read(standing, event)
    })
  }

  /** Tries again what could not be opened: after a step to another epoch. */
  readAgain(): Promise<void> {
    const { deps, owner, id } = this.#line
    return this.#line.run('read again', async (first) => {
      let standing = first
      for (let isMoving = true; isMoving; ) {
        isMoving = false
        for (const value of unreadOf(deps.store, owner, id)) {
          const event = parseEvent(value)
          if (openGroupEvent(event, standing.keys) === undefined) continue
          const next = await this.#read(standing, event)
          isMoving ||= next.row.epoch !== standing.row.epoch || next.row.pending !== standing.row.pending
          standing = next
        }
      }
    })
  }

  /** @returns the group as it stands then */
  async #read(standing: Standing, event: NostrEvent): Promise<Standing> {
    if (standing.row.state !== 'active') return this.#done(standing, event)
    const opened = openGroupEvent(event, standing.keys)
    if (opened === undefined) return this.#keep(standing, event)
    const received = await readBytes(standing.mls, opened.message)
    switch (received.kind) {
      case 'application':
        return this.#take(standing, event, received)
      case 'commit':
        return this.#follow(standing, event, received)
      case 'removed':
        return this.#leave(standing, event)
      case 'proposal':
        return this.#propose(standing, event, received.state)
      case 'other_epoch':
        return received.isCommit && received.epoch < standing.row.epoch
          ? this.#compete(standing, event, received.epoch, (state) => readBytes(state, opened.message))
          : this.#refuse(standing, event, `it is of epoch ${received.epoch}`)
      case 'refused':
        return this.#refuse(standing, event, received.why)
    }
  }

  #claims({ id }: NostrEvent): Command<unknown>[] {
    const { owner, id: groupId } = this.#line
    return [this.#line.seen(id), dropUnread({ owner, groupId, eventId: id })]
  }

  async #commit(change: Changed, event: NostrEvent, ...more: readonly Command<unknown>[]): Promise<Standing> {
    await this.#line.commit(change, ...this.#claims(event), ...more)
    return change.standing
  }

  #done(standing: Standing, event: NostrEvent): Promise<Standing> {
    return this.#commit({ standing, commands: [] }, event)
  }

  #refuse(standing: Standing, event: NostrEvent, why: string): Promise<Standing> {
    this.#refused++
    const { logger } = this.#line.deps
    logger.info({ group: standing.row.name, event_id: event.id, why }, 'something that came for a session was refused')
    return this.#done(standing, event)
  }

  async #keep(standing: Standing, event: NostrEvent): Promise<Standing> {
    const { deps, owner, id, now } = this.#line
    const bounds = { maxEvents: MAX_UNREAD, maxChars: MAX_UNREAD_CHARS }
    const dropped = await deps.store.write(keepUnread({ owner, groupId: id, eventId: event.id, event, at: now, ...bounds }))
    if (dropped > 0)
      deps.logger.warn({ group: standing.row.name, dropped }, 'too much comes for a session that nothing opens: the oldest is dropped')
    this.#askLater()
    return standing
  }

  /** A message: handed out in its turn. */
  async #take(standing: Standing, event: NostrEvent, received: Extract<Received, { kind: 'application' }>): Promise<Standing> {
    const { deps, owner, id } = this.#line
    const { store } = deps
    const { row } = standing
    const rumor = readRumor(received.bytes, received.sender)
    const state = changed(standing, heard(standing, received.sender, received.epoch), received.state)
    if (typeof rumor === 'string') {
      this.#refused++
      deps.logger.info({ group: row.name, event_id: event.id, why: rumor }, 'a message of a session was refused')
      return this.#commit(state, event)
    }
    if (messageById(store, owner, id, rumor.id) !== undefined || isHeld(store, owner, id, rumor.id)) return this.#commit(state, event)
    if (rumor.pubkey === owner) {
      const said = await this.#commit(state, event, insertMessage(this.#line.messageOf(rumor, received.epoch)))
      deps.onNew(id)
      return said
    }
    const { sender, epoch, generation } = received
    const held: HeldMessage<IdentifiedEvent> = {
      id: rumor.id,
      sender,
      said: numberOf(rumor.tags),
      epoch,
      generation,
      rumor,
      at: this.#line.now,
    }
    const waiting = [...heldIn<IdentifiedEvent>(store, owner, id).filter((one) => one.sender === sender), held].sort(bySending)
    const handed = handOut(waiting, senderOf(store, owner, id, sender), row.joinedEpoch, () => false)
    const isOut = handed.out.includes(held)
    const kept = isOut ? [] : [holdMessage({ owner, groupId: id, ...held })]
    const next = await this.#commit(state, event, ...kept, ...this.#handedOut(sender, handed.out, handed.cursor))
    if (handed.out.length > 0) deps.onNew(id)
    if (!isOut) this.#waitForGap()
    return next
  }

  #handedOut(sender: string, out: readonly HeldMessage<IdentifiedEvent>[], cursor: SenderRow | undefined): Command<unknown>[] {
    const { owner, id } = this.#line
    if (out.length === 0 || cursor === undefined) return []
    return [
      ...out.flatMap(({ rumor, epoch }) => [
        releaseMessage({ owner, groupId: id, id: rumor.id }),
        insertMessage(this.#line.messageOf(rumor, epoch)),
      ]),
      putSender({ owner, groupId: id, sender, ...cursor }),
    ]
  }

  #waitForGap(): void {
    this.#line.deps.scope.after('gap', GAP_MS, () => this.passGaps())
    this.#askLater()
  }

  /** What is left of before a restart. */
  async resume(): Promise<void> {
    const { deps, owner, id } = this.#line
    await this.readAgain()
    if (unreadOf(deps.store, owner, id).length > 0) this.#askLater()
    if (heldIn(deps.store, owner, id).length > 0) this.#waitForGap()
  }

  /** Hands out what has waited long enough for what is missing before it. */
  async passGaps(): Promise<void> {
    const { deps, owner, id } = this.#line
    await this.#line.run('pass gaps', async (standing) => {
      const all = heldIn<IdentifiedEvent>(deps.store, owner, id)
      const commands: Command<unknown>[] = []
      for (const sender of new Set(all.map((one) => one.sender))) {
        const held = all.filter((one) => one.sender === sender).sort(bySending)
        const isOverdue = (one: HeldMessage) => one.at + GAP_MS <= this.#line.now
        const { out, passed, cursor } = handOut(held, senderOf(deps.store, owner, id, sender), standing.row.joinedEpoch, isOverdue)
        commands.push(...this.#handedOut(sender, out, cursor))
        if (passed > 0)
          deps.logger.warn({ group: standing.row.name, sender }, 'a message of a session did not come: what follows is handed out')
      }
      if (commands.length === 0) return
      await this.#line.commit({ standing, commands })
      deps.onNew(id)
    })
  }

  /** Somebody else's commit for the epoch that stands. */
  async #follow(standing: Standing, event: NostrEvent, received: Extract<Received, { kind: 'commit' }>): Promise<Standing> {
    const { row } = standing
    const { pending } = row
    // Ours wins, if a relay takes it: until that is known, this one waits.
    if (pending !== null && isBetter({ id: pending.eventId, created_at: pending.createdAt }, event)) return this.#keep(standing, event)
    const change = await stepped(standing, {
      before: standing.mls,
      after: received.state,
      by: event,
      change: { pending: null, pendingState: null, ...heard(standing, received.sender, row.epoch) },
    })
    const next = await this.#commit(change, event)
    if (pending !== null) this.#commits.overtaken(pending.eventId)
    this.#moved()
    return next
  }

  /** A commit for an epoch that was left already. */
  async #compete(standing: Standing, event: NostrEvent, epoch: number, read: (state: MlsState) => Promise<Received>): Promise<Standing> {
    const { deps, owner, id } = this.#line
    const left = epochsOf(deps.store, owner, id).find((one) => one.epoch === epoch)
    if (left === undefined || left.leftState === null || left.leftBy === null || left.leftAt === null) {
      return this.#refuse(standing, event, `epoch ${epoch} is too long ago`)
    }
    if (!isBetter(event, { id: left.leftBy, created_at: left.leftAt })) return this.#done(standing, event)
    const before = decodeState(left.leftState)
    const received = await read(before)
    if (received.kind === 'removed') return this.#leave(standing, event)
    if (received.kind !== 'commit') return this.#refuse(standing, event, received.kind === 'refused' ? received.why : 'it is no commit')
    return this.#goBack(standing, event, before, received.state)
  }

  /** Takes the group to where the better commit leads; what we have said since is said again there. */
  async #goBack(standing: Standing, event: NostrEvent, before: MlsState, after: MlsState): Promise<Standing> {
    const { deps, owner, id } = this.#line
    const { row } = standing
    const { pending } = row
    const unheard = upTo(row, Number(before.groupContext.epoch))
    const isUndone = (row.unheard?.commits.length ?? 0) > (unheard?.commits.length ?? 0)
    const change = await stepped(standing, {
      before,
      after,
      by: event,
      change: { pending: null, pendingState: null, unheard },
    })
    const again: Command<unknown>[] = []
    const lostWords = saidAfter(deps.store, owner, id, Number(before.groupContext.epoch))
    let { standing: next } = change
    for (const said of lostWords) {
      const rumor = {
        id: said.id,
        pubkey: said.sender,
        created_at: said.createdAt,
        kind: said.kind,
        tags: said.tags,
        content: said.content,
      }
      const sealed = await this.#line.seal(next, next.mls, rumor)
      next = changed(next, {}, sealed.mls).standing
      again.push(moveMessage({ owner, groupId: id, id: said.id, epoch: next.row.epoch }))
      again.push(...this.#line.publish(row, 'message', said.id, sealed.event))
    }
    const whole = changed(change.standing, {}, next.mls)
    await this.#line.commit(
      { standing: whole.standing, commands: [...change.commands, ...whole.commands] },
      ...this.#claims(event),
      ...again,
    )
    deps.logger.warn(
      { group: row.name, epoch: row.epoch, to: next.row.epoch, said_again: lostWords.length },
      'two changes of a session were made at once: the earlier one stands, and the other was undone',
    )
    deps.nostr.nudgeOutbox()
    if (pending !== null) this.#commits.overtaken(pending.eventId)
    // Own keys are renewed again; all else that was undone is for who asked for it.
    if (isUndone) this.#commits.updateSoon()
    this.#moved()
    return whole.standing
  }

  async #leave(standing: Standing, event: NostrEvent): Promise<Standing> {
    const { deps, id } = this.#line
    deps.logger.info({ group: standing.row.name }, 'this key was taken out of a session')
    const next = await this.#commit(changed(standing, { state: 'removed', pending: null, pendingState: null, unheard: null }), event)
    deps.onNew(id)
    return next
  }

  async #propose(standing: Standing, event: NostrEvent, mls: MlsState): Promise<Standing> {
    const next = await this.#commit(changed(standing, {}, mls), event)
    if (next.row.admins.includes(this.#line.owner) && leaveReferences(mls).length > 0) {
      this.#line.deps.scope.spawn('let go', () => this.letGo())
    }
    return next
  }

  /** Whoever asked to leave is let go. */
  async letGo(): Promise<void> {
    await this.#commits.make(async ({ mls }) => {
      const references = leaveReferences(mls)
      return references.length === 0 ? undefined : { order: { proposals: [], references } }
    })
  }

  /** What waited for this epoch can be read now. */
  #moved(): void {
    this.#asked = 0
    this.#line.deps.scope.spawn('read again', () => this.readAgain())
    this.#line.deps.onNew(this.#line.id)
  }

  /** Relays are asked for what may be missing: what somebody sent and we never got. */
  #askLater(): void {
    const { deps } = this.#line
    if (this.#asked >= MAX_ASKED) return
    const waitMs = Math.min(ASK.maxMs, ASK.minMs * 3 ** this.#asked)
    deps.scope.gather(`ask ${this.#line.id}`, waitMs, () => this.#ask())
  }

  async #ask(): Promise<void> {
    const { deps, owner, id } = this.#line
    const row = this.#line.peek()
    const isMissing = unreadOf(deps.store, owner, id).length > 0 || heldIn(deps.store, owner, id).length > 0
    if (!isMissing) this.#asked = 0
    if (row === undefined || row.state !== 'active' || !isMissing) return
    this.#asked++
    const filter = { kinds: [445], '#h': [id], since: this.#line.nowS - ASK_BACK_S, limit: MAX_ASKED_EVENTS }
    const { events } = await deps.nostr.query([filter], { relays: this.#line.relaysOf(row) })
    const inOrder = [...events].sort((a, b) => a.created_at - b.created_at)
    for (const event of inOrder) await this.receive(event)
    this.#askLater()
  }
}

/** Another member was heard in an epoch. */
function heard({ row }: Standing, sender: string, epoch: number): Pick<GroupRow, 'unheard'> {
  return { unheard: withHeard(row, sender, epoch) }
}

function bySending(a: HeldMessage, b: HeldMessage): number {
  if (a.said !== null && b.said !== null) return a.said - b.said
  return a.epoch - b.epoch || a.generation - b.generation
}
