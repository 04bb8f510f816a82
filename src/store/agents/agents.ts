/** Agents: who they are, in what state and why. */
import { agentOwner } from '../../base/accounts.ts'
import { PylonError } from '../../base/errors.ts'
import { AGENT_STEPS, type AgentState } from '../../base/states.ts'
import { defineCommand } from '../commands.ts'
import { appendAudit } from '../money/audit.ts'
import { balancesOf } from '../money/ledger.ts'
import { isThere, textsOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOf, Steps, type StepTaken, Table } from '../table.ts'
import { assertNameFree } from './names.ts'

export type AgentAutonomy = 'bounded' | 'autonomous' | 'supervised'
export type AgentDmScheme = 'auto' | 'nip17' | 'nip04'

export interface AgentBudget {
  readonly per_tx_sats: number
  readonly per_tick_sats: number
  readonly per_day_sats: number
  /** In any 60 minutes; absent or 0: no limit of its own, nor the next. */
  readonly per_hour_sats?: number
  /** To one counterparty in any 24 hours; all that nobody can name are one. */
  readonly per_counterparty_sats?: number
  /** What passes this, with what was spent in the last hour, waits for the owner; absent or 0: nothing does. */
  readonly approve_above_sats?: number
  /** `ecash`, `mint`, `nwc`; absent or empty: any. */
  readonly rails?: readonly string[]
  /** Keys in hex, addresses and hosts that it never pays. */
  readonly deny?: readonly string[]
}

/** What there is of an agent from the first day on. */
const GIVEN = {
  pubkey: column.text(),
  npub: column.text(),
  name: column.text(),
  accountIndex: column.orNull(column.int()),
  about: column.text(),
  brain: column.json<unknown>('brain_json'),
  relays: column.json<readonly string[]>('relays_json'),
  heartbeatS: column.int(),
  autonomy: column.text<AgentAutonomy>(),
  dmScheme: column.text<AgentDmScheme>(),
  budget: column.json<AgentBudget>('budget_json'),
  allow: column.json<readonly string[]>('allow_json'),
  tickFeeSats: column.int(),
  /** Fields of its profile (kind 0) that the owner set; an empty one is to be removed. */
  profile: column.json<Readonly<Record<string, string>>>('profile_json'),
}
export type NewAgent = RowOf<typeof GIVEN>

/** Times are milliseconds since the epoch. */
const COLUMNS = {
  ...GIVEN,
  state: column.text<AgentState>('lifecycle_state'),
  pausedFrom: column.orNull(column.text<AgentState>()),
  stateReason: column.text(),
  lud06: column.orNull(column.text()),
  /** Set where an older version published the profile. */
  profileDigest: column.orNull(column.text()),
  failures: column.int(),
  retryAt: column.orNull(column.int()),
  nextTickAt: column.orNull(column.int()),
  lastTickAt: column.orNull(column.int()),
  tickCount: column.int(),
  createdAt: column.int(),
  deletedAt: column.orNull(column.int()),
}
type Columns = RowOf<typeof COLUMNS>

/** One that is paused knows from which state. */
export type AgentRow = Columns &
  ({ readonly state: 'paused'; readonly pausedFrom: AgentState } | { readonly state: Exclude<AgentState, 'paused'> })

const isAgent = (row: Columns): row is AgentRow => row.state !== 'paused' || row.pausedFrom !== null

const agents = new Table('agents', COLUMNS, isAgent)
const steps = new Steps('agent_transitions', 'agent_pubkey', AGENT_STEPS)

/** @throws agent_exists when the name is in use or the key ever was. */
export const insertAgent = defineCommand('insert_agent', (sql, p: { agent: NewAgent; at: number }) => {
  const { agent } = p
  assertNameFree(sql, agent.name)
  if (isThere(sql, 'SELECT 1 FROM agents WHERE pubkey = ?', agent.pubkey)) {
    throw new PylonError('agent_exists', 'This key is or was an agent of this home.')
  }
  agents.insert(sql, { ...agent, state: 'spawning', stateReason: 'just spawned', createdAt: p.at })
  steps.begin(sql, agent.pubkey, { to: 'spawning', reason: 'spawned by the owner', at: p.at }, '')
})

export type AgentPatch = Partial<
  Omit<NewAgent, 'pubkey' | 'npub' | 'accountIndex'> & Pick<Columns, 'nextTickAt' | 'retryAt' | 'failures'> & { readonly lud06: string }
>

/** Changes the named fields. @throws agent_exists when the new name is in use. */
export const patchAgent = defineCommand('patch_agent', (sql, p: { pubkey: string; patch: AgentPatch; at: number }) => {
  const { patch } = p
  if (patch.name !== undefined) assertNameFree(sql, patch.name, p.pubkey)
  agents.patch(sql, { pubkey: p.pubkey }, patch)
  const { budget, allow, autonomy } = patch
  if (budget === undefined && allow === undefined && autonomy === undefined) return
  appendAudit(sql, { at: p.at, kind: 'policy_changed', data: { agent: p.pubkey, budget, allow, autonomy } })
})

interface AgentMove {
  readonly pubkey: string
  readonly from: AgentState
  readonly to: AgentState
  readonly reason: string
  readonly at: number
  /** When it ticks next in the new state; null: not by the clock. */
  readonly nextTickAt: number | null
}

/** Moves an agent on and records why. @throws conflict when its state is not `from`, internal for a step that there is not. */
export const moveAgent = defineCommand(
  'move_agent',
  (sql, p: AgentMove) => {
    const row = agents.get(sql, { pubkey: p.pubkey, deletedAt: null })
    if (row === undefined) throw new PylonError('agent_not_found', 'The agent is gone.')
    const { pubkey, from, to, reason, nextTickAt } = p
    const change = { state: to, pausedFrom: to === 'paused' ? from : null, stateReason: reason, nextTickAt }
    steps.take(sql, pubkey, p, () => agents.patch(sql, { pubkey, state: from }, change))
  },
  (p) => `move_agent:${p.to}`,
)

export const markAgentDeleted = defineCommand('mark_agent_deleted', (sql, p: { pubkey: string; at: number }) => {
  agents.patch(sql, { pubkey: p.pubkey, deletedAt: null }, { deletedAt: p.at, nextTickAt: null })
})

/** The agents that are not deleted, oldest first. */
export const listAgents = (store: Store): AgentRow[] => agents.all(store.sql, 'WHERE deleted_at IS NULL ORDER BY created_at, name')

export const getAgent = (store: Store, pubkey: string): AgentRow | undefined => agents.get(store.sql, { pubkey, deletedAt: null })

/** Keys of agents that were deleted: their addresses are known and may still be paid. */
export const deletedAgents = (store: Store): string[] => textsOf(store.sql, 'SELECT pubkey FROM agents WHERE deleted_at IS NOT NULL')

/** Whether the key is or was an agent of this home. */
export const wasAgent = (store: Store, pubkey: string): boolean => isThere(store.sql, 'SELECT 1 FROM agents WHERE pubkey = ?', pubkey)

/** By name, npub or hex key. */
export const findAgent = (store: Store, ref: string): AgentRow | undefined =>
  agents.all(store.sql, 'WHERE ? IN (name, npub, pubkey) AND deleted_at IS NULL', ref)[0]

/** What the agent's wallet holds by the ledger, in millisats: for a node that is stopped. */
export const agentBalanceMsats = (store: Store, pubkey: string): bigint =>
  [...balancesOf(store, agentOwner(pubkey), 'wallet').values()].reduce((sum, value) => sum + value, 0n)

/** Newest first. */
export const agentTransitions = (store: Store, pubkey: string, limit = 100): StepTaken<AgentState>[] =>
  steps.newest(store.sql, pubkey, limit)
