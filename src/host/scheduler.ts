/** Starts ticks when they are due: one at a time for an agent, a few agents at once, and goes on with what a restart left open. */
import { messageOf, PylonError } from '../base/errors.ts'
import { News } from '../base/news.ts'
import { randomUuid } from '../base/random.ts'
import type { Scope } from '../base/scope.ts'
import { type AgentRow, getAgent, listAgents, patchAgent } from '../store/agents/agents.ts'
import { waitingTriggers } from '../store/agents/heard.ts'
import { claimTick, openTicks, triggeredTicks } from '../store/agents/ticks.ts'
import { allowsTick } from './lifecycle.ts'
import type { HostDeps } from './parts.ts'
import { type Due, nextDue, nextHeartbeat } from './schedule.ts'
import type { Ticker } from './tick.ts'

const HOUR_MS = 3_600_000
/** How long a tick waits that could not go on for want of disk or keys. */
const STALL_MS = 30_000

export class Scheduler {
  readonly #deps: HostDeps
  readonly #ticker: Ticker
  readonly #onTicked: (pubkey: string) => Promise<void>
  readonly #scope: Scope
  /** Agents that tick now. */
  readonly #ticking = new Set<string>()
  readonly #ends: News
  readonly #stalledUntil = new Map<string, number>()
  /** Agents whose owner waits for a tick: what else is due of them comes after it. */
  readonly #asked = new Map<string, number>()
  #cancelTimer: (() => void) | undefined
  #started = false

  /** @param onTicked called after each tick, done or failed. */
  constructor(deps: HostDeps, ticker: Ticker, onTicked: (pubkey: string) => Promise<void>) {
    this.#deps = deps
    this.#ticker = ticker
    this.#onTicked = onTicked
    this.#scope = deps.scope.child('ticks')
    this.#ends = new News(this.#scope)
  }

  start(): void {
    this.#started = true
    this.wake()
  }

  /** The next tick of an agent by the clock and by what waits for it. */
  dueOf(agent: AgentRow): Due | undefined {
    const { store, clock, config } = this.#deps
    const { host } = config()
    return nextDue({
      nowMs: clock.now(),
      state: agent.state,
      heartbeatS: agent.heartbeatS,
      nextTickAt: agent.nextTickAt ?? undefined,
      retryAt: agent.retryAt ?? undefined,
      tickCount: agent.tickCount,
      waiting: waitingTriggers(store, agent.pubkey),
      triggeredAt: triggeredTicks(store, agent.pubkey, clock.now() - HOUR_MS),
      debounceMs: host.debounce_s * 1000,
      triggeredPerHour: host.triggered_per_hour,
    })
  }

  /** Looks again: starts what is due and sets the timer for the rest. */
  wake(): void {
    if (!this.#isOpen) return
    this.#cancelTimer?.()
    const { store, clock, config } = this.#deps
    const now = clock.now()
    const unfinished = new Map(openTicks(store).map((tick) => [tick.agentPubkey, tick.id]))
    let earliest = Number.POSITIVE_INFINITY
    const ready: { readonly pubkey: string; readonly name: string; readonly at: number; readonly run: () => Promise<void> }[] = []
    for (const agent of listAgents(store)) {
      const { pubkey } = agent
      if (this.#ticking.has(pubkey) || this.#asked.has(pubkey)) continue
      const open = unfinished.get(pubkey)
      const due = open === undefined ? this.dueOf(agent) : undefined
      const at = Math.max(open === undefined ? (due?.at ?? Number.POSITIVE_INFINITY) : 0, this.#stalledUntil.get(pubkey) ?? 0)
      if (at > now) earliest = Math.min(earliest, at)
      else
        ready.push({
          pubkey,
          name: agent.name,
          at,
          run: due === undefined ? () => this.#ticker.run(open ?? '') : () => this.#claimAndRun(agent, due),
        })
    }
    // Who has waited longest goes first; what finds no room is looked at again when a tick ends.
    ready.sort((a, b) => a.at - b.at)
    for (const { pubkey, name, run } of ready.slice(0, Math.max(0, config().host.concurrency - this.#ticking.size))) {
      const tick = this.#begin(pubkey, run)
      this.#scope.spawn(`tick of ${name}`, async () => void (await tick()))
    }
    if (Number.isFinite(earliest)) this.#cancelTimer = this.#scope.after('look at what is due', earliest - now, () => this.wake())
  }

  /** A tick by the owner's word. @throws conflict when the agent's state forbids it, shutting_down */
  async tickNow(pubkey: string): Promise<string> {
    const id = randomUuid(this.#scope.random)
    const due: Due = { at: this.#deps.clock.now(), trigger: 'manual', slot: `manual:${id}` }
    await this.inTurn(pubkey, (agent) => this.#claimAndRun(agent, due, id))
    return id
  }

  /** One action that was asked for, as a tick. @param claim stores it under this id, once @throws as tickNow */
  async runErrand(pubkey: string, claim: (tickId: string) => Promise<boolean>): Promise<void> {
    const id = randomUuid(this.#scope.random)
    await this.inTurn(pubkey, async () => {
      if (await claim(id)) await this.#ticker.run(id)
    })
  }

  /** After the tick that runs, and before what is due by itself. @throws as tickNow */
  async inTurn(pubkey: string, run: (agent: AgentRow) => Promise<void>): Promise<void> {
    this.#ask(pubkey, 1)
    while (this.#ticking.has(pubkey) && !this.#scope.isClosing) await this.#ends.next(pubkey, HOUR_MS)
    this.#ask(pubkey, -1)
    // Nothing is awaited from here to the launch: two who waited would tick at once.
    const agent = getAgent(this.#deps.store, pubkey)
    if (agent === undefined) throw new PylonError('agent_not_found', 'The agent is gone.')
    if (!this.#isOpen) throw closed()
    if (!allowsTick(agent.state, 'manual'))
      throw new PylonError('conflict', `${agent.name} cannot tick: it is ${agent.state}, ${agent.stateReason}.`)
    const failure = await this.#scope.run(
      `tick of ${agent.name}`,
      this.#begin(pubkey, () => run(agent)),
    )
    if (failure !== undefined) throw failure.error
  }

  get #isOpen(): boolean {
    return this.#started && !this.#scope.isClosing
  }

  #ask(pubkey: string, change: 1 | -1): void {
    const count = (this.#asked.get(pubkey) ?? 0) + change
    if (count === 0) this.#asked.delete(pubkey)
    else this.#asked.set(pubkey, count)
  }

  /** Resolves when the agent does not tick. @throws shutting_down */
  async idle(pubkey: string): Promise<void> {
    while (this.#ticking.has(pubkey)) {
      if (this.#scope.isClosing) throw closed()
      await this.#ends.next(pubkey, HOUR_MS)
    }
  }

  /** Marks the agent as ticking from now on. @returns the tick, which gives what kept it from going on */
  #begin(pubkey: string, run: () => Promise<void>): () => Promise<{ readonly error: unknown } | undefined> {
    this.#ticking.add(pubkey)
    return async () => {
      try {
        await run()
        this.#stalledUntil.delete(pubkey)
        await this.#onTicked(pubkey)
        return undefined
      } catch (error) {
        const { clock, logger } = this.#deps
        this.#stalledUntil.set(pubkey, clock.now() + STALL_MS)
        if (this.#isOpen) logger.error({ pubkey, error: messageOf(error) }, 'a tick could not go on')
        return { error }
      } finally {
        this.#ticking.delete(pubkey)
        this.#ends.tell(pubkey)
        this.#scope.spawn('look at what is due', () => this.wake())
      }
    }
  }

  async #claimAndRun(agent: AgentRow, due: Due, id: string = randomUuid(this.#scope.random)): Promise<void> {
    const { store, clock } = this.#deps
    const at = clock.now()
    const byClock = due.trigger === 'first' || due.trigger === 'heartbeat' || due.trigger === 'funding'
    const { pubkey, state, heartbeatS } = agent
    const nextTickAt = byClock
      ? (nextHeartbeat({ pubkey, state, heartbeatS, tickNumber: agent.tickCount + 1, nowMs: at }) ?? null)
      : undefined
    const { slot, trigger, heardId } = due
    const number = await store.write(claimTick({ id, agentPubkey: pubkey, slot, trigger, at, nextTickAt, heardId }))
    if (number !== undefined) return this.#ticker.run(id)
    // This occasion had its tick: on to the next.
    if (nextTickAt !== undefined) await store.write(patchAgent({ pubkey, at, patch: { nextTickAt } }))
  }
}

const closed = () => new PylonError('shutting_down', 'The host does not run agents now.')
