/** Handlers of the routes about managed agents and the sessions with them. */
import { rfc3339 } from '../../base/clock.ts'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { asJson, asRecord } from '../../base/json.ts'
import type { managedRoutes } from '../../control/contract/managed.ts'
import type { Handlers, Input } from '../../control/route.ts'
import { isComing } from '../../customer/agents/life.ts'
import type { ManagedOrder } from '../../customer/agents/managed-agents.ts'
import { descriptorOf, lineView, managedDetail, managedView, managedViews, messageView, stepView } from '../../customer/agents/view.ts'
import { freshName } from '../../host/names.ts'
import { npubOf, parsePubkey } from '../../nostr/nips/nip19.ts'
import { listAgents } from '../../store/agents/agents.ts'
import { findManagedAgent, getManagedAgent, listManagedAgents } from '../../store/buying/managed-agents.ts'
import type { ReadServices, Services } from '../services.ts'

type Routes = typeof managedRoutes
type Make = Input<Routes['makeAgent']>

const DEFAULT_LIMIT = 100
const TURN_S = 300

export function managedReadHandlers(
  { store, clock }: Pick<ReadServices, 'store' | 'clock'>,
  own?: string,
): Pick<Handlers<Routes>, 'listManaged' | 'getManaged'> {
  return {
    listManaged: () => ({ agents: managedViews(store, own, clock.now()) }),
    getManaged: ({ name }) => {
      const row = findManagedAgent(store, refOf(name))
      if (row === undefined) throw new PylonError('agent_not_found', `There is no agent ${name}; pylon agent list shows them.`)
      return managedDetail(store, row, own)
    },
  }
}

export function managedHandlers(services: Pick<Services, 'store' | 'clock' | 'identity' | 'parts'>): Handlers<Routes> {
  const { store, parts } = services
  const { agents, chat } = parts
  const own = services.identity.pubkey
  return {
    ...managedReadHandlers(services, own),
    makeAgent: async (request, call) => {
      const managed = agents.get()
      const known = getManagedAgent(store, call.idempotencyKey)
      const { id } = await managed.order(orderOf(services, request, known?.name), call.idempotencyKey)
      const row = await managed.ready(id, call.signal)
      const runtime = descriptorOf(row)
      if (runtime === null || row.runtimeId === null) throw new PylonError('internal', 'An agent is ready without a runtime.')
      const agent = managedView(row, own)
      const { provider, protocol, runtime_class } = agent
      return { provider, protocol, runtime_id: row.runtimeId, runtime_class, runtime, payload: row.payload, agent }
    },
    managedSteps: async ({ name, after, wait }, call) => {
      const row = getManagedAgent(store, name) ?? findManagedAgent(store, refOf(name))
      if (row === undefined) return { steps: [], is_open: true }
      const steps = await agents.get().steps(row.id, after ?? 0, (wait ?? 0) * 1000, call.signal)
      const phase = getManagedAgent(store, row.id)?.phase ?? 'ended'
      return { steps: steps.map((step) => stepView(step, row.createdAt)), is_open: isComing(phase) }
    },
    endManaged: async ({ name }, call) => managedView(await agents.get().end(refOf(name), call.signal), own),
    listChats: () => ({
      chats: chat
        .get()
        .groups()
        .map(({ id, name, members, relays, epoch, state, createdAt }) => ({
          ...{ group_id: id, name, peers: members.map(npubOf), relays: [...relays], epoch, state, created_at: rfc3339(createdAt) },
        })),
    }),
    say: async ({ peer, text, type = 'prompt' }, call) => {
      if ((text === undefined) !== (type === 'abort'))
        throw new PylonError('invalid_request', type === 'abort' ? 'text: abort has none.' : 'text: must be given.')
      const { line, said } = await chat.get().say(refOf(peer), { type, text: text ?? '' }, call.idempotencyKey, call.signal)
      return { ...lineView(line), message: messageView(said) }
    },
    listen: async ({ peer, after, last, limit, wait, mode = 'coding' }, call) => {
      const talk = chat.get()
      const line = talk.lineOf(refOf(peer))
      const page = { after: after ?? 0, limit: limit ?? DEFAULT_LIMIT, waitMs: (wait ?? 0) * 1000, mode }
      const messages = last !== undefined && after === undefined ? talk.last(line, last, mode) : await talk.after(line, page, call.signal)
      return { ...lineView(line), messages: messages.map(messageView) }
    },
    takeTurn: async ({ peer, text, timeout_s }, call) => {
      const turn = await chat.get().turn(refOf(peer), text, call.idempotencyKey, (timeout_s ?? TURN_S) * 1000, call.signal)
      const { line, said, reply, outcome, note = null, messages } = turn
      return { ...lineView(line), said: messageView(said), reply, outcome, note, messages: messages.map(messageView) }
    },
  }
}

/** An npub as its key; all else as it is. */
function refOf(name: string): string {
  return name.startsWith('npub1') ? parsePubkey(name) : name
}

/** @param known the name that the same call chose before */
function orderOf(
  { store, identity, parts }: Pick<Services, 'store' | 'identity' | 'parts'>,
  request: Make,
  known: string | undefined,
): ManagedOrder {
  const { name, server, relays, command, request: agentRequest, keep, max_sats, pay_with, protocol = 'pi', ...machine } = request
  const incus = agentRequest === undefined ? undefined : asRecord(asJson(agentRequest))
  const provider = request.provider ?? (incus === undefined ? 'local' : 'incus')
  if (incus !== undefined && provider !== 'incus')
    throw new PylonError('invalid_request', `request: is for the provider incus, not ${provider}.`)
  const relayUrls = relays === undefined || relays.length === 0 ? parts.nostr.get().relays : relays
  return {
    name: name ?? known ?? nameFor(store),
    server: server === undefined ? identity.pubkey : parsePubkey(server),
    keep: keep ?? false,
    ...given({ maxSats: max_sats, payWith: pay_with }),
    command: { ...given({ ...machine, name, entry_command: command, incus }), provider, protocol, relay_urls: [...relayUrls] },
  }
}

function nameFor(store: Services['store']): string {
  const managed = listManagedAgents(store)
  const taken = new Set([...listAgents(store), ...managed].map(({ name }) => name))
  return freshName(taken, managed.length + 7)
}
