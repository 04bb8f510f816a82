/**
 * All that happens to one group, one thing after the other: each begins with the state as it is stored and ends with one commit of
 * the new state and all that follows from it. Nothing leaves that is not stored; what failed to be stored never happened.
 */

import { unixSeconds } from '../base/clock.ts'
import { PylonError } from '../base/errors.ts'
import { KeyedQueue } from '../base/keyed-queue.ts'
import type { IdentifiedEvent, NostrEvent } from '../nostr/types.ts'
import { all, type Command } from '../store/commands.ts'
import { sessionMessages, sessionSeen } from '../store/keys.ts'
import { enqueueEvent } from '../store/nostr/outbox.ts'
import { claimEvent } from '../store/nostr/seen-events.ts'
import { type GroupRow, getGroup } from '../store/sessions/groups.ts'
import { insertMessage, type MessageRow, markSaid, messageByKey, type NewMessage } from '../store/sessions/messages.ts'
import type { MlsState } from './mls/group.ts'
import { writeMessage } from './mls/messages.ts'
import { rumorOf } from './rumors.ts'
import { type Changed, changed, loadStanding, type Standing } from './standing.ts'
import type { Said, SessionsDeps } from './types.ts'
import { sealGroupEvent } from './wire/group-event.ts'

/** How long relays are tried. */
export const DELIVERY_MS = 7 * 86_400_000

export interface LineDeps extends SessionsDeps {
  /** Called after something was committed that others wait for. */
  onNew(groupId: string): void
}

export class GroupLine {
  readonly id: string
  readonly deps: LineDeps
  readonly owner: string
  readonly #queue = new KeyedQueue()
  #cached: Standing | undefined

  constructor(deps: LineDeps, id: string) {
    this.deps = deps
    this.id = id
    this.owner = deps.signer.pubkey
  }

  /** In its turn, with the group as it stands then. @throws session_not_found, shutting_down */
  run<T>(name: string, work: (standing: Standing) => Promise<T>): Promise<T> {
    return this.deps.scope.run(name, () =>
      this.#queue.run(this.id, async () => {
        try {
          return await work(this.#standing())
        } catch (error) {
          // Whatever was made of it may not have been stored.
          this.#cached = undefined
          throw error
        }
      }),
    )
  }

  /** One commit; from then on the group stands so. */
  async commit({ standing, commands }: Changed, ...more: readonly Command<unknown>[]): Promise<void> {
    await this.deps.store.write(all(...commands, ...more))
    this.#cached = standing
  }

  #standing(): Standing {
    this.#cached ??= loadStanding(this.deps.store, this.owner, this.id)
    if (this.#cached === undefined) throw notFound(this.id)
    return this.#cached
  }

  /** The row as it stands now, whoever's turn it is. */
  peek(): GroupRow | undefined {
    return this.#cached?.row ?? getGroup(this.deps.store, this.owner, this.id)
  }

  get now(): number {
    return this.deps.scope.clock.now()
  }

  get nowS(): number {
    return unixSeconds(this.deps.scope.clock)
  }

  /** What is published for the group goes there. */
  relaysOf(row: GroupRow): readonly string[] {
    const { via } = this.deps
    return via !== undefined && via.length > 0 ? via : row.relays
  }

  /** What stands for an event of ours: it is published, and known when it comes back. */
  publish(row: GroupRow, what: 'message' | 'commit' | 'again' | 'leave', id: string, event: NostrEvent): Command<unknown>[] {
    return [
      enqueueEvent({
        key: sessionMessages(what, this.owner).of(`${this.id}:${id}`),
        event,
        relays: this.relaysOf(row),
        notAfter: this.now + DELIVERY_MS,
        at: this.now,
      }),
      this.seen(event.id),
    ]
  }

  seen(eventId: string): Command<boolean> {
    return claimEvent({ id: sessionSeen(this.owner, eventId), subscription: 'session', at: this.now })
  }

  /** Encrypted in this state, which is used up by it. */
  async seal({ row, keys }: Standing, mls: MlsState, rumor: IdentifiedEvent): Promise<{ mls: MlsState; event: NostrEvent }> {
    const { state, message } = await writeMessage(mls, Buffer.from(JSON.stringify(rumor)))
    const key = keys[0]?.key
    if (key === undefined) throw new PylonError('internal', 'A session has no key for its epoch.')
    return { mls: state, event: sealGroupEvent(row.id, key, message, this.nowS, this.deps.scope.random) }
  }

  /** Says something, once for each key. @throws session_closed, session_refused */
  send(said: Said, key: string, ...more: readonly Command<unknown>[]): Promise<MessageRow> {
    return this.sendAll([said], key, ...more)
  }

  /** Says all of it in one commit, once for each key. @returns the last @throws session_closed, session_refused */
  async sendAll(said: readonly Said[], key: string, ...more: readonly Command<unknown>[]): Promise<MessageRow> {
    const { store, nostr } = this.deps
    const row = await this.run('send', async (standing) => {
      const known = messageByKey(store, this.owner, key)
      if (known !== undefined) {
        if (more.length > 0) await store.write(all(...more))
        return known
      }
      if (standing.row.state !== 'active') throw closed(standing.row)
      let { mls } = standing
      let number = standing.row.nextSaid
      const commands: Command<unknown>[] = []
      for (const [i, one] of said.entries()) {
        const rumor = rumorOf(this.owner, one, number++, this.nowS)
        const sealed = await this.seal(standing, mls, rumor)
        mls = sealed.mls
        const named = i === said.length - 1 ? key : `${key}:${i}`
        const message: NewMessage = { ...this.messageOf(rumor, standing.row.epoch), isOwn: true, state: 'sending', key: named }
        commands.push(insertMessage(message), ...this.publish(standing.row, 'message', rumor.id, sealed.event))
      }
      await this.commit(changed(standing, { nextSaid: number }, mls), ...commands, ...more)
      const stored = messageByKey(store, this.owner, key)
      if (stored === undefined) throw new PylonError('internal', 'A message that was stored is not there.')
      return stored
    })
    nostr.nudgeOutbox()
    this.deps.onNew(this.id)
    return row
  }

  messageOf(rumor: IdentifiedEvent, epoch: number): NewMessage {
    const { id, pubkey, kind, content, tags, created_at } = rumor
    return {
      owner: this.owner,
      groupId: this.id,
      id,
      sender: pubkey,
      isOwn: pubkey === this.owner,
      kind,
      content,
      tags,
      createdAt: created_at,
      state: pubkey === this.owner ? 'sent' : 'new',
      reason: null,
      key: null,
      epoch,
      at: this.now,
    }
  }

  async markSaid(id: string, state: 'sent' | 'refused', reason: string | null): Promise<void> {
    await this.deps.store.write(markSaid({ owner: this.owner, groupId: this.id, id, state, reason }))
    this.deps.onNew(this.id)
  }
}

export function notFound(id: string): PylonError {
  return new PylonError('session_not_found', `This key is in no session ${id.slice(0, 12)}.`)
}

export function closed({ name, state }: Pick<GroupRow, 'name' | 'state'>): PylonError {
  const why = { left: 'this key has left it', removed: 'this key was taken out of it', broken: 'its state here cannot go on', active: '' }[
    state
  ]
  return new PylonError('session_closed', `The session ${JSON.stringify(name)} is over: ${why}; begin a new one.`)
}
