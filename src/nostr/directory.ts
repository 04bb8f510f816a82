/** Where others are: their relay lists, DM relays and profiles, looked up seldom and remembered. */
import type { Clock } from '../base/clock.ts'
import type { Dialer } from '../base/dialer.ts'
import { messageOf } from '../base/errors.ts'
import { parseJson } from '../base/json.ts'
import type { Logger } from '../base/logger.ts'
import { putRelayList, relayListOf } from '../store/relay-lists.ts'
import type { Store } from '../store/store.ts'
import { LruMap } from './lru.ts'
import { isHex64, parseEvent, supersedes } from './nips/nip01.ts'
import { DM_RELAYS_KIND, parseDmRelays, parseRelayList, RELAY_LIST_KIND } from './nips/nip65.ts'
import { relayUrls, tryRelayUrl } from './relay-url.ts'
import type { Filter, NostrEvent } from './types.ts'

const KINDS = [0, RELAY_LIST_KIND, DM_RELAYS_KIND] as const
const FOUND_MS = 3_600_000
const MISSING_MS = 120_000
const LOOKUP_MS = 3000
const REMEMBERED = 5000
const MAX_TAGS_KEPT = 20
/** Keys are cheap: relays close requests where too many are open, our own subscriptions among them. */
const LOOKUPS_AT_ONCE = 8
/** Relays of one stranger that we go to, beside our own. */
const MAX_FOREIGN = 6
const MAX_HINTS = 3
const MAX_TEXT_CHARS = 500

export interface DirectoryDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly dialer: Dialer
  readonly ownRelays: readonly string[]
  query(filters: readonly Filter[], options: { timeoutMs: number }): Promise<{ events: NostrEvent[]; complete: boolean }>
}

interface Entry {
  readonly at: number
  readonly events: ReadonlyMap<number, NostrEvent>
}

export class Directory {
  readonly #deps: DirectoryDeps
  readonly #known = new LruMap<string, Entry>(REMEMBERED)
  readonly #running = new Map<string, Promise<Entry>>()
  /** Look-ups that wait for their turn. */
  readonly #queue: (() => void)[] = []
  #asking = 0

  constructor(deps: DirectoryDeps) {
    this.#deps = deps
  }

  async relaysToReach(pubkey: string, hints: readonly string[] = []): Promise<string[]> {
    const list = (await this.#lookUp(pubkey)).events.get(RELAY_LIST_KIND)
    const read = list === undefined ? [] : parseRelayList(list).read
    const hinted = relayUrls(hints).filter((url) => this.#reachable(url))
    const foreign = [...hinted.slice(0, MAX_HINTS), ...read.filter((url) => this.#reachable(url))]
    const own = this.#deps.ownRelays
    return [...new Set([...own, ...foreign.slice(0, MAX_FOREIGN)])]
  }

  async dmRelaysOf(pubkey: string): Promise<string[] | undefined> {
    const event = (await this.#lookUp(pubkey)).events.get(DM_RELAYS_KIND)
    const relays = event === undefined ? [] : parseDmRelays(event).filter((url) => this.#reachable(url))
    return relays.length === 0 ? undefined : relays.slice(0, MAX_FOREIGN)
  }

  async profileOf(pubkey: string): Promise<{ name?: string; lud06?: string; lud16?: string } | undefined> {
    const event = (await this.#lookUp(pubkey)).events.get(0)
    return event === undefined ? undefined : parseProfile(event.content)
  }

  /** Whether the dialer would try at all; the rest it decides when it knows the address. */
  #reachable(url: string): boolean {
    return url.startsWith('wss:') || this.#deps.dialer.isAllowed(url, true)
  }

  #lookUp(pubkey: string): Promise<Entry> {
    if (!isHex64(pubkey)) return Promise.resolve({ at: 0, events: new Map() })
    const known = this.#known.get(pubkey) ?? this.#stored(pubkey)
    if (known !== undefined && this.#isFresh(known)) return Promise.resolve(known)
    const running = this.#running.get(pubkey)
    if (running !== undefined) return running
    const lookup = this.#inTurn(() => this.#fetch(pubkey, known)).finally(() => this.#running.delete(pubkey))
    this.#running.set(pubkey, lookup)
    return lookup
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#asking < LOOKUPS_AT_ONCE) this.#asking++
    else await new Promise<void>((resolve) => this.#queue.push(resolve))
    try {
      return await work()
    } finally {
      // Who waits takes the place over.
      const next = this.#queue.shift()
      if (next === undefined) this.#asking--
      else next()
    }
  }

  #isFresh(entry: Entry): boolean {
    const ageMs = this.#deps.clock.now() - entry.at
    // What was looked up in the future was so by a clock that has been set back.
    return ageMs >= 0 && ageMs < (entry.events.size > 0 ? FOUND_MS : MISSING_MS)
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
    const entry = { at, events }
    this.#known.set(pubkey, entry)
    return entry
  }

  async #fetch(pubkey: string, known: Entry | undefined): Promise<Entry> {
    const { clock, logger } = this.#deps
    const events = new Map<number, NostrEvent>(known?.events ?? [])
    try {
      const found = await this.#deps.query([{ kinds: [...KINDS], authors: [pubkey], limit: 20 }], { timeoutMs: LOOKUP_MS })
      for (const event of found.events) {
        const other = events.get(event.kind)
        if (other === undefined || supersedes(event, other)) events.set(event.kind, slim(event))
      }
    } catch (error) {
      logger.debug({ pubkey, error: messageOf(error) }, 'a profile could not be looked up')
    }
    const entry = { at: clock.now(), events }
    this.#known.set(pubkey, entry)
    this.#remember(pubkey, entry)
    return entry
  }

  #remember(pubkey: string, entry: Entry): void {
    const { store, logger } = this.#deps
    for (const [kind, event] of entry.events) {
      store
        .write(putRelayList({ pubkey, kind, event: JSON.stringify(event), at: entry.at }))
        .catch((error: unknown) => logger.debug({ error: messageOf(error) }, 'a profile could not be stored'))
    }
  }
}

/** What is used of it and no more: a stranger decides how long its events are, and we keep them of many. The signature was checked. */
function slim(event: NostrEvent): NostrEvent {
  if (event.kind === 0) return { ...event, tags: [], content: JSON.stringify(parseProfile(event.content) ?? {}) }
  const tags = event.tags.filter(([name, url = '']) => (name === 'r' || name === 'relay') && tryRelayUrl(url) !== undefined)
  return { ...event, tags: tags.slice(0, MAX_TAGS_KEPT).map((tag) => tag.slice(0, 3)), content: '' }
}

/** The few fields of a kind 0 that we use, from a stranger's JSON. */
export function parseProfile(content: string): { name?: string; lud06?: string; lud16?: string } | undefined {
  const parsed = parseJson(content)
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) return undefined
  const record = parsed as Record<string, unknown>
  const text = (key: string, max: number) => {
    const value = record[key]
    return typeof value === 'string' && value !== '' && value.length <= max ? value : undefined
  }
  const name = text('display_name', MAX_TEXT_CHARS) ?? text('name', MAX_TEXT_CHARS)
  const lud06 = text('lud06', 2000)
  const lud16 = text('lud16', MAX_TEXT_CHARS)
  return {
    ...(name === undefined ? {} : { name }),
    ...(lud06 === undefined ? {} : { lud06 }),
    ...(lud16 === undefined ? {} : { lud16 }),
  }
}
