/** The Nostr layer put together: relays, subscriptions, outbox, look-ups. */
import type { Clock } from '../base/clock.ts'
import type { Config } from '../base/config.ts'
import type { Dialer } from '../base/dialer.ts'
import type { Logger } from '../base/logger.ts'
import type { Store } from '../store/store.ts'
import { Outbox } from './outbox/outbox.ts'
import { Canary } from './reading/canary.ts'
import { Directory } from './reading/directory.ts'
import { listenRelays, queryRelays } from './reading/query.ts'
import { Subscriptions } from './reading/subscriptions.ts'
import { createVerifier, type Verifier } from './reading/verify.ts'
import { RelayPool } from './relay/pool.ts'
import type { Relay } from './relay/relay.ts'
import { relayUrl, relayUrls } from './relay/relay-url.ts'
import { startRetention } from './retention.ts'
import type { Keyring, Nostr, RelayHealth } from './types.ts'

export interface NostrDeps {
  readonly store: Store
  readonly clock: Clock
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
  const { store, clock, logger, dialer, keyring } = deps
  const relays = [...new Set(deps.relays.map(relayUrl))]
  for (const url of relays) dialer.allow(url, true)
  const indexRelays = relayUrls(deps.indexRelays ?? [])
  for (const url of indexRelays) dialer.allow(url, true)
  const verifier = deps.verifier ?? createVerifier()
  const pool = new RelayPool(relays, { dialer, clock, logger, keyring })
  const subscriptions = new Subscriptions({ store, clock, logger, pool, verifier, keyring, ownRelays: relays })
  const outbox = new Outbox({ store, clock, logger, pool, keyring })
  const lookups = { clock, pool, verifier, keyring, ownRelays: relays }
  const directory = new Directory({
    store,
    clock,
    logger,
    dialer,
    ownRelays: relays,
    indexRelays: () => indexRelays,
    query: (filters, options) => queryRelays(lookups, filters, options),
  })
  let canaries: Canary[] = []
  let stopRetention = () => {}

  const healthOf = (relay: Relay): RelayHealth => ({
    url: relay.url,
    state: relay.state,
    reason: relay.reason ?? subscriptions.reasonOn(relay.url),
    lastEventAt: relay.lastEventAt,
    cursorLagS: subscriptions.lagS(relay.url),
    outboxDepth: outbox.depth(relay.url),
  })

  return {
    keyring,
    relays,
    verifier: verifier.name,
    start() {
      pool.start()
      subscriptions.start()
      outbox.start()
      canaries = pool
        .ownRelays()
        .map((relay) => new Canary({ relay, clock, logger, keyring, onDeaf: () => subscriptions.reopen(relay.url) }))
      if (deps.config !== undefined) stopRetention = startRetention({ store, clock, logger, config: deps.config })
    },
    async close() {
      stopRetention()
      for (const canary of canaries) canary.close()
      await subscriptions.close()
      await outbox.close()
      pool.close()
    },
    health: () => pool.ownRelays().map(healthOf),
    subscribe: (spec) => subscriptions.open(spec),
    async query(filters, options) {
      const { events, complete } = await queryRelays(lookups, filters, options)
      return { events, complete }
    },
    listen: (spec) => listenRelays(lookups, spec),
    nudgeOutbox: () => outbox.nudge(),
    onPublished: (keyPrefix, handler) => outbox.listen('accepted', keyPrefix, ({ key, eventId }) => handler(key, eventId)),
    onGivenUp: (keyPrefix, handler) => outbox.listen('given_up', keyPrefix, ({ key, why }) => handler(key, why ?? 'no relay took it')),
    relaysToReach: (pubkey, hints) => directory.relaysToReach(pubkey, hints),
    dmRelaysOf: (pubkey, hints) => directory.dmRelaysOf(pubkey, hints),
    newestOf: (pubkey, kinds, relays) => directory.newestOf(pubkey, kinds, relays),
    profileOf: (pubkey) => directory.profileOf(pubkey),
  }
}
