/** What route handlers are given: the parts of the node, and, for routes that also work offline, what a closed node can tell. */
import type { Clock } from '../base/clock.ts'
import type { Config } from '../base/config.ts'
import type { Dialer } from '../base/dialer.ts'
import type { Logger } from '../base/logger.ts'
import type { Home } from '../base/paths.ts'
import type { Customer } from '../customer/customer.ts'
import type { Tenant } from '../customer/machines/tenant.ts'
import type { Host } from '../host/host.ts'
import type { Identity } from '../nostr/keys/identity.ts'
import type { HomeKeyring } from '../nostr/keys/keyring.ts'
import type { Nostr } from '../nostr/types.ts'
import type { Machines } from '../provider/machines/machines.ts'
import type { Store } from '../store/store.ts'
import type { OwnWallets } from '../wallet/wallets.ts'
import type { RuntimeCalls } from './machines/runtime-calls.ts'
import type { SandboxUrls } from './sandbox-child.ts'

/** Enough for a route marked `offline`: reads only. */
export interface ReadServices {
  readonly home: Home
  readonly network: 'sandbox' | 'live'
  readonly store: Store
  readonly clock: Clock
  config(): Config
}

/** The running node. A part that is off, locked or failed throws its own reason when it is asked for. */
export interface Services extends ReadServices {
  readonly logger: Logger
  readonly dialer: Dialer
  readonly identity: Identity
  readonly keyring: HomeKeyring
  /** Of a sandbox node: where its sandbox serves. */
  readonly sandboxUrls: SandboxUrls | undefined
  readonly nostr: Nostr
  readonly wallets: OwnWallets
  readonly customer: Customer
  readonly host: Host
  readonly machines: Machines
  readonly tenant: Tenant
  readonly runtimeCalls: RuntimeCalls
}
