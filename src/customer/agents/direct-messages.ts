/** Talk by NIP-17 with a peer that no session can be begun with: what is said, and what it answers, once and kept. */
import { unixSeconds } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import { News } from '../../base/news.ts'
import type { Scope } from '../../base/scope.ts'
import { tagValues } from '../../nostr/nips/nip01.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import { buildDm17, CHAT_KIND } from '../../nostr/nips/nip59.ts'
import { dmRelaysToSay } from '../../nostr/self/dm-relays.ts'
import type { IdentifiedEvent, Nostr, Signer } from '../../nostr/types.ts'
import type { SessionMessage } from '../../session/types.ts'
import {
  type DirectRow,
  directByKey,
  hasSpokenTo,
  insertDirect,
  markDirect,
  newestDirect,
  pageOfDirect,
  sweepDirect,
} from '../../store/buying/direct-messages.ts'
import { all } from '../../store/commands.ts'
import { directCopyMessage, directMessage, directRelaysMessage } from '../../store/keys.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import type { Store } from '../../store/store.ts'

const DAY_MS = 86_400_000
const TTL_MS = 3 * DAY_MS
const KEEP_MS = 365 * DAY_MS
const MAX_CHARS = 40_960

export interface DirectDeps {
  readonly scope: Scope
  readonly store: Store
  readonly nostr: Pick<Nostr, 'relays' | 'dmRelaysOf' | 'newestOf' | 'nudgeOutbox' | 'onPublished' | 'onGivenUp'>
  /** The customer key. */
  readonly signer: Signer
}

export class DirectMessages {
  /** Woken under the key of a peer. */
  readonly news: News
  readonly #deps: DirectDeps

  constructor(deps: DirectDeps) {
    this.#deps = deps
    this.news = new News(deps.scope)
  }

  start(): void {
    const { nostr, scope, store } = this.#deps
    nostr.onPublished(directMessage.of(''), (key) => this.#mark(directMessage.idIn(key), 'sent', null))
    nostr.onGivenUp(directMessage.of(''), (key, why) => this.#mark(directMessage.idIn(key), 'refused', why))
    scope.spawn('forget old direct messages', () => store.write(sweepDirect({ before: scope.clock.now() - KEEP_MS })))
  }

  isKnown(peer: string): boolean {
    return hasSpokenTo(this.#deps.store, peer)
  }

  /** Once for each key. @throws session_no_key_package where the peer reads no such messages either, relay_unreachable */
  async say(peer: string, text: string, key: string): Promise<SessionMessage> {
    const { scope, store, nostr, signer } = this.#deps
    const known = directByKey(store, key)
    if (known !== undefined) return this.#messageOf(known)
    const relays = await nostr.dmRelaysOf(peer)
    if (relays === undefined || relays.length === 0) {
      const words = `${npubOf(peer)} cannot be written to in private: no relay that was asked has a key package of it (30443), nor its DM relays (10050).`
      throw new PylonError('session_no_key_package', words)
    }
    const [at, nowS] = [scope.clock.now(), unixSeconds(scope.clock)]
    const { rumor, wraps } = await buildDm17(signer, [peer], text, nowS)
    const row = { peer, id: rumor.id, isOwn: true, content: text, createdAt: nowS, state: 'sending', reason: null, key, at } as const
    const commands = wraps.map(({ recipient, event, seal }) => {
      const [form, to] = recipient === peer ? [directMessage, relays] : [directCopyMessage, nostr.relays]
      return enqueueEvent({ key: form.of(key), event, seal, relays: to, notAfter: at + TTL_MS, at })
    })
    await store.write(all(insertDirect(row), ...commands, ...(await this.#whereToAnswer(nowS, at))))
    nostr.nudgeOutbox()
    const stored = directByKey(store, key)
    if (stored === undefined) throw new PylonError('internal', 'A message that was stored is not there.')
    return this.#messageOf(stored)
  }

  /** What somebody we wrote to says; from others nothing is kept. The same again does nothing. */
  async onRumor(rumor: IdentifiedEvent): Promise<void> {
    const { scope, store, signer } = this.#deps
    const { kind, pubkey: peer, id, content, created_at: createdAt } = rumor
    const isForUs = kind === CHAT_KIND && peer !== signer.pubkey && tagValues(rumor, 'p').includes(signer.pubkey)
    if (!isForUs || !this.isKnown(peer)) return
    const said = {
      peer,
      id,
      isOwn: false,
      content: content.slice(0, MAX_CHARS),
      createdAt,
      state: 'handled',
      reason: null,
      key: null,
    } as const
    await store.write(insertDirect({ ...said, at: scope.clock.now() }))
    this.news.tell(peer)
  }

  messages(peer: string, page: { readonly after: number; readonly limit: number }): SessionMessage[] {
    return pageOfDirect(this.#deps.store, peer, page.after, page.limit).map((row) => this.#messageOf(row))
  }

  newest(peer: string, limit: number): SessionMessage[] {
    return newestDirect(this.#deps.store, peer, limit).map((row) => this.#messageOf(row))
  }

  /** Our own DM relays, where none are known: who answers looks there. */
  async #whereToAnswer(nowS: number, at: number) {
    const { nostr, signer } = this.#deps
    const event = await dmRelaysToSay(nostr, signer.pubkey, nowS)
    if (event === 'said' || event === 'unsure') return []
    return [enqueueEvent({ key: directRelaysMessage.of(signer.pubkey), event, relays: nostr.relays, notAfter: at + TTL_MS, at })]
  }

  async #mark(key: string | undefined, state: 'sent' | 'refused', reason: string | null): Promise<void> {
    const { store } = this.#deps
    const row = key === undefined ? undefined : directByKey(store, key)
    if (key === undefined || row === undefined) return
    await store.write(markDirect({ key, state, reason }))
    this.news.tell(row.peer)
  }

  #messageOf({ peer, seq, id, isOwn, content, createdAt, state, reason }: DirectRow): SessionMessage {
    const sender = isOwn ? this.#deps.signer.pubkey : peer
    return { id, seq, groupId: peer, sender, isOwn, kind: CHAT_KIND, content, tags: [], createdAt, state, reason }
  }
}
