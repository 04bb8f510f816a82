/** The relay of the sandbox on one port: websockets and its NIP-11 document. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { type WebSocket, WebSocketServer } from 'ws'
import { inlineMoreWasm } from '../../base/wasm-inlining.ts'
import { listen } from '../http.ts'
import type { Peer } from './connection.ts'
import { RELAY_LIMITS, relayDocument } from './limits.ts'
import { Relay, type RelayDeps } from './relay.ts'

export interface RelayOptions extends Omit<RelayDeps, 'isOwnUrl'> {
  readonly host: string
  readonly port: number
}

const PING_INTERVAL_MS = 30_000
const MAX_BUFFERED_BYTES = 32 * 1024 * 1024

/** Starts the relay. Resolves when it listens. @throws port_taken */
export async function startRelay(options: RelayOptions): Promise<RelayServer> {
  inlineMoreWasm()
  const server = new RelayServer(options)
  try {
    await server.open()
  } catch (error) {
    await server.close()
    throw error
  }
  return server
}

export class RelayServer {
  readonly relay: Relay
  #url = ''
  readonly #options: RelayOptions
  readonly #peers = new Set<SocketPeer>()
  readonly #sockets = new WebSocketServer({ noServer: true, maxPayload: RELAY_LIMITS.maxMessageBytes, perMessageDeflate: false })
  #cancelPing = () => {}
  #closeServer: () => Promise<void> = async () => {}

  constructor(options: RelayOptions) {
    this.#options = options
    this.relay = new Relay({ ...options, isOwnUrl: (url) => this.#isOwnUrl(url) })
  }

  /** `ws://127.0.0.1:PORT` */
  get url(): string {
    return this.#url
  }

  get port(): number {
    return Number(new URL(this.#url).port)
  }

  async open(): Promise<void> {
    const server = await listen({
      name: 'relay',
      host: this.#options.host,
      port: this.#options.port,
      onRequest: (request, response) => this.#serveDocument(request, response),
      onUpgrade: (request, socket, head) => {
        if (this.#options.faults.relayDown) return socket.destroy()
        this.#sockets.handleUpgrade(request, socket, head, (ws) => this.#accept(ws, socket))
      },
    })
    this.#closeServer = server.close
    this.#url = `ws://${this.#options.host}:${server.port}`
    this.#pingLater()
  }

  async close(): Promise<void> {
    this.#cancelPing()
    this.relay.close()
    await this.#closeServer()
  }

  /** Same port on a loopback name, whatever the path. */
  #isOwnUrl(url: string): boolean {
    const parsed = URL.parse(url)
    if (parsed === null || parsed.protocol !== 'ws:') return false
    return (parsed.hostname === '127.0.0.1' || parsed.hostname === 'localhost') && parsed.port === String(this.port)
  }

  #accept(socket: WebSocket, stream: Duplex): void {
    const peer = new SocketPeer(socket, stream)
    const connection = this.relay.connect(peer)
    this.#peers.add(peer)
    socket.on('message', (data, isBinary) => connection.receive(isBinary ? undefined : String(data)))
    socket.on('close', () => {
      this.relay.disconnect(connection)
      this.#peers.delete(peer)
    })
  }

  #pingLater(): void {
    this.#cancelPing = this.#options.clock.after(PING_INTERVAL_MS, () => {
      for (const peer of this.#peers) peer.ping()
      this.#pingLater()
    })
  }

  #serveDocument(request: IncomingMessage, response: ServerResponse): void {
    const wantsDocument = request.headers.accept?.includes('application/nostr+json') === true
    response.setHeader('access-control-allow-origin', '*')
    response.setHeader('access-control-allow-headers', '*')
    response.setHeader('access-control-allow-methods', 'GET')
    if (wantsDocument) {
      response.writeHead(200, { 'content-type': 'application/nostr+json' }).end(JSON.stringify(relayDocument()))
    } else response.writeHead(200, { 'content-type': 'text/plain' }).end('A Nostr relay: connect with a websocket.\n')
  }
}

/** The websocket of one client. */
class SocketPeer implements Peer {
  readonly #socket: WebSocket
  readonly #stream: Duplex
  #isAlive = true

  /** @param stream what the websocket writes to. */
  constructor(socket: WebSocket, stream: Duplex) {
    this.#socket = socket
    this.#stream = stream
    socket.on('pong', () => {
      this.#isAlive = true
    })
    socket.on('error', () => socket.terminate())
  }

  /** Cuts off a client that does not read what it asked for. */
  send(text: string) {
    if (this.#socket.readyState !== this.#socket.OPEN) return
    if (this.#socket.bufferedAmount > MAX_BUFFERED_BYTES) return this.#socket.terminate()
    this.#gather()
    this.#socket.send(text)
  }

  /** Everything that is sent in one turn goes out in one system call. */
  #gather(): void {
    if (this.#stream.writableCorked > 0) return
    this.#stream.cork()
    process.nextTick(() => this.#stream.uncork())
  }

  ping() {
    if (!this.#isAlive) return this.#socket.terminate()
    this.#isAlive = false
    this.#socket.ping()
  }

  cut(): void {
    this.#stream.uncork()
    this.#socket.terminate()
  }
}
