/** Managed agents: each runs in a runtime and is talked to in a session; by the idempotency key of the call that made it. */
import { PylonError } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import { type Cleanup, MANAGED_STEPS, type ManagedPhase } from '../../base/states.ts'
import { assertNameFree } from '../agents/names.ts'
import { defineCommand } from '../commands.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, Steps, table } from '../table.ts'

/** A welcome that a runtime is handed beside the relays. */
export interface StoredWelcome {
  readonly wrapperEventId: string
  /** The rumor of kind 444, JSON. */
  readonly rumorJson: string
}

const agents = table('managed_agents', {
  id: column.text(),
  name: column.text(),
  digest: column.text(),
  server: column.text('server_pubkey'),
  /** A provision command. */
  command: column.json<Json>(),
  maxSats: column.orNull(column.int()),
  payWith: column.orNull(column.text<'invoice' | 'token'>()),
  keep: column.flag(),
  phase: column.text<ManagedPhase>(),
  reason: column.orNull(column.text()),
  errorCode: column.orNull(column.text()),
  cleanup: column.text<Cleanup>(),
  cleanupReason: column.orNull(column.text()),
  runtimeId: column.orNull(column.text()),
  runtime: column.orNull(column.json<Json>()),
  payload: column.orNull(column.json<Json>()),
  botPubkey: column.orNull(column.text()),
  groupId: column.orNull(column.text()),
  welcomes: column.json<readonly StoredWelcome[]>(),
  /** Milliseconds since the epoch, as below. */
  createdAt: column.int(),
  updatedAt: column.int(),
})
export type ManagedAgentRow = RowOfTable<typeof agents>
export type ManagedAgentPatch = Partial<
  Pick<
    ManagedAgentRow,
    | 'reason'
    | 'errorCode'
    | 'cleanup'
    | 'cleanupReason'
    | 'runtimeId'
    | 'runtime'
    | 'payload'
    | 'botPubkey'
    | 'groupId'
    | 'welcomes'
    | 'keep'
  >
>

export interface ManagedStep {
  readonly id: number
  readonly phase: ManagedPhase
  readonly message: string
  readonly at: number
}

const steps = new Steps('managed_agent_steps', 'agent_id', MANAGED_STEPS)
const stepRows = table('managed_agent_steps', {
  id: column.int(),
  phase: column.text<ManagedPhase>('to_state'),
  message: column.text('reason'),
  at: column.int(),
})
/** Steps of one agent that are kept; a node may tell more than that. */
const MAX_STEPS = 200
const MAX_WORDS = 1000

type NewManagedAgent = Pick<ManagedAgentRow, 'id' | 'name' | 'digest' | 'server' | 'command' | 'maxSats' | 'payWith' | 'keep'>

/** @returns the record that holds from then on @throws idempotency_conflict, agent_exists */
export const claimManagedAgent = defineCommand('claim_managed_agent', (sql, p: NewManagedAgent & { at: number }): ManagedAgentRow => {
  const { at, ...asked } = p
  const known = agents.get(sql, { id: p.id })
  if (known !== undefined && known.digest !== p.digest)
    throw new PylonError('idempotency_conflict', 'This idempotency key was used for another agent: use a new one.')
  if (known !== undefined) return known
  assertNameFree(sql, p.name)
  agents.insert(sql, { ...asked, phase: 'requested', cleanup: 'none', welcomes: [], createdAt: at, updatedAt: at })
  steps.begin(sql, p.id, { to: 'requested', reason: 'asked for', at })
  const row = agents.get(sql, { id: p.id })
  if (row === undefined) throw new PylonError('internal', 'A managed agent was not recorded.')
  return row
})

/** One step, with what is known from then on. @throws conflict when it has moved on meanwhile */
export const stepManagedAgent = defineCommand(
  'step_managed_agent',
  (sql, p: { id: string; from: ManagedPhase; to: ManagedPhase; message: string; patch?: ManagedAgentPatch; at: number }) => {
    const { id, from, to, at } = p
    steps.take(sql, id, { from, to, reason: p.message.slice(0, MAX_WORDS), at }, () =>
      agents.patch(sql, { id, phase: from }, { ...p.patch, phase: to, updatedAt: at }),
    )
    sql(
      `DELETE FROM managed_agent_steps WHERE agent_id = ? AND id NOT IN
         (SELECT id FROM managed_agent_steps WHERE agent_id = ? ORDER BY id DESC LIMIT ${MAX_STEPS})`,
    ).run(p.id, p.id)
  },
  ({ to }) => `step_managed_agent:${to}`,
)

export const patchManagedAgent = defineCommand('patch_managed_agent', (sql, p: { id: string; patch: ManagedAgentPatch; at: number }) => {
  agents.patch(sql, { id: p.id }, { ...p.patch, updatedAt: p.at })
})

/** Forgets those that ended, or failed with nothing left of them, before a time. */
export const sweepManagedAgents = defineCommand('sweep_managed_agents', (sql, p: { before: number }) => {
  sql(`DELETE FROM managed_agents WHERE (phase = 'ended' OR (phase = 'failed' AND cleanup IN ('none', 'done'))) AND updated_at < ?`).run(
    BigInt(p.before),
  )
})

export const getManagedAgent = (store: Store, id: string): ManagedAgentRow | undefined => agents.get(store.sql, { id })

/** By name, id or key of its bot; one that is there before one that failed, the newest first. Ended ones are not found. */
export const findManagedAgent = (store: Store, ref: string): ManagedAgentRow | undefined =>
  agents.all(
    store.sql,
    `WHERE (name = ? OR id = ? OR bot_pubkey = ?) AND phase <> 'ended' ORDER BY phase = 'failed', created_at DESC LIMIT 1`,
    ...[ref, ref, ref],
  )[0]

/** Those that have not ended, the newest first. */
export const listManagedAgents = (store: Store): ManagedAgentRow[] =>
  agents.all(store.sql, "WHERE phase <> 'ended' ORDER BY created_at DESC, rowid DESC LIMIT 1000")

/** After a step, oldest first. */
export const stepsOfManagedAgent = (store: Store, id: string, after = 0): ManagedStep[] =>
  stepRows.all(store.sql, 'WHERE agent_id = ? AND id > ? ORDER BY id', id, BigInt(after))

/** Whether this key is, or was, the bot of an agent of ours that has not ended. */
export const isBotOfOurs = (store: Store, pubkey: string): boolean =>
  agents.all(store.sql, "WHERE bot_pubkey = ? AND phase <> 'ended' LIMIT 1", pubkey).length > 0
