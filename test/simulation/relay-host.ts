/** The core of the sandbox's relay as a host of the network in memory. */
import { relayDocument } from '../../src/sandbox/relay/limits.ts'
import type { Relay } from '../../src/sandbox/relay/relay.ts'
import type { Host } from './network.ts'

export function relayHost(relay: Relay): Host {
  return {
    answer: () => ({ status: 200, headers: {}, text: JSON.stringify(relayDocument()) }),
    accept(peer) {
      const connection = relay.connect(peer)
      return { receive: (text) => connection.receive(text), close: () => relay.disconnect(connection) }
    },
  }
}
