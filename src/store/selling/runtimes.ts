/** Runtimes: machines that this node provides, every step of their lives with its reason, and what was collected from them. */
import { PylonError } from '../../base/errors.ts'
import type { Json } from '../../base/json.ts'
import { RUNTIME_STEPS, type RuntimeState } from '../../base/states.ts'
import { type Command, defineCommand } from '../commands.ts'
import { countOf, int, text, textsOf } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOf, type StepOf, Steps, type StepTaken, Table } from '../table.ts'

/** Who failed a runtime that is not well: its guest ended by itself, its host lost it, or nobody reaches it. */
export type AwayCause = 'guest' | 'host' | 'network'

const COLUMNS = {
  /** `<provider>-<16 hex>` */
  id: column.text(),
  provider: column.text<'incus' | 'local' | 'microvm' | 'fly' | 'workers'>(),
  ownerPubkey: column.text(),
  runtimeClass: column.text(),
  protocol: column.orNull(column.text<'pi' | 'acp'>()),
  state: column.text<RuntimeState>(),
  stateReason: column.text(),
  /** A RuntimeSpec. */
  spec: column.json<Json>(),
  /** What provision needs beyond the spec; may hold secrets, null once the runtime is ready. */
  input: column.orNull(column.json<Json>()),
  /** Of the adapter. */
  handle: column.orNull(column.json<Json>()),
  region: column.orNull(column.text()),
  protocols: column.json<readonly ('pi' | 'acp')[]>(),
  botPubkey: column.orNull(column.text()),
  metadata: column.json<Json>(),
  keepVolume: column.flag(),
  /** Milliseconds since the epoch, as all times below. */
  deadline: column.orNull(column.int()),
  /** A RuntimeTerminalResult. */
  result: column.orNull(column.json<Json>()),
  expiresAt: column.orNull(column.int()),
  lastSnapshotAt: column.orNull(column.int()),
  /** Who failed it, and when it was last seen well, or first seen not to be; null while it is well. */
  away: column.orNull(column.group({ cause: column.text<AwayCause>('away_cause'), since: column.int('away_since') })),
  createdAt: column.int(),
  updatedAt: column.int(),
}
type Columns = RowOf<typeof COLUMNS>

/** Where there is an instance the adapter can find it. */
export type RuntimeRow = Columns &
  (
    | { readonly state: 'ready' | 'unreachable' | 'ended'; readonly handle: Json }
    | { readonly state: 'requested' | 'provisioning' | 'failed' | 'teardown' | 'gone' }
  )

const isRuntime = (row: Columns): row is RuntimeRow => row.handle !== null || !['ready', 'unreachable', 'ended'].includes(row.state)

const runtimes = new Table('runtimes', COLUMNS, isRuntime)
const steps = new Steps('runtime_transitions', 'runtime_id', RUNTIME_STEPS)

export type NewRuntime = Pick<
  Columns,
  'id' | 'provider' | 'ownerPubkey' | 'runtimeClass' | 'protocol' | 'spec' | 'region' | 'botPubkey' | 'keepVolume' | 'expiresAt'
> & { readonly input: Json; readonly reason: string; readonly at: number }

/** What a step may set besides the state. */
export type RuntimePatch = Partial<
  Pick<Columns, 'input' | 'handle' | 'region' | 'protocols' | 'metadata' | 'keepVolume' | 'deadline' | 'result' | 'expiresAt' | 'away'>
>

type RuntimeStep = StepOf<RuntimeState, RuntimePatch>

/** Records a runtime in `requested`. @throws conflict when the id is known */
export const insertRuntime = defineCommand(
  'insert_runtime',
  (sql, { at, reason, ...runtime }: NewRuntime) => {
    const row = { ...runtime, state: 'requested' as const, stateReason: reason, createdAt: at, updatedAt: at }
    if (!runtimes.insert(sql, row, 'ON CONFLICT (id) DO NOTHING'))
      throw new PylonError('conflict', `There is a runtime ${runtime.id} already.`)
    steps.begin(sql, runtime.id, { to: 'requested', reason, at })
  },
  () => 'move_runtime:requested',
)

/** Takes a runtime from one state to another. @throws conflict when it is not in `from`, internal for a step that there is not; then nothing changed */
export const moveRuntime: (p: RuntimeStep) => Command<void> = defineCommand(
  'move_runtime',
  (sql, { id, patch, ...step }: RuntimeStep) => {
    const change = { ...patch, state: step.to, stateReason: step.reason, updatedAt: step.at }
    steps.take(sql, id, step, () => runtimes.patch(sql, { id, state: step.from }, change))
  },
  (p) => `move_runtime:${p.to}`,
)

/** What is known now of a runtime whose state stays. */
export const patchRuntime = defineCommand('patch_runtime', (sql, p: { id: string; patch: RuntimePatch; at: number }) => {
  runtimes.patch(sql, { id: p.id }, { ...p.patch, updatedAt: p.at })
})

/** The key of the agent inside, from the first time on for good. @returns the one that it has, or undefined where there is no such runtime */
export const bindBot = defineCommand('bind_bot', (sql, p: { id: string; pubkey: string; at: number }): string | undefined => {
  runtimes.patch(sql, { id: p.id, botPubkey: null }, { botPubkey: p.pubkey, updatedAt: p.at })
  return runtimes.get(sql, { id: p.id })?.botPubkey ?? undefined
})

export const noteSnapshot = defineCommand('note_snapshot', (sql, p: { id: string; at: number }) => {
  runtimes.patch(sql, { id: p.id }, { lastSnapshotAt: p.at })
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
    let over = countOf(sql, 'SELECT coalesce(sum(output_bytes), 0) FROM runtimes WHERE output_bytes > 0') - p.keepBytes
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
  const ids = textsOf(sql, old, BigInt(p.before), BigInt(p.limit))
  for (const id of ids) {
    sql('UPDATE leases SET extends_id = NULL WHERE runtime_id = ?').run(id)
    sql('DELETE FROM runtimes WHERE id = ?').run(id)
  }
  return ids.length
})

export const getRuntime = (store: Store, id: string): RuntimeRow | undefined => runtimes.get(store.sql, { id })

/** Sorted by id. */
export const runtimesOf = (store: Store, ownerPubkey: string): RuntimeRow[] =>
  runtimes.all(store.sql, 'WHERE owner_pubkey = ? ORDER BY id', ownerPubkey)

/** Oldest change first. */
export const runtimesIn = (store: Store, states: readonly RuntimeState[]): RuntimeRow[] =>
  runtimes.all(store.sql, 'WHERE state IN (SELECT value FROM json_each(?)) ORDER BY updated_at, id', JSON.stringify(states))

export function countRuntimes(store: Store): Partial<Record<RuntimeState, number>> {
  const rows = store.sql(`SELECT state, count(*) AS total FROM runtimes WHERE state <> 'gone' GROUP BY state`).all()
  return Object.fromEntries(rows.map((row) => [text(row, 'state'), int(row, 'total')]))
}

/** In the order they were taken. */
export const runtimeTransitions = (store: Store, id: string): StepTaken<RuntimeState>[] => steps.newest(store.sql, id).reverse()

/** Names and sizes in bytes of what was collected. */
export const listOutputs = (store: Store, runtimeId: string): { name: string; bytes: number }[] =>
  store
    .sql('SELECT name, length(data) AS bytes FROM runtime_outputs WHERE runtime_id = ? ORDER BY name')
    .all(runtimeId)
    .map((row) => ({ name: text(row, 'name'), bytes: int(row, 'bytes') }))

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
