/** Actions of agents: each is moved by its own writes, so that it happens once. */
import { PylonError } from '../../base/errors.ts'
import { defineCommand, type Row } from '../commands.ts'
import { amount, int, json, text, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'

export type ActionState = 'planned' | 'claimed' | 'published' | 'done' | 'refused' | 'failed' | 'unknown'

export interface ActionRow {
  readonly id: string
  readonly tickId: string
  readonly agentPubkey: string
  readonly index: number
  readonly type: string
  readonly params: unknown
  readonly counterparty: string | null
  readonly state: ActionState
  readonly eventId: string | null
  readonly costMsats: bigint
  readonly reason: string | null
  readonly createdAt: number
  readonly updatedAt: number
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
       reason = @note, updated_at = @at WHERE id = @id AND state = 'planned'`,
  ).run({ counterparty: p.counterparty, event: p.eventId, note: p.note ?? null, at: BigInt(p.at), id: p.id })
  if (changed.changes === 0) throw new PylonError('conflict', 'The action was taken up before.')
  if (p.digest === null) return
  const said = sql(
    'INSERT INTO said (agent_pubkey, digest, action_id) SELECT agent_pubkey, ?, id FROM actions WHERE id = ? ON CONFLICT DO NOTHING',
  ).run(p.digest, p.id)
  if (said.changes === 0) throw new PylonError('action_refused', 'the agent has posted the same text before')
})

/** Ends an action that is planned, claimed or of unknown outcome. */
export const finishAction = defineCommand(
  'finish_action',
  (
    sql,
    p: {
      id: string
      state: Exclude<ActionState, 'planned' | 'claimed'>
      reason: string | null
      costMsats?: bigint
      eventId?: string
      at: number
    },
  ) => {
    sql(
      `UPDATE actions SET state = @state, reason = CASE @state WHEN 'published' THEN coalesce(@reason, reason) ELSE @reason END,
         cost_msats = coalesce(@cost, cost_msats), event_id = coalesce(@event, event_id), updated_at = @at
       WHERE id = @id AND state IN ('planned', 'claimed', 'unknown')`,
    ).run({ state: p.state, reason: p.reason, cost: p.costMsats ?? null, event: p.eventId ?? null, at: BigInt(p.at), id: p.id })
  },
)

/** Ends what was to be published and that no relay takes: failed, in the relays' words. The agent may say the same again. */
export const failPublication = defineCommand('fail_publication', (sql, p: { id: string; reason: string; at: number }) => {
  const { changes } = sql(`UPDATE actions SET state = 'failed', reason = ?, updated_at = ? WHERE id = ? AND state = 'claimed'`).run(
    p.reason,
    BigInt(p.at),
    p.id,
  )
  if (changes > 0) sql('DELETE FROM said WHERE action_id = ?').run(p.id)
})

function decodeAction(row: Row): ActionRow {
  return {
    id: text(row, 'id'),
    tickId: text(row, 'tick_id'),
    agentPubkey: text(row, 'agent_pubkey'),
    index: int(row, 'idx'),
    type: text(row, 'type'),
    params: json(row, 'params_json'),
    counterparty: textOrNull(row, 'counterparty'),
    state: text(row, 'state') as ActionState,
    eventId: textOrNull(row, 'event_id'),
    costMsats: amount(row, 'cost_msats'),
    reason: textOrNull(row, 'reason'),
    createdAt: int(row, 'created_at'),
    updatedAt: int(row, 'updated_at'),
  }
}

export function actionsOf(store: Store, tickId: string): ActionRow[] {
  return store.sql('SELECT * FROM actions WHERE tick_id = ? ORDER BY idx').all(tickId).map(decodeAction)
}

export function getAction(store: Store, id: string): ActionRow | undefined {
  const row = store.sql('SELECT * FROM actions WHERE id = ?').get(id)
  return row === undefined ? undefined : decodeAction(row)
}

/** Actions whose outcome is still open. */
export function openActions(store: Store): ActionRow[] {
  return store.sql("SELECT * FROM actions WHERE state IN ('claimed', 'unknown') ORDER BY created_at").all().map(decodeAction)
}

/** How often the agent has spoken to somebody since `since`. */
export function countSpokenTo(store: Store, pubkey: string, counterparty: string, since: number): number {
  const row = store
    .sql(
      `SELECT count(*) AS n FROM actions WHERE agent_pubkey = ? AND counterparty = ? AND updated_at > ?
         AND type IN ('reply', 'dm', 'react', 'request_payment') AND state IN ('claimed', 'published', 'done')`,
    )
    .get(pubkey, counterparty, BigInt(since))
  return row === undefined ? 0 : int(row, 'n')
}

/** How often the agent has zapped somebody since `since`, payments of open outcome included. */
export function countZapsTo(store: Store, pubkey: string, counterparty: string, since: number): number {
  const row = store
    .sql(
      `SELECT count(*) AS n FROM actions WHERE agent_pubkey = ? AND counterparty = ? AND updated_at > ?
         AND type = 'zap' AND state IN ('claimed', 'unknown', 'done')`,
    )
    .get(pubkey, counterparty, BigInt(since))
  return row === undefined ? 0 : int(row, 'n')
}

/** The texts of the newest posts, newest first. */
export function postsOf(store: Store, pubkey: string, limit: number): string[] {
  return store
    .sql(
      `SELECT params_json ->> 'text' AS said FROM actions WHERE agent_pubkey = ? AND type = 'post' AND state IN ('claimed', 'published')
       ORDER BY updated_at DESC LIMIT ?`,
    )
    .all(pubkey, BigInt(limit))
    .map((row) => text(row, 'said'))
}
