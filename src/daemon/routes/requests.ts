/** Handlers of the routes about ecash that is asked for and given away. */
import type { requestsRoutes } from '../../control/contract/requests.ts'
import type { Handlers } from '../../control/route.ts'
import { ownerKey } from '../../store/keys.ts'
import { getOperation, operationByKey } from '../../store/money/operations.ts'
import type { Store } from '../../store/store.ts'
import { ownerNamed, type WalletServices } from './wallet.ts'

export function requestsHandlers({ keyring, store, parts }: WalletServices): Handlers<typeof requestsRoutes> {
  return {
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
  return (operationByKey(store, byCall) ?? getOperation(store, key))?.idempotencyKey ?? byCall
}
