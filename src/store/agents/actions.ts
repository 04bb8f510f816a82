/** Actions of agents: each is moved by its own writes, so that it happens once. */
import { PylonError } from '../../base/errors.ts'
import { ACTION_STEPS, type ActionState, statesBefore } from '../../base/states.ts'
import { defineCommand, type Sql } from '../commands.ts'
import { countOf, textsOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

/** In SQL, as the index of these has it. */
const IS_OPEN = "state IN ('planned', 'waiting', 'approved', 'claimed', 'unknown')"

/** In SQL: the states that may become `to`. */
const before = (to: ActionState): string =>
  statesBefore(ACTION_STEPS, to)
    .map((state) => `'${state}'`)
    .join(', ')

const actions = table('actions', {
  id: column.text(),
  tickId: column.text(),
  agentPubkey: column.text(),
  index: column.int('idx'),
  type: column.text(),
  params: column.json<unknown>('params_json'),
  counterparty: column.orNull(column.text()),
  state: column.text<ActionState>(),
  eventId: column.orNull(column.text()),
  costMsats: column.amount(),
  reason: column.orNull(column.text()),
  createdAt: column.int(),
  updatedAt: column.int(),
})
export type ActionRow = RowOfTable<typeof actions>

export interface PlannedAction extends Pick<ActionRow, 'id' | 'type' | 'params'> {
  /** Set where it is already refused, with the reason. */
  readonly refused?: string
}

/** Part of the commit that plans a tick. */
export function insertAction(
  sql: Sql,
  { refused, ...action }: PlannedAction,
  place: Pick<ActionRow, 'tickId' | 'agentPubkey' | 'index' | 'createdAt'>,
): void {
  const state = refused === undefined ? 'planned' : 'refused'
  actions.insert(sql, { ...action, ...place, state, reason: refused, updatedAt: place.createdAt })
}

interface ActionClaim {
  readonly id: string
  readonly counterparty: string | null
  /** Of what is said; of a private message the rumor's, until its wrap is published. */
  readonly eventId: string | null
  /** Digest of words that the agent says only once. */
  readonly digest: string | null
  /** For the owner, beside what became of it. */
  readonly note?: string
  readonly at: number
}

/**
 * Takes an action up; in one write with its outbox row it happens exactly once.
 * @throws conflict when it was taken up before, action_refused when the agent has said the same before.
 */
export const claimAction = defineCommand('claim_action', (sql, p: ActionClaim) => {
  const changed = sql(
    `UPDATE actions SET state = 'claimed', counterparty = coalesce(@counterparty, counterparty), event_id = @event, said_id = @event,
       reason = @note, updated_at = @at WHERE id = @id AND state IN (${before('claimed')})`,
  ).run({ counterparty: p.counterparty, event: p.eventId, note: p.note ?? null, at: BigInt(p.at), id: p.id })
  if (changed.changes === 0) throw new PylonError('conflict', 'The action was taken up before.')
  if (p.digest === null) return
  const said = sql(
    'INSERT INTO said (agent_pubkey, digest, action_id) SELECT agent_pubkey, ?, id FROM actions WHERE id = ? ON CONFLICT DO NOTHING',
  ).run(p.digest, p.id)
  if (said.changes === 0) throw new PylonError('action_refused', 'the agent has posted the same text before')
})

/** Part of the commit that asks its owner. @throws conflict where it was taken up before */
export function waitAction(sql: Sql, p: { id: string; counterparty: string | null; reason: string; at: number }): void {
  const { counterparty, reason, at: updatedAt } = p
  const isWaiting = actions.patch(sql, { id: p.id, state: 'planned' }, { state: 'waiting', counterparty, reason, updatedAt })
  if (!isWaiting) throw new PylonError('conflict', 'The action was taken up before.')
}

/** Part of the commit that decides. */
export function decideAction(sql: Sql, p: { id: string; to: 'approved' | 'refused'; reason: string; at: number }): void {
  actions.patch(sql, { id: p.id, state: 'waiting' }, { state: p.to, reason: p.reason, updatedAt: p.at })
}

/** Ends an action that is planned, approved, claimed or of unknown outcome. */
export const finishAction = defineCommand(
  'finish_action',
  (
    sql,
    p: {
      id: string
      state: Exclude<ActionState, 'planned' | 'waiting' | 'approved' | 'claimed'>
      reason: string | null
      costMsats?: bigint
      eventId?: string
      at: number
    },
  ) => {
    sql(
      `UPDATE actions SET state = @state, reason = CASE @state WHEN 'published' THEN coalesce(@reason, reason) ELSE @reason END,
         cost_msats = coalesce(@cost, cost_msats), event_id = coalesce(@event, event_id), updated_at = @at
       WHERE id = @id AND state IN (${before(p.state)})`,
    ).run({ state: p.state, reason: p.reason, cost: p.costMsats ?? null, event: p.eventId ?? null, at: BigInt(p.at), id: p.id })
  },
)

/** Ends what was to be published and that no relay takes: failed, in the relays' words. The agent may say the same again. */
export const failPublication = defineCommand('fail_publication', (sql, p: { id: string; reason: string; at: number }) => {
  const isFailed = actions.patch(sql, { id: p.id, state: 'claimed' }, { state: 'failed', reason: p.reason, updatedAt: p.at })
  if (isFailed) sql('DELETE FROM said WHERE action_id = ?').run(p.id)
})

export const actionsOf = (store: Store, tickId: string): ActionRow[] => actions.all(store.sql, 'WHERE tick_id = ? ORDER BY idx', tickId)

export const getAction = (store: Store, id: string): ActionRow | undefined => actions.get(store.sql, { id })

/** Actions whose outcome is still open. */
export const openActions = (store: Store): ActionRow[] =>
  actions.all(store.sql, `WHERE ${IS_OPEN} AND state IN ('claimed', 'unknown') ORDER BY created_at`)

/** How often the agent has spoken to somebody since `since`. */
export const countSpokenTo = (store: Store, pubkey: string, counterparty: string, since: number): number =>
  countOf(
    store.sql,
    `SELECT count(*) AS n FROM actions WHERE agent_pubkey = ? AND counterparty = ? AND updated_at > ?
         AND type IN ('reply', 'dm', 'react', 'request_payment') AND state IN ('claimed', 'published', 'done')`,
    pubkey,
    counterparty,
    BigInt(since),
  )

/** How often the agent has zapped somebody since `since`, payments of open outcome included. */
export const countZapsTo = (store: Store, pubkey: string, counterparty: string, since: number): number =>
  countOf(
    store.sql,
    `SELECT count(*) AS n FROM actions WHERE agent_pubkey = ? AND counterparty = ? AND updated_at > ?
         AND type = 'zap' AND state IN ('claimed', 'unknown', 'done')`,
    pubkey,
    counterparty,
    BigInt(since),
  )

/** The texts of the newest posts, newest first. */
export const postsOf = (store: Store, pubkey: string, limit: number): string[] =>
  textsOf(
    store.sql,
    `SELECT params_json ->> 'text' AS said FROM actions WHERE agent_pubkey = ? AND type = 'post' AND state IN ('claimed', 'published')
       ORDER BY updated_at DESC LIMIT ?`,
    pubkey,
    BigInt(limit),
  )
