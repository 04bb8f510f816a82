/** What agents remember: bounded, the oldest folded into a summary. */
import { defineCommand } from '../commands.ts'
import { int, text } from '../row.ts'
import type { Store } from '../store.ts'

export interface MemoryRow {
  readonly type: 'remember' | 'summary'
  readonly content: string
  readonly createdAt: number
}

const MAX_MEMORIES = 100
const COMPACTED_AT_ONCE = 50
const SUMMARY_CHARS = 2000

/** Adds a memory, once an action; the oldest are folded into one summary when there are too many. */
export const addMemory = defineCommand(
  'add_memory',
  (sql, p: { agentPubkey: string; content: string; actionId: string | null; at: number }) => {
    sql(
      "INSERT INTO memories (agent_pubkey, type, content, action_id, created_at) VALUES (?, 'remember', ?, ?, ?) ON CONFLICT DO NOTHING",
    ).run(p.agentPubkey, p.content, p.actionId, BigInt(p.at))
    const count = sql('SELECT count(*) AS n FROM memories WHERE agent_pubkey = ?').get(p.agentPubkey)
    if (count === undefined || int(count, 'n') <= MAX_MEMORIES) return
    const oldest = sql('SELECT * FROM memories WHERE agent_pubkey = ? ORDER BY id LIMIT ?').all(p.agentPubkey, BigInt(COMPACTED_AT_ONCE))
    const last = oldest.at(-1)
    if (last === undefined) return
    // The newest words of the old summary survive longest: cut from the front.
    const summary = oldest
      .map((row) => (text(row, 'type') === 'summary' ? text(row, 'content') : text(row, 'content').slice(0, 80)))
      .join(' · ')
      .slice(-SUMMARY_CHARS)
    const lastId = last['id'] as bigint
    sql('DELETE FROM memories WHERE agent_pubkey = ? AND id <= ?').run(p.agentPubkey, lastId)
    sql("INSERT INTO memories (id, agent_pubkey, type, content, created_at) VALUES (?, ?, 'summary', ?, ?)").run(
      lastId,
      p.agentPubkey,
      summary,
      BigInt(p.at),
    )
  },
)

/** Newest first. */
export function memoriesOf(store: Store, pubkey: string, limit: number): MemoryRow[] {
  return store
    .sql('SELECT * FROM memories WHERE agent_pubkey = ? ORDER BY id DESC LIMIT ?')
    .all(pubkey, BigInt(limit))
    .map((row) => ({ type: text(row, 'type') as MemoryRow['type'], content: text(row, 'content'), createdAt: int(row, 'created_at') }))
}
