/** Ticks: each occasion claimed once, each plan stored whole. */
import { PylonError } from '../../base/errors.ts'
import { defineCommand, type Sql } from '../commands.ts'
import { countOf, int, isThere, text } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'
import { insertAction, type PlannedAction } from './actions.ts'
import { IS_KNOWN } from './heard.ts'

export type { PlannedAction } from './actions.ts'

export type TickState = 'claimed' | 'thinking' | 'acting' | 'done' | 'failed'
export type TickTrigger = 'first' | 'heartbeat' | 'mention' | 'dm' | 'zap' | 'funding' | 'manual'

const ticks = table('ticks', {
  id: column.text(),
  agentPubkey: column.text(),
  number: column.int(),
  slot: column.text(),
  trigger: column.text<TickTrigger>('trigger_type'),
  state: column.text<TickState>(),
  attempts: column.int(),
  observation: column.orNull(column.json<unknown>('observation_json')),
  thought: column.orNull(column.text()),
  costMsats: column.amount(),
  error: column.orNull(column.text()),
  startedAt: column.int(),
  finishedAt: column.orNull(column.int()),
})
export type TickRow = RowOfTable<typeof ticks>

export interface TickClaim {
  readonly id: string
  readonly agentPubkey: string
  readonly slot: string
  readonly trigger: TickTrigger
  readonly at: number
  /** The next heartbeat; undefined leaves it. */
  readonly nextTickAt: number | null | undefined
  /** What was heard and causes the tick: observed before all else that waits. */
  readonly heardId?: string | undefined
}

/** Claims the occasion and what was said to the agent so far, messages and zaps before mentions, which anybody makes in any number, and whom the agent has spoken to before strangers. Undefined when the occasion was claimed before. */
export const claimTick = defineCommand('claim_tick', (sql, p: TickClaim): number | undefined => {
  const number = insertTick(sql, p, { state: 'claimed' })
  if (number === undefined) return undefined
  if (p.nextTickAt !== undefined) {
    sql('UPDATE agents SET next_tick_at = ? WHERE pubkey = ?').run(p.nextTickAt === null ? null : BigInt(p.nextTickAt), p.agentPubkey)
  }
  sql(
    `UPDATE heard SET tick_id = @tick WHERE agent_pubkey = @agent AND id IN
       (SELECT id FROM heard WHERE agent_pubkey = @agent AND tick_id IS NULL
        ORDER BY id = @cause DESC, wakes DESC, type = 'mention', ${IS_KNOWN} DESC, heard_at LIMIT 50)`,
  ).run({ tick: p.id, agent: p.agentPubkey, cause: p.heardId ?? '' })
  return number
})

/** Undefined when the occasion was claimed before. @throws agent_not_found */
function insertTick(
  sql: Sql,
  p: Pick<TickClaim, 'id' | 'agentPubkey' | 'slot' | 'trigger' | 'at'>,
  how: { readonly state: 'claimed' } | { readonly state: 'acting'; readonly thought: string },
): number | undefined {
  const agent = sql('SELECT tick_count FROM agents WHERE pubkey = ? AND deleted_at IS NULL').get(p.agentPubkey)
  if (agent === undefined) throw new PylonError('agent_not_found', 'The agent is gone.')
  const number = int(agent, 'tick_count') + 1
  const { id, agentPubkey, slot, trigger, at: startedAt } = p
  const tick = { id, agentPubkey, number, slot, trigger, startedAt, ...how }
  if (!ticks.insert(sql, tick, 'ON CONFLICT (agent_pubkey, slot) DO NOTHING')) return undefined
  sql('UPDATE agents SET tick_count = ?, last_tick_at = ? WHERE pubkey = ?').run(BigInt(number), BigInt(p.at), p.agentPubkey)
  return number
}

/** One action that somebody asked for, as a tick of its own that is past its thinking and has heard nothing. Whether the occasion is new. */
export const claimErrand = defineCommand(
  'claim_errand',
  (sql, p: Pick<TickClaim, 'id' | 'agentPubkey' | 'slot' | 'at'> & { thought: string; action: PlannedAction }): boolean => {
    const { thought, action, ...claim } = p
    if (insertTick(sql, { ...claim, trigger: 'manual' }, { state: 'acting', thought }) === undefined) return false
    insertAction(sql, action, { tickId: p.id, agentPubkey: p.agentPubkey, index: 0, createdAt: p.at })
    return true
  },
)

/** The tick of an occasion. */
export const tickOfSlot = (store: Store, agentPubkey: string, slot: string): TickRow | undefined =>
  ticks.get(store.sql, { agentPubkey, slot })

/** Counts an attempt to think. The first observation stays: a tick that is tried again sees the same. */
export const beginThinking = defineCommand('begin_thinking', (sql, p: { id: string; observation: unknown }) => {
  const changed = sql(
    `UPDATE ticks SET state = 'thinking', attempts = attempts + 1, observation_json = coalesce(observation_json, ?)
     WHERE id = ? AND state IN ('claimed', 'thinking')`,
  ).run(JSON.stringify(p.observation), p.id)
  if (changed.changes === 0) throw new PylonError('conflict', 'The tick is past thinking.')
})

export const addTickCost = defineCommand('add_tick_cost', (sql, p: { id: string; costMsats: bigint }) => {
  ticks.patch(sql, { id: p.id }, { costMsats: p.costMsats })
})

/** Stores what the brain wants, whole, before any of it is done, and gives back what was heard and shall wait for the next tick. */
export const planTick = defineCommand(
  'plan_tick',
  (
    sql,
    p: {
      id: string
      agentPubkey: string
      thought: string
      costMsats: bigint
      actions: readonly PlannedAction[]
      left: readonly string[]
      at: number
    },
  ) => {
    const changed = sql(
      "UPDATE ticks SET state = 'acting', thought = ?, cost_msats = cost_msats + ? WHERE id = ? AND state = 'thinking'",
    ).run(p.thought, p.costMsats, p.id)
    if (changed.changes === 0) throw new PylonError('conflict', 'The tick is not thinking.')
    for (const id of p.left) sql('UPDATE heard SET tick_id = NULL, passed = passed + 1 WHERE tick_id = ? AND id = ?').run(p.id, id)
    const before = actionsIn(sql, p.id)
    const place = { tickId: p.id, agentPubkey: p.agentPubkey, createdAt: p.at }
    for (const [index, action] of p.actions.entries()) insertAction(sql, action, { ...place, index: before + index })
  },
)

const actionsIn = (sql: Sql, tickId: string): number => countOf(sql, 'SELECT count(*) AS n FROM actions WHERE tick_id = ?', tickId)

/** One action of a tick that still thinks, once by its id. Whether it is there: at most `max` are. @throws conflict when the tick is past thinking */
export const addAction = defineCommand(
  'add_action',
  (sql, p: { tickId: string; agentPubkey: string; action: PlannedAction; max: number; at: number }): boolean => {
    if (ticks.get(sql, { id: p.tickId })?.state !== 'thinking') throw new PylonError('conflict', 'The tick is not thinking.')
    if (isThere(sql, 'SELECT 1 FROM actions WHERE id = ?', p.action.id)) return true
    const index = actionsIn(sql, p.tickId)
    if (index >= p.max) return false
    insertAction(sql, p.action, { tickId: p.tickId, agentPubkey: p.agentPubkey, index, createdAt: p.at })
    return true
  },
)

/** Ends a tick; the agent's failures in a row start anew. */
export const finishTick = defineCommand('finish_tick', (sql, p: { id: string; at: number }) => {
  if (!ticks.patch(sql, { id: p.id, state: 'acting' }, { state: 'done', finishedAt: p.at })) return
  sql('UPDATE agents SET failures = 0, retry_at = NULL WHERE pubkey = (SELECT agent_pubkey FROM ticks WHERE id = ?)').run(p.id)
  // The observation has what was said.
  sql("UPDATE heard SET content = '' WHERE tick_id = ?").run(p.id)
})

/** Ticks that may fail over what one heard. */
export const MAX_TRIES = 3

/**
 * Ends a tick that failed, and leaves the agent alone for a while. What it heard is given to a later tick, a few times,
 * unless the tick had begun to act on it; actions that were not begun then never are.
 */
export const failTick = defineCommand('fail_tick', (sql, p: { id: string; error: string; at: number; retryAt: number | null }) => {
  const row = ticks.get(sql, { id: p.id })
  if (row === undefined || row.state === 'done' || row.state === 'failed') return
  ticks.patch(sql, { id: p.id }, { state: 'failed', error: p.error, finishedAt: p.at })
  // What a brain did by its tools stays done, also where it failed then.
  if (row.state === 'acting' || actionsIn(sql, p.id) > 0) {
    sql(
      "UPDATE actions SET state = 'failed', reason = 'the tick failed before it', updated_at = ? WHERE tick_id = ? AND state = 'planned'",
    ).run(BigInt(p.at), p.id)
  } else {
    sql('UPDATE heard SET tick_id = NULL, tries = tries + 1 WHERE tick_id = ? AND tries + 1 < ?').run(p.id, BigInt(MAX_TRIES))
    const given = countOf(sql, 'SELECT count(*) AS n FROM heard WHERE tick_id = ?', p.id)
    if (given > 0) {
      const words = ` ${given} of what it heard had ${MAX_TRIES} such ticks and ${given === 1 ? 'is' : 'are'} left unanswered.`
      sql('UPDATE ticks SET error = error || ? WHERE id = ?').run(words, p.id)
    }
  }
  sql('UPDATE agents SET failures = failures + 1, retry_at = ? WHERE pubkey = ?').run(
    p.retryAt === null ? null : BigInt(p.retryAt),
    row.agentPubkey,
  )
})

export const getTick = (store: Store, id: string): TickRow | undefined => ticks.get(store.sql, { id })

/** Ticks that a stop or crash left unfinished. */
export const openTicks = (store: Store): { id: string; agentPubkey: string }[] =>
  store
    .sql("SELECT id, agent_pubkey FROM ticks WHERE state IN ('claimed', 'thinking', 'acting') ORDER BY started_at, number")
    .all()
    .map((row) => ({ id: text(row, 'id'), agentPubkey: text(row, 'agent_pubkey') }))

/** Newest first, without what was observed: that is large. */
export const ticksOf = (store: Store, pubkey: string, limit: number): TickRow[] =>
  store
    .sql(
      `SELECT id, agent_pubkey, number, slot, trigger_type, state, attempts, NULL AS observation_json, thought, cost_msats, error, started_at,
         finished_at FROM ticks WHERE agent_pubkey = ? ORDER BY number DESC LIMIT ?`,
    )
    .all(pubkey, BigInt(limit))
    .map((row) => ticks.decode(row))

/** The agent's last tick before that number that observed something. */
export const observedBefore = (store: Store, pubkey: string, number: number): TickRow | undefined =>
  ticks.all(
    store.sql,
    'WHERE agent_pubkey = ? AND number < ? AND number >= ? AND observation_json IS NOT NULL ORDER BY number DESC LIMIT 1',
    pubkey,
    BigInt(number),
    BigInt(number - MAX_OBSERVED),
  )[0]

/** When the ticks since `since` that others caused began, oldest first. */
export const triggeredTicks = (store: Store, pubkey: string, since: number): number[] =>
  store
    .sql(
      "SELECT started_at FROM ticks WHERE agent_pubkey = ? AND started_at > ? AND trigger_type IN ('mention', 'dm', 'zap') ORDER BY started_at",
    )
    .all(pubkey, BigInt(since))
    .map((row) => int(row, 'started_at'))

/** Ticks of an agent whose observation is kept at most, however often others wake it. */
const MAX_OBSERVED = 200

/**
 * Forgets finished ticks, what was heard in them and opened wraps from before `before`, and what was observed before
 * `observedBefore` or many ticks ago, which is most of a tick's size. What was said stays: it may not be said again.
 * @returns whether there may be more to forget: at most `limit` ticks are looked at.
 */
export const sweepTicks = defineCommand('sweep_ticks', (sql, p: { before: number; observedBefore: number; limit: number }): boolean => {
  const before = BigInt(p.before)
  const observed = sql(
    `SELECT id FROM ticks INDEXED BY ticks_observed_at WHERE state IN ('done', 'failed') AND finished_at < @before AND observation_json IS NOT NULL
     UNION SELECT t.id FROM agents a CROSS JOIN ticks t INDEXED BY ticks_observed ON t.agent_pubkey = a.pubkey AND t.number <= a.tick_count - @most
       WHERE t.observation_json IS NOT NULL AND t.state IN ('done', 'failed') LIMIT @limit`,
  ).all({ before: BigInt(p.observedBefore), most: BigInt(MAX_OBSERVED), limit: BigInt(p.limit) })
  for (const row of observed) {
    const id = text(row, 'id')
    sql('UPDATE ticks SET observation_json = NULL WHERE id = ?').run(id)
    sql("UPDATE heard SET content = '', event_json = NULL WHERE tick_id = ?").run(id)
  }
  const old = sql(
    `SELECT id FROM ticks t WHERE finished_at < ? AND state IN ('done', 'failed')
       AND NOT EXISTS (SELECT 1 FROM actions a WHERE a.tick_id = t.id AND a.state IN ('waiting', 'approved', 'claimed', 'unknown')) LIMIT ?`,
  ).all(before, BigInt(p.limit))
  for (const row of old) {
    const id = text(row, 'id')
    sql('DELETE FROM heard WHERE tick_id = ?').run(id)
    sql('DELETE FROM actions WHERE tick_id = ?').run(id)
    sql('DELETE FROM ticks WHERE id = ?').run(id)
  }
  sql('DELETE FROM heard WHERE heard_at < ? AND tick_id IS NULL').run(before)
  sql('DELETE FROM opened_wraps WHERE at < ?').run(before)
  sql("DELETE FROM approvals WHERE state <> 'pending' AND decided_at < ? AND action_id NOT IN (SELECT id FROM actions)").run(before)
  sql(
    `DELETE FROM agent_transitions WHERE at < ? AND EXISTS (SELECT 1 FROM agent_transitions later
       WHERE later.agent_pubkey = agent_transitions.agent_pubkey AND later.rowid > agent_transitions.rowid)`,
  ).run(before)
  return old.length === p.limit || observed.length === p.limit
})
