/**
 * A network in memory, by virtual time and one seed. Answers are late, get lost on the way there or back, or a request is
 * handled twice; frames of websockets come twice, get lost where a relay may lose them, and overtake each other where they
 * are independent; connections are cut, or go silent without a word.
 */
import type { Dialer, FetchOptions, FetchResponse, WebSocket } from '../../src/base/dialer.ts'
import { PylonError } from '../../src/base/errors.ts'
import { type Random, randomBelow } from '../../src/base/random.ts'
import type { VirtualClock } from './clock.ts'

/** Chances, each from 0 to 1, for every request or frame. */
export interface Weather {
  readonly minMs: number
  readonly maxMs: number
  readonly requestLost: number
  readonly answerLost: number
  readonly answerLate: number
  readonly requestTwice: number
  readonly frameLost: number
  readonly frameTwice: number
}

export const CALM: Weather = {
  ...{ minMs: 5, maxMs: 20, requestLost: 0, answerLost: 0, answerLate: 0, requestTwice: 0, frameLost: 0, frameTwice: 0 },
}

export interface HttpRequest {
  readonly method: string
  /** With its query. */
  readonly target: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
}

/** What a host has of one websocket client. */
export interface HostPeer {
  send(text: string): void
  cut(): void
}

/** A server behind an origin. */
export interface Host {
  answer(request: HttpRequest): FetchResponse
  /** A websocket has come. */
  accept(peer: HostPeer): { receive(text: string): void; close(): void }
}

const LATE_MS = 40_000
const REFUSED_MS = 3

export class Network {
  weather: Weather = CALM
  readonly #clock: VirtualClock
  readonly #random: Random
  readonly #hosts = new Map<string, Host>()
  readonly #down = new Set<string>()
  readonly #wires = new Set<Wire>()
  readonly #dead = new WeakSet<object>()

  constructor(clock: VirtualClock, random: Random) {
    this.#clock = clock
    this.#random = random
  }

  /** @param origin `http://host:port`, for its websockets too */
  serve(origin: string, host: Host): void {
    this.#hosts.set(origin, host)
  }

  /** The way out of one process, for as long as that lives. */
  dialerOf(process: object): Dialer {
    return {
      allow: () => undefined,
      isAllowed: () => true,
      fetch: (url, options = {}) => this.#fetch(process, url, options),
      connectWebSocket: (url) => this.#connect(process, url),
      close: async () => undefined,
    }
  }

  /** Cuts every websocket of a host, and refuses new ones until it is up again. */
  down(origin: string): void {
    this.#down.add(origin)
    this.cut(origin)
  }

  up(origin: string): void {
    this.#down.delete(origin)
  }

  cut(origin: string): void {
    for (const wire of [...this.#wires]) if (wire.origin === origin) wire.break('both')
  }

  /** From now on nothing passes on the websockets of a host, and nobody is told. */
  silence(origin: string): void {
    for (const wire of this.#wires) if (wire.origin === origin) wire.silent = true
  }

  /** The process is gone: hosts see its connections end, itself sees nothing more. */
  drop(process: object): void {
    this.#dead.add(process)
    for (const wire of [...this.#wires]) if (wire.process === process) wire.break('host')
  }

  happens(chance: number): boolean {
    return chance > 0 && this.#random.float() < chance
  }

  latencyMs(): number {
    const { minMs, maxMs } = this.weather
    return minMs + randomBelow(this.#random, maxMs - minMs + 1)
  }

  #fetch(process: object, url: string, options: FetchOptions): Promise<FetchResponse> {
    const clock = this.#clock
    return new Promise((resolve, reject) => {
      const { origin, pathname, search } = new URL(url)
      const fail = (why: string, details: Record<string, unknown> = {}) =>
        end(() => reject(new PylonError('fetch_failed', `${url} ${why}`, { details: { url, ...details } })))
      let ended = false
      const end = (how: () => void) => {
        if (ended || this.#dead.has(process)) return
        ended = true
        cancelTimeout()
        options.signal?.removeEventListener('abort', onAbort)
        how()
      }
      const timeoutMs = options.timeoutMs ?? 10_000
      const onAbort = () => fail('could not be fetched: aborted')
      const cancelTimeout =
        timeoutMs > 0 ? clock.after(timeoutMs, () => fail(`did not answer within ${timeoutMs} ms.`, { timeout: true })) : () => undefined
      if (options.signal?.aborted) return onAbort()
      options.signal?.addEventListener('abort', onAbort)
      const host = this.#hosts.get(origin)
      if (host === undefined || this.#down.has(origin)) {
        clock.after(REFUSED_MS, () => fail('could not be fetched: ECONNREFUSED'))
        return
      }
      if (this.happens(this.weather.requestLost)) return
      const request = {
        method: options.method ?? 'GET',
        target: `${pathname}${search}`,
        headers: options.headers ?? {},
        body: Buffer.from(options.body ?? ''),
      }
      const answer = (deliver: boolean) => {
        const response = host.answer(request)
        if (!deliver || this.happens(this.weather.answerLost)) return
        const lateMs = this.happens(this.weather.answerLate) ? randomBelow(this.#random, LATE_MS) : 0
        clock.after(this.latencyMs() + lateMs, () => end(() => resolve(response)))
      }
      clock.after(this.latencyMs(), () => answer(true))
      if (this.happens(this.weather.requestTwice)) clock.after(this.latencyMs() * 3, () => answer(false))
    })
  }

  #connect(process: object, url: string): WebSocket {
    const origin = new URL(url).origin.replace(/^ws/, 'http')
    const socket = new ClientSocket()
    const host = this.#hosts.get(origin)
    if (host === undefined || this.#down.has(origin)) {
      this.#clock.after(REFUSED_MS, () => socket.fail('ECONNREFUSED'))
      return socket
    }
    const wire = new Wire({ network: this, clock: this.#clock, origin, process, socket, onEnd: () => this.#wires.delete(wire) })
    this.#wires.add(wire)
    socket.wire = wire
    this.#clock.after(this.latencyMs(), () => wire.open(host))
    return socket
  }
}

interface WireDeps {
  readonly network: Network
  readonly clock: VirtualClock
  readonly origin: string
  readonly process: object
  readonly socket: ClientSocket
  onEnd(): void
}

/** One websocket connection between a process and a host. */
class Wire {
  readonly origin: string
  readonly process: object
  silent = false
  readonly #deps: WireDeps
  #host: { receive(text: string): void; close(): void } | undefined
  #isBroken = false
  readonly #lastAtMs = { up: 0, down: 0 }
  /** Subscriptions whose stored events have all been sent: what comes from then on stands for itself. */
  readonly #live = new Set<string>()

  constructor(deps: WireDeps) {
    this.#deps = deps
    this.origin = deps.origin
    this.process = deps.process
  }

  open(host: Host): void {
    if (this.#isBroken) return
    this.#deps.socket.opened()
    this.#host = host.accept({ send: (text) => this.#down(text), cut: () => this.break('both') })
  }

  /** From the process to the host. */
  up(text: string): void {
    const isEvent = text.startsWith('["EVENT"')
    this.#pass('up', isEvent, () => this.#host?.receive(text))
  }

  #down(text: string): void {
    const [type, id] = /^\["(\w+)","([^"]*)"/.exec(text)?.slice(1) ?? []
    if (type === 'EOSE') this.#live.add(id ?? '')
    const isAlone = type === 'OK' || (type === 'EVENT' && this.#live.has(id ?? ''))
    this.#pass('down', isAlone, () => this.#deps.socket.received(text))
  }

  ping(): void {
    this.#pass('up', false, () => this.#pass('down', false, () => this.#deps.socket.ponged()))
  }

  /** @param isAlone it may be lost, come twice, and overtake others of its like; never what must be in order */
  #pass(way: 'up' | 'down', isAlone: boolean, deliver: () => void): void {
    const { network, clock } = this.#deps
    if (this.#isBroken || this.silent) return
    const { frameLost, frameTwice } = network.weather
    if (isAlone && network.happens(frameLost)) return
    const arrive = () => {
      if (!this.#isBroken && !this.silent) deliver()
    }
    const times = isAlone && network.happens(frameTwice) ? 2 : 1
    for (let i = 0; i < times; i++) {
      const atMs = Math.max(this.#lastAtMs[way], clock.now() + network.latencyMs())
      if (!isAlone) this.#lastAtMs[way] = atMs
      clock.after(atMs - clock.now(), arrive)
    }
  }

  /** @param heard who is told of it */
  break(heard: 'both' | 'host'): void {
    if (this.#isBroken) return
    this.#isBroken = true
    this.#deps.onEnd()
    this.#deps.clock.after(0, () => this.#host?.close())
    if (heard === 'both') this.#deps.clock.after(0, () => this.#deps.socket.closed(1006))
  }
}

type Events = {
  open: () => void
  pong: () => void
  message: (data: Buffer) => void
  error: (error: Error) => void
  close: (code: number) => void
}

/** The end of the process. */
class ClientSocket implements WebSocket {
  readonly OPEN = 1
  readonly CLOSED = 3
  readonly bufferedAmount = 0
  readyState = 0
  wire: Wire | undefined
  readonly #listeners: { [Name in keyof Events]: Events[Name][] } = { open: [], pong: [], message: [], error: [], close: [] }
  #isPaused = false
  #waiting: string[] = []

  on<Name extends keyof Events>(event: Name, listener: Events[Name]): this {
    this.#listeners[event].push(listener)
    return this
  }

  send(text: string): void {
    if (this.readyState === this.OPEN) this.wire?.up(text)
  }

  ping(): void {
    if (this.readyState === this.OPEN) this.wire?.ping()
  }

  pause(): void {
    this.#isPaused = true
  }

  resume(): void {
    this.#isPaused = false
    for (const text of this.#waiting.splice(0)) this.received(text)
  }

  close(): void {
    this.terminate()
  }

  terminate(): void {
    this.wire?.break('both')
  }

  opened(): void {
    this.readyState = this.OPEN
    for (const listener of this.#listeners.open) listener()
  }

  received(text: string): void {
    if (this.#isPaused) this.#waiting.push(text)
    else for (const listener of this.#listeners.message) listener(Buffer.from(text))
  }

  ponged(): void {
    for (const listener of this.#listeners.pong) listener()
  }

  fail(why: string): void {
    for (const listener of this.#listeners.error) listener(new Error(why))
    this.closed(1006)
  }

  closed(code: number): void {
    if (this.readyState === this.CLOSED) return
    this.readyState = this.CLOSED
    for (const listener of this.#listeners.close) listener(code)
  }
}
