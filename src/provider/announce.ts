/** Tells the network what is sold here: the announcement (31990), the heartbeat (11998). */
import { hash } from 'node:crypto'
import { type Clock, unixSeconds } from '../base/clock.ts'
import { given } from '../base/given.ts'
import { identify } from '../nostr/nips/nip01.ts'
import { type Announcement, buildAnnouncement, buildHeartbeat } from '../nostr/nips/nip89.ts'
import type { EventTemplate } from '../nostr/types.ts'
import { all } from '../store/commands.ts'
import { enqueueEvent } from '../store/nostr/outbox.ts'
import { getSetting, putSetting } from '../store/settings.ts'
import type { Store } from '../store/store.ts'

/** Clients hide a provider that was not heard for 900 s. */
export const HEARTBEAT_S = 300
const HOUR_MS = 3_600_000
/** Said again after this, though nothing changed: relays forget. */
const REPEAT_AFTER_MS = 24 * HOUR_MS

export interface Offer extends Pick<Announcement, 'kinds' | 'name' | 'about' | 'mints' | 'pricing'> {
  readonly lockPubkey: string | undefined
  /** Models that kind 5050 can be asked for. */
  readonly models: readonly string[]
  /** Bits of proof of work that strangers need now, while the node is busy. */
  readonly workBits: number | undefined
}

interface Said {
  readonly digest: string
  readonly createdAtS: number
}

/** Stable for a key, so that a restored home announces the same thing; tells nothing else. */
export function announcementId(pubkey: string): string {
  return hash('sha256', `pylon announcement ${pubkey}`).slice(0, 16)
}

interface AnnouncerDeps {
  readonly store: Store
  readonly clock: Clock
  readonly pubkey: () => string
  readonly relays: () => readonly string[]
  readonly nudge: () => void
}

export class Announcer {
  readonly #deps: AnnouncerDeps

  constructor(deps: AnnouncerDeps) {
    this.#deps = deps
  }

  /** Publishes what differs from what was published last. */
  async publish({ models, workBits, lockPubkey, ...rest }: Offer): Promise<void> {
    const { clock, pubkey } = this.#deps
    const named = { d: announcementId(pubkey()), ...rest, ...given({ lockPubkey }) }
    const { tags, content, ...template } = buildAnnouncement(named, unixSeconds(clock))
    // The models of 5050 in the form that DVM clients read.
    const nip90Params = models.length === 0 ? undefined : { model: { required: false, values: models.slice(0, 50) } }
    const said = { ...(JSON.parse(content) as Record<string, unknown>), nip90Params, pow: workBits }
    await this.#say({ ...template, tags: [...tags, ['t', 'pylon'], ['t', 'dvm']], content: JSON.stringify(said) })
  }

  async heartbeat(): Promise<void> {
    const { store, clock, pubkey, relays, nudge } = this.#deps
    const event = identify(pubkey(), buildHeartbeat(announcementId(pubkey()), unixSeconds(clock), HEARTBEAT_S))
    const at = clock.now()
    const notAfter = at + HEARTBEAT_S * 1000
    await store.write(enqueueEvent({ key: `announce:${pubkey()}:11998`, event, relays: relays(), notAfter, at }))
    nudge()
  }

  async #say(template: EventTemplate): Promise<void> {
    const { store, clock, pubkey, relays, nudge } = this.#deps
    const key = `announce:${pubkey()}:${template.kind}`
    const digest = hash('sha256', JSON.stringify([template.tags, template.content, relays()]))
    const last = getSetting<Said>(store, key)
    const at = clock.now()
    if (last?.digest === digest && last.createdAtS * 1000 + REPEAT_AFTER_MS > at) return
    // A replaceable event must be newer than the one it replaces; of two in a second the lower id would win.
    const createdAtS = Math.max(template.created_at, (last?.createdAtS ?? 0) + 1)
    const event = identify(pubkey(), { ...template, created_at: createdAtS })
    const notAfter = at + REPEAT_AFTER_MS
    await store.write(
      all(putSetting({ key, value: { digest, createdAtS }, at }), enqueueEvent({ key, event, relays: relays(), notAfter, at })),
    )
    nudge()
  }
}
