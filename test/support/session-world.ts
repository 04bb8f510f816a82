/**
 * Several keys with their sessions, on a clock that the test turns, over relays in memory that lose, repeat and reorder as the test
 * says. Cryptography and databases are real. A key may die around any of its commits and go on from its database.
 */
import { join } from 'node:path'
import { contentTypes } from 'ts-mls'
import { decryptSenderData } from '../../node_modules/ts-mls/dist/src/privateMessage.js'
import { ManualClock } from '../../src/base/clock.ts'
import { PylonError } from '../../src/base/errors.ts'
import { type Logger, silentLogger } from '../../src/base/logger.ts'
import { seededRandom } from '../../src/base/random.ts'
import { Scope } from '../../src/base/scope.ts'
import { matchesAny } from '../../src/nostr/nips/nip01.ts'
import type { Filter, Keyring, LocalSigner, Nostr, NostrEvent, SubscriptionSpec } from '../../src/nostr/types.ts'
import { mlsContext } from '../../src/session/mls/context.ts'
import { decodeState } from '../../src/session/mls/group.ts'
import { decodeMessage } from '../../src/session/mls/messages.ts'
import { Sessions } from '../../src/session/sessions.ts'
import type { SessionsDeps } from '../../src/session/types.ts'
import { GROUP_EVENT_KIND, groupOf, openGroupEvent } from '../../src/session/wire/group-event.ts'
import { markNotified, pendingAfter, recordDeliveries, unnotified } from '../../src/store/nostr/outbox.ts'
import { epochsOf, getGroup } from '../../src/store/sessions/groups.ts'
import type { CommitHook, Store } from '../../src/store/store.ts'
import { openStore } from './store.ts'
import { testSigner } from './test-signer.ts'

/** What a relay does with an event that it is given. */
export type Fate = 'take' | 'lose' | 'refuse'

export class MemoryRelay {
  readonly stored: NostrEvent[] = []
  /** Said yes to and forgotten. */
  readonly lost: NostrEvent[] = []
  isUp = true

  take(event: NostrEvent, fate: Fate): boolean {
    const isNew = !this.stored.some(({ id }) => id === event.id)
    if (fate === 'lose' && isNew) this.lost.push(event)
    else if (isNew) this.stored.push(event)
    return isNew && fate !== 'lose'
  }
}

export type PeerOptions = Partial<Pick<SessionsDeps, 'mayInvite'>>

/** One life of a key. */
export class Peer {
  readonly signer: LocalSigner
  readonly store: Store
  readonly sessions: Sessions
  readonly scope: Scope
  isDead = false
  /** Commits until it dies, and on which side of the last. */
  diesIn: { commits: number; before: boolean } | undefined
  readonly #subscriptions: SubscriptionSpec[] = []
  readonly #published: { prefix: string; handler: (key: string, eventId: string) => Promise<void> }[] = []
  readonly #givenUp: { prefix: string; handler: (key: string, why: string) => Promise<void> }[] = []

  constructor(world: SessionWorld, number: number, seed: number, options: PeerOptions) {
    this.signer = testSigner(number)
    const hook: CommitHook = {
      beforeCommit: () => {
        if (this.diesIn !== undefined && --this.diesIn.commits <= 0 && this.diesIn.before) this.isDead = true
        if (this.isDead) throw new PylonError('shutting_down', 'The process is dead.')
      },
      afterCommit: () => {
        if (this.diesIn !== undefined && this.diesIn.commits <= 0) this.isDead = true
      },
    }
    this.store = openStore(join(world.dir, `peer-${number}.db`), { hook })
    this.scope = Scope.root(`peer-${number}`, { clock: world.clock, random: seededRandom(seed) }, ({ path, error }) => {
      if (!this.isDead) world.failures.push(new Error(`${path} failed`, { cause: error }))
    })
    this.sessions = new Sessions({
      scope: this.scope,
      store: this.store,
      nostr: this.#nostr(world),
      signer: this.signer,
      logger: counting(world),
      relays: ['ws://one.example', 'ws://two.example'],
      mayInvite: options.mayInvite ?? (() => true),
    })
  }

  get pubkey(): string {
    return this.signer.pubkey
  }

  #nostr(world: SessionWorld): Nostr {
    const ended = async () => {
      throw new PylonError('internal', 'Not in this world.')
    }
    return {
      keyring: { owns: (pubkey: string) => pubkey === this.pubkey } as Keyring,
      relays: [],
      verifier: 'test',
      start() {},
      health: () => [],
      subscribe: (spec) => {
        this.#subscriptions.push(spec)
        return { close: () => void this.#subscriptions.splice(this.#subscriptions.indexOf(spec), 1) }
      },
      query: async (filters) => ({ events: this.isDead ? [] : world.find(filters), complete: true }),
      listen: ended,
      nudgeOutbox() {},
      onPublished: (prefix, handler) => void this.#published.push({ prefix, handler }),
      onGivenUp: (prefix, handler) => void this.#givenUp.push({ prefix, handler }),
      relaysToReach: async () => [],
      dmRelaysOf: async () => undefined,
      newestOf: ended,
      profileOf: async () => undefined,
    }
  }

  /** What waits to be sent, as messages with the relays that are to have it. */
  pending() {
    return this.isDead ? [] : pendingAfter(this.store, 0, 1000)
  }

  /** One relay's answer to one message; whoever listens is told. */
  async answered(messageId: number, relay: string, fate: Fate, at: number): Promise<void> {
    const state = fate === 'refuse' ? 'rejected' : 'accepted'
    const outcome = { messageId, relay, state, attempts: 1, error: fate === 'refuse' ? 'blocked: no' : null, nextAt: 0 } as const
    try {
      await this.store.write(recordDeliveries({ outcomes: [outcome], at }))
      await this.tell()
    } catch (error) {
      if (!this.isDead) throw error
    }
  }

  /** As the outbox does, also after a restart. */
  async tell(): Promise<void> {
    for (const { prefix, handler } of this.#published) {
      for (const { id, key, eventId } of unnotified(this.store, 'accepted', prefix, 1000)) {
        await handler(key, eventId)
        await this.store.write(markNotified({ messageIds: [id] }))
      }
    }
    for (const { prefix, handler } of this.#givenUp) {
      for (const { id, key, why } of unnotified(this.store, 'given_up', prefix, 1000)) {
        await handler(key, why ?? '')
        await this.store.write(markNotified({ messageIds: [id] }))
      }
    }
  }

  async hear(event: NostrEvent): Promise<void> {
    for (const spec of [...this.#subscriptions]) {
      if (!matchesAny(spec.filters, event)) continue
      await spec.onEvent(event, 'ws://one.example').catch((error: unknown) => {
        if (!this.isDead) throw error
      })
    }
  }

  /** What runs, but for what only waits for relays or time. */
  isBusy(): boolean {
    return this.scope.running().some(({ path }) => !/\/(?:self-update|let go|create|change)$/.test(path) && !/\/create /.test(path))
  }

  kill(): void {
    this.isDead = true
    this.store.close()
  }
}

function counting(world: SessionWorld): Logger {
  const warn = (_fields: unknown, words?: string) => {
    if (words?.includes('was undone') === true) world.counts.undone++
    if (words?.includes('did not come') === true) world.counts.passed++
  }
  return { ...silentLogger, debug() {}, info() {}, warn, error() {} } as Logger
}

export class SessionWorld {
  readonly clock = new ManualClock()
  readonly dir: string
  readonly relays = new Map([
    ['ws://one.example', new MemoryRelay()],
    ['ws://two.example', new MemoryRelay()],
  ])
  readonly failures: Error[] = []
  /** All that was ever given to a relay. */
  readonly wire: NostrEvent[] = []
  readonly peers: Peer[] = []
  /** Key, generation and leaf of what is on the wire, and the event that used them. */
  readonly #used = new Map<string, string>()
  /** What happened, for who wonders whether anything did. */
  readonly counts = { deaths: 0, undone: 0, lost: 0, keys: 0, passed: 0 }
  /** By peer: events on their way to it. */
  readonly onTheWay: NostrEvent[][] = []
  #lives = 0

  constructor(dir: string) {
    this.dir = dir
  }

  start(number: number, options: PeerOptions = {}): Peer {
    const at = number - 1
    const peer = new Peer(this, number, number * 1000 + this.#lives++, options)
    this.peers[at] = peer
    this.onTheWay[at] ??= []
    peer.sessions.start()
    return peer
  }

  find(filters: readonly Filter[]): NostrEvent[] {
    const found = [...this.relays.values()].filter(({ isUp }) => isUp).flatMap(({ stored }) => stored)
    return [...new Map(found.filter((event) => matchesAny(filters, event)).map((event) => [event.id, event])).values()]
  }

  /** Everything that a peer wants sent goes to its relays. */
  async send(peer: Peer, fateOf: (key: string, event: NostrEvent, relay: string) => Fate = () => 'take'): Promise<void> {
    for (const { id, key, event, deliveries } of peer.pending()) {
      for (const { relay: url } of deliveries) {
        const relay = this.relays.get(url)
        if (peer.isDead || relay === undefined || !relay.isUp) continue
        const signed = (event.sig === undefined ? peer.signer.sign(event) : event) as NostrEvent
        const fate = fateOf(key, signed, url)
        if (fate === 'lose') this.counts.lost++
        if (signed.kind === GROUP_EVENT_KIND) await this.#assertFresh(peer, signed)
        if (!this.wire.some((known) => known.id === signed.id)) this.wire.push(signed)
        if (fate !== 'refuse' && relay.take(signed, fate)) for (const queue of this.onTheWay) queue.push(signed)
        await peer.answered(id, url, fate, this.clock.now())
      }
    }
    await this.settle()
  }

  /** A key of MLS is used once: what encrypted one event never encrypts another. */
  async #assertFresh(peer: Peer, event: NostrEvent): Promise<void> {
    if ([...this.#used.values()].includes(event.id)) return
    const groupId = groupOf(event) ?? ''
    const rows = epochsOf(peer.store, peer.pubkey, groupId)
    const keys = rows.map(({ epoch, eventKey, legacySecret }) => ({ epoch, key: eventKey, legacySecret }))
    const opened = openGroupEvent(event, keys)
    const message = opened === undefined ? undefined : decodeMessage(opened.message)
    const row = rows.find(({ epoch }) => epoch === opened?.epoch)
    const state = row?.leftState ?? getGroup(peer.store, peer.pubkey, groupId)?.mlsState
    // Sent again after many epochs: it was looked at when it was new.
    if (message === undefined || !('privateMessage' in message) || row === undefined || state === undefined) return
    const { senderDataSecret } = decodeState(state).keySchedule
    const data = await decryptSenderData(message.privateMessage, senderDataSecret, (await mlsContext()).cipherSuite)
    const kind = message.privateMessage.contentType === contentTypes.application ? 'application' : 'handshake'
    const used = `${Buffer.from(row.eventKey).toString('hex')} ${kind} ${data?.leafIndex} ${data?.generation}`
    const by = this.#used.get(used)
    if (by !== undefined) throw new Error(`The key of ${by} was used again for ${event.id}: ${used}.`)
    this.#used.set(used, event.id)
    this.counts.keys++
  }

  async deliver(peer: Peer, index: number, keep = false): Promise<void> {
    const queue = this.onTheWay[this.peers.indexOf(peer)] ?? []
    const event = queue[index % Math.max(1, queue.length)]
    if (event === undefined || peer.isDead) return
    if (!keep) queue.splice(queue.indexOf(event), 1)
    await peer.hear(event)
    await this.settle()
  }

  /** Until nothing runs but what waits for time or relays. */
  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 3; ) {
      await new Promise((resolve) => setImmediate(resolve))
      quiet = this.peers.some((peer) => !peer.isDead && peer.isBusy()) ? 0 : quiet + 1
    }
  }

  async pass(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= 1000) {
      await this.clock.advance(Math.min(left, 1000))
      await this.settle()
    }
  }

  /** The dead come back. */
  async revive(): Promise<void> {
    for (const [at, peer] of this.peers.entries()) {
      if (!peer.isDead) continue
      this.counts.deaths++
      peer.store.close()
      await this.start(at + 1).tell()
    }
    await this.settle()
  }

  /** Fair weather, until nothing is left to say. */
  async calm(rounds = 12): Promise<void> {
    for (const relay of this.relays.values()) relay.isUp = true
    for (let round = 0; round < rounds; round++) {
      await this.revive()
      for (const peer of this.peers) {
        peer.diesIn = undefined
        await this.send(peer)
      }
      // A subscription that was cut reads again.
      for (const [at, peer] of this.peers.entries()) {
        this.onTheWay[at] = []
        for (const event of this.find([{}])) await peer.hear(event)
      }
      await this.settle()
      await this.pass(round < 4 ? 30_000 : 120_000)
    }
  }

  async close(): Promise<void> {
    for (const peer of this.peers) {
      peer.isDead = true
      const closing = peer.scope.close()
      await this.clock.advance(5000)
      await closing
      peer.store.close()
    }
  }
}
