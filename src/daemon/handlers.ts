/** Binds every route of the contract to its handler: all of them in a running node, the reading ones offline. */
import { CONTRACT } from '../control/contract.ts'
import type { Handler, Handlers, Route } from '../control/route.ts'
import type { ReadServices } from './services.ts'

/** Handlers by `METHOD /path`. */
export type HandlerTable = ReadonlyMap<string, Handler<Route>>

/** The routes marked `offline`. Each area adds `bind(CONTRACT.<area>, <area>ReadHandlers(services))`. */
export function readTable(_services: ReadServices): HandlerTable {
  return new Map([...bind(CONTRACT.node, {})])
}

/** The entries of one area; a partial table binds what it has. */
export function bind<T extends Record<string, Route>>(routes: T, handlers: Partial<Handlers<T>>): [string, Handler<Route>][] {
  return Object.entries(handlers).map(([name, handler]) => {
    const route = routes[name] as Route
    return [`${route.method} ${route.path}`, handler as Handler<Route>]
  })
}
