/**
 * Publishing what a key of this home says of itself. Read before written, relay by relay: a relay that has not told what it has gets
 * nothing, since the key may be a person's, with years of a life on it.
 */
import { hash } from 'node:crypto'
import { doublingMs } from '../../base/backoff.ts'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { given } from '../../base/given.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import { all } from '../../store/commands.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import { getSetting, putSetting } from '../../store/settings.ts'
import type { Store } from '../../store/store.ts'
import { identify } from '../nips/nip01.ts'
import { NUTZAP_INFO_KIND } from '../nips/nip61.ts'
import { DM_RELAYS_KIND, RELAY_LIST_KIND } from '../nips/nip65.ts'
import { tryRelayUrl } from '../relay/relay-url.ts'
import type { EventTemplate, IdentifiedEvent, Nostr, NostrEvent } from '../types.ts'
import {
  type Merged,
  mergeDmRelays,
  mergeNutzaps,
  mergeProfile,
  mergeRelayList,
  NOTHING_SAID,
  type OwnWords,
  type Said,
} from './self-merge.ts'

const KINDS = [0, RELAY_LIST_KIND, DM_RELAYS_KIND] as const
const RETRY = { minMs: 5000, maxMs: 120_000 }
/** What nobody has while those that the key writes to are silent is not there after so long: lists outlive their relays. */
const DOUBT_MS = 60_000

export interface SelfDeps {
  readonly store: Store
  readonly clock: Clock
  readonly nostr: Pick<Nostr, 'newestOf' | 'nudgeOutbox'>
}

export interface SelfSpec extends OwnWords {
  readonly pubkey: string
  /** Of the outbox: the kind is added. */
  readonly keyPrefix: string
  /** For how long a relay that is down is tried. */
  readonly ttlMs: number
  /** Said again after this, though nothing changed. */
  readonly repeatMs?: number
  /** An older version of this program has published the profile: there was none before it. */
  readonly isOurs?: boolean
}

interface Stored extends Said {
  readonly digest: string
  /** Relays to which the last revision was given. */
  readonly reached: readonly string[]
  readonly at: number
  readonly createdAtS: number
}

interface Waiting {
  readonly digest: string
  readonly since: number
  readonly tries: number
  readonly nextAt: number
}

export class SelfPublisher {
  readonly #deps: SelfDeps
  readonly #turns = new KeyedQueue()
  readonly #waiting = new Map<string, Waiting>()

  constructor(deps: SelfDeps) {
    this.#deps = deps
  }

  /** Publishes what is new of it, as far as relays let us read first; to be called again until it is `same`. */
  publish(spec: SelfSpec): Promise<'same' | 'published' | 'waiting'> {
    return this.#turns.run(spec.pubkey, () => this.#publish(spec))
  }

  async #publish(spec: SelfSpec): Promise<'same' | 'published' | 'waiting'> {
    const { store, clock, nostr } = this.#deps
    const relays = [...new Set(spec.relays.map((url) => tryRelayUrl(url) ?? url))]
    const said = getSetting<Stored>(store, settingKey(spec.pubkey))
    const words = [spec.set, spec.defaults, spec.lud06 ?? null, relays, ...(spec.nutzaps === undefined ? [] : [spec.nutzaps])]
    const digest = hash('sha256', JSON.stringify(words))
    const ofThis = spec.nutzaps === undefined && said?.nutzaps === undefined ? KINDS : [...KINDS, NUTZAP_INFO_KIND]
    const isRepeat = said !== undefined && spec.repeatMs !== undefined && clock.now() - said.at >= spec.repeatMs
    const isNew = said?.digest !== digest || isRepeat
    const open = isNew ? relays : relays.filter((url) => !said.reached.includes(url))
    if (open.length === 0) {
      this.#waiting.delete(spec.pubkey)
      return 'same'
    }
    const waiting = this.#waiting.get(spec.pubkey)
    if (waiting?.digest === digest && clock.now() < waiting.nextAt) return 'waiting'
    const found = await nostr.newestOf(spec.pubkey, ofThis, relays)
    const waitedMs = waiting === undefined ? 0 : clock.now() - waiting.since
    const ready = open.filter((url) => found.answered.includes(url))
    const kinds = ofThis.filter((kind) => found.events.has(kind) || found.isSure || waitedMs >= DOUBT_MS)
    if (ready.length === 0 || kinds.length === 0) {
      this.#wait(spec.pubkey, digest, waiting)
      return 'waiting'
    }
    if (ready.length === open.length && kinds.length === ofThis.length) this.#waiting.delete(spec.pubkey)
    else this.#wait(spec.pubkey, digest, waiting)
    // By NIP-65 a key's own words belong where it writes.
    const writes = isNew ? found.write.filter((url) => found.answered.includes(url) && !relays.includes(url)) : []
    await this.#write(spec, {
      relays,
      found: found.events,
      kinds,
      isAll: kinds.length === ofThis.length,
      ready,
      writes,
      said,
      digest,
      isNew,
      isRepeat,
    })
    return 'published'
  }

  async #write(
    spec: SelfSpec,
    how: {
      relays: readonly string[]
      found: ReadonlyMap<number, NostrEvent>
      /** The others wait. */
      kinds: readonly number[]
      isAll: boolean
      ready: readonly string[]
      writes: readonly string[]
      said: Stored | undefined
      digest: string
      isNew: boolean
      isRepeat: boolean
    },
  ): Promise<void> {
    const { store, clock, nostr } = this.#deps
    const { found, said } = how
    const before: Said = said ?? { ...NOTHING_SAID, isAdopted: found.has(0) && spec.isOurs !== true }
    const profile = mergeProfile(found.get(0), spec, before)
    const list = mergeRelayList(found.get(RELAY_LIST_KIND), how.relays, before)
    const dms = mergeDmRelays(found.get(DM_RELAYS_KIND), how.relays, before)
    const nutzaps = mergeNutzaps(found.get(NUTZAP_INFO_KIND), how.relays, spec.nutzaps, before.nutzaps)
    const merged: [number, Merged<unknown>][] = [
      [0, profile],
      [RELAY_LIST_KIND, list],
      [DM_RELAYS_KIND, dms],
      [NUTZAP_INFO_KIND, nutzaps],
    ]
    const at = clock.now()
    // Of two revisions in one second relays keep the one with the lower id: each is a second later than the last.
    const newest = Math.max(said?.createdAtS ?? 0, ...[...found.values()].map((event) => event.created_at))
    const createdAtS = Math.max(unixSeconds(clock), newest + 1)
    const goes = (kind: number) => how.kinds.includes(kind)
    const messages = merged.flatMap(([kind, { body }]) => {
      if (!goes(kind)) return []
      const there = found.get(kind)
      const isSame = there !== undefined && !how.isRepeat && sameBody(there, body)
      const event = isSame ? there : identify(spec.pubkey, { kind, created_at: createdAtS, ...body })
      return messagesFor(`${spec.keyPrefix}${kind}`, event, how)
    })
    const stored: Stored = {
      digest: how.digest,
      fields: goes(0) ? profile.ours : before.fields,
      relays: goes(RELAY_LIST_KIND) ? list.ours : before.relays,
      dmRelays: goes(DM_RELAYS_KIND) ? dms.ours : before.dmRelays,
      ...given({ nutzaps: goes(NUTZAP_INFO_KIND) ? nutzaps.ours : before.nutzaps }),
      isAdopted: before.isAdopted,
      reached: !how.isAll ? [] : how.isNew ? how.ready : [...(said?.reached ?? []), ...how.ready],
      at: how.isNew ? at : (said?.at ?? at),
      createdAtS,
    }
    const notAfter = at + spec.ttlMs
    await store.write(
      all(
        putSetting({ key: settingKey(spec.pubkey), value: stored, at }),
        ...messages.map((message) => enqueueEvent({ ...message, notAfter, at })),
      ),
    )
    nostr.nudgeOutbox()
  }

  #wait(pubkey: string, digest: string, before: Waiting | undefined): void {
    const now = this.#deps.clock.now()
    const tries = (before?.tries ?? 0) + 1
    this.#waiting.set(pubkey, { digest, since: before?.since ?? now, tries, nextAt: now + doublingMs(RETRY, tries) })
  }
}

/** One message for all, or, where others got this event before, one for each relay that had to wait: an event goes out once under a key. */
function messagesFor(
  key: string,
  event: IdentifiedEvent | NostrEvent,
  { isNew, ready, writes }: { isNew: boolean; ready: readonly string[]; writes: readonly string[] },
): { key: string; event: IdentifiedEvent | NostrEvent; relays: readonly string[] }[] {
  if (isNew) return [{ key, event, relays: [...ready, ...writes] }]
  return ready.map((relay) => ({ key: `${key}@${relay}`, event, relays: [relay] }))
}

function sameBody(there: Pick<EventTemplate, 'tags' | 'content'>, body: Pick<EventTemplate, 'tags' | 'content'>): boolean {
  return there.content === body.content && JSON.stringify(there.tags) === JSON.stringify(body.tags)
}

const settingKey = (pubkey: string): string => `self:${pubkey}`
