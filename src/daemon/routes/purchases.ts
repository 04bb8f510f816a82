/** Handlers of the routes about jobs that are bought elsewhere. */
import { PylonError } from '../../base/errors.ts'
import type { purchasesRoutes } from '../../control/contract/jobs.ts'
import type { Handlers } from '../../control/route.ts'
import type { Customer } from '../../customer/customer.ts'
import type { Order } from '../../customer/order.ts'
import { purchaseView } from '../../customer/view.ts'
import { parsePubkey } from '../../nostr/nips/nip19.ts'
import { getPurchase, listPurchases } from '../../store/buying/purchases.ts'
import type { ReadServices } from '../services.ts'

const DEFAULT_LIMIT = 50
const DEFAULT_TIMEOUT_S = 120

type Read = Pick<Handlers<typeof purchasesRoutes>, 'listPurchases' | 'getPurchase'>

export function purchasesReadHandlers({ store }: Pick<ReadServices, 'store'>): Read {
  return {
    listPurchases: ({ limit }) => ({
      purchases: listPurchases(store, { limit: limit ?? DEFAULT_LIMIT }).map((row) => answer(purchaseView(store, row))),
    }),
    getPurchase: ({ id }) => {
      const row = getPurchase(store, id)
      if (row === undefined) throw new PylonError('job_not_found', `No job ${id} was bought; pylon job list shows them.`)
      return answer(purchaseView(store, row))
    },
  }
}

export function purchasesHandlers(services: ReadServices & { readonly customer: Customer }): Handlers<typeof purchasesRoutes> {
  const read = purchasesReadHandlers(services)
  return {
    ...read,
    submitPurchase: async (request, call) => {
      const order: Order = {
        kind: request.kind,
        inputs: request.inputs,
        params: request.params ?? [],
        encrypt: request.encrypt ?? false,
        pay: request.pay ?? 'auto',
        payWith: request.pay_with ?? 'invoice',
        timeoutMs: (request.timeout_s ?? DEFAULT_TIMEOUT_S) * 1000,
        ...(request.provider === undefined ? {} : { provider: parsePubkey(request.provider) }),
        ...(request.bid_sats === undefined ? {} : { bidSats: request.bid_sats }),
        ...(request.max_sats === undefined ? {} : { maxSats: request.max_sats }),
      }
      return answer(await services.customer.submit(order, call.idempotencyKey))
    },
    getPurchase: async ({ id, wait }, call) => {
      const current = await read.getPurchase({ id }, call)
      const customer = wait === undefined ? undefined : partIf(() => services.customer)
      return customer === undefined ? current : answer(await customer.wait(current.purchase_id, (wait ?? 0) * 1000, call.signal))
    },
    payPurchase: async ({ id }) => answer(await services.customer.approve(id)),
    cancelPurchase: async ({ id }) => answer(await services.customer.cancel(id)),
  }
}

/** A part that is locked or failed changes nothing that could be waited for. */
function partIf<T>(get: () => T): T | undefined {
  try {
    return get()
  } catch {
    // What is stored is told at once then.
    return undefined
  }
}

/** The view as the contract types it: lists of its own that may be encoded. */
function answer(view: ReturnType<typeof purchaseView>) {
  const { offers, events, results, refunds } = view
  return { ...view, offers: [...offers], events: [...events], results: [...results], refunds: [...refunds] }
}
