/** A WebSocket server on a Unix socket of this host: for programs that run here and reach nothing else. */
import { chmodSync, closeSync, constants, openSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { basename, dirname } from 'node:path'
import { WebSocketServer } from 'ws'
import type { WebSocket } from './dialer.ts'

/** Longest path that a socket address holds. */
export const MAX_SOCKET_PATH = 107
/** Linux: a descriptor that only names what it is of. */
const O_PATH = 0o10000000

export interface UnixWebSocketOptions {
  /** Of one message; more ends the connection. */
  readonly maxPayloadBytes: number
  /** Answers whatever is no WebSocket: JSON of this type. */
  readonly document: { readonly type: string; readonly body: string }
  readonly onConnection: (socket: WebSocket) => void
}

export class UnixWebSocketServer {
  readonly #path: string
  readonly #server: Server
  readonly #sockets: WebSocketServer
  /** Of the folder, where the path is too long for an address. */
  #folder: number | undefined

  constructor(path: string, { maxPayloadBytes, document, onConnection }: UnixWebSocketOptions) {
    this.#path = path
    this.#sockets = new WebSocketServer({ noServer: true, maxPayload: maxPayloadBytes, perMessageDeflate: false })
    this.#server = createServer({ headersTimeout: 10_000, requestTimeout: 10_000 }, (_request, response) => {
      response.writeHead(200, { 'content-type': document.type, 'content-length': Buffer.byteLength(document.body) }).end(document.body)
    })
    this.#server.on('upgrade', (request, socket, head) => {
      this.#sockets.handleUpgrade(request, socket, head, (ws) => {
        // What is wrong with a connection ends it, and its end is heard.
        ws.on('error', () => ws.terminate())
        onConnection(ws)
      })
    })
  }

  /** Takes the place of a socket that was left there. @throws Error as the system says it */
  async listen(): Promise<void> {
    rmSync(this.#path, { force: true })
    const address = this.#address()
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(address, resolve)
    })
    chmodSync(this.#path, 0o600)
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets.clients) socket.terminate()
    this.#server.closeAllConnections()
    if (this.#server.listening) await new Promise<void>((resolve) => this.#server.close(() => resolve()))
    if (this.#folder !== undefined) closeSync(this.#folder)
    this.#folder = undefined
    rmSync(this.#path, { force: true })
  }

  #address(): string {
    if (Buffer.byteLength(this.#path) <= MAX_SOCKET_PATH) return this.#path
    this.#folder = openSync(dirname(this.#path), O_PATH | constants.O_DIRECTORY)
    return `/proc/self/fd/${this.#folder}/${basename(this.#path)}`
  }
}
