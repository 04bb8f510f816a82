/** What the three servers of the sandbox share: listening on loopback, bounded bodies, JSON answers. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { PylonError } from '../base/errors.ts'
import { stringify } from '../base/json.ts'
import { hasManyHosts } from '../base/one-host.ts'

const TWO_HOSTS = 'the request has more than one Host header'

export interface ListenOptions {
  /** For the error message: which of the servers. */
  readonly name: string
  readonly host: string
  /** 0 lets the system choose. */
  readonly port: number
  onRequest(request: IncomingMessage, response: ServerResponse): void
  onUpgrade?(request: IncomingMessage, socket: Duplex, head: Buffer): void
}

export interface Listening {
  readonly port: number
  close(): Promise<void>
}

/** @throws port_taken when another program listens there. */
export async function listen(options: ListenOptions): Promise<Listening> {
  const server = createServer((request, response) => {
    if (hasManyHosts(request)) {
      response.setHeader('connection', 'close')
      sendJson(response, 400, { error: TWO_HOSTS, detail: TWO_HOSTS, code: 0 })
    } else options.onRequest(request, response)
  })
  server.on('upgrade', (request, socket, head) => {
    socket.on('error', () => socket.destroy())
    if (hasManyHosts(request)) socket.end(`HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`)
    else if (options.onUpgrade === undefined) socket.destroy()
    else options.onUpgrade(request, socket, head)
  })
  server.on('clientError', (_error, socket) => socket.destroy())
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(portError(error, options)))
    server.listen(options.port, options.host, resolve)
  })
  server.on('error', () => {})
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function portError(error: NodeJS.ErrnoException, options: ListenOptions): Error {
  if (error.code !== 'EADDRINUSE' && error.code !== 'EACCES') return error
  return new PylonError(
    'port_taken',
    `Port ${options.port}, which this sandbox uses for its ${options.name}, is taken by another program: stop that program, ` +
      `or delete ports.json in the sandbox folder to choose new ports (addresses and tokens of this sandbox then change).`,
    { details: { port: options.port, server: options.name }, cause: error },
  )
}

/** The body as bytes, or undefined when it is over `maxBytes` or the client went away. */
export async function readBody(request: IncomingMessage, maxBytes: number): Promise<Buffer | undefined> {
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      size += chunk.length
      if (size > maxBytes) return undefined
      chunks.push(chunk)
    }
  } catch {
    return undefined
  }
  return Buffer.concat(chunks)
}

/** Answers with JSON that any page may read (other people's wallets run in browsers). */
export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  sendText(response, status, stringify(body))
}

/** The same with a body that is JSON already. */
export function sendText(response: ServerResponse, status: number, json: string): void {
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(json),
    'access-control-allow-origin': '*',
    'access-control-allow-headers': '*',
    'access-control-allow-methods': 'GET, POST, OPTIONS',
  })
  response.end(json)
}
