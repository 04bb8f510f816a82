/** Tools that rent and use machines: of this node, which is free, or of others, paid by the lease. */
import { z } from 'zod'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { stringify } from '../../base/json.ts'
import type { Answer, Output } from '../../control/client.ts'
import { runtimesRoutes } from '../../control/contract/runtimes.ts'
import { ask, defineTool, idempotencyKey, type Tool, type ToolAnswer, type ToolCall } from '../tool.ts'

type Commanded = Output<typeof runtimesRoutes.commandRuntime>
type Fields = Record<string, unknown> & { readonly command: string }

const PROVIDERS = ['local', 'incus', 'microvm', 'fly', 'workers'] as const
const STATUS_WAIT_S = 10
const RENT_WAIT_MS = 600_000

const server = z.string().max(100).optional().describe('npub of the node whose machine it is, as list_offers has it; this node by default')
const machineId = z.string().min(1).max(128).describe('runtime_id')

export function machineTools(): Tool[] {
  return [
    defineTool({
      ...{ name: 'list_offers', title: 'Machines for rent', effect: 'look', openWorld: true },
      description: 'Machines that nodes on the relays rent out, the cheapest first; prices are msats an hour.',
      input: z.strictObject({
        protocol: z.enum(['pi', 'acp']).optional(),
        provider: z.enum(PROVIDERS).optional(),
        class: z.string().max(128).optional(),
        max_msats_per_hour: z.int().min(0).optional(),
      }),
      run(args, call) {
        const options = { signal: call.signal, untrusted: true }
        return ask(call, runtimesRoutes.listOffers, given(args), ({ offers }) => `${offers.length} offers.`, options)
      },
    }),
    defineTool({
      ...{ name: 'rent_machine', title: 'Rent a machine', effect: 'spend', openWorld: true },
      description:
        'SPENDS SATS of the owner where the machine is of another node (server): starts a machine and pays its lease within max_sats. Without server it is one of this node, and free. Use it with use_machine, end it with end_machine.',
      input: z.strictObject({
        server,
        provider: z.enum(PROVIDERS).default('local').describe('The substrate, as the offer names it'),
        class: z.string().max(128).optional().describe('runtime_class of the offer'),
        protocol: z.enum(['acp', 'pi']).default('acp').describe('How the agent inside is spoken to'),
        agent_command: z.string().max(4000).optional().describe('The agent process inside; that of the class by default'),
        name: z.string().max(128).optional(),
        lease_seconds: z.int().min(1).optional().describe('The shortest of the class by default'),
        max_sats: z.int().min(0).optional().describe('The most that may leave, price and fees; what the owner allows by default'),
        idempotency_key: idempotencyKey,
      }),
      async run(args, call) {
        // Machines of this node cost nothing, and are not let fail by what was spent before.
        const maxSats = args.server === undefined || args.max_sats === 0 ? 0 : call.spending?.hold(call.key, args.max_sats)
        const command = {
          ...{ command: 'provision', provider: args.provider, protocol: args.protocol },
          ...given({ runtime_class: args.class, entry_command: args.agent_command, name: args.name, lease_seconds: args.lease_seconds }),
        }
        const answer = await commanded(call, { command, ...given({ server: args.server, max_sats: maxSats }) })
        call.spending?.settle(call.key, await leftFor(call, answer.value))
        const { runtime, paid_msats } = answer.value
        return {
          ...told(answer),
          words: `The machine is ${runtime.runtime_id}, ${runtime.lifecycle_phase}; ${Number(paid_msats) / 1000} sats were paid.`,
        }
      },
    }),
    defineTool({
      ...{ name: 'use_machine', title: 'Use a machine', effect: 'run', openWorld: true },
      description:
        'Runs a shell command inside a machine, or says something to the agent inside; gives what it answers. One of command and prompt.',
      input: z.strictObject({
        machine: machineId,
        server,
        command: z.string().min(1).max(30_000).optional().describe('For a shell'),
        prompt: z.string().min(1).max(30_000).optional().describe('For the agent inside'),
        timeout_seconds: z.int().min(1).max(3600).default(60),
        idempotency_key: idempotencyKey,
      }),
      async run(args, call) {
        const about = { runtime_id: args.machine, timeout_s: args.timeout_seconds }
        const isExec = args.command !== undefined
        if (isExec === (args.prompt !== undefined))
          throw new PylonError('invalid_request', 'Give one of command and prompt; nothing was done.')
        const command = isExec ? { command: 'exec', shell: args.command, ...about } : { command: 'prompt', message: args.prompt, ...about }
        const answer = await commanded(call, { command, ...given({ server: args.server }) })
        return {
          ...told(answer),
          words: isExec
            ? 'The command has ended: payload has exit_code, stdout and stderr.'
            : 'The agent has answered: payload has its reply.',
        }
      },
    }),
    defineTool({
      ...{ name: 'list_machines', title: 'Machines that you have', effect: 'look', openWorld: true },
      description: 'The machines that the owner has on a node, and what was rented with what it cost.',
      input: z.strictObject({ server }),
      async run(args, { node, signal }) {
        const { body } = await node.call(
          runtimesRoutes.askRuntime,
          { command: { command: 'list_runtimes' }, ...given({ server: args.server }) },
          { signal },
        )
        const rented = await node.call(runtimesRoutes.listRentals, { limit: 20 }, { signal })
        return {
          body: { ...body, rentals: rented.body['rentals'] },
          words: 'payload has the machines, rentals what was rented.',
          untrusted: true,
        }
      },
    }),
    defineTool({
      ...{ name: 'get_machine_log', title: 'Log of a machine', effect: 'look', openWorld: true },
      description: 'The end of the log of a machine.',
      input: z.strictObject({ machine: machineId, server }),
      run(args, call) {
        const look = { command: { command: 'logs', runtime_id: args.machine }, ...given({ server: args.server }) }
        return ask(call, runtimesRoutes.askRuntime, look, () => 'payload has the log.', { signal: call.signal, untrusted: true })
      },
    }),
    defineTool({
      ...{ name: 'end_machine', title: 'End a machine', effect: 'end', openWorld: true },
      description: 'Tears a machine down with all that is in it, unless keep_volume. What is left of a lease is not given back.',
      input: z.strictObject({ machine: machineId, server, keep_volume: z.boolean().default(false), idempotency_key: idempotencyKey }),
      async run(args, call) {
        const command = { command: 'teardown', runtime_id: args.machine, keep_volume: args.keep_volume }
        return { ...told(await commanded(call, { command, ...given({ server: args.server }) })), words: `${args.machine} is torn down.` }
      },
    }),
  ]
}

/** A command that changes something, with its statuses as progress. It goes on where it was sent when the client gives it up. */
async function commanded(call: ToolCall, request: { command: Fields; server?: string; max_sats?: number }): Promise<Answer<Commanded>> {
  const over = new AbortController()
  const statuses = tellStatuses(call, AbortSignal.any([over.signal, call.signal]))
  try {
    const options = { idempotencyKey: call.key, signal: call.signal, timeoutMs: RENT_WAIT_MS }
    // What names no limit may cost nothing.
    return await call.node.call(runtimesRoutes.commandRuntime, { max_sats: 0, ...request }, options)
  } finally {
    over.abort()
    await statuses
  }
}

async function tellStatuses({ node, key, progress }: ToolCall, over: AbortSignal): Promise<void> {
  try {
    for (let after = 0; !over.aborted; ) {
      const look = { key, after: String(after), wait: String(STATUS_WAIT_S) }
      const { value } = await node.call(runtimesRoutes.commandStatuses, look, { signal: over })
      for (const { phase, message } of value.statuses) progress(`${phase}: ${message ?? ''}`)
      after += value.statuses.length
      if (value.done) return
      if (value.statuses.length === 0) progress('still waiting for the node')
    }
  } catch (error) {
    // Statuses are only told: what became of the command its own answer says.
    if (!isPylonError(error)) progress(messageOf(error))
  }
}

/** What left for a lease, fees included. */
async function leftFor({ node, key }: ToolCall, { paid_msats }: Commanded): Promise<number> {
  if (paid_msats === 0n) return 0
  const { value } = await node.call(runtimesRoutes.listRentals, { limit: 50 })
  const fees = value.rentals.find((rental) => rental.idempotency_key === key)?.fee_msats ?? 0n
  return Math.ceil(Number(paid_msats + fees) / 1000)
}

function told({ body }: Answer<Commanded>): Omit<ToolAnswer, 'words'> {
  return { body: JSON.parse(stringify(body)) as Record<string, unknown>, untrusted: true }
}
