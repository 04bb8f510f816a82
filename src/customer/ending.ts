/** How a purchase ends by what the keys say that were asked or paid. */

import { PylonError } from '../base/errors.ts'
import { listResults, type PurchaseResultRow } from '../store/buying/purchase-claims.ts'
import { listAnswers, listOffers, type PurchaseRow } from '../store/buying/purchases.ts'
import { purchaseRequestMessage } from '../store/keys.ts'
import { wasTaken, whyRefused } from '../store/nostr/outbox.ts'
import type { Store } from '../store/store.ts'
import { claimantsOf } from './claims.ts'
import type { CustomerDeps } from './deps.ts'
import { orderOf, type PurchaseLog } from './purchase-log.ts'

/** Results that count: of the keys that were asked or paid, of anybody while nobody is. */
export function resultsThatCount(store: Store, row: PurchaseRow): PurchaseResultRow[] {
  const claimants = claimantsOf(store, row)
  return listResults(store, row.id).filter((result) => claimants === undefined || claimants.includes(result.provider))
}

/** Keys that named the invoice that was paid and have said neither a result nor an error. */
export function silentClaimants(store: Store, row: PurchaseRow): string[] {
  const claimants = claimantsOf(store, row) ?? []
  if (claimants.length < 2) return []
  const answers = listAnswers(store, row.id)
  const said = (key: string) => answers.some((answer) => answer.pubkey === key && /^(result|error)\b/.test(answer.summary))
  return claimants.filter((key) => !said(key))
}

/**
 * Ends it where every key has spoken that may have the money, or the time is up: no result is final by being first. With
 * different results none is `result`: its owner sees all.
 */
export async function endByAnswers(
  deps: Pick<CustomerDeps, 'store' | 'clock'>,
  log: PurchaseLog,
  id: string,
  error?: PylonError,
): Promise<void> {
  const row = log.row(id)
  const results = resultsThatCount(deps.store, row)
  // What nobody was paid for, nobody answers for: it is the end only where no offer is left that could be paid.
  if (claimantsOf(deps.store, row) === undefined && deps.clock.now() < row.deadlineAt && mayStillPay(deps.store, row)) return
  const silent = silentClaimants(deps.store, row)
  if (silent.length > 0 && deps.clock.now() < row.deadlineAt) return
  const [first] = results
  if (first === undefined) {
    if (error !== undefined && silent.length === 0) await log.fail(id, error)
    return
  }
  const keys = new Set(results.map((result) => result.provider)).size
  // Of one key the first result counts; what it sends later is kept beside it.
  const agree = results.every((result) => result.provider === first.provider || result.content === first.content)
  if (agree) await log.move(id, 'completed', 'result received', { result: first.content, provider: first.provider })
  else await log.move(id, 'completed', `${keys} keys claim the payment and their results differ: look at all of them`)
}

function mayStillPay(store: Store, row: PurchaseRow): boolean {
  return orderOf(row).pay !== 'never' && listOffers(store, row.id).some((offer) => offer.state === 'open')
}

/** Of a purchase whose time is up without a payment. */
export function whyNothingCame(store: Store, id: string): PylonError {
  const key = purchaseRequestMessage.of(id)
  const offers = listOffers(store, id)
  const failed = offers.find((offer) => offer.state === 'failed')
  if (failed !== undefined) {
    const code = failed.reason?.includes('--max-sats') === true ? 'price_too_high' : 'payment_failed'
    return new PylonError(code, `The offer of the provider could not be paid: ${failed.reason}`)
  }
  const unusable = offers.filter((offer) => offer.state === 'unusable')
  // A price says more than what noise lacks.
  const dear = unusable.find((offer) => offer.reason?.startsWith('asks ')) ?? unusable[0]
  if (dear !== undefined) return new PylonError('price_too_high', `No offer could be paid: the provider ${dear.reason}.`)
  if (!wasTaken(store, key)) return unsent(store, key, 'they could not be reached')
  return new PylonError('no_offer', 'No provider answered in time: try another relay, provider or kind.')
}

export function unsent(store: Store, key: string, why: string): PylonError {
  const refusal = whyRefused(store, key)
  if (refusal !== undefined) return new PylonError('relay_refused', `No relay took the request: ${refusal}`)
  return new PylonError('relay_unreachable', `No relay took the request: ${why}`)
}
