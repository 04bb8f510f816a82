/** Runtimes: machines that this node provides, every step of their lives with its reason, and what was collected from them. */
import { PylonError } from '../../base/errors.ts'
import { type Json, stringify } from '../../base/json.ts'
import { type Command, defineCommand, type Row, type Sql } from '../commands.ts'
import { int, intOrNull, json, jsonOrNull, text, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'

/** The closed set of states; which step follows which is decided by provider/machines/runtime-life.ts. */
export const RUNTIME_STATES = ['requested', 'provisioning', 'ready', 'unreachable', 'ended', 'failed', 'teardown', 'gone'] as const
export type RuntimeState = (typeof RUNTIME_STATES)[number]

/** Who failed a runtime that is not well: its guest ended by itself, its host lost it, or nobody reaches it. */
export const AWAY_CAUSES = ['guest', 'host', 'network'] as const
export type AwayCause = (typeof AWAY_CAUSES)[number]

export interface RuntimeRow {
  /** `<provider>-<16 hex>` */
  readonly id: string
  readonly provider: 'incus' | 'local' | 'microvm' | 'fly' | 'workers'
  readonly ownerPubkey: string
  readonly runtimeClass: string
  readonly protocol: 'pi' | 'acp' | null
  readonly state: RuntimeState
  readonly stateReason: string
  /** A RuntimeSpec. */
  readonly spec: Json
  /** What provision needs beyond the spec; may hold secrets, null once the runtime is ready. */
  readonly input: Json | null
  /** Of the adapter. */
  readonly handle: Json | null
  readonly region: string | null
  readonly protocols: readonly ('pi' | 'acp')[]
  readonly botPubkey: string | null
  readonly metadata: Json
  readonly keepVolume: boolean
  /** Milliseconds since the epoch, as all times below. */
  readonly deadline: number | null
  /** A RuntimeTerminalResult. */
  readonly result: Json | null
  readonly expiresAt: number | null
  readonly lastSnapshotAt: number | null
  /** Null while it is well, as is awaySince. */
  readonly awayCause: AwayCause | null
  readonly awaySince: number | null
  readonly createdAt: number
  readonly updatedAt: number
}

export interface NewRuntime {
  readonly id: string
  readonly provider: RuntimeRow['provider']
  readonly ownerPubkey: string
  readonly runtimeClass: string
  readonly protocol: RuntimeRow['protocol']
  readonly spec: Json
  readonly input: Json
  readonly region: string | null
  readonly botPubkey: string | null
  readonly keepVolume: boolean
  readonly expiresAt: number | null
  readonly reason: string
  readonly at: number
}

/** Columns that a step may set besides the state. */
export interface RuntimePatch {
  readonly input?: Json | null
  readonly handle?: Json | null
  readonly region?: string | null
  readonly protocols?: readonly ('pi' | 'acp')[]
  readonly metadata?: Json
  readonly keepVolume?: boolean
  readonly deadline?: number | null
  readonly result?: Json | null
  readonly expiresAt?: number | null
  readonly awayCause?: AwayCause | null
  readonly awaySince?: number | null
}

export interface RuntimeStep {
  readonly id: string
  readonly from: RuntimeState
  readonly to: RuntimeState
  readonly reason: string
  readonly at: number
  readonly patch?: RuntimePatch
}

export interface RuntimeTransitionRow {
  readonly from: RuntimeState | null
  readonly to: RuntimeState
  readonly reason: string
  readonly at: number
}

const COLUMN_OF: Readonly<Record<keyof RuntimePatch, string>> = {
  input: 'input',
  handle: 'handle',
  region: 'region',
  protocols: 'protocols',
  metadata: 'metadata',
  keepVolume: 'keep_volume',
  deadline: 'deadline',
  result: 'result',
  expiresAt: 'expires_at',
  awayCause: 'away_cause',
  awaySince: 'away_since',
}
const JSON_COLUMNS: readonly (keyof RuntimePatch)[] = ['input', 'handle', 'protocols', 'metadata', 'result']

function toSql(key: keyof RuntimePatch, value: unknown): bigint | string | null {
  if (value === null || value === undefined) return null
  if (JSON_COLUMNS.includes(key)) return stringify(value)
  if (typeof value === 'boolean') return value ? 1n : 0n
  if (typeof value === 'number') return BigInt(Math.floor(value))
  return String(value)
}

/** Records a runtime in `requested`. @throws conflict when the id is known */
export const insertRuntime = defineCommand(
  'insert_runtime',
  (sql, p: NewRuntime) => {
    const inserted = sql(
      `INSERT INTO runtimes (id, provider, owner_pubkey, runtime_class, protocol, state, state_reason, spec, input, region, bot_pubkey,
         keep_volume, expires_at, created_at, updated_at)
       VALUES (?, ?, ?, ?, ?, 'requested', ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
    ).run(
      ...[p.id, p.provider, p.ownerPubkey, p.runtimeClass, p.protocol, p.reason, stringify(p.spec), stringify(p.input), p.region],
      ...[p.botPubkey, p.keepVolume ? 1n : 0n, p.expiresAt === null ? null : BigInt(p.expiresAt), BigInt(p.at), BigInt(p.at)],
    )
    if (inserted.changes === 0) throw new PylonError('conflict', `There is a runtime ${p.id} already.`)
    noteStep(sql, p.id, null, 'requested', p.reason, p.at)
  },
  () => 'move_runtime:requested',
)

/** Takes a runtime from one state to another. @throws conflict when it is not in `from`; then nothing changed */
export const moveRuntime: (p: RuntimeStep) => Command<void> = defineCommand(
  'move_runtime',
  (sql, p: RuntimeStep) => {
    const patch = Object.entries(p.patch ?? {}) as [keyof RuntimePatch, unknown][]
    const sets = patch.map(([key]) => `, ${COLUMN_OF[key]} = ?`).join('')
    const changed = sql(`UPDATE runtimes SET state = ?, state_reason = ?, updated_at = ?${sets} WHERE id = ? AND state = ?`).run(
      ...[p.to, p.reason, BigInt(p.at)],
      ...patch.map(([key, value]) => toSql(key, value)),
      ...[p.id, p.from],
    )
    if (changed.changes === 0) throw new PylonError('conflict', `The runtime ${p.id} is not ${p.from} any more.`)
    noteStep(sql, p.id, p.from, p.to, p.reason, p.at)
  },
  (p) => `move_runtime:${p.to}`,
)

function noteStep(sql: Sql, id: string, from: string | null, to: string, reason: string, at: number): void {
  sql('INSERT INTO runtime_transitions (runtime_id, from_state, to_state, reason, at) VALUES (?, ?, ?, ?, ?)').run(
    id,
    from,
    to,
    reason,
    BigInt(at),
  )
}

/** What is known now of a runtime whose state stays. */
export const patchRuntime = defineCommand('patch_runtime', (sql, p: { id: string; patch: RuntimePatch; at: number }) => {
  for (const [key, value] of Object.entries(p.patch) as [keyof RuntimePatch, unknown][]) {
    sql(`UPDATE runtimes SET ${COLUMN_OF[key]} = ?, updated_at = ? WHERE id = ?`).run(toSql(key, value), BigInt(p.at), p.id)
  }
})

export const noteSnapshot = defineCommand('note_snapshot', (sql, p: { id: string; at: number }) => {
  sql('UPDATE runtimes SET last_snapshot_at = ? WHERE id = ?').run(BigInt(p.at), p.id)
})

/**
 * Keeps what was collected; the same name again takes its place. Where all of it together is over `keepBytes`, what was
 * collected from those that are gone goes, the oldest first.
 */
export const putOutputs = defineCommand(
  'put_outputs',
  (sql, p: { runtimeId: string; outputs: readonly { name: string; data: Uint8Array }[]; keepBytes: number }) => {
    for (const { name, data } of p.outputs) {
      sql(
        'INSERT INTO runtime_outputs (runtime_id, name, data) VALUES (?, ?, ?) ON CONFLICT (runtime_id, name) DO UPDATE SET data = excluded.data',
      ).run(p.runtimeId, name, Buffer.from(data))
    }
    sql(
      `UPDATE runtimes SET output_bytes = (SELECT coalesce(sum(length(data)), 0) FROM runtime_outputs WHERE runtime_id = ?) WHERE id = ?`,
    ).run(p.runtimeId, p.runtimeId)
    const total = sql('SELECT coalesce(sum(output_bytes), 0) AS bytes FROM runtimes WHERE output_bytes > 0').get()
    let over = (total === undefined ? 0 : int(total, 'bytes')) - p.keepBytes
    if (over <= 0) return
    for (const row of sql(
      `SELECT id, output_bytes FROM runtimes WHERE output_bytes > 0 AND state = 'gone' AND id <> ? ORDER BY updated_at`,
    ).all(p.runtimeId)) {
      if (over <= 0) return
      sql('DELETE FROM runtime_outputs WHERE runtime_id = ?').run(text(row, 'id'))
      sql('UPDATE runtimes SET output_bytes = 0 WHERE id = ?').run(text(row, 'id'))
      over -= int(row, 'output_bytes')
    }
  },
)

/** Forgets runtimes that are gone since before a time (ms), their outputs and ended leases with them, at most `limit`. Returns how many. */
export const pruneRuntimes = defineCommand('prune_runtimes', (sql, p: { before: number; limit: number }): number => {
  const old = `SELECT id FROM runtimes WHERE state = 'gone' AND updated_at < ?
     AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.runtime_id = runtimes.id AND l.state NOT IN ('ended', 'refunded', 'expired')) LIMIT ?`
  const ids = sql(old)
    .all(BigInt(p.before), BigInt(p.limit))
    .map((row) => text(row, 'id'))
  for (const id of ids) {
    sql('UPDATE leases SET extends_id = NULL WHERE runtime_id = ?').run(id)
    sql('DELETE FROM runtimes WHERE id = ?').run(id)
  }
  return ids.length
})

export function getRuntime(store: Store, id: string): RuntimeRow | undefined {
  const row = store.sql('SELECT * FROM runtimes WHERE id = ?').get(id)
  return row === undefined ? undefined : decodeRuntime(row)
}

/** Sorted by id. */
export function runtimesOf(store: Store, ownerPubkey: string): RuntimeRow[] {
  return store.sql('SELECT * FROM runtimes WHERE owner_pubkey = ? ORDER BY id').all(ownerPubkey).map(decodeRuntime)
}

/** Oldest change first. */
export function runtimesIn(store: Store, states: readonly RuntimeState[]): RuntimeRow[] {
  return store
    .sql('SELECT * FROM runtimes WHERE state IN (SELECT value FROM json_each(?)) ORDER BY updated_at, id')
    .all(JSON.stringify(states))
    .map(decodeRuntime)
}

export function countRuntimes(store: Store): Partial<Record<RuntimeState, number>> {
  const rows = store.sql(`SELECT state, count(*) AS total FROM runtimes WHERE state <> 'gone' GROUP BY state`).all()
  return Object.fromEntries(rows.map((row) => [text(row, 'state'), int(row, 'total')]))
}

export function runtimeTransitions(store: Store, id: string): RuntimeTransitionRow[] {
  return store
    .sql('SELECT * FROM runtime_transitions WHERE runtime_id = ? ORDER BY id')
    .all(id)
    .map((row) => ({
      from: textOrNull(row, 'from_state') as RuntimeState | null,
      to: text(row, 'to_state') as RuntimeState,
      reason: text(row, 'reason'),
      at: int(row, 'at'),
    }))
}

/** Names and sizes in bytes of what was collected. */
export function listOutputs(store: Store, runtimeId: string): { name: string; bytes: number }[] {
  return store
    .sql('SELECT name, length(data) AS bytes FROM runtime_outputs WHERE runtime_id = ? ORDER BY name')
    .all(runtimeId)
    .map((row) => ({ name: text(row, 'name'), bytes: int(row, 'bytes') }))
}

/** A page of an output, or undefined where there is no such. */
export function readOutput(
  store: Store,
  p: { runtimeId: string; name: string; offset: number; limit: number },
): { data: Buffer; totalBytes: number } | undefined {
  const row = store
    .sql('SELECT substr(data, ?, ?) AS page, length(data) AS bytes FROM runtime_outputs WHERE runtime_id = ? AND name = ?')
    .get(BigInt(p.offset + 1), BigInt(p.limit), p.runtimeId, p.name)
  if (row === undefined) return undefined
  const page = row['page']
  return { data: Buffer.isBuffer(page) ? page : Buffer.alloc(0), totalBytes: int(row, 'bytes') }
}

function decodeRuntime(row: Row): RuntimeRow {
  return {
    id: text(row, 'id'),
    provider: text(row, 'provider') as RuntimeRow['provider'],
    ownerPubkey: text(row, 'owner_pubkey'),
    runtimeClass: text(row, 'runtime_class'),
    protocol: textOrNull(row, 'protocol') as RuntimeRow['protocol'],
    state: text(row, 'state') as RuntimeState,
    stateReason: text(row, 'state_reason'),
    spec: json(row, 'spec'),
    input: jsonOrNull(row, 'input'),
    handle: jsonOrNull(row, 'handle'),
    region: textOrNull(row, 'region'),
    protocols: json(row, 'protocols'),
    botPubkey: textOrNull(row, 'bot_pubkey'),
    metadata: json(row, 'metadata'),
    keepVolume: int(row, 'keep_volume') === 1,
    deadline: intOrNull(row, 'deadline'),
    result: jsonOrNull(row, 'result'),
    expiresAt: intOrNull(row, 'expires_at'),
    lastSnapshotAt: intOrNull(row, 'last_snapshot_at'),
    awayCause: textOrNull(row, 'away_cause') as RuntimeRow['awayCause'],
    awaySince: intOrNull(row, 'away_since'),
    createdAt: int(row, 'created_at'),
    updatedAt: int(row, 'updated_at'),
  }
}
