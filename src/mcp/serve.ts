/** `pylon mcp`: the tools over standard input and output, until the client closes them. */
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js'
import { isPylonError, messageOf } from '../base/errors.ts'
import { systemRandom } from '../base/random.ts'
import { agentsRoutes } from '../control/contract/agents.ts'
import { NodeClient } from './node-client.ts'
import { createServer } from './server.ts'
import { Spending, type SpendingLimits } from './spending.ts'
import { agentTools, instructionsFor, ownerTools } from './toolbox.ts'

/** One message of a client. */
const MAX_MESSAGE_BYTES = 4 * 1024 * 1024
const ASK_MS = 5_000

export interface McpOptions {
  /** Sockets of the node, in the order in which they are tried. */
  readonly sockets: readonly string[]
  /** What the owner types to start it. */
  readonly howToStart: string
  /** The agent that is acted as; the owner when absent. */
  readonly agent?: string
  readonly limits: SpendingLimits
}

/** @returns the exit code, once the client has gone @throws agent_not_found, where the node answers and hosts no such agent */
export async function serveMcp({ sockets, howToStart, agent, limits }: McpOptions): Promise<number> {
  const log = (words: string) => process.stderr.write(`pylon mcp: ${words}\n`)
  const node = new NodeClient(sockets, howToStart)
  if (agent !== undefined) await assertHosted(node, agent)
  const server = createServer({
    node,
    tools: agent === undefined ? ownerTools() : agentTools(agent),
    instructions: instructionsFor(agent, limits),
    spending: agent === undefined ? new Spending(limits) : undefined,
    random: systemRandom,
    log,
  })
  const transport = new StdioServerTransport(process.stdin, process.stdout, { maxBufferSize: MAX_MESSAGE_BYTES })
  server.server.onerror = (error) => log(messageOf(error))
  const ended = new Promise<void>((resolve) => {
    server.server.onclose = resolve
    process.stdin.once('end', resolve)
    process.stdout.once('error', () => resolve())
  })
  await server.connect(transport)
  log(agent === undefined ? 'ready, as the owner' : `ready, as the agent ${agent}`)
  await ended
  await server.close()
  return 0
}

/** A node that does not answer yet may have it later: then each call says what is the matter. */
async function assertHosted(node: NodeClient, agent: string): Promise<void> {
  try {
    await node.call(agentsRoutes.getAgent, { name: agent }, { timeoutMs: ASK_MS })
  } catch (error) {
    if (isPylonError(error, 'agent_not_found')) throw error
  }
}
