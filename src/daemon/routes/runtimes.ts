/** Handlers of the routes about runtimes: commands over Nostr or straight to our own machines, offers and rentals. */

import { type Msats, msats } from '../../base/amounts.ts'
import { rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { stringify } from '../../base/json.ts'
import { systemRandom } from '../../base/random.ts'
import type { runtimesRoutes } from '../../control/contract/runtimes.ts'
import type { Handlers } from '../../control/route.ts'
import { errorOfNode } from '../../customer/machines/node-error.ts'
import type { FoundOffer } from '../../customer/machines/offers.ts'
import { newRequestId, rentalViews, type TenantOrder, type Via } from '../../customer/machines/tenant.ts'
import { type ControlCommand, type ControlCommandInput, controlCommand, READING_COMMANDS } from '../../nostr/control/commands.ts'
import { type ControlResult, type ControlStatus, decodeCommand, encodeCommand } from '../../nostr/control/envelopes.ts'
import { ControlError } from '../../nostr/control/vocabulary.ts'
import { npubOf, parsePubkey } from '../../nostr/nips/nip19.ts'
import { buildIncusImages } from '../machines/image-build.ts'
import type { ReadServices, Services } from '../services.ts'

const DEFAULT_LIMIT = 50
/** Below what a client waits for an answer. */
const QUERY_MS = 60_000

type Read = Pick<Handlers<typeof runtimesRoutes>, 'listRentals'>

export function runtimesReadHandlers({ store }: Pick<ReadServices, 'store'>): Read {
  return { listRentals: ({ limit }) => ({ rentals: rentalViews(store, { limit: limit ?? DEFAULT_LIMIT }) }) }
}

type RuntimeServices = Pick<Services, 'store' | 'identity' | 'keyring' | 'config' | 'parts' | 'runtimeCalls' | 'scope'>

interface Asked {
  readonly server?: string | undefined
  readonly local?: boolean | undefined
  readonly command: Record<string, unknown>
}

export function runtimesHandlers(services: RuntimeServices): Handlers<typeof runtimesRoutes> {
  const own = services.identity.pubkey
  const { machines, tenant } = services.parts
  const serverOf = ({ server }: Asked): string => (server === undefined ? own : parsePubkey(server))

  async function send(
    asked: Asked,
    order: Omit<TenantOrder, 'server' | 'command'>,
    emit: (status: ControlStatus) => void,
  ): Promise<{ server: string; requestId: string; result: ControlResult; paidMsats: Msats; via: Via }> {
    const server = serverOf(asked)
    const input = readCommand(asked.command).input
    // What is asked of our own machines while there are none is refused here, before anything is sent.
    const ownMachines = server === own ? machines.get() : undefined
    if (asked.local === true && ownMachines === undefined)
      throw new PylonError('invalid_request', 'local means this node: leave server out.')
    if (asked.local === true && ownMachines !== undefined) {
      const requestId = newRequestId(systemRandom)
      const text = encodeCommand({ requestId, idempotencyKey: order.idempotencyKey, command: input })
      const requester = services.keyring.customer().pubkey
      const work = ownMachines.handle(requester, decodeCommand(text), emit)
      return { server, requestId, result: await inOurTerms(own, work), paidMsats: msats(0n), via: 'straight' }
    }
    const { requestId, paidMsats, via, ...result } = await tenant.get().send({ ...order, server, command: input }, emit)
    return { server, requestId, result, paidMsats, via }
  }

  return {
    ...runtimesReadHandlers(services),
    commandRuntime: async (request, call) => {
      const { name } = readCommand(request.command)
      if (READING_COMMANDS.includes(name)) throw new PylonError('invalid_request', `${name} only looks: use POST /v1/runtimes/queries.`)
      const order = {
        idempotencyKey: call.idempotencyKey,
        signal: call.signal,
        ...given({ maxSats: request.max_sats, payWith: request.pay_with }),
        ...(request.timeout_s === undefined ? {} : { timeoutMs: request.timeout_s * 1000 }),
      }
      const { paidMsats, ...sent } = await services.runtimeCalls.follow(call.idempotencyKey, (emit) => send(request, order, emit))
      return { ...answer(sent), paid_msats: paidMsats }
    },
    askRuntime: async (request, call) => {
      const { name } = readCommand(request.command)
      if (!READING_COMMANDS.includes(name))
        throw new PylonError('invalid_request', `${name} changes something: use POST /v1/runtimes/commands.`)
      const timeoutMs = request.timeout_s === undefined ? QUERY_MS : request.timeout_s * 1000
      return answer(await send(request, { idempotencyKey: call.idempotencyKey, signal: call.signal, timeoutMs }, () => undefined))
    },
    commandStatuses: async ({ key, after, wait }, call) => {
      const { statuses, done } = await services.runtimeCalls.after(key, after ?? 0, (wait ?? 0) * 1000, call.signal)
      return { statuses: statuses.map(statusView), done }
    },
    buildImage: async ({ kind, suite, mirror }) => {
      const more = { ...given({ suite, mirror }) }
      const kinds = kind === undefined ? (['busybox', 'debian'] as const) : [kind]
      const { images, guestDir, created } = await buildIncusImages(
        services.config().runtimes,
        { kinds, nodePubkey: own, ...more },
        services.scope,
      )
      // It may have become usable by this.
      await machines.get().reload()
      return { images: [...images], guest_dir: guestDir, created: [...created] }
    },
    listOffers: async (filter) => {
      const offers = await tenant.get().offers({
        ...(filter.server === undefined ? {} : { server: parsePubkey(filter.server) }),
        ...given({ region: filter.region, protocol: filter.protocol, provider: filter.provider, runtimeClass: filter.class }),
        ...(filter.max_msats_per_hour === undefined ? {} : { maxMsatsPerHour: BigInt(filter.max_msats_per_hour) }),
        full: filter.full === 'true',
      })
      return { offers: offers.map(offerView) }
    },
  }
}

/** @throws invalid_request naming the field */
function readCommand(value: Record<string, unknown>): { name: ControlCommand['command']; input: ControlCommandInput } {
  const parsed = controlCommand.safeParse(value)
  if (parsed.success) return { name: parsed.data.command, input: parsed.data }
  const issue = parsed.error.issues[0]
  const field = (issue?.path ?? []).map(String).join('.')
  throw new PylonError(
    'invalid_request',
    `command${field === '' ? '' : `.${field}`}: ${issue?.message ?? 'is malformed'}; docs/control-plane.md lists every field.`,
  )
}

async function inOurTerms<T>(own: string, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    throw error instanceof ControlError ? errorOfNode(own, error) : error
  }
}

function answer(sent: { server: string; requestId: string; result: ControlResult; via: Via }) {
  const { runtime, payload } = JSON.parse(stringify(sent.result)) as {
    runtime: { runtime_id: string; provider: string; lifecycle_phase: string }
    payload?: unknown
  }
  return { server: npubOf(sent.server), request_id: sent.requestId, via: sent.via, runtime, payload: payload ?? null }
}

function statusView({ phase, runtime_id, provider, message, progress }: ControlStatus) {
  return {
    phase,
    ...given({ runtime_id, provider, message, progress }),
  }
}

function offerView(offer: FoundOffer) {
  const { vcpuCount, memoryMib, rootDiskGib } = offer.resources
  return {
    server: npubOf(offer.server),
    server_pubkey: offer.server,
    event_id: offer.eventId,
    runtime_class: offer.runtimeClass,
    provider: offer.provider,
    region: offer.region,
    protocols: [...offer.protocols],
    price_msats_per_hour: msats(offer.priceMsatsPerHour),
    min_lease_s: offer.minLeaseS,
    max_lease_s: offer.maxLeaseS,
    capacity_free: offer.capacity.free,
    capacity_total: offer.capacity.total,
    resources: {
      ...given({ vcpu_count: vcpuCount, memory_mib: memoryMib, root_disk_gib: rootDiskGib }),
    },
    isolated: offer.isolated,
    mints: [...offer.mints],
    ...given({ policy_constraints: offer.policyConstraints }),
    published_at: rfc3339(offer.publishedAt),
  }
}
