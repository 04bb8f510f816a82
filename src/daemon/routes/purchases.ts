/** Handlers of the routes about jobs that are bought elsewhere. */

import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { purchasesRoutes } from '../../control/contract/jobs.ts'
import type { Handlers } from '../../control/route.ts'
import type { Order } from '../../customer/order.ts'
import { purchaseView } from '../../customer/view.ts'
import { parsePubkey } from '../../nostr/nips/nip19.ts'
import { getPurchase, listPurchases } from '../../store/buying/purchases.ts'
import type { ReadServices, Services } from '../services.ts'

const DEFAULT_LIMIT = 50
const DEFAULT_TIMEOUT_S = 120

type Read = Pick<Handlers<typeof purchasesRoutes>, 'listPurchases' | 'getPurchase'>

export function purchasesReadHandlers({ store }: Pick<ReadServices, 'store'>): Read {
  return {
    listPurchases: ({ limit }) => ({
      purchases: listPurchases(store, { limit: limit ?? DEFAULT_LIMIT }).map((row) => purchaseView(store, row)),
    }),
    getPurchase: ({ id }) => {
      const row = getPurchase(store, id)
      if (row === undefined) throw new PylonError('job_not_found', `No job ${id} was bought; pylon job list shows them.`)
      return purchaseView(store, row)
    },
  }
}

export function purchasesHandlers(services: Pick<Services, 'store' | 'parts'>): Handlers<typeof purchasesRoutes> {
  const read = purchasesReadHandlers(services)
  const customer = services.parts.customer
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
        ...given({ bidSats: request.bid_sats, maxSats: request.max_sats }),
      }
      return await customer.get().submit(order, call.idempotencyKey)
    },
    getPurchase: async ({ id, wait }, call) => {
      const current = await read.getPurchase({ id }, call)
      // Where it is locked or failed, what is stored is told at once.
      const waiting = wait === undefined ? undefined : customer.peek()
      return waiting === undefined ? current : await waiting.wait(current.purchase_id, (wait ?? 0) * 1000, call.signal)
    },
    payPurchase: ({ id }) => customer.get().approve(id),
    cancelPurchase: ({ id }) => customer.get().cancel(id),
  }
}
