/**
 * The doors of runtimes whose agents are talked to in encrypted sessions: each a Unix socket on which its guest, which has no
 * network, reaches the relays of its session, for its own key and these kinds only.
 */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { ensurePrivateDir } from '../../base/files.ts'
import type { Logger } from '../../base/logger.ts'
import { randomHex } from '../../base/random.ts'
import type { Scope } from '../../base/scope.ts'
import { createVerifier } from '../../nostr/reading/verify.ts'
import type { Nostr, NostrEvent } from '../../nostr/types.ts'
import { DOOR_SOCKET } from '../../runtime/contract/paths.ts'
import { doorMessage } from '../../store/keys.ts'
import { forgetCursors } from '../../store/nostr/cursors.ts'
import { enqueueEvent } from '../../store/nostr/outbox.ts'
import { bindBot, type RuntimeRow } from '../../store/selling/runtimes.ts'
import type { Store } from '../../store/store.ts'
import { doorSubscription, RelayDoor } from './door.ts'
import { ALL_DOORS_RATES, DOOR_RATES, DoorMeter } from './door-meter.ts'
import { sessionOf } from './order.ts'

/** Relays of one session that are spoken to. */
const MAX_RELAYS = 6
/** How long a relay is tried; after that the guest sends it again, or not. */
const SEND_MS = 30_000
/** What the outbox may take to say so. */
const TELL_MS = 10_000

export interface DoorsDeps {
  readonly scope: Scope
  readonly store: Store
  readonly logger: Logger
  readonly nostr: Pick<Nostr, 'relays' | 'query' | 'subscribe' | 'nudgeOutbox' | 'onPublished' | 'onGivenUp'>
  /** Of this home; holds a folder for each door. */
  readonly dir: string
}

export interface OpenDoor {
  readonly socketPath: string
  /** Those behind it. */
  readonly relays: readonly string[]
}

export class RelayDoors {
  readonly #deps: DoorsDeps
  readonly #verifier = createVerifier()
  readonly #meter: DoorMeter
  readonly #doors = new Map<string, RelayDoor>()
  /** Who waits for what relays say to an event, by the key of its message. */
  readonly #sending = new Map<string, (refusal: string | undefined) => void>()

  constructor(deps: DoorsDeps) {
    this.#deps = deps
    this.#meter = new DoorMeter(deps.scope.clock, ALL_DOORS_RATES)
    const tell = async (key: string, refusal: string | undefined) => this.#sending.get(key)?.(refusal)
    deps.nostr.onPublished(doorMessage.of(''), (key) => tell(key, undefined))
    deps.nostr.onGivenUp(doorMessage.of(''), (key, why) => tell(key, refusalOf(why)))
  }

  /** Opens it, where it is not. @returns undefined for a runtime without a session @throws Error as the system says it */
  async open(row: RuntimeRow): Promise<OpenDoor | undefined> {
    const session = sessionOf(row)
    if (session === undefined) return undefined
    const open = this.#doors.get(row.id)
    if (open !== undefined) return open
    const dir = this.#dirOf(row.id)
    ensurePrivateDir(this.#deps.dir)
    ensurePrivateDir(dir)
    const relays = (session.relays.length > 0 ? session.relays : this.#deps.nostr.relays).slice(0, MAX_RELAYS)
    const scope = this.#deps.scope.child(row.id)
    const door = new RelayDoor({
      scope,
      id: row.id,
      owner: row.ownerPubkey,
      relays,
      socketPath: join(dir, DOOR_SOCKET),
      nostr: this.#deps.nostr,
      verifier: this.#verifier,
      meter: new DoorMeter(scope.clock, DOOR_RATES, this.#meter),
      bind: (pubkey) => this.#bind(row.id, pubkey),
      publish: (event) => this.#publish(scope, row.id, event, relays),
    })
    this.#doors.set(row.id, door)
    try {
      await door.open()
    } catch (error) {
      this.#doors.delete(row.id)
      scope.end()
      throw error
    }
    return door
  }

  /** Shuts it for good. */
  async close(runtimeId: string): Promise<void> {
    const door = this.#doors.get(runtimeId)
    this.#doors.delete(runtimeId)
    await door?.close()
    rmSync(this.#dirOf(runtimeId), { recursive: true, force: true })
    if (door !== undefined) await this.#deps.store.write(forgetCursors({ namePrefix: doorSubscription(runtimeId) }))
  }

  #dirOf(runtimeId: string): string {
    return join(this.#deps.dir, runtimeId)
  }

  async #bind(runtimeId: string, pubkey: string): Promise<string> {
    const { store, scope } = this.#deps
    return (await store.write(bindBot({ id: runtimeId, pubkey, at: scope.clock.now() }))) ?? ''
  }

  /** @returns the relays' words where none took it */
  async #publish(scope: Scope, runtimeId: string, event: NostrEvent, relays: readonly string[]): Promise<string | undefined> {
    const { store, nostr } = this.#deps
    const now = scope.clock.now()
    // Each time it comes it is sent: a relay that has it says so.
    const key = doorMessage.of(`${runtimeId}:${event.id}:${randomHex(scope.random, 4)}`)
    const heard = scope.hear<{ readonly refusal: string | undefined }>(SEND_MS + TELL_MS, (tell) => {
      this.#sending.set(key, (refusal) => tell({ refusal }))
      return () => this.#sending.delete(key)
    })
    await store.write(enqueueEvent({ key, event, relays, notAfter: now + SEND_MS, at: now }))
    nostr.nudgeOutbox()
    const answer = await heard
    return answer === undefined ? 'error: no relay answered in time' : answer.refusal
  }
}

/** Of one relay in its own words; they begin as an OK's do. */
function refusalOf(why: string): string {
  const words = why.replace(/^wss?:\/\/\S+: /, '')
  return /^[a-z-]+: /.test(words) ? words : `error: ${words}`
}
