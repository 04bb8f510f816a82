/** Every route of the control socket, by area: the one list that server, client and docs are made from. */
import { nodeRoutes } from './contract/node.ts'
import type { Route } from './route.ts'

export const CONTRACT = {
  node: nodeRoutes,
} as const satisfies Record<string, Record<string, Route>>
