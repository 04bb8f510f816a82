/** What jobs and leases say of their sales: what is sold, until when it is wanted, and in which words its payer is told. */
import type { Msats } from '../../base/amounts.ts'
import type { Command } from '../../store/commands.ts'
import type { SaleCause } from '../../store/keys.ts'
import type { BackReason, Payable, SaleTransport } from './machine.ts'

/** A sale as the row of its product shows it. */
export interface Sale extends Payable {
  readonly id: string
  readonly transport: SaleTransport
  readonly payerPubkey: string
  readonly mintUrl: string | null
  /** How often the refund that is on its way was sent. */
  readonly refundSends: number
  /** Whether the payer brought the refund about (called off, paid too late or too much): then the mint's fees are the payer's. */
  readonly isPayersDoing: boolean
}

/** What a step of the machine notes in the row. */
export interface SalePatch {
  readonly paidMsats?: Msats
  readonly refundMsats?: Msats
  readonly refundSends?: number
  readonly refundNextAt?: number | null
}

/** What the payer is told of a refund: its token, that it can't be made yet, or that the mint takes all of it. */
export type RefundWord =
  | { readonly type: 'token'; readonly token: string; readonly sends: number }
  | { readonly type: 'deferred' }
  | { readonly type: 'forgone'; readonly reason: string }

/** What one commit writes, and what follows from it in memory. */
export interface SaleStep {
  readonly commands: readonly Command<unknown>[]
  readonly done?: () => void
}

export interface Product<S extends Sale = Sale> {
  readonly type: SaleCause['type']
  get(id: string): S | undefined
  /** Those in `quoted` whose time to pay is over. */
  overdue(nowMs: number): readonly string[]
  /** Those in `refunding` that are to be sent, or sent again. */
  refundsDue(nowMs: number): readonly string[]
  /** How often a refund of it has begun. */
  refundsBegun(id: string): number
  paid(sale: S, patch: SalePatch, at: number): SaleStep | Promise<SaleStep>
  expired(sale: S, at: number): SaleStep
  /** From whatever state to `refunding`. */
  back(sale: S, why: BackReason, patch: SalePatch, at: number): SaleStep
  refunded(sale: S, reason: string, at: number): Command<unknown>
  /** What is known now of one whose state stays. */
  note(sale: S, patch: SalePatch, at: number): Command<unknown>
  tell(sale: S, word: RefundWord): Promise<readonly Command<unknown>[]>
  /** The wallet's word that a token whose outcome was open did not come. */
  tokenFailed(id: string, reason: string): Promise<void>
}
