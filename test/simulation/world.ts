/** One process with whole nodes, relays and a mint in it, on virtual time and a network in memory. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Clock, rfc3339 } from '../../src/base/clock.ts'
import { type Config, DEFAULT_CONFIG } from '../../src/base/config.ts'
import { messageOf } from '../../src/base/errors.ts'
import { silentLogger } from '../../src/base/logger.ts'
import { homeAt } from '../../src/base/paths.ts'
import { type Random, randomBelow, seededRandom } from '../../src/base/random.ts'
import { Scope } from '../../src/base/scope.ts'
import type { Customer } from '../../src/customer/customer.ts'
import { Events } from '../../src/daemon/events.ts'
import { LogFile } from '../../src/daemon/home/log-file.ts'
import type { Mode } from '../../src/daemon/launch/run-options.ts'
import { PylonNode } from '../../src/daemon/node.ts'
import { Shutdown } from '../../src/daemon/shutdown.ts'
import type { Identity } from '../../src/nostr/keys/identity.ts'
import { HomeKeyring } from '../../src/nostr/keys/keyring.ts'
import { secretOfAccount, seedOfWords } from '../../src/nostr/keys/mnemonic.ts'
import { createSigner } from '../../src/nostr/keys/signer.ts'
import { npubOf } from '../../src/nostr/nips/nip19.ts'
import { SandboxDatabase } from '../../src/sandbox/database.ts'
import { Faults } from '../../src/sandbox/faults.ts'
import { MintApi } from '../../src/sandbox/mint/api.ts'
import { Mint } from '../../src/sandbox/mint/mint.ts'
import { MintSubscriptions } from '../../src/sandbox/mint/subscriptions.ts'
import { Relay } from '../../src/sandbox/relay/relay.ts'
import type { OwnWallets } from '../../src/wallet/wallets.ts'
import { openStore } from '../support/store.ts'
import { VirtualClock } from './clock.ts'
import { type Kill, Life, loggerOf } from './life.ts'
import { type Host, Network } from './network.ts'
import { quickCrypto } from './quick-crypto.ts'
import { relayHost } from './relay-host.ts'

export const RELAYS = ['http://127.0.0.1:7001', 'http://127.0.0.1:7002'] as const
export const MINT = 'http://127.0.0.1:7003'

export class World {
  readonly clock = new VirtualClock()
  readonly random: Random
  readonly network: Network
  readonly mintDatabase: SandboxDatabase
  readonly mint: Mint
  readonly mintFaults = new Faults()
  /** The mint takes no fees. */
  readonly isFree: boolean
  /** Of all nodes, in order. */
  readonly log: string[] = []
  readonly nodes: SimulatedNode[] = []
  /** Of running work that nobody waits for. */
  readonly failures: string[] = []
  /** Of the nodes. */
  readonly chance: Random
  readonly #dir: string
  readonly #relays: Relay[] = []

  /** @param dir of its own, for the databases of nodes */
  constructor(seed: number, dir: string) {
    this.random = seededRandom(seed)
    this.chance = seededRandom(seed + 2 ** 31)
    this.#dir = dir
    this.network = new Network(this.clock, this.random)
    const common = { clock: this.clock, random: this.random, logger: silentLogger }
    this.mintDatabase = new SandboxDatabase(':memory:', this.random)
    this.mint = new Mint(this.mintDatabase, this.clock, () => this.mintFaults.takeHeldMelt())
    this.isFree = this.below(2) === 0
    if (this.isFree) this.mint.rotateKeyset(0)
    this.network.serve(MINT, mintHost(this.mint, this.mintDatabase, this.clock))
    for (const origin of RELAYS) {
      const url = origin.replace('http', 'ws')
      const relay = new Relay({
        ...{ ...common, databasePath: ':memory:', faults: new Faults(), authForDms: false },
        isOwnUrl: (named) => URL.parse(named)?.origin === new URL(url).origin,
      })
      this.#relays.push(relay)
      this.network.serve(origin, relayHost(relay))
    }
  }

  below(count: number): number {
    return randomBelow(this.random, count)
  }

  node(options: Omit<NodeOptions, 'dir'>): SimulatedNode {
    const dir = join(this.#dir, options.name)
    mkdirSync(dir)
    const node = new SimulatedNode(this, { ...options, dir })
    this.nodes.push(node)
    return node
  }

  /** Lets time pass until the work is done. @throws what the work throws, or that it takes longer than `forMs` */
  async finish<T>(work: Promise<T>, forMs = 600_000): Promise<T> {
    let outcome: { value: T } | { error: unknown } | undefined
    work.then(
      (value) => {
        outcome = { value }
      },
      (error: unknown) => {
        outcome = { error }
      },
    )
    await this.clock.run(forMs, () => outcome !== undefined)
    if (outcome === undefined) throw new Error(`not done within ${forMs / 1000} s of virtual time`)
    if ('error' in outcome) throw outcome.error
    return outcome.value
  }

  /** Ends without closing anything: what is left is garbage. */
  end(): void {
    for (const node of this.nodes) node.end()
    for (const relay of this.#relays) relay.close()
    this.mintDatabase.close()
  }
}

export interface NodeOptions {
  readonly name: string
  readonly dir: string
  readonly words: string
  readonly mode: Mode
}

/** A node that can be killed at any moment and opened again on the same database. */
export class SimulatedNode {
  readonly name: string
  readonly identity: Identity
  readonly #world: World
  readonly #options: NodeOptions
  readonly #ends: (() => void)[] = []
  #running: { readonly node: PylonNode; readonly process: Life } | undefined

  constructor(world: World, options: NodeOptions) {
    this.#world = world
    this.#options = options
    this.name = options.name
    const { pubkey } = createSigner(secretOfAccount(seedOfWords(options.words), 0))
    const created = rfc3339(world.clock.now())
    this.identity = { version: 1, pubkey, npub: npubOf(pubkey), created_at: created, protection: null, secret: options.words }
  }

  get isUp(): boolean {
    return this.#running !== undefined
  }

  /** The node that runs. */
  get node(): PylonNode {
    if (this.#running === undefined) throw new Error(`${this.name} is down`)
    return this.#running.node
  }

  get customer(): Customer {
    return this.node.parts.customer.get()
  }

  get wallets(): OwnWallets {
    return this.node.parts.wallets.get()
  }

  async start(): Promise<void> {
    const { name, dir, words, mode } = this.#options
    const process = new Life(this.#world.clock)
    const logger = loggerOf(name, process, this.#world.log)
    const home = homeAt(dir)
    const store = openStore(home.database, { clock: process, hook: process })
    const keyring = new HomeKeyring({ store, clock: process, random: this.#world.chance, logger, nodePubkey: this.identity.pubkey })
    keyring.unlock(words)
    const scope = Scope.root(name, { clock: process, random: this.#world.chance }, ({ path, error }) => {
      // What fails because it is dead failed nowhere else.
      if (process.isAlive) this.#world.failures.push(`${path}: ${messageOf(error)}`)
    })
    const node = new PylonNode({
      scope,
      options: { home, network: 'sandbox', run: { mode, relays: [], mints: [] }, isDetached: false },
      config: CONFIG,
      store,
      clock: process,
      logger,
      identity: this.identity,
      keyring,
      dialer: this.#world.network.dialerOf(process),
      surroundings: {
        relays: RELAYS.map((url) => url.replace('http', 'ws')),
        mints: [MINT],
        sandbox: undefined,
      },
      logFile: new LogFile(join(dir, 'log'), false),
      events: new Events(process),
      shutdown: new Shutdown(logger),
      crypto: quickCrypto,
    })
    this.#running = { node, process }
    // The database of a killed process stays open until the end: closing it would write what was queued.
    this.#ends.push(() => store.close())
    await node.startParts()
  }

  /** Kills the process at a commit that is still to come. */
  killAt(kill: Kill): void {
    const process = this.#running?.process
    process?.killAt({
      ...kill,
      onDead: () => {
        this.#forget()
        kill.onDead()
      },
    })
  }

  /** Kills it now. */
  kill(): void {
    this.#running?.process.die()
    this.#forget()
  }

  #forget(): void {
    if (this.#running === undefined) return
    this.#world.network.drop(this.#running.process)
    this.#running = undefined
  }

  end(): void {
    this.kill()
    for (const end of this.#ends) end()
  }
}

const CONFIG: Config = {
  ...DEFAULT_CONFIG,
  provider: { ...DEFAULT_CONFIG.provider, probe: false, prices: { '5001': { amount_msats: 7000, unit: 'job' } } },
  runtimes: { ...DEFAULT_CONFIG.runtimes, enabled: false },
}

function mintHost(mint: Mint, database: SandboxDatabase, clock: Clock): Host {
  const siblings = { lnurl_base_url: '', relay_url: '' }
  const api = new MintApi({ mint, database, clock, logger: silentLogger, url: () => MINT, siblings })
  const subscriptions = new MintSubscriptions(mint)
  return {
    answer({ method, target, body }) {
      const { status, json } = api.answer(method, target.split('?')[0] ?? '/', body)
      return { status, headers: { 'content-type': 'application/json' }, text: json }
    },
    accept: (peer) => subscriptions.connect(peer),
  }
}
