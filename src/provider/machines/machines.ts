/** How commands come to the machines of this node, and what is said of them. */
import type { CommandEnvelope, ControlResult, ControlStatus } from '../../nostr/control/envelopes.ts'
import type { Command } from '../../store/commands.ts'

/** Tells whoever sent a command how it goes on. */
export type Emit = (status: ControlStatus) => void

export interface Handling {
  /**
   * One command of a requester whose key was verified by the caller. Statuses are given as they happen. The same
   * idempotency key again joins what is under way, or gives the same result from the store.
   * @param requester 64 hex digits
   * @throws ControlError, with the codes of docs/control-plane.md and no other error
   */
  handle(requester: string, envelope: CommandEnvelope, emit: Emit): Promise<ControlResult>
}

/** What brings commands to the machines of this node and takes what is said outside of them to tenants. */
export interface CommandTransport {
  /** Brings commands from here on, until `close`. */
  listen(machines: Handling): void
  close(): void
  /** A status outside of any command, as part of a commit. */
  notify(tenant: string, requestId: string, status: ControlStatus): Promise<readonly Command<unknown>[]>
}
