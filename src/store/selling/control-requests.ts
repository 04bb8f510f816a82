/** Commands of the runtime control plane: claimed once for each requester and idempotency key, kept with their statuses and answer. */
import { PylonError } from '../../base/errors.ts'
import { type Json, stringify } from '../../base/json.ts'
import { defineCommand, type Row } from '../commands.ts'
import { int, json, jsonOrNull, text, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'

export type RequestState = 'running' | 'succeeded' | 'failed'

export interface ControlRequestRow {
  readonly requester: string
  readonly idempotencyKey: string
  /** The name of the command. */
  readonly command: string
  readonly digest: string
  /** Of the first envelope that brought it. */
  readonly requestId: string
  readonly state: RequestState
  readonly runtimeId: string | null
  /** As they were sent, without schema and request id. */
  readonly statuses: readonly Json[]
  /** `{ runtime, payload }` or `{ code, hint, detail }`; null while it runs. */
  readonly terminal: Json | null
  readonly attempts: number
  /** Milliseconds since the epoch. */
  readonly createdAt: number
  readonly updatedAt: number
}

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
    const row = sql('SELECT * FROM control_requests WHERE requester = ? AND idempotency_key = ?').get(p.requester, p.idempotencyKey)
    if (row === undefined) {
      sql(
        `INSERT INTO control_requests (requester, idempotency_key, command, digest, request_id, state, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, 'running', ?, ?)`,
      ).run(p.requester, p.idempotencyKey, p.command, p.digest, p.requestId, BigInt(p.at), BigInt(p.at))
      return { state: 'new', attempts: 1, createdAt: p.at }
    }
    const known = decodeRequest(row)
    if (known.digest !== p.digest) {
      throw new PylonError('idempotency_conflict', 'This idempotency key came with another command; use a new key for a new command.')
    }
    if (known.state !== 'failed') return { state: 'known', row: known }
    sql(
      `UPDATE control_requests SET state = 'running', terminal = NULL, statuses = '[]', runtime_id = NULL, request_id = ?,
         attempts = attempts + 1, updated_at = ? WHERE requester = ? AND idempotency_key = ?`,
    ).run(p.requestId, BigInt(p.at), p.requester, p.idempotencyKey)
    return { state: 'new', attempts: known.attempts + 1, createdAt: known.createdAt }
  },
  () => 'claim_request',
)

/** Names the runtime that a running command makes or means. */
export const bindRequest = defineCommand('bind_request', (sql, p: { requester: string; idempotencyKey: string; runtimeId: string }) => {
  sql('UPDATE control_requests SET runtime_id = ? WHERE requester = ? AND idempotency_key = ?').run(
    ...[p.runtimeId, p.requester, p.idempotencyKey],
  )
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
    sql(
      `UPDATE control_requests SET state = ?, terminal = ?, updated_at = ? WHERE requester = ? AND idempotency_key = ? AND state = 'running'`,
    ).run(p.state, stringify(p.terminal), BigInt(p.at), p.requester, p.idempotencyKey)
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

export function getRequest(store: Store, requester: string, idempotencyKey: string): ControlRequestRow | undefined {
  const row = store.sql('SELECT * FROM control_requests WHERE requester = ? AND idempotency_key = ?').get(requester, idempotencyKey)
  return row === undefined ? undefined : decodeRequest(row)
}

/** Those that a restart found under way. */
export function runningRequests(store: Store): ControlRequestRow[] {
  return store.sql(`SELECT * FROM control_requests WHERE state = 'running' ORDER BY created_at`).all().map(decodeRequest)
}

/** The command that made a runtime, while it is kept. */
export function requestOf(store: Store, runtimeId: string): ControlRequestRow | undefined {
  const row = store
    .sql(`SELECT * FROM control_requests WHERE runtime_id = ? AND command IN ('provision', 'run') ORDER BY created_at DESC LIMIT 1`)
    .get(runtimeId)
  return row === undefined ? undefined : decodeRequest(row)
}

function decodeRequest(row: Row): ControlRequestRow {
  return {
    requester: text(row, 'requester'),
    idempotencyKey: text(row, 'idempotency_key'),
    command: text(row, 'command'),
    digest: text(row, 'digest'),
    requestId: text(row, 'request_id'),
    state: text(row, 'state') as RequestState,
    runtimeId: textOrNull(row, 'runtime_id'),
    statuses: json(row, 'statuses'),
    terminal: jsonOrNull(row, 'terminal'),
    attempts: int(row, 'attempts'),
    createdAt: int(row, 'created_at'),
    updatedAt: int(row, 'updated_at'),
  }
}
