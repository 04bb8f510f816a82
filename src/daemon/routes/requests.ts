/** Handlers of the routes about ecash that is asked for and given away. */
import { sats } from '../../base/amounts.ts'
import { rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { Output } from '../../control/client.ts'
import type { requestsRoutes } from '../../control/contract/requests.ts'
import type { Handlers } from '../../control/route.ts'
import { npubOf } from '../../nostr/nips/nip19.ts'
import { getAgent } from '../../store/agents/agents.ts'
import { ownerKey, requestSendKey } from '../../store/keys.ts'
import { getOperation, operationByKey } from '../../store/money/operations.ts'
import {
  cancelPaymentRequest,
  getPaymentRequest,
  listPaymentRequests,
  listRequestSends,
  type PaymentNote,
  type PaymentRequestRow,
  paymentsOfRequest,
  type RequestPaymentRow,
  receivedOnRequest,
} from '../../store/money/payment-requests.ts'
import type { Store } from '../../store/store.ts'
import type { ReadServices } from '../services.ts'
import { requestPaymentView } from './request-payments.ts'
import { ownerNamed, type WalletServices } from './wallet.ts'
import { pubkeyOf } from './wallet-invoices.ts'

type Routes = typeof requestsRoutes
type Reading = 'listRequests' | 'getRequest' | 'listRequestPayments'

const DEFAULT_LIMIT = 50
/** Of one request: what was refused is kept for a while only. */
const MAX_PAYMENTS_SHOWN = 500

export function requestsReadHandlers(services: Pick<ReadServices, 'store' | 'clock'>): Pick<Handlers<Routes>, Reading> {
  const { store } = services
  const page = ({ wallet, limit }: { wallet?: string | undefined; limit?: number | undefined }) => ({
    limit: limit ?? DEFAULT_LIMIT,
    ...(wallet === undefined ? {} : { ownerPubkey: pubkeyOf(store, wallet) }),
  })
  return {
    listRequests: (asked) => ({ requests: listPaymentRequests(store, page(asked)).map((row) => requestView(services, row)) }),
    getRequest: ({ id }) => {
      const row = getPaymentRequest(store, id)
      if (row === undefined) throw new PylonError('not_found', `There is no payment request ${id}: pylon wallet request list`)
      return { request: requestView(services, row), payments: paymentsOfRequest(store, id, MAX_PAYMENTS_SHOWN).map(paymentView) }
    },
    listRequestPayments: (asked) => ({ payments: listRequestSends(store, page(asked)).map((row) => requestPaymentView(store, row)) }),
  }
}

export function requestsHandlers(services: WalletServices): Omit<Handlers<Routes>, Reading> {
  const { keyring, store, parts, clock } = services
  return {
    createRequest: async (asked, call) => {
      const owner = ownerNamed(keyring, store, asked.wallet)
      const own = owner.kind === 'agent' ? (getAgent(store, owner.pubkey)?.relays ?? []) : []
      const { amount_sats, description, mints, expires_at, single_use = false, transport = 'nostr' } = asked
      const row = await parts.requests.get().made.create({
        ...{ idempotencyKey: ownerKey(owner.pubkey, call.idempotencyKey), owner, singleUse: single_use, transport },
        ...given({ description, mints }),
        ...given({ amountSats: amount_sats === undefined ? undefined : BigInt(amount_sats) }),
        ...given({ expiresAt: expires_at === undefined ? undefined : Date.parse(expires_at) }),
        relays: own.length > 0 ? own : parts.nostr.get().relays,
      })
      return requestView(services, row)
    },
    cancelRequest: async ({ id }) => {
      await store.write(cancelPaymentRequest({ id, at: clock.now() }))
      return requestView(services, getPaymentRequest(store, id) as PaymentRequestRow)
    },
    reclaimToken: async ({ wallet, key }) => {
      const owner = ownerNamed(keyring, store, wallet)
      const sent = await parts.wallets
        .get()
        .of(owner)
        .reclaim(sendKeyOf(store, owner.pubkey, key))
      return { wallet, operation_id: sent.operationId, state: sent.state, amount_sats: sent.amountSats, mint_url: sent.mintUrl }
    },
  }
}

/** The wallet's own key of what a person names: an operation, or the key of their call. */
function sendKeyOf(store: Store, pubkey: string, key: string): string {
  const byCall = ownerKey(pubkey, key)
  const operation = operationByKey(store, byCall) ?? operationByKey(store, requestSendKey.of(byCall)) ?? getOperation(store, key)
  return operation?.idempotencyKey ?? byCall
}

function requestView(
  { store, clock }: Pick<ReadServices, 'store' | 'clock'>,
  row: PaymentRequestRow,
): Output<Routes['listRequests']>['requests'][number] {
  const isExpired = row.state === 'open' && row.expiresAt !== null && row.expiresAt <= clock.now()
  return {
    ...{ id: row.id, request: row.request, request_bech32: row.requestBech32, description: row.description, mints: [...row.mints] },
    wallet: row.owner.kind === 'agent' ? npubOf(row.owner.pubkey) : row.owner.kind,
    amount_sats: row.amountSats === null ? null : sats(row.amountSats),
    ...{ single_use: row.singleUse, transport: row.transport, state: isExpired ? 'expired' : row.state },
    received_sats: sats(receivedOnRequest(store, row.id)),
    created_at: rfc3339(row.createdAt),
    expires_at: row.expiresAt === null ? null : rfc3339(row.expiresAt),
  }
}

function paymentView(row: RequestPaymentRow): Output<Routes['getRequest']>['payments'][number] {
  return {
    ...{
      id: row.id.slice(0, 16),
      state: row.state,
      face_sats: sats(row.faceSats),
      mint_url: row.mintUrl,
      memo: row.memo,
      reason: row.reason,
    },
    received_sats: row.state === 'received' ? sats(row.amountSats) : null,
    sender: row.sender === null ? null : npubOf(row.sender),
    notes: row.notes === '' ? [] : (row.notes.split(',') as PaymentNote[]),
    at: rfc3339(row.createdAt),
  }
}
