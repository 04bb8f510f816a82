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

export async function queryRelays(
  deps: QueryDeps,
  filters: readonly Filter[],
  options: { relays?: readonly string[]; timeoutMs?: number } = {},
): Promise<QueryAnswer> {
  const { holds, asked } = holdAll(deps, options.relays)
  const { clock } = deps.scope
  const ingest = { clock, verifier: deps.verifier }
  const events = new Map<string, NostrEvent>()
  const take = (relay: Relay) => (event: NostrEvent) => {
    if (events.size >= MAX_EVENTS) return
    if (typeof admitEvent(ingest, event, filters, (id) => events.has(id)) === 'string') return
    relay.lastEventAt = clock.now()
    events.set(event.id, event)
  }
  const endsAt = clock.now() + (options.timeoutMs ?? DEFAULT_TIMEOUT_MS)
  const ends = await Promise.all(
    holds.map((hold) => askAsNeeded(deps, hold.relay, filters, endsAt, take(hold.relay)).finally(() => hold.release())),
  )
  const answered = holds.filter((_, index) => ends[index] === true).map(({ relay }) => relay.url)
  return { events: [...events.values()], complete: asked > 0 && answered.length === asked && events.size < MAX_EVENTS, answered }
}

/** As nobody first; where the relay refuses that, as the key that the filters are about. Whether it has sent all that it has. */
async function askAsNeeded(
  deps: QueryDeps,
  relay: Relay,
  filters: readonly Filter[],
  endsAt: number,
  onEvent: (event: NostrEvent) => void,
): Promise<boolean> {
  const answer = await askOne(deps, relay, filters, endsAt, onEvent)
  if (answer !== 'denied') return answer === 'all'
  const { identity } = relay
  if (identity !== undefined && (await relay.auth(identity))) {
    const again = await askOne(deps, relay, filters, endsAt, onEvent)
    if (again !== 'denied') return again === 'all'
  }
  const owner = ownerOf(deps.keyring, filters)
  if (owner === undefined || owner === identity?.pubkey) return false
  const hold = deps.pool.hold(relay.url, owner)
  if (hold === undefined) return false
  const asOwner = () => askOne(deps, hold.relay, filters, endsAt, onEvent)
  try {
    const as = await asOwner()
    // The relay may ask who we are only now.
    if (as === 'denied' && hold.relay.identity !== undefined && (await hold.relay.auth(hold.relay.identity)))
      return (await asOwner()) === 'all'
    return as === 'all'
  } finally {
    hold.release()
  }
}

async function askOne(
  deps: QueryDeps,
  relay: Relay,
  filters: readonly Filter[],
  endsAt: number,
  onEvent: (event: NostrEvent) => void,
): Promise<'all' | 'some' | 'denied'> {
  const { scope } = deps
  const { clock } = scope
  if (!(await whenConnected(scope, relay, Math.max(1, endsAt - clock.now())))) return 'some'
  // An answer to a request without a limit may be any part of what the relay has.
  const asked = filters.map((filter) => (filter.ids === undefined ? { limit: pageSizeOf(relay), ...filter } : filter))
  const answers = asked.map((filter) => new Reading(filter))
  const end = await collect(scope, relay, asked, Math.max(1, endsAt - clock.now()), (raw) => {
    const event = shapeOf(raw)
    if (event === undefined) return
    for (const answer of answers) answer.add(event)
    onEvent(event)
  })
  if (end.end === 'closed' && isDenied(end.message)) return 'denied'
  if (end.end !== 'eose') return 'some'
  if (end.hint === 'finish' || (end.hint !== 'more' && answers.every((answer) => answer.ids.size === 0))) return 'all'
  for (const [index, { limit: enough = Number.POSITIVE_INFINITY, ...filter }] of filters.entries()) {
    if (filter.ids !== undefined || enough <= SHORT_LIMIT) continue
    const read = answers[index] ?? new Reading(filter)
    if (!(await readPages({ scope, relay, filter, read, onEvent, endsAt, enough }))) return 'some'
  }
  return 'all'
}
