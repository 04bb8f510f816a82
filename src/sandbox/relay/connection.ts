/** One client of the relay: its messages in (NIP-01, 42, 45), its answers out. */
import { parseJson } from '../../base/json.ts'
import { randomHex } from '../../base/random.ts'
import { type NostrEvent, parseEvent, tagValue, verifyEvent } from '../nostr-event.ts'
import { type Filter, parseFilter } from './filter.ts'
import { RELAY_LIMITS } from './limits.ts'
import type { Relay } from './relay.ts'
import type { Subscription } from './subscriptions.ts'

/** The client's end: what it hears, and how it is let go. */
export interface Peer {
  send(text: string): void
  cut(): void
}

const AUTH_WINDOW_SECONDS = 600
const PRIVATE_KINDS = [4, 1059]

export class Connection {
  readonly authenticated = new Set<string>()
  readonly #challenge: string
  readonly #peer: Peer
  readonly #relay: Relay
  readonly #subscriptions = new Map<string, Subscription<Connection>>()

  constructor(peer: Peer, relay: Relay) {
    this.#peer = peer
    this.#relay = relay
    this.#challenge = randomHex(relay.random, 16)
    this.send(['AUTH', this.#challenge])
  }

  send(message: readonly unknown[]) {
    this.#peer.send(JSON.stringify(message))
  }

  sendText(text: string) {
    this.#peer.send(text)
  }

  cut() {
    this.#peer.cut()
  }

  /** Forgets every subscription; with a reason the client is told by CLOSED. */
  closeSubscriptions(reason?: string) {
    for (const subscription of this.#subscriptions.values()) {
      this.#relay.unsubscribe(subscription)
      if (reason !== undefined) this.send(['CLOSED', subscription.id, reason])
    }
    this.#subscriptions.clear()
  }

  /** Whether this client may see the event: with `authForDms` only its author and addressees see a private one. */
  maySee(event: Pick<NostrEvent, 'kind' | 'pubkey' | 'tags'>): boolean {
    if (!this.#relay.authForDms || !PRIVATE_KINDS.includes(event.kind)) return true
    return this.authenticated.has(event.pubkey) || event.tags.some((tag) => tag[0] === 'p' && this.authenticated.has(tag[1] ?? ''))
  }

  /** @param text a message of the client, undefined for one that is not text */
  receive(text: string | undefined) {
    const message = text === undefined ? undefined : parseJson(text)
    if (!Array.isArray(message) || typeof message[0] !== 'string') return this.send(['NOTICE', 'invalid: not a Nostr message'])
    const [type, ...rest] = message as [string, ...unknown[]]
    if (type === 'EVENT') return this.#onEvent(rest[0])
    if (type === 'REQ') return this.#onReq(rest[0], rest.slice(1))
    if (type === 'CLOSE') return this.#onClose(rest[0])
    if (type === 'COUNT') return this.#onCount(rest[0], rest.slice(1))
    if (type === 'AUTH') return this.#onAuth(rest[0])
    this.send(['NOTICE', `invalid: unknown message type ${type.slice(0, 32)}`])
  }

  #onEvent(value: unknown) {
    const event = parseEvent(value)
    if (typeof event === 'string') return this.#refuse(value, `invalid: ${event}`)
    const fault = this.#faultOf(event)
    if (fault !== undefined) return this.send(['OK', event.id, false, fault])
    this.#relay.publish(event, this)
  }

  /** OK false where there is an id to answer, else NOTICE. */
  #refuse(value: unknown, reason: string) {
    const id = typeof value === 'object' && value !== null ? (value as { id?: unknown }).id : undefined
    if (typeof id === 'string') this.send(['OK', id.slice(0, 64), false, reason])
    else this.send(['NOTICE', reason])
  }

  #faultOf(event: NostrEvent): string | undefined {
    const now = this.#relay.nowSeconds()
    if (event.tags.length > RELAY_LIMITS.maxTags) return `invalid: more than ${RELAY_LIMITS.maxTags} tags`
    if (event.created_at > now + RELAY_LIMITS.maxFutureSeconds) return 'invalid: created_at is too far in the future'
    if (event.kind === 22_242) return 'invalid: send kind 22242 by AUTH'
    const expiration = tagValue(event, 'expiration')
    if (expiration !== undefined && Number(expiration) <= now) return 'invalid: the event has expired'
    const fault = verifyEvent(event)
    if (fault !== undefined) return `invalid: ${fault}`
    if (event.tags.some((tag) => tag[0] === '-') && !this.authenticated.has(event.pubkey)) {
      return 'auth-required: a protected event is taken from its author only'
    }
    return undefined
  }

  #onReq(id: unknown, values: unknown[]) {
    if (!isSubscriptionId(id)) return this.send(['NOTICE', 'invalid: a subscription id is a string of 1 to 64 characters'])
    this.#forget(id)
    const filters = parseFilters(values)
    if (typeof filters === 'string') return this.send(['CLOSED', id, filters])
    if (this.#subscriptions.size >= RELAY_LIMITS.maxSubscriptions) {
      return this.send(['CLOSED', id, `rate-limited: at most ${RELAY_LIMITS.maxSubscriptions} subscriptions`])
    }
    if (this.#needsAuth(filters)) return this.send(['CLOSED', id, 'auth-required: private messages are served to their owners only'])
    this.#sendStored(id, filters)
    this.send(['EOSE', id])
    const subscription = { id, owner: this, filters }
    this.#subscriptions.set(id, subscription)
    this.#relay.subscribe(subscription)
  }

  #sendStored(id: string, filters: readonly Filter[]) {
    const seen = new Set<string>()
    const head = `["EVENT",${JSON.stringify(id)},`
    for (const rows of this.#relay.stored(filters)) {
      for (const row of rows) {
        if (seen.has(row.id)) continue
        seen.add(row.id)
        if (!this.#relay.authForDms || this.maySee(JSON.parse(row.json) as NostrEvent)) this.sendText(`${head}${row.json}]`)
      }
    }
  }

  #needsAuth(filters: readonly Filter[]): boolean {
    if (!this.#relay.authForDms || this.authenticated.size > 0) return false
    return filters.some((filter) => PRIVATE_KINDS.some((kind) => filter.kinds?.has(kind)))
  }

  #onClose(id: unknown) {
    if (typeof id === 'string') this.#forget(id)
    else this.send(['NOTICE', 'invalid: CLOSE needs a subscription id'])
  }

  #onCount(id: unknown, values: unknown[]) {
    if (!isSubscriptionId(id)) return this.send(['NOTICE', 'invalid: a subscription id is a string of 1 to 64 characters'])
    const filters = parseFilters(values)
    if (typeof filters === 'string') return this.send(['CLOSED', id, filters])
    if (this.#needsAuth(filters)) return this.send(['CLOSED', id, 'auth-required: private messages are counted for their owners only'])
    this.send(['COUNT', id, { count: this.#relay.count(filters) }])
  }

  #onAuth(value: unknown) {
    const event = parseEvent(value)
    if (typeof event === 'string') return this.#refuse(value, `invalid: ${event}`)
    const fault = this.#authFault(event)
    if (fault !== undefined) return this.send(['OK', event.id, false, fault])
    this.authenticated.add(event.pubkey)
    this.send(['OK', event.id, true, ''])
  }

  #authFault(event: NostrEvent): string | undefined {
    if (event.kind !== 22_242) return 'invalid: AUTH takes kind 22242'
    if (Math.abs(event.created_at - this.#relay.nowSeconds()) > AUTH_WINDOW_SECONDS) return 'invalid: created_at is not now'
    if (tagValue(event, 'challenge') !== this.#challenge) return 'invalid: wrong challenge'
    if (!this.#relay.isOwnUrl(tagValue(event, 'relay') ?? '')) return 'invalid: wrong relay'
    const fault = verifyEvent(event)
    return fault === undefined ? undefined : `invalid: ${fault}`
  }

  #forget(id: string) {
    const subscription = this.#subscriptions.get(id)
    if (subscription === undefined) return
    this.#subscriptions.delete(id)
    this.#relay.unsubscribe(subscription)
  }
}

function isSubscriptionId(id: unknown): id is string {
  return typeof id === 'string' && id.length > 0 && id.length <= RELAY_LIMITS.maxSubscriptionIdLength
}

function parseFilters(values: unknown[]): Filter[] | string {
  if (values.length === 0) return 'invalid: at least one filter is needed'
  if (values.length > RELAY_LIMITS.maxFilters) return `invalid: at most ${RELAY_LIMITS.maxFilters} filters`
  const filters: Filter[] = []
  for (const value of values) {
    const filter = parseFilter(value)
    if (typeof filter === 'string') return `invalid: ${filter}`
    filters.push(filter)
  }
  return filters
}
