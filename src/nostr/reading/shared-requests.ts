/** All that is asked live on one connection, by groups that share it. */
import type { Scope } from '../../base/scope.ts'
import type { Relay } from '../relay/relay.ts'
import type { RelaySubscription } from './relay-subscription.ts'
import { RequestGroup } from './request-group.ts'

/** Live requests beside these: the canary, and answers that somebody waits for. */
const OTHER_LIVE = 3

interface SharedRequestsDeps {
  readonly scope: Scope
  readonly relay: Relay
  onDenied(subscriptions: ReadonlySet<RelaySubscription>): void
}

export class SharedRequests {
  readonly #deps: SharedRequestsDeps
  readonly #groups = new Map<string, RequestGroup>()
  readonly #unlisten: () => void

  constructor(deps: SharedRequestsDeps) {
    this.#deps = deps
    this.#unlisten = deps.relay.listen({
      // Before the requests themselves open, as the relay may take other ones than before.
      onUp: () => {
        for (const group of this.#groups.values()) group.replan()
      },
      onLimits: () => {
        for (const group of this.#groups.values()) group.replanSoon()
      },
    })
  }

  get size(): number {
    let size = 0
    for (const group of this.#groups.values()) size += group.subscriptions.size
    return size
  }

  add(subscription: RelaySubscription): void {
    const group = this.#groups.get(subscription.group) ?? this.#makeGroup(subscription.group)
    subscription.attach(this.#deps.relay)
    group.subscriptions.add(subscription)
    group.replanSoon()
  }

  remove(subscription: RelaySubscription): void {
    const group = this.#groups.get(subscription.group)
    if (group?.subscriptions.delete(subscription) !== true) return
    if (group.subscriptions.size > 0) {
      group.replanSoon()
      return
    }
    group.close()
    this.#groups.delete(subscription.group)
  }

  reopen(): void {
    for (const group of this.#groups.values()) group.reopen()
  }

  close(): void {
    this.#unlisten()
    for (const group of this.#groups.values()) group.close()
    this.#groups.clear()
  }

  #makeGroup(name: string): RequestGroup {
    const { scope, relay, onDenied } = this.#deps
    const group = new RequestGroup({ scope: scope.child(name), relay, onDenied, maxRequests: () => this.#requestsEach() })
    this.#groups.set(name, group)
    return group
  }

  /** How many requests each group may have. */
  #requestsEach(): number {
    return Math.max(1, Math.floor((this.#deps.relay.slots.maxLive - OTHER_LIVE) / Math.max(1, this.#groups.size)))
  }
}
