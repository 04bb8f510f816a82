/** Tools that have an agent act: each is one typed action, judged by its policy and bounded by its budget in the node. */
import { z } from 'zod'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import type { Output } from '../../control/client.ts'
import { agentsRoutes } from '../../control/contract/agents.ts'
import { defineTool, type Effect, idempotencyKey, type Tool } from '../tool.ts'

type Done = Output<typeof agentsRoutes.actAgent>

const text = z.string().trim().min(1).max(2000)
const noteId = z.string().min(1).max(2000).describe('Event id (64 hex digits), note1 or nevent1')
const person = z.string().min(1).max(400).describe('npub, nprofile or hex key')
const sats = z.int().min(1).max(1_000_000_000)

interface ActingSpec {
  /** Of the action, and the name of the tool. */
  readonly type: string
  readonly title: string
  readonly description: string
  readonly effect: Effect
  readonly fields: z.ZodRawShape
  /** What it may cost, where that is known before. */
  readonly maxSats?: (args: Readonly<Record<string, unknown>>) => number
}

/** @param agent undefined: the call names it */
export function actingTools(agent: string | undefined): Tool[] {
  const all = [
    acting(agent, {
      ...{ type: 'post', title: 'Post a note', effect: 'say' },
      description:
        'Publishes a public note (kind 1). Hashtags and nostr: mentions in the text become tags. The same text is not posted twice.',
      fields: { text: text.describe('At most 2000 characters') },
    }),
    acting(agent, {
      ...{ type: 'reply', title: 'Reply to a note', effect: 'say' },
      description: 'Publishes a public reply to a note.',
      fields: { to: noteId, text },
    }),
    acting(agent, {
      ...{ type: 'react', title: 'React to a note', effect: 'say' },
      description: 'Publishes a reaction (kind 7) to a note.',
      fields: { to: noteId, content: z.string().min(1).max(40).default('+').describe('An emoji, or + for a like') },
    }),
    acting(agent, {
      ...{ type: 'dm', title: 'Send a private message', effect: 'say' },
      description:
        'Sends a private message (NIP-17, or NIP-04 where the peer reads only that). A bounded agent writes only to keys that it may deal with.',
      fields: { to: person, text: z.string().trim().min(1).max(10_000) },
    }),
    acting(agent, {
      ...{ type: 'zap', title: 'Zap a person or a note', effect: 'spend' },
      description: 'SPENDS SATS of the agent: zaps a key or the author of a note (NIP-57). Fees come on top. It cannot be taken back.',
      fields: {
        to: z.string().min(1).max(2000).describe('npub or hex key of a person, or note1/nevent1 of a note'),
        sats,
        comment: z.string().max(280).optional(),
      },
      maxSats: (args) => Number(args['sats']),
    }),
    acting(agent, {
      ...{ type: 'request_payment', title: 'Ask somebody for sats', effect: 'say' },
      description: 'Makes a Lightning invoice of the agent and sends it by private message.',
      fields: { to: person, sats, memo: z.string().max(280).optional() },
    }),
    acting(agent, {
      ...{ type: 'remember', title: 'Remember something', effect: 'note' },
      description: 'Keeps a sentence in the memory of the agent: it is shown to it in every later tick.',
      fields: { text: z.string().trim().min(1).max(1000) },
    }),
  ]
  return agent === undefined ? all : [...all, payInvoice(agent)]
}

/** The owner has a wallet of the node for that. */
const payInvoice = (agent: string): Tool =>
  acting(agent, {
    ...{ type: 'pay_invoice', title: 'Pay a Lightning invoice', effect: 'spend' },
    description:
      'SPENDS SATS of the agent: pays a bolt11 invoice, each only once. A bounded agent pays only what a key that it trusts sent to it by message.',
    fields: { invoice: z.string().trim().min(10).max(8000).describe('bolt11') },
  })

function acting(agent: string | undefined, spec: ActingSpec): Tool {
  const { type, title, description, effect, fields, maxSats } = spec
  return defineTool({
    ...{ name: type, title, effect, openWorld: effect !== 'note' },
    description: agent === undefined ? `${description} Done by the agent that you name, by its policy and within its budget.` : description,
    input: z.strictObject({ ...(agent === undefined ? { agent: agentName } : {}), ...fields, idempotency_key: idempotencyKey }),
    async run(input: Readonly<Record<string, unknown>>, call) {
      const { agent: named, idempotency_key: _key, ...args } = input
      const who = agent ?? String(named)
      if (effect === 'spend') call.spending?.hold(call.key, maxSats?.(args))
      const action = { type, ...given(args) }
      const options = { idempotencyKey: call.key, timeoutMs: ACT_TIMEOUT_MS }
      const { body, value } = await call.node.call(agentsRoutes.actAgent, { name: who, action }, options)
      if (value.state !== 'unknown') call.spending?.settle(call.key, Math.ceil(Number(value.cost_msats) / 1000))
      return { body, words: wordsFor(value, who) }
    },
  })
}

/** Beyond what an agent may think for: the call waits for the tick that runs. */
const ACT_TIMEOUT_MS = 300_000

export const agentName = z.string().min(1).max(100).describe('Name or npub of an agent of this node: list_agents shows them')

/** @throws action_refused, action_failed with the reason */
function wordsFor({ type, state, reason, event_id, cost_msats, tick_number }: Done, agent: string): string {
  const details = { agent, tick_number, state }
  if (state === 'refused') throw new PylonError('action_refused', `Policy refuses it: ${reason ?? 'it says no reason'}.`, { details })
  if (state === 'failed') throw new PylonError('action_failed', `The ${type} failed: ${reason ?? 'it says no reason'}.`, { details })
  const cost = cost_msats > 0n ? ` It cost ${Number(cost_msats) / 1000} sats with all fees.` : ''
  const note = reason === null ? '' : ` (${reason})`
  switch (state) {
    case 'published':
      return `Published as ${event_id ?? 'an event'} by ${agent}.${note}`
    case 'done':
      return `Done by ${agent}.${cost}${note}`
    case 'waiting':
    case 'approved':
      return `Not done yet: it ${reason ?? 'waits for the owner'}. Do not ask for it again; the same key tells what became of it.`
    case 'unknown':
      return 'Nobody can say yet whether it was paid; the sats are held and the node goes on asking. Do not pay it again under another key.'
    default:
      return `It is on its way: ${agent} has signed it and no relay has answered yet. It goes out by itself; do not send it again.`
  }
}
