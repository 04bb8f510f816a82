/** Private messages of the node's own key: what it is to say, once for each key, and what was said to it, claimed by the id of the rumor. */
import { PylonError } from '../../base/errors.ts'
import { canStep, LETTER_IN_STEPS, LETTER_OUT_STEPS, type LetterInState, type LetterOutState } from '../../base/states.ts'
import { defineCommand, defineSweep, type Sql } from '../commands.ts'
import { letterMessage } from '../keys.ts'
import { countOf, isThere } from '../row.ts'
import type { Store } from '../store.ts'
import { column, type RowOfTable, table } from '../table.ts'
import { enqueueWith, type NewOutboxMessage } from './outbox.ts'

const out = table('letters_out', {
  /** The caller's: the same again says nothing more. */
  key: column.text(),
  /** 64 hex digits. */
  recipient: column.text(),
  text: column.text(),
  /** Relays that the recipient named. */
  hints: column.json<readonly string[]>(),
  replyTo: column.orNull(column.text()),
  state: column.text<LetterOutState>(),
  reason: column.orNull(column.text()),
  tries: column.int(),
  nextAt: column.int(),
  notAfter: column.int(),
  createdAt: column.int(),
})
export type LetterOutRow = RowOfTable<typeof out>

/** What the padding of NIP-44 leaves of 64 KB once a text stands in a rumor, a seal and a wrap. */
const MAX_TEXT_CHARS = 32_768
const MAX_WAITING_OUT = 5000
const MAX_HINTS = 5

export type NewLetter = Pick<LetterOutRow, 'key' | 'recipient' | 'text' | 'notAfter'> & {
  readonly hints?: readonly string[]
  readonly replyTo?: string | null | undefined
  /** Milliseconds since the epoch. */
  readonly at: number
}

/** `postLetter` for use inside another command's handler. */
export function postLetterWith(sql: Sql, { at, hints = [], replyTo = null, ...letter }: NewLetter): boolean {
  if (out.get(sql, { key: letter.key }) !== undefined) return false
  if (letter.text.length > MAX_TEXT_CHARS)
    throw new PylonError(
      'request_too_large',
      `A private message takes ${MAX_TEXT_CHARS} characters at most, this has ${letter.text.length}.`,
    )
  if (countOf(sql, "SELECT count(*) AS n FROM letters_out WHERE state = 'waiting'") >= MAX_WAITING_OUT)
    throw new PylonError('overloaded', `${MAX_WAITING_OUT} private messages wait to be sent already.`)
  return out.insert(sql, { ...letter, hints: hints.slice(0, MAX_HINTS), replyTo, state: 'waiting', createdAt: at })
}

/**
 * Has something said by NIP-17 from the node's key; compose it into the commit of what it tells.
 * @returns false where the key was used before @throws request_too_large, overloaded
 */
export const postLetter = defineCommand('post_letter', postLetterWith, ({ key }) => `post_letter:${key}`)

/** It goes to the outbox in this commit, or not at all. */
export const sendLetter = defineCommand(
  'send_letter',
  (sql, { key, message }: { key: string; message: Omit<NewOutboxMessage, 'key'> }) => {
    if (step(sql, key, 'sending', null)) enqueueWith(sql, { ...message, key: letterMessage.of(key) })
  },
  ({ key }) => `send_letter:${key}`,
)

/** It could not be sent yet. */
export const delayLetter = defineCommand('delay_letter', (sql, p: { key: string; reason: string; tries: number; nextAt: number }) => {
  out.patch(sql, { key: p.key, state: 'waiting' }, { reason: p.reason, tries: p.tries, nextAt: p.nextAt })
})

export const endLetter = defineCommand('end_letter', (sql, p: { key: string; to: 'sent' | 'refused'; reason: string | null }) => {
  step(sql, p.key, p.to, p.reason)
})

function step(sql: Sql, key: string, to: LetterOutState, reason: string | null): boolean {
  const row = out.get(sql, { key })
  if (row === undefined || !canStep(LETTER_OUT_STEPS, row.state, to)) return false
  return out.patch(sql, { key, state: row.state }, { state: to, reason })
}

export const letterOut = (store: Store, key: string): LetterOutRow | undefined => out.get(store.sql, { key })

export const lettersDue = (store: Store, now: number, limit: number): LetterOutRow[] =>
  out.all(store.sql, "WHERE state = 'waiting' AND next_at <= ? ORDER BY next_at, created_at LIMIT ?", BigInt(now), BigInt(limit))

export const countLettersWaiting = (store: Store): number =>
  countOf(store.sql, "SELECT count(*) AS n FROM letters_out WHERE state = 'waiting'")

/** Of one recipient the newest that was not taken, unless a later one was. */
export function lastRefusedLetter(store: Store, recipient: string): LetterOutRow | undefined {
  const last = out.all(
    store.sql,
    "WHERE recipient = ? AND (state <> 'waiting' OR tries > 0) ORDER BY created_at DESC, key DESC LIMIT 1",
    recipient,
  )[0]
  return last?.state === 'refused' || last?.state === 'waiting' ? last : undefined
}

const heard = table('letters_in', {
  rumorId: column.text(),
  sender: column.text(),
  kind: column.int(),
  content: column.text(),
  tags: column.json<readonly (readonly string[])[]>(),
  /** Unix seconds, as the sender says. */
  createdAt: column.int(),
  state: column.text<LetterInState>(),
  takenBy: column.orNull(column.text()),
  reason: column.orNull(column.text()),
  tries: column.int(),
  nextAt: column.int(),
  heardAt: column.int(),
})
export type LetterInRow = RowOfTable<typeof heard>
export type HeardLetter = Pick<LetterInRow, 'rumorId' | 'sender' | 'kind' | 'content' | 'tags' | 'createdAt'>

/** What waits for whoever takes it: more is left to the relays, which send it again. */
const MAX_WAITING_IN = 200

/** Claims a letter for who took it; its words are not kept. Compose it into the commit of what it brings about where that can be. */
export const takeLetter = defineCommand(
  'take_letter',
  (sql, p: Pick<LetterInRow, 'rumorId' | 'sender' | 'kind' | 'createdAt'> & { takenBy: string; at: number }): boolean => {
    const { takenBy, at, ...letter } = p
    const before = heard.get(sql, { rumorId: p.rumorId })
    if (before === undefined) return heard.insert(sql, { ...letter, content: '', tags: [], state: 'taken', takenBy, heardAt: at })
    if (!canStep(LETTER_IN_STEPS, before.state, 'taken')) return false
    return heard.patch(sql, { rumorId: p.rumorId, state: before.state }, { state: 'taken', takenBy, content: '', tags: [], reason: null })
  },
)

/** Keeps a letter that could not be taken yet, or says when it is tried again. @returns false where too much waits */
export const keepLetter = defineCommand(
  'keep_letter',
  (sql, p: HeardLetter & { reason: string; tries: number; nextAt: number; at: number }): boolean => {
    const { at, reason, tries, nextAt, ...letter } = p
    const before = heard.get(sql, { rumorId: p.rumorId })
    if (before !== undefined) return heard.patch(sql, { rumorId: p.rumorId, state: 'waiting' }, { reason, tries, nextAt })
    if (countOf(sql, "SELECT count(*) AS n FROM letters_in WHERE state = 'waiting'") >= MAX_WAITING_IN) return false
    return heard.insert(sql, { ...letter, state: 'waiting', reason, tries, nextAt, heardAt: at })
  },
)

export const giveLetterUp = defineCommand('give_letter_up', (sql, p: { rumorId: string; reason: string }) => {
  heard.patch(sql, { rumorId: p.rumorId, state: 'waiting' }, { state: 'given_up', reason: p.reason, content: '', tags: [] })
})

export const wasLetterHeard = (store: Store, rumorId: string): boolean =>
  isThere(store.sql, 'SELECT 1 FROM letters_in WHERE rumor_id = ?', rumorId)

export const wasLetterTaken = (store: Store, rumorId: string): boolean =>
  isThere(store.sql, "SELECT 1 FROM letters_in WHERE rumor_id = ? AND state = 'taken'", rumorId)

export const lettersToTake = (store: Store, now: number, limit: number): LetterInRow[] =>
  heard.all(store.sql, "WHERE state = 'waiting' AND next_at <= ? ORDER BY next_at LIMIT ?", BigInt(now), BigInt(limit))

export const sweepLettersOut = defineSweep('sweep_letters_out', 'letters_out', 'key', 'created_at')
export const sweepLettersIn = defineSweep('sweep_letters_in', 'letters_in', 'rumor_id', 'heard_at')
