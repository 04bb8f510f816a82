/** Customers who have not paid here before: which they are, and what of theirs is let in. */
import type { Msats } from '../../base/amounts.ts'
import { LruMap } from '../../base/lru.ts'
import type { JobRow } from '../../store/selling/jobs.ts'
import { hasPaid } from '../../store/selling/unpaid-jobs.ts'
import { priceOf, quote } from '../pricing.ts'
import type { Envelope, Refusal } from './admission.ts'
import type { EngineDeps } from './context.ts'
import { Gate, type GateRules, Meter, type Rate, type UnpaidClass } from './gate.ts'

/** What a request says of itself before it is decrypted. */
export interface Knock extends Pick<Envelope, 'kind' | 'pubkey' | 'encrypted' | 'bytes'> {
  readonly id: string
  readonly work: number
  readonly hasToken: boolean
}

const KEYS = 10_000
/** A short queue is its own bound. */
const MIN_FREE = 64
const KNOWN_MS = 600_000
const STRANGE_MS = 30_000
/** Signatures of strangers' events that are computed, in all; and of one key over one relay, which may have made them up. */
const ALL_EVENTS: Rate = { burst: 5000, perS: 300 }
const EVENTS_OF_KEY: Rate = { burst: 4000, perS: 100 }
/** Bytes that weigh as much as a signature. */
const BYTES_A_SIGNATURE = 16_384

export class Strangers {
  readonly #deps: Pick<EngineDeps, 'store' | 'scope' | 'config' | 'owns'>
  readonly #onEvicted: (jobId: string) => void
  readonly #known = new LruMap<string, { readonly is: boolean; readonly until: number }>(KEYS)
  readonly #meters = new LruMap<string, Meter>(KEYS)
  readonly #allEvents = new Meter(ALL_EVENTS)
  readonly #gate = new Gate(() => this.#rules())

  constructor(deps: Pick<EngineDeps, 'store' | 'scope' | 'config' | 'owns'>, onEvicted: (jobId: string) => void) {
    this.#deps = deps
    this.#onEvicted = onEvicted
  }

  /** Whether this key has neither paid nor is owed anything here. */
  is(pubkey: string): boolean {
    const now = this.#now()
    const found = this.#known.get(pubkey)
    if (found !== undefined && found.until > now) return found.is
    const strange = !this.#deps.owns(pubkey) && !hasPaid(this.#deps.store, pubkey)
    this.#known.set(pubkey, { is: strange, until: now + (strange ? STRANGE_MS : KNOWN_MS) })
    return strange
  }

  /** Lets a request in, or says why not. The place is given back with `leave`. */
  enter(knock: Knock): Refusal | undefined {
    const now = this.#now()
    if (!this.is(knock.pubkey)) {
      if (this.#listPrice(knock) > 0n) this.#gate.paying(now)
      return undefined
    }
    // Whether an encrypted request brings its payment is seen when it is read.
    const what = this.#listPrice(knock) === 0n ? 'free' : knock.hasToken || knock.encrypted ? 'token' : 'invoice'
    return this.#ask(knock, what)
  }

  /** The same once it was read: a request that brings no token after all needs the place of an invoice. */
  read(knock: Knock, what: UnpaidClass): Refusal | undefined {
    if (what !== 'invoice' || !knock.encrypted || !this.#gate.has(knock.id)) return undefined
    this.#gate.leave(knock.id)
    return this.#ask(knock, what)
  }

  leave(id: string): void {
    this.#gate.leave(id)
  }

  /** A job that was open before this start. */
  restore(job: JobRow): void {
    if (!this.is(job.customerPubkey) || job.paidMsats > 0n) return
    const what = job.priceMsats === 0n ? 'free' : job.paymentMethod === 'token' ? 'token' : 'invoice'
    const bytes = JSON.stringify(job.request).length
    this.#gate.restore({ id: job.id, pubkey: job.customerPubkey, what, bytes, work: 0, priceMsats: job.priceMsats }, this.#now())
  }

  /** This customer pays: it is no stranger from now on, and comes first. */
  paid(pubkey: string): void {
    const now = this.#now()
    this.#known.set(pubkey, { is: false, until: now + KNOWN_MS })
    this.#gate.paying(now)
  }

  /** Whether one more stranger may be answered with a refusal. */
  mayAnswer(): boolean {
    return this.#gate.mayAnswer(this.#now())
  }

  /** Bits of work that are asked of strangers now; undefined while there is room. */
  asked(): number | undefined {
    return this.#gate.asked(this.#now())
  }

  /** Charges an event to its key before its signature is computed. False: it is passed over. */
  charge({ pubkey, bytes }: { readonly pubkey: string; readonly bytes: number }, relay: string): boolean {
    const now = this.#now()
    const weight = 1 + bytes / BYTES_A_SIGNATURE
    const name = `${relay} ${pubkey}`
    const meter = this.#meters.get(name) ?? new Meter(EVENTS_OF_KEY)
    this.#meters.set(name, meter)
    return meter.take(now, weight) && (!this.is(pubkey) || this.#allEvents.take(now, weight))
  }

  #rules(): GateRules {
    const { unpaid_invoices, unpaid_bytes, pow_bits, queue_limit } = this.#deps.config().provider
    return {
      maxInvoices: unpaid_invoices,
      maxBytes: unpaid_bytes / 2,
      workBits: pow_bits,
      maxFree: Math.max(MIN_FREE, Math.ceil(queue_limit / 2)),
    }
  }

  #listPrice({ kind, bytes }: Pick<Knock, 'kind' | 'bytes'>): Msats {
    return quote(priceOf(this.#deps.config(), kind), { inputChars: bytes, maxOutputTokens: 0 })
  }

  #ask(knock: Knock, what: UnpaidClass): Refusal | undefined {
    const { id, pubkey, bytes, work } = knock
    const verdict = this.#gate.ask({ id, pubkey, bytes, work, what, priceMsats: this.#listPrice(knock) }, this.#now())
    if (verdict.type === 'full') return { code: 'overloaded', message: wordsFor(verdict.workBits, what) }
    if (verdict.evict !== undefined) this.#onEvicted(verdict.evict)
    return undefined
  }

  #now(): number {
    return this.#deps.scope.clock.now()
  }
}

function wordsFor(bits: number, what: UnpaidClass): string {
  const otherwise = what === 'free' ? '' : ', or with the payment in it (a cashu tag)'
  return `The node is busy, and serves those first who have paid here. Send the request again with ${bits} bits of proof of work (NIP-13)${otherwise}.`
}
