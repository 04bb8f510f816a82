/** The way to one relay: deliveries that are due, under way or waiting for another try, many at once. */
import { randomInt } from 'node:crypto'
import type { Clock } from '../base/clock.ts'
import { isPylonError, messageOf } from '../base/errors.ts'
import type { DeliveryOutcome, DeliveryState } from '../store/outbox.ts'
import type { Hold } from './pool.ts'
import type { Relay } from './relay.ts'
import { prefixOf } from './relay-frames.ts'
import type { Signer } from './types.ts'

/** Events sent and not yet answered, at most. */
const WINDOW = 256
const MAX_BUFFERED_BYTES = 4 * 1024 * 1024
const OK_TIMEOUT_MS = 10_000
const EPHEMERAL_OK_TIMEOUT_MS = 5000
const MIN_RETRY_MS = 1000
const MAX_RETRY_MS = 300_000
/** A relay that somebody named and that cannot be reached gives up its place in the pool for so long. */
const REST_MS = 30_000
/** A next try further ahead than this was set by a clock that has been set back since. */
const MAX_AHEAD_MS = 2 * MAX_RETRY_MS
/** The connection was lost so often while a message was under way: it may be the cause, and goes alone from then on. */
const LOSSES_OF_SUSPECT = 2
/** Refusals that another try would not change. */
const FINAL_PREFIXES = new Set(['invalid', 'blocked', 'pow', 'restricted', 'mute'])

export interface OutboxItem {
  readonly id: number
  readonly key: string
  readonly eventId: string
  readonly author: string
  readonly ephemeral: boolean
  readonly notAfter: number
  /** A newer revision has taken its place. */
  superseded: boolean
  /** Lanes that still hold it. */
  lanes: number
  /** The EVENT frame, signed once. @throws locked, not_found when the key is gone */
  frame(): string
}

interface Job {
  readonly item: OutboxItem
  attempts: number
  /** When to try again, or when it was sent (ms). */
  at: number
  triedAuth: boolean
  /** Connections that were lost while it was under way. */
  losses: number
}

export interface LaneDeps {
  readonly clock: Clock
  /** As the rows name the relay. */
  readonly name: string
  hold(): Hold | undefined
  /** Not one of our own relays: its place is wanted by others. */
  readonly foreign: boolean
  /** The author's key where it is ours and unlocked. */
  signerOf(pubkey: string): Signer | undefined
  onOutcome(item: OutboxItem, outcome: DeliveryOutcome): void
  /** The keys are locked: everything waits. */
  onLocked(): void
  /** Called when there is room for more from the table. */
  onRoom(): void
}

export class Lane {
  readonly #deps: LaneDeps
  readonly #due: Job[] = []
  #head = 0
  #later: Job[] = []
  readonly #flying = new Map<string, Job>()
  #hold: Hold | undefined
  #unlisten: () => void = () => {}
  #lockedNow = false
  #restsUntil = 0
  /** The newest message that was taken in; those after it are in the table only, when `overflow` is set. */
  newestId = 0
  overflow = false

  constructor(deps: LaneDeps) {
    this.#deps = deps
  }

  get depth(): number {
    return this.#due.length - this.#head + this.#later.length + this.#flying.size
  }

  get idle(): boolean {
    return this.depth === 0 && !this.overflow
  }

  add(item: OutboxItem, attempts: number, nextAt: number): void {
    item.lanes++
    this.newestId = Math.max(this.newestId, item.id)
    const job: Job = { item, attempts, at: nextAt, triedAuth: false, losses: 0 }
    if (isAhead(nextAt, this.#deps.clock.now())) this.#later.push(job)
    else this.#due.push(job)
  }

  close(): void {
    this.#unlisten()
    this.#hold?.release()
    this.#hold = undefined
  }

  /** Sends what is due as far as the window allows. */
  pump(): void {
    const relay = this.#connection()
    if (relay === undefined) return
    if (relay.refused !== undefined) {
      this.rejectAll(relay.refused)
      return
    }
    while (relay.connected && this.#flying.size < WINDOW && relay.bufferedBytes < MAX_BUFFERED_BYTES) {
      const job = this.#due[this.#head]
      if (job === undefined) break
      if (!this.#dropIfOver(job)) {
        if (this.#flying.has(job.item.eventId) || this.#mustGoAlone(job)) break
        if (!this.#send(relay, job)) break
      }
      this.#head++
    }
    if (this.#head > 1000 && this.#head * 2 > this.#due.length) {
      this.#due.splice(0, this.#head)
      this.#head = 0
    }
    if (this.overflow && this.#due.length - this.#head < WINDOW) this.#deps.onRoom()
  }

  /** Once a second: answers that did not come, tries that are due, messages nobody wants any more. */
  tick(): void {
    const now = this.#deps.clock.now()
    for (const [id, job] of this.#flying) {
      const timeoutMs = job.item.ephemeral ? EPHEMERAL_OK_TIMEOUT_MS : OK_TIMEOUT_MS
      if (Math.abs(now - job.at) < timeoutMs) continue
      this.#flying.delete(id)
      this.#hold?.relay.forgetOk(id)
      if (job.item.ephemeral) this.#settle(job, 'expired', 'no OK')
      else this.#retry(job, 'no OK in time')
    }
    const later = this.#later
    this.#later = []
    for (const job of later) {
      if (this.#dropIfOver(job)) continue
      if (isAhead(job.at, now)) this.#later.push(job)
      else this.#due.push(job)
    }
    if (this.#hold?.relay.connected === true) return
    const waiting = this.#due.splice(this.#head)
    this.#due.length = 0
    this.#head = 0
    for (const job of waiting) if (!this.#dropIfOver(job)) this.#due.push(job)
  }

  #connection(): Relay | undefined {
    if (this.#hold === undefined) {
      if (isAhead(this.#restsUntil, this.#deps.clock.now())) return undefined
      this.#hold = this.#deps.hold()
      this.#unlisten =
        this.#hold?.relay.listen({
          onUp: () => this.pump(),
          onDown: () => this.#takeBack(),
          onFailed: () => this.#rest(),
        }) ?? (() => {})
    }
    return this.#hold?.relay
  }

  #rest(): void {
    // An address that is refused is reported by the next pump.
    if (!this.#deps.foreign || this.#hold?.relay.refused !== undefined) return
    this.close()
    this.#restsUntil = this.#deps.clock.now() + REST_MS
  }

  /** A suspect waits until nothing else is under way, and nothing follows it until it is answered. */
  #mustGoAlone(job: Job): boolean {
    const [underWay] = this.#flying.values()
    return underWay !== undefined && Math.max(job.losses, underWay.losses) >= LOSSES_OF_SUSPECT
  }

  /** What was under way when the connection went may or may not have arrived: it goes again, and a duplicate is a success. */
  #takeBack(): void {
    const jobs = [...this.#flying.values()]
    this.#flying.clear()
    this.#due.splice(0, this.#head)
    this.#head = 0
    for (const job of jobs) job.losses++
    const [first] = jobs
    // Some relays hang up on what they don't take: went one alone and is it so again, then the others come first.
    if (first !== undefined && first.losses > LOSSES_OF_SUSPECT) this.#retry(first, 'the relay ended the connection')
    else this.#due.unshift(...jobs)
  }

  /** False when the keys are locked. */
  #send(relay: Relay, job: Job): boolean {
    const { item } = job
    const frame = this.#frameOf(job)
    if (frame === undefined) return !this.#lockedNow
    const limit = relay.limits.maxMessageLength
    if (limit !== undefined && Buffer.byteLength(frame) > limit) {
      this.#settle(job, 'rejected', `longer than the relay takes (${limit} bytes)`)
      return true
    }
    job.at = this.#deps.clock.now()
    this.#flying.set(item.eventId, job)
    relay.sendEvent(frame, item.eventId, (ok, message) => this.#onOk(relay, job, ok, message))
    return true
  }

  #frameOf(job: Job): string | undefined {
    try {
      this.#lockedNow = false
      return job.item.frame()
    } catch (error) {
      this.#lockedNow = isPylonError(error, 'locked')
      if (this.#lockedNow) this.#deps.onLocked()
      else this.#settle(job, 'rejected', messageOf(error))
      return undefined
    }
  }

  #onOk(relay: Relay, job: Job, ok: boolean, message: string): void {
    if (this.#flying.get(job.item.eventId) !== job) return
    this.#flying.delete(job.item.eventId)
    const prefix = prefixOf(message)
    if (ok || prefix === 'duplicate') this.#settle(job, 'accepted', null)
    else if (prefix === 'auth-required') this.#authThenRetry(relay, job, message)
    else if (FINAL_PREFIXES.has(prefix)) this.#settle(job, 'rejected', message)
    else if (job.item.ephemeral) this.#settle(job, 'rejected', message)
    else this.#retry(job, message || 'refused without a reason')
    this.pump()
  }

  #authThenRetry(relay: Relay, job: Job, message: string): void {
    const signer = this.#deps.signerOf(job.item.author)
    if (signer === undefined || job.triedAuth) {
      this.#retry(job, message)
      return
    }
    job.triedAuth = true
    void relay.auth(signer).then((proven) => {
      if (!proven) {
        this.#retry(job, message)
        return
      }
      this.#due.push(job)
      this.pump()
    })
  }

  #retry(job: Job, error: string): void {
    const waitMs = Math.min(MAX_RETRY_MS, MIN_RETRY_MS * 2 ** Math.min(job.attempts, 10))
    job.attempts++
    job.triedAuth = false
    job.at = this.#deps.clock.now() + Math.round(waitMs * (0.7 + randomInt(600) / 1000))
    this.#later.push(job)
    this.#report(job, 'pending', error)
  }

  #dropIfOver(job: Job): boolean {
    if (job.item.superseded) this.#settle(job, 'superseded', null)
    else if (job.item.notAfter < this.#deps.clock.now()) this.#settle(job, 'expired', null)
    else return false
    return true
  }

  /** Its relay could not be reached and is not tried for a while. */
  get resting(): boolean {
    return this.#hold === undefined && this.#flying.size === 0 && isAhead(this.#restsUntil, this.#deps.clock.now())
  }

  /** Ends it and gives back what waits, which stays in the table. */
  unload(): OutboxItem[] {
    this.close()
    const items = [...this.#due.splice(this.#head), ...this.#later.splice(0)].map(({ item }) => item)
    for (const item of items) item.lanes--
    return items
  }

  /** Gives up all that waits. */
  rejectAll(reason: string): void {
    const jobs = [...this.#due.splice(this.#head), ...this.#later]
    this.#due.length = 0
    this.#head = 0
    this.#later = []
    for (const job of jobs) this.#settle(job, 'rejected', reason)
  }

  #settle(job: Job, state: DeliveryState, error: string | null): void {
    job.item.lanes--
    if (state === 'accepted') job.attempts++
    this.#report(job, state, error)
  }

  #report(job: Job, state: DeliveryState, error: string | null): void {
    const { item, attempts, at } = job
    this.#deps.onOutcome(item, { messageId: item.id, relay: this.#deps.name, state, attempts, error, nextAt: state === 'pending' ? at : 0 })
  }
}

/** Whether that time is still to come, as far as our clock can be believed. */
const isAhead = (at: number, now: number): boolean => at > now && at - now <= MAX_AHEAD_MS
