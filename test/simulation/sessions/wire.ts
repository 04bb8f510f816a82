/** What relays see of sessions: of which kinds, and, with the keys of the members, that no key of MLS encrypts two things. */
import { contentTypes, type PrivateMessage } from 'ts-mls'
import { decryptSenderData } from '../../../node_modules/ts-mls/dist/src/privateMessage.js'
import type { NostrEvent } from '../../../src/nostr/types.ts'
import { mlsContext } from '../../../src/session/mls/context.ts'
import { decodeState } from '../../../src/session/mls/group.ts'
import { decodeMessage } from '../../../src/session/mls/messages.ts'
import { type EpochKeys, GROUP_EVENT_KIND, openGroupEvent } from '../../../src/session/wire/group-event.ts'
import { epochsOf, listGroups } from '../../../src/store/sessions/groups.ts'
import type { Store } from '../../../src/store/store.ts'

interface Member {
  readonly pubkey: string
  readonly store: Store
}

interface Opened {
  readonly message: PrivateMessage
  /** Names the epoch, and which of several that were made at once. */
  readonly epochKey: string
  readonly senderDataSecret: Uint8Array
}

export class Wire {
  readonly #epochs = new Map<string, EpochKeys & { readonly senderDataSecret: Uint8Array }>()
  readonly #seen = new Map<string, Opened | undefined>()
  readonly #events: NostrEvent[] = []
  readonly #texts: string[] = []

  get kinds(): ReadonlySet<number> {
    return new Set(this.#events.map(({ kind }) => kind))
  }

  seeText(text: string): void {
    this.#texts.push(text)
  }

  /** Whether this stands in anything that passed. */
  holds(text: string): boolean {
    return this.#texts.some((one) => one.includes(text))
  }

  see(event: NostrEvent): void {
    if (this.#seen.has(event.id)) return
    this.#events.push(event)
    this.#seen.set(event.id, event.kind === GROUP_EVENT_KIND ? this.#open(event) : undefined)
  }

  isCommit(event: NostrEvent): boolean {
    this.see(event)
    return this.#seen.get(event.id)?.message.contentType === contentTypes.commit
  }

  /** After a commit: an epoch that is left may be forgotten before what was sealed in it comes to a relay. */
  remember({ pubkey, store }: Member): void {
    for (const { id, mlsState } of listGroups(store, pubkey)) {
      const [row] = epochsOf(store, pubkey, id)
      const name = row === undefined ? '' : Buffer.from(row.eventKey).toString('hex')
      if (row === undefined || this.#epochs.has(name)) continue
      const { senderDataSecret } = decodeState(mlsState).keySchedule
      this.#epochs.set(name, { epoch: row.epoch, key: row.eventKey, legacySecret: row.legacySecret, senderDataSecret })
    }
  }

  #open(event: NostrEvent): Opened | undefined {
    for (const [epochKey, keys] of this.#epochs) {
      const opened = openGroupEvent(event, [keys])
      const message = opened === undefined ? undefined : decodeMessage(opened.message)
      if (message === undefined || !('privateMessage' in message)) continue
      return { message: message.privateMessage, epochKey, senderDataSecret: keys.senderDataSecret }
    }
    return undefined
  }

  /** @returns what is wrong: events that nobody's keys open, and keys that two events share */
  async audit(): Promise<{ problems: string[]; opened: number }> {
    const { cipherSuite } = await mlsContext()
    const problems: string[] = []
    const used = new Map<string, string>()
    let count = 0
    const use = (what: string, id: string) => {
      const by = used.get(what)
      if (by !== undefined) problems.push(`${what} of ${by} was used again by ${id}`)
      used.set(what, id)
    }
    for (const event of this.#events) {
      if (event.kind !== GROUP_EVENT_KIND) continue
      const opened = this.#seen.get(event.id)
      if (opened === undefined) {
        problems.push(`the event ${event.id} is of no epoch that a member has`)
        continue
      }
      count++
      const { message, epochKey, senderDataSecret } = opened
      const data = await decryptSenderData(message, senderDataSecret, cipherSuite)
      const ratchet = message.contentType === contentTypes.application ? 'application' : 'handshake'
      use(`epoch key ${epochKey.slice(0, 16)}, ${ratchet} generation ${data?.generation} of leaf ${data?.leafIndex}`, event.id)
      use(`epoch key ${epochKey.slice(0, 16)}, nonce ${Buffer.from(event.content, 'base64').toString('hex', 0, 12)}`, event.id)
    }
    return { problems, opened: count }
  }
}
