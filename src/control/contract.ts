/** Every route of the control socket, by area: the one list that server, client and docs are made from. */

import { addressRoutes } from './contract/addresses.ts'
import { agentsRoutes } from './contract/agents.ts'
import { alertsRoutes } from './contract/alerts.ts'
import { approvalsRoutes } from './contract/approvals.ts'
import { auditRoutes } from './contract/audit.ts'
import { bunkerRoutes } from './contract/bunker.ts'
import { earningsRoutes } from './contract/earnings.ts'
import { jobsRoutes, purchasesRoutes } from './contract/jobs.ts'
import { managedRoutes } from './contract/managed.ts'
import { nodeRoutes } from './contract/node.ts'
import { nwcRoutes } from './contract/nwc.ts'
import { payoutRoutes } from './contract/payouts.ts'
import { purseRoutes } from './contract/purse.ts'
import { requestsRoutes } from './contract/requests.ts'
import { runtimesRoutes } from './contract/runtimes.ts'
import { walletRoutes } from './contract/wallet.ts'
import { zapsRoutes } from './contract/zaps.ts'
import type { Route } from './route.ts'

export const CONTRACT = {
  node: nodeRoutes,
  agents: agentsRoutes,
  jobs: jobsRoutes,
  purchases: purchasesRoutes,
  wallet: walletRoutes,
  approvals: approvalsRoutes,
  purse: purseRoutes,
  addresses: addressRoutes,
  alerts: alertsRoutes,
  audit: auditRoutes,
  nwc: nwcRoutes,
  bunker: bunkerRoutes,
  requests: requestsRoutes,
  zaps: zapsRoutes,
  payouts: payoutRoutes,
  earnings: earningsRoutes,
  runtimes: runtimesRoutes,
  managed: managedRoutes,
} as const satisfies Record<string, Record<string, Route>>
