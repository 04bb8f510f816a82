/**
 * Ends the turns of those who talk to an agent in a session and whose client reads envelopes: with the tick that heard them, whatever
 * came of it; and at once where no tick is near.
 *
 *     heard --(a tick is near)--> tick --> words, then done | done and why nothing was said | error
 *        '--(none is near)------> done, and when it will be read
 */
import { messageOf } from '../base/errors.ts'
import { given } from '../base/given.ts'
import { type EnvelopeBody, encodeEnvelope } from '../session/envelope.ts'
import type { Sessions } from '../session/sessions.ts'
import { actionsOf } from '../store/agents/actions.ts'
import { type AgentRow, getAgent } from '../store/agents/agents.ts'
import { heardInTick, type KeptHeard, type WaitingRow, waitingInSessions } from '../store/agents/heard.ts'
import { getTick, MAX_TRIES, type TickRow } from '../store/agents/ticks.ts'
import { type TurnEnding, turnEndKey } from '../store/keys.ts'
import { cleanText } from './observation.ts'
import type { HostDeps } from './parts.ts'
import type { Due } from './schedule.ts'

/** Who waits is told of a tick that is further away. */
const NEAR_MS = 60_000
const MAX_NOTE_CHARS = 300

/** Of what was said to an agent in a session: where, and whether who said it reads envelopes. */
export interface SaidIn {
  readonly group: string
  readonly reads_envelopes: boolean
}

export function saidIn({ scheme, event }: Pick<KeptHeard, 'scheme' | 'event'>): SaidIn | undefined {
  if (scheme !== 'mls' || typeof event !== 'object' || event === null) return undefined
  const { group, reads_envelopes } = event as Partial<SaidIn>
  return typeof group === 'string' ? { group, reads_envelopes: reads_envelopes === true } : undefined
}

/** What an agent says in a session, as an envelope of ours. */
export const inEnvelope = (groupId: string, key: string, body: EnvelopeBody): string =>
  encodeEnvelope({ protocol: 'pylon', session_id: `pylon-${groupId.slice(0, 16)}`, idempotency_key: key, body })

type Heard = Pick<KeptHeard, 'id' | 'sender' | 'scheme' | 'event'>

export class SessionTurns {
  readonly #deps: HostDeps
  readonly #sessionsOf: (pubkey: string) => Sessions | undefined
  readonly #dueOf: (agent: AgentRow) => Due | undefined

  /** @param dueOf the next tick of an agent */
  constructor(deps: HostDeps, sessionsOf: (pubkey: string) => Sessions | undefined, dueOf: (agent: AgentRow) => Due | undefined) {
    this.#deps = deps
    this.#sessionsOf = sessionsOf
    this.#dueOf = dueOf
  }

  /** Before a tick is done: what it heard and has dealt with. */
  async done(agent: AgentRow, tick: Pick<TickRow, 'id' | 'thought'>): Promise<void> {
    const actions = actionsOf(this.#deps.store, tick.id).filter(({ type }) => type === 'dm' || type === 'request_payment')
    for (const heard of this.#byTurn(heardInTick(this.#deps.store, tick.id))) {
      const { sender } = heard
      const toThem = actions.filter(({ counterparty, params }) => (counterparty ?? recipientOf(params)) === sender)
      const spoken = toThem.find(({ state }) => state === 'claimed' || state === 'published' || state === 'done')
      const waits = toThem.find(({ state }) => state === 'waiting')
      const failed = toThem.find(({ state }) => state === 'refused' || state === 'failed')
      const thought = this.#mayKnow(sender) ? cleanText((tick.thought ?? '').replace(/\s+/g, ' '), MAX_NOTE_CHARS) : ''
      let note: string | undefined
      // Which way it went is in the action: only what was said in the session has no event of its own.
      if (spoken !== undefined) note = spoken.eventId === null ? undefined : 'it answered by DM'
      else if (waits !== undefined) note = 'its answer waits until its owner has approved it'
      else if (failed === undefined) note = thought === '' ? 'it chose to say nothing' : thought
      else note = `its answer ${failed.state === 'refused' ? 'was refused' : 'failed'}: ${failed.reason ?? 'no reason is known'}`
      await this.#end(agent, heard, ['done', tick.id], { type: 'done', ...(note === undefined ? {} : { note }) })
    }
  }

  /** Before a tick has failed. @param retryAt when what it heard is tried again, if it is: ms */
  async failed(agent: AgentRow, { id }: Pick<TickRow, 'id'>, reason: string, retryAt: number): Promise<void> {
    const { store } = this.#deps
    const hasActed = getTick(store, id)?.state === 'acting' || actionsOf(store, id).length > 0
    const rows = heardInTick(store, id)
    const isLast = hasActed || rows.some(({ tries }) => tries + 1 >= MAX_TRIES)
    const later = isLast ? 'It is not tried again: say it once more.' : `It is tried again ${this.#inWords(retryAt)}.`
    for (const heard of this.#byTurn(rows)) {
      const words = this.#mayKnow(heard.sender) ? reason : `${agent.name} could not think about it.`
      await this.#end(agent, heard, ['failed', id], { type: 'error', message: `${words} ${later}` })
    }
  }

  /** Whoever waits for a tick that is not near is told when it comes, or that none does. */
  async waiting(pubkey: string): Promise<void> {
    const agent = getAgent(this.#deps.store, pubkey)
    const rows = agent === undefined ? [] : waitingInSessions(this.#deps.store, pubkey)
    if (agent === undefined || rows.length === 0) return
    const due = this.#dueOf(agent)
    if (due !== undefined && due.at - this.#deps.clock.now() <= NEAR_MS) return
    for (const row of rows) {
      const [heard] = this.#byTurn([row])
      const why = this.#whyLater(agent, row)
      const note = due === undefined ? `it does not tick now: ${why}` : `it reads this at its next tick, ${this.#inWords(due.at)}: ${why}`
      if (heard !== undefined) await this.#end(agent, heard, ['later', row.id], { type: 'done', note })
    }
  }

  /** A message that finds no place among those that wait. */
  async full(agent: AgentRow, heard: Heard): Promise<void> {
    const message = 'Too much waits for it: what you said is left unread. Say it again after its next tick.'
    for (const turn of this.#byTurn([heard])) await this.#end(agent, turn, ['full', heard.id], { type: 'error', message })
  }

  /** No tick is cut short from a conversation. */
  async notCut(agent: AgentRow, heard: Heard): Promise<void> {
    const note = `its tick goes on; what it has not begun is stopped by: pylon agent pause ${agent.name}`
    for (const turn of this.#byTurn([heard]))
      await this.#end(agent, { ...turn, ids: undefined }, ['abort', heard.id], { type: 'done', note })
  }

  #whyLater(agent: AgentRow, { sender, wakes }: WaitingRow): string {
    const { host } = this.#deps.config()
    const { state, stateReason } = agent
    if (state !== 'active' && state !== 'low_balance') {
      if (!this.#mayKnow(sender) || stateReason === '') return state
      return stateReason.startsWith(state) ? stateReason : `${state}, ${stateReason}`
    }
    if (agent.failures > 0) return 'its last ticks failed'
    if (!wakes) return `within an hour it answers a key ${host.replies_per_hour} times (host.replies_per_hour), and wakes for nobody beyond`
    return `others wake it ${host.triggered_per_hour} times an hour at most (host.triggered_per_hour)`
  }

  /** The thoughts and failures of an agent are for the keys of its home. */
  #mayKnow(pubkey: string): boolean {
    return this.#deps.keyring.owns(pubkey)
  }

  #inWords(atMs: number): string {
    const minutes = Math.max(1, Math.round((atMs - this.#deps.clock.now()) / 60_000))
    return minutes < 120 ? `in about ${minutes} min` : `in about ${Math.round(minutes / 60)} h`
  }

  /** By conversation and who spoke there; those whose client would show an envelope as text hear nothing. */
  #byTurn(rows: readonly Heard[]): { groupId: string; sender: string; ids: string[] }[] {
    const turns = new Map<string, { groupId: string; sender: string; ids: string[] }>()
    for (const row of rows) {
      const said = saidIn(row)
      if (said?.reads_envelopes !== true) continue
      const turn = turns.get(`${said.group}:${row.sender}`) ?? { groupId: said.group, sender: row.sender, ids: [] }
      turn.ids.push(row.id)
      turns.set(`${said.group}:${row.sender}`, turn)
    }
    return [...turns.values()]
  }

  /** Once for each occasion. A conversation that is over ends no tick. */
  async #end(
    agent: AgentRow,
    { groupId, sender, ids }: { groupId: string; sender: string; ids: readonly string[] | undefined },
    ending: TurnEnding,
    body: Extract<EnvelopeBody, { type: 'done' | 'error' }>,
  ): Promise<void> {
    const sessions = this.#sessionsOf(agent.pubkey)
    if (sessions?.group(groupId)?.state !== 'active') return
    const key = turnEndKey(ending, groupId, sender)
    try {
      await sessions.send(groupId, { content: inEnvelope(groupId, key, { ...body, ...given({ answers: ids }) }) }, key)
    } catch (error) {
      this.#deps.logger.warn({ agent: agent.name, error: messageOf(error) }, 'who talks to an agent was not told of the end of its turn')
    }
  }
}

/** Of an action that was refused before anybody knew whom it concerns. */
function recipientOf(params: unknown): unknown {
  return typeof params === 'object' && params !== null ? (params as { to?: unknown }).to : undefined
}
