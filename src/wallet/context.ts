/** What every part of the wallet shares, and the names of its ledger accounts. */
import { hash } from 'node:crypto'
import { type Account, accountOf, accountOwner, type WalletOwner } from '../base/accounts.ts'
import type { Clock } from '../base/clock.ts'
import type { Config } from '../base/config.ts'
import type { Dialer } from '../base/dialer.ts'
import { stringify } from '../base/json.ts'
import type { Logger } from '../base/logger.ts'
import { type Random, randomUuid } from '../base/random.ts'
import type { Scope } from '../base/scope.ts'
import type { Keyring } from '../nostr/types.ts'
import type { Store } from '../store/store.ts'
import type { Crypto } from './ecash/crypto-pool.ts'
import type { FirstLook } from './mint/first-look.ts'
import type { Mints } from './mint/mints.ts'

export interface WalletContext {
  /** Owns the operations, and all that looks after them; what is asked of mints ends with it. */
  readonly scope: Scope
  readonly store: Store
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  readonly config: () => Config
  readonly keyring: Keyring
  readonly dialer: Dialer
  readonly crypto: Crypto
  readonly mints: Mints
  /** The prefix that invoices must have; undefined: any. */
  readonly invoiceNetwork: string | undefined
  /** Mints named at the start, which come on the list when they answer. */
  readonly expectedMints: readonly string[]
  readonly firstLook: FirstLook
}

export const walletAccount = (owner: WalletOwner, mintUrl: string): Account => accountOf(accountOwner(owner), 'wallet', mintUrl)
export const heldAccount = (owner: WalletOwner, operationId: string): Account => accountOf(accountOwner(owner), 'held', operationId)
export const feeAccount = (owner: WalletOwner): Account => accountOf(accountOwner(owner), 'expense', 'fee')
/** Ecash that turned out to be spent elsewhere, as after restoring an old backup. */
export const lostAccount = (owner: WalletOwner): Account => accountOf(accountOwner(owner), 'expense', 'lost')

export const newId = ({ random }: Pick<WalletContext, 'random'>): string => randomUuid(random)

/** Of what a request means, so that the same key with another request is refused. */
export function requestDigest(kind: string, request: Readonly<Record<string, unknown>>): string {
  return hash('sha256', stringify([kind, request]))
}

export const msatsOf = (sats: bigint | number): bigint => BigInt(sats) * 1000n
