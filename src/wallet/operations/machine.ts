/** What a money operation stores and what is made of evidence about it: pure, no I/O; its steps stand in base/states.ts. */
import type { Account, WalletOwner } from '../../base/accounts.ts'
import { backoffMs } from '../../base/backoff.ts'
import type { Random } from '../../base/random.ts'
import type { OperationKind } from '../../store/money/operations.ts'
import type { BlindedOutput } from '../ecash/crypto.ts'

/** For whom an output is: our wallet, a token that we give away, or another wallet of this home. */
export type OutputPurpose = 'keep' | 'send' | 'peer'

export interface PlannedOutput extends BlindedOutput {
  readonly purpose: OutputPurpose
}

export interface PlannedInput {
  readonly y: string
  readonly amount: number
}

interface PlanBase {
  /** Empty where nothing is sent: a send of proofs that fit. */
  readonly path: '/v1/swap' | '/v1/mint/bolt11' | '/v1/melt/bolt11' | ''
  /** The exact bytes. */
  readonly body: string
  readonly inputs: readonly PlannedInput[]
  /** In the order of the request. */
  readonly outputs: readonly PlannedOutput[]
  /** Whether a refusal for an old keyset was answered with new outputs already. */
  readonly replanned?: boolean
}

export interface MintPlan extends PlanBase {
  readonly kind: 'mint'
  readonly quoteRow: string
  readonly quoteId: string
  /** The compressed key that opens the quote; the wallet's own where it is left out. */
  readonly lockedTo?: string
  readonly creditAccount: Account
  /** The idempotency key of the invoice. */
  readonly invoiceKey: string
}

export interface ReceivePlan extends PlanBase {
  readonly kind: 'receive'
  readonly creditAccount: Account
  readonly faceSats: number
  /** The send that this takes back. */
  readonly reclaims?: string
}

export interface SendPlan extends PlanBase {
  readonly kind: 'send'
  readonly debitAccount: Account
  /** What the receiver is to have; `faceSats` may be more, to cover the receiver's fee. */
  readonly amountSats: number
  readonly faceSats: number
  readonly inputFeeSats: number
  /** What swaps of own coins for this token have cost. */
  readonly swapFeeSats?: number
  readonly lockTo?: string
  /** Milliseconds since the epoch. */
  readonly refundAfter?: number
}

export interface MeltPlan extends PlanBase {
  readonly kind: 'melt'
  readonly debitAccount: Account
  readonly quoteId: string
  readonly paymentHash: string
  readonly amountSats: number
  readonly inputFeeSats: number
  /** What swaps of own coins for this payment have cost. */
  readonly swapFeeSats?: number
  /** The mint has said that the payment is on its way: unpaid again means that it failed. */
  readonly acknowledged?: boolean
}

export interface TransferPlan extends PlanBase {
  readonly kind: 'transfer'
  readonly to: WalletOwner
  readonly amountSats: number
  readonly inputFeeSats: number
  /** What swaps of own coins for this transfer have cost. */
  readonly swapFeeSats?: number
}

export type Plan = MintPlan | ReceivePlan | SendPlan | MeltPlan | TransferPlan
export type PlanKind = Exclude<OperationKind, 'restore'>

/** What was learnt about a request whose answer we did not get, or that was refused after it may have been done. */
export interface Evidence {
  /** NUT-07, of all inputs together; `none` when there are no inputs. */
  readonly inputs: 'none' | 'unspent' | 'pending' | 'spent' | 'mixed'
  /** State of the quote; undefined for swaps and where the mint does not know it. */
  readonly quote: 'UNPAID' | 'PENDING' | 'PAID' | 'ISSUED' | undefined
  /** NUT-09 of the stored outputs. */
  readonly restored: 'all' | 'some' | 'none'
  /** The refusal that led here. */
  readonly refusal: string | undefined
  /** The refusal said that these outputs were signed before. With inputs unspent that was another request: the counters lag behind the seed. */
  readonly outputsTaken: boolean
  /** The mint said before that this payment was on its way. */
  readonly acknowledged?: boolean
  /** The refusal said that the keyset of the outputs signs no more. Where nothing was done yet, other outputs will do. */
  readonly oldKeyset: boolean
}

export type Verdict =
  | { readonly do: 'complete' }
  | { readonly do: 'resubmit' }
  | { readonly do: 'replan' }
  | { readonly do: 'wait'; readonly reason: string }
  | { readonly do: 'fail'; readonly reason: string }

/** What the evidence allows. Never a guess: where it proves nothing, wait. */
export function judge(kind: PlanKind, evidence: Evidence): Verdict {
  if (kind === 'mint') return judgeMint(evidence)
  if (kind === 'melt') return judgeMelt(evidence)
  return judgeSwap(evidence)
}

function judgeSwap({ inputs, restored, refusal, outputsTaken, oldKeyset }: Evidence): Verdict {
  if (inputs === 'pending') return { do: 'wait', reason: 'the mint is still at it' }
  if (inputs === 'unspent') {
    if (outputsTaken || oldKeyset) return { do: 'replan' }
    return refusal === undefined ? { do: 'resubmit' } : { do: 'fail', reason: refusal }
  }
  // Some of them may be enough: that is seen once they are unblinded.
  if (restored !== 'none') return { do: 'complete' }
  return { do: 'fail', reason: refusal ?? 'the inputs were spent elsewhere' }
}

function judgeMint({ quote, restored, refusal, outputsTaken, oldKeyset }: Evidence): Verdict {
  if (quote === 'ISSUED') {
    if (restored !== 'none') return { do: 'complete' }
    return { do: 'fail', reason: 'the quote was issued for other outputs' }
  }
  if (quote === 'PAID' && (outputsTaken || oldKeyset)) return { do: 'replan' }
  if (refusal !== undefined) return { do: 'wait', reason: refusal }
  if (quote === 'PAID') return { do: 'resubmit' }
  return { do: 'wait', reason: 'the mint says that the quote is not paid' }
}

function judgeMelt({ inputs, quote, refusal, outputsTaken, oldKeyset, acknowledged }: Evidence): Verdict {
  if (quote === 'PAID') return { do: 'complete' }
  if (quote === 'PENDING' || inputs === 'pending') return { do: 'wait', reason: 'the payment is on its way' }
  // To send it again would be another attempt at what failed.
  if (inputs === 'unspent' && quote === 'UNPAID' && acknowledged === true)
    return { do: 'fail', reason: refusal ?? 'the payment did not go through' }
  if (inputs === 'unspent' && (outputsTaken || oldKeyset)) return { do: 'replan' }
  // Of a quote that the mint forgot nobody can say what became of it, unless the inputs are still there.
  if (refusal !== undefined && (inputs === 'unspent' || quote === 'UNPAID')) return { do: 'fail', reason: refusal }
  if (inputs === 'unspent') return { do: 'resubmit' }
  return { do: 'wait', reason: 'the inputs are spent but the mint does not say that it paid' }
}

/** Keyset unknown, inactive, expired: the same request can work with other outputs. */
const OLD_KEYSET = new Set([12001, 12002, 12003])

export const isOldKeyset = (code: number): boolean => OLD_KEYSET.has(code)

/** The mint signed these outputs before. */
export const OUTPUTS_TAKEN = 11003

/** When to look again: 1 s, doubling, up to a minute; after half an hour of that rarer, up to an hour. */
export const nextTryMs = (tries: number, random: Random): number =>
  tries < RARER_AFTER ? backoffMs(SOON, tries + 1, random) : backoffMs(RARER, Math.floor((tries - RARER_AFTER) / 4) + 1, random)

const SOON = { minMs: 1000, maxMs: 60_000 }
const RARER = { minMs: 120_000, maxMs: 3_600_000 }
const RARER_AFTER = 36
