/** The typed client of the control socket: one HTTP request a call, tasks waited for, errors thrown as PylonError. */

import { randomUUID } from 'node:crypto'
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http'
import { StringDecoder } from 'node:string_decoder'
import { ERRORS, type ErrorCode, PylonError } from '../base/errors.ts'
import { given } from '../base/given.ts'
import { parseJson, stringify } from '../base/json.ts'
import { assertSocketPath } from '../base/paths.ts'
import { VERSION } from '../base/version.ts'
import { watchLiveness } from './liveness.ts'
import { type Input, type Output, paramsOf, type Route } from './route.ts'

export type { Input, Output, Route } from './route.ts'

export type Network = 'sandbox' | 'live'

export interface Answer<T> {
  /** The response as the route types it: amounts are bigint. */
  readonly value: T
  /** The body exactly as the node sent it, `network` first: what `--json` prints. */
  readonly body: Record<string, unknown>
  readonly network: Network
  /** Of the node; warn when it is not ours. */
  readonly nodeVersion: string
}

export interface CallOptions {
  /** Repeat a call under its key after an unclear outcome: it happens once. A fresh one by default. */
  readonly idempotencyKey?: string
  readonly signal?: AbortSignal
  /** The most to wait for an answer, or for a task to end. */
  readonly timeoutMs?: number
}

const TASK_WAIT_S = 25
const DEFAULT_TIMEOUT_MS = 120_000

/** Calls a route over the socket. @throws home_unusable when its path is too long, not_running when nobody listens (then nothing was sent), timeout, and what the node answers. */
export async function callRoute<R extends Route>(
  socket: string,
  route: R,
  input: Input<R>,
  options: CallOptions = {},
): Promise<Answer<Output<R>>> {
  const deadline = Date.now() + (options.timeoutMs ?? (route.task ? 3_600_000 : DEFAULT_TIMEOUT_MS))
  const request = encodeRequest(route, input, options)
  const first = await exchange(socket, request, options.signal, deadline)
  if (!route.task) return answerOf(route, first.body, first.version)
  let body = first.body
  while (body['state'] === 'running') {
    if (Date.now() >= deadline) throw new PylonError('timeout', `The task ${String(body['task_id'])} still runs; ask again later.`)
    const poll = {
      method: 'GET',
      path: `/v1/tasks/${encodeURIComponent(String(body['task_id']))}?wait=${TASK_WAIT_S}`,
      headers: {},
      body: '',
    }
    body = (await exchange(socket, poll, options.signal, deadline)).body
  }
  if (body['state'] === 'failed') throw errorOf(body['error'], 500)
  return answerOf(route, { network: body['network'], ...(body['result'] as Record<string, unknown>) }, first.version)
}

/** The lines of a streaming route until the node or the signal ends it. */
export async function* streamRoute<R extends Route>(
  socket: string,
  route: R,
  input: Input<R>,
  options: CallOptions = {},
): AsyncGenerator<Output<R>> {
  const { response } = await open(socket, encodeRequest(route, input, options), options.signal, undefined)
  if ((response.statusCode ?? 500) >= 400) {
    const parsed = parseJson(await readAll(response)) as { error?: unknown } | undefined
    throw errorOf(parsed?.error, response.statusCode ?? 500)
  }
  const decoder = new StringDecoder('utf8')
  let rest = ''
  for await (const chunk of response as AsyncIterable<Buffer>) {
    // Split on \n only: readline also breaks at U+2028, which is legal inside JSON.
    const parts = (rest + decoder.write(chunk)).split('\n')
    rest = parts.pop() ?? ''
    for (const line of parts) if (line !== '') yield route.response.parse(JSON.parse(line)) as Output<R>
  }
}

interface EncodedRequest {
  readonly method: string
  readonly path: string
  readonly headers: Record<string, string>
  readonly body: string
}

function encodeRequest<R extends Route>(route: R, input: Input<R>, options: CallOptions): EncodedRequest {
  const fields = new Map(Object.entries(input as Record<string, unknown>).filter(([, value]) => value !== undefined))
  let path: string = route.path
  for (const name of paramsOf(route.path)) {
    const value = String(fields.get(name) ?? '')
    if (value === '') throw new PylonError('usage', `The ${name.replace('_', ' ')} must not be empty.`)
    path = path.replace(`:${name}`, encodeURIComponent(value))
    fields.delete(name)
  }
  const headers: Record<string, string> = { 'Idempotency-Key': options.idempotencyKey ?? randomUUID() }
  const query = new URLSearchParams()
  if (route.task) query.set('wait', String(TASK_WAIT_S))
  if (route.method === 'GET' || route.method === 'DELETE') {
    for (const [name, value] of fields) for (const one of Array.isArray(value) ? value : [value]) query.append(name, String(one))
    return { method: route.method, path: withQuery(path, query), headers, body: '' }
  }
  headers['Content-Type'] = 'application/json'
  return { method: route.method, path: withQuery(path, query), headers, body: stringify(Object.fromEntries(fields)) }
}

function withQuery(path: string, query: URLSearchParams): string {
  const text = query.toString()
  return text === '' ? path : `${path}?${text}`
}

async function exchange(
  socket: string,
  encoded: EncodedRequest,
  signal: AbortSignal | undefined,
  deadline: number,
): Promise<{ body: Record<string, unknown>; version: string }> {
  const { response, request } = await open(socket, encoded, signal, deadline)
  const timer = setTimeout(() => request.destroy(timeoutError()), Math.max(1, deadline - Date.now()))
  try {
    const body = parseJson(await readAll(response))
    if (typeof body !== 'object' || body === null) throw new PylonError('internal', 'The node gave an answer that is no JSON object.')
    const status = response.statusCode ?? 500
    // Every success carries `network`; payment_unknown is an error with a status below 400.
    if (status >= 400 || !('network' in body)) throw errorOf((body as { error?: unknown }).error, status)
    return { body: body as Record<string, unknown>, version: String(response.headers['pylon-version'] ?? '') }
  } finally {
    clearTimeout(timer)
  }
}

function open(
  socket: string,
  encoded: EncodedRequest,
  signal: AbortSignal | undefined,
  deadline: number | undefined,
): Promise<{ response: IncomingMessage; request: ClientRequest }> {
  assertSocketPath(socket)
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      socketPath: socket,
      method: encoded.method,
      path: encoded.path,
      headers: { ...encoded.headers, Host: 'pylon', 'Pylon-Version': VERSION, 'Content-Length': Buffer.byteLength(encoded.body) },
      agent: false,
      ...given({ signal }),
    })
    const timer = deadline === undefined ? undefined : setTimeout(() => request.destroy(timeoutError()), Math.max(1, deadline - Date.now()))
    request.on('response', (response) => {
      clearTimeout(timer)
      resolve({ response, request })
    })
    request.on('error', (error: NodeJS.ErrnoException) => {
      clearTimeout(timer)
      reject(connectionError(error, socket))
    })
    watchLiveness(socket, request, () => request.destroy(silentError()))
    request.end(encoded.body)
  })
}

function silentError(): PylonError {
  return new PylonError(
    'timeout',
    'The node does not answer: its process is stopped or hung. What it was asked may still happen once it goes on; to end it: pylon stop, then pylon start.',
  )
}

function timeoutError(): PylonError {
  return new PylonError('timeout', 'The node did not answer in time; look at pylon status before trying again.')
}

function connectionError(error: NodeJS.ErrnoException, socket: string): PylonError {
  if (error instanceof PylonError) return error
  if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED' || error.code === 'ENOTSOCK') {
    return new PylonError('not_running', 'Pylon is not running; start it with: pylon start', { details: { socket } })
  }
  if (error.code === 'ENOTDIR' || error.code === 'ELOOP' || error.code === 'ENAMETOOLONG') {
    return new PylonError(
      'home_unusable',
      `There can be no node at ${socket}: a part of the path is no folder. Set PYLON_HOME to another one.`,
    )
  }
  if (error.code === 'EACCES') {
    return new PylonError('home_unusable', `The socket ${socket} belongs to another user.`, { details: { socket } })
  }
  if (error.code === 'EAGAIN') return silentError()
  if (error.name === 'AbortError') return new PylonError('cancelled', 'The call was given up.')
  return new PylonError('internal', `The connection to the node broke (${error.message}); look at: pylon logs`, { cause: error })
}

async function readAll(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk)
  } catch (error) {
    if (error instanceof PylonError) throw error
    throw new PylonError('internal', 'The node ended in the middle of its answer; look at: pylon logs', { cause: error })
  }
  return Buffer.concat(chunks).toString('utf8')
}

function errorOf(raw: unknown, status: number): PylonError {
  const error = (typeof raw === 'object' && raw !== null ? raw : {}) as Record<string, unknown>
  const code = String(error['code'])
  const known: ErrorCode = Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : 'internal'
  const details = (typeof error['details'] === 'object' && error['details'] !== null ? error['details'] : {}) as Record<string, unknown>
  return new PylonError(known, String(error['message'] ?? `The node answered ${status}.`), { details })
}

function answerOf<R extends Route>(route: R, body: Record<string, unknown>, nodeVersion: string): Answer<Output<R>> {
  const { network, ...resource } = body
  const parsed = route.response.safeParse(resource)
  if (!parsed.success) {
    throw new PylonError(
      nodeVersion === VERSION ? 'internal' : 'version_mismatch',
      `The node (version ${nodeVersion}) gave an answer that this Pylon (${VERSION}) does not understand; run: pylon restart`,
      { details: { problems: parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`) } },
    )
  }
  return { value: parsed.data as Output<R>, body, network: network === 'sandbox' ? 'sandbox' : 'live', nodeVersion }
}
