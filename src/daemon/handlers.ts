/** Binds every route of the contract to its handler: all of them in a running node, the reading ones offline. */
import { PylonError } from '../base/errors.ts'
import type { Tasks } from '../control/calls.ts'
import { CONTRACT } from '../control/contract.ts'
import type { Handler, Handlers, Route } from '../control/route.ts'
import type { BoundRoute } from '../control/router.ts'
import type { PylonNode } from './node.ts'
import { addressHandlers } from './routes/addresses.ts'
import { agentsHandlers, agentsReadHandlers } from './routes/agents.ts'
import { alertsHandlers, alertsReadHandlers } from './routes/alerts.ts'
import { approvalsHandlers, approvalsReadHandlers } from './routes/approvals.ts'
import { auditReadHandlers } from './routes/audit.ts'
import { bunkerHandlers } from './routes/bunker.ts'
import { earningsReadHandlers } from './routes/earnings.ts'
import { jobsReadHandlers } from './routes/jobs.ts'
import { managedHandlers, managedReadHandlers } from './routes/managed.ts'
import { nodeHandlers, nodeReadHandlers } from './routes/node.ts'
import { nwcHandlers } from './routes/nwc.ts'
import { payoutsHandlers, payoutsReadHandlers } from './routes/payouts.ts'
import { purchasesHandlers, purchasesReadHandlers } from './routes/purchases.ts'
import { purseHandlers } from './routes/purse.ts'
import { requestsHandlers, requestsReadHandlers } from './routes/requests.ts'
import { runtimesHandlers, runtimesReadHandlers } from './routes/runtimes.ts'
import { walletHandlers } from './routes/wallet.ts'
import { walletReadHandlers } from './routes/wallet-invoices.ts'
import { zapsHandlers } from './routes/zaps.ts'
import type { ReadServices } from './services.ts'

/** Handlers by `METHOD /path`. */
export type HandlerTable = ReadonlyMap<string, Handler<Route>>

/** The routes marked `offline`. Each area adds `bind(CONTRACT.<area>, <area>ReadHandlers(services))`. */
export function readTable(services: ReadServices): HandlerTable {
  return new Map([
    ...bind(CONTRACT.node, nodeReadHandlers(services)),
    ...bind(CONTRACT.purchases, purchasesReadHandlers(services)),
    ...bind(CONTRACT.agents, agentsReadHandlers(services)),
    ...bind(CONTRACT.approvals, approvalsReadHandlers(services)),
    ...bind(CONTRACT.alerts, alertsReadHandlers(services)),
    ...bind(CONTRACT.audit, auditReadHandlers(services)),
    ...bind(CONTRACT.jobs, jobsReadHandlers(services)),
    ...bind(CONTRACT.earnings, earningsReadHandlers(services)),
    ...bind(CONTRACT.runtimes, runtimesReadHandlers(services)),
    ...bind(CONTRACT.managed, managedReadHandlers(services)),
    ...bind(CONTRACT.wallet, walletReadHandlers(services)),
    ...bind(CONTRACT.payouts, payoutsReadHandlers(services)),
    ...bind(CONTRACT.requests, requestsReadHandlers(services)),
  ])
}

/** Every route of the contract with its handler. Each area adds its own to the table. */
export function boundRoutes(node: PylonNode, tasks: Tasks): BoundRoute[] {
  const table = new Map([
    ...readTable(node),
    ...bind(CONTRACT.node, nodeHandlers(node, tasks)),
    ...bind(CONTRACT.agents, agentsHandlers(node)),
    ...bind(CONTRACT.approvals, approvalsHandlers(node)),
    ...bind(CONTRACT.alerts, alertsHandlers(node)),
    ...bind(CONTRACT.purchases, purchasesHandlers(node)),
    ...bind(CONTRACT.wallet, walletHandlers(node)),
    ...bind(CONTRACT.purse, purseHandlers(node)),
    ...bind(CONTRACT.addresses, addressHandlers(node)),
    ...bind(CONTRACT.nwc, nwcHandlers(node)),
    ...bind(CONTRACT.bunker, bunkerHandlers(node)),
    ...bind(CONTRACT.requests, requestsHandlers(node)),
    ...bind(CONTRACT.zaps, zapsHandlers(node)),
    ...bind(CONTRACT.payouts, payoutsHandlers(node)),
    ...bind(CONTRACT.runtimes, runtimesHandlers(node)),
    ...bind(CONTRACT.managed, managedHandlers(node)),
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

function missing(route: Route): Handler<Route> {
  return () => {
    throw new PylonError('internal', `${route.method} ${route.path} has no handler.`)
  }
}
