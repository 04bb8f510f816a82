/** The mint over HTTP: bounded bodies, its websocket, and the sandbox's faults. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { WebSocketServer } from 'ws'
import { ZodError } from 'zod'
import { messageOf } from '../../base/errors.ts'
import { parseJson, stringify } from '../../base/json.ts'
import type { Faults } from '../faults.ts'
import { type Listening, listen, readBody, sendJson, sendText } from '../http.ts'
import { type MintAnswer, MintApi, type MintApiDeps, problemOf } from './api.ts'
import { MINT_ERRORS } from './errors.ts'
import { partSchema, SandboxLightning } from './lightning.ts'
import type { Mint } from './mint.ts'
import { MintSubscriptions } from './subscriptions.ts'

export interface MintServerOptions extends Omit<MintApiDeps, 'url'> {
  readonly host: string
  readonly port: number
  readonly faults: Faults
  /** Asks a peer, another sandbox on this machine. */
  post(url: string, body: string): Promise<string>
}

export interface MintServer {
  readonly url: string
  readonly port: number
  /** The mints of other sandboxes whose invoices this one pays from now on. */
  knowPeers(urls: readonly string[]): void
  close(): Promise<void>
}

const MAX_BODY_BYTES = 4 * 1024 * 1024
const MAX_MESSAGE_BYTES = 256 * 1024
/** Answered even while the mint plays dead, so that it can be healed. */
const FAULTS_PATH = '/sandbox/faults'

/** Starts the mint's server. @throws port_taken */
export async function startMintServer(options: MintServerOptions): Promise<MintServer> {
  const { mint, faults, logger } = options
  let url = ''
  const subscriptions = new MintSubscriptions(mint)
  const sockets = new WebSocketServer({ noServer: true, maxPayload: MAX_MESSAGE_BYTES, perMessageDeflate: false })
  const api = new MintApi({ ...options, url: () => url })
  const lightning = new SandboxLightning(options)
  mint.lightning = lightning
  const handle = async (request: IncomingMessage, response: ServerResponse) => {
    if (faults.mintDown && request.url !== FAULTS_PATH) return request.socket.destroy()
    await serve(request, response, { api, lightning }, options)
  }
  const server: Listening = await listen({
    name: 'mint',
    host: options.host,
    port: options.port,
    onRequest: (request, response) => {
      handle(request, response).catch((error: unknown) => {
        logger.error({ err: messageOf(error) }, 'mint request failed')
        response.destroy()
      })
    },
    onUpgrade: (request, socket, head) => {
      if (faults.mintDown || request.url !== '/v1/ws') return socket.destroy()
      sockets.handleUpgrade(request, socket, head, (ws) => {
        const send = (text: string) => {
          if (ws.readyState === ws.OPEN) ws.send(text)
        }
        const client = subscriptions.connect({ send, cut: () => ws.terminate() })
        ws.on('error', () => ws.terminate())
        ws.on('close', () => client.close())
        ws.on('message', (data) => client.receive(String(data)))
      })
    },
  })
  url = `http://${options.host}:${server.port}`
  return {
    url,
    port: server.port,
    knowPeers: (urls) => {
      lightning.peers = urls
    },
    close: () => {
      subscriptions.cutAll()
      return server.close()
    },
  }
}

interface Served {
  readonly api: MintApi
  readonly lightning: SandboxLightning
}

async function serve(request: IncomingMessage, response: ServerResponse, { api, lightning }: Served, options: MintServerOptions) {
  const { faults, clock } = options
  const method = request.method ?? 'GET'
  const path = (request.url ?? '/').split('?')[0] ?? '/'
  if (method === 'OPTIONS') return sendJson(response, 200, {})
  const body = await readBody(request, MAX_BODY_BYTES)
  if (body === undefined) {
    response.setHeader('connection', 'close')
    return sendJson(response, 413, { detail: 'the request is too large', code: MINT_ERRORS.invalid_request })
  }
  if (method === 'POST' && path === FAULTS_PATH) return order(request, response, body, faults)
  const failure = faults.takeFailure(path)
  if (failure !== undefined) return sendJson(response, failure.status, failure.body)
  const delayMs = faults.takeDelayMs(path)
  if (delayMs > 0) await clock.sleep(delayMs)
  if (method === 'POST' && path === '/sandbox/lightning') return await takePart(response, body, lightning)
  const { status, json } = await afterPayment(api.answer(method, path, body), path, options.mint, lightning)
  if (status === 200 && faults.takeDropResponse(path)) return request.socket.destroy()
  sendText(response, status, json)
}

/** A melt that left for another mint is answered when it has ended. */
async function afterPayment(answer: MintAnswer, path: string, mint: Mint, lightning: SandboxLightning): Promise<MintAnswer> {
  const { quote, state } = (path === '/v1/melt/bolt11' ? parseJson(answer.json) : {}) as { quote?: string; state?: string }
  if (answer.status !== 200 || quote === undefined || state !== 'PENDING') return answer
  await lightning.ended(quote)
  const now = mint.meltQuote(quote)
  if (now['state'] !== 'UNPAID') return { status: 200, json: stringify(now) }
  return { status: 400, json: stringify({ detail: 'Lightning payment failed', code: MINT_ERRORS.payment_failed }) }
}

async function takePart(response: ServerResponse, body: Buffer, lightning: SandboxLightning) {
  const part = partSchema.safeParse(parseJson(body.toString()))
  if (!part.success) return sendJson(response, 400, { detail: problemOf(part.error), code: MINT_ERRORS.invalid_request })
  sendJson(response, 200, await lightning.receive(part.data))
}

function order(request: IncomingMessage, response: ServerResponse, body: Buffer, faults: Faults) {
  if (request.headers.origin !== undefined) return sendJson(response, 403, { detail: 'not for browsers' })
  try {
    faults.apply(parseJson(body.toString()))
  } catch (error) {
    if (!(error instanceof ZodError)) throw error
    return sendJson(response, 400, { detail: problemOf(error), code: MINT_ERRORS.invalid_request })
  }
  sendJson(response, 200, {})
}
