/** The guarded dialer: the one way out to addresses, whoever named them; strangers' addresses reach only the public internet. */
import { type LookupAddress, lookup as systemLookup } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import { Agent, request } from 'undici'
import { WebSocket as SystemWebSocket } from 'ws'
import { isPublicAddress } from './addresses.ts'
import { systemClock } from './clock.ts'
import { isPylonError, messageOf, PylonError } from './errors.ts'

/** What the node needs of a websocket: those of `ws` have it, and so have those of a network in memory. */
export interface WebSocket {
  readonly readyState: number
  readonly OPEN: number
  readonly CLOSED: number
  readonly bufferedAmount: number
  send(text: string): void
  ping(): void
  pause(): void
  resume(): void
  close(code?: number): void
  terminate(): void
  on(event: 'open' | 'pong', listener: () => void): unknown
  on(event: 'message', listener: (data: Buffer) => void): unknown
  on(event: 'error', listener: (error: Error) => void): unknown
  on(event: 'close', listener: (code: number) => void): unknown
}

export interface FetchOptions {
  readonly method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'HEAD'
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Uint8Array
  /** For the whole exchange (default 10 s; 0 is no limit: a mint may hold a melt open). */
  readonly timeoutMs?: number
  /** The longest body that is read (default 1 MiB). */
  readonly maxBytes?: number
  readonly signal?: AbortSignal
  /** How many redirects are followed (default 0), each dialled as an address that a stranger named. Of a GET only. */
  readonly maxRedirects?: number
  /** A stranger chose the address, for this: what the owner made an exception for itself (a mint, a spawner) is then none. */
  readonly namedByStranger?: Purpose
}

/**
 * What an address that a stranger names is dialled for. An exception for strangers is for one of them: `relay` is a relay
 * with its NIP-11 document, `lnurl` an LNURL server; of a `mint` that is not on the list there is none. The input of a job, and where an address of the owner's redirects to, is
 * read nowhere inside.
 */
export type Purpose = 'relay' | 'lnurl' | 'mint' | 'input' | 'redirect'

export interface FetchResponse {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly text: string
}

export interface WebSocketOptions {
  readonly maxPayloadBytes?: number
  readonly handshakeTimeoutMs?: number
  /** A stranger chose the address, of a relay. */
  readonly namedByStranger?: boolean
}

export interface Dialer {
  /**
   * Makes one origin an exact exception: what the owner configured, or the sandbox's own. ws and http of one host and port are one origin.
   * @param forStrangers whether strangers may name this very URL too: one of ws or wss as a relay, one of http or https as an LNURL
   *   server, with what is below its path; nothing else of the origin
   */
  allow(url: string, forStrangers?: boolean): void
  /** Whether the origin of this URL is an exception; for strangers: whether they may name it as a relay. */
  isAllowed(url: string, forStrangers?: boolean): boolean
  /** One exchange; redirects are errors, unless some are asked for. @throws address_refused, fetch_failed, both naming the URL. */
  fetch(url: string, options?: FetchOptions): Promise<FetchResponse>
  /** An opening socket; a name that resolves to a refused address comes as its `error` event. @throws address_refused */
  connectWebSocket(url: string, options?: WebSocketOptions): WebSocket
  /** Ends idle connections. */
  close(): Promise<void>
}

/** Resolves a name to all its addresses. */
export type Lookup = (hostname: string) => Promise<readonly LookupAddress[]>

const DEFAULT_TIMEOUT_MS = 10_000
const DEFAULT_MAX_BYTES = 1_048_576

const resolveAll: Lookup = (hostname) =>
  new Promise((resolve, reject) => {
    systemLookup(hostname, { all: true }, (error, addresses) => (error === null ? resolve(addresses) : reject(error)))
  })

export function createDialer(options: { allowedOrigins?: readonly string[]; lookup?: Lookup } = {}): Dialer {
  const resolve = options.lookup ?? resolveAll
  const allowed = new Set((options.allowedOrigins ?? []).map((origin) => originOf(parseUrl(origin))))
  const allowedToStrangers = new Map<string, StrangersException>()
  const guardedLookup = guardLookup(resolve)
  const plainAgent = new Agent({ connect: { timeout: DEFAULT_TIMEOUT_MS }, headersTimeout: 0, bodyTimeout: 0 })
  const guardedAgent = new Agent({ connect: { timeout: DEFAULT_TIMEOUT_MS, lookup: guardedLookup }, headersTimeout: 0, bodyTimeout: 0 })

  /** Whether the URL is an exception; refuses what needs no resolving to be refused. */
  function admit(url: string, secureScheme: 'https:' | 'wss:', namedByStranger?: Purpose): boolean {
    const parsed = parseUrl(url)
    if (namedByStranger === undefined ? allowed.has(originOf(parsed)) : mayStrangersName(parsed, namedByStranger)) return true
    if (parsed.protocol !== secureScheme) {
      throw refused(url, `only ${secureScheme}// is used for addresses that the owner did not configure`)
    }
    if (parsed.username !== '' || parsed.password !== '') throw refused(url, 'it carries credentials')
    const host = parsed.hostname.replace(/^\[|\]$/g, '')
    if (isIP(host) !== 0 && !isPublicAddress(host)) throw refused(url, 'it is not on the public internet')
    return false
  }

  const mayStrangersName = (url: URL, purpose: Purpose): boolean =>
    [...allowedToStrangers.values()].some((exception) => covers(exception, url, purpose))

  return {
    allow(url, forStrangers = false) {
      const parsed = parseUrl(url)
      allowed.add(originOf(parsed))
      if (!forStrangers) return
      const exception = exceptionFor(parsed)
      allowedToStrangers.set(`${exception.purpose} ${exception.origin}${exception.path}`, exception)
    },
    isAllowed(url, forStrangers = false) {
      const parsed = parseUrl(url)
      return forStrangers ? mayStrangersName(parsed, 'relay') : allowed.has(originOf(parsed))
    },
    async fetch(url, fetchOptions = {}) {
      const { maxRedirects = 0, timeoutMs = DEFAULT_TIMEOUT_MS, method = 'GET' } = fetchOptions
      const until = systemClock.elapsedMs() + timeoutMs
      let next = url
      for (let hop = 0; ; hop++) {
        const isException = admit(next, 'https:', fetchOptions.namedByStranger ?? (hop > 0 ? 'redirect' : undefined))
        const leftMs = timeoutMs === 0 ? 0 : Math.max(1, Math.ceil(until - systemClock.elapsedMs()))
        const answer = await exchange(next, { ...fetchOptions, timeoutMs: leftMs }, isException ? plainAgent : guardedAgent)
        if (!('location' in answer)) return answer
        const location = URL.parse(answer.location ?? '', next)
        if (location === null || method !== 'GET' || hop >= maxRedirects) throw notFollowed(next, answer.status)
        next = location.href
      }
    },
    connectWebSocket(url, { maxPayloadBytes = DEFAULT_MAX_BYTES, handshakeTimeoutMs = DEFAULT_TIMEOUT_MS, namedByStranger } = {}) {
      const isException = admit(url, 'wss:', namedByStranger === true ? 'relay' : undefined)
      return new SystemWebSocket(url, {
        maxPayload: maxPayloadBytes,
        handshakeTimeout: handshakeTimeoutMs,
        perMessageDeflate: false,
        followRedirects: false,
        ...(isException ? {} : { lookup: guardedLookup }),
      })
    },
    async close() {
      await Promise.all([plainAgent.destroy(), guardedAgent.destroy()])
    },
  }
}

/** What strangers may name of the owner's: for one purpose, one origin, one path. */
interface StrangersException {
  readonly purpose: Purpose
  readonly origin: string
  /** Without the slash at its end. */
  readonly path: string
}

const pathOf = (url: URL): string => url.pathname.replace(/\/+$/, '')

function exceptionFor(url: URL): StrangersException {
  return { purpose: /^wss?:$/.test(url.protocol) ? 'relay' : 'lnurl', origin: originOf(url), path: pathOf(url) }
}

function covers({ purpose, origin, path }: StrangersException, url: URL, asked: Purpose): boolean {
  if (purpose !== asked || origin !== originOf(url)) return false
  // A relay is one address; an LNURL server has its callbacks below.
  return pathOf(url) === path || (purpose === 'lnurl' && pathOf(url).startsWith(`${path}/`))
}

/** ws and http of one host and port count as one. */
function originOf(url: URL): string {
  const scheme = url.protocol === 'ws:' ? 'http:' : url.protocol === 'wss:' ? 'https:' : url.protocol
  return `${scheme}//${url.host}`
}

/** Answers the socket's own lookup, so that the address that was checked is the one that is connected to. */
function guardLookup(resolve: Lookup): LookupFunction {
  return (hostname, options, callback) => {
    resolve(hostname).then(
      (addresses) => {
        const first = addresses[0]
        const bad = addresses.find(({ address }) => !isPublicAddress(address))
        if (first === undefined) return callback(new PylonError('fetch_failed', `${hostname} has no address.`), '', 0)
        if (bad !== undefined) return callback(refused(hostname, `it resolves to ${bad.address}, not on the public internet`), '', 0)
        const wanted =
          options.family === 4 || options.family === 6 ? addresses.filter(({ family }) => family === options.family) : addresses
        if (options.all === true) callback(null, [...wanted])
        else callback(null, (wanted[0] ?? first).address, (wanted[0] ?? first).family)
      },
      (error: unknown) => callback(error instanceof Error ? error : new Error(String(error)), '', 0),
    )
  }
}

/** A redirect: where to, if it says so. */
interface Redirect {
  readonly status: number
  readonly location: string | undefined
}

async function exchange(url: string, options: FetchOptions, dispatcher: Agent): Promise<FetchResponse | Redirect> {
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS
  const signals = [...(timeoutMs > 0 ? [AbortSignal.timeout(timeoutMs)] : []), ...(options.signal === undefined ? [] : [options.signal])]
  try {
    const response = await request(url, {
      dispatcher,
      method: options.method ?? 'GET',
      ...(options.headers === undefined ? {} : { headers: { ...options.headers } }),
      ...(options.body === undefined ? {} : { body: options.body }),
      ...(signals.length === 0 ? {} : { signal: AbortSignal.any(signals) }),
    })
    // Ending a body early makes it emit an error that nobody waits for.
    response.body.on('error', () => {})
    if (response.statusCode >= 300 && response.statusCode < 400 && response.statusCode !== 304) {
      response.body.destroy()
      return { status: response.statusCode, location: flatHeaders(response.headers)['location'] }
    }
    const text = await readCapped(url, response.body, options.maxBytes ?? DEFAULT_MAX_BYTES)
    return { status: response.statusCode, headers: flatHeaders(response.headers), text }
  } catch (error) {
    throw asDialError(url, error, timeoutMs)
  }
}

function notFollowed(url: string, status: number): PylonError {
  return new PylonError('fetch_failed', `${url} answered with a redirect (${status}), which is not followed: use the final URL.`)
}

async function readCapped(url: string, body: AsyncIterable<Uint8Array> & { destroy(): unknown }, maxBytes: number): Promise<string> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of body) {
    size += chunk.length
    if (size > maxBytes) {
      body.destroy()
      throw new PylonError('fetch_failed', `${url} answered with more than ${maxBytes} bytes.`)
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function flatHeaders(headers: Record<string, string | string[] | undefined>): Record<string, string> {
  const entries = Object.entries(headers).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)] as const]))
  return Object.fromEntries(entries)
}

function asDialError(url: string, error: unknown, timeoutMs: number): PylonError {
  const cause = (error as { cause?: unknown }).cause
  for (const candidate of [error, cause]) {
    if (isPylonError(candidate, 'address_refused')) return refused(url, candidate.message)
    if (isPylonError(candidate)) return candidate
  }
  if ((error as { name?: unknown }).name === 'TimeoutError') {
    return new PylonError('fetch_failed', `${url} did not answer within ${timeoutMs} ms.`, {
      details: { url, timeout: true },
      cause: error,
    })
  }
  return new PylonError('fetch_failed', `${url} could not be fetched: ${messageOf(error) || String(error)}`, {
    details: { url },
    cause: error,
  })
}

function parseUrl(url: string): URL {
  try {
    return new URL(url)
  } catch {
    throw new PylonError('address_refused', `${JSON.stringify(url).slice(0, 200)} is not a URL.`)
  }
}

function refused(url: string, why: string): PylonError {
  return new PylonError('address_refused', `${url} is refused: ${why}.`, { details: { url } })
}
