/** Handlers of the routes about NIP-47: connections to the wallets of this home. */
import { sats } from '../../base/amounts.ts'
import { rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { nwcRoutes } from '../../control/contract/nwc.ts'
import type { Handlers } from '../../control/route.ts'
import { isNwcMethod, NWC_METHODS } from '../../nostr/nips/nip47.ts'
import { relayUrl } from '../../nostr/relay/relay-url.ts'
import { type NwcConnection, recentNwcRequests } from '../../store/money/nwc-service.ts'
import type { Services } from '../services.ts'
import { lightningView } from './lightning-view.ts'
import { walletName } from './payouts.ts'
import { ownerNamed } from './wallet.ts'

const SHOWN_REQUESTS = 20

const timeOrNull = (ms: number | null) => (ms === null ? null : rfc3339(ms))

/** Each throws why there is no wallet. */
export function nwcHandlers(services: Services): Handlers<typeof nwcRoutes> {
  const service = () => services.parts.nwc.get()
  const view = (connection: NwcConnection) => {
    const { id, name, methods, relays, budget, createdAt, expiresAt, lastUsedAt, revokedAt } = connection
    const { inPeriod, inAll } = service().spentSats(connection)
    const isExpired = expiresAt !== null && expiresAt <= services.clock.now()
    return {
      ...{ id, name, wallet: walletName(services.store, connection.owner), methods: [...methods], relays: [...relays], budget },
      ...{ spent_sats: inPeriod, spent_in_all_sats: inAll },
      state: revokedAt !== null ? ('revoked' as const) : isExpired ? ('expired' as const) : ('active' as const),
      created_at: rfc3339(createdAt),
      expires_at: timeOrNull(expiresAt),
      last_used_at: timeOrNull(lastUsedAt),
      revoked_at: timeOrNull(revokedAt),
    }
  }
  const wallet = () => {
    const found = lightningView(services)
    if (found === null) throw new PylonError('nwc_missing', 'No Lightning wallet is connected: pylon wallet connect -')
    return found
  }
  return {
    connectLightningWallet: async ({ url }) => {
      await services.parts.lightning.get().connection.connect(url)
      return wallet()
    },
    getLightningWallet: async () => {
      await services.parts.lightning.get().connection.refresh()
      return wallet()
    },
    disconnectLightningWallet: async ({ force }) => ({
      id: (await services.parts.lightning.get().connection.disconnect({ force: force === 'true' })).id,
    }),
    createNwcConnection: async ({ wallet, name, budget, methods, relays, expires_at }, call) => {
      const owner = ownerNamed(services.keyring, services.store, wallet)
      const unknown = methods?.find((method) => !isNwcMethod(method))
      if (unknown !== undefined)
        throw new PylonError('invalid_request', `There is no method ${unknown}: choose of ${NWC_METHODS.join(', ')}.`)
      const expiresAt = expires_at === undefined ? null : Date.parse(expires_at)
      if (expiresAt !== null && expiresAt <= services.clock.now())
        throw new PylonError('invalid_request', 'The connection would have expired already: name a later time.')
      const { connection, url } = await service().create({
        ...{ key: call.idempotencyKey, owner, name: name ?? wallet, expiresAt },
        budget: budget === null ? null : { sats: sats(budget.sats), per: budget.per },
        methods: methods === undefined ? NWC_METHODS : methods.filter(isNwcMethod),
        ...given({ relays: relays?.map(relayUrl) }),
      })
      return { id: connection.id, url, budget: connection.budget, connection: view(connection) }
    },
    listNwcConnections: () => ({ connections: service().list().map(view) }),
    getNwcConnection: ({ id }) => {
      const connection = service().get(id)
      return {
        connection: view(connection),
        requests: recentNwcRequests(services.store, connection.id, SHOWN_REQUESTS).map((request) => ({
          event_id: request.eventId,
          method: request.method,
          at: rfc3339(request.createdAt),
          state: request.answer === null ? ('open' as const) : request.refusal === null ? ('done' as const) : ('refused' as const),
          refusal: request.refusal,
          spent_sats: request.spend?.sats ?? null,
          payment_hash: request.paymentHash,
        })),
      }
    },
    revokeNwcConnection: async ({ id }) => ({ connection: view(await service().revoke(id)) }),
  }
}
