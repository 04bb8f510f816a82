/** The MCP server: its tools for an owner or for one agent, with every failure told in words. */
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import type { RequestHandlerExtra } from '@modelcontextprotocol/sdk/shared/protocol.js'
import type { ServerNotification, ServerRequest } from '@modelcontextprotocol/sdk/types.js'
import { messageOf, toPylonError } from '../base/errors.ts'
import { type Random, randomUuid } from '../base/random.ts'
import { VERSION } from '../base/version.ts'
import type { NodeClient } from './node-client.ts'
import type { Spending } from './spending.ts'
import { annotationsOf, changesSomething, failureOf, OUTPUT, resultOf, type Tool, type ToolCall } from './tool.ts'

/** Members and elements of the arguments of one call. */
const MAX_ELEMENTS = 2000

export interface ServerDeps {
  readonly node: NodeClient
  readonly tools: readonly Tool[]
  readonly instructions: string
  readonly spending: Spending | undefined
  readonly random: Random
  /** For people: never on standard output. */
  log(words: string): void
}

type Extra = RequestHandlerExtra<ServerRequest, ServerNotification>

export function createServer(deps: ServerDeps): McpServer {
  const server = new McpServer(
    { name: 'pylon', title: 'Pylon', version: VERSION },
    { instructions: deps.instructions, maxToolInputElements: MAX_ELEMENTS },
  )
  for (const tool of deps.tools) {
    const { name, title, description, input } = tool
    server.registerTool(
      name,
      {
        title,
        description,
        inputSchema: input,
        outputSchema: OUTPUT,
        annotations: annotationsOf(tool),
        _meta: metaOf(tool, deps.spending),
      },
      (args: unknown, extra: Extra) => answer(tool, args, extra, deps),
    )
  }
  return server
}

/** Says what a client may want to ask its person about first. */
function metaOf({ effect }: Tool, spending: Spending | undefined): Record<string, unknown> {
  if (effect !== 'spend') return {}
  const limits = spending?.limits
  return {
    'pylon/spends': true,
    ...(limits === undefined ? {} : { 'pylon/max_sats_per_call': limits.perCallSats, 'pylon/max_sats_per_session': limits.perSessionSats }),
  }
}

async function answer(tool: Tool, args: unknown, extra: Extra, deps: ServerDeps) {
  const given = (args as { idempotency_key?: string }).idempotency_key
  const key = given ?? randomUuid(deps.random)
  const told = changesSomething(tool) ? key : undefined
  const { node, spending } = deps
  const call: ToolCall = { node, spending, key, signal: extra.signal, progress: progressOf(extra, deps) }
  // A client that gives the call up never sees its answer.
  if (tool.effect === 'spend') call.progress(`begun under idempotency_key ${key}`)
  try {
    return resultOf(await tool.run(args as never, call), told)
  } catch (error) {
    const known = toPylonError(error)
    spending?.settleFailed(key, known)
    deps.log(`${tool.name}: ${known.message} (${known.code})`)
    return failureOf(known, told)
  }
}

/** Steps are counted, not measured: nobody knows how long a provider takes. */
function progressOf(extra: Extra, deps: ServerDeps): ToolCall['progress'] {
  const progressToken = extra._meta?.progressToken
  if (progressToken === undefined) return () => undefined
  let progress = 0
  return (message) => {
    const sent = extra.sendNotification({ method: 'notifications/progress', params: { progressToken, progress: ++progress, message } })
    sent.catch((error: unknown) => deps.log(`progress could not be told: ${messageOf(error)}`))
  }
}
