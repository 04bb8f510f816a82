/**
 * One tick: observe, think, act, account. Each step is stored before the next, so that a restart goes on where it was:
 *
 *   claimed -> thinking -> acting -> done
 *      |          |  ^        '-> (after a crash: the actions that are still open)
 *      |          |  '-- once again after a crash, with the same observation
 *      '----------'--> failed
 */
import { type Sats, sats } from '../base/amounts.ts'
import { backoffMs } from '../base/backoff.ts'
import { rfc3339 } from '../base/clock.ts'
import { isPylonError, messageOf, PylonError } from '../base/errors.ts'
import { type Random, randomUuid } from '../base/random.ts'
import type { Scope } from '../base/scope.ts'
import { isBunkerSilent } from '../nostr/keys/away.ts'
import { npubOf } from '../nostr/nips/nip19.ts'
import type { NostrEvent } from '../nostr/types.ts'
import { actionsOf, countSpokenTo, countZapsTo, getAction, postsOf } from '../store/agents/actions.ts'
import { type AgentRow, getAgent } from '../store/agents/agents.ts'
import { goalsOf } from '../store/agents/goals.ts'
import { type HeardRow, heardInTick } from '../store/agents/heard.ts'
import { memoriesOf } from '../store/agents/memories.ts'
import {
  addTickCost,
  beginThinking,
  failTick,
  finishTick,
  getTick,
  observedBefore,
  type PlannedAction,
  planTick,
  type TickRow,
} from '../store/agents/ticks.ts'
import { all } from '../store/commands.ts'
import { tickFeeKey } from '../store/keys.ts'
import { approvalsToObserve, observeApprovals } from '../store/money/approvals.ts'
import { feesOfCause } from '../store/money/swap-fees.ts'
import { parseAction } from './actions/action.ts'
import type { Publisher } from './actions/publish.ts'
import { runAction } from './actions/run.ts'
import { parseBrain, type Thought } from './brains/brain.ts'
import { createBrain } from './brains/create-brain.ts'
import { HandWork } from './hands.ts'
import { whatIsLeft } from './left.ts'
import { contextOf, zappedNote } from './messages.ts'
import {
  cleanText,
  memoryTexts,
  newestFirst,
  type Observation,
  observedApproval,
  ofEachFirst,
  type Quote,
  timeSaid,
  withSeen,
} from './observation.ts'
import { type HostDeps, ownerOf, relaysOf } from './parts.ts'
import { BRAIN_AGAIN } from './schedule.ts'
import type { SessionTurns } from './session-turns.ts'

const HOUR_MS = 3_600_000
const DAY_S = 86_400
const READ_TIMEOUT_MS = 3000
const READ_OVERLAP_S = 120
const MAX_NOTE_CHARS = 280
/** Notes that are looked at for each that is read. */
const NOTES_LOOKED_AT = 10
const MAX_THINKING = 2
/** Actions that wait for the owner, or were decided, of which one tick is told. */
const MAX_APPROVALS = 20
const MAX_STORED_ACTIONS = 50
const GRACE_MS = 5000

/** Errors of this process, its disk or the bunker of its key, and rent of unknown outcome: the tick stays as it is and is taken up again. */
const staysOpen = (error: unknown): boolean =>
  isPylonError(error, 'shutting_down') ||
  isPylonError(error, 'disk_full') ||
  isPylonError(error, 'database_busy') ||
  isPylonError(error, 'locked') ||
  isBunkerSilent(error) ||
  isPylonError(error, 'payment_unknown')

export class Ticker {
  readonly #deps: HostDeps
  readonly #publisher: Publisher
  readonly #thinking: Scope
  readonly #turns: SessionTurns
  readonly hands: HandWork

  /** @param thinking owns the brains at work: closed as soon as the host begins to end, while actions may still end. */
  constructor(deps: HostDeps, publisher: Publisher, thinking: Scope, turns: SessionTurns) {
    this.#deps = deps
    this.hands = new HandWork(deps, publisher)
    this.#publisher = publisher
    this.#thinking = thinking
    this.#turns = turns
  }

  /** Drives a claimed tick to its end. @throws only shutting_down, disk_full, locked, bunker_unreachable and payment_unknown; the tick then stays open. */
  async run(tickId: string): Promise<void> {
    const tick = getTick(this.#deps.store, tickId)
    const agent = tick === undefined ? undefined : getAgent(this.#deps.store, tick.agentPubkey)
    if (tick === undefined || agent === undefined) return
    try {
      if (tick.state === 'claimed') await this.#chargeFee(agent, tick)
      if (tick.state === 'claimed' || tick.state === 'thinking') await this.#think(agent, tick)
      await this.#act(agent, tickId)
    } catch (error) {
      if (staysOpen(error)) throw error
      await this.#fail(agent, tick, error)
    }
  }

  async #fail(agent: AgentRow, tick: TickRow, error: unknown): Promise<void> {
    const { store, clock, logger } = this.#deps
    const reason = messageOf(error)
    const at = clock.now()
    const retryAt = at + backoffMs(BRAIN_AGAIN, agent.failures + 1, this.#thinking.random)
    await this.#turns.failed(agent, tick, reason, retryAt)
    await store.write(failTick({ id: tick.id, error: reason, at, retryAt }))
    logger.warn({ agent: agent.name, tick: tick.number, error: reason }, 'a tick failed')
  }

  async #chargeFee(agent: AgentRow, tick: TickRow): Promise<void> {
    if (agent.tickFeeSats === 0) return
    const { wallets, keyring, store } = this.#deps
    const node = { kind: 'node', pubkey: keyring.node().pubkey } as const
    const fee: Sats = sats(agent.tickFeeSats)
    const key = tickFeeKey.of(tick.id)
    const cause = { type: 'tick', id: tick.id } as const
    await wallets.transfer(ownerOf(agent), node, fee, key, { cause })
    await store.write(addTickCost({ id: tick.id, costMsats: fee * 1000n + feesOfCause(store, cause) }))
  }

  async #think(agent: AgentRow, tick: TickRow): Promise<void> {
    const { store, clock } = this.#deps
    if (tick.attempts >= MAX_THINKING)
      throw new PylonError('brain_failed', 'The node ended twice while the agent was thinking; it goes on with the next tick.')
    const observation = tick.observation === null ? await this.#observe(agent, tick) : (tick.observation as Observation)
    const told = (observation.approvals ?? []).filter(({ state }) => state !== 'pending').map(({ id }) => id)
    await store.write(all(beginThinking({ id: tick.id, observation }), observeApprovals({ ids: told, tickId: tick.id })))
    // Who has acted while thinking does not think of the same again: it might do it twice.
    const thought =
      actionsOf(store, tick.id).length > 0
        ? INTERRUPTED
        : await this.hands.during(agent.pubkey, { tickId: tick.id, observation }, () => this.#ask(agent, observation))
    const wanted = thought.actions.map((raw) => planOf(raw, this.#thinking.random))
    const actions = wanted.slice(0, MAX_STORED_ACTIONS)
    const over = wanted.length - actions.length
    const problems = [...thought.problems, ...(over > 0 ? [`${over} actions more than ${MAX_STORED_ACTIONS} are left out`] : [])]
    const heard = heardInTick(store, tick.id)
    const deleted = heard.length - observation.mentions.length - observation.dms.length - observation.zaps.length
    const left = whatIsLeft(heard, thought.left, wanted, this.#deps.config().host.actions_per_tick)
    const notes = [
      problems.length === 0 ? '' : `[not understood] ${problems.join('; ')}`,
      left.words,
      deleted > 0 ? `[deleted by their authors] ${deleted}` : '',
    ]
    await store.write(
      planTick({
        id: tick.id,
        agentPubkey: agent.pubkey,
        thought: [thought.text, ...notes].filter((words) => words !== '').join('\n'),
        costMsats: thought.costMsats,
        actions,
        left: left.again,
        at: clock.now(),
      }),
    )
  }

  /** The brain's answer, within its time. A brain that ignores the signal is left behind. */
  async #ask(agent: AgentRow, observation: Observation): Promise<Thought> {
    const timeoutMs = this.#deps.config().host.think_timeout_s * 1000
    const late = () => new PylonError('brain_failed', `The brain did not answer within ${timeoutMs / 1000} s.`)
    try {
      const brain = createBrain(parseBrain(agent.brain), this.#deps)
      return await this.#thinking.within(agent.name, timeoutMs + GRACE_MS, (signal) => brain.think(observation, signal), late)
    } catch (error) {
      // A brain that was stopped may say so in its own words.
      throw this.#thinking.isClosing ? ended() : error
    }
  }

  /** One action that its owner approved, of a tick that may have ended long ago. @throws as run */
  async runApproved(actionId: string): Promise<void> {
    const { store } = this.#deps
    const row = getAction(store, actionId)
    const agent = row === undefined ? undefined : getAgent(store, row.agentPubkey)
    const tick = row === undefined ? undefined : getTick(store, row.tickId)
    if (row === undefined || agent === undefined || tick === undefined) return
    const context = (tick.observation as Observation | null) ?? contextOf(this.#deps, agent)
    await runAction({ deps: this.#deps, publisher: this.#publisher, agent, row }, context)
  }

  async #act(agent: AgentRow, tickId: string): Promise<void> {
    const { store, clock } = this.#deps
    const tick = getTick(store, tickId)
    if (tick?.state !== 'acting') return
    for (const action of actionsOf(store, tickId)) {
      if (this.#thinking.isClosing) throw ended()
      // What the owner has said meanwhile holds.
      const current = getAgent(store, agent.pubkey) ?? agent
      // An errand has observed nothing.
      const context = (tick.observation as Observation | null) ?? contextOf(this.#deps, current)
      await runAction({ deps: this.#deps, publisher: this.#publisher, agent: current, row: action }, context)
    }
    await this.#turns.done(agent, tick)
    await store.write(finishTick({ id: tickId, at: clock.now() }))
    // What this tick left for the next.
    await this.#turns.waiting(agent.pubkey)
  }

  async #observe(agent: AgentRow, tick: TickRow): Promise<Observation> {
    const { store, clock, nostr, wallets } = this.#deps
    const waiting = heardInTick(store, tick.id)
    const [notes, deleted] = await Promise.all([
      this.#readNotes(agent, tick, new Set(waiting.map((row) => row.id))),
      this.#readDeletions(agent, waiting),
    ])
    const heard = waiting.filter((row) => !deleted.has(row.id))
    const relays = new Set(relaysOf(this.#deps, agent))
    const quoteHeard = (row: HeardRow) =>
      this.#quote(agent, { id: row.id, pubkey: row.sender, content: row.content, created_at: row.createdAt })
    return withSeen({
      version: 1,
      now: rfc3339(clock.now()),
      agent: { name: agent.name, npub: agent.npub, pubkey: agent.pubkey, about: agent.about },
      tick: { number: tick.number, trigger: tick.trigger },
      state: agent.state,
      balance_sats: Number(wallets.of(ownerOf(agent)).balance().balanceSats),
      budget: agent.budget,
      autonomy: agent.autonomy,
      goals: goalsOf(store, agent.pubkey),
      memories: memoryTexts(memoriesOf(store, agent.pubkey, 20)),
      posted: postsOf(store, agent.pubkey, 5),
      approvals: approvalsToObserve(store, agent.pubkey, MAX_APPROVALS).map(observedApproval),
      mentions: heard.filter((row) => row.type === 'mention').map(quoteHeard),
      dms: heard.filter((row) => row.type === 'dm').map((row) => ({ ...quoteHeard(row), scheme: row.scheme ?? 'nip17' })),
      zaps: heard
        .filter((row) => row.type === 'zap')
        .map((row) => ({ ...quoteHeard(row), sats: Number((row.amountMsats ?? 0n) / 1000n), event_id: zappedNote(row.event) ?? '' })),
      notes,
      relays: nostr
        .health()
        .filter((relay) => relays.has(relay.url))
        .map(({ url, state }) => ({ url, state })),
    })
  }

  /** Recent notes of others that the agent's last tick did not see; none where no relay answers. */
  async #readNotes(agent: AgentRow, tick: TickRow, without: ReadonlySet<string>): Promise<Quote[]> {
    const { nostr, store, config, clock, logger } = this.#deps
    const limit = config().host.read_notes
    if (limit === 0) return []
    const previous = observedBefore(store, agent.pubkey, tick.number)
    const seen = new Set((previous?.observation as Observation | undefined)?.notes.map((note) => note.id) ?? [])
    const nowS = Math.floor(clock.now() / 1000)
    const since = previous === undefined ? nowS - DAY_S : Math.max(nowS - DAY_S, Math.floor(previous.startedAt / 1000) - READ_OVERLAP_S)
    let events: readonly NostrEvent[]
    try {
      const found = await nostr.query([{ kinds: [1], since, limit: limit * NOTES_LOOKED_AT }], {
        relays: relaysOf(this.#deps, agent),
        timeoutMs: READ_TIMEOUT_MS,
      })
      events = found.events
    } catch (error) {
      logger.info({ agent: agent.name, error: messageOf(error) }, 'no notes could be read')
      return []
    }
    const fresh = ofEachFirst(
      events.filter(
        (event) => event.pubkey !== agent.pubkey && !without.has(event.id) && !seen.has(event.id) && event.created_at <= nowS + 60,
      ),
    )
      .slice(0, limit)
      .sort(newestFirst)
    for (const event of fresh) this.#publisher.remember(event)
    return fresh.map((event) => this.#quote(agent, event, MAX_NOTE_CHARS))
  }

  /** Ids of what its author has deleted meanwhile (NIP-09); gift wraps cannot be. */
  async #readDeletions(agent: AgentRow, heard: readonly HeardRow[]): Promise<ReadonlySet<string>> {
    const rows = heard.filter((row) => row.type === 'mention' || row.scheme === 'nip04')
    if (rows.length === 0) return new Set()
    const senderOf = new Map(rows.map((row) => [row.id, row.sender]))
    const filter = { kinds: [5], authors: [...new Set(senderOf.values())], '#e': [...senderOf.keys()] }
    try {
      const { events } = await this.#deps.nostr.query([filter], { relays: relaysOf(this.#deps, agent), timeoutMs: READ_TIMEOUT_MS })
      const named = events.flatMap((event) => event.tags.map(([name, id = '']) => ({ name, id, by: event.pubkey })))
      return new Set(named.filter(({ name, id, by }) => name === 'e' && senderOf.get(id) === by).map(({ id }) => id))
    } catch (error) {
      this.#deps.logger.info({ agent: agent.name, error: messageOf(error) }, 'no deletions could be read')
      return new Set()
    }
  }

  #quote(agent: AgentRow, said: { id: string; pubkey: string; content: string; created_at: number }, maxChars?: number): Quote {
    const { store, clock, keyring } = this.#deps
    return {
      id: said.id,
      npub: npubOf(said.pubkey),
      pubkey: said.pubkey,
      text: cleanText(said.content, maxChars),
      created_at: timeSaid(said.created_at),
      own_home: keyring.owns(said.pubkey),
      old: said.created_at * 1000 < Math.floor(agent.createdAt / 1000) * 1000,
      spoken_recently: countSpokenTo(store, agent.pubkey, said.pubkey, clock.now() - HOUR_MS),
      spoken_total: countSpokenTo(store, agent.pubkey, said.pubkey, 0),
      zapped_today: countZapsTo(store, agent.pubkey, said.pubkey, clock.now() - DAY_S * 1000),
    }
  }
}

const INTERRUPTED: Thought = {
  ...{ text: 'The node ended while the agent was thinking and acting; what it had begun is finished.', costMsats: 0n },
  ...{ actions: [], left: [], problems: [] },
}

const ended = () => new PylonError('shutting_down', 'The host is shutting down.')

function planOf(raw: Readonly<Record<string, unknown>> & { readonly type: string }, random: Random): PlannedAction {
  const id = randomUuid(random)
  try {
    const action = parseAction(raw)
    return { id, type: action.type, params: action }
  } catch (error) {
    return {
      id,
      type: String(raw.type).slice(0, 40),
      params: JSON.parse(JSON.stringify(raw)) as unknown,
      refused: messageOf(error).slice(0, 500),
    }
  }
}
