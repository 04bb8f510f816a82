/** Restores of wallets, one at a time for each wallet and mint; and the check that none spends from an old backup unasked. */
import type { WalletOwner } from '../../base/accounts.ts'
import { KeyedQueue } from '../../base/keyed-queue.ts'
import { listProofs, oldestUnspentAt } from '../../store/money/proofs.ts'
import { getSetting, putSetting } from '../../store/settings.ts'
import type { WalletContext } from '../context.ts'
import { type Found, forgetSpent, restoreWallet } from './restore.ts'

/** Setting: ms since the epoch of the last restore of the database from a backup. */
export const RESTORED_AT_KEY = 'restored_at'
/** Setting: the restore after which this wallet asked this mint for all that it made since. */
const askedKey = (owner: WalletOwner, mintUrl: string): string => `restored_asked:${owner.pubkey}:${mintUrl}`

export class Restores {
  readonly #context: WalletContext
  readonly #queue = new KeyedQueue()
  /** Wallets and mints whose coins were checked since the restore, where all that was made since could not be asked for yet. */
  readonly #checked = new Set<string>()

  constructor(context: WalletContext) {
    this.#context = context
  }

  /** @throws mint_not_allowed, mint_unreachable, mint_rejected */
  restore(owner: WalletOwner, mintUrl: string): Promise<Found> {
    const { store, clock } = this.#context
    return this.#queue.run(askedKey(owner, mintUrl), async () => {
      const restoredAt = getSetting<number>(store, RESTORED_AT_KEY)
      const found = await restoreWallet(this.#context, owner, mintUrl)
      if (restoredAt !== undefined) await store.write(putSetting({ key: askedKey(owner, mintUrl), value: restoredAt, at: clock.now() }))
      return found
    })
  }

  /** Whether the database was put back from a backup and this wallet has not asked this mint since. */
  isDue(owner: WalletOwner, mintUrl: string): boolean {
    const { store } = this.#context
    const restoredAt = getSetting<number>(store, RESTORED_AT_KEY)
    return restoredAt !== undefined && getSetting<number>(store, askedKey(owner, mintUrl)) !== restoredAt
  }

  /** Before a spend: coins of a backup are held against their mint first. @throws mint_unreachable, mint_rejected */
  async ensureChecked(owner: WalletOwner, mintUrl: string): Promise<void> {
    const key = askedKey(owner, mintUrl)
    if (!this.isDue(owner, mintUrl) || this.#checked.has(key)) return
    await this.#queue.run(key, async () => {
      const { store } = this.#context
      const restoredAt = getSetting<number>(store, RESTORED_AT_KEY) ?? 0
      const { pubkey } = owner
      // What came in since the restore is younger than the backup: a wallet without old coins has nothing to ask about.
      if (this.isDue(owner, mintUrl) && (oldestUnspentAt(store, { pubkey, mintUrl }) ?? restoredAt) < restoredAt)
        await forgetSpent(this.#context, mintUrl, listProofs(store, { pubkey, mintUrl, state: 'unspent' }))
      this.#checked.add(key)
    })
  }
}
