/** The LNURL server of the sandbox on its port. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { listen, readBody, sendJson } from '../http.ts'
import { Lnurl, type LnurlDeps } from './lnurl.ts'

export interface LnurlServerOptions extends Omit<LnurlDeps, 'url'> {
  readonly host: string
  readonly port: number
}

export interface LnurlServer {
  /** `http://127.0.0.1:PORT` */
  readonly url: string
  readonly port: number
  close(): Promise<void>
}

const MAX_BODY_BYTES = 16 * 1024

/** Starts the server and publishes receipts that a crash left behind. @throws port_taken */
export async function startLnurlServer(options: LnurlServerOptions): Promise<LnurlServer> {
  let url = ''
  const lnurl = new Lnurl({ ...options, url: () => url })
  const { host } = options
  const { port, close } = await listen({
    name: 'LNURL server',
    host,
    port: options.port,
    onRequest: (request, response) => void serve(request, response, lnurl),
  })
  url = `http://${host}:${port}`
  lnurl.start()
  return {
    url,
    port,
    async close() {
      await close()
      await lnurl.idle()
    },
  }
}

async function serve(request: IncomingMessage, response: ServerResponse, lnurl: Lnurl): Promise<void> {
  const body = await readBody(request, MAX_BODY_BYTES)
  if (body === undefined) {
    response.setHeader('connection', 'close')
    return sendJson(response, 413, { status: 'ERROR', reason: 'the request is too large' })
  }
  const { method = 'GET', url = '/' } = request
  if (method === 'OPTIONS') return sendJson(response, 200, {})
  const answer = lnurl.answer({ method, target: url, authorization: request.headers.authorization, body })
  sendJson(response, answer.status, answer.body)
}
