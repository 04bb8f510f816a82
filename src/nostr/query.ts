/** Looking at what relays have: once (`query`), or once and then live (`listen`). */
import type { Clock } from '../base/clock.ts'
import { PageCounter, readPages } from './backfill.ts'
import { admitEvent } from './ingest.ts'
import { LruMap } from './lru.ts'
import type { Hold, RelayPool } from './pool.ts'
import { relayUrls } from './relay-url.ts'
import { collect, LiveReq, whenConnected } from './req.ts'
import { signersFor } from './subscriptions.ts'
import type { Filter, Keyring, NostrEvent, Subscription } from './types.ts'
import type { Verifier } from './verify.ts'

const DEFAULT_TIMEOUT_MS = 10_000
const MAX_RELAYS = 20
const MAX_EVENTS = 50_000
/** Answers shorter than this were not cut by any relay known. */
const SUSPICIOUS_COUNT = 50

export interface QueryDeps {
  readonly clock: Clock
  readonly pool: RelayPool
  readonly verifier: Verifier
  readonly keyring: Keyring
  readonly ownRelays: readonly string[]
}

function holdAll(deps: QueryDeps, relays: readonly string[] | undefined): { holds: Hold[]; asked: number } {
  const urls = relayUrls(relays ?? deps.ownRelays, MAX_RELAYS)
  return { holds: urls.flatMap((url) => deps.pool.hold(url) ?? []), asked: urls.length }
}

export async function queryRelays(
  deps: QueryDeps,
  filters: readonly Filter[],
  options: { relays?: readonly string[]; timeoutMs?: number } = {},
): Promise<{ events: NostrEvent[]; complete: boolean }> {
  const { holds, asked } = holdAll(deps, options.relays)
  const events = new Map<string, NostrEvent>()
  const take = (hold: Hold) => (raw: unknown) => {
    if (events.size >= MAX_EVENTS) return
    const event = admitEvent(deps, raw, filters, (id) => events.has(id))
    if (typeof event === 'string') return
    hold.relay.lastEventAt = deps.clock.now()
    events.set(event.id, event)
  }
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS
  const ends = await Promise.all(holds.map((hold) => askOne(deps, hold, filters, timeoutMs, take(hold)).finally(() => hold.release())))
  return { events: [...events.values()], complete: asked > 0 && holds.length === asked && ends.every(Boolean) && events.size < MAX_EVENTS }
}

/** Whether the relay has sent all that it has. */
async function askOne(
  deps: QueryDeps,
  { relay }: Hold,
  filters: readonly Filter[],
  timeoutMs: number,
  onEvent: (raw: unknown) => void,
): Promise<boolean> {
  const { clock } = deps
  const until = clock.now() + timeoutMs
  if (!(await whenConnected(relay, clock, timeoutMs))) return false
  await Promise.all(signersFor(deps.keyring, filters).map((signer) => relay.auth(signer)))
  const ids = new Set<string>()
  const counters = filters.map((filter) => new PageCounter(filter))
  const end = await collect(relay, clock, filters, Math.max(1, until - clock.now()), (raw) => {
    for (const counter of counters) counter.add(raw, ids)
    onEvent(raw)
  })
  if (end.end !== 'eose') return false
  const total = counters.reduce((sum, counter) => sum + counter.count, 0)
  if (end.hint === 'finish' || (end.hint !== 'more' && total < (relay.limits.maxLimit ?? SUSPICIOUS_COUNT))) return true
  for (const [index, filter] of filters.entries()) {
    // A limit of the caller's own is what it wants, not what the relay cut.
    if (filter.limit !== undefined || filter.ids !== undefined) continue
    if (!(await readPages(relay, clock, filter, counters[index]?.oldest, ids, onEvent, until))) return false
  }
  return true
}

const LISTEN_REMEMBERED = 10_000

export async function listenRelays(
  deps: QueryDeps,
  spec: {
    filters: readonly Filter[]
    relays?: readonly string[]
    timeoutMs?: number
    onEvent(event: NostrEvent, relay: string): void
  },
): Promise<Subscription> {
  const { holds } = holdAll(deps, spec.relays)
  const seen = new LruMap<string, true>(LISTEN_REMEMBERED)
  const ready: Promise<void>[] = []
  const timeoutMs = spec.timeoutMs ?? DEFAULT_TIMEOUT_MS
  const requests = holds.map((hold) => {
    let onEose = () => {}
    const eose = new Promise<void>((resolve) => {
      onEose = resolve
    })
    // A relay that is down is heard when it comes back, and not waited for.
    ready.push(whenConnected(hold.relay, deps.clock, timeoutMs).then((up) => (up ? eose : undefined)))
    return new LiveReq({
      relay: hold.relay,
      clock: deps.clock,
      authSigners: () => signersFor(deps.keyring, spec.filters),
      filters: () => spec.filters,
      onEvent: (raw) => {
        const event = admitEvent(deps, raw, spec.filters, (id) => seen.has(id))
        if (typeof event === 'string') return
        hold.relay.lastEventAt = deps.clock.now()
        seen.set(event.id, true)
        spec.onEvent(event, hold.relay.url)
      },
      onEose: () => onEose(),
    })
  })
  const timeout = new AbortController()
  await Promise.race([Promise.all(ready), deps.clock.sleep(timeoutMs, timeout.signal).catch(() => {})])
  timeout.abort()
  return {
    close() {
      for (const request of requests) request.close()
      for (const hold of holds) hold.release()
    },
  }
}
