/**
 * Work before payment, bounded in all: what customers who never paid here may have open, keep and make us compute. Pure but
 * for its own memory; the time is given. Who has paid or is owed passes; a stranger passes while there is room, and under
 * load by proof of work (NIP-13), which costs it more than its request costs us, or by sending the payment along.
 */

/** What a request will cost before it is paid: an invoice of the mint, a token to redeem, or the work itself. */
export type UnpaidClass = 'invoice' | 'token' | 'free'

export interface Asker {
  readonly id: string
  readonly pubkey: string
  readonly what: UnpaidClass
  readonly bytes: number
  /** Bits of work that the request proves. */
  readonly work: number
  readonly priceMsats: bigint
}

export interface GateRules {
  readonly maxInvoices: number
  readonly maxBytes: number
  readonly workBits: number
  /** Unpaid jobs of strangers that may wait or run; with proof of work half as many more. */
  readonly maxFree: number
}

/** `full`: not now, unless it proves `workBits`. */
export type GateVerdict =
  | { readonly type: 'enter' /** Whose place it takes: an invoice that nobody paid for a while. */; readonly evict?: string }
  | { readonly type: 'full'; readonly workBits: number }

interface Place extends Asker {
  readonly at: number
  readonly worked: boolean
}

/** An invoice keeps its place so long, whoever comes. */
const HOLD_MS = 60_000
/** Tokens of strangers: each is looked at and sent to its mint. */
const TOKENS: Rate = { burst: 100, perS: 5 }
/** Free work of strangers while somebody who pays is being served. */
const FREE: Rate = { burst: 200, perS: 20 }
const SOMEBODY_PAYS_MS = 30_000
/** Strangers that are told why they wait; the others hear nothing. */
const ANSWERS: Rate = { burst: 400, perS: 20 }
/** Where half of the room is taken, one key has this share of it. */
const SHARE_OF_KEY = 20
/** As room for those with proof of work fills, more is asked: a step for each quarter. */
const STEP_BITS = 2
/** The announcement tells of load this long after the last that found no room. */
const LOADED_MS = 60_000

export interface Rate {
  readonly burst: number
  readonly perS: number
}

/** So many at once, and so many a second after that. */
export class Meter {
  readonly #rate: Rate
  #left: number
  #at = 0

  constructor(rate: Rate) {
    this.#rate = rate
    this.#left = rate.burst
  }

  take(nowMs: number, cost = 1): boolean {
    if (this.#at > 0 && nowMs > this.#at) {
      const earned = ((nowMs - this.#at) / 1000) * this.#rate.perS
      this.#left = Math.min(this.#rate.burst, this.#left + earned)
    }
    this.#at = nowMs
    if (this.#left < cost) return false
    this.#left -= cost
    return true
  }
}

/** What strangers of one sort have taken. */
class Room {
  readonly tokens = new Meter(TOKENS)
  readonly freeJobs = new Meter(FREE)
  invoice = 0
  free = 0
  bytes = 0
}

export class Gate {
  readonly #rules: () => GateRules
  readonly #places = new Map<string, Place>()
  readonly #perKey = new Map<string, number>()
  readonly #answers = new Meter(ANSWERS)
  /** Of those without and with proof of work: each has its own room. */
  readonly #plain = new Room()
  readonly #proven = new Room()
  #payingUntil = 0
  #loadedUntil = 0

  constructor(rules: () => GateRules) {
    this.#rules = rules
  }

  /** Asks for a place for a stranger's request, and takes it. */
  ask(asker: Asker, nowMs: number): GateVerdict {
    const bits = this.#workBits()
    const entered = this.#enter(asker, false, nowMs) ?? (asker.work >= bits ? this.#enter(asker, true, nowMs) : undefined)
    if (entered !== undefined) return entered
    this.#loadedUntil = nowMs + LOADED_MS
    return { type: 'full', workBits: bits }
  }

  /** Gives back the place that a request had, if it had one. */
  leave(id: string): void {
    const place = this.#places.get(id)
    if (place === undefined) return
    this.#places.delete(id)
    this.#count(place, -1)
  }

  /** Takes a place for a job that is open already, as after a restart. */
  restore(asker: Asker, nowMs: number): void {
    if (!this.#places.has(asker.id)) this.#add(asker, false, nowMs)
  }

  has(id: string): boolean {
    return this.#places.has(id)
  }

  /** Somebody who pays is being served: strangers' free work has its share only. */
  paying(nowMs: number): void {
    this.#payingUntil = nowMs + SOMEBODY_PAYS_MS
  }

  /** Whether one more stranger may be told that there is no room. */
  mayAnswer(nowMs: number): boolean {
    return this.#answers.take(nowMs)
  }

  /** Bits of work that a stranger needs now; undefined while there is room. */
  asked(nowMs: number): number | undefined {
    return nowMs < this.#loadedUntil ? this.#workBits() : undefined
  }

  #roomOf(worked: boolean): Room {
    return worked ? this.#proven : this.#plain
  }

  #freeRoom(worked: boolean): number {
    return worked ? this.#rules().maxFree / 2 : this.#rules().maxFree
  }

  #workBits(): number {
    const { maxInvoices, maxBytes, workBits: least } = this.#rules()
    const room = this.#proven
    const full = Math.max(room.invoice / maxInvoices, room.bytes / maxBytes, room.free / this.#freeRoom(true))
    return least + STEP_BITS * Math.floor(Math.min(full, 1) * 4)
  }

  #add(asker: Asker, worked: boolean, at: number): void {
    this.#places.set(asker.id, { ...asker, worked, at })
    this.#count({ ...asker, worked }, 1)
  }

  #count(place: Pick<Place, 'what' | 'bytes' | 'pubkey' | 'worked'>, sign: 1 | -1): void {
    const room = this.#roomOf(place.worked)
    if (place.what === 'invoice') room.invoice += sign
    if (place.what === 'free') room.free += sign
    room.bytes += sign * place.bytes
    const ofKey = (this.#perKey.get(place.pubkey) ?? 0) + sign
    if (ofKey > 0) this.#perKey.set(place.pubkey, ofKey)
    else this.#perKey.delete(place.pubkey)
  }

  /** The invoice that has had its time, of the least work, then the cheapest, then the oldest. */
  #evictable(worked: boolean, nowMs: number): Place | undefined {
    let worst: Place | undefined
    for (const place of this.#places.values()) {
      // Places stand in the order in which they were taken: those that follow are younger.
      if (place.at + HOLD_MS > nowMs) break
      if (place.what !== 'invoice' || place.worked !== worked) continue
      if (worst === undefined || place.work < worst.work || (place.work === worst.work && place.priceMsats < worst.priceMsats))
        worst = place
    }
    return worst
  }

  /** A place among those with, or without, proof of work. */
  #enter(asker: Asker, worked: boolean, nowMs: number): GateVerdict | undefined {
    const { maxInvoices, maxBytes } = this.#rules()
    const maxFree = this.#freeRoom(worked)
    const room = this.#roomOf(worked)
    const crowded = room.invoice * 2 > maxInvoices || room.bytes * 2 > maxBytes || room.free * 2 > maxFree
    if (crowded && (this.#perKey.get(asker.pubkey) ?? 0) >= SHARE_OF_KEY) return undefined
    if (asker.what !== 'invoice') {
      if (room.bytes + asker.bytes > maxBytes || (asker.what === 'free' && room.free >= maxFree)) return undefined
      const isFree = asker.what === 'free'
      if ((!isFree || nowMs < this.#payingUntil) && !(isFree ? room.freeJobs : room.tokens).take(nowMs)) return undefined
      this.#add(asker, worked, nowMs)
      return { type: 'enter' }
    }
    if (room.invoice < maxInvoices && room.bytes + asker.bytes <= maxBytes) {
      this.#add(asker, worked, nowMs)
      return { type: 'enter' }
    }
    const worst = this.#evictable(worked, nowMs)
    if (worst === undefined || room.bytes - worst.bytes + asker.bytes > maxBytes) return undefined
    this.leave(worst.id)
    this.#add(asker, worked, nowMs)
    return { type: 'enter', evict: worst.id }
  }
}
