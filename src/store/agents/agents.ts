/** Agents: who they are, in what state and why. */
import { agentOwner } from '../../base/accounts.ts'
import { PylonError } from '../../base/errors.ts'
import { defineCommand, type Row, type Sql } from '../commands.ts'
import { balancesOf } from '../money/ledger.ts'
import { int, intOrNull, json, text, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'

export type AgentLifecycle = 'spawning' | 'active' | 'low_balance' | 'hibernating' | 'dormant' | 'paused'
export type AgentAutonomy = 'bounded' | 'autonomous' | 'supervised'
export type AgentDmScheme = 'auto' | 'nip17' | 'nip04'

export interface AgentBudget {
  readonly per_tx_sats: number
  readonly per_tick_sats: number
  readonly per_day_sats: number
}

/** What the owner may set, and what is there from the first day on. Times are milliseconds since the epoch. */
export interface AgentRow {
  readonly pubkey: string
  readonly npub: string
  readonly name: string
  readonly accountIndex: number | null
  readonly about: string
  readonly brain: unknown
  readonly relays: readonly string[]
  readonly heartbeatS: number
  readonly autonomy: AgentAutonomy
  readonly dmScheme: AgentDmScheme
  readonly budget: AgentBudget
  readonly allow: readonly string[]
  readonly tickFeeSats: number
  readonly state: AgentLifecycle
  readonly pausedFrom: AgentLifecycle | null
  readonly stateReason: string
  readonly lud06: string | null
  /** Fields of its profile (kind 0) that the owner set; an empty one is to be removed. */
  readonly profile: Readonly<Record<string, string>>
  /** Set where an older version published the profile. */
  readonly profileDigest: string | null
  readonly failures: number
  readonly retryAt: number | null
  readonly nextTickAt: number | null
  readonly lastTickAt: number | null
  readonly tickCount: number
  readonly createdAt: number
  readonly deletedAt: number | null
}

export type NewAgent = Pick<
  AgentRow,
  | 'pubkey'
  | 'npub'
  | 'name'
  | 'accountIndex'
  | 'about'
  | 'brain'
  | 'relays'
  | 'heartbeatS'
  | 'autonomy'
  | 'dmScheme'
  | 'budget'
  | 'allow'
  | 'tickFeeSats'
  | 'profile'
>

export interface AgentTransitionRow {
  readonly from: string
  readonly to: string
  readonly reason: string
  readonly at: number
}

function transition(sql: Sql, pubkey: string, from: string, to: string, reason: string, at: number): void {
  sql('INSERT INTO agent_transitions (agent_pubkey, from_state, to_state, reason, at) VALUES (?, ?, ?, ?, ?)').run(
    pubkey,
    from,
    to,
    reason,
    BigInt(at),
  )
}

/** @throws agent_exists when the name is in use or the key ever was. */
export const insertAgent = defineCommand('insert_agent', (sql, p: { agent: NewAgent; at: number }) => {
  const { agent } = p
  if (sql('SELECT 1 FROM agents WHERE name = ? AND deleted_at IS NULL').get(agent.name) !== undefined) {
    throw new PylonError('agent_exists', `There is an agent named ${agent.name} already; choose another --name.`)
  }
  if (sql('SELECT 1 FROM agents WHERE pubkey = ?').get(agent.pubkey) !== undefined) {
    throw new PylonError('agent_exists', 'This key is or was an agent of this home.')
  }
  sql(
    `INSERT INTO agents (pubkey, npub, name, account_index, about, brain_json, relays_json, heartbeat_s, autonomy, dm_scheme, budget_json,
       allow_json, tick_fee_sats, profile_json, lifecycle_state, state_reason, created_at)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'spawning', 'just spawned', ?)`,
  ).run(
    agent.pubkey,
    agent.npub,
    agent.name,
    agent.accountIndex === null ? null : BigInt(agent.accountIndex),
    agent.about,
    JSON.stringify(agent.brain),
    JSON.stringify(agent.relays),
    BigInt(agent.heartbeatS),
    agent.autonomy,
    agent.dmScheme,
    JSON.stringify(agent.budget),
    JSON.stringify(agent.allow),
    BigInt(agent.tickFeeSats),
    JSON.stringify(agent.profile),
    BigInt(p.at),
  )
  transition(sql, agent.pubkey, '', 'spawning', 'spawned by the owner', p.at)
})

export interface AgentPatch {
  readonly name?: string
  readonly about?: string
  readonly brain?: unknown
  readonly relays?: readonly string[]
  readonly heartbeatS?: number
  readonly autonomy?: AgentAutonomy
  readonly dmScheme?: AgentDmScheme
  readonly budget?: AgentBudget
  readonly allow?: readonly string[]
  readonly tickFeeSats?: number
  readonly lud06?: string
  readonly profile?: Readonly<Record<string, string>>
  readonly nextTickAt?: number | null
  readonly retryAt?: number | null
  readonly failures?: number
}

const jsonOf = (value: unknown): string | null => (value === undefined ? null : JSON.stringify(value))
const big = (value: number | undefined): bigint | null => (value === undefined ? null : BigInt(value))

/** Changes the named fields. @throws agent_exists when the new name is in use. */
export const patchAgent = defineCommand('patch_agent', (sql, p: { pubkey: string; patch: AgentPatch }) => {
  const { patch } = p
  if (patch.name !== undefined) {
    const other = sql('SELECT 1 FROM agents WHERE name = ? AND deleted_at IS NULL AND pubkey <> ?').get(patch.name, p.pubkey)
    if (other !== undefined) throw new PylonError('agent_exists', `There is an agent named ${patch.name} already; choose another name.`)
  }
  sql(
    `UPDATE agents SET name = coalesce(?, name), about = coalesce(?, about), brain_json = coalesce(?, brain_json),
       relays_json = coalesce(?, relays_json), heartbeat_s = coalesce(?, heartbeat_s), autonomy = coalesce(?, autonomy),
       dm_scheme = coalesce(?, dm_scheme), budget_json = coalesce(?, budget_json), allow_json = coalesce(?, allow_json),
       tick_fee_sats = coalesce(?, tick_fee_sats), lud06 = coalesce(?, lud06), profile_json = coalesce(?, profile_json),
       failures = coalesce(?, failures) WHERE pubkey = ?`,
  ).run(
    patch.name ?? null,
    patch.about ?? null,
    jsonOf(patch.brain),
    jsonOf(patch.relays),
    big(patch.heartbeatS),
    patch.autonomy ?? null,
    patch.dmScheme ?? null,
    jsonOf(patch.budget),
    jsonOf(patch.allow),
    big(patch.tickFeeSats),
    patch.lud06 ?? null,
    jsonOf(patch.profile),
    big(patch.failures),
    p.pubkey,
  )
  if (patch.nextTickAt !== undefined) {
    sql('UPDATE agents SET next_tick_at = ? WHERE pubkey = ?').run(big(patch.nextTickAt ?? undefined), p.pubkey)
  }
  if (patch.retryAt !== undefined) sql('UPDATE agents SET retry_at = ? WHERE pubkey = ?').run(big(patch.retryAt ?? undefined), p.pubkey)
})

interface AgentMove {
  readonly pubkey: string
  readonly from: AgentLifecycle
  readonly to: AgentLifecycle
  readonly reason: string
  readonly at: number
  /** When it ticks next in the new state; null: not by the clock. */
  readonly nextTickAt: number | null
}

/** Moves an agent on and records why. A move to its own state only renews the reason. @throws conflict when its state is not `from`. */
export const moveAgent = defineCommand(
  'move_agent',
  (sql, p: AgentMove) => {
    const row = sql('SELECT lifecycle_state, deleted_at FROM agents WHERE pubkey = ?').get(p.pubkey)
    if (row === undefined || row['deleted_at'] !== null) throw new PylonError('agent_not_found', 'The agent is gone.')
    const state = text(row, 'lifecycle_state')
    if (state !== p.from) throw new PylonError('conflict', `The agent is ${state} and no longer ${p.from}.`)
    sql('UPDATE agents SET lifecycle_state = ?, paused_from = ?, state_reason = ?, next_tick_at = ? WHERE pubkey = ?').run(
      p.to,
      p.to === 'paused' ? p.from : null,
      p.reason,
      p.nextTickAt === null ? null : BigInt(p.nextTickAt),
      p.pubkey,
    )
    transition(sql, p.pubkey, p.from, p.to, p.reason, p.at)
  },
  (p) => `move_agent:${p.to}`,
)

export const markAgentDeleted = defineCommand('mark_agent_deleted', (sql, p: { pubkey: string; at: number }) => {
  sql('UPDATE agents SET deleted_at = ?, next_tick_at = NULL WHERE pubkey = ? AND deleted_at IS NULL').run(BigInt(p.at), p.pubkey)
})

function decodeAgent(row: Row): AgentRow {
  return {
    pubkey: text(row, 'pubkey'),
    npub: text(row, 'npub'),
    name: text(row, 'name'),
    accountIndex: intOrNull(row, 'account_index'),
    about: text(row, 'about'),
    brain: json(row, 'brain_json'),
    relays: json(row, 'relays_json'),
    heartbeatS: int(row, 'heartbeat_s'),
    autonomy: text(row, 'autonomy') as AgentAutonomy,
    dmScheme: text(row, 'dm_scheme') as AgentDmScheme,
    budget: json(row, 'budget_json'),
    allow: json(row, 'allow_json'),
    tickFeeSats: int(row, 'tick_fee_sats'),
    state: text(row, 'lifecycle_state') as AgentLifecycle,
    pausedFrom: textOrNull(row, 'paused_from') as AgentLifecycle | null,
    stateReason: text(row, 'state_reason'),
    lud06: textOrNull(row, 'lud06'),
    profile: json(row, 'profile_json'),
    profileDigest: textOrNull(row, 'profile_digest'),
    failures: int(row, 'failures'),
    retryAt: intOrNull(row, 'retry_at'),
    nextTickAt: intOrNull(row, 'next_tick_at'),
    lastTickAt: intOrNull(row, 'last_tick_at'),
    tickCount: int(row, 'tick_count'),
    createdAt: int(row, 'created_at'),
    deletedAt: intOrNull(row, 'deleted_at'),
  }
}

/** The agents that are not deleted, oldest first. */
export function listAgents(store: Store): AgentRow[] {
  return store.sql('SELECT * FROM agents WHERE deleted_at IS NULL ORDER BY created_at, name').all().map(decodeAgent)
}

export function getAgent(store: Store, pubkey: string): AgentRow | undefined {
  const row = store.sql('SELECT * FROM agents WHERE pubkey = ? AND deleted_at IS NULL').get(pubkey)
  return row === undefined ? undefined : decodeAgent(row)
}

/** Keys of agents that were deleted: their addresses are known and may still be paid. */
export function deletedAgents(store: Store): string[] {
  return store
    .sql('SELECT pubkey FROM agents WHERE deleted_at IS NOT NULL')
    .all()
    .map((row) => text(row, 'pubkey'))
}

/** Whether the key is or was an agent of this home. */
export function wasAgent(store: Store, pubkey: string): boolean {
  return store.sql('SELECT 1 FROM agents WHERE pubkey = ?').get(pubkey) !== undefined
}

/** By name, npub or hex key. */
export function findAgent(store: Store, ref: string): AgentRow | undefined {
  const row = store.sql('SELECT * FROM agents WHERE @ref IN (name, npub, pubkey) AND deleted_at IS NULL').get({ ref })
  return row === undefined ? undefined : decodeAgent(row)
}

/** What the agent's wallet holds by the ledger, in millisats: for a node that is stopped. */
export function agentBalanceMsats(store: Store, pubkey: string): bigint {
  return [...balancesOf(store, agentOwner(pubkey), 'wallet').values()].reduce((sum, value) => sum + value, 0n)
}

/** Newest first. */
export function agentTransitions(store: Store, pubkey: string, limit = 100): AgentTransitionRow[] {
  return store
    .sql('SELECT * FROM agent_transitions WHERE agent_pubkey = ? ORDER BY rowid DESC LIMIT ?')
    .all(pubkey, BigInt(limit))
    .map((row) => ({ from: text(row, 'from_state'), to: text(row, 'to_state'), reason: text(row, 'reason'), at: int(row, 'at') }))
}
