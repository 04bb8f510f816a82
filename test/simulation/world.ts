/** One process with whole nodes, relays and a mint in it, on virtual time and a network in memory. */
import { appendFileSync, copyFileSync, existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { rfc3339 } from '../../src/base/clock.ts'
import { type Config, DEFAULT_CONFIG } from '../../src/base/config.ts'
import { runtimesConfig } from '../../src/base/config-runtimes.ts'
import { messageOf } from '../../src/base/errors.ts'
import { silentLogger } from '../../src/base/logger.ts'
import { homeAt } from '../../src/base/paths.ts'
import { type Random, seededRandom } from '../../src/base/random.ts'
import { Scope } from '../../src/base/scope.ts'
import type { Customer } from '../../src/customer/customer.ts'
import { Events } from '../../src/daemon/events.ts'
import { OK } from '../../src/daemon/health.ts'
import { LogFile } from '../../src/daemon/home/log-file.ts'
import type { Mode } from '../../src/daemon/launch/run-options.ts'
import { PylonNode } from '../../src/daemon/node.ts'
import { Shutdown } from '../../src/daemon/shutdown.ts'
import type { Host } from '../../src/host/host.ts'
import type { Identity } from '../../src/nostr/keys/identity.ts'
import { HomeKeyring } from '../../src/nostr/keys/keyring.ts'
import { secretOfAccount, seedOfWords } from '../../src/nostr/keys/mnemonic.ts'
import { createSigner } from '../../src/nostr/keys/signer.ts'
import { npubOf } from '../../src/nostr/nips/nip19.ts'
import { SandboxDatabase } from '../../src/sandbox/database.ts'
import { Faults } from '../../src/sandbox/faults.ts'
import { Lnurl } from '../../src/sandbox/lnurl/lnurl.ts'
import { Mint } from '../../src/sandbox/mint/mint.ts'
import type { NostrEvent } from '../../src/sandbox/nostr-event.ts'
import { Relay } from '../../src/sandbox/relay/relay.ts'
import type { OwnWallets } from '../../src/wallet/wallets.ts'
import { openStore } from '../support/store.ts'
import { VirtualClock } from './clock.ts'
import { Copycat } from './copycat.ts'
import { type Kill, Life, loggerOf } from './life.ts'
import { LightningWallet } from './lightning-wallet.ts'
import { MintMoods, mintHost } from './mint-host.ts'
import { Network, type Host as NetworkHost } from './network.ts'
import { LNURL, MINTS, RELAYS, SHOP } from './places.ts'
import { quickCrypto } from './quick-crypto.ts'
import { relayHost } from './relay-host.ts'
import type { Schedule } from './schedule.ts'
import { Shop } from './shop.ts'
import { Substrate } from './substrate.ts'
import type { WatchedCrypto } from './web-crypto.ts'

/** One mint with what is wrong with it. */
export interface SimulatedMint {
  readonly url: string
  readonly mint: Mint
  readonly database: SandboxDatabase
  readonly faults: Faults
  readonly moods: MintMoods
}

export class World {
  readonly clock: VirtualClock
  readonly network: Network
  readonly mints: readonly SimulatedMint[]
  /** Of all nodes, in order. */
  readonly log: string[] = []
  readonly nodes: SimulatedNode[] = []
  /** Of running work that nobody waits for. */
  readonly failures: string[] = []
  /** Of the nodes. */
  readonly chance: Random
  readonly #dir: string
  readonly #relays: Relay[] = []
  /** Of the provider's owner. */
  readonly wallet: LightningWallet | undefined
  readonly shop = new Shop()
  /** Of nutzaps. */
  readonly copycat: Copycat
  /** Where the machines of the provider run. */
  readonly substrate: Substrate | undefined

  /**
   * @param dir of its own, for the databases of nodes
   * @param schedule who is there beside the nodes
   */
  constructor(
    seed: number,
    dir: string,
    schedule: Pick<Schedule, 'mints' | 'isFree' | 'hasWallet' | 'hasMachines'>,
    webCrypto: WatchedCrypto,
  ) {
    this.clock = new VirtualClock(undefined, () => webCrypto.pending())
    const random = seededRandom(seed + 2 ** 30)
    this.chance = seededRandom(seed + 2 ** 31)
    this.#dir = dir
    const { clock } = this
    this.network = new Network(clock, random)
    const common = { clock, random, logger: silentLogger }
    this.mints = MINTS.slice(0, schedule.mints).map((url) => {
      const [database, faults, moods] = [new SandboxDatabase(':memory:', random), new Faults(), new MintMoods()]
      const mint = new Mint(database, clock, () => faults.takeHeldMelt())
      if (schedule.isFree) mint.rotateKeyset(0)
      this.network.serve(url, mintHost({ mint, database, clock, url, moods }))
      return { url, mint, database, faults, moods }
    })
    if (schedule.mints > 1 || schedule.hasWallet) for (const from of this.mints) this.#connectLightning(from)
    const { mint, database } = this.mints[0] as SimulatedMint
    for (const origin of RELAYS) {
      const relay = new Relay({
        ...{ ...common, databasePath: ':memory:', faults: new Faults(), authForDms: false },
        isOwnUrl: (named) => URL.parse(named)?.origin === wsOf(origin),
      })
      this.#relays.push(relay)
      this.network.serve(origin, relayHost(relay))
    }
    const lnurl = new Lnurl({
      ...{ ...common, database, mint, url: () => LNURL, ownRelay: wsOf(RELAYS[0]) },
      publish: (event) => this.#publish(wsOf(RELAYS[0]), event),
      deliver: (url, event) => this.#publish(url, event),
    })
    lnurl.start()
    this.network.serve(LNURL, lnurlHost(lnurl))
    this.network.serve(SHOP, this.shop)
    this.copycat = new Copycat(this, seed, () => this.nodes.slice(1).map(({ identity }) => identity.pubkey))
    if (schedule.hasWallet) this.wallet = new LightningWallet(this, seed)
    if (schedule.hasMachines) this.substrate = new Substrate(clock, seededRandom(seed + 2 ** 27))
  }

  /** Invoices of the other mints are paid some seconds later; one that was released meanwhile is not. */
  #connectLightning({ mint, database }: SimulatedMint): void {
    const isHeld = (quoteId: string) => database.sql('SELECT 1 FROM held_melts WHERE quote_id = ?').get(quoteId) !== undefined
    mint.lightning = {
      peers: ['whoever made the invoice'],
      send: ({ quoteId, request }) => {
        this.clock.after(this.network.latencyMs(), () => {
          if (isHeld(quoteId)) mint.endMelt(quoteId, this.payInvoice(request))
        })
      },
    }
  }

  /** With play money, whoever made it. @returns the preimage; undefined where it can not be paid */
  payInvoice(request: string): string | undefined {
    const at = this.mints.find(({ mint }) => mint.invoice(request) !== undefined)
    if (at === undefined) return this.wallet?.receive(request)
    try {
      return at.mint.payFromNowhere(request).preimage
    } catch {
      // Paid by another, or too late.
      return undefined
    }
  }

  /** As a client at each relay whose connection is never bad. @returns sends a frame to all of them */
  visitRelays(hear: (frame: string) => void): (frame: string) => void {
    const connections = this.#relays.map((relay) => relay.connect({ send: hear, cut: () => undefined }))
    return (frame) => {
      for (const connection of connections) connection.receive(frame)
    }
  }

  /** To the relay itself: receipts of zaps know no weather. */
  async #publish(url: string, event: NostrEvent): Promise<void> {
    await this.#relays[RELAYS.findIndex((origin) => wsOf(origin) === url.replace(/\/$/, ''))]?.publishOwn(event)
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
    for (const { database } of this.mints) database.close()
  }
}

export interface NodeOptions {
  readonly name: string
  readonly dir: string
  readonly words: string
  readonly mode: Mode
  /** Whether sales are paid into the Lightning wallet. */
  readonly receiveBy: Config['wallet']['receive_by']
  /** What it rents out. */
  readonly substrate?: Substrate | undefined
}

/** A node that can be killed at any moment and opened again on the same database. */
export class SimulatedNode {
  readonly name: string
  readonly identity: Identity
  readonly #world: World
  readonly #options: NodeOptions
  readonly #ends: (() => void)[] = []
  #running:
    | { readonly node: PylonNode; readonly process: Life; readonly death: PromiseWithResolvers<undefined>; isStarted: boolean }
    | undefined
  /** Starts of it, each in a folder of its own. */
  #lives = 0

  constructor(world: World, options: NodeOptions) {
    this.#world = world
    this.#options = options
    this.name = options.name
    const { pubkey } = createSigner(secretOfAccount(seedOfWords(options.words), 0))
    const created = rfc3339(world.clock.now())
    this.identity = { version: 1, pubkey, npub: npubOf(pubkey), created_at: created, protection: null, secret: options.words }
  }

  /** All its parts run. */
  get isUp(): boolean {
    return this.#running?.isStarted === true
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

  get host(): Host {
    return this.node.parts.host.get()
  }

  /** What the work gives; undefined where the process dies first. */
  unlessKilled<T>(work: () => Promise<T>): Promise<T | undefined> {
    const death = this.#running?.death.promise
    return death === undefined ? Promise.resolve(undefined) : Promise.race([work(), death])
  }

  async start(): Promise<void> {
    const { name, words, mode, receiveBy, substrate } = this.#options
    const dir = this.#nextDir()
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
      config: {
        ...CONFIG,
        wallet: { ...CONFIG.wallet, receive_by: receiveBy },
        runtimes: substrate === undefined ? CONFIG.runtimes : RENTING,
      },
      ...(substrate === undefined ? {} : { adapters: () => [substrate.adapterOf(process)] }),
      store,
      clock: process,
      logger,
      identity: this.identity,
      keyring,
      dialer: this.#world.network.dialerOf(process),
      surroundings: {
        relays: RELAYS.map(wsOf),
        mints: this.#world.mints.map(({ url }) => url),
        sandbox: { urls: { relayUrl: wsOf(RELAYS[0]), mintUrl: MINTS[0], lnurlBaseUrl: LNURL }, health: () => OK },
      },
      logFile: new LogFile(join(dir, 'log'), false),
      events: new Events(process),
      shutdown: new Shutdown(logger),
      crypto: quickCrypto,
    })
    const running = { node, process, death: Promise.withResolvers<undefined>(), isStarted: false }
    this.#running = running
    // The database of a killed process stays open until the end: closing it would write what was queued.
    this.#ends.push(() => store.close())
    await node.startParts()
    running.isStarted = true
  }

  /**
   * A new folder with what a disk would have after a loss of power: the database and its log as they are, and behind the last
   * commit what of the next one was on its way.
   */
  #nextDir(): string {
    const before = join(this.#options.dir, String(this.#lives))
    const dir = join(this.#options.dir, String(++this.#lives))
    mkdirSync(dir)
    for (const file of ['pylon.db', 'pylon.db-wal']) if (existsSync(join(before, file))) copyFileSync(join(before, file), join(dir, file))
    if (existsSync(join(dir, 'pylon.db-wal'))) appendFileSync(join(dir, 'pylon.db-wal'), this.#world.chance.bytes(TORN_BYTES))
    return dir
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
    this.#running.death.resolve(undefined)
    this.#running = undefined
  }

  end(): void {
    this.kill()
    for (const end of this.#ends) end()
  }
}

/** Of a write to the log that did not reach the disk whole. */
const TORN_BYTES = 5000

const wsOf = (origin: string): string => origin.replace('http', 'ws')

const CONFIG: Config = {
  ...DEFAULT_CONFIG,
  provider: { ...DEFAULT_CONFIG.provider, probe: false, prices: { '5001': { amount_msats: 7000, unit: 'job' } } },
  runtimes: { ...DEFAULT_CONFIG.runtimes, enabled: false },
}

/** At half a sat a second, and impatient with machines that are away. */
const RENTING = runtimesConfig.parse({
  ...{ payment_expiry_s: 60, lease_notice_s: 10, provision_timeout_s: 30, unreachable_after_s: 20 },
  classes: [{ name: 'small', provider: 'workers', protocols: ['pi'], price_msats_per_hour: 1_800_000, min_lease_s: 10 }],
})

function lnurlHost(lnurl: Lnurl): NetworkHost {
  return {
    answer({ method, target, headers, body }) {
      const answer = lnurl.answer({ method, target, authorization: headers['authorization'], body })
      return { status: answer.status, headers: { 'content-type': 'application/json' }, text: JSON.stringify(answer.body) }
    },
    accept: (peer) => {
      peer.cut()
      return { receive: () => undefined, close: () => undefined }
    },
  }
}
