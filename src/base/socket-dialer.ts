/** A dialer with one door: whatever the address, it is a Unix socket of this machine that is connected to. */
import { constants, openSync } from 'node:fs'
import { request } from 'node:http'
import { connect } from 'node:net'
import { basename, dirname } from 'node:path'
import { WebSocket as SystemWebSocket } from 'ws'
import type { Dialer, FetchOptions, FetchResponse } from './dialer.ts'
import { messageOf, PylonError } from './errors.ts'
import { MAX_SOCKET_PATH } from './unix-websocket-server.ts'

const DEFAULT_TIMEOUT_MS = 10_000
const DEFAULT_MAX_BYTES = 1_048_576
/** Linux: a descriptor that only names what it is of. */
const O_PATH = 0o10000000

/** @param socketPath of any length */
export function createSocketDialer(socketPath: string): Dialer {
  const address = addressOf(socketPath)
  return {
    allow() {},
    isAllowed: () => true,
    fetch: (url, options = {}) => exchange(address, url, options),
    connectWebSocket(url, { maxPayloadBytes = DEFAULT_MAX_BYTES, handshakeTimeoutMs = DEFAULT_TIMEOUT_MS } = {}) {
      return new SystemWebSocket(url.replace(/^wss:/, 'ws:'), {
        maxPayload: maxPayloadBytes,
        handshakeTimeout: handshakeTimeoutMs,
        perMessageDeflate: false,
        followRedirects: false,
        createConnection: () => connect({ path: address() }),
      })
    },
    async close() {},
  }
}

/** Where a path is too long for an address, its folder is held and named by descriptor. */
function addressOf(path: string): () => string {
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH) return () => path
  let folder: number | undefined
  return () => {
    folder ??= openSync(dirname(path), O_PATH | constants.O_DIRECTORY)
    return `/proc/self/fd/${folder}/${basename(path)}`
  }
}

function exchange(address: () => string, url: string, options: FetchOptions): Promise<FetchResponse> {
  const { method = 'GET', headers = {}, timeoutMs = DEFAULT_TIMEOUT_MS, maxBytes = DEFAULT_MAX_BYTES } = options
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => reject(new PylonError('fetch_failed', `${url} could not be fetched: ${messageOf(error)}`))
    const where = { socketPath: address(), path: new URL(url).pathname, timeout: timeoutMs }
    const outgoing = request({ ...where, method, headers: { ...headers } }, (response) => {
      const chunks: Buffer[] = []
      let size = 0
      response.on('data', (chunk: Buffer) => {
        size += chunk.length
        if (size > maxBytes) outgoing.destroy(new Error(`more than ${maxBytes} bytes`))
        else chunks.push(chunk)
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: {}, text: Buffer.concat(chunks).toString('utf8') }))
      response.on('error', fail)
    })
    outgoing.on('timeout', () => outgoing.destroy(new Error('no answer')))
    outgoing.on('error', fail)
    outgoing.end(options.body)
  })
}
