/** Where others are: their relay lists, DM relays and profiles, looked up seldom and remembered. */
import type { Dialer } from '../../base/dialer.ts'
import { messageOf, PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { isRecord, parseJson } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import { LruMap } from '../../base/lru.ts'
import type { Scope } from '../../base/scope.ts'
import { createTurnstile } from '../../base/turnstile.ts'
import { putRelayList, relayListOf } from '../../store/nostr/relay-lists.ts'
import type { Store } from '../../store/store.ts'
import { isHex64, parseEvent, supersedes } from '../nips/nip01.ts'
import { DM_RELAYS_KIND, parseDmRelays, parseRelayList, RELAY_LIST_KIND } from '../nips/nip65.ts'
import { relayUrls, tryRelayUrl } from '../relay/relay-url.ts'
import type { Filter, Newest, NostrEvent } from '../types.ts'
import type { QueryAnswer } from './query.ts'

const KINDS = [0, RELAY_LIST_KIND, DM_RELAYS_KIND] as const
const FOUND_MS = 3_600_000
const MISSING_MS = 120_000
/** Nobody who could know it answered: soon again. */
const UNSURE_MS = 10_000
/** For each of two rounds: the relays that we know of, then those that the key writes to. */
const LOOKUP_MS = 3000
const REMEMBERED = 5000
const MAX_TAGS_KEPT = 20
/** Keys are cheap: relays close requests where too many are open, our own subscriptions among them. */
const LOOKUPS_AT_ONCE = 8
/** Look-ups that wait; who asks more is told what is known. */
const MAX_WAITING = 1000
/** Look-ups in a minute that go beyond our own relays and hints: strangers make keys, and index relays would bear it. */
const OUTSIDE_PER_MINUTE = 120
/** Relays of one stranger that we go to, beside our own. */
const MAX_FOREIGN = 6
const MAX_HINTS = 3
const MAX_WRITE = 4
const MAX_TEXT_CHARS = 500

export interface DirectoryDeps {
  /** Its failures are those of storing what was found. */
  readonly scope: Scope
  readonly store: Store
  readonly logger: Logger
  readonly dialer: Dialer
  readonly ownRelays: readonly string[]
  /** Relays that gather profiles and lists of everybody. */
  readonly indexRelays: readonly string[]
  query(filters: readonly Filter[], options: { relays: readonly string[]; timeoutMs: number }): Promise<QueryAnswer>
}

interface Entry {
  readonly at: number
  readonly events: ReadonlyMap<number, NostrEvent>
  readonly isSure: boolean
  /** Hints that were asked. */
  readonly asked: readonly string[]
}

export class Directory {
  readonly #deps: DirectoryDeps
  readonly #known = new LruMap<string, Entry>(REMEMBERED)
  readonly #turnstile = createTurnstile(LOOKUPS_AT_ONCE)
  /** Look-ups under way, and those that wait for their turn. */
  #open = 0
  #outside = { since: 0, count: 0 }

  constructor(deps: DirectoryDeps) {
    this.#deps = deps
  }

  async relaysToReach(pubkey: string, hints: readonly string[] = []): Promise<string[]> {
    const list = (await this.#lookUp(pubkey, RELAY_LIST_KIND, hints)).events.get(RELAY_LIST_KIND)
    const read = list === undefined ? [] : parseRelayList(list).read
    const foreign = [...this.#hinted(hints), ...read.filter((url) => this.#reachable(url))]
    const own = this.#deps.ownRelays
    return [...new Set([...own, ...foreign.slice(0, MAX_FOREIGN)])]
  }

  async dmRelaysOf(pubkey: string, hints: readonly string[] = []): Promise<string[] | undefined> {
    const { events, isSure } = await this.#lookUp(pubkey, DM_RELAYS_KIND, hints)
    const event = events.get(DM_RELAYS_KIND)
    const relays = event === undefined ? [] : parseDmRelays(event).filter((url) => this.#reachable(url))
    if (relays.length > 0) return relays.slice(0, MAX_FOREIGN)
    if (event === undefined && !isSure) {
      throw new PylonError(
        'relay_unreachable',
        'No relay that could know the DM relays of this key (kind 10050) answered; try again later.',
      )
    }
    return undefined
  }

  async profileOf(pubkey: string): Promise<{ name?: string; lud06?: string; lud16?: string } | undefined> {
    const event = (await this.#lookUp(pubkey, 0)).events.get(0)
    return event === undefined ? undefined : parseProfile(event.content)
  }

  /**
   * The newest events of these kinds: asked of our own relays, those given, the index relays, and then of those that the key's
   * relay list (10002) says it writes to.
   */
  newestOf(pubkey: string, kinds: readonly number[], relays: readonly string[] = []): Promise<Newest> {
    return this.#inTurn(() => this.#newest(pubkey, kinds, relays))
  }

  async #newest(pubkey: string, kinds: readonly number[], relays: readonly string[]): Promise<Newest> {
    const first = [...new Set([...this.#deps.ownRelays, ...relays, ...this.#deps.indexRelays])]
    const events = new Map<number, NostrEvent>()
    const answered = await this.#ask(pubkey, kinds, first, events)
    const list = events.get(RELAY_LIST_KIND)
    const write = list === undefined ? [] : parseRelayList(list).write.filter((url) => this.#reachable(url))
    const second = write.slice(0, MAX_WRITE).filter((url) => !first.includes(url))
    const answeredThen = second.length === 0 ? [] : await this.#ask(pubkey, kinds, second, events)
    const isSure = answered.length > 0 && (second.length === 0 || answeredThen.length > 0 || write.some((url) => answered.includes(url)))
    return { events, answered: [...answered, ...answeredThen], write: write.slice(0, MAX_WRITE), isSure }
  }

  /** Asks relays, keeps the newest of each kind; which of them really answered. */
  async #ask(pubkey: string, kinds: readonly number[], relays: readonly string[], events: Map<number, NostrEvent>): Promise<string[]> {
    const filter = { kinds: [...new Set([...kinds, RELAY_LIST_KIND])], authors: [pubkey], limit: 20 }
    const found = await this.#deps.query([filter], { relays, timeoutMs: LOOKUP_MS })
    for (const event of found.events) {
      const other = events.get(event.kind)
      if (other === undefined || supersedes(event, other)) events.set(event.kind, event)
    }
    return [...found.answered]
  }

  #hinted(hints: readonly string[]): string[] {
    return relayUrls(hints)
      .filter((url) => this.#reachable(url))
      .slice(0, MAX_HINTS)
  }

  /** Whether the dialer would try at all; the rest it decides when it knows the address. */
  #reachable(url: string): boolean {
    return url.startsWith('wss:') || this.#deps.dialer.isAllowed(url, true)
  }

  #lookUp(pubkey: string, kind: number, hints: readonly string[] = []): Promise<Entry> {
    if (!isHex64(pubkey)) return Promise.resolve(NOTHING)
    const known = this.#known.get(pubkey) ?? this.#stored(pubkey)
    const hinted = this.#hinted(hints)
    if (known !== undefined && this.#isFresh(known, kind, hinted)) return Promise.resolve(known)
    if (this.#open >= LOOKUPS_AT_ONCE + MAX_WAITING) return Promise.resolve(known ?? NOTHING)
    return this.#deps.scope.once(pubkey, () => this.#inTurn(() => this.#fetch(pubkey, known, hinted)))
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    this.#open++
    try {
      return await this.#turnstile(work)
    } finally {
      this.#open--
    }
  }

  #isFresh(entry: Entry, kind: number, hints: readonly string[]): boolean {
    const ageMs = this.#deps.scope.clock.now() - entry.at
    const isFound = entry.events.has(kind)
    // A hint that was not asked yet may know more.
    if (!isFound && hints.some((url) => !entry.asked.includes(url) && !this.#deps.ownRelays.includes(url))) return false
    // What was looked up in the future was so by a clock that has been set back.
    return ageMs >= 0 && ageMs < (isFound ? FOUND_MS : entry.isSure ? MISSING_MS : UNSURE_MS)
  }

  /** Whether one more look-up may go beyond our own relays and hints. */
  #mayGoOutside(): boolean {
    const now = this.#deps.scope.clock.now()
    if (Math.abs(now - this.#outside.since) >= 60_000) this.#outside = { since: now, count: 0 }
    return ++this.#outside.count <= OUTSIDE_PER_MINUTE
  }

  #stored(pubkey: string): Entry | undefined {
    const events = new Map<number, NostrEvent>()
    let at: number | undefined
    for (const kind of KINDS) {
      const row = relayListOf(this.#deps.store, pubkey, kind)
      if (row === undefined) continue
      at = Math.min(at ?? row.fetchedAt, row.fetchedAt)
      if (row.event !== null) events.set(kind, parseEvent(parseJson(row.event)))
    }
    if (at === undefined) return undefined
    const entry = { at, events, isSure: false, asked: [] }
    this.#known.set(pubkey, entry)
    return entry
  }

  async #fetch(pubkey: string, known: Entry | undefined, hints: readonly string[]): Promise<Entry> {
    const { scope, logger, ownRelays } = this.#deps
    const events = new Map<number, NostrEvent>(known?.events ?? [])
    let isSure = false
    try {
      const found = this.#mayGoOutside()
        ? await this.#newest(pubkey, KINDS, hints)
        : await this.#near(pubkey, [...new Set([...ownRelays, ...hints])])
      isSure = found.isSure
      for (const [kind, event] of found.events) {
        const other = events.get(kind)
        if (other === undefined || supersedes(event, other)) events.set(kind, slim(event))
      }
    } catch (error) {
      logger.debug({ pubkey, error: messageOf(error) }, 'a profile could not be looked up')
    }
    const entry = { at: scope.clock.now(), events, isSure, asked: hints }
    this.#known.set(pubkey, entry)
    this.#remember(pubkey, entry)
    return entry
  }

  async #near(pubkey: string, relays: readonly string[]): Promise<Pick<Newest, 'events' | 'isSure'>> {
    const events = new Map<number, NostrEvent>()
    await this.#ask(pubkey, KINDS, relays, events)
    return { events, isSure: false }
  }

  #remember(pubkey: string, entry: Entry): void {
    const { scope, store } = this.#deps
    for (const [kind, event] of entry.events)
      scope.spawn('remember', () => store.write(putRelayList({ pubkey, kind, event: JSON.stringify(event), at: entry.at })))
  }
}

const NOTHING: Entry = { at: 0, events: new Map(), isSure: false, asked: [] }

/** What is used of it and no more: a stranger decides how long its events are, and we keep them of many. The signature was checked. */
function slim(event: NostrEvent): NostrEvent {
  if (event.kind === 0) return { ...event, tags: [], content: JSON.stringify(parseProfile(event.content) ?? {}) }
  const tags = event.tags.filter(([name, url = '']) => (name === 'r' || name === 'relay') && tryRelayUrl(url) !== undefined)
  return { ...event, tags: tags.slice(0, MAX_TAGS_KEPT).map((tag) => tag.slice(0, 3)), content: '' }
}

/** The few fields of a kind 0 that we use, from a stranger's JSON. */
export function parseProfile(content: string): { name?: string; lud06?: string; lud16?: string } | undefined {
  const record = parseJson(content)
  if (!isRecord(record)) return undefined
  const text = (key: string, max: number) => {
    const value = record[key]
    return typeof value === 'string' && value !== '' && value.length <= max ? value : undefined
  }
  const name = text('display_name', MAX_TEXT_CHARS) ?? text('name', MAX_TEXT_CHARS)
  const lud06 = text('lud06', 2000)
  const lud16 = text('lud16', MAX_TEXT_CHARS)
  return given({ name, lud06, lud16 })
}
