/** Approvals: actions that wait for their owner. A decision moves the approval and its action in one commit, once. */
import { PylonError } from '../../base/errors.ts'
import { APPROVAL_STEPS, type ApprovalState, canStep } from '../../base/states.ts'
import { decideAction, waitAction } from '../agents/actions.ts'
import { defineCommand, type Sql } from '../commands.ts'
import { countOf, textsOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'
import { appendAudit } from './audit.ts'

const approvals = table('approvals', {
  id: column.int(),
  actionId: column.text(),
  agentPubkey: column.text(),
  type: column.text(),
  params: column.json<unknown>('params_json'),
  /** What it may spend, fees not counted; 0 where it spends nothing. */
  amountSats: column.amount(),
  counterparty: column.orNull(column.text()),
  /** Why it waits. */
  why: column.text(),
  state: column.text<ApprovalState>(),
  decidedBy: column.orNull(column.text()),
  reason: column.orNull(column.text()),
  askedAt: column.int(),
  expiresAt: column.int(),
  decidedAt: column.orNull(column.int()),
  /** The tick that was told how it ended. */
  observedIn: column.orNull(column.text()),
})
export type ApprovalRow = RowOfTable<typeof approvals>

/** What waits of one agent at most: a brain that asks for ever fills no list. */
const MAX_PENDING = 50

export type NewApproval = Pick<
  ApprovalRow,
  'actionId' | 'agentPubkey' | 'type' | 'params' | 'amountSats' | 'counterparty' | 'why' | 'askedAt' | 'expiresAt'
>

/** Has a planned action wait for its owner. @throws action_refused where too many wait, conflict where it was taken up before */
export const askApproval = defineCommand('ask_approval', (sql, p: NewApproval): number => {
  const waiting = countOf(sql, "SELECT count(*) AS n FROM approvals WHERE agent_pubkey = ? AND state = 'pending'", p.agentPubkey)
  if (waiting >= MAX_PENDING) throw new PylonError('action_refused', `${waiting} actions of this agent wait for its owner already`)
  approvals.insert(sql, { ...p, state: 'pending' })
  const row = approvals.get(sql, { actionId: p.actionId })
  if (row === undefined) throw new PylonError('internal', 'The approval was not stored.')
  waitAction(sql, {
    id: p.actionId,
    counterparty: p.counterparty,
    reason: `waits for its owner, as approval ${row.id}: ${p.why}`,
    at: p.askedAt,
  })
  const { agentPubkey: agent, type, amountSats, counterparty } = p
  appendAudit(sql, {
    at: p.askedAt,
    kind: 'approval_asked',
    data: { id: row.id, agent, type, amount_sats: Number(amountSats), to: counterparty },
  })
  return row.id
})

export interface Decision {
  readonly id: number
  readonly to: 'approved' | 'denied'
  /** `owner` at the socket, or the key that wrote. */
  readonly by: string
  readonly reason: string | null
  readonly at: number
}

/**
 * Decides once; the same again changes nothing. What has run out is expired by this, whatever was said.
 * @returns what it is now @throws approval_not_found
 */
export const decideApproval = defineCommand('decide_approval', (sql, p: Decision): ApprovalRow => {
  const row = approvals.get(sql, { id: p.id })
  if (row === undefined)
    throw new PylonError('approval_not_found', `There is no approval ${p.id}; pylon approvals list shows those that wait.`)
  if (row.state !== 'pending') return row
  if (row.expiresAt <= p.at) return end(sql, row, { to: 'expired', by: null, reason: null, at: p.at })
  return end(sql, row, p)
})

function end(
  sql: Sql,
  row: ApprovalRow,
  { to, by, reason, at }: { to: ApprovalState; by: string | null; reason: string | null; at: number },
): ApprovalRow {
  if (!canStep(APPROVAL_STEPS, row.state, to)) throw new PylonError('internal', `An approval that is ${row.state} cannot be ${to}.`)
  approvals.patch(sql, { id: row.id, state: 'pending' }, { state: to, decidedBy: by, reason, decidedAt: at })
  decideAction(sql, { id: row.actionId, to: to === 'approved' ? 'approved' : 'refused', reason: wordsOf(to, reason), at })
  appendAudit(sql, { at, kind: 'approval_decided', data: { id: row.id, state: to, by, reason } })
  return { ...row, state: to, decidedBy: by, reason, decidedAt: at }
}

function wordsOf(to: ApprovalState, reason: string | null): string {
  if (to === 'approved') return 'its owner approved it'
  const words = to === 'expired' ? 'its owner did not answer in time' : 'its owner denied it'
  return reason === null ? words : `${words}: ${reason}`
}

/** Ends what has run out, and what is left of agents that are gone. @returns how many */
export const expireApprovals = defineCommand('expire_approvals', (sql, p: { at: number }): number => {
  const due = approvals.all(
    sql,
    `WHERE state = 'pending' AND (expires_at <= ? OR agent_pubkey IN (SELECT pubkey FROM agents WHERE deleted_at IS NOT NULL)) LIMIT 500`,
    BigInt(p.at),
  )
  for (const row of due) end(sql, row, { to: 'expired', by: null, reason: null, at: p.at })
  return due.length
})

/** Part of the commit that begins a tick's thinking: the agent has been told of these. */
export const observeApprovals = defineCommand('observe_approvals', (sql, p: { ids: readonly number[]; tickId: string }) => {
  for (const id of p.ids) approvals.patch(sql, { id, observedIn: null }, { observedIn: p.tickId })
})

export const getApproval = (store: Store, id: number): ApprovalRow | undefined => approvals.get(store.sql, { id })

/** Oldest first. @param after this id, which is lower than those wanted */
export const pendingApprovals = (store: Store, limit: number, after = 0): ApprovalRow[] =>
  approvals.all(store.sql, "WHERE state = 'pending' AND id > ? ORDER BY id LIMIT ?", BigInt(after), BigInt(limit))

/** Newest first, whatever became of them. */
export const recentApprovals = (store: Store, limit: number): ApprovalRow[] =>
  approvals.all(store.sql, 'ORDER BY id DESC LIMIT ?', BigInt(limit))

export const countPending = (store: Store): number => countOf(store.sql, "SELECT count(*) AS n FROM approvals WHERE state = 'pending'")

/** Those of one agent that wait, and those that ended and that it was not told of. */
export const approvalsToObserve = (store: Store, agentPubkey: string, limit: number): ApprovalRow[] =>
  approvals.all(store.sql, 'WHERE agent_pubkey = ? AND observed_in IS NULL ORDER BY id DESC LIMIT ?', agentPubkey, BigInt(limit))

export const isApproved = (store: Store, actionId: string): boolean => approvals.get(store.sql, { actionId })?.state === 'approved'

/** Actions that were approved and are not done: to be taken up, or that a crash cut short. */
export const approvedActions = (store: Store): string[] =>
  textsOf(
    store.sql,
    `SELECT a.id FROM actions a JOIN approvals p ON p.action_id = a.id
     WHERE a.state IN ('planned', 'waiting', 'approved', 'claimed', 'unknown') AND a.state IN ('approved', 'claimed', 'unknown') AND p.state = 'approved' ORDER BY p.id`,
  )
