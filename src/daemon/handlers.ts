/** Binds every route of the contract to its handler: all of them in a running node, the reading ones offline. */
import { PylonError } from '../base/errors.ts'
import type { Tasks } from '../control/calls.ts'
import { CONTRACT } from '../control/contract.ts'
import type { Handler, Handlers, Route } from '../control/route.ts'
import type { BoundRoute } from '../control/router.ts'
import type { PylonNode } from './node.ts'
import { agentsHandlers, agentsReadHandlers } from './routes/agents.ts'
import { earningsReadHandlers } from './routes/earnings.ts'
import { jobsReadHandlers } from './routes/jobs.ts'
import { nodeHandlers, nodeReadHandlers } from './routes/node.ts'
import { purchasesHandlers, purchasesReadHandlers } from './routes/purchases.ts'
import { runtimesHandlers, runtimesReadHandlers } from './routes/runtimes.ts'
import { walletHandlers } from './routes/wallet.ts'
import { walletReadHandlers } from './routes/wallet-invoices.ts'
import type { ReadServices } from './services.ts'

/** Handlers by `METHOD /path`. */
export type HandlerTable = ReadonlyMap<string, Handler<Route>>

/** The routes marked `offline`. Each area adds `bind(CONTRACT.<area>, <area>ReadHandlers(services))`. */
export function readTable(services: ReadServices): HandlerTable {
  return new Map([
    ...bind(CONTRACT.node, nodeReadHandlers(services)),
    ...bind(CONTRACT.purchases, purchasesReadHandlers(services)),
    ...bind(CONTRACT.agents, agentsReadHandlers(services)),
    ...bind(CONTRACT.jobs, jobsReadHandlers(services)),
    ...bind(CONTRACT.earnings, earningsReadHandlers(services)),
    ...bind(CONTRACT.runtimes, runtimesReadHandlers(services)),
    ...bind(CONTRACT.wallet, walletReadHandlers(services)),
  ])
}

/** Every route of the contract with its handler. Each area adds its own to the table. */
export function boundRoutes(node: PylonNode, tasks: Tasks): BoundRoute[] {
  const table = new Map([
    ...readTable(node),
    ...bind(CONTRACT.node, nodeHandlers(node, tasks)),
    ...bindLate(CONTRACT.agents, () => agentsHandlers(node), agentsReadHandlers(node)),
    ...bindLate(CONTRACT.purchases, () => purchasesHandlers(node), purchasesReadHandlers(node)),
    ...bindLate(CONTRACT.wallet, () => walletHandlers(node)),
    ...bindLate(CONTRACT.runtimes, () => runtimesHandlers(node), runtimesReadHandlers(node)),
  ])
  const routes = Object.values<Record<string, Route>>(CONTRACT).flatMap((area) => Object.values(area))
  return routes.map((route) => ({ route, handler: table.get(`${route.method} ${route.path}`) ?? missing(route) }))
}

/** The entries of one area; a partial table binds what it has. */
function bind<T extends Record<string, Route>>(routes: T, handlers: Partial<Handlers<T>>): [string, Handler<Route>][] {
  return Object.entries(handlers).map(([name, handler]) => {
    const route = routes[name] as Route
    return [`${route.method} ${route.path}`, handler as Handler<Route>]
  })
}

/**
 * Handlers that are made at each call: their parts may be locked, or come later. What is answered offline too is answered by the
 * store where the live handler can't be made.
 */
function bindLate<T extends Record<string, Route>>(
  routes: T,
  make: () => Handlers<T>,
  reads: Partial<Handlers<T>> = {},
): [string, Handler<Route>][] {
  return Object.entries(routes).map(([name, route]) => [
    `${route.method} ${route.path}`,
    (input, call) => {
      const offline = (reads as Record<string, Handler<Route> | undefined>)[name]
      return (handlerOf(make, name, offline) ?? missing(route))(input, call)
    },
  ])
}

/** @throws what the making throws, where nothing answers offline */
function handlerOf<T extends Record<string, Route>>(
  make: () => Handlers<T>,
  name: string,
  offline: Handler<Route> | undefined,
): Handler<Route> | undefined {
  if (offline === undefined) return (make() as Record<string, Handler<Route>>)[name]
  try {
    return (make() as Record<string, Handler<Route>>)[name] ?? offline
  } catch {
    // A part that is locked or failed: what is stored can be told all the same.
    return offline
  }
}

function missing(route: Route): Handler<Route> {
  return () => {
    throw new PylonError('internal', `${route.method} ${route.path} has no handler.`)
  }
}
