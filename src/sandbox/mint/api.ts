/** The mint's HTTP interface without HTTP: method, path and body in, status and JSON out; repeated requests by NUT-19. */
import { hash } from 'node:crypto'
import { pointFromScalar } from 'tiny-secp256k1'
import { ZodError, type z } from 'zod'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import { parseJson, stringify } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import { VERSION } from '../../base/version.ts'
import type { SandboxDatabase } from '../database.ts'
import { MINT_ERRORS, MintError } from './errors.ts'
import { CACHED_PATHS, mintInfo, RESPONSE_TTL_SECONDS } from './info.ts'
import type { Mint } from './mint.ts'
import * as requests from './requests.ts'

export interface MintApiDeps {
  readonly database: SandboxDatabase
  readonly mint: Mint
  readonly clock: Clock
  readonly logger: Logger
  /** Where it is served. */
  url(): string
  /** What `GET /sandbox` tells, beside network and version. */
  readonly siblings: { readonly lnurl_base_url: string; readonly relay_url: string }
}

export interface MintAnswer {
  readonly status: number
  readonly json: string
}

type Route = (body: Buffer, parameter: string) => unknown

export class MintApi {
  readonly #deps: MintApiDeps
  readonly #routes: Map<string, Route>

  constructor(deps: MintApiDeps) {
    this.#deps = deps
    this.#routes = createRoutes(deps)
    forgetOld(deps)
  }

  /** @param path without its query */
  answer(method: string, path: string, body: Buffer): MintAnswer {
    const found = findRoute(this.#routes, method, path)
    if (found === undefined) return { status: 404, json: stringify({ detail: 'no such route', code: MINT_ERRORS.invalid_request }) }
    return execute(found, path, body, this.#deps)
  }
}

function createRoutes({ mint, database, clock, url, siblings }: MintApiDeps): Map<string, Route> {
  const pubkey = Buffer.from(pointFromScalar(database.secret('node_key'), true) as Uint8Array).toString('hex')
  const post = <T extends z.ZodType>(schema: T, fn: (body: z.output<T>) => unknown): Route => {
    return (body) => fn(schema.parse(parseJson(body.toString())))
  }
  return new Map<string, Route>([
    ['GET /v1/info', () => mintInfo({ mintUrl: url(), pubkey, nowSeconds: unixSeconds(clock) })],
    ['GET /v1/keys', () => mint.activeKeys()],
    ['GET /v1/keys/*', (_body, id) => mint.keys(id)],
    ['GET /v1/keysets', () => mint.keysets()],
    ['POST /v1/swap', post(requests.swapSchema, (body) => mint.swap(body))],
    ['POST /v1/mint/quote/bolt11', post(requests.mintQuoteSchema, (body) => mint.createMintQuote(body))],
    ['GET /v1/mint/quote/bolt11/*', (_body, id) => mint.mintQuote(id)],
    ['POST /v1/mint/bolt11', post(requests.mintSchema, (body) => mint.mint(body))],
    ['POST /v1/melt/quote/bolt11', post(requests.meltQuoteSchema, (body) => mint.createMeltQuote(body))],
    ['GET /v1/melt/quote/bolt11/*', (_body, id) => mint.meltQuote(id)],
    ['POST /v1/melt/bolt11', post(requests.meltSchema, (body) => mint.melt(body))],
    ['POST /v1/checkstate', post(requests.checkStateSchema, (body) => mint.checkState(body))],
    ['POST /v1/restore', post(requests.restoreSchema, (body) => mint.restore(body))],
    ['GET /sandbox', () => ({ ...siblings, network: 'sandbox', version: VERSION })],
    ['POST /sandbox/pay', post(requests.paySchema, ({ request }) => mint.payFromNowhere(request))],
  ])
}

function findRoute(routes: Map<string, Route>, method: string, path: string): { route: Route; parameter: string } | undefined {
  const exact = routes.get(`${method} ${path}`)
  if (exact !== undefined) return { route: exact, parameter: '' }
  const cut = path.lastIndexOf('/')
  const route = routes.get(`${method} ${path.slice(0, cut)}/*`)
  return route === undefined ? undefined : { route, parameter: path.slice(cut + 1) }
}

/** Runs the route; where NUT-19 applies, the answer is stored in the same transaction as what it answers. */
function execute(found: { route: Route; parameter: string }, path: string, body: Buffer, deps: MintApiDeps): MintAnswer {
  const { database, mint, clock, logger } = deps
  try {
    if (!CACHED_PATHS.includes(path)) return { status: 200, json: stringify(found.route(body, found.parameter)) }
    const key = hash('sha256', Buffer.concat([Buffer.from(`POST ${path}\n`), body]))
    const stored = database.sql('SELECT body FROM responses WHERE key = ?').pluck().get(key)
    if (typeof stored === 'string') return { status: 200, json: stored }
    const json = mint.atomically(() => {
      const answer = found.route(body, found.parameter)
      const text = stringify(answer)
      // What is under way has no answer yet that could be repeated.
      if ((answer as { state?: unknown }).state === 'PENDING') return text
      database.sql('INSERT INTO responses (key, body, stored_at) VALUES (?, ?, ?)').run(key, text, unixSeconds(clock))
      return text
    })
    return { status: 200, json }
  } catch (error) {
    if (error instanceof MintError) return { status: 400, json: stringify({ detail: error.message, code: error.code }) }
    if (error instanceof ZodError) return { status: 400, json: stringify({ detail: problemOf(error), code: MINT_ERRORS.invalid_request }) }
    logger.error({ err: messageOf(error) }, 'mint fault')
    return { status: 500, json: stringify({ detail: 'internal error', code: MINT_ERRORS.invalid_request }) }
  }
}

/** What is wrong with a request that its schema refuses. */
export function problemOf(error: ZodError): string {
  const issue = error.issues[0]
  return issue === undefined ? 'malformed request' : `malformed request: ${issue.path.join('.')} ${issue.message}`
}

/** Drops stored answers and unpaid quotes that nobody can ask for any more. */
function forgetOld({ database, clock }: MintApiDeps): void {
  const before = unixSeconds(clock) - RESPONSE_TTL_SECONDS
  database.transaction(() => {
    database.sql('DELETE FROM responses WHERE stored_at < ?').run(before)
    const stale = "SELECT id FROM mint_quotes WHERE state = 'UNPAID' AND expiry < ?"
    database.sql(`DELETE FROM address_payments WHERE quote_id IN (${stale})`).run(before)
    database.sql(`DELETE FROM mint_quotes WHERE id IN (${stale})`).run(before)
    database.sql("DELETE FROM melt_quotes WHERE state = 'UNPAID' AND expiry < ?").run(before)
  })
}
