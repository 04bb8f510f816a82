/** Commands of the runtime control plane: claimed once for each requester and idempotency key, kept with their statuses and answer. */
import { PylonError } from '../../base/errors.ts'
import { type Json, stringify } from '../../base/json.ts'
import { defineCommand } from '../commands.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'

export type RequestState = 'running' | 'succeeded' | 'failed'

const requests = table('control_requests', {
  requester: column.text(),
  idempotencyKey: column.text(),
  /** The name of the command. */
  command: column.text(),
  digest: column.text(),
  /** Of the first envelope that brought it. */
  requestId: column.text(),
  state: column.text<RequestState>(),
  runtimeId: column.orNull(column.text()),
  /** As they were sent, without schema and request id. */
  statuses: column.json<readonly Json[]>(),
  /** `{ runtime, payload }` or `{ code, hint, detail }`; null while it runs. */
  terminal: column.orNull(column.json<Json>()),
  attempts: column.int(),
  /** Milliseconds since the epoch. */
  createdAt: column.int(),
  updatedAt: column.int(),
})
export type ControlRequestRow = RowOfTable<typeof requests>

/** Statuses that are kept of one command. */
const MAX_STATUSES = 64

/**
 * `new`: it is the caller's to run, also when an earlier try failed (errors are not kept as answers).
 * `known`: it runs, or has succeeded.
 */
export type RequestClaim =
  | { readonly state: 'new'; readonly attempts: number; readonly createdAt: number }
  | { readonly state: 'known'; readonly row: ControlRequestRow }

/** @throws idempotency_conflict when the key came with another command */
export const claimRequest = defineCommand(
  'claim_request',
  (sql, p: { requester: string; idempotencyKey: string; command: string; digest: string; requestId: string; at: number }): RequestClaim => {
    const { at, ...command } = p
    const name = { requester: p.requester, idempotencyKey: p.idempotencyKey }
    const known = requests.get(sql, name)
    if (known === undefined) {
      requests.insert(sql, { ...command, state: 'running', createdAt: at, updatedAt: at })
      return { state: 'new', attempts: 1, createdAt: at }
    }
    if (known.digest !== p.digest) {
      throw new PylonError('idempotency_conflict', 'This idempotency key came with another command; use a new key for a new command.')
    }
    if (known.state !== 'failed') return { state: 'known', row: known }
    const { requestId } = p
    const attempts = known.attempts + 1
    requests.patch(sql, name, { state: 'running', terminal: null, statuses: [], runtimeId: null, requestId, attempts, updatedAt: at })
    return { state: 'new', attempts, createdAt: known.createdAt }
  },
  () => 'claim_request',
)

/** Names the runtime that a running command makes or means. */
export const bindRequest = defineCommand('bind_request', (sql, p: { requester: string; idempotencyKey: string; runtimeId: string }) => {
  requests.patch(sql, { requester: p.requester, idempotencyKey: p.idempotencyKey }, { runtimeId: p.runtimeId })
})

export const noteStatus = defineCommand(
  'note_status',
  (sql, p: { requester: string; idempotencyKey: string; status: Json; at: number }) => {
    sql(
      `UPDATE control_requests SET statuses = json_insert(statuses, '$[#]', json(?)), updated_at = ?
       WHERE requester = ? AND idempotency_key = ? AND json_array_length(statuses) < ${MAX_STATUSES}`,
    ).run(stringify(p.status), BigInt(p.at), p.requester, p.idempotencyKey)
  },
)

/** Ends a running command; the label tells faults apart. */
export const finishRequest = defineCommand(
  'finish_request',
  (sql, p: { requester: string; idempotencyKey: string; state: 'succeeded' | 'failed'; terminal: Json; at: number }) => {
    const { requester, idempotencyKey, state, terminal, at: updatedAt } = p
    requests.patch(sql, { requester, idempotencyKey, state: 'running' }, { state, terminal, updatedAt })
  },
  (p) => `finish_request:${p.state}`,
)

/**
 * Forgets ended commands: those from before a time (ms), and those beyond `keep`. Of these failures go first, then the oldest of
 * whoever has most: nobody drives out the answers of another. Returns how many.
 */
export const pruneRequests = defineCommand('prune_requests', (sql, p: { before: number; keep: number }): number => {
  const old = sql(`DELETE FROM control_requests WHERE state <> 'running' AND updated_at < ?`).run(BigInt(p.before)).changes
  const many = sql(
    `DELETE FROM control_requests WHERE (requester, idempotency_key) IN (
       SELECT requester, idempotency_key FROM control_requests WHERE state <> 'running'
       ORDER BY state = 'failed', row_number() OVER (PARTITION BY requester, state ORDER BY updated_at DESC) LIMIT -1 OFFSET ?)`,
  ).run(BigInt(p.keep)).changes
  return old + many
})

export const getRequest = (store: Store, requester: string, idempotencyKey: string): ControlRequestRow | undefined =>
  requests.get(store.sql, { requester, idempotencyKey })

/** Those that a restart found under way. */
export const runningRequests = (store: Store): ControlRequestRow[] => requests.all(store.sql, `WHERE state = 'running' ORDER BY created_at`)

/** The command that made a runtime, while it is kept. */
export const requestOf = (store: Store, runtimeId: string): ControlRequestRow | undefined =>
  requests.all(store.sql, `WHERE runtime_id = ? AND command IN ('provision', 'run') ORDER BY created_at DESC LIMIT 1`, runtimeId)[0]
