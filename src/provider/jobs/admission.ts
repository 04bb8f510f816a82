/** Whether a request becomes a job: every rule in its order, pure; all facts are given. */
import { type Msats, msatsToSatsUp, wire } from '../../base/amounts.ts'
import type { ErrorCode } from '../../base/errors.ts'
import type { Order } from './order.ts'

/** What can be said of a request before it is decrypted. */
export interface Envelope {
  readonly kind: number
  readonly pubkey: string
  readonly createdAtS: number
  /** NIP-40, unix seconds. */
  readonly expiresAtS: number | undefined
  /** The p tags: keys that the request names. */
  readonly addressees: readonly string[]
  readonly encrypted: boolean
  readonly tagCount: number
  readonly bytes: number
}

export interface EnvelopeRules {
  readonly me: string
  readonly nowS: number
  readonly maxAgeS: number
  readonly maxSkewS: number
  readonly maxInputBytes: number
  readonly isServed: (kind: number) => boolean
}

export interface Refusal {
  readonly code: ErrorCode
  readonly message: string
}

/** `ignore` leaves no trace; `refuse` is stored and, when the request named us, answered. */
export type EnvelopeVerdict =
  | { readonly type: 'pass' }
  | { readonly type: 'ignore'; readonly reason: string }
  | ({ readonly type: 'refuse' } & Refusal)

/** Of a whole request. */
export const MAX_TAGS = 300
/** Encryption and JSON make an input longer by about a half; what surrounds it takes a little. */
const ENVELOPE_OVERHEAD_BYTES = 16_384

/** nostr-cashu 2.3, checks 1 to 7: shape, self, dates, addressee. */
export function judgeEnvelope(envelope: Envelope, rules: EnvelopeRules): EnvelopeVerdict {
  if (envelope.kind < 5000 || envelope.kind > 5999) return ignore('no job request')
  const directed = envelope.addressees.includes(rules.me)
  if (envelope.tagCount > MAX_TAGS) {
    return directed
      ? refuse('input_invalid', `The request has ${envelope.tagCount} tags and ${MAX_TAGS} are taken at most.`)
      : ignore('too many tags')
  }
  if (envelope.bytes > rules.maxInputBytes * 1.5 + ENVELOPE_OVERHEAD_BYTES) {
    return directed ? refuse('input_invalid', `The request is over ${rules.maxInputBytes} bytes of input.`) : ignore('too large')
  }
  if (envelope.pubkey === rules.me) return ignore('our own request')
  if (envelope.createdAtS > rules.nowS + rules.maxSkewS) return ignore('dated in the future')
  if (envelope.expiresAtS !== undefined && envelope.expiresAtS <= rules.nowS) return ignore('expired')
  if (envelope.addressees.length > 0 && !directed) return ignore('for another provider')
  if (envelope.encrypted && !directed) return ignore('encrypted for another')
  if (!directed && !rules.isServed(envelope.kind)) return ignore('kind not served')
  if (envelope.createdAtS < rules.nowS - rules.maxAgeS) {
    return directed ? refuse('job_expired', `The request is older than ${rules.maxAgeS} s; send a new one.`) : ignore('too old')
  }
  return { type: 'pass' }
}

/** What admission must know of the node and the customer. */
export interface OrderFacts {
  readonly nowMs: number
  /** `none`: no backend has the kind; a text says why it cannot be served now. */
  readonly backend: 'ok' | 'none' | { readonly down: string }
  /** What the backend says of the params, and the size of the inputs. */
  readonly fault: Refusal | undefined
  readonly priceMsats: Msats
  /** Looked up only where something is to be paid. */
  readonly hasMint: boolean
  /** A mint was named and has not answered yet. */
  readonly expectsMint: boolean
  readonly cancelled: boolean
  readonly openOfCustomer: number
  readonly freeToday: number
  /** Of this customer in the last hour: paid, then cancelled, late or impossible, and given back. */
  readonly refundsCaused: number
  readonly waiting: number
  readonly perCustomerLimit: number
  /** 0: no limit. */
  readonly freePerDay: number
  readonly queueLimit: number
}

/** After so many refunds that a customer brought about within an hour nothing is sold to it for a while. */
export const MAX_REFUNDS_CAUSED = 5

export type OrderVerdict =
  | ({ readonly type: 'refuse' } & Refusal)
  | { readonly type: 'cancelled' }
  | { readonly type: 'run' }
  | { readonly type: 'quote'; readonly underBid: boolean }
  | { readonly type: 'redeem' }

/** nostr-cashu 2.3, checks 9 to 14: kind and params, limits, cancelled, price, token, capacity. */
export function judgeOrder(order: Pick<Order, 'kind' | 'deadline' | 'bidMsats' | 'token'>, facts: OrderFacts): OrderVerdict {
  if (facts.backend === 'none')
    return refuse('kind_unsupported', `Kind ${order.kind} is not served here; the announcement lists the kinds.`)
  if (facts.fault !== undefined) return { type: 'refuse', ...facts.fault }
  if (facts.openOfCustomer >= facts.perCustomerLimit) {
    return refuse(
      'rate_limited',
      `You have ${facts.openOfCustomer} open jobs here, the limit is ${facts.perCustomerLimit}: wait or cancel some.`,
    )
  }
  const free = facts.priceMsats === 0n
  if (free && facts.freePerDay > 0 && facts.freeToday >= facts.freePerDay) {
    return refuse('rate_limited', `The ${facts.freePerDay} free jobs of the day are used up: come back tomorrow.`)
  }
  if (!free && facts.refundsCaused >= MAX_REFUNDS_CAUSED) {
    return refuse('rate_limited', `${facts.refundsCaused} of your jobs were paid and given back within an hour: come back later.`)
  }
  if (facts.cancelled) return { type: 'cancelled' }
  if (order.deadline <= facts.nowMs) return refuse('job_expired', 'The request expired before it could be served; send a new one.')
  if (facts.backend !== 'ok') return refuse('backend_unavailable', 'What serves this kind is not reachable now; try again later.')
  if (!free && !facts.hasMint && facts.expectsMint) {
    return refuse('mint_unreachable', 'The mint of this node does not answer yet; try again in a moment.')
  }
  if (!free && !facts.hasMint) return refuse('no_mint', 'This node takes no payment yet: it has no mint.')
  if (facts.waiting >= facts.queueLimit) return refuse('overloaded', 'The queue is full; try again later.')
  if (free) return { type: 'run' }
  if (order.token !== undefined) return { type: 'redeem' }
  return { type: 'quote', underBid: order.bidMsats !== undefined && order.bidMsats < facts.priceMsats }
}

/** Why a token cannot pay, from what was read off it without spending anything; undefined when it can. */
export function judgeToken(
  token: { unit: string; netSats: bigint; lock: 'none' | 'ours' | 'other'; byWalletKey?: boolean; lockReason?: string; isPrivate: boolean },
  priceMsats: Msats,
): Refusal | undefined {
  const need = msatsToSatsUp(priceMsats)
  if (token.unit !== 'sat') return { code: 'token_invalid', message: `The token is in ${token.unit.slice(0, 20)}, only sat is taken.` }
  if (token.lock === 'other' || token.byWalletKey === false) {
    const why = token.lockReason ?? 'it is locked to another key'
    return { code: 'token_locked', message: `The token can't be spent with the key in our announcement: ${why}.` }
  }
  if (token.lock === 'none' && !token.isPrivate) {
    return {
      code: 'token_bare',
      message:
        'A token in a public request is anyone’s: lock it to the key in our announcement, or encrypt the request. It was not touched.',
    }
  }
  if (token.netSats < need) {
    return {
      code: 'token_amount',
      message: `The token is worth ${wire(token.netSats)} sats after the mint fee, the price is ${wire(need)} sats.`,
    }
  }
  return undefined
}

function ignore(reason: string): { type: 'ignore'; reason: string } {
  return { type: 'ignore', reason }
}

function refuse(code: ErrorCode, message: string): { type: 'refuse' } & Refusal {
  return { type: 'refuse', code, message }
}
