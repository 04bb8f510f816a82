/** Idempotency keys of the control socket: claimed with the digest of their request before anything is done, then answered once. */
import { PylonError } from '../../base/errors.ts'
import { defineCommand } from '../commands.ts'
import { intOrNull, text } from '../row.ts'

export type KeyClaim = { readonly state: 'new' } | { readonly state: 'answered'; readonly status: number; readonly body: string }

/**
 * Claims a key. `new` also when it was claimed before and never answered (a crash in between): handlers are idempotent by it.
 * @throws idempotency_conflict when the key came with another request.
 */
export const claimKey = defineCommand('claim_key', (sql, p: { key: string; route: string; digest: string; at: number }): KeyClaim => {
  const row = sql('SELECT route, request_digest, status, response FROM idempotency WHERE key = ?').get(p.key)
  if (row === undefined) {
    sql('INSERT INTO idempotency (key, route, request_digest, created_at) VALUES (?, ?, ?, ?)').run(p.key, p.route, p.digest, BigInt(p.at))
    return { state: 'new' }
  }
  if (text(row, 'route') !== p.route || text(row, 'request_digest') !== p.digest) {
    throw new PylonError('idempotency_conflict', 'This Idempotency-Key was used with another request; use a new key for a new request.')
  }
  const status = intOrNull(row, 'status')
  return status === null ? { state: 'new' } : { state: 'answered', status, body: text(row, 'response') }
})

/** Stores what the key answers from now on. */
export const answerKey = defineCommand('answer_key', (sql, p: { key: string; status: number; body: string }) => {
  sql('UPDATE idempotency SET status = ?, response = ? WHERE key = ? AND status IS NULL').run(BigInt(p.status), p.body, p.key)
})

/** Forgets keys and finished tasks older than a time in ms. */
export const pruneCalls = defineCommand('prune_calls', (sql, p: { before: number }) => {
  sql('DELETE FROM idempotency WHERE created_at < ?').run(BigInt(p.before))
  sql("DELETE FROM tasks WHERE state <> 'running' AND created_at < ?").run(BigInt(p.before))
})
