/** What every part of the wallet shares, and the names of its ledger accounts. */
import { hash } from 'node:crypto'
import type { Clock } from '../base/clock.ts'
import type { Config } from '../base/config.ts'
import type { Dialer } from '../base/dialer.ts'
import { stringify } from '../base/json.ts'
import type { Logger } from '../base/logger.ts'
import { randomUuid, systemRandom } from '../base/random.ts'
import type { Keyring } from '../nostr/types.ts'
import { restoreAccountOf } from '../store/money/proof-books.ts'
import type { Store } from '../store/store.ts'
import type { Crypto } from './ecash/crypto-pool.ts'
import type { Mints } from './mint/mints.ts'
import type { WalletOwner } from './types.ts'

export interface WalletContext {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly config: () => Config
  readonly keyring: Keyring
  readonly dialer: Dialer
  readonly crypto: Crypto
  readonly mints: Mints
  /** The prefix that invoices must have; undefined: any. */
  readonly invoiceNetwork: string | undefined
}

/** The ledger owner that a wallet's key stands for. */
export function accountOwner(owner: WalletOwner): string {
  return owner.kind === 'agent' ? `agent:${owner.pubkey}` : owner.kind
}

export const walletAccount = (owner: WalletOwner, mintUrl: string): string => `${accountOwner(owner)}/wallet/${mintUrl}`
export const heldAccount = (owner: WalletOwner, operationId: string): string => `${accountOwner(owner)}/held/${operationId}`
export const feeAccount = (owner: WalletOwner): string => `${accountOwner(owner)}/expense/fee`
/** Ecash that turned out to be spent elsewhere, as after restoring an old backup. */
export const lostAccount = (owner: WalletOwner): string => `${accountOwner(owner)}/expense/lost`
/** What a restore found, or found missing. */
export const restoreAccount = (owner: WalletOwner): string => restoreAccountOf(accountOwner(owner))

export const newId = (): string => randomUuid(systemRandom)

/** Of what a request means, so that the same key with another request is refused. */
export function requestDigest(kind: string, request: Readonly<Record<string, unknown>>): string {
  return hash('sha256', stringify([kind, request]))
}

export const msatsOf = (sats: bigint | number): bigint => BigInt(sats) * 1000n

/** `2026-01-31`, UTC. */
export const utcDay = (ms: number): string => new Date(ms).toISOString().slice(0, 10)
