/** HTTP to an Incus daemon: over its Unix socket, or over HTTPS with a client certificate and the pinned server certificate. */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { isPylonError, messageOf, PylonError } from '../../base/errors.ts'
import { type PinnedTls, pinnedTlsOptions } from '../../base/pinned-tls.ts'
import { connectServiceWebSocket, type ServiceSocketTarget, type WebSocket } from '../../base/service-websocket.ts'

export type IncusEndpoint = { readonly socketPath: string } | { readonly url: string; readonly tls: PinnedTls }

export interface TransportRequest {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** With its query. */
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Uint8Array | undefined
  /** For the whole exchange. */
  readonly timeoutMs: number
  /** The longest body that is read; a longer one is `truncated`. */
  readonly maxBytes: number
  readonly signal?: AbortSignal | undefined
}

export interface TransportResponse {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
  readonly truncated: boolean
}

const SOCKETS = 32

export class Transport {
  /** For messages: `unix:/path` or the URL. */
  readonly name: string
  readonly #target: ServiceSocketTarget
  readonly #agent: HttpAgent | HttpsAgent

  /** @throws usage when the URL is not https://host:port alone; config_invalid when the pinned certificate cannot be read. */
  constructor(endpoint: IncusEndpoint) {
    const target = 'socketPath' in endpoint ? endpoint : { origin: originOf(endpoint.url), tls: endpoint.tls }
    this.#target = target
    this.name = 'origin' in target ? target.origin : `unix:${target.socketPath}`
    // Sessions are not resumed, so that every connection shows the certificate that is pinned.
    this.#agent =
      'origin' in target
        ? new HttpsAgent({ keepAlive: true, maxSockets: SOCKETS, maxCachedSessions: 0, ...pinnedTlsOptions(target.tls) })
        : new HttpAgent({ keepAlive: true, maxSockets: SOCKETS })
  }

  /** @throws incus_unreachable, incus_untrusted, timeout, cancelled */
  async request(request: TransportRequest): Promise<TransportResponse> {
    try {
      return await this.#once(request)
    } catch (error) {
      // The daemon closed an idle connection just when it was taken; only what changes nothing is asked again.
      const isSafe = request.method === 'GET' || request.method === 'HEAD'
      if (isSafe && isPylonError(error, 'incus_unreachable') && error.details['stale'] === true) return await this.#once(request)
      throw error
    }
  }

  webSocket(path: string): WebSocket {
    return connectServiceWebSocket(this.#target, path)
  }

  close(): void {
    this.#agent.destroy()
  }

  #once(request: TransportRequest): Promise<TransportResponse> {
    const { method, path, body, timeoutMs, signal } = request
    const target = this.#target
    const limit = AbortSignal.timeout(timeoutMs)
    const options = {
      ...{ method, path, agent: this.#agent, signal: signal === undefined ? limit : AbortSignal.any([limit, signal]) },
      headers: { ...request.headers, ...(body === undefined ? {} : { 'content-length': String(body.length) }) },
    }
    return new Promise((resolve, reject) => {
      const onResponse = (response: IncomingMessage) => void readBody(response, request.maxBytes).then(resolve, fail)
      const outgoing =
        'origin' in target
          ? httpsRequest(new URL(path, target.origin), options, onResponse)
          : httpRequest({ ...options, socketPath: target.socketPath, host: 'incus' }, onResponse)
      const fail = (error: unknown) => reject(asTransportError(error, this.name, request, outgoing.reusedSocket))
      outgoing.on('error', fail)
      outgoing.end(body)
    })
  }
}

function originOf(url: string): string {
  const parsed = URL.canParse(url) ? new URL(url) : undefined
  if (parsed?.protocol !== 'https:' || parsed.pathname !== '/' || parsed.search !== '' || parsed.username !== '') {
    throw new PylonError('usage', `${url} is no Incus endpoint: give unix:/path/to/unix.socket or https://host:port.`)
  }
  return parsed.origin
}

async function readBody(response: IncomingMessage, maxBytes: number): Promise<TransportResponse> {
  const chunks: Buffer[] = []
  let size = 0
  let truncated = false
  for await (const chunk of response) {
    const bytes = chunk as Buffer
    const room = maxBytes - size
    chunks.push(bytes.length > room ? bytes.subarray(0, room) : bytes)
    size += bytes.length
    if (size > maxBytes) {
      truncated = true
      break
    }
  }
  if (truncated) response.destroy()
  const headers = Object.fromEntries(
    Object.entries(response.headers).flatMap(([key, value]) => (value === undefined ? [] : [[key, String(value)]])),
  )
  return { status: response.statusCode ?? 0, headers, body: Buffer.concat(chunks), truncated }
}

function asTransportError(error: unknown, name: string, request: TransportRequest, stale: boolean): PylonError {
  const what = `${request.method} ${request.path.split('?')[0]}`
  if (request.signal?.aborted === true) return new PylonError('cancelled', `${what} at ${name} was given up.`, { cause: error })
  const { name: errorName, code, cause } = error as { name?: string; code?: string; cause?: { name?: string } }
  if (errorName === 'TimeoutError' || cause?.name === 'TimeoutError') {
    return new PylonError('timeout', `Incus at ${name} did not answer ${what} within ${request.timeoutMs} ms.`, { cause: error })
  }
  const words = messageOf(error)
  if (/pinned|CERT|certificate|SELF_SIGNED|tls|ssl|alert/i.test(`${code ?? ''} ${words}`)) {
    return new PylonError(
      'incus_untrusted',
      `No trusted connection to Incus at ${name}: ${words}. Check the pinned server certificate and ours.`,
      {
        cause: error,
      },
    )
  }
  const hint =
    code === 'EACCES'
      ? 'this user may not open the socket: join the group incus-admin'
      : 'check that the daemon runs and the endpoint is right'
  return new PylonError('incus_unreachable', `Incus at ${name} does not answer (${code ?? words}): ${hint}.`, {
    details: { endpoint: name, stale: stale && (code === 'ECONNRESET' || code === 'EPIPE') },
    cause: error,
  })
}
