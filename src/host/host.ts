/** The host: spawns agents, keeps them running, and answers the owner's questions about them. */
import { randomInt, randomUUID } from 'node:crypto'
import { sats } from '../base/amounts.ts'
import { isPylonError, messageOf, PylonError } from '../base/errors.ts'
import { npubOf, parsePubkey, parseSecret } from '../nostr/nips/nip19.ts'
import { createSigner } from '../nostr/signer.ts'
import type { Signer } from '../nostr/types.ts'
import {
  type AgentRow,
  findAgent,
  type GoalRow,
  getAgent,
  goalsOf,
  insertAgent,
  listAgents,
  markAgentDeleted,
  patchAgent,
  replaceGoals,
  wasAgent,
} from '../store/agents.ts'
import { finishAction, getAction, getTick, openActions, sweepTicks } from '../store/ticks.ts'
import type { WalletEvent } from '../wallet/types.ts'
import { Publisher } from './actions/publish.ts'
import { isSpend, onPaymentEvent, walletKeyOf } from './actions/spend.ts'
import { Inbox } from './inbox.ts'
import { freshName } from './names.ts'
import { type HostDeps, ownerOf } from './parts.ts'
import { publishProfile } from './profile.ts'
import { followRunway, pauseAgent, resumeAgent } from './runway.ts'
import { Scheduler } from './scheduler.ts'
import { type AgentChange, type GoalSpec, parseGoals, parsePatch, parseSpawn, type SpawnSpec } from './spec.ts'
import { Ticker } from './tick.ts'
import { type AgentDetail, type AgentView, readLog, readMemory, type TickView, viewAgent, viewDetail, viewTick } from './view.ts'

const CHECK_MS = 10_000
const SWEEP_MS = 3_600_000
const SWEEP_LIMIT = 500
const DAY_MS = 86_400_000
/** Wraps come again for three days: what was opened is remembered longer. */
const MIN_KEPT_DAYS = 5
const OBSERVATIONS_KEPT_DAYS = 7
const REGISTER_TIMEOUT_MS = 5000
/** The most that moving everything out of a wallet may leave behind for the mint's input fee. */
const MAX_SWEEP_FEE_SATS = 20n

export interface Host {
  /** Takes up all agents; again after an unlock. Resolves when each is scheduled; addresses and profiles follow on their own. */
  start(): Promise<void>
  /** Stops thinking at once, lets actions end; what is left open goes on at the next start. */
  close(timeoutMs: number): Promise<void>
  status(): { state: 'ok' | 'degraded' | 'off'; reason?: string; agents: AgentView[] }
  /** @throws locked, invalid_request, agent_exists, agent_name_invalid, brain_invalid, script_invalid, identity_invalid */
  spawn(spec: SpawnSpec): Promise<AgentDetail>
  list(): AgentView[]
  /** By name, npub or hex key. @throws agent_not_found */
  get(ref: string): AgentDetail
  /** Ends a pause. @throws agent_not_found */
  resume(ref: string): Promise<AgentDetail>
  /** @throws agent_not_found */
  pause(ref: string): Promise<AgentDetail>
  /** Looks at the agent's wallet now instead of within seconds: after funding it. @throws agent_not_found */
  refresh(ref: string): Promise<AgentDetail>
  /** One tick now; resolves when it has ended. @throws agent_not_found, conflict */
  tick(ref: string): Promise<TickView>
  /** @throws agent_not_found, and as spawn */
  set(ref: string, change: AgentChange): Promise<AgentDetail>
  goals(ref: string): GoalRow[]
  setGoals(ref: string, goals: readonly GoalSpec[]): Promise<GoalRow[]>
  memory(ref: string, options?: { limit?: number }): { type: string; content: string; created_at: string }[]
  /** Newest first. */
  log(ref: string, options?: { limit?: number }): TickView[]
  /** @throws conflict while its wallet holds sats, unless `moveFunds` moves them to the node first */
  delete(ref: string, options?: { moveFunds?: boolean }): Promise<{ name: string; moved_sats: number }>
  /** Everything to go on elsewhere, secrets included: what spawn takes as `import`. @throws locked */
  export(ref: string): AgentBundle
}

export interface AgentBundle {
  readonly version: 1
  readonly pubkey: string
  readonly npub: string
  readonly nsec: string
  /** 128 hex digits, NUT-13. */
  readonly wallet_seed: string | null
  readonly mints: readonly string[]
  readonly name: string
  readonly about: string
  readonly brain: unknown
  readonly relays: readonly string[]
  readonly heartbeat_s: number
  readonly autonomy: AgentRow['autonomy']
  readonly dm_scheme: AgentRow['dmScheme']
  readonly budget: AgentRow['budget']
  readonly allow: readonly string[]
  readonly tick_fee_sats: number
}

export function createHost(deps: HostDeps): Host {
  return new AgentHost(deps)
}

class AgentHost implements Host {
  readonly #deps: HostDeps
  readonly #stop = new AbortController()
  readonly #inbox: Inbox
  readonly #scheduler: Scheduler
  readonly #registering = new Set<string>()
  #phase: 'off' | 'on' | 'closed' = 'off'
  #offReason = 'the host was not started'
  #cancelCheck: (() => void) | undefined
  /** As last seen: only a rise is news. */
  readonly #balances = new Map<string, bigint>()
  #sweptAt = 0
  /** Spawns one after the other, so that names and accounts are given out once. */
  #spawning: Promise<unknown> = Promise.resolve()

  constructor(deps: HostDeps) {
    this.#deps = deps
    const ticker = new Ticker(deps, new Publisher(deps), this.#stop.signal)
    this.#scheduler = new Scheduler(deps, ticker, (pubkey) => this.#follow(pubkey))
    this.#inbox = new Inbox(deps, () => this.#scheduler.wake())
    deps.nostr.onPublished('action:', (key, eventId) => this.#onPublished(key, eventId))
    // A payment of an action that ends late, and anything that may change what an agent holds.
    for (const cause of ['action', 'zap', 'transfer', 'owner', 'tick'] as const)
      deps.wallets.onEvent(cause, (event) => this.#onWalletEvent(event))
  }

  async start(): Promise<void> {
    if (this.#phase !== 'off') return
    const { keyring, store } = this.#deps
    if (keyring.locked) {
      this.#offReason = 'the keys are locked; run: pylon unlock'
      return
    }
    this.#phase = 'on'
    for (const agent of listAgents(store)) if (agent.accountIndex !== null) keyring.account(agent.accountIndex)
    await this.#reconcile()
    for (const agent of listAgents(store)) {
      this.#inbox.watch(agent)
      if (agent.state !== 'spawning') await this.#follow(agent.pubkey)
      this.#inBackground(agent.name, () => this.#introduce(agent.pubkey))
    }
    this.#scheduler.start()
    this.#scheduleCheck()
  }

  async close(timeoutMs: number): Promise<void> {
    if (this.#phase === 'closed') return
    this.#phase = 'closed'
    this.#cancelCheck?.()
    this.#inbox.close()
    this.#stop.abort(new PylonError('shutting_down', 'The host is shutting down.'))
    const late = new Promise<void>((resolve) => {
      const cancel = this.#deps.clock.after(timeoutMs, resolve)
      void this.#scheduler.close().then(() => {
        cancel()
        resolve()
      })
    })
    await late
  }

  status(): { state: 'ok' | 'degraded' | 'off'; reason?: string; agents: AgentView[] } {
    const agents = this.list()
    if (this.#phase !== 'on') {
      const locked = this.#deps.keyring.locked
      return { state: locked ? 'degraded' : 'off', reason: this.#phase === 'closed' ? 'the host is closed' : this.#offReason, agents }
    }
    const failing = listAgents(this.#deps.store).filter((agent) => agent.failures > 0)
    const reasons = failing.map((agent) => `${agent.name}: ${agents.find((view) => view.pubkey === agent.pubkey)?.reason ?? 'failing'}`)
    return reasons.length === 0 ? { state: 'ok', agents } : { state: 'degraded', reason: reasons.join('; '), agents }
  }

  list(): AgentView[] {
    return listAgents(this.#deps.store).map((row) => this.#view(row))
  }

  get(ref: string): AgentDetail {
    return this.#detail(this.#find(ref))
  }

  async spawn(spec: SpawnSpec): Promise<AgentDetail> {
    if (this.#deps.keyring.locked) throw new PylonError('locked', 'The keys are locked; run: pylon unlock.')
    const turn = this.#spawning.then(() => this.#insert(spec))
    this.#spawning = turn.catch(() => undefined)
    const pubkey = await turn
    await this.#introduce(pubkey)
    this.#inbox.watch(this.#byPubkey(pubkey))
    this.#scheduler.wake()
    return this.#detail(this.#byPubkey(pubkey))
  }

  async #insert(spec: SpawnSpec): Promise<string> {
    const { store, clock, config } = this.#deps
    const parsed = parseSpawn(spec, config())
    const taken = new Set(listAgents(store).map((agent) => agent.name))
    const name = parsed.name ?? freshName(taken, randomInt(1000))
    if (taken.has(name)) throw new PylonError('agent_exists', `There is an agent named ${name} already; choose another --name.`)
    const { signer, accountIndex } = await this.#keyFor(parsed.import)
    const agent = { ...parsed.agent, pubkey: signer.pubkey, npub: npubOf(signer.pubkey), name, accountIndex }
    await store.write(insertAgent({ agent, at: clock.now() }))
    return signer.pubkey
  }

  async #keyFor(imported: string | undefined): Promise<{ signer: Signer; accountIndex: number | null }> {
    const { keyring, store } = this.#deps
    if (imported === undefined) {
      const accountIndex = keyring.nextAccount()
      return { signer: keyring.account(accountIndex), accountIndex }
    }
    try {
      return { signer: await keyring.importKey(imported), accountIndex: null }
    } catch (error) {
      if (!isPylonError(error, 'agent_exists')) throw error
      // The key is here: an import that a crash cut short before there was an agent is completed.
      const pubkey = createSigner(parseSecret(nsecIn(imported))).pubkey
      const isOurs = pubkey === keyring.node().pubkey || pubkey === keyring.customer().pubkey
      if (isOurs || wasAgent(store, pubkey)) throw error
      return { signer: keyring.signer(pubkey), accountIndex: null }
    }
  }

  async resume(ref: string): Promise<AgentDetail> {
    const agent = this.#find(ref)
    await resumeAgent(this.#deps, agent)
    this.#scheduler.wake()
    return this.#detail(this.#byPubkey(agent.pubkey))
  }

  async pause(ref: string): Promise<AgentDetail> {
    const agent = this.#find(ref)
    await pauseAgent(this.#deps, agent)
    this.#scheduler.wake()
    return this.#detail(this.#byPubkey(agent.pubkey))
  }

  async refresh(ref: string): Promise<AgentDetail> {
    const agent = this.#find(ref)
    if (this.#phase === 'on') await this.#lookAtWallet(agent.pubkey)
    return this.#detail(this.#byPubkey(agent.pubkey))
  }

  async tick(ref: string): Promise<TickView> {
    const agent = this.#find(ref)
    await this.#follow(agent.pubkey)
    const id = await this.#scheduler.tickNow(agent.pubkey)
    const tick = getTick(this.#deps.store, id)
    if (tick === undefined) throw new PylonError('internal', 'The tick is gone.')
    return viewTick(this.#deps.store, tick)
  }

  async set(ref: string, change: AgentChange): Promise<AgentDetail> {
    const agent = this.#find(ref)
    const patch = parsePatch(change, agent)
    // A new rhythm counts from now; a new brain is not made to wait for the failures of the old one.
    const beat = patch.heartbeatS !== undefined && agent.nextTickAt !== null && agent.tickCount > 0
    const nextTickAt = beat ? { nextTickAt: this.#deps.clock.now() + (patch.heartbeatS ?? 0) * 1000 } : {}
    const forgiven = patch.brain === undefined ? {} : { failures: 0, retryAt: null }
    await this.#deps.store.write(patchAgent({ pubkey: agent.pubkey, patch: { ...patch, ...nextTickAt, ...forgiven } }))
    const changed = this.#byPubkey(agent.pubkey)
    if (this.#phase === 'on') {
      if (patch.relays !== undefined) this.#inbox.watch(changed)
      await publishProfile(this.#deps, changed)
      await this.#follow(agent.pubkey)
      this.#scheduler.wake()
    }
    return this.#detail(this.#byPubkey(agent.pubkey))
  }

  goals(ref: string): GoalRow[] {
    return goalsOf(this.#deps.store, this.#find(ref).pubkey)
  }

  async setGoals(ref: string, goals: readonly GoalSpec[]): Promise<GoalRow[]> {
    const agent = this.#find(ref)
    const rows = parseGoals(goals).map((goal) => ({ id: randomUUID(), ...goal }))
    await this.#deps.store.write(replaceGoals({ agentPubkey: agent.pubkey, goals: rows, at: this.#deps.clock.now() }))
    return goalsOf(this.#deps.store, agent.pubkey)
  }

  memory(ref: string, options: { limit?: number } = {}): { type: string; content: string; created_at: string }[] {
    return readMemory(this.#deps.store, this.#find(ref).pubkey, options.limit ?? 50)
  }

  log(ref: string, options: { limit?: number } = {}): TickView[] {
    return readLog(this.#deps.store, this.#find(ref).pubkey, options.limit ?? 20)
  }

  async delete(ref: string, options: { moveFunds?: boolean } = {}): Promise<{ name: string; moved_sats: number }> {
    const agent = this.#find(ref)
    const { store, wallets, clock } = this.#deps
    const wallet = wallets.of(ownerOf(agent))
    const { balanceSats, atRiskSats } = wallet.balance()
    if (atRiskSats > 0n) {
      throw new PylonError(
        'conflict',
        `${agent.name} has ${atRiskSats} sats in payments of unknown outcome; delete it when they are settled.`,
      )
    }
    if (balanceSats > 0n && options.moveFunds !== true) {
      throw new PylonError(
        'conflict',
        `The wallet of ${agent.name} holds ${balanceSats} sats; move them to the node first, or let delete do it.`,
      )
    }
    await pauseAgent(this.#deps, agent)
    await this.#scheduler.idle(agent.pubkey)
    const moved = await this.#moveAll(agent)
    this.#inbox.unwatch(agent.pubkey)
    await store.write(markAgentDeleted({ pubkey: agent.pubkey, at: clock.now() }))
    return { name: agent.name, moved_sats: Number(moved) }
  }

  /** Mint by mint: the input fee comes off what is moved; it is not known beforehand, so less is tried until it fits. */
  async #moveAll(agent: AgentRow): Promise<bigint> {
    const { wallets, keyring } = this.#deps
    const node = { kind: 'node', pubkey: keyring.node().pubkey } as const
    const wallet = wallets.of(ownerOf(agent))
    let moved = 0n
    for (let round = 0; round <= wallets.mints().length; round++) {
      const { balanceSats, mints } = wallet.balance()
      const most = mints.map((mint) => mint.balanceSats).sort((a, b) => (a < b ? 1 : -1))[0] ?? balanceSats
      for (let fee = 0n; fee < most && fee <= MAX_SWEEP_FEE_SATS; fee++) {
        const amount = sats(most - fee)
        try {
          await wallets.transfer(ownerOf(agent), node, amount, `agent:${agent.pubkey}:leave:${randomUUID()}`)
          moved += amount
          break
        } catch (error) {
          if (!isPylonError(error, 'insufficient_funds')) throw error
        }
      }
    }
    return moved
  }

  export(ref: string): AgentBundle {
    const agent = this.#find(ref)
    const { pubkey, nsec, wallet_seed } = this.#deps.keyring.exportKey(agent.pubkey)
    const mints = this.#deps.wallets
      .of(ownerOf(agent))
      .balance()
      .mints.map((mint) => mint.url)
    return {
      version: 1,
      pubkey,
      npub: agent.npub,
      nsec,
      wallet_seed,
      mints,
      name: agent.name,
      about: agent.about,
      brain: agent.brain,
      relays: agent.relays,
      heartbeat_s: agent.heartbeatS,
      autonomy: agent.autonomy,
      dm_scheme: agent.dmScheme,
      budget: agent.budget,
      allow: agent.allow,
      tick_fee_sats: agent.tickFeeSats,
    }
  }

  #find(ref: string): AgentRow {
    const found = findAgent(this.#deps.store, ref) ?? findAgent(this.#deps.store, hexOf(ref))
    if (found === undefined)
      throw new PylonError('agent_not_found', `There is no agent ${JSON.stringify(ref.slice(0, 80))}; run: pylon agent list.`)
    return found
  }

  #byPubkey(pubkey: string): AgentRow {
    return this.#find(pubkey)
  }

  #view(row: AgentRow): AgentView {
    const { store, wallets, keyring } = this.#deps
    if (keyring.locked) return viewAgent(store, row)
    const balanceSats = wallets.of(ownerOf(row)).balance().balanceSats
    return viewAgent(store, row, { balanceSats, nextTickAt: this.#scheduler.dueOf(row)?.at })
  }

  #detail(row: AgentRow): AgentDetail {
    return viewDetail(this.#deps.store, row, this.#view(row), this.#deps.nostr.relays)
  }

  /** Address, profile and state: what makes a spawned agent a citizen. Each step may be repeated. */
  async #introduce(pubkey: string): Promise<void> {
    await this.#register(pubkey)
    const agent = getAgent(this.#deps.store, pubkey)
    if (agent === undefined || this.#phase === 'closed') return
    await publishProfile(this.#deps, agent)
    await this.#follow(pubkey)
  }

  /** Gets the agent its zap address; where that fails or takes long it is tried again later. */
  async #register(pubkey: string): Promise<void> {
    const { zapAddresses, store, clock, logger } = this.#deps
    const agent = getAgent(store, pubkey)
    if (zapAddresses === undefined || agent === undefined || this.#registering.has(pubkey)) return
    this.#registering.add(pubkey)
    const registration = zapAddresses.register(ownerOf(agent), agent.name).then(
      async ({ lnurl }) => {
        if (lnurl !== agent.lud06) await store.write(patchAgent({ pubkey, patch: { lud06: lnurl } }))
      },
      (error: unknown) => {
        this.#registering.delete(pubkey)
        logger.warn({ agent: agent.name, error: messageOf(error) }, 'the agent has no zap address yet')
      },
    )
    const patience = new AbortController()
    const late = clock.sleep(REGISTER_TIMEOUT_MS, patience.signal).catch(() => undefined)
    await Promise.race([registration, late])
    patience.abort()
  }

  async #follow(pubkey: string): Promise<void> {
    if (this.#phase === 'closed' || this.#deps.keyring.locked) return
    if (!this.#balances.has(pubkey)) this.#balances.set(pubkey, this.#deps.wallets.of({ kind: 'agent', pubkey }).balance().balanceSats)
    if (await followRunway(this.#deps, pubkey)) this.#scheduler.wake()
  }

  async #onPublished(key: string, eventId: string): Promise<void> {
    const [, id = '', copy] = key.split(':')
    if (copy !== undefined) return
    await this.#deps.store.write(finishAction({ id, state: 'published', reason: null, eventId, at: this.#deps.clock.now() }))
  }

  async #onWalletEvent(event: WalletEvent): Promise<void> {
    const { store } = this.#deps
    if (event.owner.kind !== 'agent') return
    const action = event.cause.type === 'action' ? getAction(store, event.cause.id) : undefined
    if (action !== undefined && isSpend(action.type)) await onPaymentEvent(this.#deps, action, event)
    // A zap wakes by its receipt.
    if (this.#phase === 'on') await this.#lookAtWallet(event.owner.pubkey, event.cause.type !== 'zap')
  }

  /** Follows a balance that may have changed; what a hibernating agent was given wakes it for one tick. */
  async #lookAtWallet(pubkey: string, wakes = true): Promise<void> {
    const { store, clock, wallets } = this.#deps
    const balance = wallets.of({ kind: 'agent', pubkey }).balance().balanceSats
    const before = this.#balances.get(pubkey)
    this.#balances.set(pubkey, balance)
    await this.#follow(pubkey)
    const agent = getAgent(store, pubkey)
    const isFunded = wakes && before !== undefined && balance > before
    if (isFunded && agent?.state === 'hibernating' && agent.nextTickAt === null) {
      await store.write(patchAgent({ pubkey, patch: { nextTickAt: clock.now() } }))
      this.#scheduler.wake()
    }
  }

  /** Spends that were taken up in a tick that has ended: the wallet knows how they went. */
  async #reconcile(): Promise<void> {
    const { store, wallets, clock } = this.#deps
    for (const action of openActions(store)) {
      const tick = getTick(store, action.tickId)
      if (!isSpend(action.type) || tick === undefined || tick.state === 'acting') continue
      const owner = { kind: 'agent', pubkey: action.agentPubkey } as const
      const payment = wallets.of(owner).payment(walletKeyOf(action))
      const cause = { type: 'action', id: action.id } as const
      const idempotencyKey = walletKeyOf(action)
      if (payment?.state === 'paid')
        await onPaymentEvent(this.#deps, action, { type: 'payment_settled', cause, owner, idempotencyKey, feeSats: payment.feeSats })
      else if (payment === undefined || payment.state === 'failed') {
        await store.write(finishAction({ id: action.id, state: 'failed', reason: payment?.reason ?? 'nothing was spent', at: clock.now() }))
      }
    }
  }

  #scheduleCheck(): void {
    this.#cancelCheck = this.#deps.clock.after(CHECK_MS, () => {
      this.#inBackground('check', async () => {
        try {
          await this.#check()
        } finally {
          if (this.#phase === 'on') this.#scheduleCheck()
        }
      })
    })
  }

  /** What no event tells: a balance that changed, an address still missing, publishing that nobody took, old rows. */
  async #check(): Promise<void> {
    const { store, clock, config } = this.#deps
    for (const agent of listAgents(store)) {
      await this.#lookAtWallet(agent.pubkey)
      if (agent.lud06 === null || agent.profileDigest === null) await this.#introduce(agent.pubkey)
    }
    const now = clock.now()
    if (now - this.#sweptAt < SWEEP_MS) return
    this.#sweptAt = now
    for (const action of openActions(store)) {
      if (isSpend(action.type) || now - action.updatedAt < 4 * DAY_MS) continue
      await store.write(finishAction({ id: action.id, state: 'failed', reason: 'no relay took it in time', at: now }))
    }
    const before = now - Math.max(config().retention.ticks_days, MIN_KEPT_DAYS) * DAY_MS
    await store.write(sweepTicks({ before, observedBefore: now - OBSERVATIONS_KEPT_DAYS * DAY_MS, limit: SWEEP_LIMIT }))
  }

  #inBackground(what: string, work: () => Promise<void>): void {
    work().catch((error: unknown) => {
      if (this.#phase === 'on')
        this.#deps.logger.warn({ what, error: messageOf(error) }, 'the host could not finish something; it tries again')
    })
  }
}

function hexOf(ref: string): string {
  try {
    return parsePubkey(ref)
  } catch {
    return ref
  }
}

/** The nsec of what was given as import: the text itself, or that of a bundle, whose shape was checked before. */
function nsecIn(imported: string): string {
  if (!imported.trimStart().startsWith('{')) return imported
  return String((JSON.parse(imported) as { nsec?: unknown }).nsec)
}
