/** The way to one relay: deliveries that are due, under way or waiting for another try, many at once. */
import { randomInt } from 'node:crypto'
import type { Clock } from '../../base/clock.ts'
import { isPylonError, messageOf } from '../../base/errors.ts'
import type { DeliveryOutcome, DeliveryState } from '../../store/nostr/outbox.ts'
import { prefixOf } from '../relay/frames.ts'
import type { Hold } from '../relay/pool.ts'
import type { Relay } from '../relay/relay.ts'
import type { Signer } from '../types.ts'
import { isAhead, type Job, LaneQueue } from './lane-queue.ts'
import { Pace } from './pace.ts'
import { judgeOk, reasonOfRefusal } from './verdict.ts'

/** Where fewer wait, more comes from the table. */
const REFILL_BELOW = 256
const MAX_BUFFERED_BYTES = 4 * 1024 * 1024
const OK_TIMEOUT_MS = 10_000
const EPHEMERAL_OK_TIMEOUT_MS = 5000
const MIN_RETRY_MS = 1000
const MAX_RETRY_MS = 300_000
/** A relay that somebody named and that cannot be reached gives up its place in the pool for so long. */
const REST_MS = 30_000
/** The connection was lost so often while a message was under way: it may be the cause, and goes alone from then on. */
const LOSSES_OF_SUSPECT = 2
/** So often a relay may refuse an event in words that mean nothing to us; some minutes go by until then. */
const MAX_UNEXPLAINED = 8

export interface OutboxItem {
  readonly id: number
  readonly key: string
  /** Another one when a wrap was made again. */
  readonly eventId: string
  /** Whose key stands for it: of a wrap the one that sealed it. */
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

export interface LaneDeps {
  readonly clock: Clock
  /** As the rows name the relay. */
  readonly name: string
  /** @param as the key that the connection is for alone */
  hold(as?: string): Hold | undefined
  /** Not one of our own relays: its place is wanted by others. */
  readonly foreign: boolean
  /** The author's key where it is ours and unlocked. */
  signerOf(pubkey: string): Signer | undefined
  /** Makes an event that was refused in these words anew, where that can be; resolves when the item has it (or has not, and it goes as it was). */
  remake(item: OutboxItem, message: string): Promise<void> | undefined
  onOutcome(item: OutboxItem, outcome: DeliveryOutcome): void
  /** The keys are locked: everything waits. */
  onLocked(): void
  /** Called when there is room for more from the table. */
  onRoom(): void
}

export class Lane {
  readonly #deps: LaneDeps
  /** The key that this lane's connection is for alone, if it is one of those. */
  readonly #as: string | undefined
  /** Lanes of authors that the relay takes events from only where they alone have logged in; once that is known, for good. */
  readonly #apart = new Map<string, Lane>()
  readonly #queue = new LaneQueue()
  readonly #flying = new Map<string, Job>()
  /** Neither due nor under way: a key is being proven for it, or it is being made again. */
  readonly #aside = new Set<Job>()
  readonly #pace = new Pace()
  #cancelPause: (() => void) | undefined
  #ended = false
  #hold: Hold | undefined
  #unlisten: () => void = () => {}
  #lockedNow = false
  #restsUntil = 0
  #whyResting: string | null = null
  /** The newest message that was taken in; those after it are in the table only, when `overflow` is set. */
  newestId = 0
  overflow = false

  constructor(deps: LaneDeps, as?: string) {
    this.#deps = deps
    this.#as = as
  }

  get depth(): number {
    let depth = this.#queue.size + this.#flying.size + this.#aside.size
    for (const lane of this.#apart.values()) depth += lane.depth
    return depth
  }

  get idle(): boolean {
    return this.depth === 0 && !this.overflow
  }

  add(item: OutboxItem, attempts: number, nextAt: number): void {
    item.lanes++
    this.newestId = Math.max(this.newestId, item.id)
    const job: Job = { item, attempts, at: nextAt, sentId: '', lastError: undefined, unexplained: 0, triedAuth: false, losses: 0 }
    this.#queue.add(job, this.#deps.clock.now())
  }

  /** For good. */
  end(): void {
    this.#ended = true
    this.#cancelPause?.()
    this.#leave()
    for (const lane of this.#apart.values()) lane.end()
  }

  #leave(): void {
    this.#unlisten()
    this.#hold?.release()
    this.#hold = undefined
  }

  /** Sends what is due as far as the window allows. */
  pump(): void {
    for (const lane of this.#apart.values()) lane.pump()
    const relay = this.#ended ? undefined : this.#connection()
    if (relay === undefined) return
    relay.recheck()
    if (relay.refused !== undefined) {
      this.rejectAll(relay.refused)
      return
    }
    while (relay.connected && relay.bufferedBytes < MAX_BUFFERED_BYTES) {
      const job = this.#queue.peek()
      if (job === undefined) break
      const apart = this.#apart.get(job.item.author)
      if (apart !== undefined) {
        apart.#queue.putLast(job)
        apart.pump()
      } else if (!this.#dropIfOver(job)) {
        if (!this.#pace.mayGo(this.#flying.size, this.#deps.clock.now())) break
        if (this.#flying.has(job.item.eventId) || this.#mustGoAlone(job)) break
        if (!this.#send(relay, job)) break
      }
      this.#queue.shift()
    }
    this.#pumpAfterPause()
    if (this.overflow && this.#queue.due < REFILL_BELOW) this.#deps.onRoom()
  }

  #pumpAfterPause(): void {
    const waitMs = this.#pace.waitMs(this.#deps.clock.now())
    if (waitMs === 0 || this.#queue.due === 0 || this.#cancelPause !== undefined) return
    this.#cancelPause = this.#deps.clock.after(waitMs, () => {
      this.#cancelPause = undefined
      this.pump()
    })
  }

  /** Once a second: answers that did not come, tries that are due, messages nobody wants any more. */
  tick(): void {
    const now = this.#deps.clock.now()
    for (const lane of this.#apart.values()) {
      lane.tick()
      if (lane.idle) lane.#leave()
      else lane.pump()
    }
    for (const [id, job] of this.#flying) {
      const timeoutMs = job.item.ephemeral ? EPHEMERAL_OK_TIMEOUT_MS : OK_TIMEOUT_MS
      if (Math.abs(now - job.at) < timeoutMs) continue
      this.#flying.delete(id)
      this.#hold?.relay.forgetOk(id)
      this.#pace.failed(job.at, now)
      if (job.item.ephemeral) this.#settle(job, 'expired', 'no OK')
      else this.#retry(job, 'no OK in time')
    }
    this.#queue.wake(now, (job) => this.#dropIfOver(job))
    if (this.#hold?.relay.connected !== true || this.#pace.waitMs(now) > 0) this.#queue.prune((job) => this.#dropIfOver(job))
  }

  #connection(): Relay | undefined {
    if (this.#hold === undefined) {
      if (isAhead(this.#restsUntil, this.#deps.clock.now())) return undefined
      this.#hold = this.#deps.hold(this.#as)
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
    if (!(this.#deps.foreign || this.#as !== undefined) || this.#hold?.relay.refused !== undefined) return
    this.#whyResting = this.#hold?.relay.reason ?? null
    this.#leave()
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
    for (const job of jobs) job.losses++
    const [first] = jobs
    // Some relays hang up on what they don't take: went one alone and is it so again, then the others come first.
    if (first !== undefined && first.losses > LOSSES_OF_SUSPECT) this.#retry(first, 'the relay ended the connection')
    else this.#queue.putFirst(jobs)
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
    job.sentId = item.eventId
    this.#flying.set(item.eventId, job)
    this.#pace.sent(job.at)
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
    if (this.#flying.get(job.sentId) !== job) return
    this.#flying.delete(job.sentId)
    const now = this.#deps.clock.now()
    const words = message || 'refused without a reason'
    switch (judgeOk(ok, message)) {
      case 'taken':
        this.#pace.accepted()
        this.#settle(job, 'accepted', null)
        break
      case 'too_fast':
        this.#pace.limited(job.at, now)
        this.#putBack(job, words)
        break
      case 'log_in':
        this.#authThenRetry(relay, job, words)
        break
      case 'final':
        this.#pace.refused()
        this.#refused(relay, job, words)
        break
      case 'later':
        this.#pace.failed(job.at, now)
        if (job.item.ephemeral || isUnexplained(job, message)) this.#refused(relay, job, words)
        else this.#retryAnew(job, words)
        break
    }
    this.pump()
  }

  /** A refusal that the same again would not change: another event may, or another key. */
  #refused(relay: Relay, job: Job, message: string): void {
    const remade = this.#deps.remake(job.item, message)
    if (remade !== undefined) this.#setAside(job, remade)
    // Some say so to whom they have not asked to log in.
    else if (message.startsWith('restricted:') && (!job.triedAuth || this.#as === undefined)) this.#authThenRetry(relay, job, message, true)
    else this.#settle(job, 'rejected', message)
  }

  #retryAnew(job: Job, message: string): void {
    const remade = this.#deps.remake(job.item, message)
    if (remade === undefined) this.#retry(job, message)
    else this.#setAside(job, remade)
  }

  /** It keeps its place before those that came after it. */
  #putBack(job: Job, message: string): void {
    this.#queue.putBack(job)
    if (job.lastError === message) return
    job.at = 0
    this.#report(job, 'pending', message)
  }

  #setAside(job: Job, until: Promise<void>): void {
    this.#aside.add(job)
    void until.then(() => {
      if (!this.#aside.delete(job)) return
      this.#queue.putLast(job)
      this.pump()
    })
  }

  /** @param final the refusal stands when no key can be proven */
  #authThenRetry(relay: Relay, job: Job, message: string, final = false): void {
    const signer = this.#deps.signerOf(job.item.author)
    // Who is asked only now has not been refused yet.
    const wasAsked = relay.challenged
    const giveWay = () => {
      if (signer !== undefined && wasAsked && this.#goApart(job, signer.pubkey)) return
      this.#pace.failed(job.at, this.#deps.clock.now())
      if (final) this.#settle(job, 'rejected', message)
      else this.#retry(job, message)
    }
    if (signer === undefined || job.triedAuth) {
      giveWay()
      return
    }
    job.triedAuth = true
    this.#aside.add(job)
    void relay.auth(signer).then((proven) => {
      if (!this.#aside.delete(job)) return
      if (proven) this.#queue.putLast(job)
      else giveWay()
      this.pump()
    })
  }

  /** Over a connection of the author's own: some relays know one key a connection, and another key was shown on this one. */
  #goApart(job: Job, pubkey: string): boolean {
    if (this.#as !== undefined) return false
    const lane = this.#apart.get(pubkey) ?? new Lane({ ...this.#deps, onRoom: () => {} }, pubkey)
    this.#apart.set(pubkey, lane)
    job.triedAuth = false
    lane.#queue.putLast(job)
    lane.pump()
    return true
  }

  #retry(job: Job, error: string): void {
    const waitMs = Math.min(MAX_RETRY_MS, MIN_RETRY_MS * 2 ** Math.min(job.attempts, 10))
    job.attempts++
    job.triedAuth = false
    job.at = this.#deps.clock.now() + Math.round(waitMs * (0.7 + randomInt(600) / 1000))
    this.#queue.wait(job)
    this.#report(job, 'pending', error)
  }

  #dropIfOver(job: Job): boolean {
    if (job.item.superseded) this.#settle(job, 'superseded', null)
    else if (job.item.notAfter < this.#deps.clock.now()) this.#settle(job, 'expired', this.#whyLate(job))
    else return false
    return true
  }

  /** What the relay said of it last stays; without that, why the relay is not there. */
  #whyLate(job: Job): string | null {
    const relay = this.#hold?.relay
    if (job.lastError !== undefined || relay?.connected === true) return null
    return relay?.reason ?? this.#whyResting
  }

  /** Its relay could not be reached and is not tried for a while. */
  get resting(): boolean {
    const isStill =
      this.#hold === undefined && this.#flying.size + this.#aside.size === 0 && [...this.#apart.values()].every((lane) => lane.idle)
    return isStill && isAhead(this.#restsUntil, this.#deps.clock.now())
  }

  /** Ends it and gives back what waits, which stays in the table. */
  unload(): OutboxItem[] {
    this.end()
    const items = this.#queue.drain().map(({ item }) => item)
    for (const item of items) item.lanes--
    return items
  }

  /** Gives up all that waits. */
  rejectAll(reason: string): void {
    const jobs = [...this.#queue.drain(), ...this.#aside]
    this.#aside.clear()
    for (const job of jobs) this.#settle(job, 'rejected', reason)
    for (const lane of this.#apart.values()) lane.rejectAll(reason)
  }

  #settle(job: Job, state: DeliveryState, error: string | null): void {
    job.item.lanes--
    if (state === 'accepted') job.attempts++
    this.#report(job, state, error)
  }

  #report(job: Job, state: DeliveryState, error: string | null): void {
    const { item, attempts, at } = job
    if (error !== null) job.lastError = error
    const reason = state === 'rejected' ? { reason: reasonOfRefusal(error ?? '') } : {}
    const nextAt = state === 'pending' ? at : 0
    this.#deps.onOutcome(item, { messageId: item.id, relay: this.#deps.name, state, attempts, error, nextAt, ...reason })
  }
}

/** A relay that goes on refusing in words that are no prefix of NIP-01 means it; `error:` is its own trouble, which may end. */
function isUnexplained(job: Job, message: string): boolean {
  return prefixOf(message) !== 'error' && ++job.unexplained >= MAX_UNEXPLAINED
}
