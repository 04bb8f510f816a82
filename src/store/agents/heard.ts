/** What was said to agents: claimed once, kept until a tick observes it. */
import { defineCommand } from '../commands.ts'
import { int, isThere } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, Selection, table } from '../table.ts'

const heard = table('heard', {
  agentPubkey: column.text(),
  /** Event id; of a gift wrap the id of its rumor. */
  id: column.text(),
  type: column.text<'mention' | 'dm' | 'zap'>(),
  sender: column.text(),
  content: column.text(),
  scheme: column.orNull(column.text<'nip17' | 'nip04' | 'mls'>()),
  amountMsats: column.orNull(column.amount()),
  event: column.orNull(column.json<unknown>('event_json')),
  wakes: column.flag(),
  /** Unix seconds, as the sender says. */
  createdAt: column.int(),
  heardAt: column.int(),
  /** Ticks that left it for a later one. */
  passed: column.int(),
  /** Ticks that failed over it. */
  tries: column.int(),
})
export type KeptHeard = RowOfTable<typeof heard>
/** As it comes. */
export type HeardRow = Omit<KeptHeard, 'passed' | 'tries'>

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
  if (isThere(sql, 'SELECT 1 FROM heard WHERE agent_pubkey = ? AND id = ?', p.agentPubkey, p.id)) return 'known'
  const before = sql(
    'SELECT count(*) AS n, count(CASE WHEN sender = ? THEN 1 END) AS of_sender FROM heard WHERE agent_pubkey = ? AND tick_id IS NULL AND type = ?',
  ).get(p.sender, p.agentPubkey, p.type)
  if (before !== undefined && int(before, 'of_sender') >= MAX_WAITING_OF_ONE) return 'full'
  if (before !== undefined && int(before, 'n') >= MAX_WAITING) {
    const isKnown = sql(`SELECT 1 FROM (SELECT ? AS agent_pubkey, ? AS sender) AS heard WHERE ${IS_KNOWN}`).get(p.agentPubkey, p.sender)
    if (isKnown === undefined || int(before, 'n') >= MAX_WAITING + MAX_WAITING_OF_KNOWN) return 'full'
  }
  heard.insert(sql, p)
  return 'new'
})

export const markWrapOpened = defineCommand('mark_wrap_opened', (sql, p: { agentPubkey: string; id: string; at: number }) => {
  sql('INSERT INTO opened_wraps (id, agent_pubkey, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING').run(p.id, p.agentPubkey, BigInt(p.at))
})

export const wasWrapOpened = (store: Store, agentPubkey: string, id: string): boolean =>
  isThere(store.sql, 'SELECT 1 FROM opened_wraps WHERE agent_pubkey = ? AND id = ?', agentPubkey, id)

export const wasHeard = (store: Store, agentPubkey: string, id: string): boolean =>
  isThere(store.sql, 'SELECT 1 FROM heard WHERE agent_pubkey = ? AND id = ?', agentPubkey, id)

const waiting = new Selection({ id: column.text(), type: column.text<HeardRow['type']>(), heardAt: column.int(), tries: column.int() })

/** What no tick has observed yet and may wake the agent: the oldest of each type, since not every type wakes in every state. */
export const waitingTriggers = (store: Store, pubkey: string): RowOfTable<typeof waiting>[] =>
  waiting.all(
    store.sql,
    `SELECT id, type, min(heard_at) AS heard_at, tries + passed AS tries FROM heard WHERE agent_pubkey = ? AND tick_id IS NULL AND wakes = 1
     GROUP BY type ORDER BY heard_at`,
    pubkey,
  )

export type WaitingRow = Pick<KeptHeard, 'id' | 'sender' | 'scheme' | 'event' | 'wakes' | 'passed'>

/** What was said in sessions and no tick has taken up yet. */
export const waitingInSessions = (store: Store, pubkey: string): WaitingRow[] =>
  heard.all(store.sql, "WHERE agent_pubkey = ? AND tick_id IS NULL AND scheme = 'mls' ORDER BY heard_at, rowid", pubkey)

/** What a tick observes of what was said to the agent: what may wake it first, so that nobody over a cap stands before the others; then whom it has spoken to; then oldest first. */
export const heardInTick = (store: Store, tickId: string): KeptHeard[] =>
  heard.all(store.sql, `WHERE tick_id = ? ORDER BY wakes DESC, ${IS_KNOWN} DESC, heard_at, rowid`, tickId)

const said = new Selection({
  /** As the tick that observed it has it, once the row itself has them no more. */
  observedText: column.orNull(column.text()),
  /** Of the tick that observed it; null while it waits. */
  tickNumber: column.orNull(column.int()),
})
/** What was said to an agent, with its words where any are left. */
export type SaidRow = KeptHeard & RowOfTable<typeof said>

/** Newest first. */
export const saidTo = (store: Store, pubkey: string, limit: number): SaidRow[] =>
  store
    .sql(
      `SELECT h.*, t.number AS tick_number,
         (SELECT q.value ->> 'text' FROM json_each(t.observation_json, '$.' || h.type || 's') q WHERE q.value ->> 'id' = h.id) AS observed_text
       FROM heard h LEFT JOIN ticks t ON t.id = h.tick_id WHERE h.agent_pubkey = ? ORDER BY h.heard_at DESC, h.rowid DESC LIMIT ?`,
    )
    .all(pubkey, BigInt(limit))
    .map((row) => ({ ...heard.decode(row), ...said.decode(row) }))

export const hasHeardFrom = (store: Store, pubkey: string, sender: string): boolean =>
  isThere(store.sql, 'SELECT 1 FROM heard WHERE agent_pubkey = ? AND sender = ? LIMIT 1', pubkey, sender)

/** Whether somebody has written to the agent by NIP-17. */
export const hasWritten = (store: Store, pubkey: string, sender: string, scheme: 'nip17' | 'nip04'): boolean =>
  isThere(store.sql, 'SELECT 1 FROM heard WHERE agent_pubkey = ? AND sender = ? AND scheme = ? LIMIT 1', pubkey, sender, scheme)

/** What a key has said to the agent last, in private. */
export const lastSaidBy = (store: Store, pubkey: string, sender: string): KeptHeard | undefined =>
  heard.all(
    store.sql,
    "WHERE agent_pubkey = ? AND sender = ? AND type = 'dm' ORDER BY heard_at DESC, rowid DESC LIMIT 1",
    pubkey,
    sender,
  )[0]

/** The event behind something heard, for replies to it. */
export const heardEvent = (store: Store, agentPubkey: string, id: string): unknown =>
  heard.get(store.sql, { agentPubkey, id })?.event ?? undefined
