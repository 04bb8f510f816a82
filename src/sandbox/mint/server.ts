/** The mint over HTTP: routes, bounded bodies, repeated requests (NUT-19), and the sandbox's own routes. */
import { hash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { pointFromScalar } from 'tiny-secp256k1'
import { ZodError, type z } from 'zod'
import { type Clock, unixSeconds } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import { parseJson, stringify } from '../../base/json.ts'
import type { Logger } from '../../base/logger.ts'
import { VERSION } from '../../base/version.ts'
import type { SandboxDatabase } from '../database.ts'
import type { Faults } from '../faults.ts'
import { type Listening, listen, readBody, sendJson, sendText } from '../http.ts'
import { MINT_ERRORS, MintError } from './errors.ts'
import { CACHED_PATHS, mintInfo, RESPONSE_TTL_SECONDS } from './info.ts'
import type { Mint } from './mint.ts'
import * as requests from './requests.ts'
import { MintSubscriptions } from './subscriptions.ts'

export interface MintServerOptions {
  readonly database: SandboxDatabase
  readonly mint: Mint
  readonly host: string
  readonly port: number
  readonly clock: Clock
  readonly logger: Logger
  readonly faults: Faults
  /** What `GET /sandbox` tells, beside network and version. */
  readonly siblings: { readonly lnurl_base_url: string; readonly relay_url: string }
}

export interface MintServer {
  readonly url: string
  readonly port: number
  close(): Promise<void>
}

type Route = (body: Buffer, parameter: string) => unknown

const MAX_BODY_BYTES = 4 * 1024 * 1024
/** Answered even while the mint plays dead, so that it can be healed. */
const FAULTS_PATH = '/sandbox/faults'

/** Starts the mint's server. @throws port_taken */
export async function startMintServer(options: MintServerOptions): Promise<MintServer> {
  let url = ''
  const subscriptions = new MintSubscriptions(options.mint)
  const routes = createRoutes(options, () => url)
  const handle = async (request: IncomingMessage, response: ServerResponse) => {
    if (options.faults.mintDown && request.url !== FAULTS_PATH) return request.socket.destroy()
    await serve(request, response, routes, options)
  }
  const server: Listening = await listen({
    name: 'mint',
    host: options.host,
    port: options.port,
    onRequest: (request, response) => {
      handle(request, response).catch((error: unknown) => {
        options.logger.error({ err: messageOf(error) }, 'mint request failed')
        response.destroy()
      })
    },
    onUpgrade: (request, socket, head) => {
      if (options.faults.mintDown || request.url !== '/v1/ws') return socket.destroy()
      const { server: sockets } = subscriptions
      sockets.handleUpgrade(request, socket, head, (ws) => sockets.emit('connection', ws, request))
    },
  })
  url = `http://${options.host}:${server.port}`
  forgetOld(options)
  return {
    url,
    port: server.port,
    close: () => {
      subscriptions.cutAll()
      return server.close()
    },
  }
}

function createRoutes(options: MintServerOptions, mintUrl: () => string): Map<string, Route> {
  const { mint, database, clock, faults } = options
  const pubkey = Buffer.from(pointFromScalar(database.secret('node_key'), true) as Uint8Array).toString('hex')
  const post = <T extends z.ZodType>(schema: T, fn: (body: z.output<T>) => unknown): Route => {
    return (body) => fn(schema.parse(parseJson(body.toString())))
  }
  return new Map<string, Route>([
    ['GET /v1/info', () => mintInfo({ mintUrl: mintUrl(), pubkey, nowSeconds: unixSeconds(clock) })],
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
    ['GET /sandbox', () => ({ ...options.siblings, network: 'sandbox', version: VERSION })],
    ['POST /sandbox/pay', post(requests.paySchema, ({ request }) => mint.payFromNowhere(request))],
    [
      `POST ${FAULTS_PATH}`,
      (body) => {
        faults.apply(parseJson(body.toString()))
        return {}
      },
    ],
  ])
}

function findRoute(routes: Map<string, Route>, method: string, path: string): { route: Route; parameter: string } | undefined {
  const exact = routes.get(`${method} ${path}`)
  if (exact !== undefined) return { route: exact, parameter: '' }
  const cut = path.lastIndexOf('/')
  const route = routes.get(`${method} ${path.slice(0, cut)}/*`)
  return route === undefined ? undefined : { route, parameter: path.slice(cut + 1) }
}

async function serve(request: IncomingMessage, response: ServerResponse, routes: Map<string, Route>, options: MintServerOptions) {
  const { faults, clock } = options
  const method = request.method ?? 'GET'
  const path = (request.url ?? '/').split('?')[0] ?? '/'
  if (method === 'OPTIONS') return sendJson(response, 200, {})
  const body = await readBody(request, MAX_BODY_BYTES)
  if (body === undefined) {
    response.setHeader('connection', 'close')
    return sendJson(response, 413, { detail: 'the request is too large', code: MINT_ERRORS.invalid_request })
  }
  const found = findRoute(routes, method, path)
  if (found === undefined) return sendJson(response, 404, { detail: 'no such route', code: MINT_ERRORS.invalid_request })
  if (path === FAULTS_PATH && request.headers.origin !== undefined) return sendJson(response, 403, { detail: 'not for browsers' })
  const failure = faults.takeFailure(path)
  if (failure !== undefined) return sendJson(response, failure.status, failure.body)
  const delayMs = faults.takeDelayMs(path)
  if (delayMs > 0) await clock.sleep(delayMs)
  const { status, json } = execute(found, path, body, options)
  if (status === 200 && faults.takeDropResponse(path)) return request.socket.destroy()
  sendText(response, status, json)
}

/** Runs the route; where NUT-19 applies, the answer is stored in the same transaction as what it answers. */
function execute(found: { route: Route; parameter: string }, path: string, body: Buffer, options: MintServerOptions) {
  const { database, mint, clock, logger } = options
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

function problemOf(error: ZodError): string {
  const issue = error.issues[0]
  return issue === undefined ? 'malformed request' : `malformed request: ${issue.path.join('.')} ${issue.message}`
}

/** Drops stored answers and unpaid quotes that nobody can ask for any more. */
function forgetOld({ database, clock }: MintServerOptions): void {
  const before = unixSeconds(clock) - RESPONSE_TTL_SECONDS
  database.transaction(() => {
    database.sql('DELETE FROM responses WHERE stored_at < ?').run(before)
    const stale = "SELECT id FROM mint_quotes WHERE state = 'UNPAID' AND expiry < ?"
    database.sql(`DELETE FROM address_payments WHERE quote_id IN (${stale})`).run(before)
    database.sql(`DELETE FROM mint_quotes WHERE id IN (${stale})`).run(before)
    database.sql("DELETE FROM melt_quotes WHERE state = 'UNPAID' AND expiry < ?").run(before)
  })
}
