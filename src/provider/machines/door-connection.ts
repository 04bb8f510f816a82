/**
 * One connection of a guest: the relay protocol, as far as its own session needs it.
 *
 *     connected --AUTH of the key of this runtime--> open --EVENT, REQ, CLOSE--> ...
 */
import type { WebSocket } from '../../base/dialer.ts'
import { parseJson } from '../../base/json.ts'
import { LruMap } from '../../base/lru.ts'
import { randomHex } from '../../base/random.ts'
import type { Scope } from '../../base/scope.ts'
import { matchesAny, parseEvent, tagValue } from '../../nostr/nips/nip01.ts'
import { AUTH_KIND } from '../../nostr/nips/nip42.ts'
import type { Verifier } from '../../nostr/reading/verify.ts'
import type { Filter, NostrEvent } from '../../nostr/types.ts'
import type { DoorMeter } from './door-meter.ts'
import { faultOfEvent, readFilters } from './door-rules.ts'

export const MAX_SUBSCRIPTIONS = 10
/** A guest that does not read what it asked for is cut off. */
const MAX_BUFFERED_BYTES = 4 * 1024 ** 2
const PING_EVERY_MS = 30_000
const MAX_SUBSCRIPTION_ID_CHARS = 64
const AUTH_WINDOW_S = 600
const MAX_AUTH_TRIES = 5
/** Events of one request that are not told twice. */
const REMEMBERED = 2000

export interface DoorConnectionDeps {
  /** Of this connection alone. */
  readonly scope: Scope
  readonly meter: DoorMeter
  readonly verifier: Verifier
  readonly owner: string
  /** The key that the runtime is bound to: this one, from the first time on. @returns the bound key */
  bind(pubkey: string): Promise<string>
  /** @returns what the relays said: undefined where one took it */
  publish(event: NostrEvent): Promise<string | undefined>
  /** What of this comes from now on is given to `hear`. @returns why not, as a CLOSED says it */
  follow(own: string, filters: readonly Filter[]): string | undefined
  /** What relays have now. */
  query(filters: readonly Filter[]): Promise<readonly NostrEvent[]>
}

interface Request {
  readonly scope: Scope
  readonly filters: readonly Filter[]
  readonly told: LruMap<string, true>
}

export class DoorConnection {
  readonly #deps: DoorConnectionDeps
  readonly #socket: WebSocket
  readonly #challenge: string
  readonly #requests = new Map<string, Request>()
  #own: string | undefined
  #authTries = 0
  #isAlive = true

  constructor(socket: WebSocket, deps: DoorConnectionDeps) {
    const { scope } = deps
    this.#deps = deps
    this.#socket = socket
    this.#challenge = randomHex(scope.random, 16)
    socket.on('message', (data) => this.#receive(data))
    socket.on('pong', () => {
      this.#isAlive = true
    })
    socket.on('close', () => scope.end())
    scope.atEnd('close', () => socket.terminate())
    scope.every('ping', PING_EVERY_MS, () => this.#ping())
    this.#send(['AUTH', this.#challenge])
  }

  /** Another has taken its place. */
  end(): void {
    this.#deps.scope.end()
  }

  #ping() {
    if (!this.#isAlive) return this.#socket.terminate()
    this.#isAlive = false
    this.#socket.ping()
  }

  #receive(data: Buffer) {
    const { meter, scope } = this.#deps
    // A flood is not answered frame by frame.
    if (!meter.take('frames') || !meter.take('bytes', data.length)) return this.#refuseFlood(data)
    const frame = parseJson(data.toString('utf8'))
    if (!Array.isArray(frame) || typeof frame[0] !== 'string') return this.#send(['NOTICE', 'invalid: no frame of the relay protocol'])
    const [type, first, ...rest] = frame as [string, ...unknown[]]
    if (type === 'AUTH') scope.spawn('auth', () => this.#authenticate(first))
    else if (type === 'EVENT') scope.spawn('event', () => this.#publish(first))
    else if (type === 'REQ') this.#request(first, rest)
    else if (type === 'CLOSE') this.#close(String(first))
    else this.#send(['NOTICE', `unsupported: ${type.slice(0, 20)} does not go through this door`])
  }

  /** Whoever waits for an answer is told to come again later. */
  #refuseFlood(data: Buffer) {
    const [, kind, id] = /^\s*\[\s*"(EVENT|REQ)"\s*,\s*(?:"([^"\\]{1,64})")?/.exec(data.subarray(0, 200).toString('utf8')) ?? []
    if (kind === 'REQ' && id !== undefined) return this.#send(['CLOSED', id, LATER])
    const eventId = kind === 'EVENT' ? /"id"\s*:\s*"([0-9a-f]{64})"/.exec(data.toString('latin1'))?.[1] : undefined
    this.#send(eventId === undefined ? ['NOTICE', LATER] : ['OK', eventId, false, LATER])
  }

  async #authenticate(value: unknown): Promise<void> {
    const event = eventOf(value)
    if (event === undefined) return this.#send(['NOTICE', 'invalid: AUTH is no event'])
    const ok = (isOk: boolean, words: string) => this.#send(['OK', event.id, isOk, words])
    if (++this.#authTries > MAX_AUTH_TRIES) return this.#socket.terminate()
    const { scope, verifier, bind } = this.#deps
    const nowS = Math.floor(scope.clock.now() / 1000)
    if (event.kind !== AUTH_KIND || tagValue(event, 'challenge') !== this.#challenge || tagValue(event, 'relay') === undefined)
      return ok(false, 'invalid: this is no answer to the challenge')
    if (Math.abs(nowS - event.created_at) > AUTH_WINDOW_S) return ok(false, 'invalid: the clock of this runtime is wrong')
    if (!verifier.verify(event)) return ok(false, 'invalid: the signature does not hold')
    if (event.pubkey === this.#deps.owner) return ok(false, 'restricted: the key of a runtime is not that of its owner')
    const bound = await bind(event.pubkey)
    if (bound !== event.pubkey) return ok(false, 'restricted: this runtime has another key for good')
    this.#own = event.pubkey
    this.#authTries = 0
    ok(true, '')
  }

  async #publish(value: unknown): Promise<void> {
    const event = eventOf(value)
    if (event === undefined) return this.#send(['NOTICE', 'invalid: EVENT is no event'])
    const ok = (isOk: boolean, words: string) => this.#send(['OK', event.id, isOk, words])
    const { scope, owner, meter, verifier, publish } = this.#deps
    if (this.#own === undefined) return ok(false, NOT_YET)
    if (!meter.take('events')) return ok(false, LATER)
    const fault = faultOfEvent(event, { own: this.#own, owner }, Math.floor(scope.clock.now() / 1000))
    if (fault !== undefined) return ok(false, fault)
    if (!verifier.verify(event)) return ok(false, 'invalid: the signature does not hold')
    const refusal = await publish(event)
    ok(refusal === undefined, refusal ?? '')
  }

  #request(id: unknown, values: readonly unknown[]) {
    if (typeof id !== 'string' || id === '' || id.length > MAX_SUBSCRIPTION_ID_CHARS)
      return this.#send(['NOTICE', 'invalid: a subscription has an id of 1 to 64 characters'])
    const closed = (words: string) => this.#send(['CLOSED', id, words])
    const { owner, meter, scope } = this.#deps
    if (this.#own === undefined) return closed(NOT_YET)
    if (!meter.take('requests')) return closed(LATER)
    this.#close(id)
    if (this.#requests.size >= MAX_SUBSCRIPTIONS) return closed(`rate-limited: ${MAX_SUBSCRIPTIONS} subscriptions are open; close one`)
    const filters = readFilters(values, { own: this.#own, owner })
    if (typeof filters === 'string') return closed(filters)
    const refusal = this.#deps.follow(this.#own, filters)
    if (refusal !== undefined) return closed(refusal)
    if (scope.isClosing) return
    const request = { scope: scope.child(`request ${id}`), filters, told: new LruMap<string, true>(REMEMBERED) }
    this.#requests.set(id, request)
    request.scope.spawn('stored', () => this.#tellStored(id, request))
  }

  /** An event that came just now. */
  hear(event: NostrEvent): void {
    for (const [id, request] of this.#requests) if (matchesAny(request.filters, event)) this.#deliver(id, request, event)
  }

  async #tellStored(id: string, request: Request): Promise<void> {
    for (const event of await this.#deps.query(request.filters)) this.#deliver(id, request, event)
    if (this.#requests.get(id) === request) this.#send(['EOSE', id])
  }

  #deliver(id: string, request: Request, event: NostrEvent) {
    if (this.#requests.get(id) !== request || request.told.has(event.id)) return
    request.told.set(event.id, true)
    const frame = JSON.stringify(['EVENT', id, event])
    if (!this.#deps.meter.take('bytes', frame.length)) return this.#end(id, LATER)
    this.#sendText(frame)
  }

  #end(id: string, words: string) {
    this.#close(id)
    this.#send(['CLOSED', id, words])
  }

  #close(id: string): void {
    this.#requests.get(id)?.scope.end()
    this.#requests.delete(id)
  }

  #send(frame: readonly unknown[]) {
    this.#sendText(JSON.stringify(frame))
  }

  #sendText(text: string) {
    if (this.#socket.readyState !== this.#socket.OPEN) return
    if (this.#socket.bufferedAmount > MAX_BUFFERED_BYTES) return this.#socket.terminate()
    this.#socket.send(text)
  }
}

const LATER = 'rate-limited: too much at once; slow down'
const NOT_YET = 'auth-required: prove the key of this runtime first'

function eventOf(value: unknown): NostrEvent | undefined {
  try {
    return parseEvent(value)
  } catch {
    // No event: a guest sends what it likes.
    return undefined
  }
}
