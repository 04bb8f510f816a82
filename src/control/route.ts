/** What a route of the control socket is: data that drives validation, the client and docs/control-api.md. */
import { z } from 'zod'
import { type Msats, msats, type Sats, sats, wire } from '../base/amounts.ts'
import { type ErrorCode, PylonError } from '../base/errors.ts'

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'

export interface Route<Request extends z.ZodType = z.ZodType, Response extends z.ZodType = z.ZodType> {
  readonly method: Method
  /** `/v1/agents/:name`: each `:param` is a string field of the request. */
  readonly path: `/v1/${string}`
  /** One sentence for docs/control-api.md. */
  readonly summary: string
  /** A strict object of all fields: path params, and the rest from the query (GET, DELETE: strings, use `queryInt`, `queryFlag`) or from the JSON body. */
  readonly request: Request
  /** The resource itself, without `network` (the server puts it first in every answer); for a stream, one line. */
  readonly response: Response
  /** Of success; 200 by default. A task answers 202 while it runs. */
  readonly status?: 200 | 201 | 202
  /** Spends money: needs an Idempotency-Key, and its handler is idempotent by it. */
  readonly spends?: boolean
  /** Of what spends: whether an answer leaves the outcome open, so that the same key may ask again. */
  readonly isOpen?: (answer: Readonly<Record<string, unknown>>) => boolean
  /** Also answered from the database while no node runs: its handler takes ReadServices only. */
  readonly offline?: boolean
  /** Answers NDJSON: the handler gives an async iterable of lines. */
  readonly stream?: boolean
  /** May take long: 202 and a task to wait on; `?wait=<seconds>` waits here. */
  readonly task?: boolean
  /** Codes worth naming in the docs beside invalid_request and internal. */
  readonly errors?: readonly ErrorCode[]
}

/** The routes of one area, with their exact types. */
export function defineRoutes<const T extends Record<string, Route>>(routes: T): T {
  return routes
}

/** What a handler learns of its call beside the input. */
export interface Call {
  /** Of the Idempotency-Key header; a fresh one where the route does not spend and none came. */
  readonly idempotencyKey: string
  /** Aborted when the caller has gone (not for tasks) or the node shuts down. */
  readonly signal: AbortSignal
}

export type Input<R extends Route> = z.input<R['request']>
export type Output<R extends Route> = z.output<R['response']>

export type Handler<R extends Route> = (
  input: z.output<R['request']>,
  call: Call,
) => R extends { readonly stream: true } ? AsyncIterable<Output<R>> : Output<R> | Promise<Output<R>>

/** One handler for each route of a table. */
export type Handlers<T extends Record<string, Route>> = { readonly [K in keyof T]: Handler<T[K]> }

/** An amount in an answer: a JSON integer on the wire, bigint in code at both ends. */
export const msatsField = z.codec(z.int(), z.custom<Msats>(isBigint), { decode: (n) => msats(n), encode: wire })
export const satsField = z.codec(z.int(), z.custom<Sats>(isBigint), { decode: (n) => sats(n), encode: wire })

function isBigint(value: unknown): boolean {
  return typeof value === 'bigint'
}

/** A time in an answer, RFC 3339. */
export const timeField = z.iso.datetime()

/** A whole number in a query string. */
export const queryInt = (min: number, max: number) => z.coerce.number().pipe(z.int().min(min).max(max))
/** `true` or `false` in a query string. */
export const queryFlag = z.enum(['true', 'false'])

/** A bare list of names in a path: `['name']` for `/v1/agents/:name`. */
export function paramsOf(path: string): string[] {
  return [...path.matchAll(/:([a-z_]+)/g)].map((match) => match[1] ?? '')
}

/** One readable line for each problem zod found. */
export function problemsOf(error: z.ZodError): string[] {
  return error.issues.map((issue) => `${issue.path.join('.') || '(request)'}: ${wordsFor(issue)}`)
}

/** zod's own words, but for sizes, which people meet most. */
function wordsFor(issue: z.core.$ZodIssue): string {
  if (issue.code === 'too_big') return issue.origin === 'string' ? `more than ${issue.maximum} characters` : `more than ${issue.maximum}`
  if (issue.code !== 'too_small') return issue.message
  if (issue.origin === 'string' && issue.minimum === 1) return 'must not be empty'
  return issue.origin === 'string' ? `fewer than ${issue.minimum} characters` : `less than ${issue.minimum}`
}

/** The parsed request. @throws invalid_request listing every problem. */
export function parseRequest<R extends Route>(route: R, input: unknown): z.output<R['request']> {
  const parsed = route.request.safeParse(input)
  if (parsed.success) return parsed.data as z.output<R['request']>
  const problems = problemsOf(parsed.error)
  throw new PylonError('invalid_request', `${problems.join('; ')}.`, { details: { problems } })
}
