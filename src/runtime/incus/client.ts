/** A connection to Incus in one project: requests, their errors, and operations waited for. */
import { isPylonError, PylonError } from '../../base/errors.ts'
import { stringify } from '../../base/json.ts'
import type { Scope } from '../../base/scope.ts'
import type { WebSocket } from '../../base/service-websocket.ts'
import { isFinished, type Operation, parseEnvelope, parseOperation, refusal } from './envelope.ts'
import { OperationEvents } from './operation-events.ts'
import { createTransport, type IncusEndpoint, type TransportRequest, type TransportResponse } from './transport.ts'

export interface CallOptions {
  readonly query?: Readonly<Record<string, string | undefined>>
  /** Sent as JSON. */
  readonly body?: unknown
  /** Sent as it is (`application/octet-stream`: Incus empties a file that comes as a form). */
  readonly bytes?: Uint8Array
  readonly headers?: Readonly<Record<string, string>>
  /** Of the exchange (default 30 s). */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

export interface RunOptions extends CallOptions {
  /** How long the operation may take (default 2 min). */
  readonly waitMs?: number
}

export interface Answer {
  readonly metadata: unknown
  /** With its quotes, for `If-Match`. */
  readonly etag: string | undefined
  /** Set when the request began an operation, which may still run. */
  readonly operation: Operation | undefined
}

export interface IncusClient {
  readonly endpointName: string
  readonly project: string
  /** Its waits are of here. */
  readonly scope: Scope
  /** One request. @throws the incus_* codes, timeout, cancelled */
  call(method: TransportRequest['method'], path: string, options?: CallOptions): Promise<Answer>
  /** One request and, where it begins an operation, its end. */
  run(method: TransportRequest['method'], path: string, options?: RunOptions): Promise<Operation | undefined>
  /** The end of an operation. @throws what it failed with; timeout when it still runs after `waitMs`. */
  wait(id: string, what: string, options?: { readonly waitMs?: number; readonly signal?: AbortSignal }): Promise<Operation>
  /** One exchange without an envelope, for files and logs; whoever calls judges the status. */
  raw(method: TransportRequest['method'], path: string, options?: CallOptions & { readonly maxBytes?: number }): Promise<TransportResponse>
  webSocket(path: string, query?: Readonly<Record<string, string>>): WebSocket
  close(): void
}

const CALL_TIMEOUT_MS = 30_000
const WAIT_MS = 120_000
/** With the stream quiet this long the operation is looked at: an event can be missed. */
const LOOK_EVERY_MS = 10_000
/** The longest JSON answer that is read. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024

export function createIncusClient(options: {
  readonly endpoint: IncusEndpoint
  readonly project: string
  readonly scope: Scope
}): IncusClient {
  const { project, scope } = options
  const { clock } = scope
  const transport = createTransport(options.endpoint)
  const events = new OperationEvents(scope, () => transport.webSocket(urlOf('/1.0/events', { project, type: 'operation' })))

  function send(method: TransportRequest['method'], path: string, call: CallOptions & { maxBytes?: number }): Promise<TransportResponse> {
    const body = call.bytes ?? (call.body === undefined ? undefined : Buffer.from(stringify(call.body)))
    return transport.request({
      method,
      path: urlOf(path, { project, ...call.query }),
      headers: {
        ...(body === undefined ? {} : { 'content-type': call.bytes === undefined ? 'application/json' : 'application/octet-stream' }),
        ...call.headers,
      },
      ...(body === undefined ? {} : { body }),
      timeoutMs: call.timeoutMs ?? CALL_TIMEOUT_MS,
      maxBytes: call.maxBytes ?? MAX_ANSWER_BYTES,
      ...(call.signal === undefined ? {} : { signal: call.signal }),
    })
  }

  async function call(method: TransportRequest['method'], path: string, callOptions: CallOptions = {}): Promise<Answer> {
    const what = `${method} ${path}`
    const response = await send(method, path, callOptions)
    const envelope = parseEnvelope(response.body.toString('utf8'), what)
    if (envelope.type === 'error') throw refusal(envelope.error_code || response.status, envelope.error, what)
    const etag = response.headers['etag']
    if (envelope.type === 'sync') return { metadata: envelope.metadata, etag, operation: undefined }
    return { metadata: envelope.metadata, etag, operation: envelope.metadata }
  }

  /** Asks with a long poll; a wait that ran out of its time comes as an error of status 200, and is undefined here. */
  async function poll(id: string, what: string, ms: number, signal: AbortSignal | undefined): Promise<Operation | undefined> {
    const seconds = Math.max(1, Math.ceil(ms / 1000))
    const response = await send('GET', `/1.0/operations/${id}/wait`, {
      query: { timeout: String(seconds) },
      timeoutMs: seconds * 1000 + CALL_TIMEOUT_MS,
      ...(signal === undefined ? {} : { signal }),
    })
    const envelope = parseEnvelope(response.body.toString('utf8'), what)
    if (envelope.type === 'error') {
      if (/deadline exceeded/i.test(envelope.error)) return undefined
      if (envelope.error_code === 404) {
        throw new PylonError('timeout', `${what} at ${transport.name} ended unheard, so its outcome is not known: look at the instance.`)
      }
      throw refusal(envelope.error_code || response.status, envelope.error, what)
    }
    const op = parseOperation(envelope.metadata)
    return op !== undefined && isFinished(op) ? op : undefined
  }

  async function wait(id: string, what: string, { waitMs = WAIT_MS, signal }: { waitMs?: number; signal?: AbortSignal } = {}) {
    const until = clock.now() + waitMs
    for (;;) {
      if (signal?.aborted === true) throw new PylonError('cancelled', `${what} at ${transport.name} was given up; it may still run there.`)
      const left = until - clock.now()
      if (left <= 0)
        throw new PylonError(
          'timeout',
          `${what} at ${transport.name} still runs after ${waitMs} ms: look at it with: incus operation list.`,
        )
      const heard = await hear(id, Math.min(left, LOOK_EVERY_MS), signal)
      // Quiet or broken: ask. A finished operation is forgotten after some seconds, so the stream comes first.
      const op = heard ?? (await poll(id, what, Math.min(left, heard === undefined && !(await events.listen()) ? left : 1000), signal))
      if (op !== undefined) return judge(op, what)
    }
  }

  /** Undefined when it was quiet for so long, the stream is broken, or the signal aborts. @throws shutting_down */
  async function hear(id: string, ms: number, signal: AbortSignal | undefined): Promise<Operation | undefined> {
    return await scope.hear<Operation | undefined>(ms, (tell) => {
      const stop = () => tell(undefined)
      signal?.addEventListener('abort', stop, { once: true })
      const unlisten = events.onFinished(id, tell)
      return () => {
        unlisten()
        signal?.removeEventListener('abort', stop)
      }
    })
  }

  return {
    endpointName: transport.name,
    project,
    scope,
    call,
    async run(method, path, runOptions = {}) {
      // Listening first: a short operation would end unheard.
      await events.listen()
      const answer = await call(method, path, runOptions)
      if (answer.operation === undefined) return undefined
      const { waitMs, signal } = runOptions
      return wait(operationId(answer.operation, `${method} ${path}`), `${method} ${path}`, {
        ...(waitMs === undefined ? {} : { waitMs }),
        ...(signal === undefined ? {} : { signal }),
      })
    },
    wait,
    raw: (method, path, rawOptions = {}) => send(method, path, rawOptions),
    webSocket: (path, query = {}) => transport.webSocket(urlOf(path, { project, ...query })),
    close() {
      events.close()
      transport.close()
    },
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

function judge(op: Operation, what: string): Operation {
  if (op.status_code === 200) return op
  throw refusal(op.status_code, op.err || `the operation ended as ${op.status}`, what)
}

function urlOf(path: string, query: Readonly<Record<string, string | undefined>>): string {
  const pairs = Object.entries(query).flatMap(([key, value]) => (value === undefined ? [] : [[key, value] as [string, string]]))
  const text = new URLSearchParams(pairs).toString()
  return text === '' ? path : `${path}?${text}`
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
