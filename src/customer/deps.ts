/** What buying is given; each file takes of it what it needs. */
import type { NetworkName } from '../base/advice.ts'
import type { Clock } from '../base/clock.ts'
import type { Config } from '../base/config.ts'
import type { Logger } from '../base/logger.ts'
import type { Scope } from '../base/scope.ts'
import type { Nostr } from '../nostr/types.ts'
import type { Store } from '../store/store.ts'
import type { Wallets } from '../wallet/types.ts'

export interface CustomerDeps {
  /** Owns what runs for purchases and rentals. */
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly nostr: Nostr
  readonly wallets: Wallets
  /** Whose next steps are told. */
  readonly network?: NetworkName
  readonly config: () => Config
}
