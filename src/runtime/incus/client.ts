/** A connection to Incus in one project: requests, their errors, and operations waited for. */
import { isPylonError, PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { stringify } from '../../base/json.ts'
import type { Scope } from '../../base/scope.ts'
import type { WebSocket } from '../../base/service-websocket.ts'
import { isFinished, type Operation, parseEnvelope, parseOperation, refusal } from './envelope.ts'
import { OperationEvents } from './operation-events.ts'
import { type IncusEndpoint, Transport, type TransportRequest, type TransportResponse } from './transport.ts'

export interface CallOptions {
  readonly query?: Readonly<Record<string, string | undefined>>
  /** Sent as JSON. */
  readonly body?: unknown
  /** Sent as it is (`application/octet-stream`: Incus empties a file that comes as a form). */
  readonly bytes?: Uint8Array
  readonly headers?: Readonly<Record<string, string>>
  /** Of the exchange (default 30 s). */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal | undefined
}

interface WaitOptions {
  /** How long the operation may take (default 2 min). */
  readonly waitMs?: number | undefined
  readonly signal?: AbortSignal | undefined
}

interface Answer {
  readonly metadata: unknown
  /** Set when the request began an operation, which may still run. */
  readonly operation: Operation | undefined
}

const CALL_TIMEOUT_MS = 30_000
const WAIT_MS = 120_000
/** With the stream quiet this long the operation is looked at: an event can be missed. */
const LOOK_EVERY_MS = 10_000
/** The longest JSON answer that is read. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024

export class IncusClient {
  readonly project: string
  /** Its waits are of here; its connections end with it. */
  readonly scope: Scope
  readonly #transport: Transport
  readonly #events: OperationEvents

  /** @throws usage, config_invalid for an endpoint that is none */
  constructor(options: { readonly endpoint: IncusEndpoint; readonly project: string; readonly scope: Scope }) {
    this.project = options.project
    this.scope = options.scope
    this.#transport = new Transport(options.endpoint)
    this.#events = new OperationEvents(this.scope, () => this.webSocket('/1.0/events', { type: 'operation' }))
    this.scope.atEnd('connections', () => {
      this.#events.close()
      this.#transport.close()
    })
  }

  /** Of the endpoint, for messages. */
  get name(): string {
    return this.#transport.name
  }

  /** One request. @throws the incus_* codes, timeout, cancelled */
  async call(method: TransportRequest['method'], path: string, options: CallOptions = {}): Promise<Answer> {
    const what = `${method} ${path}`
    const response = await this.raw(method, path, options)
    const envelope = parseEnvelope(response.body.toString('utf8'), what)
    if (envelope.type === 'error') throw refusal(envelope.error_code || response.status, envelope.error, what)
    return { metadata: envelope.metadata, operation: envelope.type === 'async' ? envelope.metadata : undefined }
  }

  /** One request and, where it begins an operation, its end. */
  async run(method: TransportRequest['method'], path: string, options: CallOptions & WaitOptions = {}): Promise<Operation | undefined> {
    const what = `${method} ${path}`
    // Listening first: a short operation would end unheard.
    await this.#events.listen()
    const { operation } = await this.call(method, path, options)
    return operation === undefined ? undefined : this.wait(operationId(operation, what), what, options)
  }

  /** The end of an operation. @throws what it failed with; timeout when it still runs after `waitMs`; cancelled; shutting_down */
  async wait(id: string, what: string, { waitMs = WAIT_MS, signal }: WaitOptions = {}): Promise<Operation> {
    const still = `${what} at ${this.name} still runs after ${waitMs} ms: look at it with: incus operation list.`
    const end = (limit: AbortSignal) => this.#endOf(id, what, signal === undefined ? limit : AbortSignal.any([limit, signal]))
    const op = await this.scope.within(what, waitMs, end, () => new PylonError('timeout', still))
    if (op.status_code === 200) return op
    throw refusal(op.status_code, op.err || `the operation ended as ${op.status}`, what)
  }

  /** One exchange without an envelope, for files and logs; whoever calls judges the status. */
  async raw(
    method: TransportRequest['method'],
    path: string,
    call: CallOptions & { readonly maxBytes?: number } = {},
  ): Promise<TransportResponse> {
    const body = call.bytes ?? (call.body === undefined ? undefined : Buffer.from(stringify(call.body)))
    const type = call.bytes === undefined ? 'application/json' : 'application/octet-stream'
    return await this.#transport.request({
      method,
      path: this.#urlOf(path, call.query),
      headers: { ...(body === undefined ? {} : { 'content-type': type }), ...call.headers },
      body,
      timeoutMs: call.timeoutMs ?? CALL_TIMEOUT_MS,
      maxBytes: call.maxBytes ?? MAX_ANSWER_BYTES,
      signal: call.signal,
    })
  }

  webSocket(path: string, query: Readonly<Record<string, string>> = {}): WebSocket {
    return this.#transport.webSocket(this.#urlOf(path, query))
  }

  async #endOf(id: string, what: string, signal: AbortSignal): Promise<Operation> {
    for (;;) {
      if (signal.aborted) throw new PylonError('cancelled', `${what} at ${this.name} was given up; it may still run there.`)
      const heard = await this.#hear(id, signal)
      // Quiet or broken: ask. A finished operation is forgotten after some seconds, so the stream comes first.
      const op = heard ?? (await this.#poll(id, what, (await this.#events.listen()) ? 1000 : LOOK_EVERY_MS, signal))
      if (op !== undefined) return op
    }
  }

  /** Undefined when it was quiet for so long, the stream is broken, or the signal aborts. @throws shutting_down */
  async #hear(id: string, signal: AbortSignal): Promise<Operation | undefined> {
    return await this.scope.hear<Operation | undefined>(LOOK_EVERY_MS, (tell) => {
      const stop = () => tell(undefined)
      signal.addEventListener('abort', stop, { once: true })
      const unlisten = this.#events.onFinished(id, tell)
      return () => {
        unlisten()
        signal.removeEventListener('abort', stop)
      }
    })
  }

  /** Asks with a long poll; a wait that ran out of its time comes as an error of status 200, and is undefined here. */
  async #poll(id: string, what: string, ms: number, signal: AbortSignal): Promise<Operation | undefined> {
    const query = { timeout: String(ms / 1000) }
    const response = await this.raw('GET', `/1.0/operations/${id}/wait`, { query, timeoutMs: ms + CALL_TIMEOUT_MS, signal })
    const envelope = parseEnvelope(response.body.toString('utf8'), what)
    if (envelope.type === 'error') {
      if (/deadline exceeded/i.test(envelope.error)) return undefined
      if (envelope.error_code === 404) {
        throw new PylonError('timeout', `${what} at ${this.name} ended unheard, so its outcome is not known: look at the instance.`)
      }
      throw refusal(envelope.error_code || response.status, envelope.error, what)
    }
    const op = parseOperation(envelope.metadata)
    return op !== undefined && isFinished(op) ? op : undefined
  }

  #urlOf(path: string, query: CallOptions['query'] = {}): string {
    const pairs = Object.entries(given({ project: this.project, ...query })).map(([key, value]): [string, string] => [key, String(value)])
    return pairs.length === 0 ? path : `${path}?${new URLSearchParams(pairs)}`
  }
}

/**
 * The id from the operation itself: in a cluster its `operation` path carries `?project=x`, and with `/wait` appended to
 * that it would be a plain GET that says 200 and Running.
 */
function operationId(op: Operation, what: string): string {
  if (/^[0-9a-f-]{36}$/.test(op.id)) return op.id
  throw new PylonError('incus_failed', `${what}: Incus began an operation without a usable id (${op.id.slice(0, 80)}).`)
}

/** The answer, or undefined where Incus has no such thing. */
export async function orAbsent<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer
  } catch (error) {
    if (isPylonError(error, 'incus_not_found') || isPylonError(error, 'incus_image_missing')) return undefined
    throw error
  }
}
