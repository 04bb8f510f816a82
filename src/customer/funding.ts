/** Sats for what the customer buys: its own wallet pays, and what it lacks comes from the node's wallet. */
import { accountOf } from '../base/accounts.ts'
import { howToFund } from '../base/advice.ts'
import { type Sats, sats } from '../base/amounts.ts'
import { isPylonError, PylonError } from '../base/errors.ts'
import type { Nostr } from '../nostr/types.ts'
import { topUpKey } from '../store/keys.ts'
import type { Cause } from '../store/money/ledger.ts'
import { feesOfCause } from '../store/money/swap-fees.ts'
import type { Store } from '../store/store.ts'
import type { Wallet } from '../wallet/types.ts'
import type { CustomerDeps } from './deps.ts'

export type FundingDeps = Pick<CustomerDeps, 'wallets' | 'network' | 'config'> & { readonly nostr: Pick<Nostr, 'keyring'> }

/** What jobs cost, and what of it came back. */
export const JOB_EXPENSE_ACCOUNT = accountOf('customer', 'expense', 'job')
/** After the deadline of what it pays for, before a token that nobody took is ours again. */
export const RECLAIM_AFTER_MS = 10 * 60_000
/** What the mint may take for the proofs that a payment spends. */
const INPUT_FEE_ALLOWANCE_SATS = 3n
const MIN_FEE_ALLOWANCE_SATS = 10n
/** What is left of an allowance for the payment itself when sats are moved for it: a routing reserve and an input fee. */
const PAYMENT_FEE_SATS = 2n
/** For how many purchases like this one sats are moved at once, and which part of what the node has free that may be at most. */
const PURCHASES_AHEAD = 10n
const FREE_PARTS = 4n

export function customerWallet({ wallets, nostr }: FundingDeps): Wallet {
  return wallets.of({ kind: 'customer', pubkey: nostr.keyring.customer().pubkey })
}

export interface TopUp {
  /** What is bought. */
  readonly cause: Cause
  /** The most that it can take from the customer's wallet, with fees. */
  readonly neededSats: Sats
  readonly mintUrl?: string
  /** The most that may leave in fees, of moving sats and of paying together. */
  readonly maxFeeSats?: Sats
}

/**
 * Sees to it that the customer's wallet holds what is needed, by one internal transfer where it does not. Each transfer
 * costs the mint's fee, which counts as a cost of this purchase: so more is moved than this one needs, in coins of use for the next.
 * @throws insufficient_funds, payment_failed
 */
export async function topUp(deps: FundingDeps, { cause, neededSats, mintUrl, maxFeeSats }: TopUp): Promise<void> {
  const { wallets, nostr } = deps
  const wallet = customerWallet(deps)
  const mints = wallet.balance().mints.filter((mint) => mintUrl === undefined || mint.url === mintUrl)
  const wanted = neededSats + INPUT_FEE_ALLOWANCE_SATS
  if (mints.some((mint) => mint.balanceSats >= wanted)) return
  const node = wallets.of({ kind: 'node', pubkey: nostr.keyring.node().pubkey })
  const free = new Map(node.balance().mints.map((mint) => [mint.url, mint.balanceSats - mint.owedSats]))
  const missingAt = (mint: (typeof mints)[number]) => wanted - mint.balanceSats
  // One payment spends at one mint: where the node has what is missing, and least is.
  const inOrder = [...mints].sort((a, b) => (a.state === b.state ? Number(missingAt(a) - missingAt(b)) : a.state === 'ok' ? -1 : 1))
  const whole = inOrder.find((mint) => (free.get(mint.url) ?? 0n) > missingAt(mint))
  const held = largest(mints.map((mint) => mint.balanceSats))
  if (whole === undefined && held >= neededSats) return
  // Where no mint has enough of the node's, its wallet brings that from several to one.
  const together = [...free.values()].reduce((sum, each) => sum + larger(0n, each), 0n)
  const source = whole ?? inOrder.slice(0, 1).find((mint) => together > missingAt(mint))
  if (source !== undefined) {
    const missing = missingAt(source)
    const ahead = whole === undefined ? 0n : smaller((PURCHASES_AHEAD - 1n) * wanted, (free.get(source.url) ?? 0n) / FREE_PARTS)
    const amount = larger(missing, ahead)
    const key = topUpKey(cause.id, { mintUrl: source.url, heldSats: source.balanceSats, missingSats: missing })
    const most = maxFeeSats === undefined ? {} : { maxFeeSats: sats(larger(0n, maxFeeSats - PAYMENT_FEE_SATS)) }
    await wallets.transfer(node.owner, wallet.owner, sats(amount), key, { mintUrl: source.url, cause, fillIfShort: true, ...most })
    return
  }
  const available = largest(mints.map((mint) => free.get(mint.url) ?? 0n))
  throw new PylonError(
    'insufficient_funds',
    `This may cost ${neededSats} sats with fees; the customer wallet holds ${held} at one mint and the node wallet ${available} that customers are not owed. Fund it: ${howToFund(deps.network ?? 'live', wanted - held)}`,
  )
}

const smaller = (a: bigint, b: bigint): bigint => (a < b ? a : b)
const larger = (a: bigint, b: bigint): bigint => (a > b ? a : b)
const largest = (amounts: readonly bigint[]): bigint => [...amounts].sort((a, b) => Number(b - a))[0] ?? 0n

/** What a Lightning payment of this amount may cost on top. */
export function maxFeeOf({ config }: FundingDeps, amountSats: Sats): Sats {
  const basisPoints = BigInt(Math.ceil(config().wallet.max_fee_percent * 100))
  const share = (amountSats * basisPoints + 9_999n) / 10_000n
  return sats(share > MIN_FEE_ALLOWANCE_SATS ? share : MIN_FEE_ALLOWANCE_SATS)
}

/**
 * What may still leave beyond the price: of the limit that the owner named for the whole, less what fees took already; else
 * what a payment of this size may cost.
 */
export function feesLeft(
  deps: FundingDeps & { readonly store: Store },
  { cause, amountSats, limitSats }: { readonly cause: Cause; readonly amountSats: Sats; readonly limitSats: Sats | undefined },
): Sats {
  const usual = maxFeeOf(deps, amountSats)
  if (limitSats === undefined) return usual
  const feesSats = (feesOfCause(deps.store, cause) + 999n) / 1000n
  return sats(smaller(usual, larger(0n, limitSats - amountSats - feesSats)))
}

/** A payment that the limit of its owner left too little for, in words of that limit; any other error as it is. */
export function inWordsOfLimit(error: unknown, amountSats: Sats, limitSats: Sats | undefined): unknown {
  if (limitSats === undefined || !isPylonError(error, 'payment_failed')) return error
  const { fee_sats_needed: feeSats, max_fee_sats: maxFeeSats } = error.details
  if (typeof feeSats !== 'number' || typeof maxFeeSats !== 'number') return error
  return new PylonError(
    'price_too_high',
    `The price is ${amountSats} sats, and fees may take ${feeSats} more, for which the limit of ${limitSats} for the whole leaves ${maxFeeSats}: raise --max-sats.`,
    { details: error.details },
  )
}
