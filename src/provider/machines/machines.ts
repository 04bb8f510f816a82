/** The machines of this node as its callers see them: one service behind the Nostr control plane and the local routes. */
import type { LeaseState, RuntimeState } from '../../base/states.ts'
import type { CommandEnvelope, ControlResult, ControlStatus } from '../../nostr/control/envelopes.ts'
import type { ControlProtocol, ControlProvider } from '../../nostr/control/vocabulary.ts'
import type { Command } from '../../store/commands.ts'

/** Tells whoever sent a command how it goes on. */
export type Emit = (status: ControlStatus) => void

/** What brings commands to the machines of this node and takes what is said outside of them to tenants. */
export interface CommandTransport {
  /** Brings commands from here on, until `close`. */
  listen(machines: Pick<Machines, 'handle'>): void
  close(): void
  /** A status outside of any command, as part of a commit. */
  notify(tenant: string, requestId: string, status: ControlStatus): readonly Command<unknown>[]
}

export interface SubstrateStatus {
  readonly provider: ControlProvider
  readonly usable: boolean
  readonly isolated: boolean
  readonly reason?: string
  readonly nextStep?: string
}

export interface OfferStatus {
  readonly runtimeClass: string
  readonly provider: ControlProvider
  readonly region: string
  readonly protocols: readonly ControlProtocol[]
  readonly priceMsatsPerHour: bigint
  readonly free: number
  readonly total: number
  /** Whether it is announced to strangers; if not, why. */
  readonly published: boolean
  readonly reason?: string
}

export interface LeaseStatus {
  readonly id: string
  readonly runtimeId: string
  readonly tenant: string
  readonly state: LeaseState
  /** The price; of one that is refunded what goes back. */
  readonly amountMsats: bigint
  /** Milliseconds since the epoch; null before it began. */
  readonly endsAt: number | null
}

export interface MachinesStatus {
  readonly state: 'ok' | 'degraded' | 'off'
  readonly reason?: string
  readonly substrates: readonly SubstrateStatus[]
  readonly offers: readonly OfferStatus[]
  /** Those that are not over. */
  readonly leases: readonly LeaseStatus[]
  /** Runtimes by state, those that are gone left out. */
  readonly counts: Partial<Record<RuntimeState, number>>
}

export interface Machines {
  /** Looks at the substrates, goes on with what a restart left open, sweeps orphans, then publishes offers. @throws locked */
  start(): Promise<void>
  /** Takes nothing new; runtimes go on, what is under way is taken up again at the next start. */
  close(): Promise<void>
  status(): MachinesStatus
  /** Tries whether the substrates hold runtimes to their sizes, which takes seconds; `status` then says what did not. Never rejects. */
  proveSizes(): Promise<void>
  /** Takes the configuration as it is now: classes, prices, allowlist. */
  reload(): Promise<void>
  /** Takes the offers back from the relays. */
  withdraw(): Promise<void>
  /**
   * One command of a requester whose key was verified by the caller. Statuses are given as they happen. The same
   * idempotency key again joins what is under way, or gives the same result from the store.
   * @param requester 64 hex digits
   * @throws ControlError, with the codes of docs/control-plane.md and no other error
   */
  handle(requester: string, envelope: CommandEnvelope, emit: Emit): Promise<ControlResult>
}
