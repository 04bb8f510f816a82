/** An owner and an agent in one session, over two relays and a seeded network in memory, on virtual time. Cryptography and databases are real. */
import { join } from 'node:path'
import { messageOf } from '../../../src/base/errors.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { type Random, randomBelow, seededRandom } from '../../../src/base/random.ts'
import { Scope } from '../../../src/base/scope.ts'
import { createNostr } from '../../../src/nostr/nostr.ts'
import type { LocalSigner, NostrEvent } from '../../../src/nostr/types.ts'
import { Faults } from '../../../src/sandbox/faults.ts'
import { Relay } from '../../../src/sandbox/relay/relay.ts'
import { Sessions } from '../../../src/session/sessions.ts'
import type { Store } from '../../../src/store/store.ts'
import { keyringOf } from '../../support/session-peer.ts'
import { openStore } from '../../support/store.ts'
import { testSigner } from '../../support/test-signer.ts'
import { VirtualClock } from '../clock.ts'
import { type Kill, Life, loggerOf } from '../life.ts'
import { type Host, Network } from '../network.ts'
import { relayHost } from '../relay-host.ts'
import type { WatchedCrypto } from '../web-crypto.ts'
import { Wire } from './wire.ts'

export const RELAYS = ['http://127.0.0.1:7001', 'http://127.0.0.1:7002'] as const
export const RELAY_URLS = RELAYS.map((url) => url.replace('http', 'ws'))
/** For so long a relay forgets what it took of an event that it is to forget. */
const FORGETS_MS = 4000

export class World {
  readonly clock: VirtualClock
  readonly random: Random
  readonly chance: Random
  readonly network: Network
  readonly log: string[] = []
  /** Of running work that nobody waits for. */
  readonly failures: string[] = []
  readonly wire = new Wire()
  readonly dir: string
  readonly peers: Peer[] = []
  /** Commits that all relays take and forget. */
  commitsToForget = 0
  readonly #forgotten = new Map<string, number>()
  readonly #relays: Relay[] = []

  constructor(seed: number, dir: string, crypto: WatchedCrypto) {
    this.dir = dir
    this.clock = new VirtualClock(undefined, () => crypto.pending())
    this.random = seededRandom(seed)
    this.chance = seededRandom(seed + 2 ** 31)
    this.network = new Network(this.clock, this.random)
    for (const [at, origin] of RELAYS.entries()) {
      const relay = new Relay({
        ...{ clock: this.clock, random: this.random, logger: silentLogger, databasePath: ':memory:', faults: new Faults() },
        authForDms: false,
        isOwnUrl: (url) => url === RELAY_URLS[at],
      })
      this.#relays.push(relay)
      this.network.serve(origin, this.#watched(relayHost(relay)))
    }
  }

  below(count: number): number {
    return randomBelow(this.random, count)
  }

  /** Sees what comes to a relay, which may forget it. */
  #watched(host: Host): Host {
    return {
      answer: (request) => host.answer(request),
      accept: (peer) => {
        const connection = host.accept({
          send: (text) => {
            this.wire.seeText(text)
            peer.send(text)
          },
          cut: () => peer.cut(),
        })
        return {
          receive: (text) => {
            this.wire.seeText(text)
            const event = eventIn(text)
            if (event !== undefined) this.wire.see(event)
            if (event !== undefined && this.#forgets(event)) peer.send(JSON.stringify(['OK', event.id, true, '']))
            else connection.receive(text)
          },
          close: () => connection.close(),
        }
      },
    }
  }

  #forgets(event: NostrEvent): boolean {
    const untilMs = this.#forgotten.get(event.id)
    if (untilMs !== undefined) return this.clock.now() < untilMs
    if (this.commitsToForget === 0 || !this.wire.isCommit(event)) return false
    this.commitsToForget--
    this.#forgotten.set(event.id, this.clock.now() + FORGETS_MS)
    return true
  }

  get forgotten(): number {
    return this.#forgotten.size
  }

  end(): void {
    for (const peer of this.peers) peer.end()
    for (const relay of this.#relays) relay.close()
  }
}

function eventIn(text: string): NostrEvent | undefined {
  return text.startsWith('["EVENT"') ? (JSON.parse(text) as [string, NostrEvent])[1] : undefined
}

export interface PeerOptions {
  readonly name: string
  readonly key: number
  mayInvite(pubkey: string): boolean
  /** Its own work, once more in each life. */
  begin(running: Running): void
}

export interface Running {
  readonly sessions: Sessions
  readonly store: Store
  readonly scope: Scope
  readonly life: Life
  /** Rejects when it is killed. */
  readonly death: Promise<never>
}

/** A process with one key that can be killed at any commit and goes on from its database. */
export class Peer {
  readonly name: string
  readonly signer: LocalSigner
  readonly #world: World
  readonly #options: PeerOptions
  readonly #stores: Store[] = []
  #running: (Running & { die(): void }) | undefined

  constructor(world: World, options: PeerOptions) {
    this.#world = world
    this.#options = options
    this.name = options.name
    this.signer = testSigner(options.key)
    world.peers.push(this)
  }

  get pubkey(): string {
    return this.signer.pubkey
  }

  get isUp(): boolean {
    return this.#running !== undefined
  }

  /** Of the newest life, also after its death. */
  get store(): Store {
    return this.#stores.at(-1) as Store
  }

  get sessions(): Sessions {
    if (this.#running === undefined) throw new Error(`${this.name} is down`)
    return this.#running.sessions
  }

  start(): void {
    const { name } = this.#options
    const { clock, chance, network, log, failures, dir } = this.#world
    const life = new Life(clock)
    const logger = loggerOf(name, life, log)
    const hook = {
      beforeCommit: () => life.beforeCommit(),
      afterCommit: () => {
        if (this.#stores.at(-1) === store) this.#world.wire.remember({ pubkey: this.pubkey, store })
        life.afterCommit()
      },
    }
    const store: Store = openStore(join(dir, `${name}.db`), { clock: life, hook })
    this.#stores.push(store)
    const scope = Scope.root(name, { clock: life, random: chance }, ({ path, error }) => {
      // What fails because it is dead failed nowhere else.
      if (life.isAlive) failures.push(`${path}: ${messageOf(error)}`)
    })
    const dialer = network.dialerOf(life)
    const keyring = keyringOf(this.signer)
    const nostr = createNostr({ scope: scope.child('nostr'), store, logger, dialer, keyring, relays: RELAY_URLS, indexRelays: [] })
    nostr.start()
    const { signer } = this
    const { mayInvite } = this.#options
    const sessions = new Sessions({ scope: scope.child('sessions'), store, nostr, signer, logger, relays: RELAY_URLS, mayInvite })
    sessions.start()
    const { promise: death, reject: die } = Promise.withResolvers<never>()
    death.catch(() => undefined)
    this.#running = { sessions, store, scope, life, death, die: () => die(new Error(`${name} was killed`)) }
    this.#options.begin(this.#running)
  }

  /** @throws as it does, and when the process dies meanwhile */
  async ask<T>(work: (sessions: Sessions) => Promise<T>): Promise<T> {
    const running = this.#running
    if (running === undefined) throw new Error(`${this.name} is down`)
    return await Promise.race([work(running.sessions), running.death])
  }

  killAt(kill: Kill): void {
    const onDead = () => {
      this.#forget()
      kill.onDead()
    }
    this.#running?.life.killAt({ ...kill, onDead })
  }

  kill(): void {
    this.#running?.life.die()
    this.#forget()
  }

  #forget(): void {
    const running = this.#running
    if (running === undefined) return
    this.#world.network.drop(running.life)
    this.#running = undefined
    running.die()
  }

  end(): void {
    this.kill()
    // The database of a killed process stays open until the end: closing it would write what was queued.
    for (const store of this.#stores) store.close()
  }
}
