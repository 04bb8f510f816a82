/** Stands between clients and a relay, lets everything through, and keeps each frame: what whoever runs the relay sees. */
import { createServer } from 'node:http'
import { onTestFinished } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'

export interface TappedEvent {
  readonly id: string
  readonly kind: number
  readonly pubkey: string
  readonly tags: readonly string[][]
}

export interface RelayTap {
  readonly url: string
  /** Of both directions, in order. */
  readonly frames: readonly string[]
  /** That clients sent, each once. */
  events(): TappedEvent[]
}

/** @param relayUrl ws:// */
export async function tapRelay(relayUrl: string): Promise<RelayTap> {
  const frames: string[] = []
  const server = createServer((request, response) => {
    // What the relay says of itself (NIP-11).
    void fetch(relayUrl.replace(/^ws/, 'http'), { headers: { accept: request.headers.accept ?? '*/*' } }).then(async (answer) => {
      response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? 'text/plain' }).end(await answer.text())
    })
  })
  const sockets = new WebSocketServer({ server })
  sockets.on('connection', (client) => {
    const relay = new WebSocket(relayUrl)
    const waiting: string[] = []
    client.on('message', (data) => {
      const frame = String(data)
      frames.push(frame)
      if (relay.readyState === WebSocket.OPEN) relay.send(frame)
      else waiting.push(frame)
    })
    relay.on('open', () => {
      for (const frame of waiting) relay.send(frame)
    })
    relay.on('message', (data) => {
      frames.push(String(data))
      client.send(String(data))
    })
    for (const [one, other] of [
      [client, relay],
      [relay, client],
    ] as const) {
      one.on('close', () => other.close())
      one.on('error', () => other.terminate())
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(async () => {
    for (const client of sockets.clients) client.terminate()
    server.closeAllConnections()
    await new Promise<void>((resolve) => server.close(() => resolve()))
  })
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return {
    url: `ws://127.0.0.1:${address.port}`,
    frames,
    events: () => {
      const sent = frames.flatMap((frame) => {
        const [type, event] = JSON.parse(frame) as [string, TappedEvent]
        return type === 'EVENT' && typeof event === 'object' ? [[event.id, event] as const] : []
      })
      return [...new Map(sent).values()]
    },
  }
}
