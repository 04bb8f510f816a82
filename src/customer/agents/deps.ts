/** What managed agents and the talk with them are given. */
import type { Clock } from '../../base/clock.ts'
import type { Logger } from '../../base/logger.ts'
import type { Scope } from '../../base/scope.ts'
import type { Sessions } from '../../session/sessions.ts'
import type { Store } from '../../store/store.ts'
import type { Tenant } from '../machines/tenant.ts'

export interface AgentsDeps {
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly tenant: Pick<Tenant, 'send'>
  /** Of the customer key. */
  readonly owner: { readonly sessions: Pick<Sessions, 'create'>; listen(): void }
  /** The node itself, 64 hex digits: its machines are free and need no relay. */
  readonly ownPubkey: () => string
}
