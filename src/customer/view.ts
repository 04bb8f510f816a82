/** A purchase as the control API shows it; also for a node that is stopped. */

import { msats } from '../base/amounts.ts'
import { rfc3339 } from '../base/clock.ts'
import { npubOf } from '../nostr/nips/nip19.ts'
import { listAnswers, listOffers, type OfferRow, type PurchaseRow } from '../store/buying/purchases.ts'
import { refundTokensOf } from '../store/buying/refund-tokens.ts'
import { feesOfCause } from '../store/money/swap-fees.ts'
import type { Store } from '../store/store.ts'
import { contestedOffers } from './claims.ts'
import { resultsThatCount } from './ending.ts'

export type PurchaseView = ReturnType<typeof purchaseView>

export function purchaseView(store: Store, row: PurchaseRow) {
  const offers = listOffers(store, row.id)
  const contested = contestedOffers(row, offers)
  return {
    job_id: row.eventId ?? '',
    purchase_id: row.id,
    status: row.status,
    reason: row.reason,
    kind: row.kind,
    provider: row.provider === null ? null : npubOf(row.provider),
    paid_msats: row.paidMsats,
    fee_msats: msats(feesOfCause(store, { type: 'purchase', id: row.id })),
    result: row.result,
    results: resultsThatCount(store, row).map((result) => ({
      event_id: result.eventId,
      provider: npubOf(result.provider),
      content: result.content,
      received_at: rfc3339(result.receivedAt),
    })),
    refunds: refundTokensOf(store, row.id).map((refund) => ({
      amount_sats: refund.amountSats,
      state: refund.state,
      reason: refund.reason,
      provider: refund.sender === null ? null : npubOf(refund.sender),
      received_at: rfc3339(refund.receivedAt),
    })),
    error: row.error,
    created_at: rfc3339(row.createdAt),
    updated_at: rfc3339(row.updatedAt),
    deadline_at: rfc3339(row.deadlineAt),
    offers: offers.map((offer) => ({
      event_id: offer.eventId,
      provider: npubOf(offer.provider),
      amount_msats: offer.amountMsats,
      ...stateOf(offer, contested.has(offer)),
    })),
    events: listAnswers(store, row.id).map((event) => ({
      event_id: event.eventId,
      kind: event.kind,
      provider: npubOf(event.pubkey),
      summary: event.summary,
      received_at: rfc3339(event.receivedAt),
    })),
  }
}

/** An open offer whose invoice another key names waits for another way; one with a reason is the last way that is left. */
function stateOf({ state, reason }: OfferRow, isContested: boolean) {
  const waits = isContested && state === 'open' && reason === null
  return waits ? { state: 'contested' as const, reason: 'another key names its invoice too' } : { state, reason }
}
