/** WebSockets to a service that the owner configured: over its Unix socket, or over TLS with the owner's certificates. */
import { Agent } from 'node:https'
import { WebSocket } from 'ws'
import { PylonError } from './errors.ts'
import type { PinnedTls } from './pinned-tls.ts'
import { pinnedTlsOptions } from './pinned-tls.ts'

export type { WebSocket } from 'ws'

export type ServiceSocketTarget =
  | { readonly socketPath: string }
  /** `https://host:port`, without a path. */
  | { readonly origin: string; readonly tls: PinnedTls }

const HANDSHAKE_TIMEOUT_MS = 10_000

/**
 * An opening socket; failures come as its `error` event.
 * @param path with its query, such as `/1.0/events?type=operation`.
 * @throws address_refused for a socket path that the URL form of ws cannot carry (a colon in it).
 */
export function connectServiceWebSocket(target: ServiceSocketTarget, path: string, maxPayloadBytes = 1_048_576): WebSocket {
  const common = { maxPayload: maxPayloadBytes, handshakeTimeout: HANDSHAKE_TIMEOUT_MS, perMessageDeflate: false, followRedirects: false }
  if ('socketPath' in target) {
    if (target.socketPath.includes(':')) {
      throw new PylonError('address_refused', `${target.socketPath} has a colon, which a socket path may not have here: use another path.`)
    }
    return new WebSocket(`ws+unix:${target.socketPath}:${path}`, common)
  }
  return new WebSocket(`${target.origin.replace(/^https:/, 'wss:')}${path}`, { ...common, agent: new Agent(pinnedTlsOptions(target.tls)) })
}
