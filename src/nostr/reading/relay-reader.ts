/** All that is read live from one relay: the connection that all share, and one more for each key that the relay wants to see by itself. */
import type { Scope } from '../../base/scope.ts'
import type { Hold, RelayPool } from '../relay/pool.ts'
import type { Keyring } from '../types.ts'
import type { RelaySubscription } from './relay-subscription.ts'
import { SharedRequests } from './shared-requests.ts'

export interface RelayReaderDeps {
  /** Of this reader alone. */
  readonly scope: Scope
  readonly pool: RelayPool
  readonly keyring: Keyring
}

interface Place {
  readonly hold: Hold
  readonly requests: SharedRequests
}

export class RelayReader {
  readonly url: string
  readonly #deps: RelayReaderDeps
  readonly #shared: Place
  readonly #keyed = new Map<string, Place>()
  readonly #subscriptions = new Map<RelaySubscription, Place>()
  /** Keys, by group, that the shared connection does not serve. */
  readonly #apart = new Set<string>()
  readonly #unlisten: () => void

  /** @param hold of the shared connection; released with the reader */
  constructor(hold: Hold, deps: RelayReaderDeps) {
    this.url = hold.relay.url
    this.#deps = deps
    this.#shared = { hold, requests: this.#requests(hold, (subscriptions) => this.#onDenied(subscriptions)) }
    this.#unlisten = hold.relay.listen({
      onChallenge: () => {
        for (const subscription of this.#subscriptions.keys()) this.#place(subscription)
      },
    })
  }

  get isEmpty(): boolean {
    return this.#subscriptions.size === 0
  }

  add(subscription: RelaySubscription): void {
    this.#place(subscription)
  }

  remove(subscription: RelaySubscription): void {
    const place = this.#subscriptions.get(subscription)
    this.#subscriptions.delete(subscription)
    place?.requests.remove(subscription)
    this.#tidy()
  }

  /** Asks again for everything. */
  reopen(): void {
    for (const place of [this.#shared, ...this.#keyed.values()]) place.requests.reopen()
  }

  close(): void {
    this.#deps.scope.end()
    this.#unlisten()
    for (const { requests, hold } of [this.#shared, ...this.#keyed.values()]) {
      requests.close()
      hold.release()
    }
    this.#keyed.clear()
    this.#subscriptions.clear()
  }

  #requests(hold: Hold, onDenied: (subscriptions: ReadonlySet<RelaySubscription>) => void): SharedRequests {
    return new SharedRequests({ scope: this.#deps.scope, relay: hold.relay, onDenied })
  }

  /** Puts a subscription where it belongs by what is known of the relay. */
  #place(subscription: RelaySubscription): void {
    const now = this.#subscriptions.get(subscription)
    const to = (this.#needsOwn(subscription) ? this.#own(subscription.owner ?? '') : undefined) ?? this.#shared
    if (now === to) return
    now?.requests.remove(subscription)
    this.#subscriptions.set(subscription, to)
    to.requests.add(subscription)
  }

  /**
   * Whether the subscription needs a connection that is made as its key. A relay that asks who we are may serve private events to that key
   * alone, and may know only one key a connection, both without a word: what is not served cannot be seen.
   */
  #needsOwn(subscription: RelaySubscription): boolean {
    const { relay } = this.#shared.hold
    if (subscription.owner === undefined || subscription.owner === relay.identity?.pubkey) return false
    return this.#apart.has(`${subscription.owner} ${subscription.group}`) || (subscription.isPrivate && relay.challenged)
  }

  #own(pubkey: string): Place | undefined {
    const known = this.#keyed.get(pubkey)
    if (known !== undefined) return known
    const hold = this.#deps.pool.hold(this.url, pubkey)
    if (hold === undefined) return undefined
    const place = { hold, requests: this.#requests(hold, () => {}) }
    this.#keyed.set(pubkey, place)
    return place
  }

  /** The shared connection is not good enough for these: shown their key, if it is one, and else each on its own. */
  #onDenied(subscriptions: ReadonlySet<RelaySubscription>): void {
    const { relay } = this.#shared.hold
    const apart = [...subscriptions].filter(
      (subscription) => subscription.owner !== undefined && subscription.owner !== relay.identity?.pubkey,
    )
    const [owner, ...others] = new Set(apart.map((subscription) => subscription.owner ?? ''))
    const { keyring } = this.#deps
    if (owner === undefined || keyring.locked) return
    const move = () => {
      for (const subscription of apart) {
        this.#apart.add(`${subscription.owner} ${subscription.group}`)
        if (this.#subscriptions.has(subscription)) this.#place(subscription)
      }
    }
    if (others.length > 0 || !relay.challenged || relay.isProven(owner)) move()
    else
      this.#deps.scope.spawn('auth', async () => {
        if ((await relay.auth(keyring.signer(owner))) !== true) move()
      })
  }

  #tidy(): void {
    for (const [pubkey, place] of this.#keyed) {
      if (place.requests.size > 0) continue
      this.#keyed.delete(pubkey)
      place.requests.close()
      place.hold.release()
    }
  }
}
