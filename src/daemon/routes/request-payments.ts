/** A payment on a Cashu payment request, for the route that pays whatever it is given; and how such payments are told. */
import { type Sats, sats } from '../../base/amounts.ts'
import { rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { Output } from '../../control/client.ts'
import type { requestsRoutes } from '../../control/contract/requests.ts'
import type { walletRoutes } from '../../control/contract/wallet.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import { requestSendKey } from '../../store/keys.ts'
import { operationByKey } from '../../store/money/operations.ts'
import type { RequestSendRow } from '../../store/money/payment-requests.ts'
import type { Store } from '../../store/store.ts'
import type { PaymentRequest } from '../../wallet/ecash/payment-request.ts'
import type { Wallet } from '../../wallet/types.ts'
import type { Services } from '../services.ts'

interface Asked {
  readonly amount_sats?: number | undefined
  readonly comment?: string | undefined
  readonly include_owed?: boolean | undefined
  readonly from?: 'mint' | 'nwc' | undefined
}

/** @throws destination_invalid, amount_invalid, price_too_high, payment_undelivered, and what a token can fail of */
export async function payRequest(
  { parts, store }: Pick<Services, 'parts' | 'store'>,
  request: PaymentRequest,
  move: { readonly idempotencyKey: string },
  wallet: Wallet,
  asked: Asked,
  maxFeeSats: Sats | undefined,
): Promise<Output<typeof walletRoutes.payInvoice>> {
  if (asked.comment !== undefined && asked.comment !== '')
    throw new PylonError('destination_invalid', 'A payment request takes no comment: pay it without.')
  if (asked.from === 'nwc') throw new PylonError('destination_invalid', 'A payment request is paid with ecash: leave --from nwc out.')
  const paid = await parts.requests.get().payments.pay({
    ...{ idempotencyKey: move.idempotencyKey, owner: wallet.owner, request, includeOwed: asked.include_owed === true },
    ...given({
      amountSats: asked.amount_sats === undefined ? undefined : BigInt(asked.amount_sats),
      maxFeeSats,
    }),
  })
  const { row, sent } = paid
  const view = requestPaymentView(store, row)
  if (row.state === 'undelivered' && sent?.state !== 'claimed') {
    const id = sent?.operationId ?? ''
    throw new PylonError(
      'payment_undelivered',
      `The token of ${row.amountSats} sats did not reach who asked for it (${row.reason ?? 'no reason given'}). It is unspent: pylon wallet reclaim ${id}`,
      { details: { operation_id: id } },
    )
  }
  const isOver = row.state === 'delivered' || sent?.state === 'claimed'
  const feeSats: Sats | null = sent?.feeSats ?? null
  return {
    ...{ state: isOver ? 'paid' : 'unknown', amount_sats: sats(row.amountSats), operation_id: sent?.operationId ?? row.id },
    ...{ fee_sats: feeSats, preimage: null, request_payment: view },
  }
}

/** As the database has it. */
export function requestPaymentView(
  store: Store,
  row: RequestSendRow,
): Output<typeof requestsRoutes.listRequestPayments>['payments'][number] {
  const { id, state, transport, target, amountSats, reason, createdAt } = row
  const operation = operationByKey(store, requestSendKey.of(row.idempotencyKey))
  const made = operation?.state === 'completed' ? operation : undefined
  return {
    ...{ id, state, transport, reason, amount_sats: sats(amountSats), at: rfc3339(createdAt) },
    to: target === null ? null : transport === 'nostr' ? npubOf(target) : target,
    mint_url: made?.mintUrl ?? row.mintUrl,
    operation_id: made?.id ?? null,
    token_state: made === undefined ? null : (made.tokenState ?? 'pending'),
    token: transport === 'none' && made !== undefined ? ((made.result as { token?: string }).token ?? null) : null,
  }
}
