/** What the machines of a node are made of; each part takes of it what it needs. */
import type { Clock } from '../../base/clock.ts'
import type { RuntimesConfig } from '../../base/config-runtimes.ts'
import type { Logger } from '../../base/logger.ts'
import type { Keyring } from '../../nostr/types.ts'
import type { Store } from '../../store/store.ts'
import type { Commands } from './commands.ts'
import type { Creation } from './creation.ts'
import type { RelayDoors } from './doors.ts'
import type { LeaseDesk } from './lease-desk.ts'
import type { Market } from './market.ts'
import type { Notices } from './notices.ts'
import type { Offers } from './offers.ts'
import type { Runtimes } from './runtimes.ts'
import type { Substrates } from './substrates.ts'
import type { Views } from './views.ts'
import type { Volumes } from './volumes.ts'

export interface MachineDeps {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly config: () => RuntimesConfig
  readonly keyring: Keyring
  readonly substrates: Substrates
  readonly market: Market
  readonly offers: Offers
  readonly leases: LeaseDesk
  readonly notices: Notices
  /** Left out where no relay is to be reached. */
  readonly doors?: RelayDoors | undefined
  /** How often one that serves is asked whether it is well. */
  readonly healthEveryMs: number
  readonly runtimes: Runtimes
  readonly creation: Creation
  readonly views: Views
  readonly volumes: Volumes
  readonly commands: Commands
}
