/** Customers who have not paid here before: which they are, and what of theirs is let in. */
import { LruMap } from '../../base/lru.ts'
import type { JobRow } from '../../store/selling/jobs.ts'
import { hasPaid } from '../../store/selling/unpaid-jobs.ts'
import { priceOf, quote } from '../pricing.ts'
import type { Envelope, Refusal } from './admission.ts'
import type { EngineDeps } from './context.ts'
import { type Asker, createGate, createMeter, type GateVerdict, type Rate, type UnpaidClass } from './gate.ts'

/** What a request says of itself before it is decrypted. */
export interface Knock extends Pick<Envelope, 'kind' | 'pubkey' | 'encrypted' | 'bytes'> {
  readonly id: string
  readonly work: number
  readonly hasToken: boolean
}

export interface Strangers {
  /** Whether this key has neither paid nor is owed anything here. */
  is(pubkey: string): boolean
  /** Lets a request in, or says why not. The place is given back with `leave`. */
  enter(knock: Knock): Refusal | undefined
  /** The same once it was read: a request that brings no token after all needs the place of an invoice. */
  read(knock: Knock, what: UnpaidClass): Refusal | undefined
  leave(id: string): void
  /** A job that was open before this start. */
  restore(job: JobRow): void
  /** This customer pays: it is no stranger from now on, and comes first. */
  paid(pubkey: string): void
  /** Whether one more stranger may be answered with a refusal. */
  mayAnswer(): boolean
  /** Bits of work that are asked of strangers now; undefined while there is room. */
  asked(): number | undefined
  /** Charges an event to its key before its signature is computed. False: it is passed over. */
  charge(event: { readonly pubkey: string; readonly bytes: number }, relay: string): boolean
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

export function createStrangers(deps: EngineDeps, onEvicted: (jobId: string) => void): Strangers {
  const { store } = deps
  const { clock } = deps.scope
  const known = new LruMap<string, { readonly is: boolean; readonly until: number }>(KEYS)
  const meters = new LruMap<string, ReturnType<typeof createMeter>>(KEYS)
  const allEvents = createMeter(ALL_EVENTS)
  const gate = createGate(() => {
    const { unpaid_invoices, unpaid_bytes, pow_bits, queue_limit } = deps.config().provider
    return {
      maxInvoices: unpaid_invoices,
      maxBytes: unpaid_bytes / 2,
      workBits: pow_bits,
      maxFree: Math.max(MIN_FREE, Math.ceil(queue_limit / 2)),
    }
  })

  function is(pubkey: string): boolean {
    const now = clock.now()
    const found = known.get(pubkey)
    if (found !== undefined && found.until > now) return found.is
    const strange = !deps.owns(pubkey) && !hasPaid(store, pubkey)
    known.set(pubkey, { is: strange, until: now + (strange ? STRANGE_MS : KNOWN_MS) })
    return strange
  }

  const listPrice = ({ kind, bytes }: Pick<Knock, 'kind' | 'bytes'>) =>
    quote(priceOf(deps.config(), kind), { inputChars: bytes, maxOutputTokens: 0 })

  function askerOf(knock: Knock, what: UnpaidClass): Asker {
    const { id, pubkey, bytes, work } = knock
    return { id, pubkey, bytes, work, what, priceMsats: listPrice(knock) }
  }

  function verdictOf(verdict: GateVerdict, what: UnpaidClass): Refusal | undefined {
    if (verdict.type === 'full') return { code: 'overloaded', message: wordsFor(verdict.workBits, what) }
    if (verdict.evict !== undefined) onEvicted(verdict.evict)
    return undefined
  }

  return {
    is,
    enter(knock) {
      const now = clock.now()
      if (!is(knock.pubkey)) {
        if (listPrice(knock) > 0n) gate.paying(now)
        return undefined
      }
      // Whether an encrypted request brings its payment is seen when it is read.
      const what = listPrice(knock) === 0n ? 'free' : knock.hasToken || knock.encrypted ? 'token' : 'invoice'
      return verdictOf(gate.ask(askerOf(knock, what), now), what)
    },
    read(knock, what) {
      if (what !== 'invoice' || !knock.encrypted || !gate.has(knock.id)) return undefined
      gate.leave(knock.id)
      return verdictOf(gate.ask(askerOf(knock, what), clock.now()), what)
    },
    leave: gate.leave,
    restore(job) {
      if (!is(job.customerPubkey) || job.paidMsats > 0n) return
      const what = job.priceMsats === 0n ? 'free' : job.paymentMethod === 'token' ? 'token' : 'invoice'
      const bytes = JSON.stringify(job.request).length
      gate.restore({ id: job.id, pubkey: job.customerPubkey, what, bytes, work: 0, priceMsats: job.priceMsats }, clock.now())
    },
    paid(pubkey) {
      const now = clock.now()
      known.set(pubkey, { is: false, until: now + KNOWN_MS })
      gate.paying(now)
    },
    mayAnswer: () => gate.mayAnswer(clock.now()),
    asked: () => gate.asked(clock.now()),
    charge({ pubkey, bytes }, relay) {
      const now = clock.now()
      const weight = 1 + bytes / BYTES_A_SIGNATURE
      const name = `${relay} ${pubkey}`
      const meter = meters.get(name) ?? createMeter(EVENTS_OF_KEY)
      meters.set(name, meter)
      return meter.take(now, weight) && (!is(pubkey) || allEvents.take(now, weight))
    },
  }
}

function wordsFor(bits: number, what: UnpaidClass): string {
  const otherwise = what === 'free' ? '' : ', or with the payment in it (a cashu tag)'
  return `The node is busy, and serves those first who have paid here. Send the request again with ${bits} bits of proof of work (NIP-13)${otherwise}.`
}
