/** The host: spawns agents, keeps them running, and answers the owner's questions about them. */
import type { Sats } from '../base/amounts.ts'
import { PylonError } from '../base/errors.ts'
import { KeyedQueue } from '../base/keyed-queue.ts'
import { randomBelow, randomUuid } from '../base/random.ts'
import type { Scope } from '../base/scope.ts'
import { npubOf, parsePubkey } from '../nostr/nips/nip19.ts'
import { SelfPublisher } from '../nostr/self/self.ts'
import type { SessionMessage } from '../session/types.ts'
import { type AgentRow, findAgent, getAgent, insertAgent, listAgents, markAgentDeleted, patchAgent } from '../store/agents/agents.ts'
import { type GoalRow, goalsOf, replaceGoals } from '../store/agents/goals.ts'
import { getTick } from '../store/agents/ticks.ts'
import { Publisher } from './actions/publish.ts'
import { AgentSessions } from './agent-sessions.ts'
import { Approvals } from './approvals.ts'
import { Errands, type ErrandView } from './errands.ts'
import { Inbox } from './inbox.ts'
import { bundleOf, keyFor, remoteKeyFor } from './keys.ts'
import { moveFundsToNode } from './leave.ts'
import { type MessageView, messagesTo } from './messages.ts'
import { freshName } from './names.ts'
import { Overhearing } from './overhear.ts'
import { allowRelays, type HostDeps, ownerOf } from './parts.ts'
import { publishProfile } from './profile.ts'
import { pauseAgent, resumeAgent } from './runway.ts'
import { Scheduler } from './scheduler.ts'
import { type SaidIn, SessionTurns } from './session-turns.ts'
import { type AgentChange, type GoalSpec, parseGoals, parsePatch, parseSpawn, type SpawnSpec } from './spec.ts'
import { Ticker } from './tick.ts'
import { Upkeep } from './upkeep.ts'
import { type AgentDetail, type AgentView, readLog, type TickView, viewAgent, viewDetail, viewTick } from './view.ts'

export class Host {
  readonly #deps: HostDeps
  readonly #thinking: Scope
  readonly #inbox: Inbox
  readonly #overhearing: Overhearing
  readonly #sessions: AgentSessions
  readonly #scheduler: Scheduler
  readonly #errands: Errands
  /** What waits for the owner. */
  readonly approvals: Approvals
  readonly #ticker: Ticker
  readonly #turns: SessionTurns
  readonly #self: SelfPublisher
  readonly #upkeep: Upkeep
  #isOn = false
  #offReason = 'the host was not started'
  /** Spawns one after the other, so that names and accounts are given out once. */
  readonly #spawning = new KeyedQueue()

  constructor(deps: HostDeps) {
    this.#deps = deps
    this.#self = new SelfPublisher(deps)
    this.#upkeep = new Upkeep(
      deps,
      this.#self,
      () => this.#scheduler.wake(),
      (actionId) => this.#errands.tell(actionId),
    )
    this.#thinking = deps.scope.child('thinking')
    const sessionsOf = (pubkey: string) => this.#sessions.of(pubkey)
    this.#turns = new SessionTurns(deps, sessionsOf, (agent) => this.#scheduler.dueOf(agent))
    this.#ticker = new Ticker(deps, new Publisher(deps, sessionsOf), this.#thinking, this.#turns)
    this.#scheduler = new Scheduler(deps, this.#ticker, (pubkey) => this.#upkeep.follow(pubkey))
    this.#errands = new Errands(deps, this.#scheduler)
    this.approvals = new Approvals(deps, this.#scheduler, this.#ticker)
    this.#inbox = new Inbox(deps, () => this.#scheduler.wake())
    this.#sessions = new AgentSessions(deps, (...said) => this.#onSaid(...said))
    this.#overhearing = new Overhearing(deps, (pubkey, event) => this.#inbox.receive(pubkey, event))
  }

  /** Takes up all agents; again after an unlock. Resolves when each is scheduled; addresses and profiles follow on their own. */
  async start(): Promise<void> {
    if (this.#isOn || this.#deps.scope.isClosing) return
    const { keyring, store } = this.#deps
    if (keyring.locked) {
      this.#offReason = 'the keys are locked; run: pylon unlock'
      return
    }
    this.#isOn = true
    for (const agent of listAgents(store)) if (agent.accountIndex !== null) keyring.account(agent.accountIndex)
    await this.#upkeep.start()
    for (const agent of listAgents(store)) {
      this.#inbox.watch(agent)
      await this.#sessions.watch(agent)
      if (agent.state !== 'spawning') await this.#upkeep.follow(agent.pubkey)
      this.#upkeep.inBackground(agent.name, () => this.#upkeep.introduce(agent.pubkey))
    }
    this.#overhearing.start()
    this.#scheduler.start()
    this.approvals.start()
  }

  /** Stops thinking at once, lets actions end; what is left open goes on at the next start. */
  async close(drainMs: number): Promise<void> {
    this.#inbox.close()
    await Promise.all([this.#thinking.close(), this.#deps.scope.close(drainMs)])
  }

  status(): { state: 'ok' | 'degraded' | 'off'; reason?: string; agents: AgentView[] } {
    const agents = this.list()
    const { keyring, scope } = this.#deps
    if (!this.#isOn || scope.isClosing) {
      return { state: keyring.locked ? 'degraded' : 'off', reason: scope.isClosing ? 'the host is closed' : this.#offReason, agents }
    }
    const failing = listAgents(this.#deps.store).filter((agent) => agent.failures > 0)
    const reasons = failing.map((agent) => `${agent.name}: ${agents.find((view) => view.pubkey === agent.pubkey)?.reason ?? 'failing'}`)
    return reasons.length === 0 ? { state: 'ok', agents } : { state: 'degraded', reason: reasons.join('; '), agents }
  }

  list(): AgentView[] {
    return listAgents(this.#deps.store).map((row) => this.#view(row))
  }

  /** By name, npub or hex key. @throws agent_not_found */
  get(ref: string): AgentDetail {
    return this.#detail(this.#find(ref))
  }

  /** @throws locked, invalid_request, agent_exists, agent_name_invalid, brain_invalid, script_invalid, identity_invalid */
  async spawn(spec: SpawnSpec): Promise<AgentDetail> {
    if (this.#deps.keyring.locked) throw new PylonError('locked', 'The keys are locked; run: pylon unlock.')
    const pubkey = await this.#spawning.run('spawn', () => this.#insert(spec))
    await this.#upkeep.introduce(pubkey)
    if (spec.import?.trimStart().startsWith('{') === true) {
      // The bundle brought the wallet's seed: what it holds at our mints is found by it (NUT-09).
      this.#upkeep.inBackground('restore', async () => {
        await this.#deps.wallets.restore({ kind: 'agent', pubkey })
      })
    }
    this.#inbox.watch(this.#byPubkey(pubkey))
    await this.#sessions.watch(this.#byPubkey(pubkey))
    this.#scheduler.wake()
    return this.#detail(this.#byPubkey(pubkey))
  }

  async #insert(spec: SpawnSpec): Promise<string> {
    const { store, clock, config } = this.#deps
    const parsed = parseSpawn(spec, config())
    const taken = new Set(listAgents(store).map((agent) => agent.name))
    const name = parsed.name ?? freshName(taken, randomBelow(this.#deps.scope.random, 1000))
    if (taken.has(name)) throw new PylonError('agent_exists', `There is an agent named ${name} already; choose another --name.`)
    const { signer, accountIndex } =
      parsed.bunker === undefined ? await keyFor(this.#deps, parsed.import) : await remoteKeyFor(this.#deps, parsed.bunker)
    const agent = { ...parsed.agent, pubkey: signer.pubkey, npub: npubOf(signer.pubkey), name, accountIndex }
    allowRelays(this.#deps, agent)
    await store.write(insertAgent({ agent, at: clock.now() }))
    return signer.pubkey
  }

  /** Ends a pause. @throws agent_not_found */
  async resume(ref: string): Promise<AgentDetail> {
    const agent = this.#find(ref)
    await resumeAgent(this.#deps, agent)
    this.#scheduler.wake()
    return this.#detail(this.#byPubkey(agent.pubkey))
  }

  /** @throws agent_not_found */
  async pause(ref: string): Promise<AgentDetail> {
    const agent = this.#find(ref)
    await pauseAgent(this.#deps, agent)
    this.#scheduler.wake()
    return this.#detail(this.#byPubkey(agent.pubkey))
  }

  /** One tick now; resolves when it has ended. @throws agent_not_found, conflict */
  async tick(ref: string): Promise<TickView> {
    const agent = this.#find(ref)
    await this.#upkeep.follow(agent.pubkey)
    const id = await this.#scheduler.tickNow(agent.pubkey)
    const tick = getTick(this.#deps.store, id)
    if (tick === undefined) throw new PylonError('internal', 'The tick is gone.')
    return viewTick(this.#deps.store, tick)
  }

  /** One action from outside its ticks, by its policy and within its budget, once for each key. @throws agent_not_found, action_invalid, conflict */
  async act(ref: string, action: unknown, key: string): Promise<ErrandView> {
    return await this.#errands.run(this.#find(ref), action, key)
  }

  /** One action by a tool of its brain, within the tick that thinks. @throws agent_not_found, action_invalid, action_refused, conflict */
  async actInTick(ref: string, action: unknown, key: string): Promise<ErrandView> {
    return await this.#ticker.hands.act(this.#find(ref).pubkey, action, key)
  }

  /** What was said to it, newest first. @throws agent_not_found */
  messages(ref: string, options: { limit?: number } = {}): MessageView[] {
    return messagesTo(this.#deps, this.#find(ref), options.limit ?? 50)
  }

  /** @throws agent_not_found, and as spawn */
  async set(ref: string, change: AgentChange): Promise<AgentDetail> {
    const agent = this.#find(ref)
    const patch = parsePatch(change, agent)
    // A new rhythm counts from now; a new brain is not made to wait for the failures of the old one.
    const beat = patch.heartbeatS !== undefined && agent.nextTickAt !== null && agent.tickCount > 0
    const nextTickAt = beat ? { nextTickAt: this.#deps.clock.now() + (patch.heartbeatS ?? 0) * 1000 } : {}
    const forgiven = patch.brain === undefined ? {} : { failures: 0, retryAt: null }
    allowRelays(this.#deps, { relays: patch.relays ?? [] })
    await this.#deps.store.write(
      patchAgent({ pubkey: agent.pubkey, at: this.#deps.clock.now(), patch: { ...patch, ...nextTickAt, ...forgiven } }),
    )
    const changed = this.#byPubkey(agent.pubkey)
    if (this.#isOn && !this.#deps.scope.isClosing) {
      if (patch.relays !== undefined) {
        this.#inbox.watch(changed)
        await this.#sessions.watch(changed)
      }
      await publishProfile(this.#deps, this.#self, changed)
      await this.#upkeep.follow(agent.pubkey)
      this.#scheduler.wake()
    }
    return this.#detail(this.#byPubkey(agent.pubkey))
  }

  async setGoals(ref: string, goals: readonly GoalSpec[]): Promise<GoalRow[]> {
    const agent = this.#find(ref)
    const rows = parseGoals(goals).map((goal) => ({ id: randomUuid(this.#deps.scope.random), ...goal }))
    await this.#deps.store.write(replaceGoals({ agentPubkey: agent.pubkey, goals: rows, at: this.#deps.clock.now() }))
    return goalsOf(this.#deps.store, agent.pubkey)
  }

  /** Newest first. */
  log(ref: string, options: { limit?: number } = {}): TickView[] {
    return readLog(this.#deps.store, this.#find(ref).pubkey, options.limit ?? 20)
  }

  /** @throws conflict while its wallet holds sats, unless `moveFunds` moves them to the node first */
  async delete(ref: string, options: { moveFunds?: boolean } = {}): Promise<{ name: string; moved_sats: Sats }> {
    const agent = this.#find(ref)
    const { store, wallets, clock } = this.#deps
    const wallet = wallets.of(ownerOf(agent))
    const { balanceSats, atRiskSats } = wallet.balance()
    if (atRiskSats > 0n) {
      throw new PylonError(
        'conflict',
        `${agent.name} has ${atRiskSats} sats whose outcome is not known (pylon wallet invoices, pylon wallet history); delete it when they are settled.`,
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
    const moved = await moveFundsToNode(this.#deps, agent)
    this.#inbox.unwatch(agent.pubkey)
    await this.#sessions.unwatch(agent.pubkey)
    await store.write(markAgentDeleted({ pubkey: agent.pubkey, at: clock.now() }))
    return { name: agent.name, moved_sats: moved }
  }

  /** Everything to go on elsewhere, secrets included: what spawn takes as `import`. @throws locked */
  export(ref: string) {
    return bundleOf(this.#deps, this.#find(ref))
  }

  /** In a session with the agent; the same again does nothing. */
  async #onSaid(pubkey: string, message: SessionMessage, text: string | undefined, where: SaidIn): Promise<void> {
    const agent = getAgent(this.#deps.store, pubkey)
    if (agent === undefined) return
    const heard = { id: message.id, sender: message.sender, scheme: 'mls', event: where } as const
    if (text === undefined) await this.#turns.notCut(agent, heard)
    else if (await this.#inbox.receiveSaid(agent, message, text, where)) await this.#turns.waiting(pubkey)
    else await this.#turns.full(agent, heard)
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
    const { store, nostr, clock } = this.#deps
    return viewDetail(store, row, { view: this.#view(row), relays: nostr.relays, nowMs: clock.now() })
  }
}

function hexOf(ref: string): string {
  try {
    return parsePubkey(ref)
  } catch {
    // No key: a name then.
    return ref
  }
}
