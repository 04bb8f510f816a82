/** Looking at what relays have once and then live, for as long as somebody waits for answers. */
import { LruMap } from '../../base/lru.ts'
import type { Scope } from '../../base/scope.ts'
import { whenConnected } from '../relay/collect.ts'
import { LiveReq } from '../relay/live-req.ts'
import type { Hold } from '../relay/pool.ts'
import type { Relay } from '../relay/relay.ts'
import type { Filter, NostrEvent, Subscription } from '../types.ts'
import { admitEvent, shapeOf } from './ingest.ts'
import { DEFAULT_TIMEOUT_MS, holdAll, type QueryDeps } from './query.ts'
import { ownerOf } from './subscriptions.ts'

const REMEMBERED = 10_000

export interface ListenSpec {
  readonly filters: readonly Filter[]
  readonly relays?: readonly string[]
  readonly timeoutMs?: number
  onEvent(event: NostrEvent, relay: string): void
}

/** Resolves once every relay that can be reached has answered, or the time is over. @throws shutting_down */
export async function listenRelays(deps: QueryDeps, spec: ListenSpec): Promise<Subscription> {
  const scope = deps.scope.child('listen')
  const { holds } = holdAll(deps, spec.relays)
  const seen = new LruMap<string, true>(REMEMBERED)
  const onEvent = (relay: Relay, raw: unknown) => {
    const event = shapeOf(raw)
    const ingest = { clock: scope.clock, verifier: deps.verifier }
    if (event === undefined || typeof admitEvent(ingest, event, spec.filters, (id) => seen.has(id)) === 'string') return
    relay.lastEventAt = scope.clock.now()
    seen.set(event.id, true)
    spec.onEvent(event, relay.url)
  }
  const listeners = holds.map((hold) => new Listener(hold, { ...deps, scope: scope.child(hold.relay.url), filters: spec.filters, onEvent }))
  const endsAt = scope.clock.now() + (spec.timeoutMs ?? DEFAULT_TIMEOUT_MS)
  await Promise.all(listeners.map((listener) => listener.ready(endsAt)))
  return { close: () => scope.end() }
}

interface ListenerDeps extends QueryDeps {
  readonly scope: Scope
  readonly filters: readonly Filter[]
  onEvent(relay: Relay, raw: unknown): void
}

/** One relay, over the connection that all share or, where that is refused, as the key that the filters are about. */
class Listener {
  readonly #deps: ListenerDeps
  readonly #relay: Relay
  #hold: Hold
  #req: LiveReq
  #hasAnswered = false
  #onAnswer = () => {}

  constructor(hold: Hold, deps: ListenerDeps) {
    this.#deps = deps
    this.#relay = hold.relay
    this.#hold = hold
    this.#req = this.#open(hold, () => this.#goAsOwner())
    deps.scope.atEnd('release', () => this.#hold.release())
  }

  /** A relay that is down is heard when it comes back, and not waited for. */
  async ready(endsAt: number): Promise<void> {
    const { scope } = this.#deps
    const leftMs = () => Math.max(1, endsAt - scope.clock.now())
    if (!(await whenConnected(scope, this.#relay, leftMs())) || this.#hasAnswered) return
    await scope.hear<void>(leftMs(), (tell) => {
      this.#onAnswer = tell
      return () => {}
    })
  }

  #open({ relay }: Hold, onDenied: () => void): LiveReq {
    const { scope, filters, onEvent } = this.#deps
    return new LiveReq({
      scope: scope.child('request'),
      relay,
      filters: () => filters,
      onEvent: (raw) => onEvent(relay, raw),
      onEose: () => {
        this.#hasAnswered = true
        this.#onAnswer()
      },
      onDenied,
    })
  }

  #goAsOwner(): void {
    const { pool, keyring, filters } = this.#deps
    const owner = ownerOf(keyring, filters)
    if (owner === undefined || owner === this.#relay.identity?.pubkey) return
    const own = pool.hold(this.#relay.url, owner)
    if (own === undefined) return
    this.#req.close()
    this.#hold.release()
    this.#hold = own
    this.#req = this.#open(own, () => {})
  }
}
