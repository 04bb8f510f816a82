/** A running node: its parts, and what the owner may ask of the whole. */
import type { Clock } from '../base/clock.ts'
import { type Config, loadConfig } from '../base/config.ts'
import type { Dialer } from '../base/dialer.ts'
import { isPylonError, messageOf, PylonError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Home } from '../base/paths.ts'
import type { RunningWork, Scope } from '../base/scope.ts'
import { allowRelays } from '../host/parts.ts'
import { type Identity, isProtected, unlockIdentity } from '../nostr/keys/identity.ts'
import type { HomeKeyring } from '../nostr/keys/keyring.ts'
import { listAgents } from '../store/agents/agents.ts'
import { mintNow } from '../store/money/mint-moves.ts'
import { putSetting } from '../store/settings.ts'
import type { Store } from '../store/store.ts'
import { auditConfig } from './config-audit.ts'
import type { Events } from './events.ts'
import { LATE_WORK_KEY } from './health.ts'
import type { LogFile } from './home/log-file.ts'
import type { DaemonOptions, Mode } from './launch/run-options.ts'
import type { Successor } from './launch/successor.ts'
import { RuntimeCalls } from './machines/runtime-calls.ts'
import type { Surroundings } from './network.ts'
import { NodeParts, type PartsDeps } from './parts.ts'
import type { Services } from './services.ts'
import type { Shutdown } from './shutdown.ts'

export interface NodeDeps
  extends Pick<PartsDeps, 'scope' | 'store' | 'clock' | 'logger' | 'keyring' | 'dialer' | 'surroundings' | 'crypto' | 'adapters'> {
  readonly options: DaemonOptions
  readonly config: Config
  readonly identity: Identity
  readonly logFile: LogFile
  readonly events: Events
  readonly shutdown: Shutdown
}

/** Parts that start by asking others (mints, relays) hold the readiness up no longer than this. */
const START_WAIT_MS = 2000
/** Within the ten seconds that `pylon stop` gives by default. */
const DRAIN_MS = 7000
/** What runs under the node's own scope asks others, and can be asked again. */
const SCOPE_DRAIN_MS = 1000
const ASK_MINTS_AGAIN = { minMs: 5000, maxMs: 10 * 60_000 }
const ADD_MINT_AGAIN = { minMs: 1000, maxMs: 60_000 }

const MAX_LATE = 50

/** Keys whose change shows only after a restart. */
const AFTER_RESTART = ['node.mode', 'node.relays', 'node.index_relays', 'runtimes.enabled'] as const

export class PylonNode implements Services {
  readonly startedAt: number
  readonly home: Home
  readonly network: 'sandbox' | 'live'
  readonly mode: Mode
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly dialer: Dialer
  readonly identity: Identity
  readonly keyring: HomeKeyring
  readonly surroundings: Surroundings
  readonly events: Events
  readonly parts: NodeParts
  readonly runtimeCalls: RuntimeCalls
  /** How long running work may go on once the end has begun. */
  drainMs = DRAIN_MS
  /** Set when the end is a restart. */
  successor: Successor | undefined
  readonly #deps: NodeDeps
  /** Owns what runs in the parts and at their start. */
  readonly #scope: Scope
  /** Of the start, which may still be under way when the end begins. */
  readonly #start: Scope
  #config: Config
  #starting: Promise<void> | undefined

  constructor(deps: NodeDeps) {
    this.#deps = deps
    const { options, clock, logger } = deps
    this.home = options.home
    this.network = options.network
    this.mode = options.run.mode ?? deps.config.node.mode
    this.store = deps.store
    this.clock = clock
    this.logger = logger
    this.dialer = deps.dialer
    this.identity = deps.identity
    this.keyring = deps.keyring
    this.surroundings = deps.surroundings
    this.events = deps.events
    this.startedAt = clock.now()
    this.#config = deps.config
    this.#scope = deps.scope.child('parts')
    this.#start = this.#scope.child('start')
    this.runtimeCalls = new RuntimeCalls(this.#scope)
    this.parts = new NodeParts({ ...deps, ...options, scope: this.#scope, mode: this.mode, config: () => this.#config })
  }

  config(): Config {
    return this.#config
  }

  /** What runs now, the oldest first. */
  running(): RunningWork[] {
    return this.#deps.scope.running()
  }

  get scope(): Scope {
    return this.#scope
  }

  /** Builds and starts what needs the keys; resolves when that runs, or after a short while when others are slow to answer. */
  async startParts(): Promise<void> {
    if (this.#deps.shutdown.signal.aborted) throw new PylonError('shutting_down', 'The node is ending: start it again first.')
    this.#starting ??= this.#start.run('parts', () => this.#startParts())
    await this.#starting
  }

  /** @throws passphrase_wrong */
  async unlock(passphrase: string): Promise<void> {
    // Opened already: then what that started is waited for as well.
    if (!this.keyring.locked) return void (await this.#starting)
    this.keyring.unlock(await unlockIdentity(this.identity, passphrase))
    this.events.emit('unlocked')
    await this.startParts()
  }

  /** Reopens the log and reads config.toml. @throws config_invalid; then the old configuration stays. */
  reload(): { applied: string[]; after_restart: string[] } {
    this.#deps.logFile.reopen()
    const before = this.#config
    const after = loadConfig(this.home.config)
    this.#config = after
    this.logger.level = after.node.log_level
    const changed = changedKeys(before, after)
    const late = changed.filter((key) => (AFTER_RESTART as readonly string[]).includes(key))
    this.logger.info({ changed }, 'configuration read again')
    this.#scope.spawn('reload', async () => {
      await this.#auditConfig()
      await this.parts.reload()
    })
    return { applied: changed.filter((key) => !late.includes(key)), after_restart: late }
  }

  reloadBySignal(): void {
    try {
      this.reload()
    } catch (error) {
      this.logger.error({ reason: messageOf(error) }, 'the configuration was not taken; the old one stays')
    }
  }

  /** Drains and ends; with `restart` a successor with the same options follows. @throws conflict in the foreground */
  end(restart?: { mode?: Mode | undefined }, drainMs = DRAIN_MS): void {
    this.drainMs = drainMs
    if (restart !== undefined) {
      if (!this.#deps.options.isDetached) {
        throw new PylonError('conflict', 'This node runs in the foreground: restart it where it was started (its terminal or supervisor).')
      }
      const run = this.#deps.options.run
      const words = isProtected(this.identity) && !this.keyring.locked ? this.keyring.words() : undefined
      this.successor = { run: restart.mode === undefined ? run : { ...run, mode: restart.mode }, words }
    }
    // After the answer to the caller has left.
    setImmediate(() => this.#deps.shutdown.request(restart === undefined ? 'asked over the socket' : 'restart'))
  }

  async #startParts(): Promise<void> {
    const { parts, logger } = this
    await this.#auditConfig()
    parts.build()
    // Before the outbox goes on: what an agent left for a relay of its own is not refused.
    for (const agent of listAgents(this.store)) allowRelays(this, agent)
    await parts.nostr.start(logger)
    // Before anything can spend: what a restored database holds may be long gone.
    await this.#askMintsAfterRestore()
    if (this.#deps.shutdown.signal.aborted) return
    await this.#start.patience(
      START_WAIT_MS,
      this.#scope.run('start of parts', () => parts.startOthers()),
    )
    if (this.#start.isClosing) return
    for (const url of this.surroundings.mints) this.#scope.spawn(`mint ${url}`, () => this.#addMint(url))
  }

  /** A disk that is full must not keep a node from starting: it is logged then at the next reload or start. */
  async #auditConfig(): Promise<void> {
    try {
      await auditConfig(this.store, this.#config, this.clock.now())
    } catch (error) {
      this.logger.warn({ reason: messageOf(error) }, 'changes of the configuration could not be put in the audit log yet')
    }
  }

  /** No new work; what runs finishes or is parked within the drain time, then the parts close. */
  async close(): Promise<void> {
    // An unlock may have come just before: nothing is started after its end.
    const late = await this.#start.close(SCOPE_DRAIN_MS)
    late.push(...(await this.parts.close(this.drainMs)), ...(await this.#scope.close(SCOPE_DRAIN_MS)))
    const paths = late.map(({ path }) => path)
    for (const path of paths) this.logger.warn({ path }, 'running work did not end in time')
    try {
      await this.store.write(putSetting({ key: LATE_WORK_KEY, value: paths.slice(0, MAX_LATE), at: this.clock.now() }))
    } catch (error) {
      this.logger.warn({ reason: messageOf(error) }, 'what was late could not be noted')
    }
  }

  /**
   * A restored database is older than the mints: every wallet asks them for what it made since, before its counters are used again.
   * Resolves after the first try, which goes on by itself until every mint has answered.
   */
  async #askMintsAfterRestore(): Promise<void> {
    const askOnce = async () => {
      try {
        return await this.parts.wallets.get().askAfterRestore()
      } catch (error) {
        this.logger.warn({ reason: messageOf(error) }, 'the mints could not be asked after the restore yet')
        return false
      }
    }
    if (await askOnce()) return
    const again = this.#scope.backoff(ASK_MINTS_AGAIN)
    this.#scope.spawn('questions after a restore', async () => {
      do await again.wait()
      while (!(await askOnce()))
    })
  }

  /** A mint named at start goes on the list as soon as it answers. */
  async #addMint(url: string): Promise<void> {
    const again = this.#scope.backoff(ADD_MINT_AGAIN)
    while (!this.#scope.isClosing) {
      try {
        const wallets = this.parts.wallets.peek()
        if (wallets === undefined || wallets.mints().some((mint) => mint.url === url) || mintNow(this.store, url) !== undefined) return
        await wallets.addMint(url)
        return
      } catch (error) {
        if (isPylonError(error, 'mint_moved')) {
          this.logger.warn({ mint: url, reason: error.message }, 'the mint named at start is on the list under another address')
          return
        }
        const retryMs = again.nextMs()
        this.logger.warn({ mint: url, reason: messageOf(error), retry_ms: retryMs }, 'the mint could not be added yet')
        await this.#scope.sleep(retryMs)
      }
    }
  }
}

/** Dotted keys of two levels that differ. */
function changedKeys(before: Config, after: Config): string[] {
  const old: Record<string, Record<string, unknown>> = before
  return Object.entries(after).flatMap(([section, table]) =>
    Object.entries(table)
      .filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(old[section]?.[key]))
      .map(([key]) => `${section}.${key}`),
  )
}
