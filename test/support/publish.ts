import type { NostrEvent } from '../../src/nostr/types.ts'

/** Gives an event to a relay as any client does, without our outbox. */
export async function publishTo(relayUrl: string, event: NostrEvent): Promise<void> {
  const socket = new WebSocket(relayUrl)
  await new Promise((resolve) => socket.addEventListener('open', resolve))
  const taken = new Promise((resolve) => socket.addEventListener('message', resolve))
  socket.send(JSON.stringify(['EVENT', event]))
  await taken
  socket.close()
}
