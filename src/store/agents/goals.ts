/** What agents are after. */
import { defineCommand } from '../commands.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

const goals = table('goals', {
  id: column.text(),
  agentPubkey: column.text(),
  description: column.text(),
  priority: column.int(),
  status: column.text<'active' | 'paused' | 'completed' | 'cancelled'>(),
  progress: column.int(),
  createdAt: column.int(),
  updatedAt: column.int(),
})
export type GoalRow = Pick<RowOfTable<typeof goals>, 'id' | 'description' | 'priority' | 'status' | 'progress'>

/** Adds a goal, or updates the one of the same words. */
export const putGoal = defineCommand('put_goal', (sql, { agentPubkey, goal, at }: { agentPubkey: string; goal: GoalRow; at: number }) => {
  const [known] = goals.all(sql, 'WHERE agent_pubkey = ? AND (id = ? OR description = ?)', agentPubkey, goal.id, goal.description)
  if (known === undefined) goals.insert(sql, { ...goal, agentPubkey, createdAt: at, updatedAt: at })
  else goals.patch(sql, { id: known.id }, { ...goal, id: known.id, updatedAt: at })
  // Goals that are over are history: the oldest give way, so that the list stays short.
  sql(
    `DELETE FROM goals WHERE id IN (SELECT id FROM goals WHERE agent_pubkey = ?
       ORDER BY status = 'active' DESC, updated_at DESC LIMIT -1 OFFSET 50)`,
  ).run(agentPubkey)
})

export const replaceGoals = defineCommand('replace_goals', (sql, p: { agentPubkey: string; goals: readonly GoalRow[]; at: number }) => {
  sql('DELETE FROM goals WHERE agent_pubkey = ?').run(p.agentPubkey)
  for (const goal of p.goals) goals.insert(sql, { ...goal, agentPubkey: p.agentPubkey, createdAt: p.at, updatedAt: p.at })
})

/** The most important first. */
export const goalsOf = (store: Store, pubkey: string): GoalRow[] =>
  goals
    .all(store.sql, "WHERE agent_pubkey = ? ORDER BY status = 'active' DESC, priority, created_at, rowid", pubkey)
    .map(({ id, description, priority, status, progress }) => ({ id, description, priority, status, progress }))
