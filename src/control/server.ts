/** HTTP/1.1 + JSON on the Unix socket: any bytes give a JSON answer or a closed connection, never a crash. */
import { createHash } from 'node:crypto'
import { chmodSync, lstatSync, unlinkSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { PylonError, toPylonError } from '../base/errors.ts'
import { stringify } from '../base/json.ts'
import type { Logger } from '../base/logger.ts'
import { assertSocketPath } from '../base/paths.ts'
import { randomUuid } from '../base/random.ts'
import type { Scope } from '../base/scope.ts'
import { VERSION } from '../base/version.ts'
import type { Claims, Tasks, TaskView } from './calls.ts'
import { idempotencyKeyOf, inputOf, parseTarget, readBody, refuseBrowsers, takeWait } from './request.ts'
import { type Call, parseRequest, type Route } from './route.ts'
import { type BoundRoute, type Match, Router } from './router.ts'

export interface ControlServerOptions {
  readonly routes: readonly BoundRoute[]
  readonly network: 'sandbox' | 'live'
  readonly claims: Claims
  readonly tasks: Tasks
  readonly logger: Logger
  /** Owns spending calls that are under way. */
  readonly scope: Scope
}

interface Reply {
  readonly status: number
  /** JSON text of the resource, without `network`. */
  readonly body: string
  readonly headers?: Record<string, string>
}

export class ControlServer {
  readonly #options: ControlServerOptions
  readonly #router: Router
  #server: Server
  #path = ''
  /** Of the socket that we made there. */
  #inode: bigint | undefined
  readonly #ending = new AbortController()
  #isDraining = false

  constructor(options: ControlServerOptions) {
    this.#options = options
    this.#router = new Router(options.routes)
    this.#server = this.#createServer()
  }

  #createServer(): Server {
    const server = createServer({ requireHostHeader: false, headersTimeout: 10_000, requestTimeout: 30_000, keepAliveTimeout: 5_000 })
    // It never rejects: a failure is its answer.
    server.on('request', (request, response) => void this.#serve(request, response))
    server.on('checkExpectation', (_request, response: ServerResponse) => this.#fail(response, badRequest('Expect is not supported.')))
    server.on('clientError', (error: NodeJS.ErrnoException, socket) => refuseBytes(error, socket))
    server.on('connect', (_request, socket) => refuseBytes(undefined, socket))
    return server
  }

  /** Call with the lease held: a leftover socket is then surely nobody's. @throws home_unusable */
  async listen(path: string): Promise<void> {
    assertSocketPath(path)
    removeStaleSocket(path)
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(path, () => {
        this.#server.off('error', reject)
        resolve()
      })
    })
    chmodSync(path, 0o600)
    this.#path = path
    this.#inode = lstatSync(path, { bigint: true }).ino
  }

  /** Whether what lies at the path is the socket on which this server listens. */
  socketState(): 'ours' | 'gone' | 'foreign' {
    const found = lstatSync(this.#path, { bigint: true, throwIfNoEntry: false })
    if (found === undefined) return 'gone'
    return found.ino === this.#inode ? 'ours' : 'foreign'
  }

  /** Makes the socket again, after somebody deleted it; calls that are under way go on. */
  async listenAgain(): Promise<void> {
    const before = this.#server
    before.close()
    this.#server = this.#createServer()
    await this.listen(this.#path)
  }

  /** From now on only reading is answered. */
  drain(): void {
    this.#isDraining = true
  }

  /** Ends streams and waits, answers what is under way, closes; after `graceMs` whatever is left is cut. */
  async close(graceMs = 2000): Promise<void> {
    this.drain()
    this.#ending.abort(new PylonError('shutting_down', 'The node is shutting down.'))
    if (this.#path !== '' && this.socketState() === 'foreign') {
      // Closing would delete the socket of whoever took the home over; the end of the process closes ours.
      this.#server.closeAllConnections()
      this.#server.unref()
      return
    }
    const timer = setTimeout(() => this.#server.closeAllConnections(), graceMs)
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve())
      this.#server.closeIdleConnections()
    })
    clearTimeout(timer)
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => undefined)
    const gone = new AbortController()
    response.on('close', () => gone.abort(new PylonError('cancelled', 'The caller has gone.')))
    const signal = AbortSignal.any([gone.signal, this.#ending.signal])
    try {
      await this.#answer(request, response, signal)
    } catch (error) {
      this.#fail(response, error)
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse, signal: AbortSignal): Promise<void> {
    refuseBrowsers(request)
    const url = parseTarget(request)
    const match = this.#router.match(request.method ?? '', url.pathname)
    if (this.#isDraining && match.route.method !== 'GET') {
      throw new PylonError('shutting_down', 'The node is shutting down; start it again with: pylon start')
    }
    const key = idempotencyKeyOf(request)
    if (match.route.spends && key === undefined) {
      throw new PylonError('idempotency_key_required', 'This call spends money: send an Idempotency-Key header of your choice.')
    }
    const waitS = match.route.task ? takeWait(url.searchParams) : 0
    const input = parseRequest(match.route, inputOf(match, url.searchParams, await readBody(request)))
    const call: Call = {
      idempotencyKey: key ?? randomUuid(this.#options.scope.random),
      signal: match.route.task ? this.#ending.signal : signal,
    }
    if (match.route.stream) return await this.#stream(match, input, call, response)
    const reply = await (match.route.spends
      ? this.#spendOnce(match, input, call, waitS, signal)
      : this.#run(match, input, call, waitS, signal))
    this.#send(response, reply)
  }

  async #run(match: Match, input: unknown, call: Call, waitS: number, signal: AbortSignal): Promise<Reply> {
    const work = async () => this.#encode(match.route, await match.handler(input, call))
    if (!match.route.task) return { status: match.route.status ?? 200, body: stringify(await work()) }
    const id = taskIdOf(match.route, call.idempotencyKey)
    // A spend that has its outcome is not run again; anything else under the same key starts or joins.
    if (!match.route.spends || !isFinal(this.#options.tasks.find(id))) await this.#options.tasks.run(id, labelOf(match.route), work)
    const view = await this.#options.tasks.get(id, waitS * 1000, signal)
    return {
      status: view.state === 'running' ? 202 : 200,
      body: stringify(view),
      ...(view.state === 'running' ? { headers: { Location: `/v1/tasks/${id}` } } : {}),
    }
  }

  /** Claims the key, acts once, stores the answer; the same key with the same request gets that answer for ever. */
  async #spendOnce(match: Match, input: unknown, call: Call, waitS: number, signal: AbortSignal): Promise<Reply> {
    const key = call.idempotencyKey
    const digest = createHash('sha256').update(stringify(input)).digest('hex')
    const claim = await this.#options.claims.claim(key, labelOf(match.route), digest)
    if (claim.state === 'answered') return { status: claim.status, body: claim.body }
    // The caller's leaving must not stop a spend halfway: only the node's end does.
    const steady = { ...call, signal: this.#ending.signal }
    // A task keeps its own outcome.
    if (match.route.task) return await this.#run(match, input, steady, waitS, signal)
    // A second call with the same key waits for the first.
    return await this.#options.scope.once(`spend ${key}`, () => this.#spend(match, input, steady, signal))
  }

  async #spend(match: Match, input: unknown, call: Call, signal: AbortSignal): Promise<Reply> {
    try {
      const reply = await this.#run(match, input, call, 0, signal)
      const isOpen = match.route.isOpen?.(JSON.parse(reply.body) as Record<string, unknown>) === true
      if (!isOpen) await this.#options.claims.answer(call.idempotencyKey, reply.status, reply.body)
      return reply
    } catch (error) {
      const known = toPylonError(error)
      // A refusal is an answer; a fault or an unclear outcome is not: the same key may ask again.
      if (isRefusal(known)) {
        await this.#options.claims.answer(call.idempotencyKey, known.status, stringify(known))
      }
      throw known
    }
  }

  /** The answer as it goes on the wire. One that misses its schema is sent as it is and logged: a status that shows most beats none. */
  #encode(route: Route, value: unknown): unknown {
    const encoded = route.response.safeEncode(value)
    if (encoded.success) return encoded.data
    const problems = encoded.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`)
    this.#options.logger.error({ route: labelOf(route), problems }, 'answer does not match its schema')
    return value
  }

  async #stream(match: Match, input: unknown, call: Call, response: ServerResponse): Promise<void> {
    const lines = match.handler(input, call) as AsyncIterable<unknown>
    const iterator = lines[Symbol.asyncIterator]()
    // What fails in ending is of no use to whoever has gone.
    call.signal.addEventListener('abort', () => void iterator.return?.().catch(() => undefined), { once: true })
    let next = await iterator.next()
    response.writeHead(200, { ...HEADERS, 'Content-Type': 'application/x-ndjson' })
    response.flushHeaders()
    while (!next.done && !call.signal.aborted) {
      if (!response.write(`${stringify(this.#encode(match.route, next.value))}\n`)) await drained(response)
      next = await iterator.next()
    }
    response.end()
  }

  #send(response: ServerResponse, reply: Reply): void {
    if (response.headersSent || response.destroyed) return
    const network = this.#options.network
    // A stored error has no network, as no error has.
    const isError = reply.body.startsWith('{"error":{"code":')
    const body = isError ? reply.body : reply.body === '{}' ? stringify({ network }) : `{"network":"${network}",${reply.body.slice(1)}`
    response.writeHead(reply.status, { ...HEADERS, ...reply.headers, 'Content-Length': Buffer.byteLength(body) + 1 })
    response.end(`${body}\n`)
  }

  #fail(response: ServerResponse, error: unknown): void {
    const known = toPylonError(error)
    if (known.code === 'internal') this.#options.logger.error({ err: known }, 'a control call failed')
    if (response.headersSent) {
      response.destroy()
      return
    }
    // What is left of a refused body is not worth reading: the connection ends with the answer.
    const allow = known.code === 'method_not_allowed' ? { Allow: String((known.details['allow'] as string[]).join(', ')) } : {}
    response.writeHead(known.status, { ...HEADERS, ...allow, Connection: 'close' })
    response.end(`${stringify(known)}\n`)
  }
}

const HEADERS = {
  'Content-Type': 'application/json',
  'Pylon-Version': VERSION,
  'Cache-Control': 'no-store',
  'X-Content-Type-Options': 'nosniff',
}

function labelOf(route: Route): string {
  return `${route.method} ${route.path}`
}

/** The same key gives the same task, also after a restart. */
function taskIdOf(route: Route, key: string): string {
  return createHash('sha256')
    .update(`${labelOf(route)}\n${key}`)
    .digest('hex')
    .slice(0, 32)
}

function isRefusal(error: { code?: string; retryable?: boolean }): boolean {
  return error.retryable === false && error.code !== 'internal' && error.code !== 'cancelled' && error.code !== 'locked'
}

/** Whether a task ended in a way that asking again will not change. */
function isFinal(task: TaskView | undefined): boolean {
  if (task === undefined) return false
  return task.state === 'done' || (task.state === 'failed' && isRefusal(task.error as { code?: string; retryable?: boolean }))
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      response.off('drain', done)
      response.off('close', done)
      resolve()
    }
    response.on('drain', done)
    response.on('close', done)
  })
}

function badRequest(message: string): PylonError {
  return new PylonError('invalid_request', message)
}

/** Bytes that are no HTTP request still get a JSON answer. */
function refuseBytes(error: NodeJS.ErrnoException | undefined, socket: Duplex): void {
  if (error?.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const known = badRequest(
    error?.code === 'HPE_HEADER_OVERFLOW' ? 'The headers are too large.' : 'This is not a request the control socket takes.',
  )
  const body = `${stringify(known)}\n`
  socket.end(
    `HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nPylon-Version: ${VERSION}\r\nConnection: close\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  )
}

/** @throws home_unusable when something that is no socket lies there. */
function removeStaleSocket(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found === undefined) return
  if (!found.isSocket()) {
    throw new PylonError('home_unusable', `${path} is in the way and is not a socket: move it away, then start again.`)
  }
  unlinkSync(path)
}
