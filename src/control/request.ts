/** One HTTP request as the control socket takes it: guarded against browsers, capped, parsed into one flat input. */
import type { IncomingMessage } from 'node:http'
import { PylonError } from '../base/errors.ts'
import { parseJson } from '../base/json.ts'
import { hasManyHosts } from '../base/one-host.ts'
import type { Match } from './router.ts'

const MAX_BODY_BYTES = 1024 * 1024
const HOSTS = new Set(['pylon', 'localhost'])

/** A page in a browser can be made to reach local services; it can't leave these headers out. @throws forbidden_origin, invalid_request */
export function refuseBrowsers(request: IncomingMessage): void {
  const { origin, referer, host } = request.headers
  if (origin !== undefined || referer !== undefined) {
    throw new PylonError('forbidden_origin', 'The control socket refuses requests with an Origin or Referer header.')
  }
  if (hasManyHosts(request)) throw new PylonError('invalid_request', 'The request has more than one Host header.')
  if (host === undefined || !HOSTS.has(host.replace(/:\d{1,5}$/, '').toLowerCase())) {
    throw new PylonError('forbidden_origin', 'The Host header must be "pylon" (or localhost).')
  }
}

/** @throws invalid_request */
export function parseTarget(request: IncomingMessage): URL {
  const target = request.url ?? ''
  // Only origin-form: an absolute target would name another host.
  if (!target.startsWith('/') || target.startsWith('//')) throw new PylonError('invalid_request', 'The request target must be a path.')
  try {
    return new URL(target, 'http://pylon')
  } catch {
    throw new PylonError('invalid_request', 'The request target is not a valid path.')
  }
}

/** @throws request_too_large, cancelled */
export async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      size += chunk.length
      if (size > MAX_BODY_BYTES) break
      chunks.push(chunk)
    }
  } catch (error) {
    throw new PylonError('cancelled', 'The request ended before its body was complete.', { cause: error })
  }
  if (size > MAX_BODY_BYTES) throw new PylonError('request_too_large', `The body is over ${MAX_BODY_BYTES} bytes; send less.`)
  return Buffer.concat(chunks).toString('utf8')
}

/** Path params, and the query (GET, DELETE; repeated names become a list) or the JSON body, as one object. @throws invalid_request */
export function inputOf(match: Match, query: URLSearchParams, body: string): Record<string, unknown> {
  const takesQuery = match.route.method === 'GET' || match.route.method === 'DELETE'
  const rest = takesQuery ? fromQuery(query) : fromBody(body)
  for (const name of Object.keys(match.params)) {
    if (Object.hasOwn(rest, name)) throw new PylonError('invalid_request', `${name}: is given by the path already.`)
  }
  return { ...rest, ...match.params }
}

/** Seconds from `?wait=`, taken out of the query of a task route. @throws invalid_request */
export function takeWait(query: URLSearchParams): number {
  const text = query.get('wait') ?? '0'
  query.delete('wait')
  const seconds = Number(text)
  if (!/^\d{1,3}$/.test(text) || seconds > 60) throw new PylonError('invalid_request', 'wait: must be a number of seconds from 0 to 60.')
  return seconds
}

/** The Idempotency-Key, or undefined when there is none. @throws invalid_request */
export function idempotencyKeyOf(request: IncomingMessage): string | undefined {
  const key = request.headers['idempotency-key']
  if (key === undefined) return undefined
  if (typeof key !== 'string' || !/^[\x21-\x7e]{1,200}$/.test(key)) {
    throw new PylonError('invalid_request', 'Idempotency-Key: must be 1 to 200 printable characters without spaces.')
  }
  return key
}

function fromQuery(query: URLSearchParams): Record<string, unknown> {
  return Object.fromEntries(
    [...new Set(query.keys())].map((name) => {
      const values = query.getAll(name)
      return [name, values.length === 1 ? values[0] : values]
    }),
  )
}

function fromBody(body: string): Record<string, unknown> {
  if (body === '') return {}
  const value = parseJson(body)
  if (value === undefined) throw new PylonError('invalid_request', 'The body is not valid JSON, or nested too deep.')
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new PylonError('invalid_request', 'The body must be a JSON object.')
  }
  return value as Record<string, unknown>
}
