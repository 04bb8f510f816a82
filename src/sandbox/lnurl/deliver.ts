/** Hands a receipt to the relays that a zap request names: the sandbox's world is this machine, so only those on loopback. */
import { WebSocket } from 'ws'
import type { Clock } from '../../base/clock.ts'
import { parseJson } from '../../base/json.ts'
import type { NostrEvent } from '../nostr-event.ts'

const MAX_RELAYS = 5
const TIMEOUT_MS = 2000
const MAX_PAYLOAD = 64 * 1024

/** The relays of a zap request that may be told, each once. */
export function relaysNamed(request: Pick<NostrEvent, 'tags'>, except: string): string[] {
  const named = request.tags.find((tag) => tag[0] === 'relays')?.slice(1) ?? []
  const urls = named.map((text) => URL.parse(text)).filter((url) => url !== null && isLoopback(url))
  const hrefs = urls.map((url) => url?.href ?? '').filter((href) => href !== URL.parse(except)?.href)
  return [...new Set(hrefs)].slice(0, MAX_RELAYS)
}

function isLoopback({ protocol, hostname }: URL): boolean {
  return (
    (protocol === 'ws:' || protocol === 'wss:') &&
    (hostname === 'localhost' || hostname === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(hostname))
  )
}

/** Resolves when the relay answered OK, whatever it says of the event. @throws what kept it from that, after a few seconds at most */
export async function deliver(url: string, event: NostrEvent, clock: Clock): Promise<void> {
  const socket = new WebSocket(url, {
    handshakeTimeout: TIMEOUT_MS,
    maxPayload: MAX_PAYLOAD,
    perMessageDeflate: false,
    followRedirects: false,
  })
  let cancel = () => {}
  try {
    await new Promise<void>((resolve, reject) => {
      cancel = clock.after(TIMEOUT_MS, () => reject(new Error('no answer')))
      socket.on('open', () => socket.send(JSON.stringify(['EVENT', event])))
      socket.on('error', reject)
      socket.on('close', () => reject(new Error('the connection ended')))
      socket.on('message', (data) => {
        const message = parseJson(String(data))
        if (Array.isArray(message) && message[0] === 'OK' && message[1] === event.id) resolve()
      })
    })
  } finally {
    cancel()
    socket.terminate()
  }
}
