/** How much of a wallet may leave as a payout now, pure: fees included, and never what is owed or kept. */
import { defaultMaxFee } from '../moves/paying.ts'

export interface PayoutLimits {
  /** The owner's own sats above which a sweep begins, and down to which it goes. */
  readonly aboveSats: bigint
  readonly keepSats: bigint
}

export interface PayoutView {
  /** In all, what is free: not in operations under way. */
  readonly balanceSats: bigint
  /** Of it what customers may get back. */
  readonly owedSats: bigint
  readonly mints: readonly {
    readonly url: string
    readonly state: 'ok' | 'down'
    readonly balanceSats: bigint
    readonly owedSats: bigint
    /** What spending all of its coins costs in input fees. */
    readonly inputFeeSats: bigint
  }[]
}

export interface PayoutAsk extends PayoutLimits {
  readonly type: 'address' | 'token'
  /** `above`: as the rule says. `sweep`: one that has begun goes on as long as it is worth it. `now`: the owner asks for it. */
  readonly because: 'above' | 'sweep' | 'now'
  /** wallet.max_fee_percent */
  readonly maxFeePercent: number
  /** What the address takes at most. */
  readonly mostSats?: bigint
}

export interface PayoutPlan {
  readonly mintUrl: string
  /** The most that leaves, fees included. */
  readonly limitSats: bigint
  /** What the payee is sent; of a token its mint's fee comes off that. */
  readonly amountSats: bigint
}

/** A sweep goes on while it can take this share of what lies between its limits. */
const WORTH_SHARE = 10n

/** @returns the next payout, or why there is none, in words */
export function planPayout(view: PayoutView, ask: PayoutAsk): PayoutPlan | string {
  const { aboveSats, keepSats, because } = ask
  const ownSats = view.balanceSats > view.owedSats ? view.balanceSats - view.owedSats : 0n
  if (because === 'above' && ownSats <= aboveSats) return `the ${ownSats} sats of your own are not above ${aboveSats}`
  const spare = ownSats - keepSats
  if (spare <= 0n) return `the ${ownSats} sats of your own are not above the ${keepSats} that stay`
  const free = (mint: PayoutView['mints'][number]) => mint.balanceSats - mint.owedSats
  // As paying chooses: one that answers first, then the fullest.
  const [mint] = [...view.mints].sort((a, b) => (a.state === b.state ? Number(free(b) - free(a)) : a.state === 'ok' ? -1 : 1))
  if (mint === undefined || free(mint) <= 0n) return 'no mint holds sats of your own'
  const limitSats = spare < free(mint) ? spare : free(mint)
  if (because === 'sweep' && limitSats * WORTH_SHARE < aboveSats - keepSats) return `${limitSats} sats are too few to go on for`
  if (ask.type === 'token') return { mintUrl: mint.url, limitSats, amountSats: limitSats }
  const amountSats = lessFees(limitSats, mint.inputFeeSats, ask.maxFeePercent)
  if (amountSats <= 0n) return `the ${limitSats} sats above what stays are no more than the fees may be`
  if (ask.mostSats === undefined || amountSats <= ask.mostSats) return { mintUrl: mint.url, limitSats, amountSats }
  const most = ask.mostSats
  return { mintUrl: mint.url, limitSats: most + defaultMaxFee(most, ask.maxFeePercent) + 2n * mint.inputFeeSats, amountSats: most }
}

/** Coins may be swapped before they are paid with, so their fee counts twice. */
export function lessFees(limitSats: bigint, inputFeeSats: bigint, maxFeePercent: number): bigint {
  const left = limitSats - 2n * inputFeeSats
  const amount = left - defaultMaxFee(left > 0n ? left : 0n, maxFeePercent)
  return amount > 0n ? amount : 0n
}
