/** What agents are after. */
import { defineCommand } from '../commands.ts'
import { int, text } from '../row.ts'
import type { Store } from '../store.ts'

export interface GoalRow {
  readonly id: string
  readonly description: string
  readonly priority: number
  readonly status: 'active' | 'paused' | 'completed' | 'cancelled'
  readonly progress: number
}

/** Adds a goal, or updates the one of the same words. */
export const putGoal = defineCommand('put_goal', (sql, p: { agentPubkey: string; goal: GoalRow; at: number }) => {
  const known = sql('SELECT id FROM goals WHERE agent_pubkey = ? AND (id = ? OR description = ?)').get(
    p.agentPubkey,
    p.goal.id,
    p.goal.description,
  )
  sql(
    `INSERT INTO goals (id, agent_pubkey, description, priority, status, progress, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT (id) DO UPDATE SET description = excluded.description, priority = excluded.priority, status = excluded.status,
       progress = excluded.progress, updated_at = excluded.updated_at`,
  ).run(
    known === undefined ? p.goal.id : text(known, 'id'),
    p.agentPubkey,
    p.goal.description,
    BigInt(p.goal.priority),
    p.goal.status,
    BigInt(p.goal.progress),
    BigInt(p.at),
    BigInt(p.at),
  )
  // Goals that are over are history: the oldest give way, so that the list stays short.
  sql(
    `DELETE FROM goals WHERE id IN (SELECT id FROM goals WHERE agent_pubkey = ?
       ORDER BY status = 'active' DESC, updated_at DESC LIMIT -1 OFFSET 50)`,
  ).run(p.agentPubkey)
})

export const replaceGoals = defineCommand('replace_goals', (sql, p: { agentPubkey: string; goals: readonly GoalRow[]; at: number }) => {
  sql('DELETE FROM goals WHERE agent_pubkey = ?').run(p.agentPubkey)
  for (const goal of p.goals) {
    sql(
      'INSERT INTO goals (id, agent_pubkey, description, priority, status, progress, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
    ).run(goal.id, p.agentPubkey, goal.description, BigInt(goal.priority), goal.status, BigInt(goal.progress), BigInt(p.at), BigInt(p.at))
  }
})

/** The most important first. */
export function goalsOf(store: Store, pubkey: string): GoalRow[] {
  return store
    .sql("SELECT * FROM goals WHERE agent_pubkey = ? ORDER BY status = 'active' DESC, priority, created_at, rowid")
    .all(pubkey)
    .map((row) => ({
      id: text(row, 'id'),
      description: text(row, 'description'),
      priority: int(row, 'priority'),
      status: text(row, 'status') as GoalRow['status'],
      progress: int(row, 'progress'),
    }))
}
