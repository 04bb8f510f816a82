/** How agents of one home answer each other: which tick said what another tick heard. */
import { countOf } from '../row.ts'
import type { Store } from '../store.ts'

/** The action of this home that said or paid what a row `h` of heard tells of. A zap is the sender's last to the agent: a receipt names no action. */
const ORIGIN = `CASE h.type
  WHEN 'zap' THEN (SELECT z.id FROM actions z WHERE z.agent_pubkey = h.sender AND z.counterparty = h.agent_pubkey AND z.type = 'zap'
    AND z.state IN ('claimed', 'unknown', 'done') AND z.created_at <= h.heard_at ORDER BY z.updated_at DESC LIMIT 1)
  ELSE (SELECT s.id FROM actions s WHERE s.said_id = h.id AND s.agent_pubkey = h.sender LIMIT 1) END`

/**
 * How many ticks of this home led to this tick, each by answering what the one before had said: 0 where all it heard came
 * from others, or where it heard nothing and acts by its clock. Not counted beyond `most`.
 */
export const answersBefore = (store: Store, tickId: string, most: number): number =>
  countOf(
    store.sql,
    `WITH RECURSIVE chain (tick_id, depth) AS (
         SELECT @tick, 0
         UNION
         SELECT a.tick_id, chain.depth + 1 FROM chain JOIN heard h ON h.tick_id = chain.tick_id JOIN actions a ON a.id = ${ORIGIN}
         WHERE chain.depth < @most
       ) SELECT max(depth) AS depth FROM chain`,
    { tick: tickId, most: BigInt(most) },
  )

/** The same for a tick that would hear this next. @param heard as it would be stored */
export function answersUpTo(
  store: Store,
  heard: { readonly id: string; readonly type: string; readonly sender: string; readonly agentPubkey: string; readonly heardAt: number },
  most: number,
): number {
  const row = store
    .sql(
      `SELECT a.tick_id AS tick_id FROM (SELECT @id AS id, @type AS type, @sender AS sender, @agent AS agent_pubkey, @at AS heard_at) h
         JOIN actions a ON a.id = ${ORIGIN}`,
    )
    .get({ id: heard.id, type: heard.type, sender: heard.sender, agent: heard.agentPubkey, at: BigInt(heard.heardAt) })
  const tickId = row?.['tick_id']
  return typeof tickId === 'string' ? 1 + answersBefore(store, tickId, most) : 0
}
