/** What agents remember: bounded, the oldest folded into a summary. */
import { defineCommand } from '../commands.ts'
import { countOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

const memories = table('memories', {
  id: column.int(),
  agentPubkey: column.text(),
  type: column.text<'remember' | 'summary'>(),
  content: column.text(),
  actionId: column.orNull(column.text()),
  createdAt: column.int(),
})
export type MemoryRow = RowOfTable<typeof memories>

const MAX_MEMORIES = 100
const COMPACTED_AT_ONCE = 50
const SUMMARY_CHARS = 2000

/** Adds a memory, once an action; the oldest are folded into one summary when there are too many. */
export const addMemory = defineCommand(
  'add_memory',
  (sql, { at, ...memory }: { agentPubkey: string; content: string; actionId: string | null; at: number }) => {
    const { agentPubkey } = memory
    memories.insert(sql, { ...memory, type: 'remember', createdAt: at }, 'ON CONFLICT DO NOTHING')
    if (countOf(sql, 'SELECT count(*) FROM memories WHERE agent_pubkey = ?', agentPubkey) <= MAX_MEMORIES) return
    const oldest = memories.all(sql, 'WHERE agent_pubkey = ? ORDER BY id LIMIT ?', agentPubkey, BigInt(COMPACTED_AT_ONCE))
    const last = oldest.at(-1)
    if (last === undefined) return
    // The newest words of the old summary survive longest: cut from the front.
    const content = oldest
      .map((row) => (row.type === 'summary' ? row.content : row.content.slice(0, 80)))
      .join(' · ')
      .slice(-SUMMARY_CHARS)
    sql('DELETE FROM memories WHERE agent_pubkey = ? AND id <= ?').run(agentPubkey, BigInt(last.id))
    memories.insert(sql, { id: last.id, agentPubkey, type: 'summary', content, createdAt: at })
  },
)

/** Newest first. */
export const memoriesOf = (store: Store, pubkey: string, limit: number): MemoryRow[] =>
  memories.all(store.sql, 'WHERE agent_pubkey = ? ORDER BY id DESC LIMIT ?', pubkey, BigInt(limit))
