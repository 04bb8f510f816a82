/** The door of one runtime: a socket, whoever is connected to it now, and what of the relays is followed for it. */
import type { Scope } from '../../base/scope.ts'
import { UnixWebSocketServer } from '../../base/unix-websocket-server.ts'
import { GROUP_EVENT_KIND, KEY_PACKAGE_KINDS, KEY_PACKAGE_RELAYS_KIND } from '../../nostr/nips/marmot-kinds.ts'
import type { Filter, Nostr, NostrEvent, Subscription } from '../../nostr/types.ts'
import { DoorConnection, type DoorConnectionDeps, MAX_SUBSCRIPTIONS } from './door-connection.ts'
import { MAX_EVENT_BYTES, MAX_FILTERS, MAX_LIMIT } from './door-rules.ts'

const MAX_FRAME_BYTES = MAX_EVENT_BYTES + 16 * 1024
/** Groups that one runtime hears of, ever. */
const MAX_GROUPS = 64
const QUERY_MS = 5000
/** Gift wraps are dated up to two days back. */
const WRAP_OVERLAP_S = 259_200
/** What is stored is asked for by itself: this only bridges the moment. */
const BRIDGE_S = 60
/** As a relay tells of itself (NIP-11). */
const DOCUMENT = JSON.stringify({
  name: 'the door of a runtime',
  supported_nips: [1, 11, 42],
  limitation: {
    auth_required: true,
    restricted_writes: true,
    max_message_length: MAX_FRAME_BYTES,
    max_subscriptions: MAX_SUBSCRIPTIONS,
    max_filters: MAX_FILTERS,
    max_limit: MAX_LIMIT,
  },
})

/** How the subscriptions of a door are called; parts of it may follow. */
export const doorSubscription = (runtimeId: string): string => `door:${runtimeId}`

export interface RelayDoorDeps extends Pick<DoorConnectionDeps, 'meter' | 'verifier' | 'owner' | 'bind' | 'publish'> {
  /** Of this door alone. */
  readonly scope: Scope
  /** Of its runtime. */
  readonly id: string
  readonly relays: readonly string[]
  readonly socketPath: string
  readonly nostr: Pick<Nostr, 'query' | 'subscribe'>
}

export class RelayDoor {
  readonly #deps: RelayDoorDeps
  readonly #server: UnixWebSocketServer
  #current: DoorConnection | undefined
  /** It only grows, so that nobody makes this node ask its relays again and again. */
  readonly #groups = new Set<string>()
  /** What concerns the key of the runtime, and its groups. */
  #ofKey: readonly Subscription[] | undefined
  #ofGroups: Subscription | undefined

  constructor(deps: RelayDoorDeps) {
    this.#deps = deps
    this.#server = new UnixWebSocketServer(deps.socketPath, {
      maxPayloadBytes: MAX_FRAME_BYTES,
      document: { type: 'application/nostr+json', body: DOCUMENT },
      onConnection: (socket) => {
        if (deps.scope.isClosing) return socket.terminate()
        this.#current?.end()
        this.#current = new DoorConnection(socket, {
          ...deps,
          scope: deps.scope.child('connection'),
          follow: (own, filters) => this.#follow(own, filters),
          query: (filters) => this.#query(filters),
        })
      },
    })
    deps.scope.atEnd('server', () => this.#server.close())
    deps.scope.atEnd('subscriptions', () => {
      for (const subscription of [...(this.#ofKey ?? []), this.#ofGroups]) subscription?.close()
    })
  }

  get relays(): readonly string[] {
    return this.#deps.relays
  }

  get socketPath(): string {
    return this.#deps.socketPath
  }

  /** @throws Error as the system says it */
  async open(): Promise<void> {
    await this.#server.listen()
  }

  async close(): Promise<void> {
    await this.#deps.scope.close()
  }

  async #query(filters: readonly Filter[]): Promise<readonly NostrEvent[]> {
    const { nostr, relays } = this.#deps
    return (await nostr.query(filters, { relays, timeoutMs: QUERY_MS })).events
  }

  #follow(own: string, filters: readonly Filter[]): string | undefined {
    const { owner } = this.#deps
    this.#ofKey ??= [
      this.#subscribe(':w', [{ kinds: [1059], '#p': [own] }], WRAP_OVERLAP_S),
      this.#subscribe(':k', [{ kinds: [...KEY_PACKAGE_KINDS, KEY_PACKAGE_RELAYS_KIND], authors: [own, owner] }]),
    ]
    const fresh = filters.flatMap((filter) => filter['#h'] ?? []).filter((group) => !this.#groups.has(group))
    if (fresh.length === 0) return undefined
    if (this.#groups.size + new Set(fresh).size > MAX_GROUPS) return `restricted: a runtime hears of ${MAX_GROUPS} groups`
    for (const group of fresh) this.#groups.add(group)
    this.#ofGroups?.close()
    this.#ofGroups = this.#subscribe('', [{ kinds: [GROUP_EVENT_KIND], '#h': [...this.#groups] }])
    return undefined
  }

  #subscribe(part: string, filters: readonly Filter[], overlapS?: number): Subscription {
    const { nostr, id, relays } = this.#deps
    return nostr.subscribe({
      name: `${doorSubscription(id)}${part}`,
      filters,
      relays,
      backfillS: overlapS ?? BRIDGE_S,
      ...(overlapS === undefined ? {} : { overlapS }),
      onEvent: async (event) => this.#current?.hear(event),
    })
  }
}
