/** What the rest of Pylon asks of the money layer. Amounts are bigint sats unless a name says msats. */
import type { Account, WalletOwner } from '../base/accounts.ts'
import type { Sats } from '../base/amounts.ts'
import type { LocalSigner } from '../nostr/types.ts'
import type { Cause } from '../store/money/ledger.ts'
import type { Spend } from './policy/spends.ts'

export type { Spend } from './policy/spends.ts'

/** Every spend names a key of its own: the same key with the same request is the same operation, for ever. */
interface Operation {
  readonly idempotencyKey: string
  readonly cause: Cause
}

export interface InvoiceRequest extends Operation {
  readonly amountSats: Sats
  readonly description?: string
  readonly mintUrl?: string
  /** Where the value is credited once it is ours, e.g. `node/deposit/job:<id>`. */
  readonly creditAccount: Account
  /** Milliseconds since the epoch after which we no longer wait (a late payment is still claimed). */
  readonly expiresAt?: number
  /** For somebody who has not paid here before: the mint is asked about all of these together only so often. */
  readonly ofStranger?: boolean
}

export interface Invoice {
  readonly id: string
  readonly request: string
  readonly quoteId: string
  readonly paymentHash: string
  readonly amountSats: Sats
  readonly mintUrl: string
  /** Milliseconds since the epoch. */
  readonly expiresAt: number
  /** `settled`: the ecash is in the wallet and the ledger is posted. */
  readonly state: 'unpaid' | 'paid' | 'settled' | 'expired'
}

export interface TokenInspection {
  readonly mintUrl: string
  readonly unit: string
  readonly faceSats: Sats
  /** Less the input fee of the mint's keysets: what we would hold. */
  readonly netSats: Sats
  /** `none`: anyone who has it can spend it, as also where a lock has run out. `ours`: we can. `other`: we can't. */
  readonly lock: 'none' | 'ours' | 'other'
  /** Of `ours`: whether the wallet's own key opens it, which is the one that is announced; else another key of ours does. */
  readonly byWalletKey?: boolean
  /** Of `other`: why, to be put behind a colon. */
  readonly lockReason?: string
}

export interface ReceiveRequest extends Operation {
  readonly token: string
  readonly creditAccount: Account
  /** Refused with token_amount before anything is done when the net is below. */
  readonly minNetSats?: Sats
  /** Accept only tokens locked to our key. */
  readonly requireLock?: boolean
  /** The key alone says what this is: one that failed is tried again as it is asked now, one that is under way or done is as it was. What a mint refused once it may take later. */
  readonly retryFailed?: boolean
  /** Keys beside those of the wallet that locks of the token may name; needed until it has been prepared, and never stored. */
  readonly keys?: readonly LocalSigner[]
}

export interface ReceivedToken {
  readonly amountSats: Sats
  readonly mintUrl: string
  /** How much of it lay in wallets of this home before, as after restoring a backup that is older than the token: swapped, not gained. */
  readonly heldBeforeSats?: Sats
}

export interface SendRequest extends Operation {
  readonly amountSats: Sats
  readonly mintUrl?: string
  /** Compressed public key (02 or 03 + 64 hex) that alone may spend it. */
  readonly lockTo?: string
  /** Adds NUT-11 locktime and our refund key: after this (ms since the epoch) we can take it back. */
  readonly refundAfter?: number
  /** The most that may leave beyond the amount, whatever for. */
  readonly maxFeeSats?: Sats
  /** What the value is for; debited on success, e.g. `customer/expense/job`. */
  readonly debitAccount: Account
  /** Add what the receiver loses to input fees, so that the net is `amountSats`. */
  readonly coverReceiverFee?: boolean
  /** Where the wallet holds the amount but not the mint's fee on top, send what is left after the fee: `SentToken.amountSats` says how much. */
  readonly lessFeeIfShort?: boolean
  /** What the mint takes for making the token comes off it: in all no more than the amount leaves. */
  readonly lessFee?: boolean
  /** The same for what must go out in the end, as a refund: what failed surely gave nothing away. */
  readonly retryFailed?: boolean
  /** Spend also what is owed to customers. */
  readonly includeOwed?: boolean
  /** Where no mint holds enough, sats of the owner's own Lightning wallet are brought to one first. */
  readonly fillIfShort?: boolean
}

export interface SentToken {
  readonly operationId: string
  readonly token: string
  readonly amountSats: Sats
  /** What left the wallet beyond the amount: the mint's fees, of swaps for it too, and what was added for the receiver's fee. */
  readonly feeSats: Sats
  readonly mintUrl: string
  /** `claimed`: the receiver spent it. `reclaimed`: we took it back. */
  readonly state: 'pending' | 'claimed' | 'reclaimed'
}

export interface PayRequest extends Operation {
  readonly request: string
  /** The amount we agreed to; refused with invoice_invalid when the invoice says another. */
  readonly amountMsats?: bigint
  /** The most that may leave beyond the amount, whatever for: routing, inputs, swaps. Undefined: what the configuration allows for routing, and the mint's own fees. */
  readonly maxFeeSats?: Sats
  readonly debitAccount: Account
  /** Spend also what is owed to customers. */
  readonly includeOwed?: boolean
  /** By which way: a mint, or the owner's own Lightning wallet, which sets its own fee limit. */
  readonly from?: 'mint' | 'nwc'
}

/**
 * Throws payment_failed when surely nothing was spent but the fee of swaps, payment_in_progress and invoice_paid when another
 * payment of this home has the invoice (an owner who asks again joins it); resolves `unknown` when nobody can say yet (the
 * value stays held, recovery goes on). `feeSats` is all that left beyond the amount.
 */
export type PayResult =
  | { readonly state: 'paid'; readonly operationId: string; readonly preimage: string; readonly feeSats: Sats }
  | { readonly state: 'unknown'; readonly operationId: string }

export interface Balance {
  readonly balanceSats: Sats
  /** How much of it customers paid for jobs and leases that are not settled: it may have to go back, so only a refund spends it unasked. */
  readonly owedSats: Sats
  /** In operations whose outcome is unknown, and paid for quotes that their mints have not issued. */
  readonly atRiskSats: Sats
  readonly mints: readonly {
    readonly url: string
    readonly balanceSats: Sats
    readonly owedSats: Sats
    readonly state: 'ok' | 'down'
    readonly reason?: string
  }[]
}

export interface TransferOptions {
  /** Else the mint where the giver holds most. */
  readonly mintUrl?: string
  /** What it is for; the transfer itself by default. */
  readonly cause?: Cause
  /** The most that it may cost in fees. */
  readonly maxFeeSats?: Sats
  /** Where the mint that is named holds too little, sats of others are brought to it first; without a name that is so anyway. */
  readonly fillIfShort?: boolean
  /** Whose limits bind it; by default none does, since it stays in this home. */
  readonly spend?: Spend
}

export interface Wallet {
  readonly owner: WalletOwner
  /** The compressed key (02 + 64 hex) that tokens for us are locked to. */
  readonly lockPubkey: string
  balance(): Balance
  createInvoice(request: InvoiceRequest): Promise<Invoice>
  invoice(idempotencyKey: string): Invoice | undefined
  /** Reads a token without contacting anyone but allowlisted mints. @throws token_invalid, mint_not_allowed */
  inspectToken(token: string): Promise<TokenInspection>
  /** @throws token_invalid, token_spent, token_locked, token_amount, mint_not_allowed, payment_unknown */
  receiveToken(request: ReceiveRequest): Promise<ReceivedToken>
  /**
   * @param spend whose limits bind it; where the cause says that, it may be left out: the owner's own, a purchase, a refund
   * @throws insufficient_funds, funds_owed, budget_exceeded, spend_refused, mint_rejected, payment_unknown
   */
  sendToken(request: SendRequest, spend?: Spend): Promise<SentToken>
  sentToken(idempotencyKey: string): SentToken | undefined
  /** Takes a sent token back when the mint says it is unspent. */
  reclaim(idempotencyKey: string): Promise<SentToken>
  pay(request: PayRequest, spend?: Spend): Promise<PayResult>
  /** State of a payment made earlier under this key. */
  payment(idempotencyKey: string): PayResult | { readonly state: 'failed'; readonly reason: string } | undefined
}

/** What the wallet tells the rest once it is committed; delivered at least once, also after a restart. */
export type WalletEvent = Operation & { readonly owner: WalletOwner } & (
    | { readonly type: 'invoice_settled' | 'token_received'; readonly amountSats: Sats }
    | { readonly type: 'payment_settled'; readonly feeSats: Sats }
    | { readonly type: 'receive_failed' | 'payment_failed'; readonly reason: string }
    | { readonly type: 'sent_claimed' }
  )

export interface MintInfo {
  readonly url: string
  readonly capSats: Sats
  readonly addedAt: number
}

/** The owner's Lightning wallet elsewhere as a way for sats to move beside the mints; the node's own wallet alone uses it. */
export interface LightningRail {
  readonly isConnected: boolean
  /** Whether this invoice is to be made there. */
  receives(owner: WalletOwner, request: InvoiceRequest): boolean
  /** @throws nwc_missing, nwc_unreachable, nwc_refused, invoice_invalid, idempotency_conflict */
  createInvoice(owner: WalletOwner, request: InvoiceRequest): Promise<Invoice>
  invoice(idempotencyKey: string): Invoice | undefined
  /** @throws as Wallet.pay, and nwc_missing, nwc_unreachable, nwc_refused */
  pay(owner: WalletOwner, request: PayRequest): Promise<PayResult>
  payment(idempotencyKey: string): ReturnType<Wallet['payment']>
  /** Pays an invoice of the wallet's own mint, so that a move that lacks sats there can be tried again. @throws nwc_missing, payment_unknown, payment_failed */
  fill(wallet: Wallet, request: SendRequest): Promise<void>
}

export interface Wallets {
  /** The wallet of a key of this home; opened on first use. */
  of(owner: WalletOwner): Wallet
  mints(): readonly MintInfo[]
  /** Asks the mint for what Pylon needs (NUT-04, 05, 07, 09, 10, 11, 12, 20; unit sat), then lists it. @throws mint_incompatible, mint_moved, mint_unreachable, address_refused */
  addMint(url: string, capSats?: Sats): Promise<MintInfo>
  /** @throws mint_in_use */
  removeMint(url: string): Promise<void>
  /** One operation between two wallets of this home, with the coins for it; what it cost in fees. @throws payment_failed where that is too much */
  transfer(from: WalletOwner, to: WalletOwner, amountSats: Sats, idempotencyKey: string, options?: TransferOptions): Promise<Sats>
  /** Finds ecash of the wallet's seed that the database does not know (NUT-09, 13), at one listed mint or all of them; the sats found. */
  restore(owner: WalletOwner, mintUrl?: string): Promise<Sats>
  /** Resumes every unfinished operation; called once at start. Then watches quotes, sent tokens and unknown payments. */
  start(): Promise<void>
  onEvent(causeType: Cause['type'], handler: (event: WalletEvent) => Promise<void>): void
}
