/** Handlers of the routes about NIP-46: programs elsewhere that sign with a key of this home. */
import { rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import type { Input } from '../../control/client.ts'
import type { bunkerRoutes } from '../../control/contract/bunker.ts'
import type { Handlers } from '../../control/route.ts'
import type { GrantOrder } from '../../nostr/bunker/bunker.ts'
import { stateOf } from '../../nostr/bunker/grant-rules.ts'
import { BUNKER_METHODS, isBunkerMethod, parseNostrConnectUri } from '../../nostr/nips/nip46.ts'
import { relayUrl } from '../../nostr/relay/relay-url.ts'
import { findAgent } from '../../store/agents/agents.ts'
import { type BunkerGrant, recentBunkerRequests } from '../../store/nostr/bunker.ts'
import type { Services } from '../services.ts'

const SHOWN_REQUESTS = 20

type Asked = Omit<Input<typeof bunkerRoutes.createBunkerConnection>, 'relays'>

/** Each throws why there is no bunker. */
export function bunkerHandlers(services: Services): Handlers<typeof bunkerRoutes> {
  const bunker = () => services.parts.bunker.get()
  const view = (grant: BunkerGrant) => viewOf(services, grant)
  return {
    createBunkerConnection: async ({ relays, ...asked }, call) => {
      const order = { ...orderOf(services, asked, call.idempotencyKey), relays: relays?.map(relayUrl) }
      const { grant, url } = await bunker().create(order)
      return { id: grant.id, url, connection: view(grant) }
    },
    answerBunkerClient: async ({ uri, ...asked }, call) => {
      const client = parseNostrConnectUri(uri)
      const grant = await bunker().connect(client, orderOf(services, { name: client.name, ...asked }, call.idempotencyKey))
      return { id: grant.id, connection: view(grant) }
    },
    listBunkerConnections: () => ({ connections: bunker().list().map(view) }),
    getBunkerConnection: ({ id }) => ({
      connection: view(bunker().get(id)),
      requests: recentBunkerRequests(services.store, id, SHOWN_REQUESTS).map(({ eventId, method, kind, refusal, createdAt }) => ({
        ...{ event_id: eventId, method, kind, refusal },
        at: rfc3339(createdAt),
      })),
    }),
    revokeBunkerConnection: async ({ id }) => ({ connection: view(await bunker().revoke(id)) }),
  }
}

function orderOf({ store, keyring, clock }: Services, asked: Asked, key: string): GrantOrder {
  const { signs_for, name, methods = ['sign_event'], kinds, expires_at } = asked
  const unknown = methods.find((method) => !isBunkerMethod(method))
  if (unknown !== undefined)
    throw new PylonError('invalid_request', `There is no method ${unknown}: choose of ${BUNKER_METHODS.join(', ')}.`)
  const expiresAt = expires_at === undefined ? null : Date.parse(expires_at)
  if (expiresAt !== null && expiresAt <= clock.now())
    throw new PylonError('invalid_request', 'The connection would have expired already: name a later time.')
  const agent = signs_for === 'node' ? undefined : findAgent(store, signs_for)
  if (signs_for !== 'node' && agent === undefined)
    throw new PylonError('agent_not_found', `There is no agent ${signs_for}: pylon agent list.`)
  const userPubkey = agent?.pubkey ?? keyring.node().pubkey
  // One that a bunker holds is asked for there.
  keyring.localSigner(userPubkey)
  return { key, userPubkey, name: name ?? agent?.name ?? 'node', methods: methods.filter(isBunkerMethod), kinds: kinds ?? null, expiresAt }
}

function viewOf({ store, identity, clock }: Services, grant: BunkerGrant) {
  const { id, name, userPubkey, methods, kinds, relays, clientPubkey, clientName, createdAt } = grant
  const timeOrNull = (ms: number | null) => (ms === null ? null : rfc3339(ms))
  return {
    ...{ id, name, pubkey: userPubkey, methods: [...methods], kinds: kinds === null ? null : [...kinds], relays: [...relays] },
    signs_for: userPubkey === identity.pubkey ? 'node' : (findAgent(store, userPubkey)?.name ?? userPubkey),
    ...{ client: clientPubkey, client_name: clientName, state: stateOf(grant, clock.now()), created_at: rfc3339(createdAt) },
    connected_at: timeOrNull(grant.connectedAt),
    last_used_at: timeOrNull(grant.lastUsedAt),
    expires_at: timeOrNull(grant.expiresAt),
    revoked_at: timeOrNull(grant.revokedAt),
  }
}
