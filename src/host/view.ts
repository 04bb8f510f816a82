/** Agents as the control API shows them: the same from a running node and from a database that nobody holds. */

import { msats, msatsToSatsDown, type Sats, sats } from '../base/amounts.ts'
import { rfc3339 } from '../base/clock.ts'
import { given } from '../base/given.ts'
import { isHex64 } from '../nostr/nips/nip01.ts'
import { npubOf } from '../nostr/nips/nip19.ts'
import { type ActionRow, actionsOf } from '../store/agents/actions.ts'
import { type AgentRow, agentBalanceMsats, agentTransitions, listAgents } from '../store/agents/agents.ts'
import { memoriesOf } from '../store/agents/memories.ts'
import { type TickRow, ticksOf } from '../store/agents/ticks.ts'
import { spentSince } from '../store/money/budgets.ts'
import type { Store } from '../store/store.ts'
import { parseBrain } from './brains/brain.ts'

/** One agent of `status` and `agent list`. */
export type AgentView = ReturnType<typeof viewAgent>
/** One agent of `agent spawn` and `agent show`. */
export type AgentDetail = ReturnType<typeof viewDetail>
export type ActionView = ReturnType<typeof viewAction>
/** One tick of `agent log` and `agent tick`. */
export type TickView = ReturnType<typeof viewTick>

/** The kinds of the events that actions publish; a zap publishes nothing itself: its request (9734) goes to the LNURL server. */
const KIND_OF: Readonly<Record<string, number>> = { post: 1, reply: 1, react: 7, channel: 42, zap: 9734 }

const timeOrNull = (ms: number | null | undefined): string | null => (ms === null || ms === undefined ? null : rfc3339(ms))

/** @param facts what a running node knows better than the database. */
export function viewAgent(store: Store, row: AgentRow, facts: { balanceSats?: Sats; nextTickAt?: number | undefined } = {}) {
  const reason = reasonOf(store, row)
  const nextTickAt = 'nextTickAt' in facts ? facts.nextTickAt : row.nextTickAt
  return {
    name: row.name,
    npub: row.npub,
    pubkey: row.pubkey,
    state: row.state,
    ...given({ reason }),
    balance_sats: facts.balanceSats ?? msatsToSatsDown(msats(agentBalanceMsats(store, row.pubkey))),
    tick_count: row.tickCount,
    last_tick_at: timeOrNull(row.lastTickAt),
    next_tick_at: timeOrNull(nextTickAt),
  }
}

function reasonOf(store: Store, row: AgentRow): string | undefined {
  if (row.state !== 'active') return row.stateReason
  if (row.failures === 0) return undefined
  const failed = ticksOf(store, row.pubkey, 20).find((tick) => tick.state === 'failed')
  return `${row.failures === 1 ? 'its last tick' : `its last ${row.failures} ticks`} failed: ${failed?.error ?? 'see pylon agent log'}`
}

const DAY_MS = 86_400_000

/** @param relays those that it uses, where it has none of its own */
export function viewDetail(
  store: Store,
  row: AgentRow,
  { view, relays, nowMs }: { view: AgentView; relays: readonly string[]; nowMs: number },
) {
  const {
    per_tx_sats,
    per_tick_sats,
    per_day_sats,
    per_hour_sats = 0,
    per_counterparty_sats = 0,
    approve_above_sats = 0,
    rails = [],
    deny = [],
  } = row.budget
  return {
    ...view,
    about: row.about,
    lud06: row.lud06,
    picture: row.profile['picture'] || null,
    nip05: row.profile['nip05'] || null,
    lud16: row.profile['lud16'] || null,
    relays: [...(row.relays.length > 0 ? row.relays : relays)],
    brain: publicBrain(row.brain),
    heartbeat_s: row.heartbeatS,
    autonomy: row.autonomy,
    dm_scheme: row.dmScheme,
    budget: {
      per_tx_sats: sats(per_tx_sats),
      per_tick_sats: sats(per_tick_sats),
      per_hour_sats: per_hour_sats === 0 ? null : sats(per_hour_sats),
      per_day_sats: sats(per_day_sats),
      per_counterparty_sats: per_counterparty_sats === 0 ? null : sats(per_counterparty_sats),
      approve_above_sats: approve_above_sats === 0 ? null : sats(approve_above_sats),
      rails: [...rails],
      deny: deny.map((name) => (isHex64(name) ? npubOf(name) : name)),
      spent_today_sats: sats(spentSince(store, row.pubkey, nowMs - DAY_MS)),
    },
    allow: row.allow.map(npubOf),
    tick_fee_sats: sats(row.tickFeeSats),
    created_at: rfc3339(row.createdAt),
    transitions: agentTransitions(store, row.pubkey, 20).map(({ from, at, ...step }) => ({ ...step, from: from ?? '', at: rfc3339(at) })),
  }
}

/** The settings of a brain; rules are shown by their length, `agent export` has them whole. */
function publicBrain(brain: unknown) {
  const settings = parseBrain(brain)
  if (settings.type !== 'script' || settings.rules === undefined) return settings
  const { rules, ...rest } = settings
  return { ...rest, rules_chars: rules.length }
}

export function viewTick(store: Store, tick: TickRow) {
  const actions = actionsOf(store, tick.id)
  const spent = actions.reduce((sum, action) => sum + action.costMsats, tick.costMsats)
  return {
    id: tick.id,
    number: tick.number,
    trigger: tick.trigger,
    state: tick.state,
    thought: tick.thought,
    error: tick.error,
    /** Thinking, fee and actions together. */
    cost_msats: msats(spent),
    started_at: rfc3339(tick.startedAt),
    duration_ms: tick.finishedAt === null ? null : tick.finishedAt - tick.startedAt,
    actions: actions.map(viewAction),
  }
}

export function viewAction(action: ActionRow) {
  return {
    id: action.id,
    type: action.type,
    params: action.params,
    state: action.state,
    event_id: action.eventId,
    kind: KIND_OF[action.type] ?? null,
    cost_msats: msats(action.costMsats),
    reason: action.reason,
  }
}

/** For a stopped node: `agent list`. */
export function readAgents(store: Store): AgentView[] {
  return listAgents(store).map((row) => viewAgent(store, row))
}

/** Newest first. */
export function readLog(store: Store, pubkey: string, limit: number): TickView[] {
  return ticksOf(store, pubkey, limit).map((tick) => viewTick(store, tick))
}

export function readMemory(store: Store, pubkey: string, limit: number) {
  return memoriesOf(store, pubkey, limit).map(({ type, content, createdAt }) => ({ type, content, created_at: rfc3339(createdAt) }))
}
