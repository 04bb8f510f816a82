/** A raw relay for tests that does what the test says: a bare store and forward, with every answer open to change. */
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type WebSocket, WebSocketServer } from 'ws'

export interface ScriptedConnection {
  readonly subs: Map<string, Record<string, unknown>[]>
  send(frame: unknown): void
  sendRaw(text: string): void
  drop(): void
}

export interface ScriptedRelayOptions {
  readonly port?: number
  /** What it says of itself (NIP-11); nothing when absent. */
  readonly info?: unknown
  /** Sent first on every connection. */
  onConnect?(connection: ScriptedConnection): void
  /** Answers a frame; return true when it did, else the default happens (REQ: stored events and EOSE; EVENT: OK true and forward). */
  onFrame?(frame: unknown[], connection: ScriptedConnection): boolean | undefined
}

export interface ScriptedEvent {
  readonly id: string
  readonly kind: number
  readonly pubkey: string
  readonly created_at: number
  readonly tags: readonly (readonly string[])[]
}

export class ScriptedRelay {
  readonly url: string
  /** Sent in answer to every REQ whose filter matches by kinds, authors and since. */
  readonly stored: ScriptedEvent[] = []
  /** Every frame received. */
  readonly frames: unknown[][] = []
  readonly connections = new Set<ScriptedConnection>()
  readonly #server: Server

  private constructor(server: Server, options: ScriptedRelayOptions) {
    this.#server = server
    this.url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`
    new WebSocketServer({ server }).on('connection', (socket) => this.#serve(socket, options))
  }

  static start(options: ScriptedRelayOptions = {}): Promise<ScriptedRelay> {
    const server = createServer((_request, response) => {
      if (options.info === undefined) response.statusCode = 404
      response.end(JSON.stringify(options.info))
    })
    return new Promise((resolve) => {
      server.listen(options.port ?? 0, '127.0.0.1', () => resolve(new ScriptedRelay(server, options)))
    })
  }

  /** The frames of one type. */
  received(type: string): unknown[][] {
    return this.frames.filter((frame) => frame[0] === type)
  }

  /** Sends an event on every open subscription, matching or not. */
  push(event: unknown): void {
    for (const connection of this.connections) for (const sub of connection.subs.keys()) connection.send(['EVENT', sub, event])
  }

  dropAll(): void {
    for (const connection of this.connections) connection.drop()
  }

  async stop(): Promise<void> {
    this.dropAll()
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  #serve(socket: WebSocket, options: ScriptedRelayOptions): void {
    const connection: ScriptedConnection = {
      subs: new Map(),
      send: (frame) => socket.send(JSON.stringify(frame)),
      sendRaw: (text) => socket.send(text),
      drop: () => socket.terminate(),
    }
    this.connections.add(connection)
    socket.on('close', () => this.connections.delete(connection))
    socket.on('error', () => {})
    options.onConnect?.(connection)
    socket.on('message', (data) => {
      const frame = JSON.parse(String(data)) as unknown[]
      this.frames.push(frame)
      if (frame[0] === 'REQ') connection.subs.set(String(frame[1]), frame.slice(2) as Record<string, unknown>[])
      if (frame[0] === 'CLOSE') connection.subs.delete(String(frame[1]))
      if (options.onFrame?.(frame, connection) === true) return
      this.#answer(frame, connection)
    })
  }

  #answer(frame: unknown[], connection: ScriptedConnection): void {
    if (frame[0] === 'REQ') {
      for (const event of this.query(frame.slice(2) as Record<string, unknown>[])) connection.send(['EVENT', frame[1], event])
      connection.send(['EOSE', frame[1]])
    }
    if (frame[0] === 'EVENT') {
      const event = frame[1] as ScriptedEvent
      connection.send(['OK', event.id, true, ''])
      if (this.stored.some((known) => known.id === event.id)) return
      if (event.kind < 20_000 || event.kind >= 30_000) this.stored.push(event)
      for (const other of this.connections) {
        for (const [sub, filters] of other.subs) if (filters.some((filter) => matches(filter, event))) other.send(['EVENT', sub, event])
      }
    }
  }

  /** What is stored for the filters, newest first, each filter's limit applied. */
  query(filters: Record<string, unknown>[]): ScriptedEvent[] {
    const found = filters.flatMap((filter) =>
      this.stored
        .filter((event) => matches(filter, event))
        .sort((a, b) => b.created_at - a.created_at || (a.id < b.id ? -1 : 1))
        .slice(0, (filter['limit'] as number | undefined) ?? 10_000),
    )
    return [...new Set(found)]
  }
}

export function matches(filter: Record<string, unknown>, event: ScriptedEvent): boolean {
  const isAmong = (key: string, value: unknown) => !Array.isArray(filter[key]) || (filter[key] as unknown[]).includes(value)
  const isTagged = (key: string) => event.tags.some(([name, value]) => name === key.slice(1) && (filter[key] as unknown[]).includes(value))
  const since = (filter['since'] as number | undefined) ?? 0
  const until = (filter['until'] as number | undefined) ?? Number.POSITIVE_INFINITY
  return (
    isAmong('ids', event.id) &&
    isAmong('kinds', event.kind) &&
    isAmong('authors', event.pubkey) &&
    Object.keys(filter).every((key) => !key.startsWith('#') || isTagged(key)) &&
    event.created_at >= since &&
    event.created_at <= until
  )
}
