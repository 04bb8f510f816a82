/**
 * What a brain that is a program of others gets of this node: a control socket of its own for one turn, which serves one agent's
 * tools and nothing else; and, where bubblewrap works, a fence in which the home and its real control socket are not there.
 */
import { realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { PylonError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Home } from '../base/paths.ts'
import type { Scope } from '../base/scope.ts'
import type { Claims, Tasks } from '../control/calls.ts'
import { agentsRoutes } from '../control/contract/agents.ts'
import { walletRoutes } from '../control/contract/wallet.ts'
import type { Handler, Route } from '../control/route.ts'
import type { BoundRoute } from '../control/router.ts'
import { ControlServer } from '../control/server.ts'
import type { Hands } from '../host/brains/brain.ts'
import { type Bubblewrap, findBubblewrap } from '../runtime/local/bubblewrap.ts'
import { type AgentRow, getAgent } from '../store/agents/agents.ts'
import { storedClaims } from './calls.ts'
import { selfCommand } from './launch/self-command.ts'
import { agentsHandlers } from './routes/agents.ts'
import { type WalletServices, walletHandlers } from './routes/wallet.ts'
import type { Services } from './services.ts'

type HandServices = WalletServices & Pick<Services, 'config' | 'logger'> & { readonly home: Home; readonly scope: Scope }

const CLOSE_MS = 500

export function createHands(services: HandServices): Hands {
  const fence = new Fence(services.home, services.network, services.logger)
  return {
    enclose: (command, dir) => fence.around(command, dir),
    async open(pubkey, dir) {
      const { store, network, logger, scope } = services
      const agent = getAgent(store, pubkey)
      if (agent === undefined) throw new PylonError('agent_not_found', 'The agent is gone.')
      const socket = join(dir, 'hands.sock')
      const calls = scope.child(`hands of ${agent.name}`)
      const routes = routesOf(services, agent)
      const server = new ControlServer({ routes, network, claims: claimsOf(services, dir), tasks: NO_TASKS, logger, scope: calls })
      await server.listen(socket)
      const { command, args } = selfCommand(['mcp', '--agent', agent.name, '--socket', socket])
      return {
        server: { name: 'pylon', command, args },
        async close() {
          await server.close(CLOSE_MS)
          await calls.close(CLOSE_MS)
        },
      }
    },
  }
}

/** The tools of one agent: what `pylon mcp --agent` calls, and for this agent alone. */
function routesOf(services: HandServices, agent: AgentRow): BoundRoute[] {
  const agents = agentsHandlers(services)
  const wallets = walletHandlers(services)
  const only = (field: 'name' | 'wallet', handler: Handler<never>): Handler<Route> => {
    return (input, call) => {
      const ref = String((input as Record<string, unknown>)[field])
      if (![agent.name, agent.pubkey, agent.npub].includes(ref))
        throw new PylonError('agent_not_found', `These are the hands of ${agent.name} alone.`)
      return (handler as Handler<Route>)({ ...(input as object), [field]: agent.pubkey }, call)
    }
  }
  const act: Handler<typeof agentsRoutes.actAgent> = async ({ action }, call) => ({
    ...(await services.parts.host.get().actInTick(agent.pubkey, action, call.idempotencyKey)),
  })
  return [
    { route: agentsRoutes.getAgent, handler: only('name', agents.getAgent) },
    { route: agentsRoutes.getInbox, handler: only('name', agents.getInbox) },
    { route: agentsRoutes.getLog, handler: only('name', agents.getLog) },
    { route: agentsRoutes.actAgent, handler: only('name', act) },
    { route: walletRoutes.getWallet, handler: only('wallet', wallets.getWallet) },
  ]
}

/** Its keys are its own: none meets one of the owner's, nor of another turn. */
function claimsOf(services: HandServices, dir: string): Claims {
  const claims = storedClaims(services)
  const own = (key: string) => `${dir}:${key}`
  return {
    claim: (key, route, digest) => claims.claim(own(key), route, digest),
    answer: (key, status, body) => claims.answer(own(key), status, body),
  }
}

const noTask = (): never => {
  throw new PylonError('task_not_found', 'There are no tasks here.')
}
const NO_TASKS: Tasks = { run: noTask, find: () => undefined, get: noTask }

class Fence {
  readonly #hidden: string
  readonly #logger: Logger
  #bubblewrap: Promise<Bubblewrap> | undefined

  constructor(home: Home, network: 'sandbox' | 'live', logger: Logger) {
    // The home of a sandbox node lies within the live one.
    this.#hidden = network === 'sandbox' ? dirname(home.dir) : home.dir
    this.#logger = logger
  }

  async around(command: readonly string[], dir: string): Promise<readonly string[]> {
    this.#bubblewrap ??= this.#find()
    const found = await this.#bubblewrap
    if (found.path === null) return command
    const hidden = realpathSync(this.#hidden)
    const view = ['--bind', '/', '/', '--dev-bind', '/dev', '/dev', '--proc', '/proc', '--tmpfs', hidden, '--bind', dir, dir]
    return [found.path, ...found.options, '--unshare-pid', '--die-with-parent', ...view, '--', ...command]
  }

  async #find(): Promise<Bubblewrap> {
    const found = await findBubblewrap(undefined)
    if (found.path === null)
      this.#logger.warn(
        { reason: found.reason, next_step: found.nextStep },
        'brains that speak ACP run without a fence: they can reach all that you can',
      )
    return found
  }
}
