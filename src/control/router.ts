/** Finds the route of a request: exact segments before params, 404 and 405 as errors. */
import { PylonError } from '../base/errors.ts'
import type { Handler, Route } from './route.ts'

export interface BoundRoute {
  readonly route: Route
  readonly handler: Handler<Route>
}

export interface Match extends BoundRoute {
  readonly params: Readonly<Record<string, string>>
}

export class Router {
  readonly #routes: { readonly bound: BoundRoute; readonly segments: readonly string[] }[]

  /** @throws internal when two routes share method and shape. */
  constructor(routes: readonly BoundRoute[]) {
    const shapes = new Set<string>()
    for (const { route } of routes) {
      const shape = `${route.method} ${route.path.replace(/:[a-z_]+/g, ':')}`
      if (shapes.has(shape)) throw new PylonError('internal', `The route ${shape} is defined twice.`)
      shapes.add(shape)
    }
    this.#routes = routes.map((bound) => ({ bound, segments: bound.route.path.split('/') }))
    // A literal segment is more telling than a param at the same place.
    this.#routes.sort((a, b) => specificity(b.segments).localeCompare(specificity(a.segments)))
  }

  /** @throws not_found, usage (405, with the methods that exist in details.allow), invalid_request. */
  match(method: string, pathname: string): Match {
    const segments = pathname.split('/')
    const fitting = this.#routes.filter((entry) => fits(entry.segments, segments))
    if (fitting.length === 0) throw new PylonError('not_found', `There is no route ${pathname}; docs/control-api.md lists them.`)
    const found = fitting.find((entry) => entry.bound.route.method === method)
    if (found === undefined) {
      const allow = fitting.map((entry) => entry.bound.route.method)
      throw new PylonError('method_not_allowed', `${pathname} takes ${allow.join(', ')}, not ${method}.`, { details: { allow } })
    }
    const params: Record<string, string> = {}
    found.segments.forEach((segment, i) => {
      if (segment.startsWith(':')) params[segment.slice(1)] = decodeSegment(segments[i] ?? '')
    })
    return { ...found.bound, params }
  }
}

function specificity(segments: readonly string[]): string {
  return segments.map((segment) => (segment.startsWith(':') ? '0' : '1')).join('')
}

function fits(pattern: readonly string[], segments: readonly string[]): boolean {
  return (
    pattern.length === segments.length && pattern.every((part, i) => part === segments[i] || (part.startsWith(':') && segments[i] !== ''))
  )
}

function decodeSegment(segment: string): string {
  try {
    return decodeURIComponent(segment)
  } catch {
    throw new PylonError('invalid_request', 'The path is not valid percent-encoding.')
  }
}
