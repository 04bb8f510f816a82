/** The way to one relay: deliveries that are due, under way or waiting for another try, many at once. */
import { isPylonError, messageOf, toPylonError } from '../../base/errors.ts'
import type { Scope } from '../../base/scope.ts'
import { isUnheard } from '../keys/away.ts'
import type { Hold } from '../relay/pool.ts'
import type { Relay } from '../relay/relay.ts'
import type { Signer } from '../types.ts'
import { Delivery, type DeliveryRecord } from './delivery.ts'
import { LaneLink } from './lane-link.ts'
import { LaneQueue } from './lane-queue.ts'
import type { OutboxMessage } from './message.ts'
import { Pace } from './pace.ts'
import { judgeOk } from './verdict.ts'

/** Where fewer wait, more comes from the table. */
const REFILL_BELOW = 256
const MAX_BUFFERED_BYTES = 4 * 1024 * 1024
const OK_TIMEOUT_MS = 10_000
const EPHEMERAL_OK_TIMEOUT_MS = 5000
/** The connection was lost so often while a message was under way: it may be the cause, and goes alone from then on. */
const LOSSES_OF_SUSPECT = 2

export interface LaneDeps extends DeliveryRecord {
  /** Of this lane alone. */
  readonly scope: Scope
  /** @param as the key that the connection is for alone */
  hold(as?: string): Hold | undefined
  /** Not one of our own relays: its place is wanted by others. */
  readonly foreign: boolean
  /** The author's key where it is ours and unlocked. */
  signerOf(pubkey: string): Signer | undefined
  /** What makes a message anew that was refused in these words, where that can be. */
  remake(message: OutboxMessage, words: string): (() => Promise<void>) | undefined
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
  readonly #flying = new Map<string, Delivery>()
  /** Neither due nor under way: a key is being proven for it, or it is being made again. */
  readonly #aside = new Set<Delivery>()
  readonly #pace = new Pace()
  readonly #link: LaneLink
  #isPausing = false
  #lockedNow = false
  /** The newest message that was taken in; those after it are in the table only, when `overflow` is set. */
  newestId = 0
  overflow = false

  constructor(deps: LaneDeps, as?: string) {
    this.#deps = deps
    this.#as = as
    this.#link = new LaneLink({
      clock: deps.scope.clock,
      mayRest: deps.foreign || as !== undefined,
      hold: () => deps.hold(as),
      onUp: () => this.pump(),
      onDown: () => this.#takeBack(),
    })
  }

  get depth(): number {
    let depth = this.#queue.size + this.#flying.size + this.#aside.size
    for (const lane of this.#apart.values()) depth += lane.depth
    return depth
  }

  get idle(): boolean {
    return this.depth === 0 && !this.overflow
  }

  add(message: OutboxMessage, attempts: number, nextAt: number): void {
    message.lanes++
    this.newestId = Math.max(this.newestId, message.id)
    this.#queue.add(new Delivery(message, this.#deps, { attempts, nextAt }), this.#now)
  }

  /** For good. */
  end(): void {
    this.#deps.scope.end()
    this.#link.leave()
    for (const lane of this.#apart.values()) lane.end()
  }

  get #now(): number {
    return this.#deps.scope.clock.now()
  }

  /** Sends what is due as far as the window allows. */
  pump(): void {
    for (const lane of this.#apart.values()) lane.pump()
    const relay = this.#deps.scope.isClosing ? undefined : this.#link.reach()
    if (relay === undefined) return
    relay.recheck()
    if (relay.refused !== undefined) {
      this.rejectAll(relay.refused)
      return
    }
    while (relay.connected && relay.bufferedBytes < MAX_BUFFERED_BYTES) {
      const delivery = this.#queue.peek()
      if (delivery === undefined) break
      const apart = this.#apart.get(delivery.message.author)
      if (apart !== undefined) {
        apart.#queue.putLast(delivery)
        apart.pump()
      } else if (!this.#dropIfOver(delivery)) {
        if (!this.#pace.mayGo(this.#flying.size, this.#now)) break
        if (this.#flying.has(delivery.message.event.id) || this.#mustGoAlone(delivery)) break
        if (!this.#send(relay, delivery)) break
      }
      this.#queue.shift()
    }
    this.#pumpAfterPause()
    if (this.overflow && this.#queue.due < REFILL_BELOW) this.#deps.onRoom()
  }

  #pumpAfterPause(): void {
    const waitMs = this.#pace.waitMs(this.#now)
    if (waitMs === 0 || this.#queue.due === 0 || this.#isPausing) return
    this.#isPausing = true
    this.#deps.scope.after('pause', waitMs, () => {
      this.#isPausing = false
      this.pump()
    })
  }

  /** Once a second: answers that did not come, tries that are due, messages nobody wants any more. */
  tick(): void {
    const now = this.#now
    for (const lane of this.#apart.values()) {
      lane.tick()
      if (lane.idle) lane.#link.leave()
      else lane.pump()
    }
    for (const [id, delivery] of this.#flying) {
      const timeoutMs = delivery.message.isEphemeral ? EPHEMERAL_OK_TIMEOUT_MS : OK_TIMEOUT_MS
      if (Math.abs(now - delivery.at) < timeoutMs) continue
      this.#flying.delete(id)
      this.#link.relay?.forgetOk(id)
      this.#pace.failed(delivery.at, now)
      if (delivery.message.isEphemeral) delivery.settle('expired', 'no OK')
      else this.#retry(delivery, 'no OK in time')
    }
    this.#queue.wake(now, (delivery) => this.#dropIfOver(delivery))
    if (this.#link.relay?.connected !== true || this.#pace.waitMs(now) > 0) this.#queue.prune((delivery) => this.#dropIfOver(delivery))
  }

  /** A suspect waits until nothing else is under way, and nothing follows it until it is answered. */
  #mustGoAlone(delivery: Delivery): boolean {
    const [underWay] = this.#flying.values()
    return underWay !== undefined && Math.max(delivery.losses, underWay.losses) >= LOSSES_OF_SUSPECT
  }

  /** What was under way when the connection went may or may not have arrived: it goes again, and a duplicate is a success. */
  #takeBack(): void {
    const deliveries = [...this.#flying.values()]
    this.#flying.clear()
    for (const delivery of deliveries) delivery.losses++
    const [first] = deliveries
    // Some relays hang up on what they don't take: went one alone and is it so again, then the others come first.
    if (first !== undefined && first.losses > LOSSES_OF_SUSPECT) this.#retry(first, 'the relay ended the connection')
    else this.#queue.putFirst(deliveries)
  }

  /** False when the keys are locked. */
  #send(relay: Relay, delivery: Delivery): boolean {
    const { message } = delivery
    const frame = this.#frameOf(delivery)
    if (frame === undefined) return !this.#lockedNow
    const limit = relay.limits.maxMessageLength
    if (limit !== undefined && Buffer.byteLength(frame) > limit) {
      delivery.settle('rejected', `longer than the relay takes (${limit} bytes)`)
      return true
    }
    delivery.at = this.#now
    delivery.sentId = message.event.id
    this.#flying.set(delivery.sentId, delivery)
    this.#pace.sent(delivery.at)
    relay.sendEvent(frame, delivery.sentId, (ok, words) => this.#onOk(relay, delivery, ok, words))
    return true
  }

  /** Undefined where it cannot go now: the keys are locked, its key is gone, or is elsewhere and is asked. */
  #frameOf(delivery: Delivery): string | undefined {
    try {
      this.#lockedNow = false
      const frame = delivery.message.frame()
      if (typeof frame === 'string') return frame
      this.#awaitSignature(delivery, frame)
    } catch (error) {
      this.#lockedNow = isPylonError(error, 'locked')
      if (this.#lockedNow) this.#deps.onLocked()
      else delivery.settle('rejected', messageOf(error))
    }
    return undefined
  }

  /** Others go meanwhile. Who does not answer is asked again later; a refusal is for good. */
  #awaitSignature(delivery: Delivery, frame: Promise<string>): void {
    this.#aside.add(delivery)
    this.#deps.scope.spawn('signature', async () => {
      const error = await frame.then(
        () => undefined,
        (reason: unknown) => toPylonError(reason),
      )
      if (!this.#aside.delete(delivery)) return
      if (error === undefined) this.#queue.putLast(delivery)
      else if (isUnheard(error)) {
        delivery.awaitKey(this.#deps.scope, messageOf(error))
        this.#queue.wait(delivery)
      } else if (error.retryable || error.code === 'locked') this.#retry(delivery, messageOf(error))
      else delivery.settle('rejected', `${error.code}: ${messageOf(error)}`)
      this.pump()
    })
  }

  #onOk(relay: Relay, delivery: Delivery, ok: boolean, message: string): void {
    if (this.#flying.get(delivery.sentId) !== delivery) return
    this.#flying.delete(delivery.sentId)
    const now = this.#now
    const words = message || 'refused without a reason'
    switch (judgeOk(ok, message)) {
      case 'taken':
        this.#pace.accepted()
        delivery.settle('accepted', null)
        break
      case 'too_fast':
        this.#pace.limited(delivery.at, now)
        // It keeps its place before those that came after it.
        this.#queue.putBack(delivery)
        delivery.note(words)
        break
      case 'log_in':
        this.#authThenRetry(relay, delivery, words)
        break
      case 'final':
        this.#pace.refused()
        this.#refused(relay, delivery, words)
        break
      case 'later':
        this.#pace.failed(delivery.at, now)
        if (delivery.message.isEphemeral || delivery.isUnexplained(message)) this.#refused(relay, delivery, words)
        else this.#retryAnew(delivery, words)
        break
    }
    this.pump()
  }

  /** A refusal that the same again would not change: another event may, or another key. */
  #refused(relay: Relay, delivery: Delivery, message: string): void {
    const remade = this.#deps.remake(delivery.message, message)
    if (remade !== undefined) this.#setAside(delivery, remade)
    // Some say so to whom they have not asked to log in.
    else if (message.startsWith('restricted:') && (!delivery.triedAuth || this.#as === undefined))
      this.#authThenRetry(relay, delivery, message, true)
    else delivery.settle('rejected', message)
  }

  #retryAnew(delivery: Delivery, message: string): void {
    const remade = this.#deps.remake(delivery.message, message)
    if (remade === undefined) this.#retry(delivery, message)
    else this.#setAside(delivery, remade)
  }

  /** Until that is done, and then sends it on. */
  #setAside(delivery: Delivery, until: () => Promise<void>): void {
    this.#aside.add(delivery)
    this.#deps.scope.spawn('aside', async () => {
      await until()
      if (!this.#aside.delete(delivery)) return
      this.#queue.putLast(delivery)
      this.pump()
    })
  }

  /** @param final the refusal stands when no key can be proven */
  #authThenRetry(relay: Relay, delivery: Delivery, message: string, final = false): void {
    const signer = this.#deps.signerOf(delivery.message.author)
    // Who is asked only now has not been refused yet.
    const wasAsked = relay.challenged
    const giveWay = () => {
      if (signer !== undefined && wasAsked && this.#goApart(delivery, signer.pubkey)) return
      this.#pace.failed(delivery.at, this.#now)
      if (final) delivery.settle('rejected', message)
      else this.#retry(delivery, message)
    }
    if (signer === undefined || delivery.triedAuth) {
      giveWay()
      return
    }
    delivery.triedAuth = true
    this.#aside.add(delivery)
    this.#deps.scope.spawn('auth', async () => {
      const isProven = await relay.auth(signer)
      if (!this.#aside.delete(delivery)) return
      if (isProven === undefined) this.#retry(delivery, message)
      else if (isProven) this.#queue.putLast(delivery)
      else giveWay()
      this.pump()
    })
  }

  /** Over a connection of the author's own: some relays know one key a connection, and another key was shown on this one. */
  #goApart(delivery: Delivery, pubkey: string): boolean {
    const { scope } = this.#deps
    if (this.#as !== undefined || scope.isClosing) return false
    const lane = this.#apart.get(pubkey) ?? new Lane({ ...this.#deps, scope: scope.child(pubkey), onRoom: () => {} }, pubkey)
    this.#apart.set(pubkey, lane)
    delivery.triedAuth = false
    lane.#queue.putLast(delivery)
    lane.pump()
    return true
  }

  #retry(delivery: Delivery, error: string): void {
    delivery.postpone(this.#deps.scope, error)
    this.#queue.wait(delivery)
  }

  #dropIfOver(delivery: Delivery): boolean {
    if (delivery.message.isSuperseded) delivery.settle('superseded', null)
    else if (delivery.message.notAfter < this.#now)
      // What the relay said of it last stays; without that, why the relay is not there.
      delivery.settle('expired', delivery.hasError ? null : this.#link.whyDown)
    else return false
    return true
  }

  /** Its relay could not be reached and is not tried for a while. */
  get resting(): boolean {
    const isStill = this.#flying.size + this.#aside.size === 0 && [...this.#apart.values()].every((lane) => lane.idle)
    return isStill && this.#link.isResting
  }

  /** Ends it and gives back what waits, which stays in the table. */
  unload(): OutboxMessage[] {
    this.end()
    const messages = this.#queue.drain().map(({ message }) => message)
    for (const message of messages) message.lanes--
    return messages
  }

  /** Gives up all that waits. */
  rejectAll(reason: string): void {
    const deliveries = [...this.#queue.drain(), ...this.#aside]
    this.#aside.clear()
    for (const delivery of deliveries) delivery.settle('rejected', reason)
    for (const lane of this.#apart.values()) lane.rejectAll(reason)
  }
}
