/** The mint over HTTP: bounded bodies, its websocket, and the sandbox's faults. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { WebSocketServer } from 'ws'
import { ZodError } from 'zod'
import { messageOf } from '../../base/errors.ts'
import { parseJson } from '../../base/json.ts'
import type { Faults } from '../faults.ts'
import { type Listening, listen, readBody, sendJson, sendText } from '../http.ts'
import { MintApi, type MintApiDeps, problemOf } from './api.ts'
import { MINT_ERRORS } from './errors.ts'
import { MintSubscriptions } from './subscriptions.ts'

export interface MintServerOptions extends Omit<MintApiDeps, 'url'> {
  readonly host: string
  readonly port: number
  readonly faults: Faults
}

export interface MintServer {
  readonly url: string
  readonly port: number
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
  const handle = async (request: IncomingMessage, response: ServerResponse) => {
    if (faults.mintDown && request.url !== FAULTS_PATH) return request.socket.destroy()
    await serve(request, response, api, options)
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
    close: () => {
      subscriptions.cutAll()
      return server.close()
    },
  }
}

async function serve(request: IncomingMessage, response: ServerResponse, api: MintApi, { faults, clock }: MintServerOptions) {
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
  const { status, json } = api.answer(method, path, body)
  if (status === 200 && faults.takeDropResponse(path)) return request.socket.destroy()
  sendText(response, status, json)
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
