/** A purchase as the control API shows it; also for a node that is stopped. */
import type { Msats } from '../base/amounts.ts'
import { rfc3339 } from '../base/clock.ts'
import { npubOf } from '../nostr/nips/nip19.ts'
import { listAnswers, listOffers, type PurchaseRow } from '../store/purchases.ts'
import type { Store } from '../store/store.ts'
import type { PurchaseStatus } from './states.ts'

export interface PurchaseView {
  /** The id of the request event; empty until it is fixed. */
  readonly job_id: string
  readonly purchase_id: string
  readonly status: PurchaseStatus
  readonly reason: string | null
  readonly kind: number
  readonly provider: string | null
  readonly paid_msats: Msats
  readonly result: string | null
  readonly error: { readonly code: string; readonly message: string } | null
  readonly created_at: string
  readonly updated_at: string
  readonly deadline_at: string
  readonly offers: readonly { event_id: string; provider: string; amount_msats: Msats; state: string; reason: string | null }[]
  /** What was heard, in order: the wire of this job. */
  readonly events: readonly { event_id: string; kind: number; provider: string; summary: string; received_at: string }[]
}

export function purchaseView(store: Store, row: PurchaseRow): PurchaseView {
  return {
    job_id: row.eventId ?? '',
    purchase_id: row.id,
    status: row.status as PurchaseStatus,
    reason: row.reason,
    kind: row.kind,
    provider: row.provider === null ? null : npubOf(row.provider),
    paid_msats: row.paidMsats,
    result: row.result,
    error: row.error,
    created_at: rfc3339(row.createdAt),
    updated_at: rfc3339(row.updatedAt),
    deadline_at: rfc3339(row.deadlineAt),
    offers: listOffers(store, row.id).map((offer) => ({
      event_id: offer.eventId,
      provider: npubOf(offer.provider),
      amount_msats: offer.amountMsats,
      state: offer.state,
      reason: offer.reason,
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
