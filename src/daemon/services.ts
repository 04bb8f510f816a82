/** What route handlers are given: the parts of the node, and, for routes that also work offline, what a closed node can tell. */
import type { Clock } from '../base/clock.ts'
import type { Config } from '../base/config.ts'
import type { Dialer } from '../base/dialer.ts'
import type { Logger } from '../base/logger.ts'
import type { Home } from '../base/paths.ts'
import type { Scope } from '../base/scope.ts'
import type { Identity } from '../nostr/keys/identity.ts'
import type { HomeKeyring } from '../nostr/keys/keyring.ts'
import type { Store } from '../store/store.ts'
import type { RuntimeCalls } from './machines/runtime-calls.ts'
import type { NodeParts } from './parts.ts'

/** Enough for a route marked `offline`: reads only. */
export interface ReadServices {
  readonly home: Home
  readonly network: 'sandbox' | 'live'
  readonly store: Store
  readonly clock: Clock
  config(): Config
}

/** The running node. A part that is off, locked or failed throws its own reason when it is asked for (`parts.wallets.get()`). */
export interface Services extends ReadServices {
  readonly logger: Logger
  readonly dialer: Dialer
  readonly identity: Identity
  readonly keyring: HomeKeyring
  readonly parts: Pick<
    NodeParts,
    | 'nostr'
    | 'bunker'
    | 'wallets'
    | 'zaps'
    | 'zapAddresses'
    | 'nwc'
    | 'lightning'
    | 'payouts'
    | 'requests'
    | 'alerts'
    | 'customer'
    | 'host'
    | 'machines'
    | 'tenant'
    | 'agents'
    | 'chat'
  >
  readonly runtimeCalls: RuntimeCalls
  /** Owns what routes have running. */
  readonly scope: Scope
}
