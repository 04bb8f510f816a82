/** Looking once at what relays have now. */
import type { Scope } from '../../base/scope.ts'
import { collect, isDenied, whenConnected } from '../relay/collect.ts'
import type { Hold, RelayPool } from '../relay/pool.ts'
import type { Relay } from '../relay/relay.ts'
import { relayUrls } from '../relay/relay-url.ts'
import type { Filter, Keyring, NostrEvent } from '../types.ts'
import { pageSizeOf, Reading, readPages } from './backfill.ts'
import { admitEvent, shapeOf } from './ingest.ts'
import { ownerOf } from './subscriptions.ts'
import type { Verifier } from './verify.ts'

export const DEFAULT_TIMEOUT_MS = 10_000
const MAX_RELAYS = 20
const MAX_EVENTS = 50_000
/** Who asks for so few takes what comes; a longer list is read on until it is whole. */
const SHORT_LIMIT = 64

export interface QueryAnswer {
  readonly events: NostrEvent[]
  /** Only when every asked relay sent a real EOSE. */
  readonly complete: boolean
  /** The relays that did (normal URLs). */
  readonly answered: readonly string[]
}

export interface QueryDeps {
  readonly scope: Scope
  readonly pool: RelayPool
  readonly verifier: Verifier
  readonly keyring: Keyring
  readonly ownRelays: readonly string[]
}

/** The relays that are asked, as far as there is room for them. */
export function holdAll(deps: QueryDeps, relays: readonly string[] | undefined): { holds: Hold[]; asked: number } {
  const urls = relayUrls(relays ?? deps.ownRelays, MAX_RELAYS)
  return { holds: urls.flatMap((url) => deps.pool.hold(url) ?? []), asked: urls.length }
}

/** @throws shutting_down */
export function queryRelays(
  deps: QueryDeps,
  filters: readonly Filter[],
  { relays, timeoutMs = DEFAULT_TIMEOUT_MS }: { relays?: readonly string[]; timeoutMs?: number } = {},
): Promise<QueryAnswer> {
  return deps.scope.run('query', () => new Query(deps, filters, timeoutMs).run(relays))
}

/** One question to several relays at once. */
class Query {
  readonly #deps: QueryDeps
  readonly #filters: readonly Filter[]
  readonly #endsAt: number
  readonly #events = new Map<string, NostrEvent>()

  constructor(deps: QueryDeps, filters: readonly Filter[], timeoutMs: number) {
    this.#deps = deps
    this.#filters = filters
    this.#endsAt = deps.scope.clock.now() + timeoutMs
  }

  async run(relays: readonly string[] | undefined): Promise<QueryAnswer> {
    const { holds, asked } = holdAll(this.#deps, relays)
    const ends = await Promise.all(holds.map((hold) => this.#askAsNeeded(hold.relay).finally(() => hold.release())))
    const answered = holds.filter((_, index) => ends[index] === true).map(({ relay }) => relay.url)
    const events = [...this.#events.values()]
    return { events, complete: asked > 0 && answered.length === asked && events.length < MAX_EVENTS, answered }
  }

  get #leftMs(): number {
    return Math.max(1, this.#endsAt - this.#deps.scope.clock.now())
  }

  #take(relay: Relay, event: NostrEvent): void {
    if (this.#events.size >= MAX_EVENTS) return
    const { scope, verifier } = this.#deps
    if (typeof admitEvent({ clock: scope.clock, verifier }, event, this.#filters, (id) => this.#events.has(id)) === 'string') return
    relay.lastEventAt = scope.clock.now()
    this.#events.set(event.id, event)
  }

  /** As nobody first; where the relay refuses that, as the key that the filters are about. Whether it has sent all that it has. */
  async #askAsNeeded(relay: Relay): Promise<boolean> {
    const answer = await this.#ask(relay)
    if (answer !== 'denied') return answer === 'all'
    const { identity } = relay
    if (identity !== undefined && (await relay.auth(identity))) {
      const again = await this.#ask(relay)
      if (again !== 'denied') return again === 'all'
    }
    const owner = ownerOf(this.#deps.keyring, this.#filters)
    const hold = owner === undefined || owner === identity?.pubkey ? undefined : this.#deps.pool.hold(relay.url, owner)
    if (hold === undefined) return false
    try {
      const as = await this.#ask(hold.relay)
      // The relay may ask who we are only now.
      if (as !== 'denied' || hold.relay.identity === undefined || !(await hold.relay.auth(hold.relay.identity))) return as === 'all'
      return (await this.#ask(hold.relay)) === 'all'
    } finally {
      hold.release()
    }
  }

  async #ask(relay: Relay): Promise<'all' | 'some' | 'denied'> {
    const { scope } = this.#deps
    if (!(await whenConnected(scope, relay, this.#leftMs))) return 'some'
    // An answer to a request without a limit may be any part of what the relay has.
    const asked = this.#filters.map((filter) => (filter.ids === undefined ? { limit: pageSizeOf(relay), ...filter } : filter))
    const answers = asked.map((filter) => new Reading(filter))
    const end = await collect(scope, relay, asked, this.#leftMs, (raw) => {
      const event = shapeOf(raw)
      if (event === undefined) return
      for (const answer of answers) answer.add(event)
      this.#take(relay, event)
    })
    if (end.end === 'closed' && isDenied(end.message)) return 'denied'
    if (end.end !== 'eose') return 'some'
    if (end.hint === 'finish' || (end.hint !== 'more' && answers.every((answer) => answer.ids.size === 0))) return 'all'
    const onEvent = (event: NostrEvent) => this.#take(relay, event)
    for (const [index, { limit: enough = Number.POSITIVE_INFINITY, ...filter }] of this.#filters.entries()) {
      if (filter.ids !== undefined || enough <= SHORT_LIMIT) continue
      const read = answers[index] ?? new Reading(filter)
      if (!(await readPages({ scope, relay, filter, read, onEvent, endsAt: this.#endsAt, enough }))) return 'some'
    }
    return 'all'
  }
}
