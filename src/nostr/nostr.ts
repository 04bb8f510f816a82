/** The Nostr layer put together: relays, subscriptions, outbox, look-ups. */
import type { Config } from '../base/config.ts'
import type { Dialer } from '../base/dialer.ts'
import { messageOf } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Failure, Scope } from '../base/scope.ts'
import type { Store } from '../store/store.ts'
import { Outbox } from './outbox/outbox.ts'
import { Canary } from './reading/canary.ts'
import { Directory } from './reading/directory.ts'
import { listenRelays } from './reading/listen.ts'
import { queryRelays } from './reading/query.ts'
import { Subscriptions } from './reading/subscriptions.ts'
import { createVerifier, type Verifier } from './reading/verify.ts'
import { RelayPool } from './relay/pool.ts'
import type { Relay } from './relay/relay.ts'
import { relayUrl, relayUrls } from './relay/relay-url.ts'
import { startRetention } from './retention.ts'
import type { Keyring, Nostr, RelayHealth } from './types.ts'

export interface NostrDeps {
  /** Of this layer alone: closing it ends reading, then the outbox, then the connections. */
  readonly scope: Scope
  readonly store: Store
  readonly logger: Logger
  readonly dialer: Dialer
  readonly keyring: Keyring
  /** The node's own, named by the owner: exceptions of the dialer, and the only ones that the node's key is shown to unasked (NIP-42). */
  readonly relays: readonly string[]
  /** Where else lists and profiles of others are looked for. */
  readonly indexRelays?: readonly string[]
  /** For what is kept how long; nothing is removed without it. */
  readonly config?: () => Config
  readonly verifier?: Verifier
}

/** @throws relay_invalid */
export function createNostr(deps: NostrDeps): Nostr {
  const { scope, store, logger, dialer, keyring } = deps
  const relays = [...new Set(deps.relays.map(relayUrl))]
  for (const url of relays) dialer.allow(url, true)
  const indexRelays = relayUrls(deps.indexRelays ?? [])
  for (const url of indexRelays) dialer.allow(url, true)
  const verifier = deps.verifier ?? createVerifier()
  // In this order, since the last ends first: connections stay until nobody needs them.
  const pool = new RelayPool(relays, { scope: scope.child('relays'), dialer, logger, keyring })
  const outbox = new Outbox({ scope: scope.child('outbox'), store, logger, pool, keyring })
  const queries = { scope: scope.child('queries'), pool, verifier, keyring, ownRelays: relays }
  const directory = new Directory({
    scope: scope.child('directory', {
      onFailure: ({ error }) => logger.debug({ error: messageOf(error) }, 'a profile could not be stored'),
    }),
    store,
    logger,
    dialer,
    ownRelays: relays,
    indexRelays,
    query: (filters, options) => queryRelays(queries, filters, options),
  })
  const subscriptions = new Subscriptions({
    scope: scope.child('subscriptions'),
    store,
    logger,
    pool,
    verifier,
    keyring,
    ownRelays: relays,
  })

  const healthOf = (relay: Relay): RelayHealth => ({
    url: relay.url,
    state: relay.state,
    reason: relay.reason ?? subscriptions.reasonOn(relay.url),
    lastEventAt: relay.lastEventAt,
    cursorLagS: subscriptions.lagS(relay.url),
    outboxDepth: outbox.depth(relay.url),
    provenAt: relay.provenAt,
  })

  return {
    keyring,
    relays,
    verifier: verifier.name,
    start() {
      pool.start()
      subscriptions.start()
      outbox.start()
      for (const relay of pool.ownRelays()) {
        const canary = scope.child(`canary ${relay.url}`)
        new Canary({ scope: canary, relay, logger, keyring, onDeaf: () => subscriptions.reopen(relay.url) }).start()
      }
      const { config } = deps
      if (config === undefined) return
      const onFailure = ({ error }: Failure) => logger.warn({ error: messageOf(error) }, 'old rows could not be removed')
      startRetention({ scope: scope.child('retention', { onFailure }), store, config })
    },
    health: () => pool.ownRelays().map(healthOf),
    subscribe: (spec) => subscriptions.open(spec),
    async query(filters, options) {
      const { events, complete } = await queryRelays(queries, filters, options)
      return { events, complete }
    },
    listen: (spec) => listenRelays(queries, spec),
    nudgeOutbox: () => outbox.nudge(),
    onPublished: (keyPrefix, handler) => outbox.listen('accepted', keyPrefix, ({ key, eventId }) => handler(key, eventId)),
    onGivenUp: (keyPrefix, handler) => outbox.listen('given_up', keyPrefix, ({ key, why }) => handler(key, why ?? 'no relay took it')),
    relaysToReach: (pubkey, hints) => directory.relaysToReach(pubkey, hints),
    dmRelaysOf: (pubkey, hints) => directory.dmRelaysOf(pubkey, hints),
    newestOf: (pubkey, kinds, relays) => directory.newestOf(pubkey, kinds, relays),
    profileOf: (pubkey) => directory.profileOf(pubkey),
  }
}
