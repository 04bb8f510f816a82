/** What an agent knows when it thinks: one JSON value, pure to build, in which the words of strangers are only ever quoted data. */
import { hash } from 'node:crypto'
import { rfc3339 } from '../base/clock.ts'
import { noteOf } from '../nostr/nips/nip19.ts'
import type { NostrEvent } from '../nostr/types.ts'
import type { AgentBudget } from '../store/agents/agents.ts'
import type { GoalRow } from '../store/agents/goals.ts'
import type { MemoryRow } from '../store/agents/memories.ts'
import type { TickTrigger } from '../store/agents/ticks.ts'
import type { ApprovalRow } from '../store/money/approvals.ts'

/** Somebody's words, with what is known of the one who said them. */
export interface Quote {
  /** 64 hex digits: the event's id, or the rumor's. */
  readonly id: string
  readonly npub: string
  readonly pubkey: string
  readonly text: string
  /** RFC 3339, as the sender says. */
  readonly created_at: string
  /** Whether the sender is a key of this home. */
  readonly own_home: boolean
  /** Said before this agent was spawned: perhaps answered long ago by another client of the same key. */
  readonly old: boolean
  /** How often the agent spoke to the sender in the last hour, and ever. */
  readonly spoken_recently: number
  readonly spoken_total: number
  /** Zaps to the sender in the last day. */
  readonly zapped_today: number
}

export interface ZapQuote extends Quote {
  readonly sats: number
  /** The note that was zapped, or an empty text. */
  readonly event_id: string
}

export interface DmQuote extends Quote {
  readonly scheme: 'nip17' | 'nip04' | 'mls'
}

/** Goes to exec brains as it is: field names are a contract. */
export interface Observation {
  readonly version: 1
  readonly now: string
  readonly agent: { readonly name: string; readonly npub: string; readonly pubkey: string; readonly about: string }
  readonly tick: { readonly number: number; readonly trigger: TickTrigger }
  readonly state: string
  readonly balance_sats: number
  readonly budget: AgentBudget
  readonly autonomy: string
  readonly goals: readonly GoalRow[]
  /** Newest first. */
  readonly memories: readonly string[]
  /** What it posted last, newest first. */
  readonly posted: readonly string[]
  /** Actions of it that wait for its owner, and what its owner said of others since the last tick. */
  readonly approvals?: readonly ObservedApproval[]
  readonly mentions: readonly Quote[]
  readonly dms: readonly DmQuote[]
  readonly zaps: readonly ZapQuote[]
  /** Notes of others that are new to the agent, newest first. */
  readonly notes: readonly Quote[]
  readonly relays: readonly { readonly url: string; readonly state: string }[]
  readonly seen: Seen
}

export interface ObservedApproval {
  readonly id: number
  readonly action: string
  /** Whom it concerns, as a key in hex; an empty text where it concerns nobody. */
  readonly to: string
  readonly sats: number
  readonly state: ApprovalRow['state']
  /** In the owner's words, or an empty text. */
  readonly reason: string
}

export const observedApproval = ({ id, type, counterparty, amountSats, state, reason }: ApprovalRow): ObservedApproval => ({
  id,
  action: type,
  to: counterparty ?? '',
  sats: Number(amountSats),
  state,
  reason: reason ?? '',
})

/** Counts and words made of the above: safe to post, since no stranger's text is in it. */
export interface Seen {
  readonly notes: number
  readonly authors: number
  readonly topics: readonly string[]
  readonly relays_up: number
  readonly zapped_sats: number
  readonly digest: string
  readonly summary: string
}

const MAX_QUOTE_CHARS = 1000
const END_OF_TIME_S = 253_402_300_799

/** What a stranger dated past the end of time is dated there. @param seconds since the epoch */
export const timeSaid = (seconds: number): string => rfc3339(Math.min(Math.max(0, seconds), END_OF_TIME_S) * 1000)

/** Without control characters, cut to length: for prompts and templates. */
export function cleanText(text: string, maxChars = MAX_QUOTE_CHARS): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: taking them out is the point
  const clean = text.replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g, ' ').trim()
  const chars = [...clean]
  return chars.length <= maxChars ? clean : `${chars.slice(0, maxChars - 1).join('')}…`
}

const COMMON = new Set(
  `about after again also and another been before being between both could does doing down each even every from good have here into just know
  like made make many more most much must need never only other over people really same should since some still such take than that their them then there
  these they thing things this those through time today under very want well were what when where which while will with within without would your yours
  https http nostr note notes npub hello thank thanks relay relays newest topics agent sats first`.split(/\s+/),
)

/** Hashtags and the words that several notes share, plain letters only: one stranger's word alone is no topic. At most three, in a steady order. */
export function topicsOf(texts: readonly string[]): string[] {
  const weight = new Map<string, number>()
  for (const text of texts) {
    const plain = text.toLowerCase().replace(/https?:\/\/\S+|nostr:\S+|\b(?:npub|note|nevent|nprofile|lnbc|lnurl)1?\w+/g, ' ')
    const words = new Map<string, number>()
    for (const match of plain.matchAll(/(#?)([a-z]{4,16})(?![a-z0-9])/g)) {
      const word = match[2] ?? ''
      if (!COMMON.has(word)) words.set(word, match[1] === '#' ? 2 : Math.max(words.get(word) ?? 0, 1))
    }
    for (const [word, value] of words) weight.set(word, (weight.get(word) ?? 0) + value)
  }
  return [...weight.entries()]
    .filter(([, value]) => value > 1)
    .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
    .slice(0, 3)
    .map(([word]) => word)
}

const count = (n: number, one: string, many = `${one}s`): string => `${n} ${n === 1 ? one : many}`

function list(words: readonly string[]): string {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`
}

const OPENINGS = ['Since I last looked I read', 'On my desk today:', 'I have just read', 'My relays brought me'] as const

function summarise(o: Omit<Observation, 'seen'>, seen: Omit<Seen, 'summary'>): string {
  const parts: string[] = []
  const newest = o.notes[0]
  if (newest !== undefined) {
    const opening = OPENINGS[Number.parseInt(seen.digest.slice(0, 4), 16) % OPENINGS.length]
    parts.push(`${opening} ${count(seen.notes, 'note')} by ${count(seen.authors, 'author')} on ${count(seen.relays_up, 'relay')}.`)
    if (seen.topics.length > 0) parts.push(`The talk is of ${list(seen.topics)}.`)
    parts.push(`The newest: nostr:${noteOf(newest.id)}.`)
  }
  const events = [
    ...(o.mentions.length > 0 ? [count(o.mentions.length, 'mention')] : []),
    ...(o.dms.length > 0 ? [count(o.dms.length, 'message')] : []),
    ...(o.zaps.length > 0 ? [`${count(o.zaps.length, 'zap')} of ${count(seen.zapped_sats, 'sat')}`] : []),
  ]
  if (events.length > 0) parts.push(`${list(events)} came in for me.`)
  if (parts.length > 0) parts.push(`I hold ${count(o.balance_sats, 'sat')}.`)
  return parts.join(' ')
}

/** Completes an observation by what follows from it. */
export function withSeen(o: Omit<Observation, 'seen'>): Observation {
  const facts = {
    notes: o.notes.length,
    authors: new Set(o.notes.map((note) => note.pubkey)).size,
    topics: topicsOf(o.notes.map((note) => note.text)),
    relays_up: o.relays.filter((relay) => relay.state === 'connected').length,
    zapped_sats: o.zaps.reduce((sum, zap) => sum + zap.sats, 0),
    digest: hash('sha256', [...o.notes, ...o.mentions, ...o.dms, ...o.zaps].map((quote) => quote.id).join(',')),
  }
  return { ...o, seen: { ...facts, summary: summarise(o, facts) } }
}

export const memoryTexts = (memories: readonly MemoryRow[]): string[] => memories.map((memory) => memory.content)

/** The digest by which the same words are known again: case, space and punctuation don't count. */
export function saidDigest(kind: 'post' | 'reply' | 'channel', to: string, text: string): string {
  const plain = text
    .normalize('NFKC')
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, ' ')
    .trim()
  return hash('sha256', `${kind}:${to}:${plain === '' ? text : plain}`)
}

type Dated = Pick<NostrEvent, 'id' | 'pubkey' | 'created_at'>

export const newestFirst = (a: Dated, b: Dated): number => b.created_at - a.created_at || (a.id < b.id ? -1 : 1)

/** The newest of each key first, then the second of each: who says much hides nobody. */
export function ofEachFirst<T extends Dated>(events: readonly T[]): T[] {
  const counts = new Map<string, number>()
  return [...events]
    .sort(newestFirst)
    .map((event) => {
      const nth = counts.get(event.pubkey) ?? 0
      counts.set(event.pubkey, nth + 1)
      return { event, nth }
    })
    .sort((a, b) => a.nth - b.nth || newestFirst(a.event, b.event))
    .map(({ event }) => event)
}
