/** The events of the relay in SQLite: what is kept, replaced, deleted and found. */
import Database from 'better-sqlite3'
import { expirationOf, isAddressable, isHex64, isReplaceable, type NostrEvent, tagValue } from '../nostr-event.ts'
import type { Filter } from './filter.ts'

const SCHEMA = `
CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  pubkey TEXT NOT NULL,
  kind INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  d TEXT,
  expires_at INTEGER,
  json TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS events_time ON events (created_at DESC, id);
CREATE INDEX IF NOT EXISTS events_kind ON events (kind, created_at DESC, id);
CREATE INDEX IF NOT EXISTS events_author ON events (pubkey, kind, created_at DESC, id);
CREATE INDEX IF NOT EXISTS events_expiry ON events (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS tags (
  tag TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  seq INTEGER NOT NULL REFERENCES events (seq) ON DELETE CASCADE,
  kind INTEGER NOT NULL,
  PRIMARY KEY (tag, created_at, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_event ON tags (seq);
CREATE TABLE IF NOT EXISTS deletions (
  target TEXT NOT NULL,
  pubkey TEXT NOT NULL,
  until INTEGER NOT NULL,
  PRIMARY KEY (target, pubkey)
) STRICT, WITHOUT ROWID;
`
const FOREVER = Number.MAX_SAFE_INTEGER
/** Strangers choose the shape of filters, so what is kept of prepared statements is bounded. */
const MAX_STATEMENTS = 500

/** `stored` is new and goes to subscribers; `duplicate` counts as success; `deleted` is refused. */
export type InsertOutcome = 'stored' | 'duplicate' | 'superseded' | 'deleted'

export class EventStore {
  readonly #db: Database.Database
  readonly #statements = new Map<string, Database.Statement>()

  /** Opens or creates the database at `path`; losing the last commits in a power cut is acceptable for a relay. */
  constructor(path: string) {
    this.#db = new Database(path)
    this.#db.pragma('journal_mode = WAL')
    this.#db.pragma('synchronous = NORMAL')
    this.#db.pragma('foreign_keys = ON')
    this.#db.exec(SCHEMA)
  }

  close(): void {
    this.#db.close()
  }

  /** Runs `fn` in one transaction. */
  transaction<T>(fn: () => T): T {
    return this.#db.transaction(fn).immediate()
  }

  /** Stores a verified, non-ephemeral event by the rules of its kind. `json` is its text as it will be served. */
  insert(event: NostrEvent, json: string): InsertOutcome {
    if (this.#sql('SELECT 1 FROM events WHERE id = ?').get(event.id) !== undefined) return 'duplicate'
    const d = isAddressable(event.kind) ? (tagValue(event, 'd') ?? '') : null
    if (this.#isDeleted(event, d)) return 'deleted'
    if ((isReplaceable(event.kind) || d !== null) && !this.#replaceOlder(event, d)) return 'superseded'
    const { lastInsertRowid } = this.#sql(
      'INSERT INTO events (id, pubkey, kind, created_at, d, expires_at, json) VALUES (?, ?, ?, ?, ?, ?, ?)',
    ).run(event.id, event.pubkey, event.kind, event.created_at, d, expirationOf(event) ?? null, json)
    const addTag = this.#sql('INSERT OR IGNORE INTO tags (tag, created_at, seq, kind) VALUES (?, ?, ?, ?)')
    for (const [name, value] of event.tags) {
      if (name?.length === 1 && value !== undefined) addTag.run(name + value, event.created_at, lastInsertRowid, event.kind)
    }
    if (event.kind === 5) this.#applyDeletion(event)
    return 'stored'
  }

  #isDeleted(event: NostrEvent, d: string | null): boolean {
    if (event.kind === 5) return false
    const find = this.#sql('SELECT until FROM deletions WHERE target = ? AND pubkey = ?').pluck()
    if (find.get(event.id, event.pubkey) !== undefined) return true
    if (d === null && !isReplaceable(event.kind)) return false
    const until = find.get(`${event.kind}:${event.pubkey}:${d ?? ''}`, event.pubkey)
    return typeof until === 'number' && event.created_at <= until
  }

  /** Removes the older version; false when the stored one wins (newer, or as old with the lower id). */
  #replaceOlder(event: NostrEvent, d: string | null): boolean {
    const old = this.#sql('SELECT seq, id, created_at FROM events WHERE pubkey = ? AND kind = ? AND d IS ?').get(
      event.pubkey,
      event.kind,
      d,
    ) as { seq: number; id: string; created_at: number } | undefined
    if (old === undefined) return true
    if (old.created_at > event.created_at || (old.created_at === event.created_at && old.id < event.id)) return false
    this.#sql('DELETE FROM events WHERE seq = ?').run(old.seq)
    return true
  }

  /** NIP-09: removes what the author asks for, and remembers it, so that it does not come back. */
  #applyDeletion(request: NostrEvent): void {
    const remember = this.#sql(
      'INSERT INTO deletions (target, pubkey, until) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET until = max(until, excluded.until)',
    )
    for (const [name, value] of request.tags) {
      if (value === undefined) continue
      if (name === 'e' && isHex64(value)) {
        const target = this.#sql('SELECT kind FROM events WHERE id = ?').pluck().get(value)
        if (target === 5) continue
        this.#sql('DELETE FROM events WHERE id = ? AND pubkey = ?').run(value, request.pubkey)
        remember.run(value, request.pubkey, FOREVER)
      } else if (name === 'a') {
        const [kind, pubkey, ...rest] = value.split(':')
        if (pubkey !== request.pubkey || kind === undefined || !/^\d{1,5}$/.test(kind)) continue
        const d = isAddressable(Number(kind)) ? rest.join(':') : null
        if (d === null && !isReplaceable(Number(kind))) continue
        this.#sql('DELETE FROM events WHERE pubkey = ? AND kind = ? AND d IS ? AND created_at <= ?').run(
          pubkey,
          Number(kind),
          d,
          request.created_at,
        )
        remember.run(`${Number(kind)}:${pubkey}:${d ?? ''}`, pubkey, request.created_at)
      }
    }
  }

  /** The stored events of one filter as JSON texts, newest first, equal times by lowest id; expired ones are left out. */
  query(filter: Filter, maxLimit: number, nowSeconds: number): { id: string; json: string }[] {
    const limit = Math.min(filter.limit ?? maxLimit, maxLimit)
    if (limit === 0) return []
    const { from, where, order, parameters } = plan(filter, nowSeconds)
    return this.#sql(`SELECT e.id, e.json FROM ${from} WHERE ${where} ORDER BY ${order} LIMIT ?`).all(...parameters, limit) as {
      id: string
      json: string
    }[]
  }

  /** How many stored events match any of the filters (NIP-45). */
  count(filters: readonly Filter[], nowSeconds: number): number {
    const parts = filters.map((filter) => plan(filter, nowSeconds))
    const union = parts.map((part) => `SELECT e.seq FROM ${part.from} WHERE ${part.where}`).join(' UNION ')
    return this.#sql(`SELECT count(*) FROM (${union})`)
      .pluck()
      .get(...parts.flatMap((part) => part.parameters)) as number
  }

  deleteExpired(nowSeconds: number): void {
    this.#sql('DELETE FROM events WHERE expires_at IS NOT NULL AND expires_at <= ?').run(nowSeconds)
  }

  #sql(text: string): Database.Statement {
    let statement = this.#statements.get(text)
    if (statement === undefined) {
      if (this.#statements.size >= MAX_STATEMENTS) this.#statements.clear()
      statement = this.#db.prepare(text)
      this.#statements.set(text, statement)
    }
    return statement
  }
}

interface QueryPlan {
  readonly from: string
  readonly where: string
  readonly order: string
  readonly parameters: unknown[]
}

/**
 * SQL of a filter. Lists go in as one JSON parameter, so few statement shapes exist. The way in is, in this order: ids; the
 * tag with one value (in order of time, so that a limit ends the scan); other tags; author; kind; time. A leading `+` keeps
 * SQLite from choosing another column's index.
 */
function plan(filter: Filter, nowSeconds: number): QueryPlan {
  const lead = filter.ids === undefined ? [...filter.tags].find(([, values]) => values.size === 1) : undefined
  const plus = filter.ids !== undefined || filter.tags.size > 0 ? '+' : ''
  const kindAndTime = lead === undefined ? `${plus}e.` : 't.'
  const where: string[] = []
  const parameters: unknown[] = []
  const add = (condition: string, parameter: unknown) => {
    where.push(condition)
    parameters.push(parameter)
  }
  const among = (column: string, values: ReadonlySet<string | number>) => {
    const [only] = values
    if (values.size === 1) add(`${column} = ?`, only)
    else add(`${column} IN (SELECT value FROM json_each(?))`, JSON.stringify([...values]))
  }
  if (lead !== undefined) add('t.tag = ?', lead[0] + [...lead[1]][0])
  if (filter.ids !== undefined) among('e.id', filter.ids)
  for (const [name, values] of filter.tags) {
    if (name === lead?.[0]) continue
    const seq = filter.ids === undefined && lead === undefined ? 'e.seq' : '+e.seq'
    add(
      `${seq} IN (SELECT seq FROM tags WHERE tag IN (SELECT value FROM json_each(?)))`,
      JSON.stringify([...values].map((value) => name + value)),
    )
  }
  if (filter.authors !== undefined) among(`${plus}e.pubkey`, filter.authors)
  if (filter.kinds !== undefined) among(`${kindAndTime}kind`, filter.kinds)
  if (filter.since !== undefined) add(`${kindAndTime}created_at >= ?`, filter.since)
  if (filter.until !== undefined) add(`${kindAndTime}created_at <= ?`, filter.until)
  add('(e.expires_at IS NULL OR e.expires_at > ?)', nowSeconds)
  return {
    from: lead === undefined ? 'events e' : 'tags t CROSS JOIN events e ON e.seq = t.seq',
    where: where.join(' AND '),
    order: `${kindAndTime}created_at DESC, ${plus}e.id`,
    parameters,
  }
}
