/** What was said to agents: claimed once, kept until a tick observes it. */
import { defineCommand, type Row } from '../commands.ts'
import { amountOrNull, int, jsonOrNull, text, textOrNull } from '../row.ts'
import type { Store } from '../store.ts'

export interface HeardRow {
  readonly agentPubkey: string
  /** Event id; of a gift wrap the id of its rumor. */
  readonly id: string
  readonly type: 'mention' | 'dm' | 'zap'
  readonly sender: string
  readonly content: string
  readonly scheme: 'nip17' | 'nip04' | null
  readonly amountMsats: bigint | null
  readonly event: unknown
  readonly wakes: boolean
  /** Unix seconds, as the sender says. */
  readonly createdAt: number
  readonly heardAt: number
}

/** As it is stored. */
export interface KeptHeard extends HeardRow {
  /** Ticks that left it for a later one. */
  readonly passed: number
}

/** What waits of one type for an agent's ticks at most: a flood of mentions is cut off, not stored, and drives out no zap. */
const MAX_WAITING = 1000
/** Of these what one sender may take. */
const MAX_WAITING_OF_ONE = 50
/** Beyond these, for whom the agent has spoken to before: strangers in any number do not stand before them. */
const MAX_WAITING_OF_KNOWN = 250

/** Whether the agent of this statement has spoken to who said it. */
export const IS_KNOWN = `EXISTS (SELECT 1 FROM actions WHERE actions.agent_pubkey = heard.agent_pubkey AND actions.counterparty = heard.sender
  AND actions.type IN ('reply', 'dm', 'react', 'request_payment') AND actions.state IN ('claimed', 'published', 'done'))`

/** Claims what was said to an agent, unless it was heard before or too much waits already. */
export const hear = defineCommand('hear', (sql, p: HeardRow): 'new' | 'known' | 'full' => {
  if (sql('SELECT 1 FROM heard WHERE agent_pubkey = ? AND id = ?').get(p.agentPubkey, p.id) !== undefined) return 'known'
  const waiting = sql(
    'SELECT count(*) AS n, count(CASE WHEN sender = ? THEN 1 END) AS of_sender FROM heard WHERE agent_pubkey = ? AND tick_id IS NULL AND type = ?',
  ).get(p.sender, p.agentPubkey, p.type)
  if (waiting !== undefined && int(waiting, 'of_sender') >= MAX_WAITING_OF_ONE) return 'full'
  if (waiting !== undefined && int(waiting, 'n') >= MAX_WAITING) {
    const isKnown = sql(`SELECT 1 FROM (SELECT ? AS agent_pubkey, ? AS sender) AS heard WHERE ${IS_KNOWN}`).get(p.agentPubkey, p.sender)
    if (isKnown === undefined || int(waiting, 'n') >= MAX_WAITING + MAX_WAITING_OF_KNOWN) return 'full'
  }
  sql(
    `INSERT INTO heard (agent_pubkey, id, type, sender, content, scheme, amount_msats, event_json, wakes, created_at, heard_at)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  ).run(
    p.agentPubkey,
    p.id,
    p.type,
    p.sender,
    p.content,
    p.scheme,
    p.amountMsats,
    p.event === null ? null : JSON.stringify(p.event),
    p.wakes ? 1n : 0n,
    BigInt(p.createdAt),
    BigInt(p.heardAt),
  )
  return 'new'
})

export const markWrapOpened = defineCommand('mark_wrap_opened', (sql, p: { agentPubkey: string; id: string; at: number }) => {
  sql('INSERT INTO opened_wraps (id, agent_pubkey, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING').run(p.id, p.agentPubkey, BigInt(p.at))
})

export function wasWrapOpened(store: Store, agentPubkey: string, id: string): boolean {
  return store.sql('SELECT 1 FROM opened_wraps WHERE agent_pubkey = ? AND id = ?').get(agentPubkey, id) !== undefined
}

export function wasHeard(store: Store, agentPubkey: string, id: string): boolean {
  return store.sql('SELECT 1 FROM heard WHERE agent_pubkey = ? AND id = ?').get(agentPubkey, id) !== undefined
}

function decodeHeard(row: Row): KeptHeard {
  return {
    agentPubkey: text(row, 'agent_pubkey'),
    id: text(row, 'id'),
    type: text(row, 'type') as HeardRow['type'],
    sender: text(row, 'sender'),
    content: text(row, 'content'),
    scheme: textOrNull(row, 'scheme') as HeardRow['scheme'],
    amountMsats: amountOrNull(row, 'amount_msats'),
    event: jsonOrNull(row, 'event_json'),
    wakes: int(row, 'wakes') === 1,
    createdAt: int(row, 'created_at'),
    heardAt: int(row, 'heard_at'),
    passed: int(row, 'passed'),
  }
}

/** What no tick has observed yet and may wake the agent: the oldest of each type, since not every type wakes in every state. */
export function waitingTriggers(store: Store, pubkey: string): { id: string; type: HeardRow['type']; heardAt: number; tries: number }[] {
  return store
    .sql(
      `SELECT id, type, min(heard_at) AS heard_at, tries + passed AS tries FROM heard WHERE agent_pubkey = ? AND tick_id IS NULL AND wakes = 1
       GROUP BY type ORDER BY heard_at`,
    )
    .all(pubkey)
    .map((row) => ({
      id: text(row, 'id'),
      type: text(row, 'type') as HeardRow['type'],
      heardAt: int(row, 'heard_at'),
      tries: int(row, 'tries'),
    }))
}

/** What a tick observes of what was said to the agent: what may wake it first, so that nobody over a cap stands before the others; then whom it has spoken to; then oldest first. */
export function heardInTick(store: Store, tickId: string): KeptHeard[] {
  return store
    .sql(`SELECT * FROM heard WHERE tick_id = ? ORDER BY wakes DESC, ${IS_KNOWN} DESC, heard_at, rowid`)
    .all(tickId)
    .map(decodeHeard)
}

/** What was said to an agent, with its words where any are left. */
export interface SaidRow extends KeptHeard {
  /** As the tick that observed it has it, once the row itself has them no more. */
  readonly observedText: string | null
  /** Of the tick that observed it; null while it waits. */
  readonly tickNumber: number | null
}

/** Newest first. */
export function saidTo(store: Store, pubkey: string, limit: number): SaidRow[] {
  return store
    .sql(
      `SELECT h.*, t.number AS tick_number,
         (SELECT q.value ->> 'text' FROM json_each(t.observation_json, '$.' || h.type || 's') q WHERE q.value ->> 'id' = h.id) AS observed_text
       FROM heard h LEFT JOIN ticks t ON t.id = h.tick_id WHERE h.agent_pubkey = ? ORDER BY h.heard_at DESC, h.rowid DESC LIMIT ?`,
    )
    .all(pubkey, BigInt(limit))
    .map((row) => ({
      ...decodeHeard(row),
      observedText: textOrNull(row, 'observed_text'),
      tickNumber: row['tick_number'] === null ? null : int(row, 'tick_number'),
    }))
}

export function hasHeardFrom(store: Store, pubkey: string, sender: string): boolean {
  return store.sql('SELECT 1 FROM heard WHERE agent_pubkey = ? AND sender = ? LIMIT 1').get(pubkey, sender) !== undefined
}

/** Whether somebody has written to the agent by NIP-17. */
export function hasWritten(store: Store, pubkey: string, sender: string, scheme: 'nip17' | 'nip04'): boolean {
  const row = store.sql('SELECT 1 FROM heard WHERE agent_pubkey = ? AND sender = ? AND scheme = ? LIMIT 1').get(pubkey, sender, scheme)
  return row !== undefined
}

/** The event behind something heard, for replies to it. */
export function heardEvent(store: Store, pubkey: string, id: string): unknown {
  const row = store.sql('SELECT event_json FROM heard WHERE agent_pubkey = ? AND id = ?').get(pubkey, id)
  return row === undefined ? undefined : (jsonOrNull(row, 'event_json') ?? undefined)
}
