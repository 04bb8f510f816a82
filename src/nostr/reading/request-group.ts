/** Subscriptions that share few requests on one connection; a request that fails fails alone. */
import type { Scope } from '../../base/scope.ts'
import type { Relay } from '../relay/relay.ts'
import type { RelaySubscription } from './relay-subscription.ts'
import { SharedRequest } from './shared-request.ts'
import { halveFilter, type PlanRules, planRequests, shapeOfFilter, type WireFilter } from './wire-plan.ts'

/** Filters of one request, where the relay states nothing. */
const UNSTATED_FILTERS = 10
const UNSTATED_CHARS = 60_000

interface RequestGroupDeps {
  /** Of this group alone. */
  readonly scope: Scope
  readonly relay: Relay
  maxRequests(): number
  onDenied(subscriptions: ReadonlySet<RelaySubscription>): void
}

export class RequestGroup {
  readonly subscriptions = new Set<RelaySubscription>()
  readonly #deps: RequestGroupDeps
  #requests: SharedRequest[] = []
  /** Replaced by the requests above, and heard until those are. */
  #retiring: SharedRequest[] = []
  /** What relays have refused by itself. */
  readonly #apart = new Set<string>()
  #isDirty = false

  constructor(deps: RequestGroupDeps) {
    this.#deps = deps
  }

  /** Asks again for everything. */
  reopen(): void {
    for (const request of this.#requests) request.reopen()
  }

  /** With all that has changed until then, and not before the last change is through. */
  replanSoon(): void {
    this.#isDirty = true
    if (this.#retiring.length > 0) return
    this.#deps.scope.gather('plan', 0, () => {
      if (this.#isDirty) this.replan()
    })
  }

  close(): void {
    this.#deps.scope.end()
    for (const request of [...this.#requests, ...this.#retiring]) request.close()
    this.#requests = []
    this.#retiring = []
  }

  #rules(): PlanRules {
    const { limits } = this.#deps.relay
    return {
      maxFilters: limits.maxFilters ?? UNSTATED_FILTERS,
      maxChars: limits.maxMessageLength ?? UNSTATED_CHARS,
      maxRequests: this.#deps.maxRequests(),
      apart: this.#apart,
    }
  }

  replan(): void {
    // What the relay takes is not known before it is up.
    if (!this.#deps.relay.connected) return
    this.#isDirty = false
    const wanted = [...this.subscriptions].flatMap((subscription) => subscription.filters.map((filter) => ({ filter, by: subscription })))
    const plan = planRequests(wanted, this.#rules())
    const old = new Set(this.#requests)
    const kept: SharedRequest[] = []
    const added: (readonly WireFilter<RelaySubscription>[])[] = []
    for (const parts of plan) {
      const same = [...old].find((request) => request.carries(parts))
      if (same === undefined) added.push(parts)
      else {
        old.delete(same)
        kept.push(same)
      }
    }
    this.#replace([...old], kept, added)
  }

  #replace(
    old: readonly SharedRequest[],
    kept: readonly SharedRequest[],
    added: readonly (readonly WireFilter<RelaySubscription>[])[],
    isSuspect = false,
  ): void {
    const { scope, relay } = this.#deps
    const { slots } = relay
    // Where there is no room for both, the old ones make it.
    const isTight = added.length === 0 || slots.open + added.length > slots.maxLive
    if (isTight) for (const request of old) request.close()
    else this.#retiring.push(...old)
    const subscriptions = this.subscriptions
    const isPrivate = [...subscriptions].some((subscription) => subscription.isPrivate)
    this.#requests = [
      ...kept,
      ...added.map(
        (parts) =>
          new SharedRequest({
            scope: scope.child('request'),
            relay,
            parts,
            isPrivate,
            isSuspect,
            onSettled: () => this.#retire(),
            onDenied: (request) => this.#deps.onDenied(request.subscriptions),
            onFailed: (request) => this.#onFailed(request),
          }),
      ),
    ]
  }

  #retire(): void {
    if (this.#retiring.length === 0 || !this.#requests.every((request) => request.isSettled)) return
    for (const request of this.#retiring.splice(0)) request.close()
    if (this.#isDirty) this.replanSoon()
  }

  /** Which of its filters is it? Each half is tried by itself, and what is left in the end stays apart. */
  #onFailed(request: SharedRequest): void {
    if (!this.#requests.includes(request)) return
    const { slots } = this.#deps.relay
    const { parts } = request
    const [only] = parts
    if (parts.length === 1 && only !== undefined) this.#apart.add(shapeOfFilter(only.filter))
    const halves = parts.length > 1 ? halvesOf(parts) : (only === undefined ? undefined : halveFilter(only))?.map((part) => [part])
    if (halves === undefined || slots.open + halves.length > slots.maxLive) return
    const kept = this.#requests.filter((other) => other !== request)
    request.close()
    this.#replace([], kept, halves, true)
  }
}

function halvesOf<T>(parts: readonly T[]): T[][] {
  const middle = Math.ceil(parts.length / 2)
  return [parts.slice(0, middle), parts.slice(middle)]
}
